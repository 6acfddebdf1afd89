"""Gaps between acks, or between deliveries, of one place, while the load lasts."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from mqtest.clock import NS_PER_S
from mqtest.history import History
from mqtest.tables import Ints

OUTAGE_S = 1.0
"""a gap of at least this length is an outage"""

Span = tuple[int, int]
"""begin and end in ns, the end not included"""


def load(history: History) -> Span | None:
    """From `warm-up` to `drain`, or None when either is missing. After a search from its first load: in the pauses of a
    search nothing is due, so that no ack is no outage."""
    first = "warm-up" if history.time_of("search") is None else next(iter(history.loads), "")
    begin, end = history.time_of(first), history.time_of("drain")
    return None if begin is None or end is None else (begin, end)


def acks_by_place(history: History) -> Iterator[Ints]:
    """The times of the acks of each place that was sent to, in order."""
    yield from (acks.times for acks in history.ack_times.values())


def deliveries_by_place(history: History) -> Iterator[Ints]:
    """The times of the receipts of each place that was read from, in order."""
    yield from (deliveries.times for deliveries in history.delivery_times.values())


def points(times: Ints, span: Span) -> Ints:
    """The ordered times inside the span and its end; where there are none, its begin and its end."""
    inside = times[(times >= span[0]) & (times < span[1])]
    return np.append(inside, span[1]) if len(inside) else np.array(span, dtype=np.int64)


def gaps_s(times: Ints, span: Span) -> Ints:
    """Gaps in seconds: between neighbours inside the span, and from the last one to its end."""
    gaps: Ints = np.diff(points(times, span)) / NS_PER_S
    return gaps


def outages(times: Ints, span: Span, *, after: int) -> list[Span]:
    """Begin and end of each outage that ends after a moment; one that lasts through it begins there."""
    ends = points(times, span)
    long = np.flatnonzero((np.diff(ends) >= OUTAGE_S * NS_PER_S) & (ends[1:] > after))
    return [(max(int(ends[i]), after), int(ends[i + 1])) for i in long]
