"""What one cell writes down while it goes on: events.jsonl, and the same phases for whoever looks on.

Rules: one journal a cell, one line an event, written when it happens; workers' threads may write too. The first line is
`clock`, which ties the ledger's monotonic times to UTC. Every text passes through `mask` on its way, so that what must
not reach a result (mqtest/credentials.py) does not, whoever put it into an error.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mqtest.event_log import EventsWriter
from mqtest.watch import CellWatch


class Journal:
    """The events of the cell in `cell_dir`."""

    def __init__(self, cell_dir: Path, watch: CellWatch, mask: Callable[[str], str] = str) -> None:
        self._lock = threading.Lock()
        self._watch = watch
        self._mask = mask
        self._events = EventsWriter(cell_dir / "ledger" / "events.jsonl")
        self.event("clock", utc=datetime.now(UTC).isoformat(timespec="milliseconds"))

    def event(self, event: str, **fields: Any) -> None:
        """Append one event; `t_ns` where it happened at another time than now."""
        with self._lock:
            self._events.write(event, **{name: self._masked(value) for name, value in fields.items()})

    def heard(self, said: Mapping[str, Any]) -> None:
        """What a worker said: `event` and its fields."""
        fields = dict(said)
        self.event(fields.pop("event"), **fields)

    def phase(self, name: str) -> None:
        """The cell enters a phase."""
        self.event("phase", name=name)
        self._watch.phase(name)

    def note(self, text: str) -> None:
        """One line for whoever looks on; it stands in no file."""
        self._watch.note(self._mask(text))

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """How long a step outside the phases takes."""
        began = time.monotonic()
        yield
        self.event("stage", name=name, seconds=round(time.monotonic() - began, 3))

    def close(self) -> None:
        """Close the file."""
        self._events.close()

    def _masked(self, value: Any) -> Any:
        if isinstance(value, str):
            return self._mask(value)
        if isinstance(value, Mapping):
            return {name: self._masked(inner) for name, inner in value.items()}
        if isinstance(value, list | tuple):
            return [self._masked(inner) for inner in value]
        return value
