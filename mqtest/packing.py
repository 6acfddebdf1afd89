"""Packing of a ledger folder: which chunks are full and final, and the disk of their rows given back.

Rules:
- While the writer lives, a chunk is packed when the one behind it is full as well and no row of it can change any more.
  A receipt never changes. A send is final once it is skipped or settled; an unknown one when it was settled so long
  ago that the writer takes no answer any more (LATE_NS). A chunk with a send that stays open waits for the end.
- The writer stores rows while they are read here, thousands at a time, one column behind the other. What was read of
  a row may therefore be of two moments, and counts as final only where no order of the two can mislead.
- First the whole chunk is on the disk under its name; the rows of the columns become holes a while later
  (HOLE_AFTER_S), so that who opened the folder before can still read them. Row numbers and maps stay as they are.
  `sent_ns` goes before the others: who reads `settled_ns` before it never takes a send that is gone for an open one.
- `close`, once the writer has ended: all other rows are packed, and the columns removed. A kill at any moment leaves
  each row in a packed chunk or in the columns, and what is in both is the same.
"""

from __future__ import annotations

import ctypes
import os
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mqtest import chunks, ledger
from mqtest.clock import NS_PER_S
from mqtest.columns import Columns, byte_range, load_columns, used_rows
from mqtest.ledger import LATE_NS, SENDS
from mqtest.model import Outcome
from mqtest.totals import ReceiptTotals, SendTotals

HOLE_AFTER_S = 30.0
_LATER_S = 60.0
"""until a chunk that was not final is looked at again"""
_MARGIN_NS = 60 * NS_PER_S
"""a writer may be halted for so long between deciding to take an answer and writing it"""
_COMMITS = ("due_ns", "sent_ns", "received_ns")
_KEEP_SIZE, _PUNCH_HOLE = 1, 2


class Packing:
    """Of one folder whose writer lives."""

    def __init__(self, folder: Path, columns: Mapping[str, str]) -> None:
        """`columns`: SENDS or RECEIPTS."""
        self._folder = folder
        self._columns = columns
        self._holes: set[int] = set()
        self._look_at_s: dict[int, float] = {}

    def go_on(self, now_ns: int) -> None:
        """Pack every chunk that is full and final, and give back the disk of those packed a while ago. Raises
        LedgerError when the disk is full; to be called again."""
        columns = load_columns(self._folder, self._columns)
        done = chunks.packed(self._folder)
        used = used_rows(*(columns[name] for name in _COMMITS if name in columns))
        for number in range(used // chunks.CHUNK_ROWS - 1):
            if number in done:
                self._give_back(number, done[number].written_ns)
            elif self._look_at_s.get(number, 0.0) <= time.monotonic():
                rows = _chunk(columns, number)
                if self._is_final(rows, now_ns):
                    chunks.write(self._folder, number, rows, _totals(self._columns, rows))
                else:
                    self._look_at_s[number] = time.monotonic() + _LATER_S

    def _is_final(self, rows: Mapping[str, NDArray[Any]], now_ns: int) -> bool:
        if self._columns is not SENDS:
            return bool((rows["received_ns"] != 0).all())
        outcome = np.array(rows["outcome"])  # first: a writer that changes it takes `settled_ns` away before
        settled, sent = np.array(rows["settled_ns"]), rows["sent_ns"] != 0
        lasts = (outcome != Outcome.UNKNOWN) & (outcome != Outcome.NONE)  # none: it was settled after that was read
        final = (settled != 0) & (lasts | (settled < now_ns - LATE_NS - _MARGIN_NS))
        skipped = (rows["due_ns"] != 0) & (rows["offset"] == 0)  # -1, stored before `due_ns`: it is just being sent
        return bool(np.where(sent, final, skipped).all())

    def _give_back(self, number: int, packed_ns: int) -> None:
        if number not in self._holes and packed_ns < time.time_ns() - HOLE_AFTER_S * NS_PER_S:
            give_back(self._folder, self._columns, number)
            self._holes.add(number)


def close(folder: Path, columns: Mapping[str, str]) -> None:
    """Pack all that is left, and remove the columns; nothing where no chunk ever was full. The writer has ended.
    Raises LedgerError when the disk is full, or a file is damaged: what was there is there still."""
    done = chunks.packed(folder)
    if not chunks.is_closed(done):
        loaded = ledger.load_sends(folder) if columns is SENDS else ledger.load_receipts(folder)
        rows = min(len(column) for column in loaded.values())
        full = rows // chunks.CHUNK_ROWS
        if not full:
            return
        for span in chunks.unpacked(rows, done):
            _pack(folder, columns, span.start // chunks.CHUNK_ROWS, loaded, last=span.start >= full * chunks.CHUNK_ROWS)
        if rows % chunks.CHUNK_ROWS == 0:
            _pack(folder, columns, full, loaded, last=True)
    for name in columns:
        (folder / f"{name}.npy").unlink(missing_ok=True)


def give_back(folder: Path, columns: Mapping[str, str], number: int) -> None:
    """Make holes of the rows of a packed chunk in all columns; on a file system that knows none they stay."""
    first = number * chunks.CHUNK_ROWS
    for name in sorted(columns, key=lambda name: name != "sent_ns"):
        fd = os.open(folder / f"{name}.npy", os.O_RDWR)
        try:
            _punch(fd, *byte_range(columns[name], first, first + chunks.CHUNK_ROWS))
        finally:
            os.close(fd)


def _punch(fd: int, start: int, end: int) -> bool:
    libc = ctypes.CDLL(None, use_errno=True)
    size = ctypes.c_int64(end - start)
    return bool(libc.fallocate(fd, _KEEP_SIZE | _PUNCH_HOLE, ctypes.c_int64(start), size) == 0)


def _chunk(columns: Columns, number: int) -> dict[str, NDArray[Any]]:
    rows = slice(number * chunks.CHUNK_ROWS, (number + 1) * chunks.CHUNK_ROWS)
    return {name: column[rows] for name, column in columns.items()}


def _pack(folder: Path, columns: Mapping[str, str], number: int, loaded: Columns, *, last: bool) -> None:
    rows = _chunk(loaded, number)
    chunks.write(folder, number, rows, _totals(columns, rows), last=last)


def _totals(columns: Mapping[str, str], rows: Mapping[str, NDArray[Any]]) -> dict[str, object]:
    return asdict((SendTotals if columns is SENDS else ReceiptTotals).of(rows))
