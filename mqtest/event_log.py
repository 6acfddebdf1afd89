"""ledger/events.jsonl: what happened when, one JSON object a line, `t_ns` first; the runner is its only writer."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from mqtest.clock import now_ns
from mqtest.errors import LedgerError


class EventsWriter:
    """events.jsonl: one writer, the runner; every line reaches the kernel before `write` returns."""

    def __init__(self, path: Path) -> None:
        """Create the file, or go on after its last whole line (a torn one is cut off)."""
        self._path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
            os.ftruncate(self._fd, path.read_bytes().rfind(b"\n") + 1)
        except OSError as error:
            raise LedgerError(f"{path}: {error.strerror}") from error

    def write(self, event: str, **fields: object) -> None:
        """Append one event, stamped now unless `t_ns` is given. Raises LedgerError when the disk is full."""
        line = {"t_ns": fields.pop("t_ns", None) or now_ns(), "event": event, **fields}
        data = json.dumps(line, default=str).encode() + b"\n"
        try:
            if os.write(self._fd, data) != len(data):
                raise LedgerError(f"{self._path}: the disk is full")
        except OSError as error:
            raise LedgerError(f"{self._path}: {error.strerror}") from error

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)


def events_path(cell_dir: Path) -> Path:
    """Where the events of a cell stand."""
    return cell_dir / "ledger" / "events.jsonl"


def load_events(path: Path) -> list[dict[str, Any]]:
    """All events in order. A last line torn by a kill is dropped; a torn line elsewhere is a LedgerError."""
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise LedgerError(f"{path}: {error.strerror}") from error
    events = []
    for number, line in enumerate(lines, 1):
        if not line:
            continue
        try:
            event = json.loads(line)
            if not isinstance(event, dict) or not isinstance(event.get("t_ns"), int) or "event" not in event:
                raise ValueError("not an event")
        except ValueError as error:
            if number == len(lines):  # nothing ended this line: the writer was killed in it
                break
            raise LedgerError(f"{path}: line {number} is not an event") from error
        events.append(event)
    return events
