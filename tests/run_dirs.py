"""Run folders written by hand, with real ledgers, for the tests of the report and of the command line."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from mqtest.event_log import EventsWriter
from mqtest.ledger import ReceiptsWriter, SendsWriter, write_cell
from mqtest.model import RUNNER, Outcome

SECOND = 1_000_000_000
SCENARIO = {
    "title": "Planted",
    "question": "Which of them loses what it acknowledged?",
    "path": "planted.toml",
    "text": "",
    "must_lose": ["kill:all"],
}


def make_run(
    results: Path, name: str, planned: Sequence[str] = (), *, scenario: dict[str, object] | None = None, seed: int = 7
) -> Path:
    """A run folder with its run.json and no cell."""
    run_dir = results / name
    (run_dir / "cells").mkdir(parents=True)
    record = {
        "run": name,
        "scenario": SCENARIO if scenario is None else scenario,
        "seed": seed,
        "planned": list(planned),
        "started_utc": "2026-01-02T03:04:05Z",
        "host": {"cores": 2},
        "mqtest_version": "0.1.0",
    }
    (run_dir / "run.json").write_text(json.dumps(record), encoding="utf-8")
    return run_dir


def make_cell(
    run_dir: Path,
    cell_id: str,
    *,
    profile: str = "safe",
    fault: str = "none",
    sent: int = 10,
    lost: int = 0,
    survives: Sequence[str] = ("none",),
    bit: bool = True,
    complete: bool = True,
    finished: bool = True,
) -> Path:
    """A cell of a log whose `sent` messages were all acked, 10 a second; the audit has not the last `lost` of them."""
    folder = run_dir / "cells" / cell_id
    ledger = folder / "ledger"
    action, _, target = fault.partition(":")
    record = {
        "run": run_dir.name,
        "id": cell_id,
        "broker": "memory",
        "profile": profile,
        "client": "memory",
        "kind": "log",
        "acknowledged": True,
        "promise": {"survives": list(survives), "duplicates": "none", "order": "place", "source": "planted"},
        "fault": fault,
        "target": target,
        "repeat": 1,
        "seed": 7,
        "nodes": 1,
        "floor": 1,
        "workload": {"rate_per_s": 10.0, "size_bytes": 64, "places": 1},
        "settings": {"broker": {"lose": lost}},
        "effective": {"broker.lose": str(lost)},
        "versions": {"broker": "embedded"},
        "image": {},
        "host": {"cores": 2},
        "finished": finished,
    }
    folder.mkdir(parents=True)
    write_cell(folder, record)
    sends, audit = SendsWriter(ledger / "sends.0"), ReceiptsWriter(ledger / "audit.0")
    end = (sent + 2) * SECOND // 10 + SECOND
    for seq in range(sent):
        due = SECOND + (seq + 1) * SECOND // 10
        sends.sent(seq, due, 0, 0, due)
        sends.settle(seq, Outcome.ACKED, seq, 0, due + 2_000_000)
        if seq < sent - lost:
            audit.append(end + 3 * SECOND, 0, seq, 0, seq, 0, 0)
    runner = SendsWriter(ledger / f"sends.{RUNNER}")
    runner.sent(0, 0, 0, 0, end + 2 * SECOND)
    runner.settle(0, Outcome.ACKED, sent, 0, end + 2 * SECOND + 1)
    audit.append(end + 3 * SECOND, RUNNER, 0, 0, sent, 0, 0)
    for writer in (sends, audit, runner):
        writer.close()
    events = EventsWriter(ledger / "events.jsonl")
    events.write("phase", name="steady", t_ns=SECOND)
    events.write("phase", name="fault", t_ns=end)
    if fault != "none":
        evidence = {"exit_code": 137} if bit else {}
        events.write("fault", step="injected", action=action, target=target, evidence=evidence, t_ns=end)
        events.write("fault", step="healed", action=action, target=target, evidence={}, t_ns=end + SECOND)
    events.write("phase", name="audit", t_ns=end + 2 * SECOND)
    events.write(
        "audit", reader=0, complete=complete, why=None if complete else "stopped half-way", t_ns=end + 4 * SECOND
    )
    events.close()
    return folder
