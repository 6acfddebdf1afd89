"""Response times of a cell as a histogram log (hdr.py): a line a second, its tag the phase.

A response time counts as in checks/speed.py: from the due time (closed loop: the send) to the ack, of messages that
were acked at last; it stands in the second in which its message fell due. Seconds are counted from the begin of each
phase, and the last one of a phase ends with it: so the lines of one tag are the histogram of that phase, and the logs
of several cells, added, are that of all of them. An outage shows as the long times of what fell due in it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

import numpy as np
from hdrh.histogram import HdrHistogram

from mqtest import hdr
from mqtest.clock import NS_PER_S
from mqtest.history import History
from mqtest.model import Outcome
from mqtest.timeline import utc


def lines(history: History) -> Iterator[str]:
    """The whole log; nothing where no message was acked. Times count from the begin of the load."""
    sends = history.sends
    acked = sends.outcome == Outcome.ACKED
    start, took = sends.start_ns[acked], (sends.settled_ns - sends.start_ns)[acked]
    phases = _phases(history)
    if not len(start) or not phases:
        return
    order = np.argsort(start, kind="stable")
    start, took = start[order], took[order]
    loads = [begin for _name, begin, end in phases if np.searchsorted(start, end) > np.searchsorted(start, begin)]
    if not loads:
        return
    yield from hdr.header(utc(history.events, loads[0]), f"response times in ns of {history.cell.get('id')}, by phase")
    for name, begin, end in phases:
        cuts = [*range(begin, end, NS_PER_S), end]
        rows = np.searchsorted(start, cuts)
        for (left, right), (first, last) in zip(pairwise(cuts), pairwise(rows), strict=True):
            if last > first:
                yield hdr.line(left - loads[0], right - left, hdr.of(took[first:last]), name)


def _phases(history: History) -> Sequence[tuple[str, int, int]]:
    """Name, begin and end of each phase, in order; one that nothing follows has no end, and is none."""
    phases = [event for event in history.events if event["event"] == "phase"]
    return [(str(phase.get("name")), phase["t_ns"], after["t_ns"]) for phase, after in pairwise(phases)]


def by_phase(intervals: Iterable[hdr.Interval]) -> dict[str, HdrHistogram]:
    """Phase → the histogram of all its seconds, of one log or of several."""
    found: dict[str, list[hdr.Interval]] = {}
    for interval in intervals:
        found.setdefault(interval.tag, []).append(interval)
    return {tag: hdr.merged(of_it) for tag, of_it in found.items()}
