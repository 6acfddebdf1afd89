"""The pika client over the wire, against a scripted AMQP server: outcomes, frames, positions, bounds."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import pytest
from pika import spec

from mqtest.bodies import encode_many
from mqtest.body import encode
from mqtest.clients import BlockProducer, ClientError
from mqtest.clients.pika import open_consumer, open_producer, open_reader
from mqtest.clients.pika_link import Link
from mqtest.clients.pika_producer import PikaProducer
from mqtest.clock import wait_until
from mqtest.model import Delivery, Kind, Outcome, Value, Wiring
from tests.amqp_server import AmqpServer, amqp_server
from tests.polling import poll_until, take

Rows = list[tuple[int, Outcome, int, int]]


def wiring(
    *addresses: str,
    kind: Kind = Kind.QUEUE,
    acknowledged: bool = True,
    places: int = 1,
    producer: Mapping[str, Value] | None = None,
    consumer: Mapping[str, Value] | None = None,
) -> Wiring:
    return Wiring(
        broker="rabbitmq",
        client="pika",
        kind=kind,
        acknowledged=acknowledged,
        addresses=addresses,
        topic="t",
        places=places,
        group="g",
        producer=producer or {},
        consumer=consumer or {},
    )


def body(seq: int, size: int = 64) -> bytes:
    return encode(1, 0, seq, 0, size)


def opened(given: Wiring) -> tuple[PikaProducer, Rows]:
    rows: Rows = []
    return open_producer(given, lambda *row: rows.append(row), 0, 0), rows


def answers(*script: tuple[int, Callable[[AmqpServer], None]]) -> Callable[[AmqpServer, int], None]:
    """After the n-th publish, do that."""

    def on_publish(server: AmqpServer, count: int) -> None:
        for at, act in script:
            if at == count:
                act(server)

    return on_publish


def ack(tag: int, multiple: bool = False) -> Callable[[AmqpServer], None]:
    return lambda server: server.say(spec.Basic.Ack(tag, multiple))


def nack(tag: int, multiple: bool = False) -> Callable[[AmqpServer], None]:
    return lambda server: server.say(spec.Basic.Nack(tag, multiple))


def give_back(seq: int, queue: str) -> Callable[[AmqpServer], None]:
    return lambda server: server.content(spec.Basic.Return(312, "NO_ROUTE", "", queue), body(seq))


A, U, R = Outcome.ACKED, Outcome.UNKNOWN, Outcome.RETURNED


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ([(3, ack(2)), (3, ack(3, multiple=True))], [(11, A), (10, A), (12, A)]),
        ([(3, ack(3, multiple=True)), (3, ack(2))], [(10, A), (11, A), (12, A)]),
        ([(3, ack(0, multiple=True))], [(10, A), (11, A), (12, A)]),
        ([(3, nack(1)), (3, ack(3, multiple=True))], [(10, U), (11, A), (12, A)]),
        ([(3, nack(3, multiple=True))], [(10, U), (11, U), (12, U)]),
        ([(3, give_back(11, "t-0")), (3, ack(3, multiple=True))], [(11, R), (10, A), (12, A)]),
        ([(3, give_back(10, "t-0")), (3, nack(1)), (3, ack(3)), (3, ack(2))], [(10, R), (12, A), (11, A)]),
    ],
)
@pytest.mark.parametrize("publisher", ["plain", "frames"])
def test_answers_settle_what_they_name(
    script: Sequence[tuple[int, Callable[[AmqpServer], None]]], expected: list[tuple[int, Outcome]], publisher: str
) -> None:
    with amqp_server(answers(*script)) as server:
        producer, rows = opened(wiring(server.address, producer={"publisher": publisher}))
        for seq in (10, 11, 12):
            assert producer.send(seq, 0, body(seq))
        poll_until(producer, lambda: len(rows) >= 3)
        producer.poll(0.05)
        producer.close(1)
    assert rows == [(seq, outcome, -1, 0) for seq, outcome in expected]


def test_frames_are_what_plain_sends() -> None:
    sizes = (64, 64, 100, 131_064, 131_065, 300_000, 64)
    sent = {}
    for publisher in ("plain", "frames"):
        with amqp_server() as server:
            producer, _ = opened(wiring(server.address, places=2, producer={"publisher": publisher}))
            for seq, size in enumerate(sizes):
                assert producer.send(seq, seq % 2, body(seq, size))
            poll_until(producer, lambda: len(server.published) == len(sizes))
            producer.close(1)
            sent[publisher] = server.published
    assert sent["frames"] == [(f"t-{seq % 2}", body(seq, size), 2, True) for seq, size in enumerate(sizes)]
    assert sent["plain"] == sent["frames"]


def test_a_block_is_what_its_messages_are_one_by_one_place_by_place() -> None:
    for size in (100, 131_065):
        with amqp_server() as server:
            producer, _ = opened(wiring(server.address, places=3, producer={"publisher": "frames"}))
            assert isinstance(producer, BlockProducer)
            assert producer.send_many(range(4, 11), 3, encode_many(1, 0, np.arange(4, 11), 0, size))
            assert producer.send(11, 2, body(11, size))
            poll_until(producer, lambda: len(server.published) == 8)
            producer.close(1)
            order = [(seq, place) for place in range(3) for seq in range(4, 11) if seq % 3 == place] + [(11, 2)]
            assert server.published == [(f"t-{place}", body(seq, size), 2, True) for seq, place in order]


def test_answers_settle_blocks_by_ranges() -> None:
    """Tags 1 to 4 are seqs 4, 6, 8, 10 of place 0, 5 to 7 are 5, 7, 9 of place 1."""
    script = [(7, give_back(7, "t-1")), (7, ack(2)), (7, ack(3)), (7, nack(5)), (7, ack(0, multiple=True))]
    ranges: list[tuple[range, Outcome, int, int]] = []
    with amqp_server(answers(*script)) as server:
        producer, rows = opened(wiring(server.address, places=2, producer={"publisher": "frames"}))
        assert isinstance(producer, BlockProducer)
        producer.settle_many = lambda *row: ranges.append(row)
        assert producer.send_many(range(4, 11), 2, encode_many(1, 0, np.arange(4, 11), 0, 64))
        poll_until(producer, lambda: sum(len(row[0]) for row in ranges) >= 6)
        producer.close(1)
    assert rows == [(7, R, -1, 1)]
    assert [(list(seqs), *rest) for seqs, *rest in ranges] == [
        ([6, 8], A, -1, 0),
        ([5], U, -1, 1),
        ([4], A, -1, 0),
        ([10], A, -1, 0),
        ([9], A, -1, 1),
    ]


def test_a_plain_publisher_takes_no_blocks_and_a_block_without_confirms_is_unknown_at_once() -> None:
    with amqp_server() as server:
        producer, _ = opened(wiring(server.address))
        assert not isinstance(producer, BlockProducer)
        producer.close(1)
        given = wiring(server.address, acknowledged=False, producer={"publisher": "frames"})
        producer, rows = opened(given)
        assert isinstance(producer, BlockProducer)
        assert producer.send_many(range(2), 1, encode_many(1, 0, np.arange(2), 0, 64))
        producer.close(1)
    assert rows == [(0, U, -1, 0), (1, U, -1, 0)]


def test_lost_connection_is_told_and_open_sends_stay_open() -> None:
    with amqp_server(answers((2, ack(1)), (2, AmqpServer.drop))) as server:
        producer, rows = opened(wiring(server.address))
        producer.send(0, 0, body(0))
        producer.send(1, 0, body(1))
        poll_until(producer, lambda: producer.failed)
        assert not producer.send(2, 0, body(2))
        producer.close(1)
    assert rows == [(0, Outcome.ACKED, -1, 0)]


def test_closed_channel_is_a_failure_that_says_why() -> None:
    closing = answers((1, lambda server: server.say(spec.Channel.Close(404, "NOT_FOUND - no queue", 0, 0))))
    with amqp_server(closing) as server:
        producer, rows = opened(wiring(server.address))
        producer.send(0, 0, body(0))
        poll_until(producer, lambda: producer.failed)
        assert "NOT_FOUND" in str(producer.failed)
        producer.close(1)
    assert rows == []


def test_blocked_connection_takes_nothing_until_it_is_unblocked() -> None:
    with amqp_server(answers((1, lambda server: server.say(spec.Connection.Blocked("disk"), 0)))) as server:
        producer, _ = opened(wiring(server.address))
        assert (producer.blocked, producer.send(0, 0, body(0))) == (False, True)
        poll_until(producer, lambda: producer.blocked)
        assert not producer.send(1, 0, body(1))
        server.say(spec.Connection.Unblocked(), 0)
        poll_until(producer, lambda: not producer.blocked)
        assert producer.send(1, 0, body(1))
        producer.close(1)


def test_without_confirms_every_send_is_unknown_at_once() -> None:
    with amqp_server(answers((2, give_back(0, "t-0")))) as server:
        producer, rows = opened(wiring(server.address, acknowledged=False))
        producer.send(0, 0, body(0))
        producer.send(1, 0, body(1))
        poll_until(producer, lambda: len(server.published) == 2)
        producer.close(1)
    assert rows == [(0, Outcome.UNKNOWN, -1, 0), (1, Outcome.UNKNOWN, -1, 0)]


def test_address_that_hangs_is_passed_over_and_all_of_them_are_an_error_in_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("mqtest.clients.pika_link.OPEN_TIMEOUT_S", 1.0)
    with amqp_server(silent=True) as paused, amqp_server() as alive:
        began = time.monotonic()
        producer, _ = opened(wiring(paused.address, alive.address))
        assert 0.3 < time.monotonic() - began < 2.0
        producer.close(1)
        began = time.monotonic()
        with pytest.raises(ClientError, match=paused.address):
            opened(wiring(paused.address, paused.address))
        assert 0.8 < time.monotonic() - began < 3.0


def test_address_that_refuses_is_an_error_at_once() -> None:
    with amqp_server() as server:
        address = server.address
    began = time.monotonic()
    with pytest.raises(ClientError, match=r"refused'?\)?$"):
        opened(wiring(address))
    assert time.monotonic() - began < 1


@pytest.mark.parametrize(("number", "epoch", "chosen"), [(0, 0, 0), (1, 0, 0), (0, 1, 1), (1, 1, 0), (0, 2, 0)])
def test_producers_begin_at_the_first_address_and_go_round(number: int, epoch: int, chosen: int) -> None:
    with amqp_server() as one, amqp_server() as two:
        producer = open_producer(wiring(one.address, two.address), lambda *_: None, number, epoch)
        producer.send(0, 0, body(0))
        poll_until(producer, lambda: one.published or two.published)
        producer.close(1)
        assert [len(one.published), len(two.published)] == [int(chosen == 0), int(chosen == 1)]


@pytest.mark.parametrize(
    ("access", "entered"),
    [({}, [b"\0guest\0guest", "/"]), ({"username": "me", "password": "pw", "vhost": "v"}, [b"\0me\0pw", "v"])],
)
def test_login_and_virtual_host(access: Mapping[str, Value], entered: list[bytes | str]) -> None:
    with amqp_server() as server:
        producer, _ = opened(replace(wiring(server.address), access=access))
        producer.close(1)
        assert server.entered == entered


def test_a_certificate_that_cannot_be_read_is_told() -> None:
    with amqp_server() as server, pytest.raises(ClientError, match=r"TLS: the certificates cannot be used: .*No such"):
        opened(replace(wiring(server.address), access={"ca_file": "/absent.pem"}))


def test_unknown_setting_is_named() -> None:
    with pytest.raises(ClientError, match=r"producer\.mandatry: no such setting"):
        opened(wiring("127.0.0.1:1", producer={"mandatry": True}))


@pytest.fixture(params=["plain", "frames"])
def receiver(request: pytest.FixtureRequest) -> str:
    """How deliveries are read."""
    return str(request.param)


def test_queue_consumer_acknowledges_what_poll_returned_and_no_more(receiver: str) -> None:
    with amqp_server() as server:
        consumer = open_consumer(wiring(server.address, places=2, consumer={"receiver": receiver}), 0, 0, 1)
        server.deliver(1, b"x")
        server.deliver(2, body(5), queue_number=1)
        assert take(consumer, 2) == [Delivery(0, 1, b"x", False), Delivery(1, 2, body(5), False)]
        server.deliver(3, body(6))
        consumer.ack()
        consumer.ack()
        assert take(consumer, 1) == [Delivery(0, 3, body(6), False)]
        wait_until(lambda: consumer.poll(0) or server.acked, 5, "the ack")
        consumer.close(1)
    assert server.acked == [(2, True)]
    assert server.consumed == [("t-0", None), ("t-1", None)]


def test_auto_ack_acknowledges_nothing_and_keeps_what_comes_while_it_closes(receiver: str) -> None:
    with amqp_server() as server:
        given = replace(wiring(server.address), consumer={"auto_ack": True, "receiver": receiver})
        consumer = open_consumer(given, 0, 0, 1)
        server.deliver(1, body(4))
        assert take(consumer, 1) == [Delivery(0, 1, body(4), False)]
        consumer.ack()
        server.on_the_way = [(2, body(5)), (3, body(6))]
        consumer.close(5)
        assert consumer.late == [Delivery(0, 2, body(5), False), Delivery(0, 3, body(6), False)]
        reader = open_reader(given, [0])
        reader.close(1)
    assert (server.acked, server.no_ack) == ([], [True, False])


def test_auto_ack_keeps_what_had_come_over_a_connection_that_is_lost(receiver: str) -> None:
    with amqp_server() as server:
        consumer = open_consumer(wiring(server.address, consumer={"auto_ack": True, "receiver": receiver}), 0, 0, 1)
        server.deliver(1, body(4))
        server.drop()
        wait_until(lambda: consumer._link.step(0.1) or consumer.failed, 5, "the loss to be told")
        consumer.close(0.5)
    assert consumer.late == [Delivery(0, 1, body(4), False)]


def test_a_process_that_comes_back_goes_on_where_its_own_checkpoint_says(receiver: str) -> None:
    with amqp_server() as server:
        given = wiring(server.address, kind=Kind.LOG, consumer={"receiver": receiver})
        asked = []
        for epoch, resume in ((3, {}), (4, {0: 17}), (5, {0: 17}), (0, {0: 17})):
            consumer = open_consumer(replace(given, group="another", resume=resume), 0, epoch, 1)
            asked.append(server.consumed[-1])
            server.deliver(1, body(7), offset=41)
            take(consumer, 1)
            if epoch == 4:
                consumer.ack()
            consumer.close(1)
    assert asked == [("t-0", "first"), ("t-0", 17), ("t-0", 42), ("t-0", 17)]


def test_stream_consumer_goes_on_behind_what_it_acknowledged(receiver: str) -> None:
    with amqp_server() as server:
        given = wiring(server.address, kind=Kind.LOG, consumer={"receiver": receiver})
        asked = []
        for epoch in (0, 1, 2, 0):
            consumer = open_consumer(given, 0, epoch, 1)
            asked.append(server.consumed[-1])
            server.deliver(1, body(7), offset=41)
            assert take(consumer, 1) == [Delivery(0, 41, body(7), False)]
            if epoch == 1:
                consumer.ack()
            consumer.close(1)
    assert asked == [("t-0", "first"), ("t-0", "first"), ("t-0", 42), ("t-0", "first")]


def test_places_of_a_stream_are_shared_out_and_a_queue_is_competed_for() -> None:
    with amqp_server() as server:
        for kind in (Kind.LOG, Kind.QUEUE):
            open_consumer(wiring(server.address, kind=kind, places=3), 1, 0, 2).close(1)
    assert [queue for queue, _ in server.consumed] == ["t-1", "t-0", "t-1", "t-2"]


def test_consumer_passes_over_a_node_that_refuses_to_serve_it(receiver: str) -> None:
    with amqp_server(refuse="does not have a running replica") as one, amqp_server() as two:
        given = wiring(one.address, two.address, kind=Kind.LOG, consumer={"receiver": receiver})
        reader = open_reader(given, [0])
        two.deliver(1, body(0), offset=0)
        assert [d.offset for d in take(reader, 1)] == [0]
        reader.close(1)
        with pytest.raises(ClientError, match="does not have a running replica"):
            open_reader(wiring(one.address, kind=Kind.LOG), [0])


def test_link_says_whether_a_node_serves_a_stream() -> None:
    for refuse, serves in (("no running replica", False), (None, True)):
        with amqp_server(refuse=refuse) as server:
            link = Link(server.address, 2)
            assert link.serves_stream("t-0", 2) is serves
            link.close(1)
            assert server.consumed == [("t-0", "next")]


def test_reader_of_a_stream_says_where_it_starts(receiver: str) -> None:
    with amqp_server() as server:
        reader = open_reader(wiring(server.address, kind=Kind.LOG, consumer={"receiver": receiver}), [0])
        server.deliver(1, body(0), offset=17)
        assert reader.starts() == {0: 17}
        assert [d.offset for d in take(reader, 1)] == [17]
        reader.close(1)
        queue = open_reader(wiring(server.address), [0])
        assert queue.starts() == {0: 0}
        queue.close(1)
    assert server.consumed == [("t-0", "first"), ("t-0", None)]
