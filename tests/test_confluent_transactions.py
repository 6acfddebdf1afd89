"""Transactions of the confluent client: what becomes of the messages in one, and calls that do not come back."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, cast

import pytest
from confluent_kafka import KafkaError, KafkaException

from mqtest.clients import confluent
from mqtest.clients import confluent_transactions as transactions
from mqtest.clients.confluent_transactions import Ended, TransactionalProducer, end
from mqtest.clock import wait_until
from mqtest.model import Outcome, Wiring
from tests.polling import PATIENCE_S
from tests.test_confluent import Settled, mock_cluster, wiring_to

RETRIABLE = KafkaException(KafkaError(KafkaError._TIMED_OUT, "later", retriable=True))
ABORTABLE = KafkaException(KafkaError(KafkaError._MSG_TIMED_OUT, "a message failed", txn_requires_abort=True))
FATAL = KafkaException(KafkaError(KafkaError._FENCED, "fenced", fatal=True))


class Scripted:
    """A library client whose calls raise, one after the other, what the test says (None: they succeed)."""

    def __init__(self, **raises: list[KafkaException | None]) -> None:
        self._raises = raises
        self.calls: list[str] = []

    def __getattr__(self, name: str) -> Callable[..., None]:
        def do(*_arguments: object) -> None:
            self.calls.append(name.removesuffix("_transaction"))
            script = self._raises.get(name.removesuffix("_transaction")) or [None]
            raised = script.pop(0)
            if raised is not None:
                raise raised

        return do


@pytest.mark.parametrize(
    ("raises", "broken", "expected", "calls"),
    [
        ({}, None, Ended(Outcome.ACKED), "send_offsets_to commit begin"),
        ({"commit": [RETRIABLE]}, None, Ended(Outcome.ACKED), "send_offsets_to commit commit begin"),
        ({"send_offsets_to": [RETRIABLE]}, None, Ended(Outcome.ACKED), "send_offsets_to send_offsets_to commit begin"),
        (
            {"commit": [ABORTABLE]},
            None,
            Ended(Outcome.REFUSED, "a message failed"),
            "send_offsets_to commit abort begin",
        ),
        (
            {"send_offsets_to": [ABORTABLE]},
            None,
            Ended(Outcome.REFUSED, "a message failed"),
            "send_offsets_to abort begin",
        ),
        ({}, "a report said so", Ended(Outcome.REFUSED, "a report said so"), "abort begin"),
        (
            {"commit": [FATAL]},
            None,
            Ended(Outcome.UNKNOWN, None, "the transaction has no end: _FENCED: fenced"),
            "send_offsets_to commit",
        ),
        (
            {"commit": [ABORTABLE], "abort": [FATAL]},
            None,
            Ended(Outcome.UNKNOWN, "a message failed", "the transaction has no end: _FENCED: fenced"),
            "send_offsets_to commit abort",
        ),
        (
            {"begin": [FATAL]},  # what was committed stays committed
            None,
            Ended(Outcome.ACKED, None, "no new transaction: fenced"),
            "send_offsets_to commit begin",
        ),
    ],
)
def test_how_a_transaction_ends(
    raises: dict[str, list[KafkaException | None]], broken: str | None, expected: Ended, calls: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(transactions, "_AGAIN_S", 0.0)
    client = Scripted(**{name: list(script) for name, script in raises.items()})
    assert end(cast("Any", client), broken, 5.0, [cast("Any", "a position")], "group") == expected
    assert " ".join(client.calls) == calls


def test_an_error_that_may_be_tried_again_is_not_for_ever() -> None:
    client = Scripted(commit=[RETRIABLE, RETRIABLE])
    ended = end(cast("Any", client), None, -1.0)
    assert (ended.outcome, client.calls) == (Outcome.UNKNOWN, ["commit"])


# --- against the mock cluster inside librdkafka


@pytest.fixture(scope="module")
def wiring() -> Iterator[Wiring]:
    mock, address = mock_cluster()
    found = wiring_to(address)
    settings = {**found.producer, "transaction.timeout.ms": 5000, "mqtest.transaction.ms": 50}
    yield replace(found, producer={**settings, "mqtest.transaction.messages": 100})
    mock.close()


def opened(wiring: Wiring, topic: str, epoch: int = 0) -> tuple[TransactionalProducer, Settled]:
    """Producer 0 on a topic of the test's own, and what it settles."""
    settled: Settled = []
    producer = confluent.open_producer(replace(wiring, topic=topic), lambda *what: settled.append(what), 0, epoch)
    assert isinstance(producer, TransactionalProducer)
    return producer, settled


def drive(producer: TransactionalProducer, enough: Callable[[], bool], why: str) -> None:
    def polled() -> bool:
        producer.poll(0.05)
        return enough()

    wait_until(polled, PATIENCE_S, why, poll_s=0.0)


def test_nothing_is_acked_before_the_commit_and_all_with_it(wiring: Wiring, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = threading.Event()
    monkeypatch.setattr(transactions, "end", lambda *asked: gate.wait(10) and end(*asked))
    patient = replace(wiring, producer={**wiring.producer, "mqtest.transaction.ms": 60_000})  # its age does not end it
    producer, settled = opened(patient, "commits")
    for seq in range(99):
        assert producer.send(seq, 1, b"x")
    assert settled == []
    assert producer.send(99, 1, b"x")
    producer.poll(0)  # a hundred are enough: it ends
    assert producer.blocked
    assert not producer.send(100, 1, b"x"), "while a transaction ends there is none to be part of"
    gate.set()
    drive(producer, lambda: len(settled) == 100, "the commit")
    assert settled == [(seq, Outcome.ACKED, seq, 1) for seq in range(100)]
    assert producer.send(100, 1, b"x")
    assert producer.failed is None
    producer.close(5)


def test_its_age_ends_a_transaction(wiring: Wiring) -> None:
    producer, settled = opened(wiring, "ages")
    assert producer.send(0, 1, b"x")
    drive(producer, lambda: len(settled) == 1, "the end of a transaction of one")
    assert settled == [(0, Outcome.ACKED, 0, 1)]
    producer.close(5)
    assert producer.failed is None


def test_a_report_that_failed_aborts_and_all_of_it_is_refused(wiring: Wiring) -> None:
    producer, settled = opened(wiring, "aborts")
    for seq in range(3):
        assert producer.send(seq, 0, b"x")
    producer._report(1, KafkaError(KafkaError._MSG_TIMED_OUT, "late"), cast("Any", None))
    assert producer.blocked
    drive(producer, lambda: len(settled) == 3, "the abort")
    assert settled == [(seq, Outcome.REFUSED, -1, 0) for seq in range(3)]
    assert producer.failed is None
    assert producer.send(3, 0, b"x")
    drive(producer, lambda: len(settled) == 4, "a commit after the abort")
    assert settled[3][1] is Outcome.ACKED
    producer.close(5)


def test_what_was_in_a_transaction_without_an_end_is_unknown(
    wiring: Wiring, monkeypatch: pytest.MonkeyPatch
) -> None:  # the mock fences nobody, so its end is played
    producer, settled = opened(wiring, "fences")
    monkeypatch.setattr(transactions, "end", lambda *_: Ended(Outcome.UNKNOWN, failed="fenced"))
    assert producer.send(0, 0, b"x")
    drive(producer, lambda: producer.failed is not None, "the failure")
    assert (settled, producer.failed) == ([(0, Outcome.UNKNOWN, -1, 0)], "fenced")
    assert not producer.send(1, 0, b"x")
    producer.close(5)


def test_an_end_that_does_not_come_back_is_given_up(wiring: Wiring, monkeypatch: pytest.MonkeyPatch) -> None:
    hang = threading.Event()
    monkeypatch.setattr(transactions, "GRACE_S", -10.0)
    monkeypatch.setattr(transactions, "end", lambda *_: hang.wait())
    producer, settled = opened(wiring, "hangs")
    assert producer.send(0, 0, b"x")
    drive(producer, lambda: producer.failed is not None, "it to be given up")
    began = time.monotonic()
    producer.close(0.1)
    assert time.monotonic() - began < 1
    assert (producer.failed, settled) == ("the end of the transaction does not come back", [])
    hang.set()


def test_the_runner_is_not_in_transactions(wiring: Wiring) -> None:
    producer = confluent.open_producer(wiring, lambda *_: None, confluent.RUNNER, 0)
    assert isinstance(producer, confluent.Producer)
    producer.close(5)


def test_a_library_that_does_not_begin_is_a_client_error(wiring: Wiring, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transactions, "OPEN_TIMEOUT_S", 0.2)
    with pytest.raises(confluent.ClientError, match="no transactions for gone-producer-0"):
        opened(replace(wiring, addresses=("127.0.0.1:1",)), "gone")
