"""The confluent client, against the mock cluster inside librdkafka: outcomes, closing, positions."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import cast

import pytest
from confluent_kafka import Consumer as RdConsumer
from confluent_kafka import KafkaError, KafkaException, Message, TopicPartition
from confluent_kafka import Producer as RdProducer

from mqtest.clients import ClientError, confluent, confluent_common
from mqtest.clock import wait_until
from mqtest.model import RUNNER, Delivery, Kind, Outcome, Wiring
from tests.polling import PATIENCE_S

Settled = list[tuple[int, Outcome, int, int]]


def mock_cluster() -> tuple[RdProducer, str]:
    """A mock cluster of one node, which lives as long as the first one returned; its address."""
    mock = RdProducer({"test.mock.num.brokers": 1, "bootstrap.servers": "unused", "log_level": 0})
    (node,) = mock.list_topics("mqtest", timeout=PATIENCE_S).brokers.values()
    return mock, f"{node.host}:{node.port}"


def wiring_to(address: str) -> Wiring:
    return Wiring(
        broker="kafka",
        client="confluent",
        kind=Kind.LOG,
        acknowledged=True,
        addresses=(address,),
        topic="mqtest",
        places=4,  # what the mock gives a topic
        group="mqtest",
        producer={"acks": "all", "enable.idempotence": True, "message.timeout.ms": 5000},
        consumer={"heartbeat.interval.ms": 100, "session.timeout.ms": 6000},
    )


@pytest.fixture(scope="module")
def wiring() -> Iterator[Wiring]:
    mock, address = mock_cluster()
    yield wiring_to(address)
    mock.close()


def producer_of(wiring: Wiring, number: int = 0) -> tuple[confluent.Producer, Settled]:
    settled: Settled = []
    return confluent.open_producer(wiring, lambda *what: settled.append(what), number, 0), settled


def drive(producer: confluent.Producer, enough: Callable[[], bool], why: str) -> None:
    def polled() -> bool:
        producer.poll(0.05)
        return enough()

    wait_until(polled, PATIENCE_S, why, poll_s=0.0)


def read(reader: confluent.Consumer | confluent.Reader, count: int) -> Sequence[Delivery]:
    got: list[Delivery] = []

    def enough() -> bool:
        got.extend(reader.poll(0.1))
        return len(got) >= count

    wait_until(enough, PATIENCE_S, f"{count} messages", poll_s=0.0)
    return got


def test_reports_settle_each_message_with_its_own_offset_and_the_reader_finds_it_there(wiring: Wiring) -> None:
    producer, settled = producer_of(wiring)
    for seq in range(300):
        assert producer.send(seq, 1, b"body-%d" % seq)
    drive(producer, lambda: len(settled) == 300, "300 reports")
    producer.close(5)
    assert settled == [(seq, Outcome.ACKED, seq, 1) for seq in range(300)]

    reader = confluent.open_reader(wiring, [1])
    assert reader.starts() == {1: 0}
    assert read(reader, 300) == [Delivery(1, seq, b"body-%d" % seq, False) for seq in range(300)]
    assert reader.poll(0.05) == []
    reader.close(5)


def test_without_acknowledgements_nothing_is_acked(wiring: Wiring) -> None:
    weak = replace(wiring, acknowledged=False, producer={"acks": "0", "message.timeout.ms": 5000})
    producer, settled = producer_of(weak)
    assert producer.send(7, 0, b"x")
    drive(producer, lambda: len(settled) == 1, "a report")
    producer.close(5)
    assert [(seq, outcome) for seq, outcome, _offset, _place in settled] == [(7, Outcome.UNKNOWN)]


def test_the_runner_is_acknowledged_in_earnest_by_a_profile_without(wiring: Wiring) -> None:
    weak = replace(wiring, producer={"acks": "0", "message.timeout.ms": 5000})
    _nobody, runner = (producer_of(weak, number) for number in (0, RUNNER))
    offsets = []
    for producer, settled in (_nobody, runner):
        assert producer.send(0, 2, b"x")
        drive(producer, lambda settled=settled: len(settled) == 1, "a report")  # type: ignore[misc]
        offsets.append(settled[0][2] >= 0)
        producer.close(5)
    assert offsets == [False, True]  # with acks=0 there is no answer that could name a position


@pytest.mark.parametrize(
    ("place", "body"), [(0, b"x" * 2000), (99, b"x")], ids=["larger than allowed", "no such place"]
)
def test_what_produce_itself_turns_away_is_refused(wiring: Wiring, place: int, body: bytes) -> None:
    producer, settled = producer_of(replace(wiring, producer={**wiring.producer, "message.max.bytes": 1000}))
    assert producer.send(3, place, body)
    producer.close(5)
    assert settled == [(3, Outcome.REFUSED, -1, place)]
    assert producer.failed is None


def test_a_report_that_failed_is_unknown() -> None:
    mock, address = mock_cluster()
    producer, settled = producer_of(replace(wiring_to(address), producer={"message.timeout.ms": 300}))
    mock.close()
    del mock  # the node is gone
    assert producer.send(0, 2, b"x")
    drive(producer, lambda: len(settled) == 1, "a report")
    producer.close(5)
    assert settled == [(0, Outcome.UNKNOWN, -1, 2)]
    assert producer.failed is None


def test_a_full_queue_blocks_and_nothing_is_settled(wiring: Wiring) -> None:
    small = {**wiring.producer, "queue.buffering.max.messages": 10, "linger.ms": 50}
    producer, settled = producer_of(replace(wiring, producer=small))
    taken = 0
    while producer.send(taken, 3, b"x"):
        taken += 1
    assert (taken, producer.blocked, settled) == (10, True, [])
    drive(producer, lambda: not producer.blocked, "room in the queue")
    assert producer.send(taken, 3, b"x")
    drive(producer, lambda: len(settled) == 11, "11 reports")
    producer.close(5)


def test_what_is_open_at_close_stays_open(wiring: Wiring) -> None:
    producer, settled = producer_of(replace(wiring, producer={**wiring.producer, "linger.ms": 4000}))
    assert producer.send(0, 0, b"x")
    began = time.monotonic()
    producer.close(5)
    assert settled == []
    assert time.monotonic() - began < 3


def test_a_fatal_error_makes_the_producer_useless_and_another_error_does_not(wiring: Wiring) -> None:
    producer, settled = producer_of(wiring)
    producer._error(KafkaError(KafkaError._ALL_BROKERS_DOWN))
    assert producer.failed is None
    nothing = cast("Message", None)  # a failed report is not looked into
    producer._report(0, 0, KafkaError(KafkaError.OUT_OF_ORDER_SEQUENCE_NUMBER, "gone", True), nothing)
    assert producer.failed == "fatal: gone"
    assert settled == [(0, Outcome.UNKNOWN, -1, 0)]
    producer.close(5)


class Late:
    """An error report of the library, which can be made by nobody else."""

    def __init__(self, code: int) -> None:
        self._code = code

    def code(self) -> int:
        return self._code

    def fatal(self) -> bool:
        return False


class Told:
    """A report's message."""

    def offset(self) -> int:
        return 7


_LOST = ("METADATAUPDATE", "producer-1", "[thrd:main]: Partition mqtest(abc)[0]: new leader-1 not found in cache")
_OTHER = ("METADATAUPDATE", "producer-1", "[thrd:main]: Partition mqtest(abc)[0]: leader epoch is not newer 1 >= 1")


@pytest.mark.parametrize(
    ("said", "acked", "code", "useless"),
    [
        (_LOST, False, KafkaError._MSG_TIMED_OUT, True),
        (_LOST, True, KafkaError._MSG_TIMED_OUT, False),  # it found one after all
        (_LOST, False, KafkaError.REQUEST_TIMED_OUT, False),
        (_OTHER, False, KafkaError._MSG_TIMED_OUT, False),
    ],
)
def test_a_client_that_lost_the_leader_is_of_no_use_from_the_first_timeout_on(
    wiring: Wiring, said: tuple[str, ...], acked: bool, code: int, useless: bool
) -> None:
    producer, settled = producer_of(wiring)
    producer._log.log(30, "%s [%s] %s", *said)
    if acked:
        producer._report(0, 0, None, cast("Message", Told()))
    assert producer.failed is None
    producer._report(1, 0, cast("KafkaError", Late(code)), cast("Message", None))
    assert (producer.failed is not None) is useless
    assert settled[-1] == (1, Outcome.UNKNOWN, -1, 0)
    producer.close(1)


def test_what_the_library_says_reaches_the_producer_s_log(wiring: Wiring, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG", logger="mqtest.librdkafka")
    producer, _ = producer_of(replace(wiring, producer={**wiring.producer, "debug": "metadata"}))
    drive(producer, lambda: "producer-0-0" in caplog.text, "a line of the library's log")
    producer.close(1)


class Fatal:
    """A librdkafka client that has had a fatal error: every call raises it."""

    def _raise(self, *_args: object, **_more: object) -> None:
        raise KafkaException(KafkaError(KafkaError.OUT_OF_ORDER_SEQUENCE_NUMBER, "gone", True))

    produce = poll = _raise


def test_produce_after_a_fatal_error_leaves_the_message_with_the_caller(
    wiring: Wiring, monkeypatch: pytest.MonkeyPatch
) -> None:
    producer, settled = producer_of(wiring)
    with monkeypatch.context() as patch:
        patch.setattr(producer, "_client", Fatal())
        assert producer.send(0, 0, b"x") is False
    assert (settled, producer.failed) == ([], "fatal: gone")
    producer.close(5)


def test_a_fatal_error_that_poll_raises_is_told_and_not_raised(wiring: Wiring, monkeypatch: pytest.MonkeyPatch) -> None:
    producer, settled = producer_of(wiring)
    reader = confluent.open_reader(wiring, [0])
    with monkeypatch.context() as patch:
        patch.setattr(producer, "_client", Fatal())
        patch.setattr(reader, "_client", Fatal())
        producer.poll(0.1)
        assert reader.poll(0.1) == []
    assert (settled, producer.failed, reader.failed) == ([], "fatal: gone", "fatal: gone")
    producer.close(5)
    reader.close(5)


def test_a_consumer_commits_what_was_acked_and_no_more(wiring: Wiring) -> None:
    other = replace(wiring, topic="acked", group="acked")
    producer, settled = producer_of(other)
    for seq in range(20):
        producer.send(seq, 0, b"%d" % seq)
    drive(producer, lambda: len(settled) == 20, "20 reports")

    first = confluent.open_consumer(other, 0, 0, 1)
    assert [d.offset for d in read(first, 20)] == list(range(20))
    first.ack()
    producer.send(20, 0, b"20")
    assert [d.offset for d in read(first, 1)] == [20]  # returned, never acked
    first.close(5)
    producer.close(5)

    committed = RdConsumer({"bootstrap.servers": other.addresses[0], "group.id": "acked"})
    (position,) = committed.committed([TopicPartition("acked", 0)], timeout=5)
    committed.close()
    assert position.offset == 20  # where the next one goes on: behind what was acked


def test_a_node_that_is_not_there_is_a_client_error_in_time(wiring: Wiring, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(confluent_common, "OPEN_TIMEOUT_S", 0.5)
    gone = replace(wiring, addresses=("127.0.0.1:1",))
    began = time.monotonic()
    with pytest.raises(ClientError, match=r"^no Kafka node answers: "):
        producer_of(gone)
    assert time.monotonic() - began < 2.5


def test_a_setting_that_the_library_does_not_know_is_named(wiring: Wiring) -> None:
    with pytest.raises(ClientError, match='No such configuration property: "ackss"'):
        producer_of(replace(wiring, producer={"ackss": "all"}))
