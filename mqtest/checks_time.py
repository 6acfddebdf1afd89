"""Checks of time: how long nothing was acknowledged, how much got through, and how long an answer took. See checks.py.

Phases come from the events: `steady` lasts until the next phase, the load lasts from `warm-up` to `drain`. A phase that
did not happen measures nothing (None). Percentiles are nearest-rank: always a value that occurred.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from mqtest.clock import NS_PER_S
from mqtest.history import Bools, History, Ints, groups
from mqtest.model import Consume, Finding, Outcome

OUTAGE_S = 1.0
"""a gap between acks of at least this length is an outage"""
_NS_PER_MS = 1_000_000
_QUANTILES = {"p50": 500, "p95": 950, "p99": 990, "p999": 999, "max": 1000}
"""in thousandths: whole numbers, so that no rank is off by a rounding"""

Numbers = dict[str, float | int | None]


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
        gaps = {place: _gaps_s(times, begin, end) for place, times in _acks(history)}
        long = {place: g[g >= OUTAGE_S] for place, g in gaps.items()}
        numbers["ack_gap_s_max"] = _rounded(max((g.max() for g in gaps.values()), default=None))
        numbers["outage_s_total"] = _rounded(max((g.sum() for g in long.values()), default=None))
        outages = sum(len(g) for g in long.values())
    if begin is not None and end is not None and _live(history) and len(history.receipts):
        places, received = history.receipts.place, history.receipts.received_ns
        numbers["delivery_gap_s_max"] = _rounded(
            max(_gaps_s(np.sort(received[places == p]), begin, end).max() for p in np.unique(places))
        )
    numbers |= _first_acks(history) | _recovery(history) | {"ack_after_silence_ms_max": _after_silence(history)}
    return Finding(check="unavailability", count=outages, numbers=numbers)


def throughput(history: History) -> Finding:
    """Acks, and in live cells deliveries, per second of the steady phase; `drain_per_s` of a drain after the heal."""
    sends, received = history.sends, history.receipts.received_ns
    numbers: Numbers = dict.fromkeys(("sent_per_s", "ack_rate_per_s", "delivered_per_s", "drain_per_s"))
    window = history.window("steady")
    if window is not None:
        numbers["sent_per_s"] = _rate(sends.sent_ns, window)
        if history.acknowledged:
            numbers["ack_rate_per_s"] = _rate(sends.settled_ns[sends.outcome == Outcome.ACKED], window)
        if _live(history):
            numbers["delivered_per_s"] = _rate(received, window)
    if not _live(history) and len(received) > 1 and received.max() > received.min():
        numbers["drain_per_s"] = round(len(received) * NS_PER_S / int(received.max() - received.min()), 1)
    return Finding(check="throughput", count=None, numbers=numbers)


def latency(history: History) -> Finding:
    """Milliseconds from the due time (closed loop: the send) to the ack, of messages that fell due in a phase.

    Percentiles are of acked messages alone. Those that fell due in the phase and never were acked would have no end,
    so they stand beside it, never inside: `latency_unacked` (sent, not acked) and `latency_skipped`; likewise
    `fault_latency_…` for the fault phase and `recovery_latency_…` from the heal to the end of the load. Service time
    counts from the send, delivery latency (live cells) from the due time to the first receipt.
    """
    steady = history.window("steady")
    numbers = _response(history, steady, "latency", _QUANTILES)
    faulty = history.cell.get("fault", "none") != "none"
    numbers |= _response(history, history.window("fault") if faulty else None, "fault_latency", ("p99", "max"))
    heal, drain = history.time_of("heal"), history.time_of("drain")
    after = (heal, drain) if faulty and heal is not None and drain is not None else None
    numbers |= _response(history, after, "recovery_latency", ("p99", "max"))
    numbers |= _quantiles(_service(history, steady), "service", ("p50", "p99"))
    numbers |= _quantiles(_delivery(history, steady), "delivery_latency", ("p50", "p99"))
    return Finding(check="latency", count=None, numbers=numbers)


def _live(history: History) -> bool:
    return bool((history.cell.get("workload") or {}).get("consume") == Consume.LIVE)


def _acks(history: History) -> Iterator[tuple[int, Ints]]:
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
        numbers["first_ack_after_fault_s"] = _rounded(max(waits))
    return numbers


def _recovery(history: History) -> Numbers:
    """Seconds from the last `healed`; a stage that was over before counts as 0."""
    numbers: Numbers = {"recovery_s": None}
    healed = history.fault_times("healed")
    stages = [e for e in history.events if e["event"] == "recovered"]
    if not healed or not stages or history.cell.get("fault", "none") == "none":
        return numbers
    for event in stages:
        numbers[f"recovery_s_{event.get('stage', 'ready')}"] = _rounded(max(0, event["t_ns"] - healed[-1]) / NS_PER_S)
    numbers["recovery_s"] = _rounded(max(0, max(e["t_ns"] for e in stages) - healed[-1]) / NS_PER_S)
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
    return _rounded((int(late.max()) - silence) / _NS_PER_MS) if len(late) else 0.0


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


def _rate(times: Ints, window: tuple[int, int]) -> float:
    inside = int(np.count_nonzero((times >= window[0]) & (times < window[1])))
    return round(inside * NS_PER_S / max(1, window[1] - window[0]), 1)


def _due_in(history: History, window: tuple[int, int]) -> Bools:
    """Messages that fell due (closed loop: were sent) in the window, skipped ones too."""
    start = history.sends.start_ns
    inside: Bools = (start >= window[0]) & (start < window[1])
    return inside


def _response(history: History, window: tuple[int, int] | None, name: str, wanted: Any) -> Numbers:
    if window is None or not history.acknowledged:
        return _quantiles(None, name, wanted) | {f"{name}_unacked": None, f"{name}_skipped": None}
    sends, due = history.sends, _due_in(history, window)
    acked = due & (sends.outcome == Outcome.ACKED)
    return _quantiles((sends.settled_ns - sends.start_ns)[acked], name, wanted) | {
        f"{name}_unacked": int(np.count_nonzero(due & sends.attempted & ~acked)),
        f"{name}_skipped": int(np.count_nonzero(due & ~sends.attempted)),
    }


def _service(history: History, window: tuple[int, int] | None) -> Ints | None:
    if window is None or not history.acknowledged:
        return None
    sends = history.sends
    durations: Ints = (sends.settled_ns - sends.sent_ns)[_due_in(history, window) & (sends.outcome == Outcome.ACKED)]
    return durations


def _delivery(history: History, window: tuple[int, int] | None) -> Ints | None:
    if window is None or not _live(history):
        return None
    read = history.receipts
    order, new = groups(read.message, read.received_ns, by=1)
    first = order[new]
    first = first[_due_in(history, window)[read.message[first]]]
    durations: Ints = read.received_ns[first] - history.sends.start_ns[read.message[first]]
    return durations


def _quantiles(durations_ns: Ints | None, name: str, wanted: Any) -> Numbers:
    """`<name>_ms_<quantile>` for each wanted one; None without durations."""
    if durations_ns is None or not len(durations_ns):
        return {f"{name}_ms_{q}": None for q in wanted}
    ordered = np.sort(durations_ns)
    ranks = {q: -(-len(ordered) * _QUANTILES[q] // 1000) for q in wanted}
    return {f"{name}_ms_{q}": _rounded(int(ordered[rank - 1]) / _NS_PER_MS) for q, rank in ranks.items()}


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(float(value), 3)
