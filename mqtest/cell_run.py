"""One cell, live: the phases in order, each written into events.jsonl when it begins.

    up → prepare → warm-up → steady → fault → heal → recover → after → drain → audit → down

Rules:
- The ledger is all that the cell leaves; a failure of ours is an event (`failed`) in it: the cell is then `unknown`.
- Undo belongs to do: everything that is brought up registers its removal first, and every way out runs it.
- A cluster that does not recover although disks, network and engine are proven whole is an event (`dead`).
"""

from __future__ import annotations

import random
import threading
import time
import zlib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mqtest import host
from mqtest.audit import RunnerProducer, read_all
from mqtest.brokers import Broker, broker_module
from mqtest.clients import client
from mqtest.clock import NS_PER_S, now_ns, wait_until
from mqtest.cluster import Cluster
from mqtest.errors import ClusterError, EngineError, LedgerError, MqtestError, WaitTimeout
from mqtest.fault_run import FaultRun, watching_leader
from mqtest.judge import judge
from mqtest.ledger import EventsWriter, write_cell
from mqtest.model import RUNNER, Cell, Consume, Verdict, Wiring
from mqtest.nodes import bring_up
from mqtest.schedule import timeline
from mqtest.targets import Stand
from mqtest.watch import Progress, Watch
from mqtest.workload import Role, WorkerPlan
from mqtest.workload.processes import Workers

_LOOK_S = 0.1
"""between two looks at the workers while a phase lasts"""


class CellRun:
    """One cell from nothing to a folder that can be judged."""

    def __init__(self, run_id: str, cell: Cell, folder: Path, *, keep: bool, watch: Watch) -> None:
        self._run_id = run_id
        self._cell = cell
        self._folder = folder
        self._keep = keep
        self._watch = watch
        self._run_number = zlib.crc32(f"{run_id}/{cell.id}".encode())
        self._record: dict[str, Any] = record(run_id, cell)
        self._lock = threading.Lock()
        for part in ("ledger", "logs"):
            (folder / part).mkdir(parents=True)
        self._events = EventsWriter(folder / "ledger" / "events.jsonl")
        self._workers = Workers(run_id, self._heard)

    def run(self) -> None:
        """Run it. A failure of the cell is recorded; EngineError and KeyboardInterrupt are recorded and raised."""
        write_cell(self._folder, self._record)
        finished = True
        try:
            with ExitStack() as stack:
                self._live(stack)
        except (EngineError, LedgerError) as error:
            self.event("failed", why=str(error))
            raise
        except MqtestError as error:
            self.event("failed", why=str(error))
            self._watch.note(f"failed: {error}")
        except KeyboardInterrupt:
            finished = False
            self.event("failed", why="interrupted")
            raise
        finally:
            self._record["finished"] = finished
            write_cell(self._folder, self._record)
            self._events.close()

    # --- the phases

    def _live(self, stack: ExitStack) -> None:
        cell = self._cell
        self.phase("up")
        cluster, broker = self._up(stack)
        library = client(cell.profile.client)
        wiring = broker.wiring()
        folder = self._folder / "ledger" / f"sends.{RUNNER}"
        runner = RunnerProducer(library, folder, self._run_number, cell.workload.size_bytes)
        stack.callback(runner.close)
        with self._stage("first ack"):
            runner.acknowledge_one_each(wiring, 60.0, "a probe")
        if not cell.hasty:
            cluster.sync()
        wiring = broker.wiring()
        stack.callback(self._workers.close)
        with self._stage("workers"):
            self._start_workers(wiring)
        self._load(cluster, broker)
        self._drain(broker, wiring)
        self.phase("audit")
        fences = runner.acknowledge_one_each(broker.wiring(), cell.phases.audit_s, "the fence")
        self.event("fences", places={str(p): s for p, s in fences.items()})
        audit = self._folder / "ledger" / "audit.0"
        why = read_all(library, broker, broker.wiring(), fences, audit, self._run_number, cell.phases.audit_s)
        self.event("audit", reader=0, complete=why is None, why=why)
        self._record["usage"] = {name: dict(figures) for name, figures in cluster.usage().items()}
        self.phase("down")

    def _up(self, stack: ExitStack) -> tuple[Cluster, Broker]:
        cell = self._cell
        with self._stage("containers"):
            cluster = bring_up(cell, self._run_id, self._folder, self._watch.note)
        stack.callback(self._down, cluster)
        self._record["image"] = dict(cluster.image)
        broker = self._connect(cluster)
        stack.callback(broker.close)
        with self._stage("nodes"):
            self._await_nodes(cluster, broker)
        with self._stage("places"):
            broker.create_places()
            broker.await_ready(cell.phases.up_s)
        with self._stage("settings"):
            self._record["versions"] = {"broker": broker.version(), **host.client_versions()}
            self._record["effective"] = dict(broker.effective())
        write_cell(self._folder, self._record)
        return cluster, broker

    def _connect(self, cluster: Cluster) -> Broker:
        cell = self._cell
        return broker_module(cell.profile.broker).connect(cell.profile, cluster.nodes, cell.workload.places)

    def _await_nodes(self, cluster: Cluster, broker: Broker) -> None:
        """A node that exits while it starts ends the wait; its last words are in the error."""
        deadline = now_ns() + int(self._cell.phases.up_s * NS_PER_S)
        while True:
            gone = cluster.exited()
            if gone:
                raise ClusterError(f"ended while starting: {self._last_words(cluster, gone)}")
            try:
                broker.await_nodes(5.0)
                return
            except (WaitTimeout, ClusterError):
                if now_ns() > deadline:
                    raise

    def _load(self, cluster: Cluster, broker: Broker) -> None:
        phases = self._cell.phases
        if self._cell.workload.consume is Consume.LIVE:
            self._workers.go(Role.CONSUMER)
        self.phase("warm-up")
        self._workers.go(Role.PRODUCER)
        self.last(phases.warm_up_s)
        self.phase("steady")
        if phases.sync_before_fault_s is None:
            self.last(phases.steady_s)
        else:
            self.last(phases.steady_s - phases.sync_before_fault_s)
            cluster.sync()
            self.event("synced")
            self.last(phases.sync_before_fault_s)
        if not self._cell.fault.groups:
            self.last(phases.hold_s + phases.after_s)
            return
        self._fault(cluster, broker)
        self.phase("after")
        self.last(phases.after_s)

    def _fault(self, cluster: Cluster, broker: Broker) -> None:
        cell = self._cell
        stand = Stand(
            cluster=cluster,
            broker=broker,
            workers=self._workers,
            rng=random.Random(cell.seed),
            await_ready=lambda: self._recover(cluster, broker),
        )
        with watching_leader(lambda: self._connect(cluster), self):
            FaultRun(stand, self, cell.fault, cell.phases.hold_s, cell.settings).run()

    def _recover(self, cluster: Cluster, broker: Broker) -> None:
        deadline = now_ns() + int(self._cell.phases.recover_s * NS_PER_S)
        why = ""
        while now_ns() < deadline:
            gone = cluster.exited()
            if gone:
                why = f"these ended by themselves: {self._last_words(cluster, gone)}"
                break
            try:
                broker.await_ready(5.0)
            except (WaitTimeout, ClusterError) as error:
                why = str(error)
                self._look()
                continue
            return
        broken = cluster.whole()
        why = f"not in sync again within {self._cell.phases.recover_s:g} s of the heal: {why}"
        if broken is None:
            self.event("dead", nodes=sorted(gone), why=why)
        raise ClusterError(f"{why} ({broken})" if broken else why)

    def _drain(self, broker: Broker, wiring: Wiring) -> None:
        phases = self._cell.phases
        self.phase("drain")
        self._workers.stop(Role.PRODUCER)
        self._workers.wait_done(Role.PRODUCER, phases.settle_s + 10.0)
        if not self._cell.workload.consumers:
            return
        if self._cell.workload.consume is Consume.AFTER_HEAL:
            self._workers.start(self._plans(Role.CONSUMER, broker.wiring()))
            self._workers.go(Role.CONSUMER)
        why = "everything consumed"

        def drained() -> bool:
            self._look()
            return broker.remaining(self._workers.positions()) == 0

        try:
            wait_until(
                drained,
                phases.drain_s,
                "the consumers to take everything",
                poll_s=0.2,
                swallow=(ClusterError,),
            )
        except WaitTimeout as error:
            why = str(error)
        self.event("drained", why=why)
        self.event("counts", when="drained", totals=dict(broker.counts()))
        self._workers.stop(Role.CONSUMER)
        self._workers.wait_done(Role.CONSUMER, 20.0)

    def _down(self, cluster: Cluster) -> None:
        cluster.save_logs(self._folder / "logs")
        if self._keep and judge(self._folder).verdict not in (Verdict.KEPT, Verdict.LOST_AS_DOCUMENTED):
            addresses = ", ".join(f"{n.name} {n.address}" for n in cluster.nodes)
            self._watch.note(f"left up: {addresses}; `mqtest down` removes it")
            return
        with self._stage("down"):
            cluster.down()

    def _last_words(self, cluster: Cluster, gone: Mapping[str, int]) -> str:
        """Why each of these nodes ended: the setting that its log blames, or the last telling line of it."""
        cluster.save_logs(self._folder / "logs")
        blamed = getattr(broker_module(self._cell.profile.broker), "boot_error", lambda _log: None)
        words = []
        for name, code in sorted(gone.items()):
            path = self._folder / "logs" / f"{name}.log"
            log = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
            words.append(f"{name} exit code {code}: {blamed(log) or _telling(log)}")
        return "; ".join(words)

    # --- the workers

    def _start_workers(self, wiring: Wiring) -> None:
        plans = self._plans(Role.PRODUCER, wiring)
        if self._cell.workload.consume is Consume.LIVE:
            plans += self._plans(Role.CONSUMER, wiring)
        self._workers.start(plans)

    def _plans(self, role: Role, wiring: Wiring) -> list[WorkerPlan]:
        load = self._cell.workload
        folder = "sends" if role is Role.PRODUCER else "receipts"
        return [
            WorkerPlan(
                role=role,
                number=number,
                run_number=self._run_number,
                wiring=wiring,
                workload=load,
                folder=str(self._folder / "ledger" / f"{folder}.{number}"),
                settle_s=self._cell.phases.settle_s,
            )
            for number in range(load.producers if role is Role.PRODUCER else load.consumers)
        ]

    def last(self, seconds: float) -> None:
        """Let a phase last, and look at the workers meanwhile."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self._look()
            time.sleep(min(_LOOK_S, left))

    def _look(self) -> None:
        workers = self._workers
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
            rate_asked=self._cell.workload.rate_per_s,
        )
        self._watch.progress(progress)

    # --- the record

    def _heard(self, said: dict[str, Any]) -> None:
        self.event(said.pop("event"), **said)

    def event(self, event: str, **fields: Any) -> None:
        with self._lock:
            self._events.write(event, **fields)

    def phase(self, name: str) -> None:
        self.event("phase", name=name)
        self._watch.phase(name)

    @contextmanager
    def _stage(self, name: str) -> Iterator[None]:
        """How long a step outside the phases takes."""
        began = time.monotonic()
        yield
        self.event("stage", name=name, seconds=round(time.monotonic() - began, 3))


def record(run_id: str, cell: Cell) -> dict[str, Any]:
    """What cell.json says before the cell begins."""
    profile = cell.profile
    return {
        "run": run_id,
        "id": cell.id,
        "broker": profile.broker,
        "profile": profile.name,
        "client": profile.client,
        "kind": profile.kind,
        "acknowledged": profile.acknowledged,
        "promise": asdict(profile.promise),
        "fault": str(cell.fault),
        "groups": [[str(step) for step in group] for group in cell.fault.groups],
        "schedule": list(timeline(cell.fault, cell.phases.hold_s)),
        "target": cell.fault.target,
        "must_lose": cell.must_lose,
        "repeat": cell.repeat,
        "seed": cell.seed,
        "nodes": cell.nodes,
        "floor": cell.floor,
        "fs": cell.fs,
        "disk_mb": cell.disk_mb,
        "workload": asdict(cell.workload),
        "phases": asdict(cell.phases),
        "hasty": cell.hasty,
        "varied": dict(cell.varied),
        "fault_settings": {action: dict(numbers) for action, numbers in cell.settings.items()},
        "settings": {table: dict(keys) for table, keys in profile.settings.items() if keys},
        "effective": {},
        "versions": {"broker": None},
        "image": {},
        "host": host.facts(),
        "finished": False,
    }


def _telling(log: str) -> str:
    """The last line of a log that speaks of an error, else its last line."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    telling = [x for x in lines if any(w in x.lower() for w in ("error", "exception", "fatal", "invalid"))]
    return (telling or lines or ["no log"])[-1][:300]
