"""The ledger of a user's own test, with literal messages and audits: what is lost, missed, left, done twice; and what
it refuses to be told."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from mqtest import body
from mqtest.clock import now_ns
from mqtest.errors import UsageError
from mqtest.event_log import EventsWriter
from mqtest.ledger import ReceiptsWriter, SendsWriter, write_cell
from mqtest.model import RUNNER, Flag, Kind, Outcome, Verdict
from mqtest.user_judgement import Judged
from mqtest.user_ledger import Ledger, join

RUN = 77


@dataclass
class Scene:
    """A test in a folder; its broker is what is written down in `holds`: place → offset → body."""

    folder: Path
    kind: Kind = Kind.LOG
    holds: dict[int, bytes] = field(default_factory=dict)
    committed: int | None = None
    complete: bool = True
    given: set[bytes] = field(default_factory=set)
    """a queue flags them when it gives them again"""

    def __post_init__(self) -> None:
        self.folder.mkdir()
        record = {
            "run": "r", "id": "001-test", "broker": "memory", "profile": "p", "client": "memory", "kind": self.kind,
            "acknowledged": True, "fault": "none", "groups": [], "floor": 1, "nodes": 1, "workload": {"places": 1},
            "promise": {"survives": ["none"], "duplicates": "redelivered", "order": "place", "source": "a test"},
        }  # fmt: skip
        write_cell(self.folder, record)
        self.ledger = Ledger(self.folder, RUN, self.kind, 1, audit=self._audit)
        self._events("phase", name="warm-up")

    def send(self, count: int) -> list[bytes]:
        """Acked messages that the broker has."""
        sent = [self.ledger.next_body(f"order {n}") for n in range(count)]
        for offset, text in enumerate(sent, len(self.holds)):
            self.ledger.acked(text, offset=offset if self.kind is Kind.LOG else None)
            self.holds[offset] = text
        return sent

    def take(self, texts: Sequence[bytes], *, process: bool = True, again: bool = False) -> None:
        """A consumer is given them."""
        at = {text: offset for offset, text in self.holds.items()}
        self.given |= set(texts)
        for text in texts:
            if self.kind is Kind.LOG:
                self.ledger.received(text, offset=at[text])
            else:
                self.ledger.received(text, redelivered=again)
            if process:
                self.ledger.processed(text)

    def _audit(self) -> None:
        self._events("phase", name="drain")
        self._events("committed", places={} if self.committed is None else {"0": self.committed})
        runner = SendsWriter(self.folder / f"ledger/sends.{RUNNER}")
        audit = ReceiptsWriter(self.folder / "ledger/audit.0")
        runner.sent(0, 0, 0, 0, now_ns())
        runner.settle(0, Outcome.ACKED, 99, 0, now_ns())
        for offset, text in self.holds.items():
            head = body.decode(text)
            assert head is not None
            flags = Flag.REDELIVERED if self.kind is Kind.QUEUE and text in self.given else 0
            audit.append(now_ns(), head.producer, head.seq, 0, offset, flags, 0)
        audit.append(now_ns(), RUNNER, 0, 0, 99, 0, 0)
        runner.close()
        audit.close()
        self._events("audit", reader=0, complete=self.complete, why=None if self.complete else "cut short")

    def _events(self, event: str, **fields: object) -> None:
        writer = EventsWriter(self.folder / "ledger" / "events.jsonl")
        writer.write(event, **fields)
        writer.close()


def figures(judged: Judged) -> Mapping[str, object]:
    return {name: getattr(judged, name) for name in ("acked", "processed", "lost", "missed", "left")}


@pytest.fixture
def log(tmp_path: Path) -> Scene:
    return Scene(tmp_path / "cell")


@pytest.fixture
def queue(tmp_path: Path) -> Scene:
    return Scene(tmp_path / "cell", Kind.QUEUE)


# --- what became of them


def test_an_honest_test_is_kept(log: Scene) -> None:
    log.take(log.send(5))
    log.committed = 5
    judged = log.ledger.judge()
    judged.assert_kept()
    assert judged is log.ledger.judge()
    assert judged.verdict is Verdict.KEPT
    assert figures(judged) == {"acked": 5, "processed": 5, "lost": 0, "missed": 0, "left": 0}
    assert (judged.sent, judged.redelivered, judged.processed_again) == (5, 0, 0)


def test_a_log_whose_group_went_on_past_what_nobody_processed(log: Scene) -> None:
    sent = log.send(5)
    log.take(sent[:2])
    log.take(sent[2:4], process=False)
    log.committed = 4
    judged = log.ledger.judge()
    assert figures(judged) == {"acked": 5, "processed": 2, "lost": 0, "missed": 2, "left": 1}
    assert judged.verdict is Verdict.KEPT, "the broker is not to blame"
    assert judged.examples == tuple(f"producer 0 seq {n} at place 0 offset {n}, the group is at 4" for n in (2, 3))
    with pytest.raises(AssertionError, match="2 acknowledged messages were missed: a consumer told the broker"):
        judged.assert_kept()


def test_what_is_not_committed_is_left_and_not_missed(log: Scene) -> None:
    sent = log.send(5)
    log.take(sent[:2])
    log.take(sent[2:], process=False)
    log.committed = 2
    judged = log.ledger.judge()
    judged.assert_kept()
    assert figures(judged) == {"acked": 5, "processed": 2, "lost": 0, "missed": 0, "left": 3}


def test_without_positions_a_group_came_as_far_as_it_was_given_messages(log: Scene) -> None:
    sent = log.send(4)
    log.take([sent[0], sent[2]])
    assert figures(log.ledger.judge()) == {"acked": 4, "processed": 2, "lost": 0, "missed": 1, "left": 1}


def test_what_the_log_has_no_more_is_lost_and_the_broker_is_to_blame(log: Scene) -> None:
    sent = log.send(4)
    log.take(sent[:3])
    log.committed = 4
    del log.holds[3]
    judged = log.ledger.judge()
    assert figures(judged) == {"acked": 4, "processed": 3, "lost": 1, "missed": 0, "left": 0}
    with pytest.raises(AssertionError, match=r"the broker: broken \(1 lost under none\)"):
        judged.assert_kept()


def test_a_queue_that_gave_away_what_nobody_processed(queue: Scene) -> None:
    sent = queue.send(5)
    queue.take(sent[:2])
    queue.take(sent[2:4], process=False)
    queue.holds = {4: sent[4]}
    judged = queue.ledger.judge()
    assert figures(judged) == {"acked": 5, "processed": 2, "lost": 0, "missed": 2, "left": 1}
    assert judged.verdict is Verdict.KEPT
    assert judged.examples == tuple(f"producer 0 seq {n}, given to a consumer" for n in (2, 3))
    with pytest.raises(AssertionError, match="2 acknowledged messages were missed"):
        judged.assert_kept()


def test_a_queue_that_has_it_still_or_gave_it_again_missed_nothing(queue: Scene) -> None:
    sent = queue.send(3)
    queue.take(sent, process=False)
    queue.take(sent[:2], again=True)
    queue.holds = {2: sent[2]}
    judged = queue.ledger.judge()
    judged.assert_kept()
    assert figures(judged) == {"acked": 3, "processed": 2, "lost": 0, "missed": 0, "left": 1}
    assert judged.redelivered == 3, "two by the consumer, one by the audit"


def test_a_queue_that_lost_one_is_to_blame_itself(queue: Scene) -> None:
    queue.take(queue.send(3)[:2])
    queue.holds = {}
    judged = queue.ledger.judge()
    assert figures(judged) == {"acked": 3, "processed": 2, "lost": 1, "missed": 0, "left": 0}
    with pytest.raises(AssertionError, match="broken"):
        judged.assert_kept()


def test_work_done_twice_is_told_and_fails_nothing(log: Scene) -> None:
    sent = log.send(3)
    log.take(sent)
    log.take(sent[1:])
    log.committed = 3
    judged = log.ledger.judge()
    judged.assert_kept()
    assert (judged.processed, judged.processed_again, judged.redelivered) == (3, 2, 2)


def test_what_proves_nothing_fails(log: Scene) -> None:
    log.take(log.send(3))
    log.complete = False
    judged = log.ledger.judge()
    assert (judged.verdict, judged.lost, judged.missed, judged.left) == (Verdict.UNKNOWN, None, None, None)
    with pytest.raises(AssertionError, match="missed unknown"):
        judged.assert_kept()


def test_only_acknowledged_messages_count(log: Scene) -> None:
    log.take(log.send(2))
    silent, doubted, refused = (log.ledger.next_body() for _ in range(3))
    log.ledger.unknown(doubted)
    log.ledger.refused(refused)
    log.committed = 2
    judged = log.ledger.judge()
    judged.assert_kept()
    assert (judged.sent, judged.acked) == (5, 2)
    assert (judged.row["unknown"], judged.row["refused"]) == (2, 1), "of which nothing was said is unknown"
    assert body.decode(silent) is not None


def test_a_message_of_somebody_else_breaks_the_promise(log: Scene) -> None:
    log.take(log.send(1))
    log.ledger.received(body.encode(RUN + 1, 0, 0, 0, 64), offset=7)
    assert log.ledger.judge().row["foreign"] == 1


# --- what it is told, and by whom


def test_a_payload_travels_in_the_body(log: Scene) -> None:
    text = log.ledger.next_body("größer")
    assert log.ledger.payload(text).decode() == "größer"
    assert body.decode(text) == (RUN, 0, 0, 0)
    changed = bytearray(text)
    changed[-1] ^= 1
    assert body.decode(bytes(changed)) is None, "the check covers it"


def test_what_cannot_be_is_refused(log: Scene, tmp_path: Path) -> None:
    text = log.ledger.next_body()
    with pytest.raises(UsageError, match="none that this producer took"):
        log.ledger.acked(b"something else")
    with pytest.raises(UsageError, match="none that this producer took"):
        log.ledger.acked(body.encode(RUN + 1, 0, 0, 0, 64))
    with pytest.raises(UsageError, match="a log has a position: give place= and offset="):
        log.ledger.received(text)
    with pytest.raises(UsageError, match="was not received by this consumer"):
        log.ledger.processed(text)
    with pytest.raises(UsageError, match="give redelivered="):
        Ledger(tmp_path, RUN, Kind.QUEUE, 1).received(text)
    with pytest.raises(UsageError, match="only the test that brought the cluster up"):
        Ledger(tmp_path, RUN, Kind.LOG, 1).judge()
    with pytest.raises(UsageError, match="MQTEST_LEDGER is not set"):
        join({})


def test_a_process_of_its_own_joins_and_a_kill_takes_nothing_of_what_it_said(log: Scene) -> None:
    (text,) = log.send(1)
    script = (
        "import os, sys; from mqtest.user_ledger import join; ledger = join()\n"
        "text = bytes.fromhex(sys.argv[1]); ledger.received(text, offset=0); ledger.processed(text); os.abort()"
    )
    for consumer in (0, 3, 3):
        environment = {**os.environ, **log.ledger.environment(consumer=consumer)}
        died = subprocess.run(
            [sys.executable, "-c", script, text.hex()], env=environment, capture_output=True, check=False, timeout=60
        )
        assert died.returncode == -6, died.stderr
    log.committed = 1
    judged = log.ledger.judge()
    judged.assert_kept()
    assert (judged.processed, judged.redelivered) == (1, 2)
    assert sorted(path.name for path in (log.folder / "ledger").glob("processed.*")) == ["processed.0", "processed.3"]


def test_a_producer_that_reconnects_begins_anew_for_the_order(log: Scene) -> None:
    first, second = log.send(1), log.ledger.next_body()
    log.ledger.acked(second)
    log.ledger.reconnected()
    third = log.ledger.next_body()
    log.ledger.acked(third)
    log.holds = {0: first[0], 1: third, 2: second}
    judged = log.ledger.judge()
    assert (judged.row["reordered"], judged.row["reordered_in_session"]) == (1, 0)
