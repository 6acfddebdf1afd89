"""Rows of a ledger folder that are packed: chunks of a fixed number of rows, each one Parquet file beside the columns.

    <folder>/000017.parquet       rows 17 x CHUNK_ROWS to 18 x CHUNK_ROWS - 1 of all columns
    <folder>/last-000018.parquet  all rows behind the 18 chunks; nobody writes here any more, and the columns are gone

Rules:
- A file appears by a rename, whole. Where there is one its rows are read from it; the disk under the same rows of the
  `.npy` columns may have been given back, and they read as zero there (packing.py).
- Times and positions are stored as differences (DELTA_BINARY_PACKED) under zstd, what has few values as a dictionary
  under lz4, which takes less to begin with. At 50,000 messages a second over three places that comes to 4.1 bytes a
  send (39 unpacked) and 3.5 a receipt (35), for 50 ns of CPU a row to pack and 20 to read all columns once; numpy's
  compressed `.npz` takes 8.6 and 5.9 bytes, 1.1 us and 70 to 130 ns.
- A row group is as long as a slice of a judge, and read column by column when a row of it is asked for. At most _KEPT
  of these are held in memory, a megabyte each, whatever the number of ledgers and threads.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mqtest.columns import Column, load_columns, used_rows
from mqtest.errors import LedgerError

GROUP_ROWS = 1 << 17
CHUNK_ROWS = 1 << 20
"""a multiple of GROUP_ROWS; both are part of the format"""
_KEPT = 64
_TOTALS = b"mqtest.totals"
_LAST = "last-"


class Chunk(NamedTuple):
    """A packed chunk."""

    path: Path
    written_ns: int
    """by the clock of its file system"""


def packed(folder: Path) -> dict[int, Chunk]:
    """Number of each packed chunk -> where it is, in order; the last of a folder that is closed among them."""
    found = {}
    for path in folder.glob("*.parquet"):
        number = path.stem.removeprefix(_LAST)
        if number.isdigit():
            found[int(number)] = Chunk(path, path.stat().st_mtime_ns)
    return dict(sorted(found.items()))


def is_packed(folder: Path, row: int) -> bool:
    """Whether this row stands in a packed chunk of a folder that is not closed."""
    return _path(folder, row // CHUNK_ROWS).exists()


def is_closed(chunks: Mapping[int, Chunk]) -> bool:
    """Whether all rows of the folder are packed, and the columns not needed."""
    return any(chunk.path.name.startswith(_LAST) for chunk in chunks.values())


def unpacked(rows: int, chunks: Iterable[int]) -> list[slice]:
    """The rows of a folder that are in no packed chunk, in parts of at most CHUNK_ROWS."""
    chunks = set(chunks)
    starts = range(0, rows, CHUNK_ROWS)
    return [slice(first, min(first + CHUNK_ROWS, rows)) for first in starts if first // CHUNK_ROWS not in chunks]


def write(
    folder: Path, number: int, columns: Mapping[str, NDArray[Any]], totals: Mapping[str, object], *, last: bool = False
) -> None:
    """Pack the rows of one chunk, on the disk and under its name when this returns; `totals`: what they come to, as
    JSON. Raises LedgerError when the disk is full; nothing is left then."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = _path(folder, number, last=last)
    part = path.with_suffix(".part")
    fields = [pa.field(name, pa.from_numpy_dtype(column.dtype), nullable=False) for name, column in columns.items()]
    table = pa.table(dict(columns), schema=pa.schema(fields, metadata={_TOTALS: json.dumps(totals)}))
    wide = [name for name, column in columns.items() if column.itemsize == 8]
    try:
        with part.open("wb") as file:
            pq.write_table(
                table,
                file,
                row_group_size=GROUP_ROWS,
                compression={name: "zstd" if name in wide else "lz4" for name in columns},
                use_dictionary=[name for name in columns if name not in wide],
                column_encoding=dict.fromkeys(wide, "DELTA_BINARY_PACKED"),
                write_statistics=False,
                write_page_checksum=True,
            )
            file.flush()
            os.fsync(file.fileno())
        part.rename(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise LedgerError(f"{path}: {error.strerror or error}") from error


def totals(chunk: Chunk) -> dict[str, Any]:
    """What the rows of a packed chunk come to, as `write` was told. Raises LedgerError where the file is damaged."""
    said: dict[str, Any] = json.loads(_metadata(chunk).metadata[_TOTALS])
    return said


def load(folder: Path, columns: Mapping[str, str], commits: Iterable[str]) -> dict[str, PackedColumn]:
    """The columns of a folder that has packed chunks, trimmed to the rows at which one of `commits` is set. Raises
    LedgerError naming a file that is missing, or shorter than the others."""
    chunks = packed(folder)
    if is_closed(chunks):
        number = max(chunks)
        for missing in set(range(number)) - set(chunks):
            raise LedgerError(f"{_path(folder, missing)} is missing")
        rows = number * CHUNK_ROWS + _metadata(chunks[number]).num_rows
        return {name: PackedColumn(name, dtype, rows, chunks, None) for name, dtype in columns.items()}
    maps = load_columns(folder, columns)
    loaded = {name: PackedColumn(name, columns[name], len(column), chunks, column) for name, column in maps.items()}
    rows = used_rows(*(loaded[name] for name in commits))
    for name, column in maps.items():
        if len(column) < rows:
            raise LedgerError(f"{folder / name}.npy is truncated: {len(column)} of {rows} rows")
    return {name: PackedColumn(name, dtype, rows, chunks, maps[name]) for name, dtype in columns.items()}


class PackedColumn:
    """One column of such a folder: `column[slice]` and `column[integer array]` read what they need, on any thread."""

    def __init__(
        self, name: str, dtype: str, rows: int, chunks: Mapping[int, Chunk], plain: NDArray[Any] | None
    ) -> None:
        """`plain`: the mapped column, which has the rows that are not packed; None: the folder is closed."""
        self.dtype = np.dtype(dtype)
        self._name = name
        self._rows = rows
        self._chunks = chunks
        self._plain = plain

    def __len__(self) -> int:
        return self._rows

    def __getitem__(self, rows: slice | NDArray[Any]) -> NDArray[Any]:
        if isinstance(rows, slice):
            return self._slice(*rows.indices(self._rows))
        found = np.empty(len(rows), dtype=self.dtype)
        groups = rows // GROUP_ROWS
        order = np.argsort(groups, kind="stable")
        for mine in np.split(order, np.flatnonzero(np.diff(groups[order])) + 1):
            if len(mine):
                group = int(groups[mine[0]])
                found[mine] = self._group(group)[rows[mine] - group * GROUP_ROWS]
        return found

    def _slice(self, start: int, stop: int, step: int) -> NDArray[Any]:
        if stop <= start:
            return np.zeros(0, dtype=self.dtype)
        first, last = start // GROUP_ROWS, (stop - 1) // GROUP_ROWS
        parts = [self._group(group) for group in range(first, last + 1)]
        whole = parts[0] if len(parts) == 1 else np.concatenate(parts)
        return whole[start - first * GROUP_ROWS : stop - first * GROUP_ROWS : step]

    def _group(self, number: int) -> NDArray[Any]:
        chunk, within = divmod(number, CHUNK_ROWS // GROUP_ROWS)
        if chunk in self._chunks:
            return _read(self._chunks[chunk], within, self._name)
        assert self._plain is not None
        return self._plain[number * GROUP_ROWS : (number + 1) * GROUP_ROWS]


_: type[Column] = PackedColumn


@lru_cache(maxsize=_KEPT)
def _read(chunk: Chunk, group: int, name: str) -> NDArray[Any]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(chunk.path, metadata=_metadata(chunk), page_checksum_verification=True) as file:
            read = file.read_row_group(group, columns=[name], use_threads=False)
        column: NDArray[Any] = read.column(name).to_numpy()
    except (OSError, pa.ArrowException, KeyError) as error:
        raise LedgerError(f"{chunk.path} is damaged: {error}") from error
    column.flags.writeable = False
    return column


@lru_cache(maxsize=_KEPT)
def _metadata(chunk: Chunk) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.read_metadata(chunk.path)
    except (OSError, pa.ArrowException) as error:
        raise LedgerError(f"{chunk.path} is damaged: {error}") from error


def _path(folder: Path, number: int, *, last: bool = False) -> Path:
    return folder / f"{_LAST if last else ''}{number:06}.parquet"
