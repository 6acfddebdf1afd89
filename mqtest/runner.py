"""The cells of a run, each in a folder of its own; what an interrupted run leaves is whole.

    results/<utc>-<scenario>/run.json                what was asked; `planned`: ids of all cells; the noise floor
                             lock                     held while the run lives
                             cells/<id>/              cell.json, ledger/, logs/ (see ledger.py)
                             aborted/<id>-<n>/        cells that a stopped run did not finish, kept by --resume
A cell is finished when its cell.json says so. The phases of one cell are in cell_run.py. An Executor runs the cells:
here, one after the other, or spread over hosts (grid.py).
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from mqtest import __version__, host, noise_floor
from mqtest.brokers import broker_module
from mqtest.cell_run import CellRun
from mqtest.cluster.locks import RunLock
from mqtest.errors import UsageError, WaitTimeout
from mqtest.judge import judge
from mqtest.ledger import read_cell, read_record
from mqtest.model import NO_FAULT, Cell, Node, Phases, Profile, Workload
from mqtest.nodes import engine_for, left_up, require_engine
from mqtest.plan import Plan, expected_s
from mqtest.profile import image_version
from mqtest.scenario import Scenario, named
from mqtest.watch import Watch

RUN_FILE = "run.json"


class Executor(Protocol):
    """Runs cells, each into `run_dir`/cells/<id>, and tells the watch: `cell_started` and `cell_judged` of each."""

    @property
    def at_a_time(self) -> int:
        """How many cells run at the same time."""

    def run(self, run_dir: Path, cells: Sequence[Cell], watch: Watch) -> None:
        """Run them all. A cell that fails is recorded and the others go on; an EngineError ends it. On
        KeyboardInterrupt every cell heals, its cluster is removed, and it is raised again."""


def run(
    scenario: Scenario, plan: Plan, results: Path, *, keep: bool, ray: str | None, resume: Path | None, watch: Watch
) -> Path:
    """Run all cells of a plan that are not finished yet, on this machine or on the hosts of the Ray cluster at `ray`;
    returns the run's folder. Raises what Executor.run raises. A noise floor is that of this machine: a run on
    other hosts has none."""
    with _executor(plan.cells, keep, ray) as executor, _run_dir(scenario, plan, results, resume) as run_dir:
        todo = _unfinished(run_dir, plan.cells)
        watch.run_planned(todo, sum(expected_s(c) for c in todo) / executor.at_a_time, plan.disk_mb)
        watch.run_opened(run_dir)
        try:
            if resume is None and ray is None:
                floor = noise_floor.of_run(scenario, results, watch.note)
                _write_run(run_dir, read_record(run_dir / RUN_FILE) | {"noise_floor": floor})
            executor.run(run_dir, todo, watch)
        finally:
            watch.run_ended()
    return run_dir


@dataclass(frozen=True, slots=True)
class Here:
    """An Executor: on this machine, one cell after the other. `keep` leaves the cluster of a failed cell up."""

    keep: bool
    at_a_time: int = 1

    def run(self, run_dir: Path, cells: Sequence[Cell], watch: Watch) -> None:
        """See Executor."""
        with engine_for(cells, run_dir.name, watch.note, keep=self.keep):
            for number, cell in enumerate(cells, 1):
                folder = run_dir / "cells" / cell.id
                begun = watch.cell_started(cell, number, len(cells))
                CellRun(run_dir.name, cell, folder, keep=self.keep, watch=begun).run()
                watch.cell_judged(cell.id, judge(folder).row)


@contextmanager
def _executor(cells: Sequence[Cell], keep: bool, ray: str | None) -> Iterator[Executor]:
    """Raises UsageError and EngineError before anything is made."""
    if ray is None:
        require_engine(cells)
        yield Here(keep)
        return

    from mqtest import grid, ray_hosts

    with ray_hosts.connected(ray, cells) as hosts:
        yield grid.Grid(hosts)


@contextmanager
def _run_dir(scenario: Scenario, plan: Plan, results: Path, resume: Path | None) -> Iterator[Path]:
    """The run's folder, new with its run.json or the one that is resumed, and its lock."""
    with _held(resume) if resume else new_run(results, scenario.path.stem) as run_dir:
        if resume is None:
            _write_run(run_dir, _record(run_dir, scenario, plan))
        yield run_dir


def up(profile: Profile, nodes: int, progress: Callable[[str], None]) -> tuple[Node, ...]:
    """Leave a cluster of this profile running, with its places made; `mqtest down` removes it."""
    name = f"up-{profile.broker}-{time.strftime('%H%M%S')}"
    cell = Cell(
        id=name,
        index=0,
        profile=profile,
        fault=NO_FAULT,
        repeat=1,
        seed=0,
        nodes=nodes,
        workload=Workload(),
        phases=Phases(),
        floor=1,
        fs="ext4",
        disk_mb=4096,
        version=image_version(profile.broker),
    )
    with left_up(cell, name, progress) as cluster:
        broker = broker_module(profile.broker).connect(profile, cluster.nodes, cell.workload.places)
        progress("waiting for the nodes")
        broker.await_nodes(cell.phases.up_s)
        broker.create_places()
        broker.settle()
        broker.await_ready(cell.phases.up_s)
        broker.close()
    return cluster.nodes


@contextmanager
def _held(run_dir: Path) -> Iterator[Path]:
    with RunLock(run_dir.name):
        yield run_dir


@contextmanager
def new_run(results: Path, name: str) -> Iterator[Path]:
    """A fresh folder `<utc>-<name>` with an empty cells/, and its lock; raises UsageError where none can be made. No
    run that lives on this machine has the folder's name: labels and locks go by it."""
    slug = re.sub(r"[^a-z0-9-]+", "-", name.lower())
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    for number in range(100):
        run_dir = results / (f"{stamp}-{slug}" + (f"-{number}" if number else ""))
        with ExitStack() as stack:
            try:
                stack.enter_context(RunLock(run_dir.name, take_s=0.0))
                (run_dir / "cells").mkdir(parents=True)
            except (WaitTimeout, FileExistsError):
                continue
            except OSError as error:
                raise UsageError(f"{run_dir}: {error.strerror}") from error
            yield run_dir
            return
    raise UsageError(f"{results}: cannot make a folder for the run")


def _record(run_dir: Path, scenario: Scenario, plan: Plan) -> dict[str, object]:
    return {
        "run": run_dir.name,
        "scenario": {
            "title": scenario.title,
            "question": scenario.question,
            "path": named(scenario.path),
            "text": scenario.text,
            "asked": dict(scenario.asked),
            "must_lose": [str(fault) for fault in scenario.must_lose],
        },
        "seed": plan.seed,
        "planned": [cell.id for cell in plan.cells],
        "started_utc": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "host": host.facts(),
        "mqtest_version": __version__,
    }


def _write_run(run_dir: Path, record: Mapping[str, object]) -> None:
    (run_dir / RUN_FILE).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def _unfinished(run_dir: Path, cells: Sequence[Cell]) -> list[Cell]:
    """Cells still to run. What a stopped run left of one is moved to aborted/, not deleted."""
    todo = []
    for cell in cells:
        folder = run_dir / "cells" / cell.id
        if not folder.exists():
            todo.append(cell)
            continue
        if (folder / "cell.json").is_file() and read_cell(folder).get("finished"):
            continue
        aborted = run_dir / "aborted"
        aborted.mkdir(exist_ok=True)
        folder.rename(aborted / f"{cell.id}-{sum(1 for _ in aborted.glob(cell.id + '-*')) + 1}")
        todo.append(cell)
    return todo
