"""The runner's side of the workers: start them, tell them, hear them, and never leave one behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import IO, Any

import msgspec

from mqtest.clock import wait_until
from mqtest.errors import ClusterError
from mqtest.workload import Role, WorkerPlan

_TAIL_LINES = 20


@dataclass(slots=True)
class _Worker:
    plan: WorkerPlan
    process: subprocess.Popen[str]
    stats: dict[str, Any] = field(default_factory=dict)
    ready: bool = False
    done: bool = False
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
        self._threads: list[threading.Thread] = []

    def start(self, plans: Iterable[WorkerPlan], timeout_s: float = 30.0) -> None:
        """Start one process a plan and wait until each is ready; raises WaitTimeout, ClusterError."""
        started = []
        for plan in plans:
            process = subprocess.Popen(
                [sys.executable, "-m", "mqtest.workload"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                bufsize=1,
                env={**os.environ, "MQTEST_RUN": self._run},
            )
            worker = _Worker(plan, process)
            self._workers.append(worker)
            started.append(worker)
            for target, stream in ((self._hear, process.stdout), (self._hear_errors, process.stderr)):
                thread = threading.Thread(target=target, args=(worker, stream), daemon=True)
                thread.start()
                self._threads.append(thread)
            self._tell(worker, msgspec.json.encode(plan).decode())
        self._await(lambda: all(w.ready for w in started), timeout_s, "the workers to be ready")

    def go(self, role: Role) -> None:
        """Begin."""
        self._tell_all(role, "go")

    def stop(self, role: Role) -> None:
        """Producers: send no more, settle. Consumers: leave."""
        self._tell_all(role, "stop")

    def wait_done(self, role: Role, timeout_s: float) -> None:
        """Until all workers of the role are done; raises WaitTimeout, or ClusterError when one died."""
        chosen = [w for w in self._workers if w.plan.role is role]
        self._await(lambda: all(w.done for w in chosen), timeout_s, f"every {role} to finish")
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
            if not worker.done and worker.process.poll() is not None:
                for thread in self._threads:
                    thread.join(1)
                if worker.done:
                    continue
                last = worker.failed or (worker.errors[-1] if worker.errors else "no word")
                raise ClusterError(f"{worker.name} ended with exit code {worker.process.returncode}: {last}")

    def total(self, key: str) -> int:
        """Sum of one counter over all workers."""
        return sum(int(w.stats.get(key, 0)) for w in self._workers)

    def last_ack_ns(self) -> int:
        """Latest ack of any producer, 0 when there was none."""
        return max((int(w.stats.get("last_ack_ns", 0)) for w in self._workers), default=0)

    def positions(self) -> dict[int, int]:
        """Place → highest offset that any consumer has."""
        merged: dict[int, int] = {}
        for worker in self._workers:
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
        for thread in self._threads:
            thread.join(2)
        for worker in self._workers:
            for stream in (worker.process.stdin, worker.process.stdout, worker.process.stderr):
                if stream is not None:
                    _close(stream)

    def _tell_all(self, role: Role, command: str) -> None:
        for worker in self._workers:
            if worker.plan.role is role:
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


def _close(stream: IO[str]) -> None:
    try:
        stream.close()
    except (BrokenPipeError, ValueError):
        return
