"""All receipts of a side, slice by slice with their messages; and when messages were acked and received, by place."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from mqtest.columns import Columns
from mqtest.model import Outcome
from mqtest.pieces import take_apart
from mqtest.series import Series, joined, series
from mqtest.sift import Tables
from mqtest.tables import Ints, Messages, Sends, ahead, distinct, slices

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Delivered:
    """Some deliveries, each with its message; a slice of all that there were."""

    place: Ints
    received_ns: Ints
    _messages: Messages
    _which: Ints | slice

    def sent(self, column: str) -> Ints:
        """A column of Sends, of the message of each; `outcome` too."""
        if column == "outcome":
            return self._messages.outcome(self._which)
        return self._messages.take(column, self._which)


def over(messages: Messages, tables: Tables, measure: Callable[[Delivered], T], leave_out: int = 0) -> Iterator[T]:
    """For each slice of the tables, without those whose messages have the bit `leave_out`."""

    def look(table: Columns, rows: slice) -> list[T]:
        found = []
        for piece in take_apart(messages, table, rows).pieces:
            ids, received_ns = piece.messages(messages), table["received_ns"][piece.rows]
            if leave_out and (left := (messages.state[ids] & leave_out) == 0).sum() < len(left):
                ids, received_ns = int(messages.starts[piece.producer]) + piece.numbers()[left], received_ns[left]
            found.append(measure(Delivered(np.broadcast_to(piece.place, len(received_ns)), received_ns, messages, ids)))
        return found

    pieces = [(table, rows) for table in tables.values() for rows in slices(len(table["seq"]))]
    return (result for found in ahead(lambda piece: look(*piece), pieces) for result in found)


def ack_times(messages: Messages, exact: bool) -> dict[int, Series]:
    """When messages were acked, by place; an empty series where something was sent and nothing acked."""

    def acked(sends: Sends) -> dict[int, Series]:
        mine = sends.outcome == Outcome.ACKED
        return _by_place(sends.place[mine], sends.settled_ns[mine], exact)

    none = series(np.zeros(0, dtype=np.int64), exact=True)
    return {int(place): none for place in messages.places} | _together(messages.over(acked), exact)


def delivery_times(messages: Messages, consumed: Tables, exact: bool) -> dict[int, Series]:
    """When messages were received, by place."""
    return _together(over(messages, consumed, lambda d: _by_place(d.place, d.received_ns, exact)), exact)


def _by_place(place: Ints, times: Ints, exact: bool) -> dict[int, Series]:
    places = distinct(place)
    return {p: series(times if len(places) == 1 else times[place == p], exact=exact) for p in places}


def _together(found: Iterable[Mapping[int, Series]], exact: bool) -> dict[int, Series]:
    parts = list(found)
    places = sorted({place for part in parts for place in part})
    return {place: joined([part[place] for part in parts if place in part], exact=exact) for place in places}
