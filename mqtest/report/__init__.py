"""Judged cells → what a person reads: results.csv, results.parquet, report.md, report.html and its pictures, junit.xml,
and the table on the terminal; two runs → what got worse (compare.py).

Offline: needs only the files of a run. One module a format, each a function from cells to text; `summary` has the
figures and words that the formats share. Nothing here prints.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table

from mqtest import __version__
from mqtest.report import terminal
from mqtest.report.bare import gather
from mqtest.report.collect import (
    Collected,
    cell_folders,
    differences,
    judge_cell,
    lost_hosts,
    measure,
    store_verdict,
    write,
)
from mqtest.report.csv_table import TABLE, csv_text, is_bare, parquet_bytes
from mqtest.report.junit import junit_text
from mqtest.report.markdown import markdown_text
from mqtest.report.page import page, stills
from mqtest.report.summary import Row, exit_code, groups, teeth
from mqtest.report.surprises import must_lose
from mqtest.report.unavailable import timelines_text

__all__ = ["CheckReport", "RunReport", "check", "render"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunReport:
    """What `render` made of some runs."""

    out_dir: Path
    rows: tuple[Row, ...]
    notes: tuple[str, ...]
    """what the run does not prove about its own eyes, and which cells lost their hosts, one line each"""
    unfinished: tuple[str, ...]
    """ids of cells that were planned and did not finish"""
    exit_code: int
    table: Table
    """for the terminal"""
    attached: str
    """the timeline of a cluster of somebody else's, as in report.md; empty without one"""
    files: tuple[Path, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckReport:
    """What `check` found."""

    cells: int
    differences: tuple[str, ...]
    """`<cell>: <key>: <before> → <now>`"""
    exit_code: int


def render(run_dirs: Sequence[Path], out_dir: Path) -> RunReport:
    """Judge every finished cell of these runs (shards of one scenario, or one run), store each verdict and its
    latencies beside its cell, and write results.csv, results.parquet, report.md, report.html, matrix.svg, frontier.svg
    (where there is a frontier) and junit.xml into `out_dir`. Of a run of which only results.csv is left, what that says
    is taken as it stands (bare.py), and it is not written over; no junit.xml then, which tells what was promised.

    Raises UsageError for a folder that is no run, MqtestError where a file cannot be written.
    """
    collected = gather(run_dirs)
    title = _title(collected)
    pictures = stills(collected)
    judged = [cell for cell in collected.cells if cell.ledger]
    for cell in judged:
        store_verdict(cell)
    contents: dict[str, str | bytes] = {}
    if out_dir.resolve() not in {path.resolve() for path in run_dirs if is_bare(path)}:
        contents = {
            TABLE: csv_text(collected.cells),
            "results.parquet": parquet_bytes(collected.cells),
            "report.md": markdown_text(collected, __version__, tuple(pictures)),
        }
    curves = {cell.folder: measure(cell) for cell in judged}
    contents |= {"report.html": page(collected, curves, __version__), **pictures}
    if len(judged) == len(collected.cells):
        contents["junit.xml"] = junit_text(title, collected)
    for name, content in contents.items():
        write(out_dir / name, content)
    all_groups = groups(collected.rows)
    return RunReport(
        out_dir=out_dir,
        rows=collected.rows,
        notes=teeth(all_groups, must_lose(collected)) + lost_hosts(collected.cells),
        unfinished=collected.unfinished,
        exit_code=exit_code(collected.rows, len(collected.unfinished)),
        table=terminal.table(all_groups, title),
        attached=timelines_text([cell for cell in collected.cells if "attached" in cell.facts]),
        files=tuple(out_dir / name for name in contents),
    )


def check(folders: Sequence[Path]) -> CheckReport:
    """Judge the cells of these run (or cell) folders again, and tell what differs from the verdicts stored beside
    them, which are then replaced. Raises UsageError for a folder that is neither."""
    cells = [judge_cell(cell) for folder in folders for cell in cell_folders(folder.resolve())]
    changed = tuple(f"{cell.id}: {line}" for cell in cells for line in differences(cell))
    for cell in cells:
        store_verdict(cell)
    return CheckReport(cells=len(cells), differences=changed, exit_code=exit_code(cell.row for cell in cells))


def _title(collected: Collected) -> str:
    names = [str(run.get("scenario", {}).get("title") or run.get("run")) for run in collected.runs]
    return " + ".join(dict.fromkeys(names))
