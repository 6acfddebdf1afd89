"""One cell, live: the phases in order, each written into events.jsonl when it begins.

    up → prepare → warm-up → steady → fault → heal → recover → after → drain → audit → down

A cell with a search has no fault, and the phases of search_run.py in place of `steady`; one with a replay has those of
replay_run.py around its fault.

Rules:
- The ledger is all that the cell leaves; a failure of ours is an event (`failed`) in it: the cell is then `unknown`.
- Undo belongs to do: everything that is brought up registers its removal first, and every way out runs it. How the
  cluster is brought up, awaited and taken down is in standing.py.
"""

from __future__ import annotations

import random
import zlib
from contextlib import ExitStack, suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from mqtest import host, replay_run, search_run
from mqtest.brokers import Broker
from mqtest.clients import client
from mqtest.clock import now_ns
from mqtest.cluster import Cluster
from mqtest.errors import ClusterError, EngineError, LedgerError, MqtestError
from mqtest.fault_run import FaultRun, watching_leader
from mqtest.journal import Journal
from mqtest.judge import judge
from mqtest.ledger import write_cell
from mqtest.load import Load
from mqtest.model import Cell
from mqtest.replay_table import promised
from mqtest.schedule import timeline
from mqtest.standing import Standing
from mqtest.targets import Stand
from mqtest.watch import CellWatch


class CellRun:
    """One cell from nothing to a folder that can be judged."""

    def __init__(
        self, run_id: str, cell: Cell, folder: Path, *, keep: bool, watch: CellWatch, held_as: str | None = None
    ) -> None:
        """`held_as`: the run by whose name this machine holds a lock, and labels what is made for the cell; the run
        itself where that is None."""
        self._held_as = held_as or run_id
        self._cell = cell
        self._folder = folder
        self._record: dict[str, Any] = record(run_id, cell)
        for part in ("ledger", "logs"):
            (folder / part).mkdir(parents=True)
        self._journal = Journal(folder, watch)
        self._run_number = zlib.crc32(f"{run_id}/{cell.id}".encode())
        self._load = Load(
            run=self._held_as,
            run_number=self._run_number,
            cell_dir=folder,
            library=client(cell.profile.client),
            workload=cell.workload,
            phases=cell.phases,
            journal=self._journal,
            watch=watch,
            replay=cell.replay,
        )
        self._standing = Standing(
            cell,
            folder,
            self._journal,
            self._record,
            held_as=self._held_as,
            keep=keep,
            look=self._load.look,
        )

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
            self._journal.note(f"failed: {error}")
        except KeyboardInterrupt:
            finished = False
            self.event("failed", why="interrupted")
            raise
        finally:
            self._record["finished"] = finished
            write_cell(self._folder, self._record)
            self._journal.close()

    # --- the phases

    def _live(self, stack: ExitStack) -> None:
        cell = self._cell
        self.phase("up")
        cluster, broker = self._standing.up(stack)
        stack.callback(self._load.close)
        with self._journal.stage("first ack"):
            self._load.probe(broker.wiring())
        if not cell.hasty:
            self._tell_flush_times(cluster)
            cluster.sync()
        with self._journal.stage("workers"):
            self._load.start(broker.wiring(), cluster.flink.address if cluster.flink else "")
        self._run_load(cluster, broker)
        self._load.drain(broker)
        self._tell_committed(broker)
        self._load.audit(broker, self._standing.outputs(cluster, broker, stack))
        self._search_disks(cluster)
        self._record["usage"] = {name: dict(figures) for name, figures in cluster.usage().items()}
        self.phase("down")

    def _run_load(self, cluster: Cluster, broker: Broker) -> None:
        cell, phases = self._cell, self._cell.phases
        self._load.go()
        self.last(phases.warm_up_s)
        if cell.search is not None:
            search_run.run(cell.search, self._load, self._journal)
            return
        if cell.replay is not None:
            replay_run.history(cell.replay, self._load, self._journal, broker)
        self.phase("steady")
        self._tell_usage(cluster)
        synced_s = phases.sync_before_fault_s or 0.0
        self.last(phases.steady_s - synced_s)
        self._tell_usage(cluster)  # before the flush: what comes between that and the fault is what the fault can take
        if synced_s:
            cluster.sync()
            self.event("synced")
            self.last(synced_s)
        if cell.replay is not None:
            fault = partial(self._fault, cluster, broker) if cell.fault.groups else None
            replay_run.run(cell.replay, self._load, self._journal, broker, fault)
        elif cell.fault.groups:
            self._fault(cluster, broker)
        else:
            self.last(phases.hold_s + phases.after_s)
            self._tell_usage(cluster)
            return
        self.phase("after")
        self.last(phases.after_s)

    def _fault(self, cluster: Cluster, broker: Broker) -> None:
        cell = self._cell
        stand = Stand(
            cluster=cluster,
            broker=broker,
            workers=self._load.workers,
            rng=random.Random(cell.seed),
            await_ready=lambda: self._standing.recover(cluster, broker),
        )
        with watching_leader(lambda: self._standing.connect(cluster), self):
            FaultRun(stand, self, cell.fault, cell.phases.hold_s, cell.settings).run()

    def _tell_flush_times(self, cluster: Cluster) -> None:
        """How fast the nodes' disks flush, with no load on them yet."""
        with suppress(ClusterError, EngineError), self._journal.stage("disks"):  # a figure more or less
            self.event("flushed", nodes={name: list(taken) for name, taken in cluster.flush_times().items()})

    def _tell_usage(self, cluster: Cluster) -> None:
        """What nodes and workers have used until now. Two of these in a phase make its figures (checks/usage.py)."""
        if self._cell.hasty:
            return
        t_ns, workers = now_ns(), self._load.workers.cpu_s()
        with suppress(ClusterError, EngineError):
            nodes = {name: dict(figures) for name, figures in cluster.usage().items()}
            self.event("usage", t_ns=t_ns, nodes=nodes, workers=workers)

    def _tell_committed(self, broker: Broker) -> None:
        """What the broker itself says once the consumers are gone, where there were any."""
        if not self._cell.workload.consumers + self._cell.workload.transformers:
            return
        with suppress(ClusterError):  # a figure more or less; the audit does not rest on it
            committed = broker.committed()
            places, ends = ({str(p): pair[i] for p, pair in committed.items()} for i in (0, 1))
            self.event("committed", places=places, ends=ends)

    def _search_disks(self, cluster: Cluster) -> None:
        """Where messages were lost: which of them still lie in files of the nodes."""
        if not judge(self._folder).row["lost"]:
            return
        with suppress(ClusterError, EngineError), self._journal.stage("search"):  # a figure more or less
            found = cluster.messages_on_disk(self._run_number, self._cell.workload.size_bytes)
            self.event("on disk", nodes={name: dict(producers) for name, producers in found.items()})

    # --- what a fault needs of the cell

    def event(self, event: str, **fields: Any) -> None:
        """See Teller."""
        self._journal.event(event, **fields)

    def phase(self, name: str) -> None:
        """See Teller."""
        self._journal.phase(name)

    def last(self, seconds: float) -> None:
        """See Teller."""
        self._load.last(seconds)


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
        "promise": asdict(promised(profile, cell.replay)),
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
        "search": None if cell.search is None else asdict(cell.search),
        "replay": None if cell.replay is None else asdict(cell.replay),
        "latency": cell.latency,
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
