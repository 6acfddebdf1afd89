"""A cell's search, live: the highest rate that it sustains, and then the load at shares of it.

    warm-up → search: trial, settle, trial, settle … → load-25 → load-50 → load-75

Rules:
- A trial ends early when messages are skipped: the client has taken all that it will. After each, nothing falls due
  until what is open has settled, so that none starts with the backlog of another; at most `settle_s`.
- What a trial came to is read from the ledger, by the rule that the check goes by (checks/sustained.py). Its event says
  what was thought of it then; what is reported is the check's word.
- The rate doubles until one is not sustained, then halves the ratio between the highest that was and the lowest that
  was not, until they are within 10 %. A rate that was not sustained is tried once more before that counts: a stall of
  this machine is not the broker's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from mqtest.checks.sustained import NEEDED, part, why_not
from mqtest.clock import now_ns
from mqtest.journal import Journal
from mqtest.load import Load
from mqtest.model import Search

_NEAR = 1.1
"""ratio of the rates between which the search ends"""

Tried = Sequence[tuple[float, bool]]
"""rates in the order of their trials, and whether each was sustained"""


def run(search: Search, load: Load, journal: Journal) -> None:
    """The phases from `search` to the last load; without a sustained rate there is no load."""
    journal.phase("search")
    tried: list[tuple[float, bool]] = []
    while (rate_per_s := next_rate(search, tried)) is not None:
        tried.append((rate_per_s, _sustained(rate_per_s, search, load, journal)))
    found = highest(tried)
    journal.event("searched", rate_per_s=found, trials=len(tried))
    if found is None:
        journal.note(f"none of {len(tried)} rates was sustained")
        return
    journal.note(f"sustained: {found:,.0f} a second")
    for name, share in search.loads:
        journal.phase(name)
        load.pace(found * share)
        load.last(search.at_s)


def next_rate(search: Search, tried: Tried) -> float | None:
    """The rate to try next; None: found as near as it is to be, or no trial is left."""
    if not tried:
        return search.start_per_s
    if len(tried) >= search.trials:
        return None
    held = highest(tried)
    rates = [rate for rate, _ in tried]
    last, sustained = tried[-1]
    if not sustained and rates.count(last) == 1:
        return last
    above = [rate for rate, ok in tried if not ok and rates.count(rate) > 1 and rate > (held or 0.0)]
    if held is None:
        return min(above) / 2
    if not above:
        return min(held * 2, search.most_per_s) if held < search.most_per_s else None
    return math.sqrt(held * min(above)) if min(above) > held * _NEAR else None


def highest(tried: Tried) -> float | None:
    """The highest rate that was sustained."""
    return max((rate for rate, sustained in tried if sustained), default=None)


def _sustained(rate_per_s: float, search: Search, load: Load, journal: Journal) -> bool:
    began_ns = now_ns()
    skipped = load.workers.total("skipped")
    load.pace(rate_per_s)
    load.last(search.step_s, enough=lambda: load.workers.total("skipped") > skipped)
    ended_ns = now_ns()
    load.pace(0)
    load.last(search.settle_s, enough=load.settled)
    if load.settled():
        why = why_not(part(load.sends(NEEDED), load.lags(), rate_per_s, began_ns, ended_ns))
    else:
        why = f"what was open had not settled {search.settle_s:g} s later"
    said: dict[str, Any] = {"rate_per_s": rate_per_s, "began_ns": began_ns, "ended_ns": ended_ns}
    journal.event("trial", **said, sustained=why is None, why=why)
    journal.note(f"{rate_per_s:,.0f} a second: {why or 'sustained'}")
    return why is None
