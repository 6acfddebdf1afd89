"""Checks of speed: how much got through, and how long an answer took. Rules: __init__.py.

Phases come from the events: `steady` lasts until the next phase. A phase that did not happen measures nothing (None).
Percentiles are nearest-rank: always a value that occurred.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mqtest.checks.pacing import lag_ms, too_late
from mqtest.clock import NS_PER_S
from mqtest.fault_log import NO_FAULT
from mqtest.history import Bools, History, Ints, groups
from mqtest.model import Consume, Finding, Outcome

NS_PER_MS = 1_000_000
_QUANTILES = {"p50": 500, "p95": 950, "p99": 990, "p999": 999, "max": 1000}
"""in thousandths: whole numbers, so that no rank is off by a rounding"""

Numbers = dict[str, float | int | None]


def throughput(history: History) -> Finding:
    """Acks, and in live cells deliveries, per second of the steady phase; `drain_per_s` of a drain after the heal."""
    sends, received = history.sends, history.receipts.received_ns
    numbers: Numbers = dict.fromkeys(("sent_per_s", "ack_rate_per_s", "delivered_per_s", "drain_per_s"))
    window = history.window("steady")
    if window is not None:
        numbers["sent_per_s"] = _rate(sends.sent_ns, window)
        if history.acknowledged:
            numbers["ack_rate_per_s"] = _rate(sends.settled_ns[sends.outcome == Outcome.ACKED], window)
        if live(history):
            numbers["delivered_per_s"] = _rate(received, window)
    if not live(history) and len(received) > 1 and received.max() > received.min():
        numbers["drain_per_s"] = round(len(received) * NS_PER_S / int(received.max() - received.min()), 1)
    return Finding(check="throughput", count=None, numbers=numbers)


def latency(history: History) -> Finding:
    """Milliseconds from the due time (closed loop: the send) to the ack, of messages that fell due in a phase.

    Percentiles are of acked messages alone. Those that fell due in the phase and never were acked would have no end,
    so they stand beside it, never inside: `latency_unacked` (sent, not acked) and `latency_skipped`; likewise
    `fault_latency_…` for the fault phase and `recovery_latency_…` from the heal to the end of the load. Service time
    counts from the send, delivery latency (live cells) from the due time to the first receipt.

    What counts from the due time has our own lateness in it: where that is too much (pacing.py) the percentiles are
    refused, which leaves them empty, with a note; `latency_ms_p99_refused` is what would have stood there.
    """
    steady = history.window("steady")
    faulty = history.cell.get("fault", NO_FAULT) != NO_FAULT
    fault = history.window("fault") if faulty else None
    heal, drain = history.time_of("heal"), history.time_of("drain")
    after = (heal, drain) if faulty and heal is not None and drain is not None else None
    families = {
        "latency": (steady, _response(history, steady, "latency", _QUANTILES)),
        "fault_latency": (fault, _response(history, fault, "fault_latency", ("p50", "p99", "max"))),
        "recovery_latency": (after, _response(history, after, "recovery_latency", ("p99", "max"))),
        "delivery_latency": (steady, _quantiles(_delivery(history, steady), "delivery_latency", ("p50", "p99"))),
    }
    numbers = _quantiles(_service(history, steady), "service", ("p50", "p99")) | {"latency_ms_p99_refused": None}
    notes = []
    for name, (window, family) in families.items():
        why = too_late(lag_ms(history, window)["pacing_lag_ms_p99"], family[f"{name}_ms_p99"])
        if why is not None:
            notes.append(f"{name.replace('_', ' ')} is refused: {why}")
            if name == "latency":
                numbers["latency_ms_p99_refused"] = family["latency_ms_p99"]
            family = {key: None if "_ms_" in key else number for key, number in family.items()}
        numbers |= family
    return Finding(check="latency", count=None, numbers=numbers, notes=tuple(notes))


def live(history: History) -> bool:
    return bool((history.cell.get("workload") or {}).get("consume") == Consume.LIVE)


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
    if window is None or not live(history):
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
    return {f"{name}_ms_{q}": rounded(int(ordered[rank - 1]) / NS_PER_MS) for q, rank in ranks.items()}


def rounded(value: float | None) -> float | None:
    return None if value is None else round(float(value), 3)
