"""A cell's replay, live: a new job starts beside the old one on the whole history, catches up, and takes over.

    warm-up → history → steady → start → replay → (fault → heal → recover → catch-up) → beside → switch → after

Rules:
- The old job runs from the warm-up on. `steady` is what producers see with it alone, `replay` with the new one beside
  it, from the moment at which that begins until it has caught up, or until the fault.
- Caught up is a job that is less than a second of load behind, by the broker's word on the end of the log; of Flink's,
  less than five, for its outputs are seen a checkpoint later. A fault comes when the new job has read a share of what
  there was at its start.
- `switch` is the moment from which readers look at the new job's output. A new job that does not catch up in time is no
  reason to switch: the old one goes on.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from mqtest.brokers import Reachable
from mqtest.clock import NS_PER_S, now_ns
from mqtest.errors import ClusterError
from mqtest.jobs import FLINK, NEW, OLD
from mqtest.journal import Journal
from mqtest.load import Load
from mqtest.model import Replay

_LOOK_NS = NS_PER_S // 5
"""between two questions to the broker"""
_NEAR_S = 1.0
_NEAR_FLINK_S = 5.0
"""its outputs can be read once a checkpoint, one a second, has committed them"""


def history(replay: Replay, load: Load, journal: Journal, broker: Reachable) -> None:
    """Make the history, and let the old job come near its end."""
    journal.phase("history")
    rate_per_s = load.rate_per_s
    load.pace(replay.history_per_s or rate_per_s)
    load.last(replay.history_s)
    load.pace(rate_per_s)
    load.last(replay.catch_up_s, enough=_Near(load, broker, OLD, rate_per_s * _near_s(replay)))


def run(replay: Replay, load: Load, journal: Journal, broker: Reachable, fault: Callable[[], None] | None) -> None:
    """From the start of the new job to the end of the old one; raises what the fault raises."""
    journal.phase("start")
    begun = broker.remaining({})
    load.start_job(NEW, broker.wiring())
    journal.phase("replay")
    journal.event("job", job=NEW, step="started", behind=begun)  # first, so that all that it is handed comes after
    load.go_job(NEW)
    near = _Near(load, broker, NEW, load.rate_per_s * _near_s(replay))
    if fault is not None:
        load.last(replay.catch_up_s, enough=_Near(load, broker, NEW, begun * (1 - replay.fault_at)))
        fault()
        journal.phase("catch-up")
    load.last(replay.catch_up_s, enough=near)
    caught_up = near()
    journal.event("job", job=NEW, step="caught up" if caught_up else "behind", behind=near.behind)
    journal.note("the new job has caught up" if caught_up else f"the new job is still {near.behind} messages behind")
    journal.phase("beside")
    load.last(replay.beside_s)
    if caught_up:
        journal.phase("switch")
        journal.event("switch", old=OLD, new=NEW)
        load.stop_job(OLD)
        journal.event("job", job=OLD, step="stopped")


def _near_s(replay: Replay) -> float:
    return _NEAR_FLINK_S if replay.runs_on == FLINK else _NEAR_S


class _Near:
    """Whether a job has no more than so many messages still to read."""

    def __init__(self, load: Load, broker: Reachable, job: int, most: float) -> None:
        self._load = load
        self._broker = broker
        self._job = job
        self._most = most
        self._asked_ns = 0
        self.behind: int | None = None
        """when it was last told"""

    def __call__(self) -> bool:
        if now_ns() - self._asked_ns >= _LOOK_NS:
            with suppress(ClusterError):  # a broker that is down tells nothing
                self.behind = self._load.behind(self._broker, self._job)
            self._asked_ns = now_ns()
        return self.behind is not None and self.behind <= self._most
