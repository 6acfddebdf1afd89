"""Run folders and tables → the cells that speak, by candidate.

A candidate is a profile as it was run: with what was varied of it, and apart by number of nodes and by version of the
broker where the cells differ in these. A cell that two of the given paths hold counts once.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from mqtest.errors import UsageError
from mqtest.report.collect import RUN, cell_folders, collect, read_run
from mqtest.report.csv_table import TABLE, csv_text, read_table, rows_of
from mqtest.report.summary import Row, groups, profile_of, teeth

_APART = (("nodes", "on {} node{s}"), ("broker_version", "version {}"))
"""columns in which cells of one profile may differ, and how that is said"""
_MACHINE = ("host.cpu", "host.cores", "host.memory_gb")


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One profile, and all cells of it."""

    name: str
    rows: tuple[Row, ...]

    @property
    def acknowledged(self) -> bool:
        """False for a profile without acknowledgements: its losses are counted as not found."""
        return all(row.get("not_found") is None for row in self.rows)


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """Everything that the given paths hold."""

    rows: tuple[Row, ...]
    notes: tuple[str, ...]
    """what these cells do not prove about themselves, one line each"""

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        """By profile, in order of first appearance."""
        profiles: dict[str, list[Row]] = {}
        for row in self.rows:
            profiles.setdefault(profile_of(row), []).append(row)
        found: dict[str, list[Row]] = {}
        for profile, rows in profiles.items():
            apart = [entry for entry in _APART if len({row.get(entry[0]) for row in rows} - {None}) > 1]
            for row in rows:
                found.setdefault(profile + "".join(_as_run(row, *entry) for entry in apart), []).append(row)
        return tuple(Candidate(name=name, rows=tuple(rows)) for name, rows in found.items())

    @property
    def runs(self) -> tuple[str, ...]:
        """Names of the runs, in order of first appearance."""
        return tuple(dict.fromkeys(str(row.get("run") or "?") for row in self.rows))


def read(paths: Sequence[Path]) -> Evidence:
    """The cells of run folders, and of tables (results.csv). Of a folder its table is read where it has one; else its
    cells are judged, and nothing is written. Raises UsageError for a path that is neither."""
    rows: dict[object, Row] = {}
    must_lose: list[str] = []
    for path in paths:
        for row in _rows(path):
            rows.setdefault((row.get("run"), row["cell"]), row)
        must_lose += _must_lose(path if path.is_dir() else path.parent)
    found = tuple(rows.values())
    return Evidence(rows=found, notes=(*teeth(groups(found), must_lose), *_machines(found)))


def cell_name(row: Row) -> str:
    """`run/cell`, which is where it is found under results/ (with `cells/` between them)."""
    return f"{row.get('run') or '?'}/{row['cell']}"


def _rows(path: Path) -> Iterable[Row]:
    table = path / TABLE if path.is_dir() else path
    if path.is_dir() and not table.is_file():
        cell_folders(path)  # no run: says so
        return rows_of(csv_text(collect([path]).cells), str(path))
    if not table.is_file():
        raise UsageError(f"{path}: no such folder or file")
    return read_table(table)


def _must_lose(folder: Path) -> list[str]:
    """The faults under which its scenario says that some profile must lose; none without a run.json."""
    if not (folder / RUN).is_file():
        return []
    return [str(fault) for fault in read_run(folder).get("scenario", {}).get("must_lose", ())]


def _as_run(row: Row, column: str, words: str) -> str:
    """What tells it from other cells of the same profile: `, on 1 node`."""
    value = row.get(column)
    return ", " + words.format("?" if value is None else value, s="" if value == 1 else "s")


def _machines(rows: Sequence[Row]) -> list[str]:
    """A warning where rates and latencies are not of one kind of machine."""
    kinds = {tuple(row.get(column) for column in _MACHINE) for row in rows}
    if len(kinds) < 2:
        return []
    return [
        f"These cells ran on {len(kinds)} kinds of machines (host.* in {TABLE}): rates and latencies are not "
        f"comparable across them."
    ]
