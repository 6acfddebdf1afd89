"""The runs of a bench: for each row one fresh cluster, on it a run of ours and a run of the tool in turn.

    results/<utc>-bench/run.json                   what was asked, machine, versions
                        bench.json, .md, .csv      what was measured; written again after each row
                        runs/<row>-<n>/            our run: cell.json, events, logs, and its ledger on request
                        tools/<row>-<n>-….log      what the tool said, and when
                        logs/<row>/                every node's log
Rules:
- Each run has a topic of its own, made by the same driver with the same settings. A pair's topics go after it.
- Before each run the nodes' disks are flushed, so that nobody pays for what the other one wrote.
- A run that failed, ours or the tool's, is told with its reason and counts for nothing; the others go on.
- Whatever was brought up is removed on every way out, as in a run of cells.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

from mqtest import __version__, host
from mqtest.bench import ours, table
from mqtest.bench.figures import CpuSample
from mqtest.bench.rows import Asked, Row
from mqtest.bench.table import OURS, THEIRS, Compared, Run
from mqtest.bench.theirs import Theirs
from mqtest.brokers import Broker, broker_module
from mqtest.cluster import Cluster, images
from mqtest.cluster.containers import ComposeCluster
from mqtest.errors import ClusterError, LedgerError, MqtestError, WaitTimeout
from mqtest.judge import Judgement
from mqtest.model import NO_FAULT, Cell, Phases, Workload
from mqtest.nodes import bring_up, engine_for, require_engine
from mqtest.plan import expected_s
from mqtest.profile import image_version
from mqtest.runner import RUN_FILE, new_run
from mqtest.watch import CellWatch, Watch

_TAKE_S = 600.0
"""at most, to drain what a run wrote, and to read it back"""


def run(rows: Sequence[Row], asked: Asked, results: Path, watch: Watch) -> tuple[Path, Sequence[Compared]]:
    """Compare every row; returns the folder, and what is in its table.

    A row that fails is told in the table and the others go on; an EngineError or KeyboardInterrupt ends it, with what
    was measured until then in the table.
    """
    plan = {row.name: [_cell(row, number, asked) for number in range(1, asked.runs + 1)] for row in rows}
    cells = [cell for every in plan.values() for cell in every]
    require_engine(cells)
    with new_run(results, "bench") as run_dir:
        for part in ("runs", "tools", "logs"):
            (run_dir / part).mkdir()
        bench = _Bench(asked, run_dir, watch, len(cells))
        watch.run_planned(cells, sum(2 * expected_s(cell) for cell in cells), _most_disk_mb(rows))
        watch.run_opened(run_dir)
        try:
            with engine_for(cells, run_dir.name, watch.note, keep=False):
                image = images.ensure_tools(watch.note)
                for row in rows:
                    bench.compare(row, plan[row.name], image)
        finally:
            bench.write()
            watch.run_ended()
    return run_dir, bench.compared


class _Bench:
    """One bench in its folder."""

    def __init__(self, asked: Asked, run_dir: Path, watch: Watch, total: int) -> None:
        self._asked = asked
        self._dir = run_dir
        self._watch = watch
        self._total = total
        self._begun = 0
        self.compared: list[Compared] = []
        """a row each, as far as it has come"""
        self._record: dict[str, Any] = {
            "run": run_dir.name,
            "planned": [],
            "started_utc": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "mqtest_version": __version__,
            "host": host.facts(),
            "clients": host.client_versions(),
            "tools": dict(images.tool_versions()),
            "asked": asdict(asked),
        }
        (run_dir / RUN_FILE).write_text(json.dumps(self._record, indent=1) + "\n", encoding="utf-8")

    def write(self) -> None:
        """What was measured until now."""
        whole = self._record | {"rows": [compared.record() for compared in self.compared]}
        (self._dir / "bench.json").write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")
        (self._dir / "bench.md").write_text(table.markdown(self.compared, self._record), encoding="utf-8")
        (self._dir / "bench.csv").write_text(table.csv_text(self.compared), encoding="utf-8")

    def compare(self, row: Row, cells: Sequence[Cell], image: images.Image) -> None:
        """All runs of a row, on a cluster of their own."""
        compared = Compared(row=row)
        self.compared.append(compared)
        try:
            with ExitStack() as stack:
                cluster = self._up(stack, row, cells[0], compared)
                tool = Theirs(
                    cast("ComposeCluster", cluster), image, self._dir.name, row, self._asked, self._dir / "tools"
                )
                compared.commands = tool.commands
                for cell in cells:
                    self._pair(cluster, tool, cell, compared)
        except (ClusterError, WaitTimeout, LedgerError) as error:
            compared.failed = str(error)
            self._watch.note(f"{row.name} failed: {error}")
        self.write()

    def _up(self, stack: ExitStack, row: Row, cell: Cell, compared: Compared) -> Cluster:
        cluster = bring_up(cell, self._dir.name, self._dir / "runs", self._watch.note)
        stack.callback(cluster.down)
        stack.callback(self._save_logs, cluster, row)
        broker = broker_module(row.profile.broker).connect(row.profile, cluster.nodes, 1)
        stack.callback(broker.close)
        broker.await_nodes(cell.phases.up_s)
        broker.create_places()
        broker.settle()
        broker.await_ready(cell.phases.up_s)
        compared.facts = {
            "versions": {"broker": broker.version(), **host.client_versions()},
            "effective": dict(broker.effective()),
            "image": dict(cluster.image),
        }
        return cluster

    def _save_logs(self, cluster: Cluster, row: Row) -> None:
        folder = self._dir / "logs" / row.name
        folder.mkdir()
        with suppress(MqtestError):
            cluster.save_logs(folder)

    def _pair(self, cluster: Cluster, tool: Theirs, cell: Cell, compared: Compared) -> None:
        """Our run, then the tool's."""
        self._begun += 1
        watch = self._watch.cell_started(cell, self._begun, self._total)
        with ExitStack() as stack:
            mine = self._topic(stack, cluster, cell, "ours")
            cluster.sync()
            with ours.sampling_nodes(cluster) as nodes:
                judged = ours.run(self._dir.name, cell, self._folder(cell), mine, compared.facts, watch)
            self._tell(compared, self._ours(judged, cell, nodes))
            theirs = self._topic(stack, cluster, cell, "tool")
            read = mine if compared.row.tool.reads_ours else theirs
            cluster.sync()
            with ours.sampling_nodes(cluster) as nodes:
                run = self._theirs(tool, theirs, read, cell, watch, nodes)
            self._tell(compared, run)
        self._watch.cell_judged(cell.id, judged.row)

    def _topic(self, stack: ExitStack, cluster: Cluster, cell: Cell, side: str) -> Broker:
        """A fresh topic, removed when the pair is over."""
        module = broker_module(cell.profile.broker)
        broker = module.connect(cell.profile, cluster.nodes, 1, f"{cell.id}-{side}")
        stack.callback(broker.close)
        broker.create_places()
        stack.callback(_remove, broker)
        broker.await_ready(cell.phases.up_s)
        return broker

    def _ours(self, judged: Judgement, cell: Cell, nodes: Sequence[CpuSample]) -> Run:
        why = ours.why_not(judged)
        folder = self._folder(cell)
        produced, consumed = ours.figures(folder, self._asked.seconds, nodes) if why is None else (None, None)
        if not self._asked.keep_ledgers:
            for pattern in ("*/*.npy", "*/*.parquet"):
                for rows in (folder / "ledger").glob(pattern):
                    rows.unlink()
        return Run(number=cell.repeat, side=OURS, produce=produced, consume=consumed, why=why)

    def _theirs(
        self, tool: Theirs, broker: Broker, read: Broker, cell: Cell, watch: CellWatch, nodes: Sequence[CpuSample]
    ) -> Run:
        produced, consumed, why = None, None, None
        try:
            watch.phase("the tool produces")
            produced = tool.produce(cell.id, broker.wiring(), nodes)
            watch.phase("the tool consumes")
            consumed = tool.consume(cell.id, read.wiring(), read.remaining({}), nodes)
        except (ClusterError, WaitTimeout) as error:
            why = str(error)
        return Run(number=cell.repeat, side=THEIRS, produce=produced, consume=consumed, why=why)

    def _tell(self, compared: Compared, run: Run) -> None:
        compared.runs.append(run)
        self._watch.note(str(run))

    def _folder(self, cell: Cell) -> Path:
        return self._dir / "runs" / cell.id


def _remove(broker: Broker) -> None:
    with suppress(MqtestError):  # it goes with the cluster at the latest
        broker.remove_places()


def _most_disk_mb(rows: Sequence[Row]) -> int:
    return max((row.disk_mb * row.nodes for row in rows), default=0)


def _cell(row: Row, number: int, asked: Asked) -> Cell:
    """Our run as a cell without a fault."""
    return Cell(
        id=f"{row.name}-{number}",
        index=number,
        profile=row.profile,
        fault=NO_FAULT,
        repeat=number,
        seed=0,
        nodes=row.nodes,
        workload=Workload(rate_per_s=None, window=row.window, size_bytes=row.size_bytes),
        phases=Phases(
            warm_up_s=asked.warm_up_s,
            steady_s=asked.seconds,
            hold_s=0.0,
            after_s=0.0,
            drain_s=_TAKE_S,
            audit_s=_TAKE_S,
        ),
        floor=1,
        fs="ext4",
        disk_mb=row.disk_mb,
        version=image_version(row.profile.broker),
    )
