"""The process that packs a large cell's ledger while the cell runs: `python -m mqtest.packer CELL_DIR`, and its owner.

Rules: it is started only when some folder has START_ROWS rows, so a small cell never has one; it gives way to all else
on the machine, and ends with the runner. It may be killed at any moment (packing.py). `finish` on its stdin says that
every writer has ended: it packs what is left, and ends.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO

from mqtest.chunks import CHUNK_ROWS
from mqtest.clock import now_ns
from mqtest.columns import room
from mqtest.errors import LedgerError
from mqtest.ledger import actor_folders
from mqtest.packing import Packing, close

START_ROWS = 8 * CHUNK_ROWS
"""0.3 GB"""
_LOOK_S = 5.0
_ROUND_S = 5.0
_FINISH_S = 600.0
"""at most, for what is left"""
_PR_SET_PDEATHSIG = 1


class Packer:
    """The runner's side, of one cell. `note` is told why something was not packed."""

    def __init__(self, cell_dir: Path, note: Callable[[str], None]) -> None:
        self._cell_dir = cell_dir
        self._note = note
        self._process: subprocess.Popen[str] | None = None
        self._look_at_s = 0.0

    def look(self) -> None:
        """Start packing where the ledger has become large; cheap, to be called often."""
        if self._process is not None or time.monotonic() < self._look_at_s:
            return
        self._look_at_s = time.monotonic() + _LOOK_S
        if any(room(folder, columns) >= START_ROWS for folder, columns in actor_folders(self._cell_dir).items()):
            self._process = subprocess.Popen(
                [sys.executable, "-m", "mqtest.packer", str(self._cell_dir)],
                stdin=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )

    def finish(self) -> None:
        """All writers have ended: wait until everything is packed, where anything is; idempotent."""
        if self._process is None:
            return
        process, self._process = self._process, None
        self._look_at_s = float("inf")
        try:
            _, said = process.communicate("finish\n", timeout=_FINISH_S)
        except subprocess.TimeoutExpired:
            process.kill()
            said = f"not done within {_FINISH_S:g} s"
            process.communicate()
        if process.returncode:
            self._note(f"the ledger is not packed to its end: {said.strip().rpartition(os.linesep)[2]}")


def pack_on(cell_dir: Path, told: IO[str], round_s: float = _ROUND_S) -> None:
    """Pack until something is told, and if that is `finish`, all that is left. Raises LedgerError as `close` does."""
    known: dict[Path, Packing] = {}
    while not select.select([told], [], [], round_s)[0]:
        for folder, columns in actor_folders(cell_dir).items():
            packing = known.setdefault(folder, Packing(folder, columns))
            with suppress(LedgerError):  # a full disk: the writers say so themselves, and the next round may have room
                packing.go_on(now_ns())
    if told.readline().strip() == "finish":
        for folder, columns in actor_folders(cell_dir).items():
            close(folder, columns)


def main() -> int:
    """Pack the cell that the command line names."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it without a word
    os.nice(19)
    try:
        pack_on(Path(sys.argv[1]), sys.stdin)
    except LedgerError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
