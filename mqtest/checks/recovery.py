"""Checks of recovery: how long nothing was acked or delivered, and when each stage after the fault was reached.

The load lasts from `warm-up` to `drain`. Stages count from the first `injected`. A fault of several parts is judged as
a whole here, and part by part in `incidents`. What did not happen measures nothing (None). Rules: __init__.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from mqtest.checks.gaps import OUTAGE_S, Span, acks_by_place, deliveries_by_place, gaps_s, load, outages
from mqtest.checks.sightings import examples
from mqtest.checks.speed import Numbers, live, rounded
from mqtest.clock import NS_PER_MS, NS_PER_S
from mqtest.deliveries import Delivered
from mqtest.history import History
from mqtest.model import Finding, Outcome
from mqtest.series import EXACT, Series, joined, series
from mqtest.tables import Ints, Sends, distinct

_STEADY_SHARE = 0.9
_NEVER = 2**63 - 1


def unavailability(history: History) -> Finding:
    """How long no send was acked, in the worst place; how soon after the fault one was; how long recovery took.

    `ack_gap_s_max`: longest time without an ack from the first ack after the load began until the load ended (the
    whole load when a place had none). `outage_s_total`: sum of the gaps of at least OUTAGE_S, worst place.
    `first_ack_after_fault_s`: from `injected` to the first ack of a message sent after it; None when some place never
    had one (`places_without_ack`). `recovery_s`: from the last `healed` to the last `recovered` event, each stage
    apart. `delivery_gap_s_max`, `delivery_outage_s_total`: likewise of deliveries, live cells only.
    `ack_after_silence_ms_max`: the last ack between a power cut of all nodes and its heal, from the moment of silence.
    Degraded is no ack.
    """
    numbers: Numbers = {"ack_gap_s_max": None, "outage_s_total": None}
    numbers |= {"delivery_gap_s_max": None, "delivery_outage_s_total": None}
    count = None
    span = load(history)
    if span is not None and history.acknowledged:
        gaps = [gaps_s(times, span) for times in acks_by_place(history)]
        numbers |= _worst(gaps, "ack_gap_s_max", "outage_s_total")
        count = sum(int(np.count_nonzero(g >= OUTAGE_S)) for g in gaps)
    if span is not None and live(history):
        gaps = [gaps_s(times, span) for times in deliveries_by_place(history)]
        numbers |= _worst(gaps, "delivery_gap_s_max", "delivery_outage_s_total")
    numbers |= _first_acks(history) | _recovery(history) | {"ack_after_silence_ms_max": _after_silence(history)}
    return Finding(check="unavailability", count=count, numbers=numbers)


def recovery(history: History) -> Finding:
    """When each stage after the fault was reached, in seconds from the first `injected`; count: stages reached.

    `detected_s`: a send failed (unknown, refused, degraded), or an outage of acks began; 0 at the earliest.
    `new_leader_s`: a node led place 0 again. `first_delivery_after_fault_s` (live): of a message sent after it, worst
    place. `rate_90_s`: from here on a second had 90 % of the steady rate of acks. `drained_s` (live): no more was
    acked and not delivered than in the steady phase. Both after the first outage, of acks or of deliveries, where one
    began before `in_sync_s`: the last `recovered`.
    """
    injected = history.first_injected
    stages: Numbers = dict.fromkeys(_STAGES)
    if injected is not None:
        for name, stage in _STAGES.items():
            reached_ns = stage(history, injected)
            if reached_ns is not None:
                stages[name] = rounded(max(0, reached_ns - injected) / NS_PER_S)
    reached = sum(value is not None for value in stages.values())
    return Finding(check="recovery", count=reached if injected is not None else None, numbers=stages)


def dead(history: History) -> Finding:
    """Times that the cluster did not come back although disks, network and engine were whole; a finding, no failure."""
    events = [e for e in history.events if e["event"] == "dead"]
    lines = (f"{', '.join(map(str, e.get('nodes') or ())) or 'the cluster'}: {e.get('why')}" for e in events)
    return Finding(check="dead", count=len(events), examples=examples(" ".join(line.split()) for line in lines))


def _worst(gaps: list[Ints], longest: str, total: str) -> Numbers:
    """The longest gap, and the sum of those that are outages, each of its worst place."""
    return {
        longest: rounded(max((g.max() for g in gaps), default=None)),
        total: rounded(max((g[g >= OUTAGE_S].sum() for g in gaps), default=None)),
    }


def _first_acks(history: History) -> Numbers:
    numbers: Numbers = {"first_ack_after_fault_s": None, "places_without_ack": None}
    injected = history.first_injected
    if injected is None or not history.acknowledged:
        return numbers

    def first(sends: Sends) -> dict[int, int]:
        later = (sends.outcome == Outcome.ACKED) & (sends.sent_ns > injected)
        return _first_by_place(sends.place[later], sends.settled_ns[later])

    firsts = _first_of_all(history, history.over_sends(first))
    numbers["places_without_ack"] = sum(first is None for first in firsts)
    numbers["first_ack_after_fault_s"] = _since(injected, _last(firsts))
    return numbers


def _first_by_place(place: Ints, times: Ints) -> dict[int, int]:
    """Place -> the first of these times in it."""
    return {p: int(times[place == p].min()) for p in distinct(place)}


def _first_of_all(history: History, found: Iterator[dict[int, int]]) -> list[int | None]:
    """For each place that was sent to, the first time that some part has of it."""
    parts = list(found)
    return [min((part[p] for part in parts if p in part), default=None) for p in history.messages.places.tolist()]


def _last(times: list[int | None]) -> int | None:
    """The last one; None when there is none, or one of them is missing."""
    known = [t for t in times if t is not None]
    return max(known) if known and len(known) == len(times) else None


def _since(begin: int, end: int | None) -> float | None:
    return None if end is None else rounded((end - begin) / NS_PER_S)


def _recovery(history: History) -> Numbers:
    """Seconds from the last `healed`; a stage that was over before counts as 0."""
    numbers: Numbers = {"recovery_s": None}
    healed = history.fault_times("healed")
    stages = _recovered(history)
    if not healed or not stages or history.first_injected is None:
        return numbers
    for event in stages:
        numbers[f"recovery_s_{event.get('stage', 'ready')}"] = rounded(max(0, event["t_ns"] - max(healed)) / NS_PER_S)
    numbers["recovery_s"] = rounded(max(0, max(e["t_ns"] for e in stages) - max(healed)) / NS_PER_S)
    return numbers


def _recovered(history: History) -> list[Mapping[str, Any]]:
    return [e for e in history.events if e["event"] == "recovered"]


# --- the stages: when each was reached, in ns, or None


def _detected(history: History, injected: int) -> int | None:
    span = load(history)
    if span is None or not history.acknowledged:
        return None

    def failed(sends: Sends) -> int:
        bad = np.isin(sends.outcome, (Outcome.UNKNOWN, Outcome.REFUSED, Outcome.DEGRADED))
        bad &= (sends.settled_ns >= injected) & (sends.settled_ns < span[1])
        return int(sends.settled_ns[bad].min(initial=_NEVER))

    signs = [t for t in history.over_sends(failed) if t != _NEVER]
    for times in acks_by_place(history):
        signs += [begin for begin, _ in outages(times, span, after=injected)[:1]]
    return min(signs, default=None)


def _new_leader(history: History, injected: int) -> int | None:
    led = (e["t_ns"] for e in history.events if e["event"] == "leader" and e.get("node") and e.get("place", 0) == 0)
    return next((t for t in led if t >= injected), None)


def _first_delivery(history: History, injected: int) -> int | None:
    if not live(history):
        return None

    def first(read: Delivered) -> dict[int, int]:
        later = read.sent("sent_ns") > injected
        return _first_by_place(read.place[later], read.received_ns[later])

    return _last(_first_of_all(history, history.over_receipts(first)))


def _back(history: History, times: Ints, span: Span, injected: int) -> int:
    """The end of the first outage that began before all was in sync again; where there is none, the fault itself."""
    in_sync = _in_sync(history, injected)
    away = [o for o in outages(times, span, after=injected) if in_sync is None or o[0] < in_sync]
    return away[0][1] if away else injected


def _rate_again(history: History, injected: int) -> int | None:
    span, steady = load(history), history.window("steady")
    if span is None or steady is None:
        return None
    acks = joined([*history.ack_times.values()], exact=True)
    needed = int(np.ceil(_STEADY_SHARE * acks.between(*steady) * NS_PER_S / max(1, steady[1] - steady[0])))
    later = (acks.times >= _back(history, acks.times, span, injected)) & (acks.times < span[1])
    times, so_far = acks.times[later], np.cumsum(acks.counts[later])
    if needed < 1 or not len(times):
        return None
    within_a_second = so_far[np.searchsorted(times, times + NS_PER_S) - 1] - so_far + acks.counts[later]
    enough = np.flatnonzero(within_a_second >= needed)
    return int(times[enough[0]]) if len(enough) else None


def _drained(history: History, injected: int) -> int | None:
    span, steady = load(history), history.window("steady")
    if span is None or steady is None or not live(history):
        return None
    times, backlog = _backlog(history)
    usual = int(backlog[(times >= steady[0]) & (times < steady[1])].max(initial=0))
    deliveries = joined([*history.delivery_times.values()], exact=True)
    begin = _back(history, deliveries.times, span, injected)
    caught_up = times[(times >= begin) & (backlog <= usual)]
    return int(caught_up[0]) if len(caught_up) else None


def _backlog(history: History) -> tuple[Ints, Ints]:
    """Times at which a message was acked or first delivered, and how many were acked and not delivered from then on;
    of the messages that were both in the end."""
    exact = len(history.messages) <= EXACT

    def both(read: Delivered) -> tuple[Series, Series]:
        mine = read.sent("outcome") == Outcome.ACKED
        delivered, acked = read.received_ns[mine], read.sent("settled_ns")[mine]
        return series(np.minimum(acked, delivered), exact=exact), series(delivered, exact=exact)

    came, went = zip(*history.over_first_receipts(both), strict=True)
    more, fewer = joined(came, exact=exact), joined(went, exact=exact)
    times = np.concatenate([more.times, fewer.times])
    order = np.argsort(times, kind="stable")
    return times[order], np.cumsum(np.concatenate([more.counts, -fewer.counts])[order])


def _in_sync(history: History, injected: int) -> int | None:
    return max((e["t_ns"] for e in _recovered(history) if e["t_ns"] >= injected), default=None)


_STAGES = {
    "detected_s": _detected,
    "new_leader_s": _new_leader,
    "first_delivery_after_fault_s": _first_delivery,
    "rate_90_s": _rate_again,
    "drained_s": _drained,
    "in_sync_s": _in_sync,
}
"""`first_ack_after_fault_s` stands between the second and the third, and comes from `unavailability`"""


# --- acks after everything fell silent


def _after_silence(history: History) -> float | None:
    if history.cell.get("target") != "all":
        return None
    faults = [e for e in history.events if e["event"] == "fault"]
    silence = max((t for e in faults for t in _silences(e)), default=None)
    if silence is None:
        return None
    heal = next((e["t_ns"] for e in faults if e.get("step") == "heal"), None)
    acks = joined([*history.ack_times.values()], exact=True).times
    late = acks[(acks >= silence) & (acks < (_NEVER if heal is None else heal))]
    return rounded((int(late[-1]) - silence) / NS_PER_MS) if len(late) else 0.0


def _silences(value: Any) -> Iterator[int]:
    """Every `silence_ns` in an event: one time, or one for each node."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if key == "silence_ns":
                yield from (
                    t for t in (inner.values() if isinstance(inner, Mapping) else [inner]) if isinstance(t, int)
                )
            else:
                yield from _silences(inner)
