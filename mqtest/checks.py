"""The checks: pure functions of a history; the table CHECKS at the foot is the list that everything else goes by.

A check returns one Finding. The names in `numbers` that are columns of results.csv (judge.COLUMNS) become the cell's
row; every column has exactly one check. None means not measured, and is never a 0. Rules for all of them:
- While the audit is incomplete, what it would have to prove the absence of is None; a violation that was seen counts.
- Corrupt, foreign and the runner's own receipts are in no check but `strangers`.
What each check counts is its docstring, whose first line `mqtest list` shows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from mqtest import checks_delivery, checks_time
from mqtest.history import History
from mqtest.model import Finding

CHECKS: Mapping[str, Callable[[History], Finding]] = {
    "outcomes": checks_delivery.outcomes,
    "loss": checks_delivery.loss,
    "unconfirmed": checks_delivery.unconfirmed,
    "phantom": checks_delivery.phantom,
    "strangers": checks_delivery.strangers,
    "stored-twice": checks_delivery.stored_twice,
    "redelivered": checks_delivery.redelivered,
    "reordered": checks_delivery.reordered,
    "divergence": checks_delivery.divergence,
    "unavailability": checks_time.unavailability,
    "throughput": checks_time.throughput,
    "latency": checks_time.latency,
}
