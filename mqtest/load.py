"""The load of one cell, from the first worker to the end of the audit; the same for a cluster of ours and for one that
somebody else runs (`mqtest attach`). What happens to the cluster meanwhile is the caller's.

    start → go → last … → drain → audit

Transformers, where there are any, run from the start until they have taken everything; the consumers are drained then.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from mqtest import pacing
from mqtest.audit import RunnerProducer, read_all
from mqtest.brokers import Reachable
from mqtest.clients import Client
from mqtest.clock import NS_PER_S, now_ns, wait_until
from mqtest.columns import Columns
from mqtest.errors import ClusterError, WaitTimeout
from mqtest.hdr import Interval
from mqtest.journal import Journal
from mqtest.ledger import load_sends
from mqtest.model import RUNNER, Consume, Phases, Wiring, Workload
from mqtest.packer import Packer
from mqtest.watch import CellWatch, Progress
from mqtest.workload import Role, WorkerPlan
from mqtest.workload.processes import Workers

_LOOK_S = 0.1
"""between two looks at the workers while a phase lasts"""
_PROBE_S = 60.0
"""at most, for the first message of all to be acknowledged in every place"""
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
    ) -> None:
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

    def start(self, wiring: Wiring) -> None:
        """Start the workers, and wait until each is ready; nothing is sent yet."""
        plans = self._plans(Role.PRODUCER, wiring) + self._plans(Role.TRANSFORMER, wiring)
        if self._workload.consume is Consume.LIVE:
            plans += self._plans(Role.CONSUMER, wiring)
        self.workers.start(plans)

    def go(self) -> None:
        """Begin to consume (live) and to send: the warm-up."""
        if self._workload.consume is Consume.LIVE:
            self.workers.go(Role.CONSUMER)
        self._journal.phase("warm-up")
        self.workers.go(Role.TRANSFORMER)
        self.workers.go(Role.PRODUCER)

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
            why = self._taken(cluster, Role.TRANSFORMER)
            self._journal.event("transformed", why=why)
            self._end(Role.TRANSFORMER)
        if not self._workload.consumers:
            return
        if self._workload.consume is Consume.AFTER_HEAL:
            self.workers.start(self._plans(Role.CONSUMER, cluster.wiring()))
            self.workers.go(Role.CONSUMER)
        self._journal.event("drained", why=self._taken(cluster, Role.CONSUMER))
        self._end(Role.CONSUMER)
        self._journal.event("counts", when="drained", totals=counted(cluster))

    def _taken(self, cluster: Reachable, role: Role) -> str:
        """Wait, bounded, until the workers of the role have taken everything; whether they have, in words."""

        def taken() -> bool:
            self.look()
            return cluster.remaining(self.workers.positions(role)) == 0

        try:
            wait_until(
                taken, self._phases.drain_s, f"the {role}s to take everything", poll_s=0.2, swallow=(ClusterError,)
            )
        except WaitTimeout as error:
            return str(error)
        return "everything consumed"

    def _end(self, role: Role) -> None:
        self.workers.stop(role)
        self.workers.wait_done(role, 20.0)

    def audit(self, cluster: Reachable) -> None:
        """The fence in every place, and the complete read through it."""
        self._journal.phase("audit")
        audit_s = self._phases.audit_s
        fences = self._runner.acknowledge_one_each(cluster.wiring(), audit_s, "the fence")
        self._journal.event("fences", places={str(p): s for p, s in fences.items()})
        folder = self._ledger / "audit.0"
        why = read_all(self._library, cluster, cluster.wiring(), fences, folder, self._run_number, audit_s)
        self._journal.event("audit", reader=0, complete=why is None, why=why)
        if self._workload.transformers:
            self._audit_output(cluster)
        self._packer.finish()

    def _audit_output(self, cluster: Reachable) -> None:
        """The same of the topic that the transformers wrote to."""
        wiring, audit_s = cluster.wiring().output, self._phases.audit_s
        runner = RunnerProducer(
            self._library, self._ledger / "output-fences", self._run_number, self._workload.size_bytes
        )
        try:
            fences = runner.acknowledge_one_each(wiring, audit_s, "the fence")
        finally:
            runner.close()
        why = read_all(self._library, cluster, wiring, fences, self._ledger / "output.0", self._run_number, audit_s)
        self._journal.event("output", reader=0, complete=why is None, why=why)

    def close(self) -> None:
        """End every worker that is left, and pack a large ledger; idempotent."""
        self.workers.close()
        self._runner.close()
        self._packer.finish()

    def _plans(self, role: Role, wiring: Wiring) -> list[WorkerPlan]:
        count, folder = {
            Role.PRODUCER: (self._workload.producers, "sends"),
            Role.CONSUMER: (self._workload.consumers, "receipts"),
            Role.TRANSFORMER: (self._workload.transformers, "transforms"),
        }[role]
        return [
            WorkerPlan(
                role=role,
                number=number,
                run_number=self._run_number,
                wiring=wiring,
                workload=self._workload,
                folder=str(self._ledger / f"{folder}.{number}"),
                log=str(self._logs / f"{role}-{number}.log"),
                settle_s=self._phases.settle_s,
            )
            for number in range(count)
        ]


def counted(cluster: Reachable, timeout_s: float = _COUNTED_S) -> dict[str, int]:
    """What the broker counts once nobody holds anything of it; its figures may be late, and stay so at `timeout_s`."""
    totals: dict[str, int] = {}

    def nothing_held() -> bool:
        totals.update(cluster.counts())
        return not totals.get("unacked")

    with suppress(WaitTimeout):
        wait_until(nothing_held, timeout_s, "the broker's counts", poll_s=0.2, swallow=(ClusterError,))
    return totals
