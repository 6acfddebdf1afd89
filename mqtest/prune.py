"""Old results: which run folders `mqtest clean` may remove.

A folder is a run of ours when its run.json names it as the folder's own name; so a run that was copied to a name of
its own (results/reference) is never touched, nor is one that is still going on.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from mqtest.errors import MqtestError


@dataclass(frozen=True, slots=True)
class OldRun:
    """A run folder, when it began, and how much disk it takes."""

    folder: Path
    started: datetime
    size_mb: float


def runs(results: Path, live: Collection[str]) -> list[OldRun]:
    """Every run folder that may be removed, oldest first. `live`: ids of the runs that go on right now."""
    found = []
    for path in results.glob("*/run.json"):
        started = _started(path)
        if started is not None and path.parent.name not in live:
            size = sum(file.stat().st_blocks * 512 for file in path.parent.rglob("*") if file.is_file())
            found.append(OldRun(path.parent, started, size / 1e6))
    return sorted(found, key=lambda run: (run.started, run.folder.name))


def all_but(found: list[OldRun], keep: int) -> list[OldRun]:
    """All but the newest `keep`."""
    return found[: max(0, len(found) - keep)]


def older_than(found: list[OldRun], days: float, now: datetime) -> list[OldRun]:
    """Those that began more than `days` days before `now`."""
    return [run for run in found if run.started < now - timedelta(days=days)]


def remove(run: OldRun) -> None:
    """Remove the folder; raises MqtestError naming what could not be removed."""
    try:
        shutil.rmtree(run.folder)
    except OSError as error:
        raise MqtestError(f"{error.filename or run.folder}: {error.strerror}") from error


def _started(path: Path) -> datetime | None:
    """When the run began, or None where this is no run of that name."""
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
        if facts["run"] != path.parent.name:
            return None
        started = datetime.fromisoformat(facts["started_utc"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return started if started.tzinfo else started.replace(tzinfo=UTC)
