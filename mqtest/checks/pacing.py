"""The check of our own load: how late it was, and whether a latency can be believed beside that. Rules: __init__.py."""

from __future__ import annotations

from collections.abc import Iterable

from mqtest import hdr
from mqtest.clock import NS_PER_MS
from mqtest.history import History
from mqtest.model import Finding, Search
from mqtest.pacing import lag

SHARE = 5
"""latencies are refused where the lag's p99 is more than one part in so many of theirs"""
_QUANTILES = {"p50": 500, "p99": 990, "max": 1000}
"""in thousandths"""
_USUAL_LOADS = tuple(name for name, _share in Search().loads)
"""measured or not, for they are columns"""
REFUSED = "latency_ms_p99_refused"
"""how the columns end with what would have been a p99; before it stands of which phase, as before its pacing lag"""


def pacing(history: History) -> Finding:
    """Milliseconds from a message's due time until our own load noticed it, in the steady phase.

    Of each load at a share of what a search found the p99 (`load_50_pacing_lag_ms_p99`).
    """
    numbers = lag_ms(history.pacing, history.window("steady"))
    for phase, prefix in loads(history).items():
        found = lag_ms(history.pacing, history.window(phase))
        numbers[f"{prefix}pacing_lag_ms_p99"] = found["pacing_lag_ms_p99"]
    return Finding(check="pacing", count=None, numbers=numbers)


def loads(history: History) -> dict[str, str]:
    """The phases at a share of what a search found, the usual ones and those of this cell → how the names of their
    figures begin: `load_50_`."""
    return {phase: f"{phase.replace('-', '_')}_" for phase in dict.fromkeys([*_USUAL_LOADS, *history.loads])}


def lag_ms(intervals: Iterable[hdr.Interval], window: tuple[int, int] | None) -> dict[str, float | None]:
    """`pacing_lag_ms_<quantile>` over the messages that fell due in a window (to a quarter of a second)."""
    seen = None if window is None else lag(intervals, window)
    found = {name: None if seen is None else hdr.quantile_ns(seen, q) for name, q in _QUANTILES.items()}
    return {f"pacing_lag_ms_{name}": None if ns is None else round(ns / NS_PER_MS, 3) for name, ns in found.items()}


def too_late(lag_ms_p99: float | None, latency_ms_p99: float | None) -> str | None:
    """Why a latency cannot be believed, or None; where no lag was measured nothing speaks against it."""
    if lag_ms_p99 is None or latency_ms_p99 is None or lag_ms_p99 * SHARE <= latency_ms_p99:
        return None
    return f"our own load was late by p99 {lag_ms_p99:g} ms, more than a fifth of the p99 of {latency_ms_p99:g} ms"


def refusal(name: str, why: str) -> str:
    """What is said of the latency of that name where `too_late` has a reason."""
    return f"{name.replace('_', ' ')} is refused: {why}"
