"""The memory broker's disk: append-only files that survive a SIGKILL, and lose what was not synced in a power cut.

Each `<name>.log` is a row of frames (4 bytes of length, then the record). Beside it `<name>.synced` holds, in 8
bytes, the length that has been fsynced. A SIGKILL loses nothing that was written, since the page cache is the
kernel's; `forget` does what a power cut does, and cuts every file to its synced length. Nothing but a sync ever
moves that length: the kernel's own late write-back is left out, as the worst case.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable
from pathlib import Path

_LENGTH = struct.Struct(">I")
_MARK = struct.Struct(">Q")


class AppendFile:
    """One file of records, open for appending."""

    __slots__ = ("_fd", "_mark_fd", "_size", "_synced", "recovered")

    recovered: list[bytes]
    """the records that were there when it was opened"""

    def __init__(self, folder: Path, name: str) -> None:
        """Open or make `<name>.log`; a record torn by a kill is cut off."""
        path = folder / f"{name}.log"
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._mark_fd = os.open(_mark_of(path), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self.recovered, self._size = _records(path.read_bytes())
        os.ftruncate(self._fd, self._size)
        self._synced = min(_synced_bytes(path), self._size)

    def append(self, records: Iterable[bytes]) -> None:
        """Write records behind the last one; a SIGKILL right after loses none of them."""
        data = b"".join(_LENGTH.pack(len(record)) + record for record in records)
        written = 0
        while written < len(data):
            written += os.write(self._fd, data[written:])
        self._size += written

    def sync(self) -> None:
        """fsync; what is written now survives a power cut."""
        if self._synced != self._size:
            os.fsync(self._fd)
            os.pwrite(self._mark_fd, _MARK.pack(self._size), 0)
            self._synced = self._size

    def close(self) -> None:
        """Close, without a sync."""
        os.close(self._fd)
        os.close(self._mark_fd)


def forget(folder: Path) -> int:
    """Power is gone, and nobody has the files open: cut each to what was synced. Bytes forgotten."""
    forgotten = 0
    for path in sorted(folder.glob("*.log")):
        kept = _synced_bytes(path)
        forgotten += max(0, path.stat().st_size - kept)
        os.truncate(path, kept)
    return forgotten


def _mark_of(path: Path) -> Path:
    return path.with_suffix(".synced")


def _synced_bytes(path: Path) -> int:
    mark = _mark_of(path)
    data = mark.read_bytes() if mark.exists() else b""
    return int(_MARK.unpack(data)[0]) if len(data) == _MARK.size else 0


def _records(data: bytes) -> tuple[list[bytes], int]:
    """The whole records in `data`, and the bytes that they take."""
    records, at = [], 0
    while at + _LENGTH.size <= len(data):
        end = at + _LENGTH.size + _LENGTH.unpack_from(data, at)[0]
        if end > len(data):
            break
        records.append(data[at + _LENGTH.size : end])
        at = end
    return records, at
