"""A whole folder in, a row and a verdict out; whatever is wrong with the folder is a verdict too."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from mqtest.checks import CHECKS
from mqtest.event_log import events_path
from mqtest.judge import COLUMNS, judge
from mqtest.model import Kind, Outcome, Verdict
from tests.histories import Got, Sent, at, write_cell_folder

SENDS = [Sent(s) for s in range(10)]
AUDIT = [Got(s) for s in range(10)]
SAFE = {"survives": ["none", "kill:leader"], "duplicates": "none", "order": "place", "source": "x"}


def test_a_kept_cell(tmp_path: Path) -> None:
    judgement = judge(write_cell_folder(tmp_path, sends=SENDS, audit=AUDIT))
    assert (judgement.verdict, judgement.reason) == (Verdict.KEPT, "0 of 10 acked messages lost under none")
    assert tuple(judgement.row) == COLUMNS
    expected = {
        "run": "a-run", "cell": "001-memory-kept-none-1", "broker": "memory", "broker_version": "1.0",
        "client": "memory", "profile": "kept", "kind": "log", "fault": "none", "repeat": 1, "seed": 7, "nodes": 3,
        "rate_asked_per_s": 10.0, "size_bytes": 512, "sent": 10, "acked": 10, "delivered": 10, "lost": 0,
        "phantom": 0, "audit_complete": True, "fault_bit": True, "redelivered_unflagged": None, "recovery_s": None,
        "verdict": "kept", "reason": judgement.reason,
    }  # fmt: skip
    assert {name: judgement.row[name] for name in expected} == expected
    assert [f.check for f in judgement.findings] == list(CHECKS)


_VERDICTS: list[tuple[Verdict, dict[str, Any]]] = [
    (Verdict.KEPT, {"fault": "kill:leader", "promise": SAFE}),
    (Verdict.BROKEN, {"fault": "kill:leader", "promise": SAFE, "audit": AUDIT[:-3]}),
    (Verdict.LOST_AS_DOCUMENTED, {"fault": "kill:leader", "audit": AUDIT[:-3]}),
    (Verdict.BROKEN, {"audit": AUDIT[:-3]}),
    (Verdict.BROKEN, {"fault": "kill:leader", "audit": AUDIT[:-3], "bit": False}),
    (Verdict.INVALID, {"fault": "kill:leader", "bit": False}),
    (Verdict.INVALID, {"floor": 11}),
    (Verdict.UNKNOWN, {"audit": AUDIT[:-3], "complete": False}),
    (Verdict.UNKNOWN, {"fences": False}),
    (Verdict.UNKNOWN, {"events": [{"event": "failed", "t_ns": at(20), "why": "a worker died"}]}),
    (Verdict.DEAD, {"complete": False, "events": [{"event": "dead", "t_ns": at(20), "nodes": ["a"], "why": "exit 1"}]}),
    (Verdict.BROKEN, {"audit": [*AUDIT, Got(99)]}),
    (Verdict.LOST_AS_DOCUMENTED, {"acknowledged": False, "audit": AUDIT[:-3]}),
    (Verdict.KEPT, {"kind": Kind.QUEUE, "receipts": AUDIT[:6], "audit": AUDIT[6:]}),
    (Verdict.BROKEN, {"kind": Kind.QUEUE, "receipts": AUDIT[:6], "audit": AUDIT[7:]}),
]


@pytest.mark.parametrize(("expected", "changes"), _VERDICTS)
def test_verdicts_end_to_end(tmp_path: Path, expected: Verdict, changes: dict[str, Any]) -> None:
    judgement = judge(write_cell_folder(tmp_path, **{"sends": SENDS, "audit": AUDIT, **changes}))
    assert judgement.verdict is expected, judgement.reason
    assert judgement.row["verdict"] == expected
    assert "\n" not in judgement.reason


@pytest.mark.parametrize("kind", list(Kind))
def test_every_number_is_a_plain_one(tmp_path: Path, kind: Kind) -> None:
    sends = [*SENDS, *(Sent(s, sent_s=s / 4, place=1) for s in range(10, 80)), Sent(80, Outcome.REFUSED)]
    receipts = [*(Got(s, received_s=s / 3) for s in range(60)), Got(3), Got(5, 99)]
    audit = [Got(s) for s in (0, 2, 1, 3, 5, 80)]
    folder = write_cell_folder(
        tmp_path, kind=kind, fault="kill:leader", consume="live", places=2, sends=sends, receipts=receipts, audit=audit
    )
    judgement = judge(folder)
    numbers = {name: n for f in judgement.findings for name, n in {**f.numbers, f.check: f.count}.items()}
    measured = {name: n for name, n in {**judgement.row, **numbers}.items() if n is not None}
    assert len(measured) > 60
    wrong = {name: type(n) for name, n in measured.items() if type(n) not in (int, float, bool, str, Verdict)}
    assert wrong == {}


def test_unknown_leaves_loss_empty(tmp_path: Path) -> None:
    row = judge(write_cell_folder(tmp_path, sends=SENDS, complete=False)).row
    empty = ("delivered", "lost", "lost_ppm", "recovered", "unresolved", "stored_twice", "reordered")
    assert [row[name] for name in empty] == [None] * len(empty)
    assert (row["acked"], row["phantom"], row["audit_complete"]) == (10, 0, False)


def test_dead_names_the_nodes(tmp_path: Path) -> None:
    dead = {"event": "dead", "t_ns": at(20), "nodes": ["kafka-1", "kafka-2"], "why": "exit code 1:\nlast words"}
    reason = judge(write_cell_folder(tmp_path, sends=SENDS, complete=False, events=[dead])).reason
    assert reason == "kafka-1, kafka-2: exit code 1: last words"


def test_a_cell_killed_before_anything_was_sent(tmp_path: Path) -> None:
    folder = write_cell_folder(tmp_path)
    events_path(folder).write_text('{"t_ns": 1, "event": "phase", "name": "up"}\n')
    judgement = judge(folder)
    assert (judgement.verdict, judgement.row["sent"]) == (Verdict.UNKNOWN, 0)
    assert judgement.reason == "the audit is not complete: no reader of the audit ended"


_DAMAGES = [
    ("ledger/sends.0/outcome.npy", "truncated"),
    ("ledger/audit.0/offset.npy", "truncated"),
    ("ledger/sends.4294967294/place.npy", "missing"),
    ("ledger/events.jsonl", "missing"),
    ("cell.json", "missing"),
    ("cell.json", "truncated"),
]


@pytest.mark.parametrize(("name", "damage"), _DAMAGES)
def test_a_damaged_file_is_unknown_and_named(tmp_path: Path, name: str, damage: str) -> None:
    folder = write_cell_folder(tmp_path, sends=SENDS, audit=AUDIT)
    if damage == "missing":
        (folder / name).unlink()
    else:
        os.truncate(folder / name, (folder / name).stat().st_size // 2)
    judgement = judge(folder)
    assert judgement.verdict is Verdict.UNKNOWN
    assert str(folder / name) in judgement.reason
    assert tuple(judgement.row) == COLUMNS
    assert judgement.row["cell"] == "001-memory-kept-none-1"
    assert judgement.row["acked"] is None


@pytest.mark.parametrize("promise", [{}, None, {**SAFE, "order": "strict"}])
def test_a_promise_that_cannot_be_used_is_unknown(tmp_path: Path, promise: Any) -> None:
    judgement = judge(write_cell_folder(tmp_path, sends=SENDS, audit=AUDIT, promise=promise))
    assert judgement.verdict is Verdict.UNKNOWN
    assert "cell.json: promise" in judgement.reason


def test_judging_again_gives_the_same(tmp_path: Path) -> None:
    sends = [*SENDS, Sent(10, Outcome.UNKNOWN), Sent(11, settled=False)]
    folder = write_cell_folder(tmp_path, sends=sends, receipts=AUDIT[::-1], audit=AUDIT[3:])
    assert judge(folder) == judge(folder)


class TestNeighbourhoods:
    def test_a_broken_promise_comes_with_them(self, tmp_path: Path) -> None:
        judgement = judge(write_cell_folder(tmp_path, sends=SENDS, audit=AUDIT[:-3]))
        assert list(judgement.neighbourhoods) == ["loss"]
        (around,) = judgement.neighbourhoods["loss"]
        assert [n.seq for n in around.neighbours] == [4, 5, 6, 7, 8, 9]

    def test_a_loss_as_documented_does_not(self, tmp_path: Path) -> None:
        judgement = judge(write_cell_folder(tmp_path, sends=SENDS, audit=AUDIT[:-3], fault="kill:leader"))
        assert judgement.verdict is Verdict.LOST_AS_DOCUMENTED
        assert judgement.neighbourhoods == {}
