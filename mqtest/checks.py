"""The checks: pure functions of a history; the table CHECKS at the foot is the list that everything else goes by.

A check returns one Finding. The names in `numbers` that are columns of results.csv (judge.COLUMNS) become the cell's
row; every column has exactly one check. None means not measured, and is never a 0. Rules for all of them:
- While the audit is incomplete, what it would have to prove the absence of is None; a violation that was seen counts.
- Corrupt, foreign and the runner's own receipts are in no check but `strangers`.
What each check counts is its docstring, whose first line `mqtest list` shows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from mqtest import (
    checks_consumers,
    checks_divergence,
    checks_duplicates,
    checks_incidents,
    checks_loss,
    checks_order,
    checks_outcomes,
    checks_output,
    checks_recovery,
    checks_time,
)
from mqtest.history import History
from mqtest.model import Finding

CHECKS: Mapping[str, Callable[[History], Finding]] = {
    "outcomes": checks_outcomes.outcomes,
    "loss": checks_loss.loss,
    "unconfirmed": checks_outcomes.unconfirmed,
    "phantom": checks_outcomes.phantom,
    "strangers": checks_outcomes.strangers,
    "stored-twice": checks_duplicates.stored_twice,
    "redelivered": checks_duplicates.redelivered,
    "reordered": checks_order.reordered,
    "divergence": checks_divergence.divergence,
    "skipped-by-consumer": checks_consumers.skipped_by_consumer,
    "committed": checks_consumers.committed,
    "conservation": checks_consumers.conservation,
    "output": checks_output.output,
    "unavailability": checks_recovery.unavailability,
    "recovery": checks_recovery.recovery,
    "incidents": checks_incidents.incidents,
    "dead": checks_recovery.dead,
    "throughput": checks_time.throughput,
    "latency": checks_time.latency,
}
