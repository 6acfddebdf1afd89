"""Every row of a cell's ledger, where it lies: mapped columns, told apart by message, in slices that fit a cache.

A message is a number: producers one after the other, each in the order of its sequence. What a check needs of all
messages it reads with `over`, slice by slice, on as many threads as there are cores, and keeps only what it comes to;
so the memory that a judge takes does not grow with the ledger, but for the one byte of `state` that each message has.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from mqtest.columns import Columns
from mqtest.model import Outcome

Ints = NDArray[Any]
Bools = NDArray[np.bool_]
T = TypeVar("T")
S = TypeVar("S")

SLICE_ROWS = 1 << 17
OUTCOME_BITS = 7
"""of a message's state: its outcome, by the rules of history.py"""
_THREADS = min(4, os.cpu_count() or 1)


@dataclass(frozen=True, slots=True)
class Sends:
    """Columns of some messages, skipped ones too."""

    producer: Ints
    seq: Ints
    due_ns: Ints
    sent_ns: Ints
    """0: never sent"""
    settled_ns: Ints
    offset: Ints
    place: Ints
    outcome: Ints
    """an attempted message has one of ACKED, DEGRADED, REFUSED, UNKNOWN, RETURNED, others NONE"""
    epoch: Ints

    @property
    def attempted(self) -> Bools:
        """Messages that were sent."""
        attempted: Bools = self.sent_ns != 0
        return attempted

    @property
    def start_ns(self) -> Ints:
        """When a message was due (open loop), else sent: what a response time counts from."""
        return np.where(self.due_ns != 0, self.due_ns, self.sent_ns)


@dataclass(frozen=True, slots=True)
class Receipts:
    """Columns over all consumers, or all audit readers: receipts of messages of this cell's workload."""

    actor: Ints
    """number of the consumer or reader"""
    received_ns: Ints
    message: Ints
    """row in the Sends that they belong to"""
    place: Ints
    offset: Ints
    flags: Ints
    epoch: Ints
    """number of the consumer's connection or assignment"""

    def __len__(self) -> int:
        return len(self.message)


class Messages:
    """All messages of the workload. `state` has a byte for each: its outcome, and what sift.py notes of it."""

    def __init__(self, producers: Mapping[int, Columns], *, acknowledged: bool) -> None:
        self._acknowledged = acknowledged
        self._columns = tuple(producers.values())
        self.producers: Ints = np.array(list(producers), dtype=np.int64)
        """their numbers, rising"""
        sizes = [len(columns["sent_ns"]) for columns in self._columns]
        self.starts: Ints = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)]).astype(np.int64)
        """the first message of each producer, and one past the last of all"""
        self.state: Ints = np.zeros(int(self.starts[-1]), dtype=np.uint8)
        self.skipped = 0
        """messages that fell due and were never sent"""
        self.last_sent_ns = 0
        self.places: Ints = np.zeros(0, dtype=np.int64)
        """every place that something was sent to, -1 among them where that is not known"""
        self._read_outcomes()

    def __len__(self) -> int:
        return len(self.state)

    def _read_outcomes(self) -> None:
        places: set[int] = set()
        for skipped, last, found in self._each(self._outcomes):
            self.skipped += skipped
            self.last_sent_ns = max(self.last_sent_ns, last)
            places |= found
        self.places = np.array(sorted(places), dtype=np.int64)

    def _outcomes(self, number: int, rows: slice) -> tuple[int, int, set[int]]:
        columns = self._columns[number]
        sent_ns, place = columns["sent_ns"][rows], columns["place"][rows]
        outcome = _MEANT[self._acknowledged][np.minimum(columns["outcome"][rows], len(Outcome))]
        outcome[columns["settled_ns"][rows] == 0] = Outcome.UNKNOWN
        never = sent_ns == 0
        skipped = 0
        if never.any():
            outcome[never] = Outcome.NONE
            skipped = int(np.count_nonzero(columns["due_ns"][rows][never]))
            place = place[~never]
        first = int(self.starts[number])
        self.state[first + rows.start : first + rows.stop] = outcome
        return skipped, int(sent_ns.max(initial=0)), distinct(place)

    def over(self, measure: Callable[[Sends], T]) -> Iterator[T]:
        """What the function comes to for each slice of all messages, in their order."""
        return self._each(lambda number, rows: measure(self._slice(number, rows)))

    def of(self, messages: Ints) -> Sends:
        """The columns of these messages, in their order."""
        which = self._which(messages)
        return Sends(
            producer=self.producers[which] if len(self.producers) else messages,
            seq=messages - self.starts[which],
            outcome=self.outcome(messages),
            **{n: self.take(n, messages) for n in ("due_ns", "sent_ns", "settled_ns", "offset", "place", "epoch")},
        )

    def outcome(self, messages: slice | Ints) -> Ints:
        """Their outcomes."""
        return self.state[messages] & OUTCOME_BITS

    def take(self, column: str, messages: slice | Ints) -> Ints:
        """One column of these messages, in their order; of a slice: of one producer's."""
        if isinstance(messages, slice):
            number = int(self._which(np.array([messages.start]))[0])
            start = int(self.starts[number])
            own: Ints = self._columns[number][column][messages.start - start : messages.stop - start : messages.step]
            return own
        which = self._which(messages)
        taken = np.zeros(len(messages), dtype=np.int64)
        for number in np.unique(which):
            mine = which == number
            taken[mine] = self._columns[number][column][messages[mine] - self.starts[number]]
        return taken

    def column(self, number: int, column: str, rows: slice | Ints) -> Ints:
        """A column of one producer, by its place in `producers` and its sequence."""
        return self._columns[number][column][rows]

    def size(self, number: int) -> int:
        """Rows of that producer."""
        return int(self.starts[number + 1] - self.starts[number])

    def _which(self, messages: Ints) -> Ints:
        return np.searchsorted(self.starts[1:], messages, side="right")

    def _slice(self, number: int, rows: slice) -> Sends:
        first, columns = int(self.starts[number]), self._columns[number]
        names = ("due_ns", "sent_ns", "settled_ns", "offset", "place", "epoch")
        return Sends(
            producer=np.broadcast_to(self.producers[number], (rows.stop - rows.start,)),
            seq=np.arange(rows.start, rows.stop),
            outcome=self.outcome(slice(first + rows.start, first + rows.stop)),
            **{name: columns[name][rows] for name in names},
        )

    def _each(self, measure: Callable[[int, slice], T]) -> Iterator[T]:
        pieces = [(n, rows) for n in range(len(self.producers)) for rows in slices(self.size(n))]
        return ahead(lambda piece: measure(*piece), pieces)


_NAMED = np.array([Outcome.UNKNOWN, *list(Outcome)[1:], Outcome.UNKNOWN], dtype=np.uint8)
_UNNAMED = np.where((_NAMED == Outcome.ACKED) | (_NAMED == Outcome.DEGRADED), Outcome.UNKNOWN, _NAMED).astype(np.uint8)
_MEANT = {True: _NAMED, False: _UNNAMED}
"""what a settled outcome means, with and without acknowledgements"""


def slices(rows: int) -> list[slice]:
    """A table of so many rows, cut up."""
    return [slice(first, min(first + SLICE_ROWS, rows)) for first in range(0, rows, SLICE_ROWS)]


def ahead(measure: Callable[[S], T], pieces: Iterable[S]) -> Iterator[T]:
    """The results in the order of the pieces, worked out on several threads, a few ahead of who takes them."""
    pieces = list(pieces)
    if len(pieces) < 2:
        yield from map(measure, pieces)
        return
    with ThreadPoolExecutor(_THREADS) as pool:
        waiting: list[Future[T]] = []
        for piece in pieces:
            waiting.append(pool.submit(measure, piece))
            if len(waiting) > 2 * _THREADS:
                yield waiting.pop(0).result()
        for future in waiting:
            yield future.result()


def distinct(values: Ints) -> set[int]:
    """The different values among them, quickly where there is one or they are small."""
    if not len(values):
        return set()
    low, high = int(values.min()), int(values.max())
    if low == high:
        return {low}
    if high - low < SLICE_ROWS:
        return set((np.flatnonzero(np.bincount(values.astype(np.int64) - low)) + low).tolist())
    return set(np.unique(values).tolist())


def groups(*keys: Ints, by: int) -> tuple[Ints, Bools]:
    """Order by the keys, the first one most significant, equal rows in their old order; and, of the ordered rows, which
    begin a new combination of the first `by` keys."""
    order = np.lexsort(keys[::-1])
    new = np.zeros(len(order), dtype=np.bool_)
    new[:1] = True
    for key in keys[:by]:
        ordered = key[order]
        new[1:] |= ordered[1:] != ordered[:-1]
    return order, new
