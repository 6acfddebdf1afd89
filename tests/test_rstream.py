"""The rstream client over the wire, against a scripted server of the stream protocol: outcomes, positions, bounds."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import pytest
from rstream import AMQPMessage, Properties, amqp_decoder, schema

from mqtest.body import encode
from mqtest.brokers import rabbitmq
from mqtest.clients import ClientError, client, rstream, rstream_link, rstream_messages
from mqtest.clients.pika import PikaConsumer
from mqtest.clients.rstream import RstreamProducer, open_consumer, open_producer, open_reader
from mqtest.clock import wait_until
from mqtest.errors import UsageError
from mqtest.model import Delivery, Kind, Outcome, Value, Wiring
from mqtest.profile import find_profile
from tests.amqp_server import amqp_server
from tests.polling import poll_until, take
from tests.stream_server import NOBODY, StreamServer, stream_server

Rows = list[tuple[int, Outcome, int, int]]
A, U, R = Outcome.ACKED, Outcome.UNKNOWN, Outcome.REFUSED
FIRST, OFFSET = 1, 4
SLACK_S = 2.0
"""more than a bound may take on a loaded machine"""


def wiring(
    server: StreamServer,
    places: int = 1,
    producer: Mapping[str, Value] | None = None,
    consumer: Mapping[str, Value] | None = None,
) -> Wiring:
    return Wiring(
        broker="rabbitmq",
        client="rstream",
        kind=Kind.LOG,
        acknowledged=True,
        addresses=server.addresses,
        topic="t",
        places=places,
        group="g",
        producer={"port": server.port, **(producer or {})},
        consumer={"port": server.port, **(consumer or {})},
    )


def body(seq: int, size: int = 64) -> bytes:
    return encode(1, 0, seq, 0, size)


def opened(given: Wiring) -> tuple[RstreamProducer, Rows]:
    rows: Rows = []
    return open_producer(given, lambda *row: rows.append(row), 0, 0), rows


def after(published: int, *acts: Callable[[StreamServer], None]) -> Callable[[StreamServer, int], None]:
    """When so many were published, do that."""

    def on_publish(server: StreamServer, count: int) -> None:
        if count == published:
            for act in acts:
                act(server)

    return on_publish


def confirm(*ids: int) -> Callable[[StreamServer], None]:
    return lambda server: server.confirm(*ids)


def refuse(code: int, *ids: int) -> Callable[[StreamServer], None]:
    return lambda server: server.refuse(code, *ids)


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ([confirm(11), confirm(10, 12)], [(11, A), (10, A), (12, A)]),
        ([confirm(10, 11, 12)], [(10, A), (11, A), (12, A)]),
        ([refuse(18, 10, 12), confirm(11)], [(10, R), (12, R), (11, A)]),
        ([refuse(6, 11), refuse(15, 12), confirm(10)], [(11, U), (12, U), (10, A)]),
    ],
)
def test_answers_settle_what_they_name(
    script: Sequence[Callable[[StreamServer], None]], expected: list[tuple[int, Outcome]]
) -> None:
    with stream_server(after(3, *script)) as server:
        producer, rows = opened(wiring(server))
        for seq in (10, 11, 12):
            assert producer.send(seq, 0, body(seq))
        assert rows == []
        poll_until(producer, lambda: len(rows) >= 3)
        producer.close(1)
    assert sorted(rows) == sorted((seq, outcome, -1, 0) for seq, outcome in expected)


def test_messages_go_to_the_leader_under_their_sequence_numbers_and_no_name() -> None:
    sizes = (64, 255, 256, 65_536)
    with stream_server() as server:
        server.leader = 2
        producer, _ = opened(wiring(server, places=2))
        for seq, size in enumerate(sizes):
            assert producer.send(seq, seq % 2, body(seq, size))
        poll_until(producer, lambda: len(server.published) == len(sizes))
        producer.close(1)
    assert [row[:3] for row in server.published] == [(2, "t-0", 0), (2, "t-0", 2), (2, "t-1", 1), (2, "t-1", 3)]
    for _, _, seq, message in server.published:
        assert amqp_decoder(message).body == body(seq, sizes[seq])
    assert server.references == ["", ""]


def test_what_frames_hold_is_bounded_and_a_message_that_fits_into_none_is_refused() -> None:
    with stream_server() as server:
        server.frame_max = 4096
        producer, rows = opened(wiring(server))
        for seq in range(20):
            assert producer.send(seq, 0, body(seq, 1000))
        assert producer.send(20, 0, body(20, 5000))
        assert producer.send(21, 0, body(21, 4000))
        poll_until(producer, lambda: len(server.published) == 21)
        assert producer.failed is None
        producer.close(1)
    assert rows == [(20, R, -1, 0)]
    assert 3000 < server.largest <= 4096


def test_a_lost_connection_is_told_leaves_sends_open_and_is_the_last() -> None:
    with stream_server(after(2, confirm(0))) as server:
        producer, rows = opened(wiring(server))
        for seq in range(2):
            producer.send(seq, 0, body(seq))
        poll_until(producer, lambda: rows)
        connections = len(server.entered)
        producer.send(2, 0, body(2))
        server.drop()
        poll_until(producer, lambda: producer.failed)
        assert producer.failed is not None
        assert "t-0" in producer.failed or "connection lost" in producer.failed
        assert not producer.send(3, 0, body(3))
        for _ in range(5):
            producer.poll(0.05)
        began = time.monotonic()
        producer.close(1)
        assert time.monotonic() - began < 1 + SLACK_S
        assert len(server.entered) == connections
    assert rows == [(0, A, -1, 0)]


def test_a_stream_that_has_another_leader_ends_the_client() -> None:
    with stream_server() as server:
        producer, _ = opened(wiring(server))
        consumer = open_consumer(wiring(server), 0, 0, 1)
        server.say(schema.MetadataUpdate(schema.MetadataInfo(6, "t-0")))
        consumer.poll(1)
        assert consumer.failed == "Metadata Update: t-0"
        consumer.close(1)
        assert producer.failed is None
        producer.close(1)


def test_why_the_server_closes_the_connection_is_told() -> None:
    with stream_server() as server:
        producer, _ = opened(wiring(server))
        server.say(schema.Close(1, 14, "frame too large"))
        producer.poll(1)
        assert producer.failed == "the server closes: frame too large"
        producer.close(1)


def test_a_server_that_says_nothing_any_more_is_noticed_by_its_heartbeats() -> None:
    with stream_server() as server:
        producer, _ = opened(wiring(server, producer={"heartbeat": 1}))
        end = time.monotonic() + 2.5
        while time.monotonic() < end:
            producer.poll(0.1)
        assert producer.failed is None
        server.mute = True
        poll_until(producer, lambda: producer.failed)
        assert "nothing heard for" in str(producer.failed)
        began = time.monotonic()
        producer.close(0.3)
        assert time.monotonic() - began < 0.3 + SLACK_S


def until(goes_on: threading.Event) -> Callable[[StreamServer, int], None]:
    """The server reads no further until then."""

    def wait(_server: StreamServer, _count: int) -> None:
        goes_on.wait(10)

    return wait


def fill(producer: RstreamProducer) -> int:
    """Send until it is blocked; returns how many."""
    seq = 0
    while not producer.blocked and seq < 2000:
        assert producer.send(seq, 0, body(seq, 65_536))
        producer.poll(0)
        seq += 1
    assert producer.blocked
    return seq


def test_what_the_socket_does_not_take_blocks_and_goes_out_later() -> None:
    goes_on = threading.Event()
    with stream_server(until(goes_on)) as server:
        producer, _ = opened(wiring(server))
        seq = fill(producer)
        assert not producer.send(seq, 0, body(seq))
        goes_on.set()
        poll_until(producer, lambda: len(server.published) == seq)
        assert not producer.blocked
        producer.close(1)
    assert [row[2] for row in server.published] == list(range(seq))


def test_what_waits_when_the_connection_goes_is_not_sent_over_another() -> None:
    goes_on = threading.Event()
    with stream_server(until(goes_on)) as server:
        producer, rows = opened(wiring(server))
        fill(producer)
        connections = len(server.entered)
        server.drop()
        goes_on.set()
        poll_until(producer, lambda: producer.failed)
        for _ in range(5):
            producer.poll(0.1)
        assert len(server.entered) == connections
        producer.close(1)
    assert rows == []


def test_close_settles_what_was_answered_and_nothing_else() -> None:
    with stream_server(after(2, confirm(1))) as server:
        producer, rows = opened(wiring(server))
        for seq in range(2):
            producer.send(seq, 0, body(seq))
        producer.poll(0)
        wait_until(lambda: len(server.published) == 2, 5, "both messages")
        time.sleep(0.05)
        producer.close(1)
        producer.close(1)
        producer.poll(0.01)
    assert rows == [(1, A, -1, 0)]
    assert producer.failed == "closed"


def test_a_chunk_gives_its_messages_with_their_offsets() -> None:
    messages = [rstream_messages.encode(body(seq, 64 + 100 * seq)) for seq in range(4)]
    with stream_server() as server:
        consumer = open_consumer(wiring(server, places=2, consumer={"initial_credit": 4}), 0, 0, 1)
        server.deliver(7, messages[:3])
        server.deliver(0, messages[3:], subscription=1)
        found = take(consumer, 4)
        wait_until(lambda: len(server.credits) == 2, 5, "credit for both chunks")
        consumer.close(1)
    assert found == [Delivery(0, 7 + at, body(at, 64 + 100 * at), False) for at in range(3)] + [
        Delivery(1, 0, body(3, 364), False)
    ]
    assert server.subscribed == [(1, "t-0", FIRST, None, 4), (1, "t-1", FIRST, None, 4)]
    assert sorted(server.credits) == [(0, 1), (1, 1)]


def test_messages_that_come_before_the_answer_to_a_subscription_are_kept() -> None:
    """RabbitMQ sends chunks as soon as it has subscribed somebody."""
    with stream_server() as server:
        server.at_once = [rstream_messages.encode(body(0))]
        consumer = open_consumer(wiring(server), 0, 0, 1)
        assert take(consumer, 1) == [Delivery(0, 0, body(0), False)]
        consumer.close(1)


def test_a_later_epoch_goes_on_behind_what_was_acknowledged() -> None:
    messages = [rstream_messages.encode(body(seq)) for seq in range(6)]
    with stream_server() as server:
        given = wiring(server)
        first = open_consumer(given, 0, 0, 1)
        server.deliver(0, messages[:4])
        take(first, 4)
        first.ack()
        server.deliver(4, messages[4:])
        take(first, 2)
        first.close(1)
        second = open_consumer(given, 0, 1, 1)
        server.deliver(2, messages[2:])
        assert [d.offset for d in take(second, 2)] == [4, 5]
        second.close(1)
        open_consumer(given, 0, 0, 1).close(1)
    assert [row[2:4] for row in server.subscribed] == [(FIRST, None), (OFFSET, 4), (FIRST, None)]


def test_consumers_share_the_places_out() -> None:
    with stream_server() as server:
        for number in range(2):
            open_consumer(wiring(server, places=3), number, 0, 2).close(1)
    assert [row[1] for row in server.subscribed] == ["t-0", "t-2", "t-1"]


def test_a_chunk_with_a_wrong_checksum_ends_the_consumer() -> None:
    with stream_server() as server:
        consumer = open_consumer(wiring(server), 0, 0, 1)
        server.deliver(0, [rstream_messages.encode(body(0))], damaged=True)
        assert consumer.poll(2) == []
        assert "Could not decode" in str(consumer.failed)
        consumer.close(1)


def test_a_node_that_says_nothing_is_passed_over() -> None:
    with stream_server(silent=[0]) as server:
        server.leader = 1
        producer, _ = opened(wiring(server))
        producer.close(1)
    assert server.entered[:2] == [0, 1]


def test_opening_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rstream_link, "OPEN_TIMEOUT_S", 1.5)
    with stream_server(silent=[0, 1, 2]) as server:
        for attempt in (
            lambda: opened(wiring(server)),
            lambda: open_consumer(wiring(server), 0, 0, 1),
        ):
            began = time.monotonic()
            with pytest.raises(ClientError, match=r"127\.0\.0\.1: waited .* for an open connection; 127\.0\.0\.2: "):
                attempt()
            assert time.monotonic() - began < 1.5 + SLACK_S


def test_why_a_client_cannot_be_opened_is_told() -> None:
    with stream_server() as server:
        server.leader = NOBODY
        with pytest.raises(ClientError, match="Leader not yet elected for stream t-0"):
            opened(wiring(server))
        server.leader = 0
        server.codes = {schema.Subscribe: 6}
        with pytest.raises(ClientError, match="StreamNotAvailable"):
            open_consumer(wiring(server), 0, 0, 1)
        server.codes = {schema.SaslAuthenticate: 8}
        with pytest.raises(ClientError, match="AuthenticationFailure"):
            opened(wiring(server))


def test_settings_of_amqp_change_nothing_and_unknown_ones_are_refused() -> None:
    with stream_server() as server:
        of_amqp: dict[str, Value] = {"mandatory": True, "delivery_mode": 2, "blocked_connection_timeout": 30}
        producer, _ = opened(wiring(server, producer=of_amqp))
        producer.close(1)
        open_consumer(wiring(server, consumer={"prefetch": 300}), 0, 0, 1).close(1)
        with pytest.raises(ClientError, match=r"rstream: producer\.linger: no such setting"):
            opened(wiring(server, producer={"linger": 1}))
        with pytest.raises(
            ClientError, match=r"rstream: consumer\.credits: no such setting; allowed: .*initial_credit"
        ):
            open_consumer(wiring(server, consumer={"credits": 1}), 0, 0, 1)


def test_the_audit_is_pikas() -> None:
    with amqp_server() as server, stream_server() as cluster:
        given = replace(wiring(cluster, consumer={"initial_credit": 3, "heartbeat": 7}), addresses=(server.address,))
        reader = open_reader(given, [0])
        assert isinstance(reader, PikaConsumer)
        reader.close(1)
    assert server.consumed == [("t-0", "first")]


@pytest.mark.parametrize("size", [1, 64, 255, 256, 300, 70_000])
def test_a_body_comes_back_byte_for_byte(size: int) -> None:
    given = bytes(range(256)) * (size // 256) + bytes(range(size % 256))
    message = rstream_messages.encode(given)
    assert message == bytes(AMQPMessage(body=given))
    assert rstream_messages.decode(message) == given


def test_a_body_beside_other_sections_is_found_and_what_has_none_comes_as_it_is() -> None:
    assert (
        rstream_messages.decode(bytes(AMQPMessage(body=b"b" * 64, properties=Properties(message_id="m")))) == b"b" * 64
    )
    for message in (b"", b"x", bytes(AMQPMessage(value=7)), b"\0Sw\xff\xff"):
        assert rstream_messages.decode(message) == message


def test_profiles_of_queues_or_without_acknowledgements_are_refused() -> None:
    stream = find_profile("rabbitmq/stream-rstream")
    assert stream.client == "rstream"
    assert vars(rstream).items() >= {"open_producer": client(stream.client).open_producer}.items()
    assert rabbitmq.environment(stream, 3)["MQTEST_NODES"] == "3"
    queue = replace(find_profile("rabbitmq/quorum"), client="rstream")
    for refused in (queue, replace(stream, acknowledged=False)):
        with pytest.raises(UsageError, match="the client rstream"):
            rabbitmq.environment(refused, 3)
