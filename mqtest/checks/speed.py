"""Checks of speed: how much got through, and how long an answer took. Rules: __init__.py.

Phases come from the events: `steady` lasts until the next phase. A phase that did not happen measures nothing (None).
Percentiles are nearest-rank: always a value that occurred, to the microsecond.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mqtest.checks.pacing import REFUSED, lag_ms, loads, refusal, too_late
from mqtest.clock import NS_PER_S
from mqtest.deliveries import Delivered
from mqtest.durations import Durations, Spread, spread
from mqtest.fault_log import NO_FAULT
from mqtest.history import History
from mqtest.model import Consume, Finding, Outcome
from mqtest.series import joined
from mqtest.tables import Bools, Ints, Sends

_US_PER_MS = 1000
_QUANTILES = {"p50": 500, "p95": 950, "p99": 990, "p999": 999, "max": 1000}
"""in thousandths: whole numbers, so that no rank is off by a rounding"""

Numbers = dict[str, float | int | None]
Window = tuple[int, int]
"""begin and end in ns, the end not included"""


def throughput(history: History) -> Finding:
    """Acks, and in live cells deliveries, per second of the steady phase; `drain_per_s` of a drain after the heal."""
    numbers: Numbers = dict.fromkeys(("sent_per_s", "ack_rate_per_s", "delivered_per_s", "drain_per_s"))
    window = history.window("steady")
    if window is not None:
        numbers["sent_per_s"] = _per_s(sum(history.over_sends(lambda s: inside(s.sent_ns, window))), window)
        if history.acknowledged:
            acked = history.over_sends(lambda s: inside(s.settled_ns[s.outcome == Outcome.ACKED], window))
            numbers["ack_rate_per_s"] = _per_s(sum(acked), window)
        if live(history):
            received = history.over_receipts(lambda r: inside(r.received_ns, window))
            numbers["delivered_per_s"] = _per_s(sum(received), window)
    deliveries = joined([*history.delivery_times.values()], exact=True)
    if not live(history) and len(deliveries.times) > 1 and deliveries.times[-1] > deliveries.times[0]:
        lasted_ns = int(deliveries.times[-1] - deliveries.times[0])
        numbers["drain_per_s"] = round(int(deliveries.counts.sum()) * NS_PER_S / lasted_ns, 1)
    return Finding(check="throughput", count=None, numbers=numbers)


def latency(history: History) -> Finding:
    """Milliseconds from the due time (closed loop: the send) to the ack, of messages that fell due in a phase.

    Percentiles are of acked messages alone. Those that fell due in the phase and never were acked would have no end,
    so they stand beside it, never inside: `latency_unacked` (sent, not acked) and `latency_skipped`; likewise
    `fault_latency_…` for the fault phase, `recovery_latency_…` from the heal to the end of the load, and
    `replay_latency_…` while a new job reads the history, until it has caught up or the fault comes. Service time
    counts from the send, delivery latency (live cells) from the due time to the first receipt. After a search each load
    at a share of the sustained rate is a phase of its own (`load_50_latency_…` at half of it).

    What counts from the due time has our own lateness in it: where that is too much (pacing.py) the percentiles are
    refused, which leaves them empty, with a note; `latency_ms_p99_refused` is what would have stood there, and likewise
    `load_50_latency_ms_p99_refused`.
    """
    steady = history.window("steady")
    faulty = history.cell.get("fault", NO_FAULT) != NO_FAULT
    fault = history.window("fault") if faulty else None
    heal, drain = history.time_of("heal"), history.time_of("drain")
    after = (heal, drain) if faulty and heal is not None and drain is not None else None
    replay = history.window("replay")
    families = {
        "latency": (steady, _response(history, steady, "latency", _QUANTILES)),
        "fault_latency": (fault, _response(history, fault, "fault_latency", ("p50", "p99", "max"))),
        "recovery_latency": (after, _response(history, after, "recovery_latency", ("p99", "max"))),
        "replay_latency": (replay, _response(history, replay, "replay_latency", ("p50", "p99"))),
        "delivery_latency": (steady, _quantiles(_delivery(history, steady), "delivery_latency", ("p50", "p99"))),
    }
    for phase, prefix in loads(history).items():
        name, window = f"{prefix}latency", history.window(phase)
        families[name] = (window, _response(history, window, name, ("p50", "p99", "p999", "max")))
    numbers = _quantiles(_service(history, steady), "service", ("p50", "p99"))
    numbers |= {f"{prefix}{REFUSED}": None for prefix in ("", *loads(history).values())}
    notes = []
    for name, (window, family) in families.items():
        why = too_late(lag_ms(history.pacing, window)["pacing_lag_ms_p99"], family[f"{name}_ms_p99"])
        if why is not None:
            notes.append(refusal(name, why))
            if f"{name}_ms_p99_refused" in numbers:
                numbers[f"{name}_ms_p99_refused"] = family[f"{name}_ms_p99"]
            family = {key: None if "_ms_" in key else number for key, number in family.items()}
        numbers |= family
    return Finding(check="latency", count=None, numbers=numbers, notes=tuple(notes))


def live(history: History) -> bool:
    return bool((history.cell.get("workload") or {}).get("consume") == Consume.LIVE)


def inside(times: Ints, window: Window) -> int:
    """How many of these times are in it."""
    return int(np.count_nonzero((times >= window[0]) & (times < window[1])))


def _per_s(number: int, window: Window) -> float:
    return round(number * NS_PER_S / max(1, window[1] - window[0]), 1)


def _due_in(sends: Sends, window: Window) -> Bools:
    """Messages that fell due (closed loop: were sent) in the window, skipped ones too."""
    start = sends.start_ns
    inside: Bools = (start >= window[0]) & (start < window[1])
    return inside


def _response(history: History, window: Window | None, name: str, wanted: Any) -> Numbers:
    if window is None or not history.acknowledged:
        return _quantiles(None, name, wanted) | {f"{name}_unacked": None, f"{name}_skipped": None}

    def measure(sends: Sends) -> tuple[Spread, int, int]:
        due = _due_in(sends, window)
        acked = due & (sends.outcome == Outcome.ACKED)
        return (
            spread((sends.settled_ns - sends.start_ns)[acked]),
            int(np.count_nonzero(due & sends.attempted & ~acked)),
            int(np.count_nonzero(due & ~sends.attempted)),
        )

    durations, unacked, skipped = Durations(), 0, 0
    for part in history.over_sends(measure):
        durations.add(part[0])
        unacked += part[1]
        skipped += part[2]
    return _quantiles(durations, name, wanted) | {f"{name}_unacked": unacked, f"{name}_skipped": skipped}


def _service(history: History, window: Window | None) -> Durations | None:
    if window is None or not history.acknowledged:
        return None

    def measure(sends: Sends) -> Spread:
        mine = _due_in(sends, window) & (sends.outcome == Outcome.ACKED)
        return spread((sends.settled_ns - sends.sent_ns)[mine])

    return Durations(history.over_sends(measure))


def _delivery(history: History, window: Window | None) -> Durations | None:
    if window is None or not live(history):
        return None

    def measure(read: Delivered) -> Spread:
        due_ns, sent_ns = read.sent("due_ns"), read.sent("sent_ns")
        start = np.where(due_ns != 0, due_ns, sent_ns)
        mine = (start >= window[0]) & (start < window[1])
        return spread((read.received_ns - start)[mine])

    return Durations(history.over_first_receipts(measure))


def _quantiles(durations: Durations | None, name: str, wanted: Any) -> Numbers:
    """`<name>_ms_<quantile>` for each wanted one; None without durations."""
    if durations is None or not durations.number:
        return {f"{name}_ms_{q}": None for q in wanted}
    ranks = durations.ranks([_QUANTILES[q] for q in wanted])
    return {f"{name}_ms_{q}": us / _US_PER_MS for q, us in zip(wanted, ranks, strict=True)}


def rounded(value: float | None) -> float | None:
    return None if value is None else round(float(value), 3)
