"""Which messages of a cell must be looked at closely; all others are plain, and only counted.

A cell may have a billion messages, of which a few thousand tell a story. A message is plain when nothing can be said of
it but its fate: it was delivered (or refused and not seen; or, where that is no finding, not found), each side saw it
once at most, where its ack said, and it came after nobody that was sent later. What the checks look at row by row are
the others, and with them the witnesses that their story needs:
- whoever was furthest in the place, of the same producer and of the same connection, when a late message came;
- the first and the last survivor of each producer, and who stands at the highest position of each place;
- whom the audit holds at a position that one of the others was seen at, or was acked at;
- the neighbours in the producer's sequence.
So a check finds among these what it would find among all messages; tests/test_sift.py holds the two against each other.
Where the rows of a place do not come in its order, all messages are looked at.

Every table is read in one pass of slices. Rows are collected in a second one, which opens only slices with such rows in
them. Private memory: the byte of Messages.state, and what is looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from mqtest.columns import Columns
from mqtest.fates import AUDITED, EARLY, ODD, RECEIVED, STATES, WRITTEN, Fate, fates, outcomes, there
from mqtest.model import Kind, Outcome
from mqtest.pieces import Apart, Piece, take_apart
from mqtest.progress import Progress
from mqtest.tables import Bools, Ints, Messages, ahead, groups, slices

EACH_SIDE = 3
"""neighbours that are looked at with a message"""
_RANGE = 1 << 22
"""messages whose positions are held against each other at a time"""

Tables = Mapping[int, Columns]
"""of a side: by the number of the consumer or reader"""
Rows = Mapping[int, Ints]
"""of each table, some of its rows, in order"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Picked:
    """The messages that are looked at, and their rows in each table, with those that are of no message."""

    messages: Ints
    receipts: Rows
    audit: Rows
    handed: Rows
    written: Rows


@dataclass(slots=True)
class _Side:
    tables: Tables
    strange: dict[int, Ints] = field(default_factory=dict)
    apart: dict[tuple[int, int], Apart] = field(default_factory=dict)
    """(table, first row) -> the slice, where its pieces are nothing but views"""
    highest: dict[int, tuple[int, int]] = field(default_factory=dict)
    """place -> highest position, and which message stands there"""


@dataclass(frozen=True, slots=True)
class _Seen:
    """What one piece comes to before anything is noted."""

    elsewhere: Bools | None
    """rows at another position than the ack named; None: none"""
    unnamed: Bools | None
    """rows of messages whose position nobody named; None: none"""
    highest: tuple[int, int] | None


class Sift:
    """Of one cell. `read` the receipts, then the audit, then perhaps what transformers wrote; then `pick`."""

    def __init__(self, messages: Messages, kind: Kind) -> None:
        self._messages = messages
        self._state = messages.state
        self._kind = kind
        self._is_log = kind is Kind.LOG
        self._progress = Progress(messages, is_log=self._is_log)
        self._sides: dict[int, _Side] = {}
        self._late: list[Ints] = []
        self._unnamed = False

    def read(self, side: int, tables: Tables, counted_ns: int = 0) -> Rows:
        """Note what RECEIVED, AUDITED or WRITTEN saw; returns the rows that are of no message. `counted_ns`: when the
        broker counted what is left in its queues."""
        self._sides[side] = seen = _Side(tables)
        for actor, table in tables.items():
            strange = []
            for apart, before in ahead(self._looker(side, table), slices(len(table["seq"]))):
                strange.append(apart.strange)
                for piece, aside in zip(apart.pieces, before, strict=True):
                    self._note(side, actor, table, piece, aside)
                    if side == RECEIVED and counted_ns:
                        self._mark(piece, table["received_ns"][piece.rows] <= counted_ns, EARLY)
                    if aside.highest is not None:
                        seen.highest[piece.place] = max(aside.highest, seen.highest.get(piece.place, aside.highest))
                self._progress.close_slice()
            seen.strange[actor] = np.concatenate([np.zeros(0, dtype=np.int64), *strange])
        return seen.strange

    def _looker(self, side: int, table: Columns) -> Callable[[slice], tuple[Apart, list[_Seen]]]:
        def look(rows: slice) -> tuple[Apart, list[_Seen]]:
            apart = take_apart(self._messages, table, rows)
            return apart, [self._seen(side, table, piece) for piece in apart.pieces]

        return look

    def _seen(self, side: int, table: Columns, piece: Piece) -> _Seen:
        if not self._is_log or side == WRITTEN:
            return _Seen(None, None, None)
        offset = table["offset"][piece.rows]
        named = self._messages.column(piece.producer, "offset", piece.seq)
        place = self._messages.column(piece.producer, "place", piece.seq)
        elsewhere = (offset != named) | (place != piece.place)
        unnamed = None
        if elsewhere.any():
            unnamed = (named < 0) | (place < 0)
            elsewhere &= ~unnamed
        top = int(offset.argmax())
        message = int(self._messages.starts[piece.producer]) + int(piece.numbers()[top])
        return _Seen(
            elsewhere if elsewhere.any() else None,
            unnamed if unnamed is not None and unnamed.any() else None,
            (int(offset[top]), message),
        )

    def _note(self, side: int, actor: int, table: Columns, piece: Piece, seen: _Seen) -> None:
        again = self._again(side, piece)
        self._state[piece.messages(self._messages)] |= side
        self._mark(piece, seen.elsewhere, ODD)
        self._unnamed |= seen.unnamed is not None
        passed_over = None
        if again is not None and self._is_log and side == AUDITED:
            passed_over = again.copy()  # a reader that began anew: the same positions are the same copies
            for mask in (seen.elsewhere, seen.unnamed):
                if mask is not None:
                    passed_over &= ~mask
            again &= ~passed_over
        self._mark(piece, again, ODD)
        if side == AUDITED or (side == RECEIVED and not self._is_log):
            at = table["offset" if self._is_log else "received_ns"][piece.rows]
            self._late.append(self._progress.follow(side, actor, piece, at, passed_over))

    def _again(self, side: int, piece: Piece) -> Bools | None:
        """Which rows are of messages that this side (in a queue: either side) had before; None: none is."""
        had = side if self._is_log or side == WRITTEN else RECEIVED | AUDITED
        again: Bools = (self._state[piece.messages(self._messages)] & had) != 0
        if not piece.rising:
            numbers = piece.numbers()
            order = np.argsort(numbers, kind="stable")
            again[order[1:][numbers[order[1:]] == numbers[order[:-1]]]] = True
        return again if again.any() else None

    def _mark(self, piece: Piece, rows: Bools | None, bit: int) -> None:
        """Set a bit of the messages of these rows; None: of none."""
        if rows is None:
            return
        ids = piece.messages(self._messages)
        if isinstance(ids, slice):
            self._state[ids][rows] |= bit
        else:
            self._state[ids[rows]] |= bit

    # --- picking

    def pick(
        self, *, complete: bool, acknowledged: bool, committed: Mapping[int, int], handed: Tables, closely: bool
    ) -> Picked:
        """Decide, and collect. `complete`: whether absence from the audit proves anything; `committed`: how far the
        consumers' group said it was, by place; `closely`: look at all messages."""
        if closely or self._progress.jumbled:
            self._state |= ODD
        else:
            self._pick_by_state(self._suspects(complete=complete, acknowledged=acknowledged))
            self._pick(self._late)
            if self._is_log:
                if self._unnamed:
                    self._pick_diverging()
                self._pick_skipped(committed)
                self._pick_holders()
            self._pick_neighbours()
            self._pick_witnesses()
        rows = {side: self._collect(seen.tables, seen.strange) for side, seen in self._sides.items()}
        return Picked(
            messages=self._odd(),
            receipts=rows[RECEIVED],
            audit=rows[AUDITED],
            handed=self._collect(handed, {}),
            written=rows.get(WRITTEN, {}),
        )

    def _suspects(self, *, complete: bool, acknowledged: bool) -> Bools:
        """Which states make a message be looked at."""
        found = fates(self._kind, complete=complete)
        suspects: Bools = ((STATES & ODD) != 0) | np.isin(found, (Fate.LOST, Fate.PHANTOM))
        if acknowledged:
            suspects |= outcomes() == Outcome.UNKNOWN
        if WRITTEN in self._sides:
            suspects |= ((STATES & AUDITED) != 0) != ((STATES & WRITTEN) != 0)
        suspects &= outcomes() != Outcome.NONE
        return suspects

    def _pick_by_state(self, suspects: Bools) -> None:
        for rows in slices(len(self._state)):
            state = self._state[rows]
            state[suspects[state]] |= ODD

    def _pick(self, found: list[Ints]) -> None:
        for ids in found:
            self._state[ids] |= ODD

    def _pick_diverging(self) -> None:
        """Messages whose position no ack named, and that a consumer read elsewhere than the audit has them."""
        for first in range(0, len(self._state), _RANGE):
            offset = np.full(_RANGE, -1, dtype=np.int64)
            place = np.full(_RANGE, -1, dtype=np.int64)
            for ids, rows, table in self._rows_within(AUDITED, first):
                offset[ids - first], place[ids - first] = table["offset"][rows], table["place"][rows]
            for ids, rows, table in self._rows_within(RECEIVED, first):
                other = (table["offset"][rows] != offset[ids - first]) | (table["place"][rows] != place[ids - first])
                self._state[ids[other & (place[ids - first] >= 0)]] |= ODD

    def _rows_within(self, side: int, first: int) -> Iterator[tuple[Ints, Ints, Columns]]:
        """Messages from `first` on, as many as are looked at at a time: with their rows."""
        for piece, table in self._pieces(side):
            start = int(self._messages.starts[piece.producer])
            if start + piece.last_seq < first or start + piece.first_seq >= first + _RANGE:
                continue
            ids = start + piece.numbers()
            mine = (ids >= first) & (ids < first + _RANGE)
            yield ids[mine], piece.row_numbers(mine), table

    def _pick_skipped(self, committed: Mapping[int, int]) -> None:
        """Acked messages that the consumers' group went past without having been given them."""
        reach = {place: offset + 1 for place, (offset, _) in self._sides[RECEIVED].highest.items()}
        if not reach:
            return
        for place, offset in committed.items():
            reach[place] = max(reach.get(place, 0), offset)
        missed = ((STATES & (AUDITED | RECEIVED)) == AUDITED) & (outcomes() == Outcome.ACKED)
        for piece, table in self._pieces(AUDITED):
            mine = missed[self._state[piece.messages(self._messages)]]
            if mine.any():
                self._mark(piece, mine & (table["offset"][piece.rows] < reach.get(piece.place, 0)), ODD)

    def _pick_holders(self) -> None:
        """Whom the audit holds where one that is looked at was seen by a consumer, or was acked."""
        ids = self._odd()
        place, offset = [self._messages.take("place", ids)], [self._messages.take("offset", ids)]
        for actor, rows in self._collect(self._sides[RECEIVED].tables, {}).items():
            table = self._sides[RECEIVED].tables[actor]
            place.append(table["place"][rows].astype(np.int64))
            offset.append(table["offset"][rows])
        wanted = _by_place(np.concatenate(place), np.concatenate(offset))
        for piece, table in self._pieces(AUDITED) if wanted else ():
            asked = wanted.get(piece.place)
            at = table["offset"][piece.rows]
            if asked is not None:
                asked = asked[np.searchsorted(asked, at.min()) : np.searchsorted(asked, at.max(), side="right")]
                if len(asked):
                    self._mark(piece, _holds(at, asked), ODD)

    def _pick_neighbours(self) -> None:
        ids = self._odd()
        for by in range(1, EACH_SIDE + 1):
            for other in (ids - by, ids + by):
                self._state[other[(other >= 0) & (other < len(self._state))]] |= ODD

    def _pick_witnesses(self) -> None:
        for seen in self._sides.values():
            self._pick([np.array([message for _, message in seen.highest.values()], dtype=np.int64)])
        survived = there(self._kind)
        for first, last in zip(self._messages.starts[:-1].tolist(), self._messages.starts[1:].tolist(), strict=True):
            own = [slice(first + s.start, first + s.stop) for s in slices(last - first)]
            for order, end in ((own, 0), (own[::-1], -1)):
                for rows in order:
                    alive = np.flatnonzero(survived[self._state[rows]])
                    if len(alive):
                        self._state[rows.start + alive[end]] |= ODD
                        break

    # --- collecting

    def _odd(self) -> Ints:
        """The messages that are looked at, in order."""
        found = [rows.start + np.flatnonzero(self._state[rows] & ODD) for rows in slices(len(self._state))]
        return np.concatenate([np.zeros(0, dtype=np.int64), *found])

    def _pieces(self, side: int) -> Iterator[tuple[Piece, Columns]]:
        for table in self._sides[side].tables.values():
            for rows in slices(len(table["seq"])):
                yield from ((piece, table) for piece in take_apart(self._messages, table, rows).pieces)

    def _collect(self, tables: Tables, strange: Rows) -> Rows:
        """The rows of messages that are looked at, and the strange ones, in order."""
        return {actor: self._rows(table, strange.get(actor)) for actor, table in tables.items()}

    def _rows(self, table: Columns, strange: Ints | None) -> Ints:
        found = [] if strange is None else [strange]
        for rows in ahead(lambda rows: self._odd_rows(table, rows), slices(len(table["seq"]))):
            found += rows
        return np.sort(np.concatenate([np.zeros(0, dtype=np.int64), *found]))

    def _odd_rows(self, table: Columns, rows: slice) -> list[Ints]:
        pieces = take_apart(self._messages, table, rows).pieces
        marked = ((piece, (self._state[piece.messages(self._messages)] & ODD) != 0) for piece in pieces)
        return [piece.row_numbers(odd) for piece, odd in marked if odd.any()]


def _holds(at: Ints, asked: Ints) -> Bools:
    """Which of these positions are asked about."""
    if (at[1:] <= at[:-1]).any():
        return np.isin(at, asked)
    held: Bools = np.zeros(len(at), dtype=np.bool_)
    found = np.minimum(np.searchsorted(at, asked), len(at) - 1)
    held[found[at[found] == asked]] = True
    return held


def _by_place(place: Ints, offset: Ints) -> dict[int, Ints]:
    """The different positions of each place, in order; unknown ones left out."""
    known = (place >= 0) & (offset >= 0)
    order, new = groups(place[known], offset[known], by=2)
    place, offset = place[known][order[new]], offset[known][order[new]]
    return {int(p): offset[place == p] for p in np.unique(place)}
