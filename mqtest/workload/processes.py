"""The runner's side of the workers: start them, tell them, hear them, kill some, and never leave one behind.

Rules:
- A worker that ends by itself is an error of the cell. One that `crash` killed is not: it counts as done until `revive`
  starts its plan again. Its ledger goes on after its last row, with the next epoch.
- Workers hold no state but their ledger, so a crash is a SIGKILL; in the middle of something: a producer is hit while a
  send of it is open, the others right after a receipt.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import msgspec

from mqtest.clock import now_ns, wait_until
from mqtest.cluster import Evidence
from mqtest.errors import ClusterError
from mqtest.ledger import last_receipt_ns, open_sends
from mqtest.workload import Role, WorkerPlan

_TAIL_LINES = 20
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_MOMENT_S = 1.0
"""at most, until a worker that is to be killed is in the middle of something"""
_FRESH_NS = 5_000_000
"""what was received so short a while ago is not done with"""


@dataclass(slots=True)
class _Worker:
    plan: WorkerPlan
    process: subprocess.Popen[str]
    threads: list[threading.Thread] = field(default_factory=list)
    """they read its two pipes"""
    stats: dict[str, Any] = field(default_factory=dict)
    told: str | None = None
    """the last command but for rates"""
    paced: str | None = None
    """the last rate"""
    ready: bool = False
    done: bool = False
    crashed: bool = False
    """killed by `crash`, and not revived yet"""
    failed: str | None = None
    errors: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        return f"{self.plan.role} {self.plan.number}"


class Workers:
    """All worker processes of a cell. `on_event` is called from reader threads, one line at a time."""

    def __init__(self, run: str, on_event: Callable[[dict[str, Any]], None]) -> None:
        self._run = run
        self._on_event = on_event
        self._workers: list[_Worker] = []

    def start(self, plans: Iterable[WorkerPlan], timeout_s: float = 30.0) -> None:
        """Start one process a plan and wait until each is ready; raises WaitTimeout, ClusterError."""
        started = [_Worker(plan, self._spawn()) for plan in plans]
        self._workers += started
        self._begin(started, timeout_s)

    def names(self, role: Role) -> list[str]:
        """The role's workers that have not done their work."""
        return [worker.name for worker in self._workers if worker.plan.role is role and not worker.done]

    def pids(self, role: Role) -> list[int]:
        """The processes of the role's workers, also of those that have ended."""
        return [worker.process.pid for worker in self._workers if worker.plan.role is role]

    def crash(self, role: Role, numbers: Collection[int] | None = None) -> Evidence:
        """SIGKILL the workers of the role that run (all, or those numbers), together, each in the middle of something.
        Evidence: how each ended (-9), and for producers the sends that were open; empty when none of them ran."""
        self.check()
        chosen = [worker for worker in self._of(role, numbers) if not (worker.done or worker.crashed)]
        for worker in chosen:
            worker.crashed = True  # first: from here on its end is no error
            _freeze(worker)
        for worker in chosen:
            worker.process.kill()
        for worker in chosen:
            worker.process.wait(10)
            self._release(worker)
        if not chosen:
            return {}
        evidence: Evidence = {"exit_code": {w.name: w.process.returncode for w in chosen}}
        if role is Role.PRODUCER:
            evidence["open_sends"] = {w.name: open_sends(Path(w.plan.folder)) for w in chosen}
        return evidence

    def revive(self, role: Role, timeout_s: float = 30.0) -> Evidence:
        """Start the plans of the role's crashed workers again, and tell them what they were told; nothing when none is
        down. Returns their names as evidence. Raises WaitTimeout, ClusterError."""
        dead = [w for w in self._workers if w.plan.role is role and w.crashed]
        for worker in dead:
            worker.process = self._spawn()
            worker.ready, worker.errors = False, []
            worker.crashed = False
            worker.stats.pop("positions", None)  # what it had read and not committed it reads again
        self._begin(dead, timeout_s)
        for worker in dead:
            for command in (worker.paced, worker.told):
                if command is not None:
                    self._tell(worker, command)
        return {"revived": [w.name for w in dead]} if dead else {}

    def _spawn(self) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "mqtest.workload"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            bufsize=1,
            env={**os.environ, "MQTEST_RUN": self._run},
        )

    def _begin(self, started: Iterable[_Worker], timeout_s: float) -> None:
        """Hear them, hand them their plans, and wait until they are ready."""
        for worker in started:
            for target, stream in ((self._hear, worker.process.stdout), (self._hear_errors, worker.process.stderr)):
                thread = threading.Thread(target=target, args=(worker, stream), daemon=True)
                thread.start()
                worker.threads.append(thread)
            self._tell(worker, msgspec.json.encode(worker.plan).decode())
        self._await(lambda: all(w.ready for w in started), timeout_s, "the workers to be ready")

    def go(self, role: Role, numbers: Collection[int] | None = None) -> None:
        """Begin; all of the role, or those numbers."""
        self._tell_all(role, "go", numbers)

    def pace(self, rate_per_s: float) -> None:
        """Producers in an open loop: all together so many messages a second from now on; 0: none."""
        for worker in self._workers:
            if worker.plan.role is Role.PRODUCER:
                worker.paced = f"rate {rate_per_s!r}"
                if not worker.crashed:
                    self._tell(worker, worker.paced)

    def stop(self, role: Role, numbers: Collection[int] | None = None) -> None:
        """Producers: send no more, settle. Consumers: leave. All of the role, or those numbers."""
        self._tell_all(role, "stop", numbers)

    def wait_done(self, role: Role, timeout_s: float, numbers: Collection[int] | None = None) -> None:
        """Until all workers of the role, or those numbers, are done; raises WaitTimeout, or ClusterError when one
        died."""
        chosen = list(self._of(role, numbers))
        self._await(lambda: all(w.done or w.crashed for w in chosen), timeout_s, f"every {role} to finish")
        for worker in chosen:
            worker.process.wait(10)

    def _await(self, condition: Callable[[], bool], timeout_s: float, why: str) -> None:
        def holds() -> bool:
            self.check()
            return condition()

        wait_until(holds, timeout_s, why, poll_s=0.01)

    def check(self) -> None:
        """Raises ClusterError when a worker died or gave up; its last words are in it."""
        for worker in self._workers:
            if worker.failed is not None:
                raise ClusterError(f"{worker.name}: {worker.failed}")
            if not (worker.done or worker.crashed) and worker.process.poll() is not None:
                for thread in worker.threads:
                    thread.join(1)
                if worker.done:
                    continue
                last = worker.failed or (worker.errors[-1] if worker.errors else "no word")
                raise ClusterError(f"{worker.name} ended with exit code {worker.process.returncode}: {last}")

    def total(self, key: str) -> int:
        """Sum of one counter over all workers."""
        return sum(int(w.stats.get(key, 0)) for w in self._workers)

    def cpu_s(self) -> dict[str, float]:
        """By worker that runs, such as `producer 0`: the seconds of CPU that its process has taken so far, with all
        threads of its client library."""
        taken = {}
        for worker in self._workers:
            with suppress(FileNotFoundError, ProcessLookupError):  # it has just ended
                fields = Path(f"/proc/{worker.process.pid}/stat").read_text().rpartition(")")[2].split()
                taken[worker.name] = (int(fields[11]) + int(fields[12])) / _TICKS_PER_S
        return taken

    def last_ack_ns(self) -> int:
        """Latest ack of any producer, 0 when there was none."""
        return max((int(w.stats.get("last_ack_ns", 0)) for w in self._workers), default=0)

    def positions(self, role: Role = Role.CONSUMER, numbers: Collection[int] | None = None) -> dict[int, int]:
        """Place → highest offset that any worker of the role, or of those numbers, has."""
        merged: dict[int, int] = {}
        for worker in self._of(role, numbers):
            for place, offset in worker.stats.get("positions", {}).items():
                merged[int(place)] = max(offset, merged.get(int(place), -1))
        return merged

    def close(self) -> None:
        """SIGKILL what still runs; idempotent. The ledgers are memory-mapped and lose nothing."""
        for worker in self._workers:
            if worker.process.poll() is None:
                worker.process.kill()
        for worker in self._workers:
            worker.process.wait(10)
        for worker in self._workers:
            self._release(worker)

    @staticmethod
    def _release(worker: _Worker) -> None:
        """Hear a process that has ended to its last word, and close its pipes."""
        for thread in worker.threads:
            thread.join(2)
        worker.threads.clear()
        for stream in (worker.process.stdin, worker.process.stdout, worker.process.stderr):
            if stream is not None:
                _close(stream)

    def _of(self, role: Role, numbers: Collection[int] | None) -> Iterator[_Worker]:
        return (w for w in self._workers if w.plan.role is role and (numbers is None or w.plan.number in numbers))

    def _tell_all(self, role: Role, command: str, numbers: Collection[int] | None) -> None:
        for worker in self._of(role, numbers):
            worker.told = command
            if not worker.crashed:
                self._tell(worker, command)

    def _tell(self, worker: _Worker, line: str) -> None:
        assert worker.process.stdin is not None
        try:
            worker.process.stdin.write(line + "\n")
            worker.process.stdin.flush()
        except (BrokenPipeError, ValueError):
            self.check()

    def _hear(self, worker: _Worker, stream: IO[str]) -> None:
        for line in stream:
            try:
                said = json.loads(line)
            except ValueError:
                worker.errors.append(line.rstrip())
                continue
            what = said.pop("say", None)
            if what == "stats":
                worker.stats = said
            elif what == "event":
                self._on_event(said)
            elif what == "ready":
                worker.ready = True
            elif what == "failed":
                worker.failed = said["why"]
            elif what == "done":
                worker.done = True

    def _hear_errors(self, worker: _Worker, stream: IO[str]) -> None:
        for line in stream:
            worker.errors.append(line.rstrip())
            del worker.errors[:-_TAIL_LINES]


def _freeze(worker: _Worker) -> None:
    """SIGSTOP, in the middle of something; after _MOMENT_S at any moment."""
    deadline = time.monotonic() + _MOMENT_S
    while True:
        worker.process.send_signal(signal.SIGSTOP)
        if _busy(worker.plan) or time.monotonic() > deadline:
            return
        worker.process.send_signal(signal.SIGCONT)
        time.sleep(0.001)


def _busy(plan: WorkerPlan) -> bool:
    folder = Path(plan.folder)
    return open_sends(folder) > 0 if plan.role is Role.PRODUCER else now_ns() - last_receipt_ns(folder) < _FRESH_NS


def _close(stream: IO[str]) -> None:
    try:
        stream.close()
    except (BrokenPipeError, ValueError):
        return
