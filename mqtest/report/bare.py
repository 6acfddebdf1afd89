"""Runs of which only results.csv is left: the matrix and the frontier can still be drawn from its rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from mqtest.errors import MqtestError, UsageError
from mqtest.judge import COLUMNS
from mqtest.model import Verdict
from mqtest.report.collect import RUN, Collected, JudgedCell
from mqtest.report.csv_table import rows_of

TABLE = "results.csv"


def is_bare(run_dir: Path) -> bool:
    """Whether the folder has a table and neither a run nor cells."""
    return (run_dir / TABLE).is_file() and not (run_dir / RUN).is_file() and not (run_dir / "cells").is_dir()


def collect_bare(run_dirs: Sequence[Path]) -> Collected:
    """What their tables say, as it was judged then; raises UsageError for a folder that has more than a table, or a
    table that is none of ours."""
    cells: list[JudgedCell] = []
    for run_dir in dict.fromkeys(path.resolve() for path in run_dirs):
        if not is_bare(run_dir):
            raise UsageError(f"{run_dir}: has ledgers, and another of these folders has not: they cannot be merged")
        cells += [_cell(run_dir, row) for row in read(run_dir / TABLE)]
    runs = tuple({"run": name} for name in dict.fromkeys(str(cell.row["run"]) for cell in cells))
    return Collected(runs=runs, cells=tuple(cells), unfinished=())


def read(path: Path) -> list[Mapping[str, object]]:
    """The rows of a results.csv, with all of COLUMNS; None where a field is empty or an older table has no such
    column."""
    try:
        rows = rows_of(path.read_text(encoding="utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise MqtestError(f"{path}: {error}") from error
    return [{column: row.get(column) for column in COLUMNS} for row in rows]


def _cell(run_dir: Path, row: Mapping[str, object]) -> JudgedCell:
    return JudgedCell(
        folder=run_dir / "cells" / str(row["cell"]),
        row=row,
        findings=(),
        verdict=Verdict(str(row["verdict"])),
        reason=str(row["reason"] or ""),
        facts={},
        stored=None,
        ledger=False,
    )
