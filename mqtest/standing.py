"""The cluster of one cell: brought up ready, awaited after a fault, and taken down.

Rules:
- Undo belongs to do: everything that is brought up registers its removal first, on the given stack.
- What a reader of the cell needs of it (image, versions, settings in force) goes into the cell's record.
- A cluster that does not recover although disks, network and engine are proven whole is an event (`dead`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from mqtest import host
from mqtest.brokers import TOPIC, Broker, broker_module
from mqtest.clock import NS_PER_S, now_ns
from mqtest.cluster import Cluster
from mqtest.errors import ClusterError, WaitTimeout
from mqtest.jobs import JOBS
from mqtest.journal import Journal
from mqtest.judge import judge
from mqtest.last_words import said, telling
from mqtest.ledger import write_cell
from mqtest.model import Cell, Verdict
from mqtest.nodes import bring_up
from mqtest.replay_table import of_job

_REJOIN_S = 20.0
"""at most, for all nodes to be up again before the next one is restarted"""


class Standing:
    """See the module's rules."""

    def __init__(
        self,
        cell: Cell,
        folder: Path,
        journal: Journal,
        record: dict[str, Any],
        *,
        held_as: str,
        keep: bool,
        look: Callable[[], None],
    ) -> None:
        """`look`: called while the cluster is awaited; raises ClusterError when a worker of ours died."""
        self._cell = cell
        self._folder = folder
        self._journal = journal
        self._record = record
        self._held_as = held_as
        self._keep = keep
        self._look = look

    def up(self, stack: ExitStack) -> tuple[Cluster, Broker]:
        """All nodes, whole and in sync, with their places made; removed when the stack ends."""
        cell = self._cell
        with self._journal.stage("containers"):
            cluster = bring_up(cell, self._held_as, self._folder, self._journal.note)
        stack.callback(self._down, cluster)
        self._record["image"] = dict(cluster.image)
        broker = self.connect(cluster)
        stack.callback(broker.close)
        with self._journal.stage("nodes"):
            self._await_nodes(cluster, broker)
        with self._journal.stage("places"):
            broker.create_places()
            if not cell.hasty:
                broker.settle()
            for output in self.outputs(cluster, broker, stack):
                output.create_places()
                output.await_ready(cell.phases.up_s)
            broker.await_ready(cell.phases.up_s)
        with self._journal.stage("settings"):
            self._record["versions"] = {"broker": broker.version(), **host.client_versions()}
            self._record["effective"] = dict(broker.effective())
        write_cell(self._folder, self._record)
        return cluster, broker

    def connect(self, cluster: Cluster, topic: str = TOPIC) -> Broker:
        """A driver of its own for the cluster."""
        cell = self._cell
        return broker_module(cell.profile.broker).connect(cell.profile, cluster.nodes, cell.workload.places, topic)

    def outputs(self, cluster: Cluster, broker: Broker, stack: ExitStack) -> list[Broker]:
        """Drivers for the topics that transformers write to, closed when the stack ends: one topic for all, or one for
        each job of a replay."""
        cell, wiring = self._cell, broker.wiring()
        if not cell.workload.transformers:
            return []
        wirings = [of_job(wiring, number, 0) for number in range(JOBS)] if cell.replay else [wiring]
        drivers = [self.connect(cluster, own.output.topic) for own in wirings]
        for driver in drivers:
            stack.callback(driver.close)
        return drivers

    def recover(self, cluster: Cluster, broker: Broker) -> None:
        """Until every replica is in sync. A cluster that stays away is `dead`; then every node is restarted, as an
        operator would in the end, so that its loss can be judged all the same. Raises ClusterError when that does not
        bring it back either, or when disks, network or engine are not whole."""
        gone, why = self._await_sync(cluster, broker)
        if why is None:
            return
        if (broken := cluster.whole()) is not None:
            raise ClusterError(f"{why} ({broken})")
        self._journal.event("dead", nodes=sorted(gone), why=why)
        self._restart(cluster, broker)
        _gone, still = self._await_sync(cluster, broker)
        if still is not None:
            raise ClusterError(f"{still}, nor after a restart of every node")

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

    def _await_sync(self, cluster: Cluster, broker: Broker) -> tuple[Mapping[str, int], str | None]:
        """The nodes that ended meanwhile, and why the cluster is not in sync again; None: it is."""
        deadline = now_ns() + int(self._cell.phases.recover_s * NS_PER_S)
        gone: Mapping[str, int] = {}
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
            return gone, None
        return gone, f"not in sync again within {self._cell.phases.recover_s:g} s of the heal: {why}"

    def _restart(self, cluster: Cluster, broker: Broker) -> None:
        """One node after the other, each awaited for a while."""
        self._journal.note("it did not come back by itself: restarting every node")
        names = [node.name for node in cluster.nodes]
        cluster.start(names)
        for name in names:
            cluster.stop([name])
            cluster.start([name])
            with suppress(WaitTimeout, ClusterError):
                broker.await_nodes(_REJOIN_S)
            self._look()
        self._journal.event("restarted", nodes=names)

    def _down(self, cluster: Cluster) -> None:
        cluster.save_logs(self._folder / "logs")
        if self._keep and judge(self._folder).verdict not in (Verdict.KEPT, Verdict.LOST_AS_DOCUMENTED):
            addresses = ", ".join(f"{n.name} {n.address}" for n in cluster.nodes)
            self._journal.note(f"left up: {addresses}; `mqtest down` removes it")
            return
        with self._journal.stage("down"):
            cluster.down()

    def _last_words(self, cluster: Cluster, gone: Mapping[str, int]) -> str:
        """Why each of these nodes ended: the setting that its log blames, or the last telling line of it."""
        cluster.save_logs(self._folder / "logs")
        blamed = getattr(broker_module(self._cell.profile.broker), "boot_error", lambda _log: None)
        words = []
        for name, code in sorted(gone.items()):
            log = said(self._folder / "logs" / f"{name}.log")
            words.append(f"{name} exit code {code}: {blamed(log) or telling(log)}")
        return "; ".join(words)
