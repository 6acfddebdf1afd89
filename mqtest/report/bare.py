"""Runs of which only results.csv is left: what a table still says of its cells.

A folder with a table and no cells is such a run; with its run.json, its scenario is known as well. Ledgers are large, a
table is not: a run in parts, on another day or another machine, is put together from the tables of the earlier parts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from mqtest.judge import COLUMNS
from mqtest.model import Verdict
from mqtest.report.collect import RUN, Collected, JudgedCell, collect, read_run
from mqtest.report.csv_table import TABLE, facts_of, is_bare, read_table


def gather(run_dirs: Sequence[Path]) -> Collected:
    """The cells of all these folders: judged anew where there are ledgers, else as the table says that they were judged
    then. Raises UsageError for a folder that is no run, and for a table that is none of ours."""
    folders = list(dict.fromkeys(path.resolve() for path in run_dirs))
    judged = collect([folder for folder in folders if not is_bare(folder)])
    runs, cells, unfinished = list(judged.runs), list(judged.cells), list(judged.unfinished)
    for folder in (folder for folder in folders if is_bare(folder)):
        told = [_cell(folder, row) for row in read_table(folder / TABLE)]
        cells += told
        names = dict.fromkeys(str(cell.row["run"]) for cell in told)
        facts = [read_run(folder)] if (folder / RUN).is_file() else [{"run": name} for name in names]
        runs += facts
        unfinished += {cell for run in facts for cell in run.get("planned", ())} - {cell.id for cell in told}
    cells.sort(key=lambda cell: (cell.id, str(cell.folder)))
    return Collected(runs=tuple(runs), cells=tuple(cells), unfinished=tuple(sorted(unfinished)))


def _cell(run_dir: Path, row: Mapping[str, object]) -> JudgedCell:
    """With all of COLUMNS: an older table may lack some, and they were not measured."""
    return JudgedCell(
        folder=run_dir / "cells" / str(row["cell"]),
        row={column: row.get(column) for column in COLUMNS},
        findings=(),
        verdict=Verdict(str(row["verdict"])),
        reason=str(row["reason"] or ""),
        facts=facts_of(row),
        stored=None,
        ledger=False,
    )
