"""The worker's side of its two pipes: commands in, ready, stats, events and done out."""

from __future__ import annotations

import json
import os
import sys
import threading
from collections import deque
from collections.abc import Mapping
from typing import Any

from mqtest.clock import NS_PER_S, now_ns

_STATS_NS = NS_PER_S // 4


class Control:
    """Reads commands in a thread of its own; a runner that is gone ends this process at once."""

    def __init__(self) -> None:
        self._go = threading.Event()
        self._stop = threading.Event()
        self._rates: deque[float] = deque()
        self._next_stats_ns = 0
        self._lock = threading.Lock()

    def listen(self) -> None:
        """Begin to read commands; the plan's line was read before."""
        threading.Thread(target=self._read, daemon=True, name="control").start()

    def _read(self) -> None:
        for line in sys.stdin:
            command = line.strip()
            if command == "go":
                self._go.set()
            elif command == "stop":
                self._stop.set()
                self._go.set()
            elif command.startswith("rate "):
                self._rates.append(float(command.removeprefix("rate ")))
        os._exit(1)  # the runner is gone: the ledger is memory-mapped, nothing of it is lost

    @property
    def stopping(self) -> bool:
        """True once the runner said `stop`."""
        return self._stop.is_set()

    def wait_go(self) -> bool:
        """Until `go` (True) or `stop` without a `go` (False)."""
        self._go.wait()
        return not self._stop.is_set()

    def new_rate(self) -> float | None:
        """The next rate that the runner named, each once; None: nothing new."""
        return self._rates.popleft() if self._rates else None

    def pause(self, seconds: float) -> None:
        """Wait, but not past a `stop`."""
        self._stop.wait(seconds)

    def ready(self) -> None:
        """The worker can begin."""
        self._say({"say": "ready"})

    def event(self, event: str, **fields: Any) -> None:
        """Something for events.jsonl."""
        self._say({"say": "event", "t_ns": now_ns(), "event": event, **fields})

    def stats(self, stats: Mapping[str, Any], *, force: bool = False) -> None:
        """Counters for the live screen, four times a second at most."""
        now = now_ns()
        if force or now >= self._next_stats_ns:
            self._next_stats_ns = now + _STATS_NS
            self._say({"say": "stats", **stats})

    def done(self) -> None:
        """The last line."""
        self._say({"say": "done"})

    def failed(self, why: str) -> None:
        """The worker itself cannot go on (full disk, …)."""
        self._say({"say": "failed", "why": why})

    def _say(self, what: Mapping[str, Any]) -> None:
        with self._lock:
            sys.stdout.write(json.dumps(what) + "\n")
            sys.stdout.flush()
