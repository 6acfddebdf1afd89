"""The cells of a run, one after the other, each in a folder of its own; what an interrupted run leaves is whole.

    results/<utc>-<scenario>/run.json                what was asked; `planned`: ids of all cells; the noise floor
                             lock                     held while the run lives
                             cells/<id>/              cell.json, ledger/, logs/ (see ledger.py)
                             aborted/<id>-<n>/        cells that a stopped run did not finish, kept by --resume
A cell is finished when its cell.json says so. The phases of one cell are in cell_run.py.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from mqtest import __version__, host, noise_floor
from mqtest.brokers import broker_module
from mqtest.cell_run import CellRun
from mqtest.cluster.locks import RunLock
from mqtest.errors import UsageError, WaitTimeout
from mqtest.judge import judge
from mqtest.ledger import read_cell
from mqtest.model import NO_FAULT, Cell, Node, Phases, Profile, Workload
from mqtest.nodes import engine_for, left_up, require_engine
from mqtest.plan import Plan, expected_s
from mqtest.profile import image_version
from mqtest.scenario import Scenario
from mqtest.watch import Watch

RUN_FILE = "run.json"


def run(scenario: Scenario, plan: Plan, results: Path, *, keep: bool, resume: Path | None, watch: Watch) -> Path:
    """Run all cells of a plan that are not finished yet; returns the run's folder.

    A cell that fails is recorded and the run goes on; an EngineError ends it. On KeyboardInterrupt the cell
    heals, the cluster is removed, and it is raised again.
    """
    require_engine(plan.cells)
    with _held(resume) if resume else new_run(results, scenario.path.stem) as run_dir:
        if resume is None:
            record = _record(run_dir, scenario, plan)
            _write_run(run_dir, record)
        todo = _unfinished(run_dir, plan.cells)
        watch.run_planned(todo, sum(expected_s(c) for c in todo), plan.disk_mb)
        watch.run_opened(run_dir)
        try:
            if resume is None:
                _write_run(run_dir, record | {"noise_floor": noise_floor.of_run(scenario, results, watch.note)})
            _run_cells(run_dir, todo, keep, watch)
        finally:
            watch.run_ended()
    return run_dir


def _run_cells(run_dir: Path, cells: Sequence[Cell], keep: bool, watch: Watch) -> None:
    with engine_for(cells, run_dir.name, watch.note, keep=keep):
        for number, cell in enumerate(cells, 1):
            watch.cell_started(cell, number, len(cells))
            folder = run_dir / "cells" / cell.id
            CellRun(run_dir.name, cell, folder, keep=keep, watch=watch).run()
            watch.cell_judged(cell.id, judge(folder).row)


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
            "path": scenario.path.name,
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
