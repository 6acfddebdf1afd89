"""The highest rate that a cell was shown to sustain. Rules: __init__.py.

A search (search_run.py) tries one rate after the other; each trial is an event with its rate, its begin and its end. It
is judged by its last two thirds, the part, and `why_not` is the rule: the rate is sustained when
- what the rate asks for fell due, and our own load noticed it: its pacing lag (p99) is at most 5 % of the part's time,
  for what is sent later than that shows what this machine can do, not what the broker can;
- none of it was skipped;
- what fell due was acked in the end, but for 1 %;
- the backlog, of messages due and not settled, did not grow: its median over the second half of the part is above that
  over the first half by at most 1 % of what fell due. A stall that the broker makes good for moves no median.
Both halves of mqtest go by this: the search to choose its next rate, the check to say what the ledger confirms.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from mqtest.checks.pacing import lag_ms
from mqtest.checks.sightings import MOST_EXAMPLES
from mqtest.clock import NS_PER_MS, NS_PER_S
from mqtest.columns import Columns
from mqtest.hdr import Interval
from mqtest.history import History
from mqtest.model import Finding, Outcome
from mqtest.tables import Ints, Sends

NEEDED = ("due_ns", "sent_ns", "settled_ns", "outcome")
"""columns of sends"""
_JUDGED = 2 / 3
"""of a trial, its end"""
_TOLERATED = 0.01
"""of what fell due"""
_FELL_DUE = 0.95
"""at least, of what the rate asks for: a trial during which a producer was away, or as late as that, shows nothing"""
_SAMPLES = 50
"""of the backlog, in each half"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """What the end of a trial came to. Counts of messages, but for the times."""

    lasted_ms: float
    lag_ms: float | None
    """p99 of the pacing lag of our own load; None: not measured"""
    asked: float
    """by the rate"""
    due: int
    skipped: int
    """of these"""
    acked: int
    """of these, whenever"""
    backlog_before: float
    """median over the first half"""
    backlog_after: float
    """median over the second half"""


def why_not(part: Part) -> str | None:
    """Why the rate was not sustained; None: it was."""
    if part.due < _FELL_DUE * part.asked:
        return f"only {part.due:,} of {part.asked:,.0f} messages fell due"
    if part.lag_ms is not None and part.lag_ms > (1 - _FELL_DUE) * part.lasted_ms:
        return f"our own load was late by p99 {part.lag_ms:,.0f} ms in {part.lasted_ms:,.0f} ms"
    if part.skipped:
        return f"{part.skipped:,} of {part.due:,} messages were skipped"
    if part.acked < (1 - _TOLERATED) * part.due:
        return f"only {part.acked:,} of {part.due:,} messages were acknowledged"
    growth = part.backlog_after - part.backlog_before
    if growth > _TOLERATED * part.due:
        return f"the backlog grew by {growth:,.0f} while {part.due:,} messages fell due"
    return None


def part(sends: Columns, lags: Iterable[Interval], rate_per_s: float, began_ns: int, ended_ns: int) -> Part:
    """The end of a trial, from the columns NEEDED of the sends of all producers, and from their logs of pacing lag."""
    begin = ended_ns - int((ended_ns - began_ns) * _JUDGED)
    due, settled = sends["due_ns"][:], sends["settled_ns"][:]
    near = np.flatnonzero((due > 0) & (due < ended_ns) & ((settled == 0) | (settled > begin)))
    due, settled = due[near], settled[near]
    sent, acked = sends["sent_ns"][near] != 0, sends["outcome"][near] == Outcome.ACKED
    inside = due >= begin
    times = np.linspace(begin, ended_ns, 2 * _SAMPLES, endpoint=False)
    fell_due, answered = np.sort(due[sent]), np.sort(settled[sent & (settled != 0)])
    backlog = np.searchsorted(fell_due, times, "right") - np.searchsorted(answered, times, "right")
    return Part(
        lasted_ms=(ended_ns - begin) / NS_PER_MS,
        lag_ms=lag_ms(lags, (begin, ended_ns))["pacing_lag_ms_p99"],
        asked=rate_per_s * (ended_ns - begin) / NS_PER_S,
        due=int(np.count_nonzero(inside)),
        skipped=int(np.count_nonzero(inside & ~sent)),
        acked=int(np.count_nonzero(inside & acked & (settled != 0))),
        backlog_before=float(np.median(backlog[:_SAMPLES])),
        backlog_after=float(np.median(backlog[_SAMPLES:])),
    )


def _near(history: History, span: tuple[int, int]) -> Columns:
    """The sends that were due and not settled at some moment of this time."""

    def near(sends: Sends) -> dict[str, Ints]:
        due = (sends.due_ns > 0) & (sends.due_ns < span[1])
        mine = due & ((sends.settled_ns == 0) | (sends.settled_ns > span[0]))
        return {name: getattr(sends, name)[mine] for name in NEEDED}

    parts = list(history.over_sends(near))
    return {name: np.concatenate([np.zeros(0, dtype=np.int64), *(part[name] for part in parts)]) for name in NEEDED}


def sustained(history: History) -> Finding:
    """Messages a second: the highest rate that the cell's search tried and that its ledger shows to be sustained.

    `not_sustained_per_s` is the lowest one above that; `searched_per_s` what the search took for it, of which the loads
    after it are shares. The examples say of every trial, in their order, what came of it. None: nothing was tried, or
    nothing sustained.
    """
    held: list[float] = []
    failed: list[float] = []
    lines: list[str] = []
    for trial in (event for event in history.events if event["event"] == "trial"):
        rate_per_s = float(trial["rate_per_s"])
        span = trial["began_ns"], trial["ended_ns"]
        why = why_not(part(_near(history, span), history.pacing, rate_per_s, *span))
        (held if why is None else failed).append(rate_per_s)
        lines.append(f"{rate_per_s:,.0f} a second: {why or 'sustained'}")
    above = [rate for rate in failed if rate > max(held, default=0.0)]
    took = next((event["rate_per_s"] for event in history.events if event["event"] == "searched"), None)
    numbers = {
        "sustained_per_s": round(max(held), 1) if held else None,
        "not_sustained_per_s": round(min(above), 1) if above else None,
        "searched_per_s": None if took is None else round(float(took), 1),
        "trials": len(lines) or None,
    }
    return Finding(check="sustained", count=None, numbers=numbers, examples=tuple(lines[-MOST_EXAMPLES:]))
