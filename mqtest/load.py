"""The load of one cell, from the first worker to the end of the audit; the same for a cluster of ours and for one that
somebody else runs (`mqtest attach`). What happens to the cluster meanwhile is the caller's.

    start → go → last … → drain → audit

Transformers, where there are any, run from the start until they have taken everything; the consumers are drained then.
In a replay they are jobs: the old one runs from the start, the new one from `go_job` until it has taken everything.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np

from mqtest import pacing
from mqtest.audit import RunnerProducer, read_all
from mqtest.brokers import Reachable
from mqtest.clients import Arrived, Client, one_by_one
from mqtest.clock import NS_PER_S, now_ns, wait_until
from mqtest.columns import Columns
from mqtest.dashboard import Feed
from mqtest.errors import ClusterError, WaitTimeout
from mqtest.hdr import Interval
from mqtest.job_ledger import write_totals
from mqtest.jobs import NEW, OLD, Table
from mqtest.journal import Journal
from mqtest.ledger import load_sends
from mqtest.model import RUNNER, Consume, Kind, Phases, Replay, Wiring, Workload
from mqtest.packer import Packer
from mqtest.replay_table import of_job
from mqtest.watch import CellWatch, Progress
from mqtest.workload import Role, WorkerPlan
from mqtest.workload.processes import Workers

_LOOK_S = 0.1
"""between two looks at the workers while a phase lasts"""
_PROBE_S = 60.0
"""at most, for the first message of all to be acknowledged in every place"""
_END_S = 40.0
"""at most, for a worker to end: a transformer ends its batch first"""
_FOLDERS = {
    Role.PRODUCER: "sends",
    Role.CONSUMER: "receipts",
    Role.TRANSFORMER: "transforms",
    Role.READER: "shown",
}
_TAKEN = "everything consumed"
_ALONE = Workload(consumers=1)
"""of a reader: it has the topic to itself"""
_COUNTED_S = 5.0
"""at most, for the broker's own figures to follow"""


class Load:
    """Producers, consumers, and the runner's own producer, in one cell's folder."""

    def __init__(
        self,
        *,
        run: str,
        run_number: int,
        cell_dir: Path,
        library: Client,
        workload: Workload,
        phases: Phases,
        journal: Journal,
        watch: CellWatch,
        replay: Replay | None = None,
    ) -> None:
        self._replay = replay
        self._since_ms = 0
        self._flink = ""
        self._run_number = run_number
        self._ledger, self._logs = cell_dir / "ledger", cell_dir / "logs"
        self._library = library
        self._workload = workload
        self._phases = phases
        self._journal = journal
        self._watch = watch
        self._rate_per_s = workload.rate_per_s
        self.workers = Workers(run, journal.heard)
        self._packer = Packer(cell_dir, journal.note)
        self._runner = RunnerProducer(library, self._ledger / f"sends.{RUNNER}", run_number, workload.size_bytes)

    def probe(self, wiring: Wiring) -> None:
        """Get one message acknowledged in every place; raises WaitTimeout."""
        self._runner.acknowledge_one_each(wiring, _PROBE_S, "a probe")

    def start(self, wiring: Wiring, flink: str = "") -> None:
        """Start the workers, and wait until each is ready; nothing is sent yet. `flink`: where Flink runs the jobs."""
        self._flink = flink
        plans = self._plans(Role.PRODUCER, wiring)
        plans += self._job_plans(OLD, wiring) if self._replay else self._plans(Role.TRANSFORMER, wiring)
        if self._workload.consume is Consume.LIVE:
            plans += self._plans(Role.CONSUMER, wiring)
        self.workers.start(plans)

    def go(self) -> None:
        """Begin to consume (live) and to send: the warm-up."""
        if self._workload.consume is Consume.LIVE:
            self.workers.go(Role.CONSUMER)
        self._journal.phase("warm-up")
        self._since_ms = int(time.time() * 1000)
        for role in (Role.TRANSFORMER, Role.READER):
            self.workers.go(role)
        self.workers.go(Role.PRODUCER)

    def start_job(self, number: int, wiring: Wiring) -> None:
        """Start a job beside what runs, with a reader of its output, and wait until both are ready; nothing is read
        yet."""
        self.workers.start(self._job_plans(number, wiring))

    def go_job(self, number: int) -> None:
        """Begin to read."""
        for role in (Role.TRANSFORMER, Role.READER):
            self.workers.go(role, [number])

    def stop_job(self, number: int) -> None:
        """End a job when the batch in its hands is written; its reader after it."""
        for role in (Role.TRANSFORMER, Role.READER):
            self._end(role, [number])

    def behind(self, cluster: Reachable, number: int) -> int:
        """Messages that a job has still to read; raises ClusterError."""
        return cluster.remaining(self.workers.positions(Role.TRANSFORMER, [number]))

    def last(self, seconds: float, enough: Callable[[], bool] = lambda: False) -> None:
        """Let a phase last, and look at the workers meanwhile; ends early when `enough()`."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0 and not enough():
            self.look()
            time.sleep(min(_LOOK_S, left))

    def look(self) -> None:
        """Raises ClusterError when a worker died; else tells whoever looks on how the load stands."""
        self._packer.look()
        workers = self.workers
        workers.check()
        acked_ns = workers.last_ack_ns()
        progress = Progress(
            sent=workers.total("sent"),
            acked=workers.total("acked"),
            unknown=workers.total("unknown"),
            refused=workers.total("refused"),
            skipped=workers.total("skipped"),
            delivered=workers.total("delivered"),
            last_ack_age_s=(now_ns() - acked_ns) / NS_PER_S if acked_ns else None,
            rate_asked=self._rate_per_s,
        )
        self._watch.progress(progress)

    def pace(self, rate_per_s: float) -> None:
        """In an open loop: from now on so many messages fall due a second; 0: none, until the next rate."""
        self._rate_per_s = rate_per_s
        self.workers.pace(rate_per_s)

    def settled(self) -> bool:
        """Whether nothing falls due any more (rate 0) and nothing is open, as the producers last said."""
        workers = self.workers
        idle = workers.total("paused") == self._workload.producers
        return idle and workers.total("waiting") + workers.total("in_flight") == 0

    def sends(self, names: Sequence[str]) -> Columns:
        """These columns of the ledgers of all producers, as they stand."""
        folders = [self._ledger / f"sends.{number}" for number in range(self._workload.producers)]
        loaded = [load_sends(folder) for folder in folders]
        return {name: np.concatenate([columns[name][:] for columns in loaded]) for name in names}

    @property
    def rate_per_s(self) -> float:
        """At which messages fall due now; 0 in a closed loop."""
        return self._rate_per_s or 0.0

    def lags(self) -> Sequence[Interval]:
        """The pacing lag of all producers, as it stands; raises LedgerError naming a log that is damaged."""
        return pacing.load(self._ledger.parent)

    def drain(self, cluster: Reachable) -> None:
        """Send no more, settle what is open, and let the consumers take everything, for a bounded time."""
        phases = self._phases
        self._journal.phase("drain")
        self.workers.stop(Role.PRODUCER)
        self.workers.wait_done(Role.PRODUCER, phases.settle_s + 10.0)
        if self._workload.transformers:
            why = self._taken(cluster, Role.TRANSFORMER, [NEW] if self._replay else None)
            self._journal.event("transformed", complete=why == _TAKEN, why=why)
            for role in (Role.TRANSFORMER, Role.READER):
                self._end(role)
        if not self._workload.consumers:
            return
        if self._workload.consume is Consume.AFTER_HEAL:
            self.workers.start(self._plans(Role.CONSUMER, cluster.wiring()))
            self.workers.go(Role.CONSUMER)
        self._journal.event("drained", why=self._taken(cluster, Role.CONSUMER))
        self._end(Role.CONSUMER)
        self._journal.event("counts", when="drained", totals=counted(cluster))

    def _taken(self, cluster: Reachable, role: Role, numbers: Sequence[int] | None = None) -> str:
        """Wait, bounded, until the workers of the role have taken everything; whether they have, in words."""

        def taken() -> bool:
            self.look()
            return cluster.remaining(self.workers.positions(role, numbers)) == 0

        try:
            wait_until(
                taken, self._phases.drain_s, f"the {role}s to take everything", poll_s=0.2, swallow=(ClusterError,)
            )
        except WaitTimeout as error:
            return str(error)
        return _TAKEN

    def _end(self, role: Role, numbers: Sequence[int] | None = None) -> None:
        self.workers.stop(role, numbers)
        self.workers.wait_done(role, _END_S, numbers)

    def audit(self, cluster: Reachable, outputs: Sequence[Reachable] = ()) -> None:
        """The fence in every place, and the complete read through it; likewise of each topic of outputs."""
        self._journal.phase("audit")
        audit_s = self._phases.audit_s
        fences = self._runner.acknowledge_one_each(cluster.wiring(), audit_s, "the fence")
        self._journal.event("fences", places={str(p): s for p, s in fences.items()})
        folder = self._ledger / "audit.0"
        why = read_all(self._library, cluster, cluster.wiring(), fences, folder, self._run_number, audit_s)
        self._journal.event("audit", reader=0, complete=why is None, why=why)
        for number, output in enumerate(outputs):
            self._audit_output(output, number)
        self._packer.finish()

    def _audit_output(self, output: Reachable, number: int) -> None:
        """The same of a topic that transformers wrote to; of a job's, with what it comes to."""
        wiring, audit_s = output.wiring(), self._phases.audit_s
        runner = RunnerProducer(
            self._library, self._ledger / "output-fences", self._run_number, self._workload.size_bytes
        )
        try:
            fences = runner.acknowledge_one_each(wiring, audit_s, "the fence")
        finally:
            runner.close()
        table = Table(self._run_number)
        feed = self._feed() if number == NEW else None

        def take(arrived: Arrived) -> None:
            for delivery in one_by_one(arrived):
                table.take(delivery.body)
                if feed is not None:
                    feed.take(delivery.body)

        look = take if self._replay and wiring.kind is Kind.LOG else None
        folder = self._ledger / f"output.{number}"
        why = read_all(self._library, output, wiring, fences, folder, self._run_number, audit_s, look)
        self._journal.event("output", reader=number, complete=why is None, why=why)
        if look is not None and why is None:
            write_totals(self._ledger / f"totals.{number}", table.rows)
            if feed is not None:
                write_totals(self._ledger / f"table.{number}", feed.answer())

    def _feed(self) -> Feed | None:
        """Of a dashboard's table, where the scenario has one."""
        replay = self._replay
        fed = replay is not None and replay.dashboard
        return Feed(self._ledger.parent / "dashboard", self._run_number, replay.keys) if replay and fed else None

    def close(self) -> None:
        """End every worker that is left, and pack a large ledger; idempotent."""
        self.workers.close()
        self._runner.close()
        self._packer.finish()

    def _job_plans(self, number: int, wiring: Wiring) -> list[WorkerPlan]:
        """Of a job, and of a reader that sees what it writes."""
        of_its_own = of_job(wiring, number, self._since_ms)
        reader = replace(self._plan(Role.READER, number, of_its_own.output), workload=_ALONE)
        return [self._plan(Role.TRANSFORMER, number, of_its_own), reader]

    def _plans(self, role: Role, wiring: Wiring) -> list[WorkerPlan]:
        count = {
            Role.PRODUCER: self._workload.producers,
            Role.CONSUMER: self._workload.consumers,
            Role.TRANSFORMER: self._workload.transformers,
        }[role]
        return [self._plan(role, number, wiring) for number in range(count)]

    def _plan(self, role: Role, number: int, wiring: Wiring) -> WorkerPlan:
        return WorkerPlan(
            role=role,
            number=number,
            run_number=self._run_number,
            wiring=wiring,
            workload=self._workload,
            folder=str(self._ledger / f"{_FOLDERS[role]}.{number}"),
            log=str(self._logs / f"{role}-{number}.log"),
            settle_s=self._phases.settle_s,
            replay=self._replay if role is Role.TRANSFORMER else None,
            flink=self._flink if role is Role.TRANSFORMER else "",
        )


def counted(cluster: Reachable, timeout_s: float = _COUNTED_S) -> dict[str, int]:
    """What the broker counts once nobody holds anything of it; its figures may be late, and stay so at `timeout_s`."""
    totals: dict[str, int] = {}

    def nothing_held() -> bool:
        totals.update(cluster.counts())
        return not totals.get("unacked")

    with suppress(WaitTimeout):
        wait_until(nothing_held, timeout_s, "the broker's counts", poll_s=0.2, swallow=(ClusterError,))
    return totals
