"""What a person sees while a run goes on: a live screen on a terminal, plain lines everywhere else.

Both are a Watch and write to stderr, so that stdout carries only the result. The screen shows each cell that goes on,
its phase, the rate, what was acknowledged, the gap so far, the time left, and the cells judged so far; the plain one
writes a line a phase and a line a judged cell, without a control code. Times left are the plan's guess, corrected by
how long the finished cells took.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import click
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from mqtest.model import Cell
from mqtest.report.summary import Group as Repeats
from mqtest.report.summary import count, fault_of, loss_words, profile_of, seconds, verdict_of
from mqtest.report.terminal import STYLES
from mqtest.watch import Progress

Clock = Callable[[], float]

_JUDGED_SHOWN = 8
_NOTES_SHOWN = 3
_LOAD_IS_OVER = ("drain", "audit", "down")
"""phases in which nothing is sent, so that no ack is no gap"""
_RATE_OVER_S = 2.0
"""the rate shown is that of the last so many seconds"""


def watch(*, plain: bool) -> PlainWatch | ScreenWatch:
    """The live screen where stderr is a terminal and no CI asks for less; else plain lines."""
    console = Console(stderr=True)
    if plain or not console.is_terminal or console.is_dumb_terminal or os.environ.get("CI"):
        return PlainWatch()
    return ScreenWatch(console)


def judged_line(cell_id: str, row: Mapping[str, object]) -> str:
    """`003-… kept: lost 0 of 20,000 acked, longest ack gap 3.20 s`, with the reason where the cell proves nothing."""
    group = Repeats(profile=profile_of(row), fault=fault_of(row), rows=(row,))
    text = f"{cell_id} {verdict_of(row)}: {loss_words(group)}"
    gap = row.get("ack_gap_s_max")
    if isinstance(gap, int | float):
        text += f", longest ack gap {seconds(gap)} s"
    if row.get("reason") and verdict_of(row) not in ("kept", "lost-as-documented"):
        text += f" ({' '.join(str(row['reason']).split())})"
    return text


def planned_line(cells: int, expected_s: float, disk_mb: int) -> str:
    """`6 cells, about 4 min, at most 2,304 MB of disk at a time`."""
    noun = "cell" if cells == 1 else "cells"
    return f"{cells} {noun}, about {duration(expected_s)}, at most {count(disk_mb)} MB of disk at a time"


def duration(value_s: float) -> str:
    """`45 s`, `12 min`, `1 h 05 min`."""
    if value_s < 90:
        return f"{max(value_s, 0):.0f} s"
    minutes = round(value_s / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


class TimeLeft:
    """How long the rest of a run takes: the plan's guess until a cell is over, then what the finished ones took."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._begun = self._last_done = clock()
        self._expected_s = 0.0
        self._done = 0
        self._total = 0

    def planned(self, total: int, expected_s: float) -> None:
        """The run begins."""
        self._begun = self._last_done = self._clock()
        self._total, self._expected_s, self._done = total, expected_s, 0

    def cell_done(self) -> None:
        """A cell is over."""
        self._done += 1
        self._last_done = self._clock()

    @property
    def seconds(self) -> float:
        """From now; never below 0."""
        if self._done >= self._total:
            return 0.0
        a_cell = (self._last_done - self._begun) / self._done if self._done else self._expected_s / self._total
        return max(0.0, a_cell * (self._total - self._done) - (self._clock() - self._last_done))

    @property
    def share(self) -> float:
        """How much of the run is over, 0 to 1."""
        elapsed = self._clock() - self._begun
        whole = elapsed + self.seconds
        return elapsed / whole if whole > 0 else 0.0


class PlainWatch:
    """A line for each phase, note and judged cell, to stderr."""

    def __init__(self, say: Callable[[str], None] = lambda text: click.echo(text, err=True)) -> None:
        self._say = say
        self.run_dir: Path | None = None
        """the run's folder, once there is one"""

    def run_planned(self, plan_cells: Sequence[Cell], expected_s: float, disk_mb: int) -> None:
        """See Watch."""
        self._say(planned_line(len(plan_cells), expected_s, disk_mb))

    def run_opened(self, run_dir: Path) -> None:
        """See Watch."""
        self.run_dir = run_dir
        self._say(f"results in {run_dir}")

    def cell_started(self, cell: Cell, index: int, total: int) -> PlainCell:
        """See Watch."""
        started = PlainCell(f"[{index}/{total}] {cell.id}", self._say)
        started.note(f"{cell.profile.path} under {cell.fault}, repeat {cell.repeat}")
        return started

    def note(self, text: str) -> None:
        """See Watch."""
        self._say(text)

    def cell_judged(self, cell_id: str, row: Mapping[str, object]) -> None:
        """See Watch."""
        self._say(f"= {judged_line(cell_id, row)}")

    def run_ended(self) -> None:
        """See Watch."""


class PlainCell:
    """The lines of one cell."""

    def __init__(self, name: str, say: Callable[[str], None]) -> None:
        self._name = name
        self._say = say

    def phase(self, name: str) -> None:
        """See CellWatch."""
        self.note(name)

    def progress(self, now: Progress) -> None:
        """See CellWatch; nothing, figures stand in the judged line."""

    def note(self, text: str) -> None:
        """See CellWatch."""
        self._say(f"{self._name}: {text}")


class ScreenWatch:
    """The live screen. `clock` is in seconds; a test gives its own."""

    def __init__(self, console: Console, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self.run_dir: Path | None = None
        """the run's folder, once there is one"""
        self._left = TimeLeft(clock)
        self._cells: dict[str, ScreenCell] = {}
        """those that go on, by id"""
        self._notes: deque[str] = deque(maxlen=_NOTES_SHOWN)
        self._judged: deque[tuple[str, Mapping[str, object]]] = deque(maxlen=_JUDGED_SHOWN)
        self._live = Live(
            get_renderable=self.screen, console=console, refresh_per_second=4, transient=True, redirect_stdout=False
        )

    def run_planned(self, plan_cells: Sequence[Cell], expected_s: float, disk_mb: int) -> None:
        """See Watch."""
        self._left.planned(len(plan_cells), expected_s)
        self._live.console.print(planned_line(len(plan_cells), expected_s, disk_mb))
        self._live.start()

    def run_opened(self, run_dir: Path) -> None:
        """See Watch."""
        self.run_dir = run_dir
        self.note(f"results in {run_dir}")

    def cell_started(self, cell: Cell, index: int, total: int) -> ScreenCell:
        """See Watch."""
        title = Text.assemble(
            f"cell {index} of {total}  ", (cell.profile.path, "bold"), f" under {cell.fault}, repeat {cell.repeat}"
        )
        started = ScreenCell(title, self._clock, lambda text: self._note_of(cell, text))
        self._cells = {**self._cells, cell.id: started}  # whole: the screen is drawn by a thread of its own
        return started

    def note(self, text: str) -> None:
        """See Watch."""
        self._notes.append(" ".join(text.split()))

    def cell_judged(self, cell_id: str, row: Mapping[str, object]) -> None:
        """See Watch."""
        self._left.cell_done()
        self._cells = {name: cell for name, cell in self._cells.items() if name != cell_id}
        self._judged.append((cell_id, dict(row)))

    def run_ended(self) -> None:
        """See Watch."""
        self._live.stop()

    def screen(self) -> RenderableType:
        """The screen as it stands now."""
        lines = Table.grid(padding=(0, 2))
        lines.add_row("run", ProgressBar(total=1.0, completed=self._left.share, width=60))
        lines.add_row("time left", f"about {duration(self._left.seconds)}")
        parts: list[RenderableType] = [lines]
        parts += [part for cell in self._cells.values() for part in cell.parts()]
        parts += [Text(f"· {note}", style="dim", no_wrap=True, overflow="ellipsis") for note in self._notes]
        parts += [
            Text(judged_line(cell_id, row), style=STYLES[verdict_of(row)], no_wrap=True, overflow="ellipsis")
            for cell_id, row in self._judged
        ]
        return Group(*parts)

    def _note_of(self, cell: Cell, text: str) -> None:
        self.note(f"{cell.id}: {text}" if len(self._cells) > 1 else text)


class ScreenCell:
    """One cell on the screen."""

    def __init__(self, title: Text, clock: Clock, note: Callable[[str], None]) -> None:
        self._title = title
        self._clock = clock
        self._note = note
        self._figures: dict[str, str] = {}
        self._acked: deque[tuple[float, int]] = deque()
        self._gap_s = 0.0
        self.phase("up")

    def phase(self, name: str) -> None:
        """See CellWatch."""
        self._phase, self._phase_begun = name, self._clock()

    def progress(self, now: Progress) -> None:
        """See CellWatch."""
        if self._phase in _LOAD_IS_OVER:
            age = "all sent"
        else:
            self._gap_s = max(self._gap_s, now.last_ack_age_s or 0.0)
            age = "none yet" if now.last_ack_age_s is None else f"{now.last_ack_age_s:.1f} s ago"
        asked = "as fast as it goes" if now.rate_asked is None else f"{count(now.rate_asked)} asked"
        self._figures = {
            "rate": f"{count(self._rate(now.acked))} acked per s ({asked})",
            "acked": f"{count(now.acked)} of {count(now.sent)} sent, {count(now.unknown)} unknown, "
            f"{count(now.refused)} refused, {count(now.skipped)} skipped",
            "delivered": count(now.delivered),
            "last ack": f"{age}, longest gap so far {self._gap_s:.1f} s",
        }

    def note(self, text: str) -> None:
        """See CellWatch."""
        self._note(text)

    def parts(self) -> list[RenderableType]:
        """Its title and figures as they stand now."""
        lines = Table.grid(padding=(0, 2))
        lines.add_row("phase", f"{self._phase}, for {duration(self._clock() - self._phase_begun)}")
        for name, text in self._figures.items():
            lines.add_row(name, text)
        return [self._title, lines]

    def _rate(self, acked: int) -> float:
        now = self._clock()
        self._acked.append((now, acked))
        while now - self._acked[0][0] > _RATE_OVER_S and len(self._acked) > 2:
            self._acked.popleft()
        then, before = self._acked[0]
        return (acked - before) / (now - then) if now > then else 0.0
