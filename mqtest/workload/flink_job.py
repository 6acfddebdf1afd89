"""The job of a replay that Flink runs (compose/images/flink/ReplayJob.java): submitted, followed and ended from here.

Rules:
- What the job was handed is what its outputs say: each has its source and that one's position. They are read as a
  reader at the profile's isolation level sees them: an input counts as done with once its output is there to be read.
- Flink restarts the job by itself, from its last checkpoint; so does a job manager that comes back, by what ZooKeeper
  has. Nothing is done from here but to submit it once and to end it: with a last savepoint, and where that does not
  come to an end in time, without.
- Every change of its state is an event (`flink`), and the last of them has Flink's own counts of checkpoints.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from mqtest import body, jobs
from mqtest.clients import ClientError, Consumer, client
from mqtest.clock import NS_PER_S, now_ns
from mqtest.errors import ClusterError
from mqtest.flink_rest import ENDED, FlinkRest
from mqtest.ledger import ReceiptsWriter
from mqtest.model import RUNNER, Delivery
from mqtest.replay_table import ISOLATION
from mqtest.workload import WorkerPlan
from mqtest.workload.consumer import record
from mqtest.workload.control import Control

_LOOK_NS: Final = NS_PER_S
_REOPEN_NS: Final = NS_PER_S // 5
_POLL_S: Final = 0.1
_ALONE: Final = 1
_SAVEPOINT_S: Final = 20.0
_CANCEL_S: Final = 5.0
CHECKPOINT_MS: Final = 1000
TRANSACTION_MS: Final = 120_000
"""below the brokers' limit of 15 minutes, above any failure of a cell: what was prepared and not committed when this is
over is lost. (The connector's default of an hour the brokers refuse.)"""


def arguments(plan: WorkerPlan) -> list[str]:
    """Of the job's main."""
    wiring, replay = plan.wiring, plan.replay
    assert replay is not None
    asked = {
        "name": f"{wiring.topic}-job-{plan.number}",
        "bootstrap": ",".join(wiring.addresses),
        "input": wiring.topic,
        "output": wiring.output.topic,
        "group": f"{wiring.group}-flink",
        "isolation": wiring.consumer.get(ISOLATION, "read_uncommitted"),
        "run": plan.run_number,
        "keys": replay.keys,
        "window-ns": jobs.window_ns(replay.window_s),
        "guarantee": replay.output,
        "checkpoint-ms": CHECKPOINT_MS,
        "transaction-ms": TRANSACTION_MS,
    }
    return [word for name, value in asked.items() for word in (f"--{name}", str(value))]


def job_id(plan: WorkerPlan) -> str:
    """Its number with Flink: the same for a worker that comes back."""
    return hashlib.md5(f"{plan.run_number}-{plan.number}".encode(), usedforsecurity=False).hexdigest()


class FlinkLoop:
    """One job of Flink's; see the module's rules."""

    def __init__(self, plan: WorkerPlan, control: Control) -> None:
        self._plan = plan
        self._control = control
        self._ledger = ReceiptsWriter(Path(plan.folder))
        self._flink = FlinkRest(plan.flink)
        self._id = job_id(plan)
        self._outputs = replace(plan.wiring.output, group=f"{plan.wiring.group}-handed")
        self._open_client = client(plan.wiring.client).open_consumer
        self._client: Consumer | None = None
        self._epoch = self._ledger.next_epoch - 1
        self._positions: dict[int, int] = {}
        self._written = 0
        self._submitted = False
        self._told = ""
        self._look_at_ns = self._reopen_at_ns = 0

    def run(self) -> None:
        """From `ready` to `done`; LedgerError ends it."""
        self._control.ready()
        if self._control.wait_go():
            while not self._control.stopping:
                self._look()
                self._read()
            self._end()
        if self._client is not None:
            self._client.close(_POLL_S)
        self._ledger.close()
        self._control.stats(self._stats(), force=True)

    def _look(self) -> None:
        """Submit the job where that is still to be done; tell a change of its state."""
        if now_ns() < self._look_at_ns:
            return
        try:
            if not self._submitted:
                self._flink.run(self._id, arguments(self._plan))
                self._submitted = True
            self._says(self._flink.state(self._id))
        except ClusterError as error:
            self._says("unknown", why=str(error))
        self._look_at_ns = now_ns() + _LOOK_NS

    def _read(self) -> None:
        """Take the next outputs."""
        if self._client is not None and self._client.failed is not None:
            self._client.close(_POLL_S)
            self._client = None
        if self._client is None:
            self._connect()
        if self._client is not None:
            handed = self._handed(self._client.poll(_POLL_S))
            record(self._ledger, handed, self._plan.run_number, self._epoch, {})
            self._client.ack()
        self._control.stats(self._stats())

    def _handed(self, outputs: Sequence[Delivery]) -> list[Delivery]:
        """The inputs of the workload that these outputs are of, each at its own position."""
        found = []
        for output in outputs:
            head = body.decode(output.body)
            if head is None or head.run != self._plan.run_number or head.producer == RUNNER:
                continue
            row = jobs.decode(output.body)
            found.append(Delivery(row.place, row.offset, output.body, False))
            self._positions[row.place] = max(row.offset, self._positions.get(row.place, -1))
        self._written += len(found)
        return found

    def _connect(self) -> None:
        if now_ns() < self._reopen_at_ns:
            self._control.pause(_POLL_S)
            return
        self._reopen_at_ns = now_ns() + _REOPEN_NS
        try:
            self._client = self._open_client(self._outputs, 0, self._epoch + 1, _ALONE)
        except ClientError:
            return
        self._epoch += 1

    def _end(self) -> None:
        """In good order, else at once."""
        if not self._submitted:
            return
        try:
            counts, restarts = self._flink.checkpoints(self._id), self._flink.restarts(self._id)
        except ClusterError as error:
            self._says("unknown", why=str(error))
        else:
            self._says("ending", checkpoints=counts, restarts=restarts)
        if not self._ended(self._flink.stop, _SAVEPOINT_S):
            self._says("not stopped in time")
            self._ended(self._flink.cancel, _CANCEL_S)

    def _ended(self, end: Callable[[str], None], within_s: float) -> bool:
        deadline, asked = now_ns() + int(within_s * NS_PER_S), False
        while now_ns() < deadline:
            try:
                if not asked:
                    end(self._id)
                    asked = True
                state = self._flink.state(self._id)
            except ClusterError as error:
                self._says("unknown", why=str(error))
            else:
                self._says(state)
                if state in ENDED:
                    return True
            self._read()
        return False

    def _says(self, state: str, **more: object) -> None:
        if state != self._told:
            self._control.event("flink", job=self._plan.number, state=state, **more)
        self._told = state

    def _stats(self) -> dict[str, object]:
        return {"written": self._written, "positions": {str(p): o for p, o in self._positions.items()}}
