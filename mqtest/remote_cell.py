"""One cell of another machine's run, run on this one: in a folder that is sent back and removed.

Rules:
- This machine holds a lock in a name of the cell's own (`held_as`), and everything made for the cell carries it: hosts
  of one run may share a machine and an engine, and what a host that died left is cleared by the next cell here.
- The engine is held for the one cell: the agent starts and ends with it.
- Every way out heals and cleans up, as in a run of this machine's own.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from mqtest.cell_run import CellRun
from mqtest.cluster.locks import RunLock, live_runs
from mqtest.model import Cell
from mqtest.nodes import engine_for
from mqtest.parcel import packed
from mqtest.watch import CellWatch, Progress

_PREFIX = "mqtest-cell."
_PROGRESS_EVERY_S = 0.5


@dataclass(frozen=True, slots=True)
class Job:
    """A cell on its way to a host, for the `attempt`-th time, from 1."""

    run_id: str
    cell: Cell
    attempt: int

    @property
    def held_as(self) -> str:
        """The name of lock and labels on the host."""
        return f"{self.run_id}-{self.cell.index:03d}-{self.attempt}"


Said = tuple[str, object]
"""what is told of a cell: the name of a method of CellWatch, and what it is called with"""


class Told:
    """A CellWatch that tells what it sees through `tell`."""

    def __init__(self, tell: Callable[[Said], None]) -> None:
        self._tell = tell
        self._told_s = 0.0

    def phase(self, name: str) -> None:
        """See CellWatch."""
        self._tell(("phase", name))

    def progress(self, now: Progress) -> None:
        """See CellWatch; a few times a second are enough from afar."""
        if time.monotonic() - self._told_s > _PROGRESS_EVERY_S:
            self._told_s = time.monotonic()
            self._tell(("progress", now))

    def note(self, text: str) -> None:
        """See CellWatch."""
        self._tell(("note", text))


def run_here(job: Job, watch: CellWatch) -> Iterator[bytes]:
    """Run it, then yield the chunks of its folder (parcel.py). Raises what CellRun.run raises."""
    held_as, folder = job.held_as, Path(tempfile.gettempdir()) / f"{_PREFIX}{job.held_as}"
    with RunLock(held_as):
        _remove_folders_of_dead_runs()
        folder.mkdir(mode=0o700)
        try:
            cell_dir = folder / job.cell.id
            with engine_for([job.cell], held_as, watch.note, keep=False):
                CellRun(job.run_id, job.cell, cell_dir, keep=False, watch=watch, held_as=held_as).run()
            yield from packed(cell_dir, folder / "parcel")
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _remove_folders_of_dead_runs() -> None:
    live = live_runs()
    for path in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        if path.name.removeprefix(_PREFIX) not in live and path.stat().st_uid == os.getuid():
            shutil.rmtree(path, ignore_errors=True)
