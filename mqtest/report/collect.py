"""Run folders → judged cells: what every report is made of.

A cell is finished when its folder has a cell.json that does not say `"finished": false`; each finished cell is judged
anew from its ledger, and what came of it is stored beside it as verdict.json, so that a later judgement can be
compared with it. Shards are several run folders of one scenario; their cells are taken together.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from mqtest import history as histories
from mqtest import latency_log
from mqtest.curves import Curves, curves
from mqtest.errors import LedgerError, MqtestError, UsageError
from mqtest.judge import judge
from mqtest.ledger import read_cell, read_record
from mqtest.model import Finding, Verdict
from mqtest.neighbourhood import Neighbourhood
from mqtest.timeline import Timeline

Row = Mapping[str, object]

RUN = "run.json"
CELL = "cell.json"
VERDICT = "verdict.json"
LATENCIES = "latency.hlog"


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgedCell:
    """One finished cell. `facts` is its cell.json; `stored` its verdict.json from before, or None."""

    folder: Path
    row: Row
    findings: tuple[Finding, ...]
    verdict: Verdict
    reason: str
    facts: Mapping[str, Any]
    stored: Mapping[str, Any] | None
    promised: tuple[str, ...] = ()
    """columns that have to be 0, see Judgement"""
    timeline: Timeline | None = None
    neighbourhoods: Mapping[str, tuple[Neighbourhood, ...]] = field(default_factory=dict)
    """by check, see Judgement"""
    ledger: bool = True
    """False: nothing is left of it but its row (bare.py)"""

    @property
    def id(self) -> str:
        """The cell's id, which is the name of its folder."""
        return self.folder.name


@dataclass(frozen=True, slots=True, kw_only=True)
class Collected:
    """Everything that the given run folders hold."""

    runs: tuple[Mapping[str, Any], ...]
    """the run.json of each folder, in the order given"""
    cells: tuple[JudgedCell, ...]
    """by cell id, which is the order of the plan"""
    unfinished: tuple[str, ...]
    """ids of cells that were planned and are not finished"""

    @property
    def rows(self) -> tuple[Row, ...]:
        """The row of each cell."""
        return tuple(cell.row for cell in self.cells)


def collect(run_dirs: Sequence[Path]) -> Collected:
    """Judge every finished cell of these run folders; raises UsageError for a folder that is no run."""
    runs: list[Mapping[str, Any]] = []
    cells: list[JudgedCell] = []
    unfinished: list[str] = []
    for run_dir in dict.fromkeys(path.resolve() for path in run_dirs):
        folders = cell_folders(run_dir)
        facts = read_run(run_dir) if (run_dir / RUN).is_file() else {"run": run_dir.name}
        runs.append(facts)
        cells += [judge_cell(folder) for folder in folders]
        finished = {folder.name for folder in folders}
        unfinished += [cell for cell in facts.get("planned", ()) if cell not in finished]
    cells.sort(key=lambda cell: (cell.id, str(cell.folder)))
    return Collected(runs=tuple(runs), cells=tuple(cells), unfinished=tuple(sorted(unfinished)))


def cell_folders(folder: Path) -> list[Path]:
    """The finished cells of a run folder, by id; of a cell's own folder, itself, finished or not. Raises UsageError."""
    if not folder.is_dir():
        raise UsageError(f"{folder}: no such folder")
    if (folder / CELL).is_file():
        return [folder]
    if not (folder / RUN).is_file() and not (folder / "cells").is_dir():
        inside = sorted(path.name for path in folder.iterdir() if (path / RUN).is_file())
        hint = f"; it holds runs, name one: {', '.join(inside[-5:])}" if inside else ""
        raise UsageError(f"{folder}: not the folder of a run (it has neither {RUN} nor cells/){hint}")
    return sorted(path.parent for path in folder.glob(f"cells/*/{CELL}") if _finished(path.parent))


def read_run(run_dir: Path) -> Mapping[str, Any]:
    """The run.json of a run folder; raises UsageError where there is none, LedgerError where it is no JSON."""
    if not (run_dir / RUN).is_file():
        raise UsageError(f"{run_dir}: not the folder of a run (it has no {RUN})")
    return read_record(run_dir / RUN)


def judge_cell(folder: Path) -> JudgedCell:
    """Judge one finished cell; what cannot be judged is `unknown`."""
    stored_path = folder / VERDICT
    try:
        stored = read_record(stored_path) if stored_path.is_file() else None
    except LedgerError:
        stored = None  # torn by a kill while it was written: as if it had never been there
    try:
        facts: Mapping[str, Any] = read_cell(folder)
    except LedgerError:
        facts = {}  # the judgement says so
    judgement = judge(folder)
    return JudgedCell(
        folder=folder,
        row={key: value.item() if hasattr(value, "item") else value for key, value in judgement.row.items()},
        findings=judgement.findings,
        verdict=judgement.verdict,
        reason=judgement.reason,
        facts=facts,
        stored=stored,
        promised=judgement.promised,
        timeline=judgement.timeline,
        neighbourhoods=judgement.neighbourhoods,
    )


def lost_hosts(cells: Sequence[JudgedCell]) -> tuple[str, ...]:
    """A line for each cell whose host died, so that it ran again on another one (grid.py)."""
    return tuple(
        f"{cell.id}: lost with its host, and run again: {'; '.join(lost)}"
        for cell in cells
        if (lost := cell.facts.get("lost_hosts"))
    )


def store_verdict(cell: JudgedCell) -> None:
    """Write the cell's verdict.json: verdict, reason, row, findings."""
    write(cell.folder / VERDICT, json.dumps(_as_stored(cell), indent=1, default=str) + "\n")


def measure(cell: JudgedCell) -> Curves | None:
    """Write the cell's latency.hlog, its response times by phase and second (latency_log.py), and tell what its
    pictures are drawn from. None for a cell whose ledger cannot be read, or whose load did not come to its end; where
    nothing was acknowledged there is no log."""
    try:
        history = histories.load(cell.folder)
        times = latency_log.times(history)
        lines = list(latency_log.lines(history, times))
        drawn = curves(history, times)
    except LedgerError:
        return None  # the judgement says so
    if lines:
        write(cell.folder / LATENCIES, "".join(f"{line}\n" for line in lines))
    return drawn


def differences(cell: JudgedCell) -> list[str]:
    """What this judgement says otherwise than the stored one, one line each; empty when nothing was stored."""
    if cell.stored is None:
        return []
    now = json.loads(json.dumps(_as_stored(cell), default=str))
    before = cell.stored
    lines = [_change(key, before.get(key), now[key]) for key in ("verdict", "reason") if before.get(key) != now[key]]
    old_row = before.get("row") or {}
    for key in [*now["row"], *(key for key in old_row if key not in now["row"])]:
        old, new = old_row.get(key), now["row"].get(key)
        if old != new and key not in ("verdict", "reason"):
            lines.append(_change(key, old, new))
    return lines


def write(path: Path, content: str | bytes) -> None:
    """Replace a file whole; raises MqtestError naming it (disk full, no permission)."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_name(path.name + ".part")
        beside.write_bytes(content.encode() if isinstance(content, str) else content)
        beside.replace(path)
    except OSError as error:
        raise MqtestError(f"{path}: {error.strerror}") from error


def keep(cells: Sequence[JudgedCell], into: Path) -> list[Path]:
    """Copy the folders of these cells to `into`/<run>/<cell>, ledgers, events and logs; returns the copies. Raises
    MqtestError."""
    copies = []
    for cell in cells:
        copy = into / str(cell.row.get("run") or "run") / cell.id
        try:
            shutil.copytree(cell.folder, copy, dirs_exist_ok=True)
        except (OSError, shutil.Error) as error:
            raise MqtestError(f"{copy}: {error}") from error
        copies.append(copy)
    return copies


def _as_stored(cell: JudgedCell) -> dict[str, Any]:
    return {
        "verdict": cell.verdict,
        "reason": cell.reason,
        "row": dict(cell.row),
        "findings": [asdict(finding) for finding in cell.findings],
    }


def _change(key: str, old: object, new: object) -> str:
    return f"{key}: {'(nothing)' if old is None else old} → {'(nothing)' if new is None else new}"


def _finished(folder: Path) -> bool:
    try:
        return read_cell(folder).get("finished") is not False
    except LedgerError:
        return True  # it will be judged, and be `unknown` with this reason
