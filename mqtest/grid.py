"""The cells of a run, spread over hosts: each goes to a host with a free slot, and comes back as a folder.

    results/<run>/arriving/     what hosts have sent of their cells so far; gone when the run ends

Rules:
- A cell appears in cells/ only whole, by a rename (parcel.py).
- A host that dies costs its cell, which runs again elsewhere, `ATTEMPTS` times at most; then it is `unknown`. One that
  ended by itself, however badly, is not run again: it is judged, as here.
- Whatever ends the run early interrupts the cells on all hosts, and waits until they have healed and cleaned up.
How hosts are reached is behind `Hosts`; ray_hosts.py is the one that there is.
"""

from __future__ import annotations

import shutil
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from mqtest.cell_run import record
from mqtest.errors import EngineError, LedgerError
from mqtest.event_log import EventsWriter, events_path
from mqtest.judge import judge
from mqtest.ledger import read_cell, write_cell
from mqtest.model import Cell
from mqtest.parcel import unpack
from mqtest.remote_cell import Job, Said
from mqtest.watch import CellWatch, SilentWatch, Watch

ATTEMPTS = 3
"""hosts that one cell may cost"""
_LOOK_S = 0.2


@dataclass(frozen=True, slots=True)
class Began:
    """The cell begins on this host. `key` names a job (Job.held_as), here and below."""

    key: str
    host: str


@dataclass(frozen=True, slots=True)
class Tells:
    """For the cell's watch."""

    key: str
    said: Said


@dataclass(frozen=True, slots=True)
class Sent:
    """The next chunk of its folder."""

    key: str
    chunk: bytes


@dataclass(frozen=True, slots=True)
class Over:
    """All of its folder was sent."""

    key: str


@dataclass(frozen=True, slots=True)
class Lost:
    """The host died, or the cell's process did."""

    key: str
    why: str


Heard = Began | Tells | Sent | Over | Lost


class Hosts(Protocol):
    """Machines that run cells."""

    def slots(self) -> int:
        """How many cells can run at a time now, on all hosts that live."""

    def begin(self, job: Job) -> None:
        """Have it run on any host with a free slot."""

    def heard(self, timeout_s: float) -> Iterable[Heard]:
        """What hosts said of their cells since; waits for it, at most so long. Raises what a cell raised there."""

    def interrupt(self) -> None:
        """Interrupt all cells that run, and wait until each has healed and cleaned up, for a bounded time."""


class Grid:
    """An Executor (runner.py) that has hosts run the cells."""

    def __init__(self, hosts: Hosts) -> None:
        self._hosts = hosts

    @property
    def at_a_time(self) -> int:
        """See Executor."""
        return max(1, self._hosts.slots())

    def run(self, run_dir: Path, cells: Sequence[Cell], watch: Watch) -> None:
        """See Executor."""
        arriving = run_dir / "arriving"
        shutil.rmtree(arriving, ignore_errors=True)  # of a runner that was killed
        arriving.mkdir()
        going_on = _GoingOn(self._hosts, run_dir, cells, watch)
        try:
            while going_on.more():
                for heard in self._hosts.heard(_LOOK_S):
                    going_on.take(heard)
        except BaseException:
            watch.note("the cells on all hosts heal and clean up")
            self._hosts.interrupt()
            raise
        finally:
            shutil.rmtree(arriving, ignore_errors=True)


@dataclass(slots=True)
class _Away:
    """A job that a host has, or that waits for one at the engine."""

    job: Job
    archive: Path
    host: str = "its host"
    watch: CellWatch = field(default_factory=SilentWatch)


@dataclass(slots=True)
class _GoingOn:
    """Where every cell of a run stands."""

    hosts: Hosts
    run_dir: Path
    cells: Sequence[Cell]
    watch: Watch
    waiting: deque[Job] = field(init=False)
    away: dict[str, _Away] = field(init=False, default_factory=dict)
    """by key"""
    lost: dict[str, list[str]] = field(init=False, default_factory=dict)
    """cell id -> why each of its hosts was lost"""

    def __post_init__(self) -> None:
        self.waiting = deque(Job(self.run_dir.name, cell, 1) for cell in self.cells)

    def more(self) -> bool:
        """Fill the free slots; whether there is anything left to wait for. Raises EngineError without a host."""
        if self.waiting:
            slots = self.hosts.slots()
            if not slots and not self.away:
                raise EngineError(
                    f"no host with a slot is left, and {len(self.waiting)} cells wait for one: start one, --resume"
                )
            while self.waiting and len(self.away) < slots:
                job = self.waiting.popleft()
                self.away[job.held_as] = _Away(job, self.run_dir / "arriving" / job.held_as)
                self.hosts.begin(job)
        return bool(self.away)

    def take(self, heard: Heard) -> None:
        """What is said of a job that is no longer away came too late, and counts for nothing."""
        away = self.away.get(heard.key)
        if away is None:
            return
        match heard:
            case Began(_, host):
                cell = away.job.cell
                away.host = host
                away.watch = self.watch.cell_started(cell, self.cells.index(cell) + 1, len(self.cells))
                away.watch.note(f"on {host}")
            case Tells(_, (method, value)):
                getattr(away.watch, method)(value)
            case Sent(_, chunk):
                with away.archive.open("ab") as archive:
                    archive.write(chunk)
            case Over(key):
                del self.away[key]
                self._arrived(away)
            case Lost(key, why):
                del self.away[key]
                self._lost(away, why)

    def _arrived(self, away: _Away) -> None:
        folder = self._folder(away.job)
        try:
            unpack(away.archive, folder)
        except LedgerError as error:
            self._lost(away, str(error))
            return
        away.archive.unlink()
        if lost := self.lost.get(away.job.cell.id):
            write_cell(folder, read_cell(folder) | {"lost_hosts": lost})
        self._judged(folder)

    def _lost(self, away: _Away, why: str) -> None:
        job, away_with = away.job, f"{away.host}: {' '.join(why.split())}"
        away.archive.unlink(missing_ok=True)
        self.lost.setdefault(job.cell.id, []).append(away_with)
        if job.attempt < ATTEMPTS:
            self.waiting.append(replace(job, attempt=job.attempt + 1))
            self.watch.note(f"{job.cell.id}: lost with {away_with}; it runs again elsewhere")
        else:
            self.watch.note(f"{job.cell.id}: lost with {away_with}; {ATTEMPTS} times are enough")
            self._given_up(job)

    def _given_up(self, job: Job) -> None:
        """It is `unknown`, with the reason."""
        folder, lost = self._folder(job), self.lost[job.cell.id]
        events = EventsWriter(events_path(folder))
        events.write("failed", why=f"lost with its host, {ATTEMPTS} times: {'; '.join(lost)}")
        events.close()
        write_cell(folder, record(job.run_id, job.cell) | {"finished": True, "lost_hosts": lost})
        self._judged(folder)

    def _judged(self, folder: Path) -> None:
        self.watch.cell_judged(folder.name, judge(folder).row)

    def _folder(self, job: Job) -> Path:
        return self.run_dir / "cells" / job.cell.id
