"""Columns on disk: one memory-mapped little-endian `.npy` file a column, grown in steps; what the ledger is made of.

Rules:
- A new folder appears with all its columns at once, by a rename. Growing takes the disk space with posix_fallocate
  before the header admits the rows: a full disk is a LedgerError, never a SIGBUS, and a kill in between leaves files
  that load. Rows never used are zero.
- Writers store through memoryviews (a store costs some 30 ns, a numpy scalar store five times that), and many rows
  of one column at once through arrays; they must drop both before `close`, and take the new ones after `grow`.
"""

from __future__ import annotations

import mmap
import os
import shutil
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from mqtest.errors import LedgerError


class Column(Protocol):
    """A column as the checks read it: a mapped array, or one of which some rows are packed (chunks.py)."""

    @property
    def dtype(self) -> np.dtype[Any]: ...

    def __len__(self) -> int: ...

    def __getitem__(self, rows: slice | NDArray[Any], /) -> NDArray[Any]: ...


Columns = Mapping[str, Column]

STEP_ROWS = 1 << 16
_HEADER_BYTES = 128
_CODES: Mapping[str, Literal["q", "i", "I", "H", "B"]] = {"<i8": "q", "<i4": "i", "<u4": "I", "<u2": "H", "|u1": "B"}


class Table:
    """The mapped columns of one folder; `views` has one writable memoryview a column, `capacity` rows each."""

    def __init__(self, folder: Path, columns: Mapping[str, str]) -> None:
        self._folder = folder
        self._columns = columns
        self._files: dict[str, int] = {}
        self._maps: dict[str, mmap.mmap] = {}
        self.views: dict[str, memoryview] = {}
        if not folder.exists():
            self._create()
        lengths = {name: len(column) for name, column in load_columns(folder, columns).items()}
        for name in columns:
            self._files[name] = os.open(folder / f"{name}.npy", os.O_RDWR)
        self.capacity = min(lengths.values())
        if len(set(lengths.values())) > 1:  # a kill in the middle of growing
            self.grow(max(lengths.values()))
        self._map()

    def _create(self) -> None:
        """All columns of a new folder at once, by a rename: a kill leaves the whole folder or none."""
        part = self._folder.with_name(f"{self._folder.name}.part")
        try:
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir(parents=True)
            for name, dtype in self._columns.items():
                fd = os.open(part / f"{name}.npy", os.O_RDWR | os.O_CREAT, 0o644)
                try:
                    _extend(fd, dtype, 0, STEP_ROWS)
                finally:
                    os.close(fd)
            part.rename(self._folder)
        except OSError as error:
            raise LedgerError(f"{self._folder}: {error.strerror}") from error

    def grow(self, rows: int) -> None:
        """Room for at least `rows` rows; replaces the views."""
        capacity = -(-rows // STEP_ROWS) * STEP_ROWS
        for name, dtype in self._columns.items():
            try:
                _extend(self._files[name], dtype, self.capacity, capacity)
            except OSError as error:
                raise LedgerError(f"{self._folder / name}.npy cannot grow: {error.strerror}") from error
        self.capacity = capacity
        self._map()

    def _map(self) -> None:
        old = self._maps
        self._maps = {name: mmap.mmap(fd, 0) for name, fd in self._files.items()}
        for name, dtype in self._columns.items():
            size = self.capacity * np.dtype(dtype).itemsize
            self.views[name] = memoryview(self._maps[name])[_HEADER_BYTES : _HEADER_BYTES + size].cast(_CODES[dtype])
        del old  # unmapped once the writer has bound the new views

    def columns(self) -> dict[str, NDArray[Any]]:
        """The views as writable arrays, for stores of many rows; to be dropped and taken anew as the views are."""
        return {name: np.frombuffer(self.views[name], dtype=dtype) for name, dtype in self._columns.items()}

    def close(self) -> None:
        self.views.clear()
        self._maps.clear()
        while self._files:
            os.close(self._files.popitem()[1])


def _extend(fd: int, dtype: str, rows: int, new_rows: int) -> None:
    """Take the disk space first, then let the header say so: a kill in between leaves a readable file."""
    width = np.dtype(dtype).itemsize
    start = _HEADER_BYTES + rows * width if rows else 0
    os.posix_fallocate(fd, start, _HEADER_BYTES + new_rows * width - start)
    os.pwrite(fd, _header(dtype, new_rows), 0)


def _header(dtype: str, rows: int) -> bytes:
    """A `.npy` header, format 1.0, of always the same length."""
    text = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': ({rows},), }}"
    size = _HEADER_BYTES - 10
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", size) + text.ljust(size - 1).encode() + b"\n"


def load_columns(folder: Path, columns: Mapping[str, str]) -> dict[str, NDArray[Any]]:
    """The columns of a folder as read-only maps, unused rows included. Raises LedgerError naming the file."""
    loaded = {}
    for name, dtype in columns.items():
        path = folder / f"{name}.npy"
        try:
            column = np.asarray(np.load(path, mmap_mode="r"))
        except OSError as error:
            raise LedgerError(f"{path}: {error.strerror or error}") from error
        except (ValueError, EOFError) as error:
            raise LedgerError(f"{path} is truncated or no column: {error}") from error
        if column.dtype != np.dtype(dtype) or column.ndim != 1:
            raise LedgerError(f"{path}: expected one column of {dtype}, found {column.dtype.str} {column.shape}")
        loaded[name] = column
    return loaded


def room(folder: Path, columns: Mapping[str, str]) -> int:
    """For about how many rows the columns of a folder have room, by the size of one; 0 where there are none."""
    name, dtype = next(iter(columns.items()))
    try:
        return (folder / f"{name}.npy").stat().st_size // np.dtype(dtype).itemsize
    except FileNotFoundError:
        return 0


def byte_range(dtype: str, first: int, end: int) -> tuple[int, int]:
    """Where rows `first` to `end` - 1 of a column stand in its file: the first byte and one past the last."""
    width = np.dtype(dtype).itemsize
    return _HEADER_BYTES + first * width, _HEADER_BYTES + end * width


def trim(folder: Path, columns: Mapping[str, NDArray[Any]], rows: int) -> Columns:
    """The first `rows` rows of each column. Raises LedgerError naming a column that has fewer."""
    for name, column in columns.items():
        if len(column) < rows:
            raise LedgerError(f"{folder / name}.npy is truncated: {len(column)} of {rows} rows")
    return {name: column[:rows] for name, column in columns.items()}


def used_rows(*commits: Column) -> int:
    """One past the last row at which one of these columns is set; beyond the shortest of them there are no rows."""
    end = min(len(commit) for commit in commits)
    while end > 0:  # from the end on: most files end with a few unused rows
        first = max(0, end - STEP_ROWS)
        used = np.flatnonzero(np.logical_or.reduce([commit[first:end] != 0 for commit in commits]))
        if len(used):
            return first + int(used[-1]) + 1
        end = first
    return 0
