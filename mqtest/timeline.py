"""A cell in the order of time: each outage with what it cost, and each thing that happened with the gap beside it.

- An outage is a time of at least OUTAGE_S without an ack in some place; such times that overlap are one. What was
  lost, unknown or stored twice is counted at the first outage that ended after it was sent, if it was sent no longer
  than OUTAGE_S before that one began; a redelivery at the last outage that began before it came. The rest is
  `outside`, so that the counts add up to those of the cell.
- A stretch is the time from an injection to its heal (of a rolling restart, each node's turn), in which a member was
  away (of a cluster that is not ours), or in which the leader moved: from when it was last seen otherwise. Its gap is
  the longest time between two acks of one place of which some part lies in it, whole.
Times are those of the ledger; `Clock` tells them as seconds into the load, and as UTC where the ledger can (clock.utc).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np

from mqtest.checks.gaps import OUTAGE_S, acks_by_place, load, points
from mqtest.checks.sightings import positions as sighted
from mqtest.clock import NS_PER_S
from mqtest.fates import Fate
from mqtest.fault_log import parts
from mqtest.history import History
from mqtest.model import Kind, Outcome
from mqtest.tables import Ints, groups

_LEAD_NS = int(OUTAGE_S * NS_PER_S)


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """Messages. None: not measured."""

    lost: int | None
    unknown: int
    stored_twice: int | None
    redelivered: int
    """receipts by consumers of a message that one of them already had"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outage:
    """A time without acks."""

    began_ns: int
    ended_ns: int
    places: int
    """how many had none"""
    counts: Counts

    @property
    def length_s(self) -> float:
        """From the last ack before to the first one after."""
        return (self.ended_ns - self.began_ns) / NS_PER_S


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """Something that happened to the cluster."""

    what: str
    began_ns: int
    ended_ns: int | None
    """None: not before the end of the load"""
    gap_s: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Clock:
    """How the ledger's times are told."""

    load_ns: int
    """when the load began"""
    utc: datetime | None
    """at that moment"""

    def seconds(self, t_ns: int) -> float:
        """Into the load."""
        return (t_ns - self.load_ns) / NS_PER_S

    def at(self, t_ns: int) -> datetime | None:
        """In UTC."""
        return None if self.utc is None else self.utc + timedelta(seconds=self.seconds(t_ns))


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeline:
    """All of a cell."""

    clock: Clock
    outages: tuple[Outage, ...]
    outside: Counts
    stretches: tuple[Stretch, ...]


def timeline(history: History) -> Timeline | None:
    """None for a cell without a load, or without acknowledgements."""
    span = load(history)
    if span is None or not history.acknowledged:
        return None
    begin, end = span
    by_place = [points(times, span) for times in acks_by_place(history)]
    spans = _merged(_long(by_place))
    *inside, outside = _counts(history, [s[0] for s in spans], [s[1] for s in spans])
    return Timeline(
        clock=Clock(load_ns=begin, utc=utc(history.events, begin)),
        outages=tuple(
            Outage(began_ns=began, ended_ns=ended, places=places, counts=counts)
            for (began, ended, places), counts in zip(spans, inside, strict=True)
        ),
        outside=outside,
        stretches=tuple(
            Stretch(what=what, began_ns=began, ended_ns=ended, gap_s=_longest(by_place, began, ended or end))
            for what, began, ended in sorted(_happened(history.events), key=lambda stretch: stretch[1])
        ),
    )


def _long(by_place: Sequence[Ints]) -> list[tuple[int, int, int]]:
    """The gaps that are outages: from, to, number of the place."""
    found = []
    for place, times in enumerate(by_place):
        for i in np.flatnonzero(np.diff(times) >= _LEAD_NS):
            found.append((int(times[i]), int(times[i + 1]), place))
    return found


def _merged(gaps: Sequence[tuple[int, int, int]]) -> list[tuple[int, int, int]]:
    """Gaps that overlap as one: from, to, how many places."""
    spans: list[tuple[int, int, set[int]]] = []
    for began, ended, place in sorted(gaps):
        if spans and began < spans[-1][1]:
            last = spans[-1]
            spans[-1] = (last[0], max(last[1], ended), last[2] | {place})
        else:
            spans.append((began, ended, {place}))
    return [(began, ended, len(places)) for began, ended, places in spans]


def _counts(history: History, began: list[int], ended: list[int]) -> list[Counts]:
    """One for each outage, and one for what is outside of them."""
    starts, ends = np.array(began, dtype=np.int64), np.array(ended, dtype=np.int64)
    sent, number = history.sends.sent_ns, len(began)

    def by_sending(messages: Ints) -> list[int]:
        which = np.searchsorted(ends, sent[messages])
        there = which < number
        there[there] = sent[messages][there] >= starts[which[there]] - _LEAD_NS
        return [*np.bincount(which[there], minlength=number)[:number].tolist(), int(np.count_nonzero(~there))]

    come = np.searchsorted(starts, _again(history), side="right")
    redelivered = np.bincount(come, minlength=number + 1).tolist()
    unknown = by_sending(np.flatnonzero(history.sends.outcome == Outcome.UNKNOWN))
    lost = by_sending(np.flatnonzero(history.fate == Fate.LOST)) if history.incomplete is None else None
    twice = by_sending(_stored_twice(history)) if history.kind is Kind.LOG else None
    return [
        Counts(
            lost=None if lost is None else lost[i],
            unknown=unknown[i],
            stored_twice=None if twice is None else twice[i],
            redelivered=redelivered[i + 1] if i < number else redelivered[0],
        )
        for i in range(number + 1)
    ]


def _stored_twice(history: History) -> Ints:
    message, _place, _offset = sighted(history)
    return np.unique(message[1:][message[1:] == message[:-1]])


def _again(history: History) -> Ints:
    """When a consumer was given what one of them already had."""
    read = history.receipts
    order, new = groups(read.message, read.received_ns, by=1)
    return read.received_ns[order[~new]]


def _happened(events: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, int, int | None]]:
    """What, from when, to when: the fault's parts, moves of the leader, members of a cluster that is not ours."""
    for part in parts(events):
        if part.injected_ns is not None and not part.turns:
            yield str(part), part.injected_ns, part.healed_ns
        yield from ((f"{part.action} of {node}", *turn) for node, turn in part.turns.items())
    yield from members_away(events)
    yield from leader_moves(events)


def members_away(events: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, int, int | None]]:
    """Members of a cluster that is not ours: who was away, from when to when."""
    away: dict[str, int] = {}
    before: list[str] = []
    silent_ns = None
    for event in events:
        t_ns = event["t_ns"]
        since_ns = event.get("since_ns", t_ns)
        if event["event"] == "members":
            now = list(event.get("alive") or ())
            if not now:  # of whom it cannot be told; those before are held against those after
                silent_ns = since_ns
                continue
            if silent_ns is not None:
                yield "nobody answered", silent_ns, t_ns
                silent_ns = None
            away |= {name: since_ns for name in before if name not in now}
            yield from ((f"{name} away", away.pop(name), t_ns) for name in now if name in away)
            before = now
    yield from ((f"{name} away", began, None) for name, began in away.items())
    if silent_ns is not None:
        yield "nobody answered", silent_ns, None


def leader_moves(events: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, int, int]]:
    """Who leads place 0 instead of whom; when it was last seen otherwise, and when it was seen."""
    leader = None
    for event in events:
        if event["event"] == "leader" and event.get("node") is not None:
            if leader not in (None, event["node"]):
                t_ns: int = event["t_ns"]
                yield f"{event['node']} leads instead of {leader}", event.get("since_ns", t_ns), t_ns
            leader = event["node"]


def _longest(by_place: Sequence[Ints], began: int, ended: int) -> float | None:
    """Seconds of the longest gap that touches this time."""
    longest = 0
    for times in by_place:
        gaps = np.diff(times)[(times[1:] > began) & (times[:-1] < ended)]
        longest = max(longest, int(gaps.max(initial=0)))
    return longest / NS_PER_S if longest else None


def utc(events: Sequence[Mapping[str, Any]], t_ns: int) -> datetime | None:
    """A time of the ledger in UTC; None where its events do not tell."""
    for event in events:
        if event["event"] == "clock":
            return datetime.fromisoformat(event["utc"]).astimezone(UTC) + timedelta(
                seconds=(t_ns - event["t_ns"]) / NS_PER_S
            )
    return None
