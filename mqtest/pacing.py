"""How late a producer's loop was: ledger/pacing.<n>.hlog, a histogram log (hdr.py) whose times are those of the ledger.

The lag of a message is the time at which the loop noticed that it was due, minus its due time: what the generator
itself adds to a response time. What is counted in it is decided in workload/producer.py. Rules:
- A line is an interval of due times, a quarter of a second or a little more, less where the rate changes: it holds the
  lags of all messages that fell due in it. A kill costs the last one; a worker that comes back goes on in the file.
- Nothing is done a message: a round of the loop that notices some leaves one entry, and an interval's lags are
  computed together when it is written.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from hdrh.histogram import HdrHistogram

from mqtest import hdr
from mqtest.clock import NS_PER_S
from mqtest.errors import LedgerError

_INTERVAL_NS = NS_PER_S // 4


class PacingWriter:
    """The log of one producer. Raises LedgerError when it cannot be written."""

    def __init__(self, path: Path, apart_ns: float) -> None:
        """`apart_ns`: from one due time to the next, until `paced`. Creates the file, or goes on after its last
        whole line."""
        self._path = path
        self._apart_ns = apart_ns
        self._rounds: list[tuple[int, int, int, int]] = []
        self._begin_ns = 0
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
            os.ftruncate(self._fd, path.read_bytes().rfind(b"\n") + 1)
        except OSError as error:
            raise LedgerError(f"{path}: {error.strerror}") from error
        if not os.fstat(self._fd).st_size:
            self._append(hdr.header(None, "pacing lag in ns; times in s of CLOCK_MONOTONIC"))

    def noticed(self, now_ns: int, first_due_ns: int, messages: int, back_ns: int) -> None:
        """So many messages, the first due at `first_due_ns` and the others one after the other, were noticed now. A
        lag counts from `back_ns` where that is later than the due time."""
        if first_due_ns - self._begin_ns >= _INTERVAL_NS:
            self._write(first_due_ns)
            self._begin_ns = first_due_ns
        self._rounds.append((now_ns, first_due_ns, messages, back_ns))

    def paced(self, apart_ns: float, now_ns: int) -> None:
        """From now on due times are so far apart. The interval ends here: none has the lags of two rates in it."""
        self._write(now_ns)
        self._begin_ns = 0
        self._apart_ns = apart_ns

    def close(self, end_ns: int) -> None:
        """Write the last interval, which ends now; closed already: nothing."""
        if self._fd >= 0:
            self._write(end_ns)
            os.close(self._fd)
            self._fd = -1

    def _write(self, end_ns: int) -> None:
        if self._rounds:
            histogram = hdr.of(lags(self._rounds, self._apart_ns))
            self._append([hdr.line(self._begin_ns, end_ns - self._begin_ns, histogram)])
            self._rounds.clear()

    def _append(self, lines: Iterable[str]) -> None:
        data = "".join(f"{text}\n" for text in lines).encode()
        try:
            if os.write(self._fd, data) != len(data):
                raise LedgerError(f"{self._path}: the disk is full")
        except OSError as error:
            raise LedgerError(f"{self._path}: {error.strerror}") from error


def lags(rounds: Iterable[tuple[int, int, int, int]], apart_ns: float) -> hdr.Ints:
    """The lag of every message of these rounds: (noticed, first due, messages, back)."""
    now, due, messages, back = np.array(list(rounds), dtype=np.int64).T
    ends = np.cumsum(messages)
    nth = np.arange(ends[-1]) - np.repeat(ends - messages, messages)
    later = np.maximum(np.repeat(due, messages) + (nth * apart_ns).astype(np.int64), np.repeat(back, messages))
    found: hdr.Ints = np.repeat(now, messages) - later
    return found


def path_of(ledger_dir: Path, producer: int) -> Path:
    """Where the log of a producer stands."""
    return ledger_dir / f"pacing.{producer}.hlog"


def load(cell_dir: Path) -> tuple[hdr.Interval, ...]:
    """The intervals of all producers of a cell; raises LedgerError naming a file that is damaged."""
    paths = sorted((cell_dir / "ledger").glob("pacing.*.hlog"))
    return tuple(interval for path in paths for interval in hdr.read(path))


def lag(intervals: Iterable[hdr.Interval], window_ns: tuple[int, int]) -> HdrHistogram | None:
    """The lags of every interval that touches this time, as one histogram; None: not measured."""
    begin_s, end_s = (t / NS_PER_S for t in window_ns)
    inside = [interval for interval in intervals if interval.end_s > begin_s and interval.begin_s < end_s]
    return hdr.merged(inside) if inside else None
