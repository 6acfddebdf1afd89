"""Checks of recovery: how long nothing was acknowledged or delivered, and how soon it was again. See checks.py.

The load lasts from `warm-up` to `drain`. What did not happen measures nothing (None).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from mqtest.checks_time import NS_PER_MS, Numbers, live, rounded
from mqtest.clock import NS_PER_S
from mqtest.history import History, Ints
from mqtest.model import Finding, Outcome

OUTAGE_S = 1.0
"""a gap between acks of at least this length is an outage"""


def unavailability(history: History) -> Finding:
    """How long no send was acked, in the worst place; how soon after the fault one was; how long recovery took.

    `ack_gap_s_max`: longest time without an ack from the first ack after the load began until the load ended (the
    whole load when a place had none). `outage_s_total`: sum of the gaps of at least OUTAGE_S, worst place.
    `first_ack_after_fault_s`: from `injected` to the first ack of a message sent after it; None when some place never
    had one (`places_without_ack`). `recovery_s`: from the last `healed` to the last `recovered` event, each stage
    apart. `delivery_gap_s_max`: likewise of deliveries, live cells only. `ack_after_silence_ms_max`: the last ack
    between a power cut of all nodes and its heal, from the moment of silence. Degraded is no ack.
    """
    begin, end = history.time_of("warm-up"), history.time_of("drain")
    numbers: Numbers = {"ack_gap_s_max": None, "outage_s_total": None, "delivery_gap_s_max": None}
    outages = None
    if begin is not None and end is not None and history.acknowledged:
        gaps = {place: _gaps_s(times, begin, end) for place, times in acks(history)}
        long = {place: g[g >= OUTAGE_S] for place, g in gaps.items()}
        numbers["ack_gap_s_max"] = rounded(max((g.max() for g in gaps.values()), default=None))
        numbers["outage_s_total"] = rounded(max((g.sum() for g in long.values()), default=None))
        outages = sum(len(g) for g in long.values())
    if begin is not None and end is not None and live(history) and len(history.receipts):
        places, received = history.receipts.place, history.receipts.received_ns
        numbers["delivery_gap_s_max"] = rounded(
            max(_gaps_s(np.sort(received[places == p]), begin, end).max() for p in np.unique(places))
        )
    numbers |= _first_acks(history) | _recovery(history) | {"ack_after_silence_ms_max": _after_silence(history)}
    return Finding(check="unavailability", count=outages, numbers=numbers)


def acks(history: History) -> Iterator[tuple[int, Ints]]:
    """Each place that was sent to, with the times of its acks in order."""
    sends = history.sends
    acked = sends.outcome == Outcome.ACKED
    for place in np.unique(sends.place[sends.attempted]):
        yield int(place), np.sort(sends.settled_ns[acked & (sends.place == place)])


def _gaps_s(times: Ints, begin: int, end: int) -> Ints:
    """Gaps between ordered times from `begin` to `end`: between neighbours, and from the last one to `end`."""
    inside = times[(times >= begin) & (times < end)]
    points = np.append(inside, end) if len(inside) else np.array([begin, end])
    gaps: Ints = np.diff(points) / NS_PER_S
    return gaps


def _first_acks(history: History) -> Numbers:
    numbers: Numbers = {"first_ack_after_fault_s": None, "places_without_ack": None}
    injected = history.fault_times("injected")
    if not injected or not history.acknowledged or history.cell.get("fault", "none") == "none":
        return numbers
    sends = history.sends
    later = (sends.outcome == Outcome.ACKED) & (sends.sent_ns > injected[0])
    waits = []
    places = np.unique(sends.place[sends.attempted])
    for place in places:
        answers = sends.settled_ns[later & (sends.place == place)]
        if len(answers):
            waits.append((int(answers.min()) - injected[0]) / NS_PER_S)
    numbers["places_without_ack"] = len(places) - len(waits)
    if waits and len(waits) == len(places):
        numbers["first_ack_after_fault_s"] = rounded(max(waits))
    return numbers


def _recovery(history: History) -> Numbers:
    """Seconds from the last `healed`; a stage that was over before counts as 0."""
    numbers: Numbers = {"recovery_s": None}
    healed = history.fault_times("healed")
    stages = [e for e in history.events if e["event"] == "recovered"]
    if not healed or not stages or history.cell.get("fault", "none") == "none":
        return numbers
    for event in stages:
        numbers[f"recovery_s_{event.get('stage', 'ready')}"] = rounded(max(0, event["t_ns"] - healed[-1]) / NS_PER_S)
    numbers["recovery_s"] = rounded(max(0, max(e["t_ns"] for e in stages) - healed[-1]) / NS_PER_S)
    return numbers


def _after_silence(history: History) -> float | None:
    if history.cell.get("target") != "all":
        return None
    faults = [e for e in history.events if e["event"] == "fault"]
    silence = max((t for e in faults for t in _silences(e)), default=None)
    if silence is None:
        return None
    heal = next((e["t_ns"] for e in faults if e.get("step") == "heal"), None)
    acks = history.sends.settled_ns[history.sends.outcome == Outcome.ACKED]
    late = acks[(acks >= silence) & (acks < (heal if heal is not None else acks.max(initial=0) + 1))]
    return rounded((int(late.max()) - silence) / NS_PER_MS) if len(late) else 0.0


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
