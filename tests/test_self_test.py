"""The commands of README.md and docs/ that need no engine, run once, one after the other, and what each cell of
`self-test` came to.

One test, because it costs twelve cells; every assertion names the command or the cell that it is about.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from mqtest.event_log import events_path, load_events
from mqtest.judge import judge
from mqtest.ledger import read_cell, write_cell
from mqtest.model import Verdict
from tests.pages_of_docs import run
from tests.test_readme import HERE

CLEAN = {"lost": 0, "reordered": 0, "phantom": 0, "foreign": 0, "fault_bit": True, "audit_complete": True}


def test_the_commands_of_the_pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    said = {command: here(command) for command in HERE}
    assert "lost-as-documented" in said["mqtest run self-test"]
    assert "100 / " in said["mqtest run self-test"]
    assert "NOTE" not in said["mqtest run self-test"]
    assert said["mqtest check results/RUN"] == "12 cells judged, no differences\n"
    cells = {path.name[4:]: path for path in Path("results").glob("*-self-test/cells/*")}
    for name, path in cells.items():
        judged = judge(path)
        if name.startswith("memory-log-lossy-") and ("kill" in name or "power-cut" in name):
            assert judged.verdict is Verdict.LOST_AS_DOCUMENTED, name
            assert judged.row["lost"] > 0, name
        else:
            assert (name, judged.verdict, judged.reason) == (name, Verdict.KEPT, judged.reason)
            assert judged.row["acked"] > 500, name
            assert {key: judged.row[key] for key in CLEAN} == CLEAN, name
    record_of_a_kill(cells["memory-log-safe-kill-leader-1"])
    floor_that_is_not_reached(cells["memory-log-safe-none-1"])


def here(command: str) -> str:
    """What the command says; RUN is the run that is there."""
    name = next((path.name for path in Path("results").glob("*-self-test")), "RUN")
    return run(command.replace("RUN", name))


def record_of_a_kill(folder: Path) -> None:
    """It has what was asked, and what ran."""
    record = read_cell(folder)
    assert record["finished"] is True
    assert record["fault"] == "kill:leader"
    assert record["floor"] == 100
    assert record["effective"]["broker.fsync"] == "true"
    assert record["promise"]["order"] == "place"
    assert (folder / "logs" / "memory-1.log").is_file()
    events = load_events(events_path(folder))
    phases = [e["name"] for e in events if e["event"] == "phase"]
    assert phases == ["up", "warm-up", "steady", "fault", "heal", "recover", "after", "drain", "audit", "down"]
    assert [e["step"] for e in events if e["event"] == "fault"] == ["inject", "injected", "heal", "healed"]
    assert next(e for e in events if e["event"] == "recovered")["stage"] == "ready"


def floor_that_is_not_reached(folder: Path) -> None:
    """The same cell, of which more was asked, is invalid."""
    write_cell(folder, read_cell(folder) | {"floor": 10**9})
    assert judge(folder).verdict is Verdict.INVALID
