"""Response times of a cell as a histogram log (hdr.py): a line a second, its tag the phase.

A response time counts as in checks/speed.py: from the due time (closed loop: the send) to the ack, of messages that
were acked at last; it stands in the second in which its message fell due. Seconds are counted from the begin of each
phase, and the last one of a phase ends with it: so the lines of one tag are the histogram of that phase, and the logs
of several cells, added, are that of all of them. An outage shows as the long times of what fell due in it.

Sends are read in slices. What is kept of them is how many stand in each bucket of each second that has any.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from hdrh.histogram import HdrHistogram

from mqtest import hdr
from mqtest.clock import NS_PER_S
from mqtest.history import History
from mqtest.model import Outcome
from mqtest.tables import Ints, Sends
from mqtest.timeline import utc

_AT_A_TIME = 16
"""slices whose counts are held before they are added up"""

Counts = tuple[Ints, Ints]
"""keys in order, second x hdr.BUCKETS + bucket; and how many messages each has"""


class Second(NamedTuple):
    """One, or what is left of it at the end of a phase; times in ns."""

    phase: str
    phase_ns: int
    """when the phase began"""
    begin_ns: int
    end_ns: int


@dataclass(frozen=True, slots=True)
class Times:
    """All response times of a cell: how many there are in each bucket of each second that has any."""

    _seconds: Sequence[Second]
    _counts: Counts

    def by_second(self) -> Iterator[tuple[Second, HdrHistogram]]:
        """The histogram of each second that has any, in order."""
        keys, counts = self._counts
        rows = np.searchsorted(keys, np.arange(len(self._seconds) + 1) * hdr.BUCKETS)
        for second, (first, last) in zip(self._seconds, pairwise(rows), strict=True):
            if last > first:
                yield second, hdr.counted(keys[first:last] % hdr.BUCKETS, counts[first:last])


def times(history: History) -> Times:
    """Of all messages that were acked."""
    seconds = list(_seconds(history.events))
    return Times(seconds, _counts(history, seconds))


def lines(history: History, measured: Times | None = None) -> Iterator[str]:
    """The whole log; nothing where no message was acked. Times count from the begin of the load. `measured`: `times` of
    the same history, where they are there already."""
    begin_ns = None
    for second, histogram in (measured or times(history)).by_second():
        if begin_ns is None:
            begin_ns = second.phase_ns
            yield from hdr.header(
                utc(history.events, begin_ns), f"response times in ns of {history.cell.get('id')}, by phase"
            )
        yield hdr.line(second.begin_ns - begin_ns, second.end_ns - second.begin_ns, histogram, second.phase)


def _seconds(events: Sequence[Mapping[str, Any]]) -> Iterator[Second]:
    """Of each phase, in order; one that nothing follows has no end, and is none."""
    for phase, after in pairwise(event for event in events if event["event"] == "phase"):
        begin_ns, end_ns = phase["t_ns"], after["t_ns"]
        for second_ns in range(begin_ns, end_ns, NS_PER_S):
            yield Second(str(phase.get("name")), begin_ns, second_ns, min(second_ns + NS_PER_S, end_ns))


def _counts(history: History, seconds: Sequence[Second]) -> Counts:
    """Of the messages that fell due in these seconds, which follow one another, and were acked."""
    cuts = np.array(
        [second.begin_ns for second in seconds] + [second.end_ns for second in seconds[-1:]], dtype=np.int64
    )

    def measure(sends: Sends) -> Counts:
        start = sends.start_ns
        mine = np.flatnonzero((sends.outcome == Outcome.ACKED) & (start >= cuts[0]) & (start < cuts[-1]))
        second = np.searchsorted(cuts, start[mine], side="right") - 1
        keys = second * hdr.BUCKETS + hdr.buckets(sends.settled_ns[mine] - start[mine])
        found: Counts = np.unique(keys, return_counts=True)
        return found

    return _added(history.over_sends(measure) if seconds else ())


def _added(parts: Iterable[Counts]) -> Counts:
    held: list[Counts] = []
    for part in parts:
        held.append(part)
        if len(held) == _AT_A_TIME:
            held = [_sum(held)]
    return _sum(held)


def _sum(parts: Sequence[Counts]) -> Counts:
    none = np.zeros(0, dtype=np.int64)
    keys, where = np.unique(np.concatenate([none, *(keys for keys, _ in parts)]), return_inverse=True)
    counts = np.zeros(len(keys), dtype=np.int64)
    np.add.at(counts, where, np.concatenate([none, *(counts for _, counts in parts)]))
    return keys, counts


def by_phase(intervals: Iterable[hdr.Interval]) -> dict[str, HdrHistogram]:
    """Phase → the histogram of all its seconds, of one log or of several."""
    found: dict[str, list[hdr.Interval]] = {}
    for interval in intervals:
        found.setdefault(interval.tag, []).append(interval)
    return {tag: hdr.merged(of_it) for tag, of_it in found.items()}
