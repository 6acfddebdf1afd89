"""The checks: pure functions of a history; the table CHECKS at the foot is the list that everything else goes by.

A check returns one Finding. The names in `numbers` that are columns of results.csv (judge.COLUMNS) become the cell's
row; every column has exactly one check. None means not measured, and is never a 0. Rules for all of them:
- While the audit is incomplete, what it would have to prove the absence of is None; a violation that was seen counts.
- Corrupt, foreign and the runner's own receipts are in no check but `strangers`.
What each check counts is its docstring, whose first line `mqtest list` shows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from mqtest.checks import (
    amounts,
    consumers,
    dashboard,
    divergence,
    duplicates,
    incidents,
    loss,
    order,
    outcomes,
    output,
    pacing,
    recovery,
    replay,
    speed,
    sustained,
    switch,
    usage,
)
from mqtest.history import History
from mqtest.model import Finding

CHECKS: Mapping[str, Callable[[History], Finding]] = {
    "outcomes": outcomes.outcomes,
    "loss": loss.loss,
    "unconfirmed": outcomes.unconfirmed,
    "phantom": outcomes.phantom,
    "strangers": outcomes.strangers,
    "stored-twice": duplicates.stored_twice,
    "redelivered": duplicates.redelivered,
    "reordered": order.reordered,
    "divergence": divergence.divergence,
    "skipped-by-consumer": consumers.skipped_by_consumer,
    "committed": consumers.committed,
    "conservation": consumers.conservation,
    "output": output.output,
    "replay": replay.replay,
    "amounts": amounts.amounts,
    "dashboard": dashboard.dashboard,
    "switch": switch.switch,
    "unavailability": recovery.unavailability,
    "recovery": recovery.recovery,
    "incidents": incidents.incidents,
    "dead": recovery.dead,
    "throughput": speed.throughput,
    "latency": speed.latency,
    "sustained": sustained.sustained,
    "pacing": pacing.pacing,
    "usage": usage.usage,
}
