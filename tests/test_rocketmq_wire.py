"""RocketMQ's wire client: bytes against literal bytes, and its conduct against a scripted server."""

from __future__ import annotations

import struct
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np
import pytest

from mqtest.bodies import Bodies
from mqtest.clients import (
    Block,
    BlockConsumer,
    BlockProducer,
    ClientError,
    Consumer,
    Producer,
    rocketmq_messages,
    rocketmq_producer,
    rocketmq_wire,
)
from mqtest.clients.rocketmq_codec import Header, MalformedError, SendFrames, batch_body, request, take_frames
from mqtest.clock import wait_until
from mqtest.model import Delivery, Kind, Outcome, Value, Wiring
from mqtest.replay_table import of_job
from tests.rocketmq_server import Asked, Server, answer, stored

SEND, BATCH, PULL, COMMIT = 310, 320, 11, 15


# --- codec


def rows(*bodies: bytes) -> Bodies:
    return np.array([np.frombuffer(one, dtype=np.uint8) for one in bodies])


def test_request_is_the_literal_frame() -> None:
    header = (
        b'{"code":30,"language":"PYTHON","version":493,"opaque":7,"flag":0,"serializeTypeCurrentRPC":"JSON",'
        b'"extFields":{"topic":"t"}}'
    )
    frame = b"\0\0\0" + bytes([4 + len(header) + 2]) + b"\0\0\0" + bytes([len(header)]) + header + b"xy"
    assert request(30, 7, {"topic": "t"}, b"xy") == frame


def test_send_is_the_literal_frame() -> None:
    header = (
        b'{"code":310,"language":"PYTHON","version":493,"opaque":9,"flag":0,"serializeTypeCurrentRPC":"JSON",'
        b'"extFields":{"a":"group","b":"topic","c":"TBW102","d":"4","f":"0","h":"0","i":"","j":"0","k":"false",'
        b'"m":"false","e":"3","g":"1700000000000"}}'
    )
    expected = struct.pack(">II", 4 + len(header) + 4, len(header)) + header + b"body"
    assert SendFrames("topic", "group").frame(9, 3, 1_700_000_000_000, b"body") == expected


def test_batch_body_is_the_literal_bytes() -> None:
    head = b"\0\0\0\x18\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x02"
    assert batch_body(rows(b"ab", b"cd")) == head + b"ab\0\0" + head + b"cd\0\0"


def test_send_of_a_batch_is_the_literal_frame() -> None:
    one = SendFrames("topic", "group").frame(9, 3, 1_700_000_000_000, b"body")
    many = SendFrames("topic", "group", batch=True).frame(9, 3, 1_700_000_000_000, b"body")
    shorter = one.replace(b'"code":310', b'"code":320').replace(b'"m":"false"', b'"m":"true"')[8:]
    assert many == struct.pack(">II", len(shorter) + 4, len(shorter) - 4) + shorter


def test_frames_come_whole_whatever_the_pieces() -> None:
    one = b'\0\0\0\x25\0\0\0\x1f{"code":0,"opaque":1,"flag":1} hi'
    two = b'\0\0\0\x23\0\0\0\x1f{"code":7,"opaque":2,"flag":0} '
    buffer, found = bytearray(), []
    for byte in one + two:
        buffer.append(byte)
        found += take_frames(buffer)
    assert [(f.header.code, f.header.opaque, f.header.is_answer, f.body) for f in found] == [
        (0, 1, True, b"hi"),
        (7, 2, False, b""),
    ]
    assert buffer == b""


@pytest.mark.parametrize(
    "bad",
    [
        b"\xff\xff\xff\xff\0\0\0\x01",  # longer than any frame
        b"\0\0\0\x08\0\0\0\xff",  # a header longer than its frame
        b"\0\0\0\x06\0\0\0\x02{]",  # no JSON
    ],
)
def test_bytes_that_are_no_frame(bad: bytes) -> None:
    with pytest.raises(MalformedError):
        take_frames(bytearray(bad))


# --- outcomes


@pytest.mark.parametrize(
    ("code", "remark", "expected"),
    [
        (0, None, Outcome.ACKED),
        (10, None, Outcome.DEGRADED),
        (11, None, Outcome.DEGRADED),
        (12, None, Outcome.DEGRADED),
        (1, "in-sync replicas not enough", Outcome.REFUSED),
        (1, "UNKNOWN_ERROR", Outcome.UNKNOWN),
        (1, None, Outcome.UNKNOWN),
        (2, "[REJECTREQUEST]system busy", Outcome.REFUSED),
        (2, "[OVERLOAD]system busy", Outcome.REFUSED),
        (2, "[TIMEOUT_CLEAN_QUEUE]broker busy", Outcome.REFUSED),
        (2, "[PCBUSY_CLEAN_QUEUE]broker busy", Outcome.REFUSED),
        (2, "[PC_SYNCHRONIZED]broker busy", Outcome.REFUSED),
        (2, "something new", Outcome.UNKNOWN),
        (13, "the message is illegal", Outcome.REFUSED),
        (14, "service not available now. It may be", Outcome.REFUSED),
        (14, "else", Outcome.UNKNOWN),
        (16, "forbidden", Outcome.REFUSED),
        (17, "topic[t] not exist", Outcome.REFUSED),
        (29, "queueId[7] is illegal", Outcome.REFUSED),
        (1500, "please go away", Outcome.REFUSED),
        (4, None, Outcome.UNKNOWN),
        (2004, None, Outcome.UNKNOWN),
    ],
)
def test_what_an_answer_proves(code: int, remark: str | None, expected: Outcome) -> None:
    assert rocketmq_producer.outcome_of(Header(code=code, opaque=1, flag=1, remark=remark)) is expected


# --- producer


@pytest.fixture
def serve() -> Iterator[Callable[[Callable[[Asked], bytes | None]], Server]]:
    servers: list[Server] = []

    def start(script: Callable[[Asked], bytes | None]) -> Server:
        servers.append(Server(script))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


Serve = Callable[[Callable[[Asked], bytes | None]], Server]


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    yield
    while OPENED:
        OPENED.pop().close(0)


OPENED: list[Producer | Consumer] = []
"""what the running test opened"""


def open_consumer(wiring: Wiring, number: int, consumers: int) -> rocketmq_wire.WireConsumer:
    consumer = rocketmq_wire.open_consumer(wiring, number, 0, consumers)
    OPENED.append(consumer)
    return consumer


def open_reader(wiring: Wiring, places: Sequence[int]) -> rocketmq_wire.WireConsumer:
    reader = rocketmq_wire.open_reader(wiring, places)
    OPENED.append(reader)
    return reader


def wiring(server: Server, places: int = 1, **producer: int) -> Wiring:
    return Wiring(
        broker="rocketmq",
        client="rocketmq-wire",
        kind=Kind.LOG,
        acknowledged=True,
        addresses=("127.0.0.1:1", server.address),  # the first name server is gone
        topic="t",
        places=places,
        group="g",
        producer=producer,
        consumer={},
    )


class Producing:
    """A producer and everything that it settled, in order."""

    def __init__(self, server: Server, places: int = 1, **producer: int) -> None:
        self.settled: list[tuple[int, Outcome, int, int]] = []
        self.inner = rocketmq_wire.open_producer(
            wiring(server, places, **producer), lambda *row: self.settled.append(row), 0, 0
        )
        OPENED.append(self.inner)

    def until(self, condition: Callable[[], object], why: str) -> None:
        def met() -> object:
            self.inner.poll(0.01)
            return condition()

        wait_until(met, 5, why, poll_s=0)


def test_sends_under_way_together_settle_with_place_and_offset(serve: Serve) -> None:
    held: list[Asked] = []

    def script(asked: Asked) -> bytes | None:
        if asked.code != SEND:
            return None
        held.append(asked)
        if len(held) < 3:
            return b""
        held.reverse()  # answered in another order than asked
        return b"".join(answer(a, fields={"queueId": a.fields["e"], "queueOffset": 10 + int(a.body)}) for a in held)

    producing = Producing(serve(script))
    assert [producing.inner.send(seq, seq % 2, b"%d" % seq) for seq in (0, 1, 2)] == [True] * 3
    producing.until(lambda: len(producing.settled) == 3, "three answers")
    assert sorted(producing.settled) == [
        (0, Outcome.ACKED, 10, 0),
        (1, Outcome.ACKED, 11, 1),
        (2, Outcome.ACKED, 12, 0),
    ]
    assert producing.inner.failed is None
    producing.inner.close(1)


class Batching(Producing):
    """A producer of batches; `told` has what it settled by the range."""

    def __init__(self, server: Server, places: int = 1, **producer: int) -> None:
        super().__init__(server, places, **producer)
        self.told: list[tuple[range, Outcome, int, int]] = []

    def send(self, seqs: range, places: int = 1, *, by_the_range: bool = True) -> bool:
        assert isinstance(self.inner, BlockProducer)
        if by_the_range:
            self.inner.settle_many = lambda *row: self.told.append(row)
        return self.inner.send_many(seqs, places, rows(*(b"%03d" % seq for seq in seqs)))


def in_batch(asked: Asked) -> list[bytes]:
    """Bodies of a batch, read by another parser than wrote them."""
    found, rest = [], asked.body
    while rest:
        size, length = struct.unpack_from(">I", rest)[0], struct.unpack_from(">I", rest, 16)[0]
        assert size == 22 + length
        assert rest[20 + length : size] == b"\0\0"
        found.append(rest[20 : 20 + length])
        rest = rest[size:]
    return found


def taking(code: int = 0, remark: str = "") -> Callable[[Asked], bytes | None]:
    """Stores batches and single sends one behind the other, in each queue from 100 on."""
    ends = {"0": 100, "1": 100}

    def script(asked: Asked) -> bytes | None:
        if asked.code not in (SEND, BATCH):
            return None
        place = asked.fields["e"]
        first, count = ends[place], len(in_batch(asked)) if asked.code == BATCH else 1
        ends[place] += count
        return answer(asked, code, {"queueId": place, "queueOffset": first}, remark=remark)

    return script


def test_a_block_leaves_in_batches_by_place_and_each_message_gets_its_position(serve: Serve) -> None:
    server = serve(taking())
    batching = Batching(server, 2, batch=3)
    assert batching.send(range(10, 19), 2)
    batching.until(lambda: len(batching.told) == 4, "four answers")
    sent = [(asked.fields["e"], asked.fields["m"], in_batch(asked)) for asked in server.of(BATCH)]
    assert sent == [
        ("0", "true", [b"010", b"012", b"014"]),
        ("0", "true", [b"016", b"018"]),
        ("1", "true", [b"011", b"013", b"015"]),
        ("1", "true", [b"017"]),
    ]
    assert batching.told == [
        (range(10, 16, 2), Outcome.ACKED, 100, 0),
        (range(16, 20, 2), Outcome.ACKED, 103, 0),
        (range(11, 17, 2), Outcome.ACKED, 100, 1),
        (range(17, 19, 2), Outcome.ACKED, 103, 1),
    ]
    assert batching.settled == []


def test_a_batch_settles_one_by_one_where_nobody_takes_ranges(serve: Serve) -> None:
    batching = Batching(serve(taking(12)), batch=8)
    assert batching.send(range(3), by_the_range=False)
    batching.until(lambda: len(batching.settled) == 3, "the answer")
    assert batching.settled == [(seq, Outcome.DEGRADED, 100 + seq, 0) for seq in range(3)]


def test_a_refused_batch_is_refused_whole_and_the_next_waits(serve: Serve) -> None:
    batching = Batching(serve(taking(2, "[TIMEOUT_CLEAN_QUEUE]broker busy")), batch=8)
    assert batching.send(range(3))
    batching.until(lambda: batching.told, "the answer")
    assert batching.told == [(range(3), Outcome.REFUSED, -1, 0)]
    assert batching.inner.blocked
    assert not batching.send(range(3, 6))


def test_a_batch_without_an_answer_is_unknown_whole_and_may_be_acked_late(serve: Serve) -> None:
    held: list[Asked] = []

    def script(asked: Asked) -> bytes | None:
        if asked.code == BATCH:
            held.append(asked)
            return b""
        if asked.code != SEND:
            return None
        late = answer(held[0], fields={"queueId": 0, "queueOffset": 7}) if asked.body == b"late" else b""
        return late + answer(asked, fields={"queueId": 0, "queueOffset": 1})

    batching = Batching(serve(script), timeout_ms=100, batch=8)
    assert batching.send(range(3))
    assert batching.inner.send(3, 0, b"so the master is heard of")
    batching.until(lambda: len(batching.told) == 2, "one answer and the time-out")
    assert batching.told[1] == (range(3), Outcome.UNKNOWN, -1, 0)
    assert batching.inner.send(4, 0, b"late")
    batching.until(lambda: len(batching.told) == 4, "both answers")
    assert batching.told[2] == (range(3), Outcome.ACKED, 7, 0)


def test_a_producer_without_batches_takes_no_blocks(serve: Serve) -> None:
    assert not isinstance(Producing(serve(taking())).inner, BlockProducer)


def test_late_answer_turns_unknown_into_acked_and_never_into_refused(serve: Serve) -> None:
    held: list[Asked] = []

    def script(asked: Asked) -> bytes | None:
        if asked.code != SEND:
            return None
        held.append(asked)
        late = answer(held[0], fields={"queueOffset": 4, "queueId": 0}) + answer(held[1], 17) if len(held) == 3 else b""
        # the third is answered at once, so the master is heard of
        return late + (answer(asked, 12, {"queueOffset": 6, "queueId": 0}) if len(held) == 3 else b"")

    producing = Producing(serve(script), timeout_ms=100)
    producing.inner.send(0, 0, b"a")
    producing.inner.send(1, 0, b"b")
    producing.until(lambda: len(producing.settled) == 2, "both to time out")
    assert producing.settled == [(0, Outcome.UNKNOWN, -1, 0), (1, Outcome.UNKNOWN, -1, 0)]
    assert "nothing heard" in str(producing.inner.failed)
    producing.inner._failed = None  # as if bytes had come in between
    producing.inner.send(2, 0, b"c")
    producing.until(lambda: len(producing.settled) == 4, "the late answer")
    assert producing.settled[2:] == [(0, Outcome.ACKED, 4, 0), (2, Outcome.DEGRADED, 6, 0)]


def test_lost_connection_fails_and_leaves_open_sends_alone(serve: Serve) -> None:
    server = serve(lambda asked: b"" if asked.code == SEND else None)
    producing = Producing(server)
    producing.inner.send(0, 0, b"a")
    producing.until(lambda: server.of(SEND), "the send to arrive")
    server.drop()
    producing.until(lambda: producing.inner.failed, "the loss to be seen")
    assert not producing.inner.send(1, 0, b"b")
    producing.inner.close(0.1)
    assert producing.settled == []


def test_refusing_broker_gets_one_send_at_a_time_until_it_takes_one(serve: Serve) -> None:
    def script(asked: Asked) -> bytes | None:
        if asked.code != SEND:
            return None
        return answer(asked, 1, remark="in-sync replicas not enough") if int(asked.body) < 3 else answer(asked)

    producing = Producing(serve(script))
    producing.inner.send(0, 0, b"0")
    producing.until(lambda: producing.settled, "the refusal")
    assert producing.inner.blocked
    seqs = iter(range(1, 5))

    def send_next() -> bool:
        return not producing.inner.blocked and producing.inner.send(seq := next(seqs), 0, b"%d" % seq) and seq == 4

    producing.until(send_next, "the broker to take messages again")
    producing.until(lambda: len(producing.settled) == 5, "all answers")
    assert [outcome for _, outcome, _, _ in producing.settled] == [Outcome.REFUSED] * 3 + [Outcome.ACKED] * 2
    assert producing.inner.failed is None


def test_broker_that_is_no_master_is_left(serve: Serve) -> None:
    producing = Producing(
        serve(lambda a: answer(a, 2, remark="[REJECTREQUEST]system busy") if a.code == SEND else None)
    )
    for seq in range(5):
        producing.until(lambda: not producing.inner.blocked, "the pause after a refusal")
        assert producing.inner.failed is None
        producing.inner.send(seq, 0, b"x")
        producing.until(lambda: len(producing.settled) == seq + 1, "a refusal")  # noqa: B023
    assert "takes no messages" in str(producing.inner.failed)
    assert {outcome for _, outcome, _, _ in producing.settled} == {Outcome.REFUSED}


def test_opening_needs_a_master_that_answers(serve: Serve) -> None:
    nobody = serve(
        lambda a: answer(a, body=b'{"brokerDatas":[{"brokerAddrs":{"2":"127.0.0.1:1"}}]}') if a.code == 105 else None
    )
    with pytest.raises(ClientError, match="knows no master"):
        Producing(nobody)
    frozen = serve(lambda a: b"" if a.code == 30 else None)
    with pytest.raises(ClientError, match="no answer"):
        Producing(frozen)
    with pytest.raises(ClientError, match=r"producer\.timeout: no such setting"):
        Producing(serve(lambda a: None), timeout=3)


# --- consumer and reader


def read(source: rocketmq_wire.WireConsumer, wanted: int) -> list[Delivery]:
    found: list[Delivery] = []

    def enough() -> bool:
        found.extend(source.poll(0.01))
        return len(found) >= wanted or source.failed is not None

    wait_until(enough, 5, f"{wanted} deliveries", poll_s=0)
    return found


def log_of(places: dict[int, Sequence[bytes]]) -> Callable[[Asked], bytes | None]:
    """A broker that holds these bodies from position 0, gives two a pull and then is silent."""

    def script(asked: Asked) -> bytes | None:
        if asked.code != PULL:
            return None
        place, at = int(asked.fields["queueId"]), int(asked.fields["queueOffset"])
        found = places[place][at : at + 2]
        if not found:
            return b""
        body = b"".join(stored(place, at + i, b) for i, b in enumerate(found))
        return answer(asked, fields={"nextBeginOffset": at + len(found)}, body=body)

    return script


def test_reader_gets_each_place_from_its_start(serve: Serve) -> None:
    server = serve(log_of({0: [b"a", b"b", b"c"], 1: [b"d"]}))
    reader = open_reader(wiring(server, 2), [0, 1])
    assert reader.starts() == {0: 0, 1: 0}
    found = read(reader, 4)
    assert sorted(found) == [(0, 0, b"a", False), (0, 1, b"b", False), (0, 2, b"c", False), (1, 0, b"d", False)]
    reader.ack()
    reader.close(1)
    assert server.of(COMMIT) == []


def test_consumer_gives_blocks_and_commits_what_they_held(serve: Serve) -> None:
    server = serve(log_of({0: [b"a", b"b", b"cc"], 1: [b"d"]}))
    consumer = open_consumer(wiring(server, 2), 0, 1)
    assert isinstance(consumer, BlockConsumer)
    found: list[Block] = []

    def enough() -> bool:
        found.extend(consumer.poll_blocks(0.01))
        return sum(len(block.offsets) for block in found) >= 4

    wait_until(enough, 5, "four messages", poll_s=0)
    told = sorted((block.place, block.offsets.tolist(), block.bodies.tobytes()) for block in found)
    assert told == [(0, [0, 1], b"ab"), (0, [2], b"cc"), (1, [0], b"d")]
    assert server.of(COMMIT) == []
    consumer.ack()
    consumer.close(2)
    assert {c.fields["queueId"]: c.fields["commitOffset"] for c in server.of(COMMIT)} == {"0": "3", "1": "1"}


def test_next_pull_leaves_before_the_answer_is_read(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    server = serve(log_of({0: [b"a"]}))
    consumer = open_consumer(wiring(server), 0, 1)
    pulled: list[str] = []

    def read_late(answer: bytes) -> list[Block]:
        wait_until(lambda: len(server.of(PULL)) == 2, 5, "the next pull", poll_s=0.001)
        pulled.extend(asked.fields["queueOffset"] for asked in server.of(PULL))
        return rocketmq_messages.blocks(answer)

    monkeypatch.setattr(rocketmq_wire, "blocks", read_late)
    assert read(consumer, 1) == [(0, 0, b"a", False)]
    assert pulled == ["0", "1"]


def test_reader_stops_where_the_broker_moves_it(serve: Serve) -> None:
    server = serve(lambda a: answer(a, 21, {"nextBeginOffset": 70}) if a.code == PULL else None)
    reader = open_reader(wiring(server), [0])
    assert read(reader, 1) == []
    assert reader.failed == "place 0: the broker has no position 0, names 70"


def test_consumer_has_every_nth_place_and_commits_what_it_got(serve: Serve) -> None:
    server = serve(log_of({0: [b"a"], 1: [b"b", b"c"], 2: [b"d"], 3: [b"e", b"f", b"g"]}))
    consumer = open_consumer(wiring(server, 4), 1, 2)
    assert {d.body for d in read(consumer, 5)} == {b"b", b"c", b"e", b"f", b"g"}
    consumer.ack()
    consumer.close(2)
    committed = {asked.fields["queueId"]: asked.fields["commitOffset"] for asked in server.of(COMMIT)}
    assert committed == {"1": "2", "3": "3"}
    assert {asked.fields["consumerGroup"] for asked in server.of(COMMIT)} == {"g"}


def test_consumer_goes_on_from_the_groups_offset_and_follows_the_broker(serve: Serve) -> None:
    log = log_of({0: [b"a", b"b", b"c", b"d"]})

    def script(asked: Asked) -> bytes | None:
        if asked.code == 14:
            return answer(asked, fields={"offset": 9})
        if asked.code == PULL and asked.fields["queueOffset"] == "9":
            return answer(asked, 21, {"nextBeginOffset": 2})  # the log was cut off below 9
        return log(asked)

    consumer = open_consumer(wiring(serve(script)), 0, 1)
    assert [d.offset for d in read(consumer, 2)] == [2, 3]
    assert consumer.failed is None


@pytest.mark.parametrize(
    ("known", "consumer", "since_ms", "expected"),
    [
        ({"offset": 0}, {"from_timestamp": True}, 1234, [2, 3]),  # what the broker says of a group that is new
        (None, {"from_timestamp": True}, 1234, [2, 3]),
        ({"offset": 3}, {"from_timestamp": True}, 1234, [3]),  # it has read beyond that
        ({"offset": 0}, {"from_timestamp": True}, 0, [0, 1, 2, 3]),
        ({"offset": 0}, {}, 1234, [0, 1, 2, 3]),
    ],
)
def test_a_new_group_begins_at_a_time_where_it_is_told_to(
    serve: Serve, known: dict[str, int] | None, consumer: dict[str, Value], since_ms: int, expected: list[int]
) -> None:
    log = log_of({0: [b"a", b"b", b"c", b"d"]})

    def script(asked: Asked) -> bytes | None:
        if asked.code == 14:
            return answer(asked, 0, known) if known else answer(asked, 22)
        if asked.code == 29:
            return answer(asked, fields={"offset": 2})
        return log(asked)

    server = serve(script)
    given = replace(wiring(server), consumer=consumer, since_ms=since_ms)
    assert [d.offset for d in read(open_consumer(given, 0, 1), len(expected))] == expected
    asked = [(a.fields["topic"], a.fields["queueId"], a.fields["timestamp"]) for a in server.of(29)]
    assert asked == ([("t", "0", "1234")] if consumer and since_ms else [])


def test_a_transformer_commits_when_its_outputs_are_acknowledged(serve: Serve) -> None:
    log = log_of({0: [b"a", b"b"]})

    def script(asked: Asked) -> bytes | None:
        return answer(asked, fields={"queueId": 0, "queueOffset": 5}) if asked.code == SEND else log(asked)

    server = serve(script)
    given = of_job(wiring(server), 1, 0)
    transformer = rocketmq_wire.open_transformer(given, 1, 0, 1)
    inputs = wait_until(lambda: transformer.poll(0.05), 5, "the inputs", poll_s=0)
    assert [d.body for d in inputs] == [b"a", b"b"]
    assert server.of(COMMIT) == []
    assert transformer.write([(0, b"x"), (0, b"y")]) is Outcome.ACKED
    transformer.close(2)
    sent = [(a.fields["b"], a.fields["e"], a.body) for a in server.of(SEND)]
    assert sent == [("t-out-1", "0", b"x"), ("t-out-1", "0", b"y")]
    commits = [(a.fields["topic"], a.fields["consumerGroup"], a.fields["commitOffset"]) for a in server.of(COMMIT)]
    assert commits == [("t", "g-job-1-transformers", "2")]


def test_consumer_leaves_a_broker_that_gives_nothing(serve: Serve) -> None:
    server = serve(lambda a: answer(a, 2, remark="[REJECTREQUEST]system busy") if a.code == PULL else None)
    consumer = open_consumer(wiring(server), 0, 1)
    assert read(consumer, 1) == []
    assert "gives no messages" in str(consumer.failed)
    assert len(server.of(PULL)) == 20


def test_silent_broker_fails_a_consumer_and_a_waiting_one_does_not(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rocketmq_wire, "_QUIET_NS", 50_000_000)
    monkeypatch.setattr(rocketmq_wire, "_SILENT_NS", 200_000_000)
    asked_31 = iter(range(100))
    silent = serve(lambda a: b"" if a.code == PULL or (a.code == 31 and next(asked_31) > 0) else None)
    consumer = open_consumer(wiring(silent), 0, 1)
    assert read(consumer, 1) == []
    assert "nothing heard" in str(consumer.failed)
    waiting = serve(lambda a: b"" if a.code == PULL else None)
    patient = open_consumer(wiring(waiting), 0, 1)
    wait_until(lambda: patient.poll(0.01) or len(waiting.of(31)) >= 6, 5, "five signs of life", poll_s=0)
    assert patient.failed is None


def test_garbage_fails_a_reader(serve: Serve) -> None:
    server = serve(lambda a: answer(a, fields={"nextBeginOffset": 1}, body=b"garbage") if a.code == PULL else None)
    reader = open_reader(wiring(server), [0])
    assert read(reader, 1) == []
    assert "message cut short" in str(reader.failed)


def test_native_library_loads_only_when_it_is_used() -> None:
    code = (
        "import sys, mqtest.clients.rocketmq_native, mqtest.brokers.rocketmq;"
        "print([m for m in sys.modules if m.split('.')[0] == 'rocketmq'])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30).stdout == "[]\n"
