"""What the runner tells whoever watches a run: the protocols Watch and CellWatch, and SilentWatch for nobody.

The runner calls these in this order: `run_planned`, `run_opened`, then for each cell `cell_started`, which gives the
cell a watch of its own for any number of `phase`, `progress` and `note`, and `cell_judged`; at last `run_ended`, also
when the run was interrupted. Cells on several hosts go on at the same time. A watch only looks: it never raises, never
waits, and nothing that it does changes a run. What a person sees of it is in live.py; this module knows no terminal, so
that the runner needs none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from mqtest.model import Cell


class Progress(NamedTuple):
    """Totals of a cell so far."""

    sent: int
    acked: int
    unknown: int
    refused: int
    skipped: int
    delivered: int
    last_ack_age_s: float | None
    """None: no ack yet"""
    rate_asked: float | None
    """None: closed loop"""


class CellWatch(Protocol):
    """Somebody who looks on at one cell."""

    def phase(self, name: str) -> None:
        """The cell entered this phase: up, warm-up, steady, fault, heal, recover, drain, audit, down, …"""

    def progress(self, now: Progress) -> None:
        """How the cell's load stands; some ten times a second."""

    def note(self, text: str) -> None:
        """One line worth telling: an image is built, a fault bit, a node came back."""


class Watch(Protocol):
    """Somebody who looks on at a run."""

    def run_planned(self, plan_cells: Sequence[Cell], expected_s: float, disk_mb: int) -> None:
        """The cells that will run now, how long that should take and the most disk that it needs."""

    def run_opened(self, run_dir: Path) -> None:
        """The run's folder exists, with its run.json: from here on an interrupted run has a report."""

    def cell_started(self, cell: Cell, index: int, total: int) -> CellWatch:
        """Cell number `index` (from 1) of `total` begins, or begins again on another host; who watches it."""

    def note(self, text: str) -> None:
        """One line worth telling about the run."""

    def cell_judged(self, cell_id: str, row: Mapping[str, object]) -> None:
        """The cell is over; `row` is its row of results.csv."""

    def run_ended(self) -> None:
        """Nothing more comes. May be called again."""


class SilentWatch:
    """Watches nothing."""

    def run_planned(self, plan_cells: Sequence[Cell], expected_s: float, disk_mb: int) -> None:
        """See Watch."""

    def run_opened(self, run_dir: Path) -> None:
        """See Watch."""

    def cell_started(self, cell: Cell, index: int, total: int) -> CellWatch:
        """See Watch."""
        return self

    def phase(self, name: str) -> None:
        """See CellWatch."""

    def progress(self, now: Progress) -> None:
        """See CellWatch."""

    def note(self, text: str) -> None:
        """See Watch and CellWatch."""

    def cell_judged(self, cell_id: str, row: Mapping[str, object]) -> None:
        """See Watch."""

    def run_ended(self) -> None:
        """See Watch."""
