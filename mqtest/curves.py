"""A cell by the second: what its pictures are drawn from.

Time runs from the begin of the load (`warm-up`) to the begin of the audit, in steps of `step_s`; the counts of a step
are of what happened in it. A message is unseen from its ack until a consumer has it for the first time. Bands are the
parts of the fault, marks the moves of the leader. Response times are those of latency_log.py.

In a cell without acknowledgements a message counts from its sending, `acks` is None, and `gone` is what was not found.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from hdrh.histogram import HdrHistogram

from mqtest import hdr, latency_log
from mqtest.clock import NS_PER_MS, NS_PER_S
from mqtest.deliveries import Delivered
from mqtest.fates import Fate, fates
from mqtest.fault_log import parts
from mqtest.history import History
from mqtest.model import Outcome
from mqtest.series import Series
from mqtest.tables import Bools, Ints, Sends, slices
from mqtest.timeline import leader_moves, members_away

FINE_S, COARSE_S = 0.1, 1.0
_FINE_UP_TO_S = 15.0
"""a cell that is over sooner is told in tenths of a second"""
QUANTILES = (500, 750, 900, 950, 990, 995, 999, 1000)
"""thousandths; 1000 is the highest"""
PARTS = 120
"""into which the run of a producer is cut, to show where its lost messages lay"""


class Latency(NamedTuple):
    """Of what fell due in a second and was acked at last."""

    at_s: float
    p50_ms: float
    p99_ms: float
    max_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Band:
    """A part of the fault, `kill:leader (kafka-1)`, or of a cluster that is not ours a member that was away. A time is
    None where that was not seen."""

    what: str
    began_s: float
    healed_s: float | None
    recovered_s: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """Something that happened at one moment."""

    what: str
    at_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """All that one producer sent, in its order."""

    producer: int
    messages: int
    gone: tuple[int, ...]
    """in each of PARTS equal parts"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Curves:
    """One cell. Counts have one number a step."""

    step_s: float
    length_s: float
    acks: tuple[int, ...] | None
    deliveries: tuple[int, ...]
    unknown: tuple[int, ...]
    """by their sending"""
    unseen: tuple[int, ...]
    """at the end of each step"""
    gone: tuple[int, ...] | None
    """lost, by their ack; None where the audit is not complete"""
    latencies: tuple[Latency, ...]
    percentiles: Mapping[str, tuple[float, ...]]
    """phase → milliseconds at each of QUANTILES"""
    bands: tuple[Band, ...]
    marks: tuple[Mark, ...]
    runs: tuple[Run, ...]
    """of producers with messages that are gone"""


@dataclass(frozen=True, slots=True)
class _Steps:
    begin_ns: int
    end_ns: int
    step_ns: int

    @property
    def number(self) -> int:
        return max(1, -(-(self.end_ns - self.begin_ns) // self.step_ns))

    def counts(self, times: Ints, weights: Ints | None = None) -> Ints:
        """How many of these times are in each step."""
        inside = (times >= self.begin_ns) & (times < self.end_ns)
        steps = (times[inside] - self.begin_ns) // self.step_ns
        found: Ints = np.bincount(steps, None if weights is None else weights[inside], minlength=self.number)
        return found.astype(np.int64)

    def total(self, found: Iterable[Ints]) -> Ints:
        return sum(found, np.zeros(self.number, dtype=np.int64))

    def seconds(self, t_ns: int) -> float:
        return round((t_ns - self.begin_ns) / NS_PER_S, 3)


def curves(history: History, response_times: latency_log.Times) -> Curves | None:
    """None for a cell whose load did not begin, or did not come to its end. `response_times`: of the same history."""
    begin, end = history.time_of("warm-up"), history.time_of("audit")
    if begin is None or end is None or end <= begin:
        return None
    step_s = FINE_S if end - begin < _FINE_UP_TO_S * NS_PER_S else COARSE_S
    steps = _Steps(begin, end, round(step_s * NS_PER_S))
    acks = _of_places(steps, history.ack_times) if history.acknowledged else None
    sent = steps.total(history.over_sends(lambda sends: steps.counts(sends.sent_ns[_in_doubt(sends)])))
    count = acks if acks is not None else sent
    seen = steps.total(history.over_first_receipts(lambda read: steps.counts(_seen_ns(read, history.acknowledged))))
    gone = _gone(history)
    latencies, percentiles = _latencies(response_times, steps)
    return Curves(
        step_s=step_s,
        length_s=steps.seconds(end),
        acks=None if acks is None else _plain(acks),
        deliveries=_plain(_of_places(steps, history.delivery_times)),
        unknown=_plain(sent),
        unseen=_plain(np.cumsum(count - seen)),
        gone=None if gone is None else _plain(steps.counts(gone.settled_ns if acks is not None else gone.sent_ns)),
        latencies=latencies,
        percentiles=percentiles,
        bands=tuple(_bands(history, steps)),
        marks=tuple(Mark(what=what, at_s=steps.seconds(t)) for what, _since, t in leader_moves(history.events)),
        runs=() if gone is None else tuple(_runs(history, gone)),
    )


def _plain(counts: Ints) -> tuple[int, ...]:
    return tuple(counts.tolist())


def _of_places(steps: _Steps, by_place: Mapping[int, Series]) -> Ints:
    return steps.total(steps.counts(of_it.times, of_it.counts) for of_it in by_place.values())


def _in_doubt(sends: Sends) -> Bools:
    doubt: Bools = sends.outcome == Outcome.UNKNOWN
    return doubt


def _seen_ns(read: Delivered, acknowledged: bool) -> Ints:
    """When it was seen; one that was read before its ack, at the ack."""
    outcome, since = (Outcome.ACKED, "settled_ns") if acknowledged else (Outcome.UNKNOWN, "sent_ns")
    mine = read.sent("outcome") == outcome
    seen: Ints = np.maximum(read.received_ns[mine], read.sent(since)[mine])
    return seen


def _gone(history: History) -> Sends | None:
    """The messages that are gone."""
    if history.incomplete is not None:
        return None
    gone = fates(history.kind, complete=True) == (Fate.LOST if history.acknowledged else Fate.UNRESOLVED)
    messages = history.messages
    found = [rows.start + np.flatnonzero(gone[messages.state[rows]]) for rows in slices(len(messages))]
    return messages.of(np.concatenate([np.zeros(0, dtype=np.int64), *found]))


def _latencies(
    times: latency_log.Times, steps: _Steps
) -> tuple[tuple[Latency, ...], Mapping[str, tuple[float, ...]]]:
    """By second, and by phase."""
    found: list[Latency] = []
    phases: dict[str, HdrHistogram] = {}
    for second, histogram in times.by_second():
        p50, p99, most = (_ms(histogram, q) for q in (500, 990, 1000))
        found.append(Latency(steps.seconds(second.begin_ns), p50, p99, most))
        phases.setdefault(second.phase, hdr.empty()).add(histogram)
    return tuple(found), {phase: tuple(_ms(of_it, q) for q in QUANTILES) for phase, of_it in phases.items()}


def _ms(histogram: HdrHistogram, thousandths: int) -> float:
    return round((hdr.quantile_ns(histogram, thousandths) or 0) / NS_PER_MS, 3)


def _bands(history: History, steps: _Steps) -> Iterator[Band]:
    """Each part, and of a rolling restart each node's turn, until the cluster had recovered from it: the last
    `recovered` before the next part began."""
    begun = [part for part in parts(history.events) if part.injected_ns is not None]
    back = [e["t_ns"] for e in history.events if e["event"] == "recovered"]
    starts = [part.injected_ns or 0 for part in begun]

    def recovered(healed_ns: int | None) -> int | None:
        if healed_ns is None:
            return None
        following = min((t for t in starts if t > healed_ns), default=None)
        return max((t for t in back if t >= healed_ns and (following is None or t < following)), default=None)

    for part in begun:
        whole: list[tuple[str, int, int | None]] = [(str(part), part.injected_ns or 0, part.healed_ns)]
        for what, began, healed in [(f"{part.action} of {node}", *t) for node, t in part.turns.items()] or whole:
            yield Band(
                what=what,
                began_s=steps.seconds(began),
                healed_s=None if healed is None else steps.seconds(healed),
                recovered_s=None if (back_ns := recovered(healed)) is None else steps.seconds(back_ns),
            )
    for what, began, ended in members_away(history.events):
        end_s = None if ended is None else steps.seconds(ended)
        yield Band(what=what, began_s=steps.seconds(began), healed_s=end_s, recovered_s=end_s)


def _runs(history: History, gone: Sends) -> Iterator[Run]:
    messages = history.messages
    for number, producer in enumerate(messages.producers.tolist()):
        mine = gone.seq[gone.producer == producer]
        size = messages.size(number)
        if len(mine):
            where = np.bincount(mine * PARTS // size, minlength=PARTS)
            yield Run(producer=producer, messages=size, gone=_plain(where))
