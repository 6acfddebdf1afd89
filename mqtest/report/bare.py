"""Runs of which only results.csv is left: the matrix and the frontier can still be drawn from its rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from mqtest.errors import UsageError
from mqtest.judge import COLUMNS
from mqtest.model import Verdict
from mqtest.report.collect import Collected, JudgedCell
from mqtest.report.csv_table import TABLE, is_bare, read_table


def collect_bare(run_dirs: Sequence[Path]) -> Collected:
    """What their tables say, as it was judged then; raises UsageError for a folder that has more than a table, or a
    table that is none of ours."""
    cells: list[JudgedCell] = []
    for run_dir in dict.fromkeys(path.resolve() for path in run_dirs):
        if not is_bare(run_dir):
            raise UsageError(f"{run_dir}: has ledgers, and another of these folders has not: they cannot be merged")
        cells += [_cell(run_dir, row) for row in read_table(run_dir / TABLE)]
    runs = tuple({"run": name} for name in dict.fromkeys(str(cell.row["run"]) for cell in cells))
    return Collected(runs=runs, cells=tuple(cells), unfinished=())


def _cell(run_dir: Path, row: Mapping[str, object]) -> JudgedCell:
    """With all of COLUMNS: an older table may lack some, and they were not measured."""
    return JudgedCell(
        folder=run_dir / "cells" / str(row["cell"]),
        row={column: row.get(column) for column in COLUMNS},
        findings=(),
        verdict=Verdict(str(row["verdict"])),
        reason=str(row["reason"] or ""),
        facts={},
        stored=None,
        ledger=False,
    )
