"""Producers and consumers of a cell, each a process of its own: `python -m mqtest.workload`.

Protocol with the runner, one JSON object a line:
- stdin: first a WorkerPlan; then `go`, `rate N` (producers in an open loop: from now on all together N a second,
  0: none), `stop` (producers: send no more and settle; consumers: leave). End of file: the runner is gone, the worker
  ends at once. (PR_SET_PDEATHSIG does the same where the pipe does not.)
- stdout: `ready` when the worker can begin; `stats` four times a second; `event`, which the runner writes into
  events.jsonl; `done` as the last line. What the workers saw is in the ledger, never in these lines.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from mqtest.model import Replay, Wiring, Workload


class Role(StrEnum):
    """What a worker does."""

    PRODUCER = "producer"
    CONSUMER = "consumer"
    TRANSFORMER = "transformer"
    READER = "reader"
    """of what a job writes: a consumer of another topic"""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerPlan:
    """What one worker process is to do; travels as JSON."""

    role: Role
    number: int
    run_number: int
    """stands in every body: a message of another run is foreign"""
    wiring: Wiring
    workload: Workload
    folder: str
    """its ledger folder"""
    log: str
    """the file for what its client library warns of; not there when it warns of nothing"""
    settle_s: float
    replay: Replay | None = None
    """a transformer with state: a job (job.py)"""
    flink: str = ""
    """host:port of the job manager, where Flink runs that job (flink_job.py)"""
