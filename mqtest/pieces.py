"""A slice of a table of receipts, taken apart: which rows are of which messages, by producer and place."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from mqtest.columns import Columns
from mqtest.model import Flag
from mqtest.tables import Bools, Ints, Messages

_STRANGE = int(Flag.CORRUPT | Flag.FOREIGN)


@dataclass(frozen=True, slots=True)
class Piece:
    """Rows of one table that are of one producer's messages, in one place."""

    producer: int
    """where it stands in Messages.producers"""
    place: int
    seq: slice | Ints
    """of each row"""
    rows: slice | Ints
    """in the table"""
    first_seq: int
    last_seq: int
    """the lowest and the highest"""
    rising: bool
    """each sequence is above the one before"""

    def messages(self, of: Messages) -> slice | Ints:
        """Which message each row is of."""
        start = int(of.starts[self.producer])
        if isinstance(self.seq, slice):
            return slice(start + self.seq.start, start + self.seq.stop, self.seq.step)
        return start + self.seq

    def message_numbers(self, of: Messages) -> Ints:
        """The same as an array."""
        return int(of.starts[self.producer]) + self.numbers()

    def numbers(self) -> Ints:
        """The sequence of each row."""
        return np.arange(self.seq.start, self.seq.stop, self.seq.step) if isinstance(self.seq, slice) else self.seq

    def row_numbers(self, picked: Bools) -> Ints:
        """Where in the table those rows stand that are picked."""
        return np.flatnonzero(picked) + self.rows.start if isinstance(self.rows, slice) else self.rows[picked]


@dataclass(frozen=True, slots=True)
class Apart:
    """A slice of a table: each row stands in one piece, or is strange."""

    pieces: tuple[Piece, ...]
    strange: Ints
    """where rows stand that are of no message of the workload: foreign, corrupt, the runner's"""


def take_apart(messages: Messages, table: Columns, rows: slice) -> Apart:
    """The pieces of a slice, in which the rows keep their order."""
    run = _run(messages, table, rows)
    if run is not None:
        return Apart((run,), np.zeros(0, dtype=np.int64))
    ids = find(messages, table, rows)
    mine = np.flatnonzero(ids >= 0)
    pieces: tuple[Piece, ...] = ()
    if len(mine):
        which = np.searchsorted(messages.starts[1:], ids[mine], side="right")
        pieces = tuple(_pieces(which, table["place"][rows][mine], table["seq"][rows][mine], mine + rows.start))
    return Apart(pieces, np.flatnonzero(ids < 0) + rows.start)


def find(messages: Messages, table: Columns, rows: slice | Ints) -> Ints:
    """The message of each row; -1 where it is of none, or of one that was never sent."""
    seq, flags = table["seq"][rows], table["flags"][rows]
    which = _which(messages, table["producer"][rows])
    known = (which >= 0) & (seq >= 0) & ((flags & _STRANGE) == 0)
    sizes = np.diff(messages.starts)
    known[known] = seq[known] < sizes[which[known]]
    ids = np.full(len(seq), -1, dtype=np.int64)
    ids[known] = messages.starts[which[known]] + seq[known]
    ids[known] = np.where(messages.outcome(ids[known]) != 0, ids[known], -1)
    return ids


def _run(messages: Messages, table: Columns, rows: slice) -> Piece | None:
    """All rows as one piece, as in most slices: one producer, one place, nothing strange; else None."""
    producer, seq, place = table["producer"][rows], table["seq"][rows], table["place"][rows]
    if (producer != producer[0]).any() or (place != place[0]).any():
        return None
    which = int(_which(messages, producer[:1])[0])
    if which < 0 or np.bitwise_or.reduce(table["flags"][rows]) & _STRANGE:
        return None
    step = int((seq[1:] - seq[:-1]).min()) if len(seq) > 1 else 1
    rising = step > 0
    first, last = (int(seq[0]), int(seq[-1])) if rising else (int(seq.min()), int(seq.max()))
    if first < 0 or last < first or last >= messages.size(which):
        return None
    even = rising and last - first == step * (len(seq) - 1)
    numbers = slice(first, last + 1, step) if even else seq
    piece = Piece(which, int(place[0]), numbers, rows, first, last, rising)
    return piece if messages.outcome(piece.messages(messages)).all() else None


def _pieces(which: Ints, place: Ints, seq: Ints, rows: Ints) -> Iterator[Piece]:
    places, of_place = np.unique(place, return_inverse=True)
    key = which * len(places) + of_place
    # a stable sort of 16 bits is a radix sort
    order = np.argsort(key.astype(np.uint16) if int(key.max()) < 1 << 16 else key, kind="stable")
    for mine in np.split(order, np.flatnonzero(np.diff(key[order])) + 1):
        own = seq[mine]
        rising = bool((own[1:] > own[:-1]).all())
        first, last = (int(own[0]), int(own[-1])) if rising else (int(own.min()), int(own.max()))
        yield Piece(int(which[mine[0]]), int(place[mine[0]]), own, rows[mine], first, last, rising)


def _which(messages: Messages, producer: Ints) -> Ints:
    """Where each stands in Messages.producers; -1: nowhere."""
    if not len(messages.producers):
        return np.full(len(producer), -1, dtype=np.int64)
    numbers = producer.astype(np.int64)
    which = np.minimum(np.searchsorted(messages.producers, numbers), len(messages.producers) - 1)
    return np.where(messages.producers[which] == numbers, which, -1)
