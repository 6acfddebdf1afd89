"""The wire client of Kafka against a server that speaks the protocol, and reads batches by a parser of its own."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mqtest import body, ledger
from mqtest.bodies import encode_many
from mqtest.clients import BlockConsumer, BlockProducer, ClientError, client, kafka_producer_ids, kafka_wire
from mqtest.clients.kafka_codec import VERSIONS, Error
from mqtest.clients.kafka_wire import REFUSALS
from mqtest.clock import NS_PER_S, wait_until
from mqtest.model import RUNNER, Kind, Outcome, Value, Wiring, Workload
from mqtest.workload import Role, WorkerPlan
from mqtest.workload.processes import Workers
from tests.kafka_server import Batch, Server, Verdict, read_batch, written_batch

IDEMPOTENT: dict[str, Value] = {"acks": "all", "enable.idempotence": True, "linger.ms": 1}


def wiring(server: Server | str, producer: dict[str, Value] | None = None, **more: object) -> Wiring:
    asked = Wiring(
        broker="kafka", client="kafka-wire", kind=Kind.LOG, acknowledged=True,
        addresses=(server if isinstance(server, str) else server.address,), topic="t",
        places=1 if isinstance(server, str) else len(server.logs), group="g",
        producer=IDEMPOTENT if producer is None else producer, consumer={"fetch.wait.max.ms": 20},
    )  # fmt: skip
    return replace(asked, **more)  # type: ignore[arg-type]


class Sender:
    """A producer and what it was told, by ranges or one by one."""

    def __init__(self, asked: Wiring, *, many: bool = True, number: int = 0) -> None:
        self.rows: dict[int, tuple[Outcome, int, int]] = {}
        self.ranges = 0
        self.client = kafka_wire.open_producer(asked, self._settle, number, 0)
        if many:
            self.client.settle_many = self._settle_many

    def __enter__(self) -> Sender:
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close(0.1)

    def _settle(self, seq: int, outcome: Outcome, offset: int, place: int) -> None:
        assert seq not in self.rows
        self.rows[seq] = (outcome, offset, place)

    def _settle_many(self, seqs: range, outcome: Outcome, offset: int, place: int) -> None:
        self.ranges += 1
        for nth, seq in enumerate(seqs):
            self._settle(seq, outcome, offset + nth if offset >= 0 else -1, place)

    def send(self, seqs: range, places: int = 1, size: int = 100) -> None:
        assert self.client.send_many(seqs, places, encode_many(7, 0, np.array(seqs), 0, size))

    def until(self, done: Callable[[], object], timeout_s: float = 5) -> None:
        wait_until(lambda: done() or self.client.poll(0.01), timeout_s, "the answers", poll_s=0)

    def outcomes(self) -> dict[int, Outcome]:
        return {seq: row[0] for seq, row in sorted(self.rows.items())}


def values(batch: Batch) -> list[int]:
    heads = [body.decode(value or b"") for _, _, value in batch.records]
    return [head.seq for head in heads if head]


# --- the producer ---


def test_it_is_a_client_that_takes_and_gives_blocks() -> None:
    assert client("kafka-wire") is kafka_wire
    with Server() as server, Sender(wiring(server)) as sender:
        assert isinstance(sender.client, BlockProducer)
        reader = kafka_wire.open_reader(wiring(server), [0])
        assert isinstance(reader, BlockConsumer)
        reader.close(1)


@pytest.mark.parametrize("many", [True, False])
@pytest.mark.parametrize("places", [1, 3])
def test_blocks_are_stored_and_acknowledged_with_their_offsets(many: bool, places: int) -> None:
    with Server(places) as server, Sender(wiring(server), many=many) as sender:
        sender.send(range(1000), places)
        sender.send(range(1000, 1100), places)
        sender.until(lambda: len(sender.rows) == 1100)
        assert set(sender.outcomes().values()) == {Outcome.ACKED}
        for place in range(places):
            stored = [seq for acks, p, batch in server.produced if p == place for seq in values(batch)]
            assert stored == list(range(place, 1100, places))
            for offset, seq in enumerate(stored):
                assert sender.rows[seq] == (Outcome.ACKED, offset, place)
        assert {acks for acks, _, _ in server.produced} == {-1}
        assert set(server.requests) == {(api, VERSIONS[api]) for api in (0, 3, 22)}  # type: ignore[index]
        assert {(b.producer, b.epoch) for _, _, b in server.produced} == {(4711, 3)}
        if many:
            assert sender.ranges < 20


def test_sequences_go_on_from_batch_to_batch() -> None:
    with Server() as server, Sender(wiring(server, {**IDEMPOTENT, "batch.size": 5000})) as sender:
        sender.send(range(300))
        sender.until(lambda: len(sender.rows) == 300)
        sequences = [(batch.sequence, len(batch.records)) for _, _, batch in server.produced]
        assert len(sequences) > 5
        assert [sequence for sequence, _ in sequences] == [
            sum(n for _, n in sequences[:i]) for i in range(len(sequences))
        ]


def test_no_batch_is_larger_than_asked_and_sizes_do_not_mix() -> None:
    with Server() as server, Sender(wiring(server, {**IDEMPOTENT, "batch.size": 4000})) as sender:
        for seq in range(60):
            assert sender.client.send(seq, 0, body.encode(7, 0, seq, 0, 64 if seq % 20 < 10 else 9000))
        sender.until(lambda: len(sender.rows) == 60)
        assert [seq for _, _, batch in server.produced for seq in values(batch)] == list(range(60))
        for _, _, batch in server.produced:
            sizes = {len(value or b"") for _, _, value in batch.records}
            assert len(sizes) == 1
            assert sum(len(value or b"") for _, _, value in batch.records) <= 4000 or len(batch.records) == 1


def test_batches_are_pipelined_up_to_the_limit() -> None:
    gate = threading.Event()

    def held(_place: int, _batch: Batch) -> Verdict:
        gate.wait(5)
        return "store"

    settings = {**IDEMPOTENT, "batch.size": 2000, "max.in.flight.requests.per.connection": 3}
    with Server(on_produce=held) as server, Sender(wiring(server, settings)) as sender:
        sender.send(range(200))
        for _ in range(20):
            sender.client.poll(0.01)
        assert len(next(iter(sender.client._open.values()))) == 3
        assert not sender.rows
        gate.set()
        sender.until(lambda: len(sender.rows) == 200)
        assert [seq for _, _, batch in server.produced for seq in values(batch)] == list(range(200))


def test_what_waits_leaves_when_linger_is_over_and_not_before() -> None:
    with Server() as server, Sender(wiring(server, {**IDEMPOTENT, "linger.ms": 150})) as sender:
        began = time.monotonic()
        sender.send(range(3))
        sender.client.poll(0)
        sender.send(range(3, 6))
        sender.until(lambda: len(sender.rows) == 6)
        assert time.monotonic() - began >= 0.15
        assert [values(batch) for _, _, batch in server.produced] == [list(range(6))]


@pytest.mark.parametrize("code", sorted(REFUSALS))
def test_an_error_before_the_append_is_a_refusal_and_after_it_unknown(code: int) -> None:
    for offset, expected in ((-1, Outcome.REFUSED), (17, Outcome.UNKNOWN)):
        server = Server(on_produce=lambda _p, _b, o=offset: (code, o))  # type: ignore[misc]
        with server, Sender(wiring(server, {"acks": "all", "linger.ms": 1})) as sender:
            sender.send(range(5))
            sender.until(lambda: len(sender.rows) == 5)
            assert {row[0] for row in sender.rows.values()} == {expected}
            if expected is Outcome.REFUSED:
                assert {row[1] for row in sender.rows.values()} == {-1}


@pytest.mark.parametrize("code", [7, 20, 56, 46, 47, 99])
def test_any_other_error_is_unknown(code: int) -> None:
    with Server(on_produce=lambda _p, _b: (code, -1)) as server, Sender(wiring(server)) as sender:
        sender.send(range(5))
        sender.until(lambda: len(sender.rows) == 5)
        assert set(sender.outcomes().values()) == {Outcome.UNKNOWN}
        assert sender.client.failed is not None, "an idempotent producer has lost its sequence"


def test_a_leader_that_leads_no_longer_ends_the_client() -> None:
    with Server(on_produce=lambda _p, _b: (6, -1)) as server, Sender(wiring(server, {"acks": "1"})) as sender:
        sender.send(range(5))
        sender.until(lambda: sender.client.failed)
        assert "NOT_LEADER_OR_FOLLOWER (6)" in str(sender.client.failed)
        assert not sender.client.send(9, 0, b"x" * 64)
        assert not sender.client.send_many(range(9, 10), 1, np.zeros((1, 64), dtype=np.uint8))


def test_a_broker_that_has_no_producer_id_yet_is_asked_again() -> None:
    with Server() as server:
        server.no_ids_yet = 2
        with Sender(wiring(server)) as sender:
            sender.send(range(3))
            sender.until(lambda: len(sender.rows) == 3)
        assert [api for api, _version in server.requests].count(22) == 3


def test_a_broker_that_has_no_producer_id_in_time_is_told() -> None:
    with Server() as server:
        server.no_ids_yet = 1 << 30
        with pytest.raises(ClientError, match=r"gives no producer id: COORDINATOR_LOAD_IN_PROGRESS \(14\)"):
            Sender(wiring(server))


def test_a_new_client_of_a_producer_raises_its_epoch_and_asks_for_no_id() -> None:
    with Server() as server:
        for number in (0, 0, 1):
            with Sender(wiring(server), number=number) as sender:
                sender.send(range(3))
                sender.until(lambda sender=sender: len(sender.rows) == 3)
        assert [api for api, _version in server.requests].count(22) == 2, "one for each number"
        assert [(b.producer, b.epoch, b.sequence) for _, _, b in server.produced] == [
            (4711, 3, 0),
            (4711, 4, 0),
            (4711, 3, 0),
        ]


def test_the_last_epoch_of_an_id_is_followed_by_a_new_id(monkeypatch: pytest.MonkeyPatch) -> None:
    with Server() as server:
        monkeypatch.setattr(kafka_producer_ids, "_LAST_EPOCH", 4)
        for _ in range(3):
            Sender(wiring(server)).client.close(0.1)
        assert [api for api, _version in server.requests].count(22) == 2


def test_after_refusals_an_idempotent_producer_goes_on_with_the_sequence_of_the_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(kafka_wire, "_REFUSED_PAUSE_NS", NS_PER_S)  # for a slow machine, too, to see it blocked
    refusing = True
    after = 0
    """sequence that the broker expects"""

    def broker(_place: int, batch: Batch) -> Verdict:
        nonlocal after
        if batch.sequence != after:
            return (45, -1)
        if refusing:
            return (19, -1)
        after += len(batch.records)
        return "store"

    with Server(on_produce=broker) as server, Sender(wiring(server, {**IDEMPOTENT, "batch.size": 2000})) as sender:
        refusing = False
        sender.send(range(10))
        sender.until(lambda: len(sender.rows) == 10)
        refusing = True
        sender.send(range(10, 70))
        sender.until(lambda: len(sender.rows) >= 30)
        assert sender.client.blocked
        refusing = False
        sender.until(lambda: len(sender.rows) == 70 and not sender.client.blocked)
        sender.send(range(70, 80))  # a slow machine may have had all of the others refused
        sender.until(lambda: len(sender.rows) == 80)
        assert sender.client.failed is None
        outcomes = sender.outcomes()
        assert set(list(outcomes.values())[10:30]) == {Outcome.REFUSED}
        assert outcomes[79] is Outcome.ACKED
        log = [seq for _, _, b in server.logs[0] for seq in values(read_batch(b))]
        assert log == [seq for seq, outcome in outcomes.items() if outcome is Outcome.ACKED]


def test_a_broker_that_took_a_batch_behind_a_refused_one_is_gone_on_from_there() -> None:
    seen: list[Batch] = []

    def broker(_place: int, batch: Batch) -> Verdict:
        seen.append(batch)
        return (19, -1) if len(seen) == 1 else "store"

    with Server(on_produce=broker) as server, Sender(wiring(server, {**IDEMPOTENT, "batch.size": 2000})) as sender:
        sender.send(range(60))
        sender.until(lambda: len(sender.rows) == 60)
        ends = [batch.sequence + len(batch.records) for batch in seen]
        assert [batch.sequence for batch in seen[1:]] == ends[:-1]


def test_a_torn_connection_leaves_what_is_open_unsettled() -> None:
    def torn(_place: int, batch: Batch) -> Verdict:
        return "close" if 50 in values(batch) else "store"

    with Server(on_produce=torn) as server, Sender(wiring(server)) as sender:
        sender.send(range(10))
        sender.until(lambda: len(sender.rows) == 10)
        sender.send(range(50, 60))
        sender.until(lambda: sender.client.failed)
        assert "closed by the peer" in str(sender.client.failed) or "reset" in str(sender.client.failed)
        assert set(sender.rows) == set(range(10))


def test_a_silent_leader_ends_the_client() -> None:
    server = Server(on_produce=lambda _p, _b: None)
    with server, Sender(wiring(server, {**IDEMPOTENT, "socket.timeout.ms": 200})) as sender:
        sender.send(range(10))
        sender.until(lambda: sender.client.failed)
        assert "nothing heard for 0.2 s" in str(sender.client.failed)
        assert not sender.rows


def test_without_acknowledgements_a_send_is_unknown_once_it_left() -> None:
    with Server() as server, Sender(wiring(server, {"acks": "0", "linger.ms": 1}, acknowledged=False)) as sender:
        sender.send(range(50))
        sender.until(lambda: len(sender.rows) == 50)
        assert set(sender.rows.values()) == {(Outcome.UNKNOWN, -1, 0)}
        wait_until(lambda: server.produced, 5, "the batch")
        assert server.produced[0][0] == 0


def test_fences_are_acknowledged_by_all_whatever_the_profile_does() -> None:
    with Server() as server, Sender(wiring(server, {"acks": "0"}), number=RUNNER) as sender:
        sender.send(range(1))
        sender.until(lambda: sender.rows)
        assert sender.rows == {0: (Outcome.ACKED, 0, 0)}
        assert server.produced[0][0] == -1


def test_close_hears_what_is_under_way_and_is_bounded() -> None:
    with Server(on_produce=lambda _p, _b: None) as server, Sender(wiring(server)) as sender:
        sender.send(range(10))
        sender.client.poll(0.01)
        began = time.monotonic()
        sender.client.close(0.3)
        assert time.monotonic() - began < 1
        assert not sender.rows
    with Server() as server:
        sender = Sender(wiring(server))
        sender.send(range(10))
        time.sleep(0.002)
        sender.client.poll(0)
        sender.client.close(5)
        assert len(sender.rows) == 10


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"compression.type": "lz4"}, "compression.type: no such setting here"),
        ({"transactional.id": "x"}, "transactional.id: no such"),
        ({"mqtest.transaction.ms": 5}, "mqtest.transaction.ms: no such"),
        ({"acks": "2"}, "'2' is none of all"),
        ({"enable.idempotence": True, "acks": "1"}, "takes acks = all"),
        ({"enable.idempotence": True, "max.in.flight.requests.per.connection": 6}, "at most 5"),
    ],
)
def test_settings_that_are_not_done_are_refused(settings: dict[str, Value], said: str) -> None:
    with pytest.raises(ClientError, match=said):
        kafka_wire.open_producer(wiring("127.0.0.1:1", settings), lambda *_: None, 0, 0)


def test_what_cannot_be_opened_says_so() -> None:
    with pytest.raises(ClientError, match="refused"):
        kafka_wire.open_producer(wiring("127.0.0.1:1"), lambda *_: None, 0, 0)
    with pytest.raises(ClientError, match="neither TLS nor SASL"):
        kafka_wire.open_reader(wiring("127.0.0.1:1", access={"security.protocol": "ssl"}), [0])
    with Server() as server:
        server.leader = -1
        with pytest.raises(ClientError, match="nobody who answers knows a leader of t-0"):
            kafka_wire.open_producer(wiring(server), lambda *_: None, 0, 0)
        server.silent = True
        began = time.monotonic()
        with pytest.raises(ClientError, match="no answer to METADATA"):
            kafka_wire.open_producer(wiring(server), lambda *_: None, 0, 0)
        assert time.monotonic() - began < 5
    with socket.create_server(("127.0.0.1", 0)) as dead:  # takes connections and says nothing, as a frozen process
        address = f"127.0.0.1:{dead.getsockname()[1]}"
        with Server() as server, Sender(wiring(server, addresses=(address, server.address))) as sender:
            sender.send(range(1))
            sender.until(lambda: sender.rows)


def test_the_newest_leader_epoch_counts_and_a_leader_must_say_so_itself() -> None:
    with Server() as stale, Server() as server:
        server.epoch = 6
        both = wiring(server, addresses=(stale.address, server.address))
        with Sender(both) as sender:
            sender.send(range(1))
            sender.until(lambda: sender.rows)
        assert server.produced
        assert not stale.produced
        stale.epoch, stale.names = 7, server.port  # it tells of an epoch in which the other leads, which that denies
        with pytest.raises(ClientError, match="does not lead t-0 by its own word"):
            kafka_wire.open_producer(both, lambda *_: None, 0, 0)


# --- the consumer and the reader ---


def filled(server: Server, count: int = 300, size: int = 100) -> None:
    with Sender(wiring(server, {**IDEMPOTENT, "batch.size": 5000})) as sender:
        sender.send(range(count), len(server.logs), size)
        sender.until(lambda: len(sender.rows) == count)


def read_some(source: BlockConsumer, count: int) -> list[tuple[int, int, bytes]]:
    found: list[tuple[int, int, bytes]] = []

    def enough() -> bool:
        found.extend((d.place, d.offset, d.body) for block in source.poll_blocks(0.05) for d in block.deliveries)
        assert source.failed is None
        return len(found) >= count

    wait_until(enough, 5, "the messages", poll_s=0)
    return found


@pytest.mark.parametrize("places", [1, 3])
def test_a_reader_gets_everything_from_the_start(places: int) -> None:
    with Server(places) as server:
        filled(server)
        reader = kafka_wire.open_reader(wiring(server), range(places))
        assert reader.starts() == dict.fromkeys(range(places), 0)
        found = read_some(reader, 300)
        for place in range(places):
            seqs = list(range(place, 300, places))
            assert [(o, b) for p, o, b in found if p == place] == [
                (offset, body.encode(7, 0, seq, 0, 100)) for offset, seq in enumerate(seqs)
            ]
        assert reader.poll(0.01) == []
        reader.ack()
        reader.close(1)
        assert not server.committed


def test_a_log_that_begins_later_says_so() -> None:
    with Server() as server:
        server.starts[0] = 40
        server.append(0, written_batch(40, [b"a", b"b"]))
        reader = kafka_wire.open_reader(wiring(server), [0])
        assert reader.starts() == {0: 40}
        assert read_some(reader, 2) == [(0, 40, b"a"), (0, 41, b"b")]
        reader.close(1)


def test_a_batch_that_is_cut_off_comes_whole_with_the_next_fetch() -> None:
    with Server() as server:
        filled(server)
        server.cut_last = 30
        reader = kafka_wire.open_reader(wiring(server), [0])
        last = len(read_batch(server.logs[0][-1][2]).records)
        assert len(read_some(reader, 300 - last)) == 300 - last
        server.cut_last = 0
        assert len(read_some(reader, last)) == last
        reader.close(1)


def test_batches_of_other_clients_and_ends_of_transactions() -> None:
    with Server() as server:
        server.append(0, written_batch(0, [b"a", b"bb", b"cc"], key=b"k", times=True))
        server.append(0, written_batch(3, [b"\0\0\0\0\0\1"], attributes=0x20))
        server.append(0, written_batch(4, [b"d"]))
        reader = kafka_wire.open_reader(wiring(server), [0])
        assert read_some(reader, 4) == [(0, 0, b"a"), (0, 1, b"bb"), (0, 2, b"cc"), (0, 4, b"d")]
        assert [(d.offset, d.redelivered) for d in reader.poll(0)] == []
        reader.close(1)


@pytest.mark.parametrize("attributes", [1, 2, 3, 4])
def test_a_compressed_batch_is_refused(attributes: int) -> None:
    with Server() as server:
        server.append(0, written_batch(0, [b"a"], attributes=attributes))
        reader = kafka_wire.open_reader(wiring(server), [0])
        wait_until(lambda: reader.poll(0.05) or reader.failed, 5, "the refusal", poll_s=0)
        assert "is compressed: kafka-wire reads none such" in str(reader.failed)
        reader.close(1)


def test_a_consumer_goes_on_where_its_group_stands() -> None:
    with Server(2) as server:
        filled(server, 100)
        server.not_yet = 2
        first = kafka_wire.open_consumer(wiring(server), 0, 0, 1)
        assert len(read_some(first, 100)) == 100
        first.close(1)
        assert not server.committed, "nothing was acknowledged"
        second = kafka_wire.open_consumer(wiring(server), 0, 1, 1)
        assert len(read_some(second, 100)) == 100
        second.ack()
        second.close(1)
        assert server.committed == {("g", 0): 50, ("g", 1): 50}
        filled(server, 10)
        third = kafka_wire.open_consumer(wiring(server), 0, 2, 1)
        assert sorted((p, o) for p, o, _ in read_some(third, 10)) == [(p, o) for p in (0, 1) for o in range(50, 55)]
        third.ack()
        wait_until(lambda: third.poll(0.01) or server.committed["g", 1] == 55, 5, "a commit while it runs", poll_s=0)
        third.close(1)


def test_a_fetch_drops_what_lies_before_the_position() -> None:
    with Server() as server:
        filled(server, 20)
        server.committed["g", 0] = 13
        consumer = kafka_wire.open_consumer(wiring(server), 0, 0, 1)
        assert [offset for _, offset, _ in read_some(consumer, 7)] == list(range(13, 20))
        consumer.close(1)


@pytest.mark.parametrize("committed", [2, 1000])
def test_a_position_that_the_log_does_not_have_begins_at_the_first(committed: int) -> None:
    with Server() as server:
        server.starts[0] = 5
        server.append(0, written_batch(5, [b"a", b"b"]))
        server.committed["g", 0] = committed
        consumer = kafka_wire.open_consumer(wiring(server), 0, 0, 1)
        assert [offset for _, offset, _ in read_some(consumer, 2)] == [5, 6]
        consumer.close(1)


def test_consumers_share_the_places_by_number() -> None:
    with Server(3) as server:
        filled(server, 30)
        consumers = [kafka_wire.open_consumer(wiring(server), number, 0, 2) for number in (0, 1)]
        assert {p for p, _, _ in read_some(consumers[0], 20)} == {0, 2}
        assert {p for p, _, _ in read_some(consumers[1], 10)} == {1}
        idle = kafka_wire.open_consumer(wiring(server), 4, 0, 5)
        assert idle.poll(0.01) == []
        for one in [*consumers, idle]:
            one.close(1)


@pytest.mark.parametrize("how", ["fetch", "torn", "silent", "commit", "out of range"])
def test_a_consumer_that_is_beyond_use_says_so(how: str) -> None:
    with Server() as server:
        filled(server, 20)
        settings: dict[str, Value] = {"fetch.wait.max.ms": 20, "socket.timeout.ms": 200}
        consumer = kafka_wire.open_consumer(wiring(server, consumer=settings), 0, 0, 1)
        read_some(consumer, 20)
        match how:
            case "fetch":
                server.fetch_error = Error.NOT_LEADER_OR_FOLLOWER
            case "torn":
                server.drop()
            case "silent":
                server.silent = True
            case "out of range":
                server.starts[0] = 100
            case "commit":
                server.commit_error = Error.NOT_COORDINATOR
                consumer.ack()
        wait_until(lambda: consumer.poll(0.05) or consumer.failed, 5, "the failure", poll_s=0)
        expected = {
            "fetch": "NOT_LEADER_OR_FOLLOWER (6)", "torn": "127.0.0.1", "silent": "nothing heard for 0.2 s",
            "commit": "NOT_COORDINATOR (16)", "out of range": "OFFSET_OUT_OF_RANGE (1)",
        }  # fmt: skip
        assert expected[how] in str(consumer.failed)
        consumer.close(1)


@pytest.mark.parametrize("key", ["isolation.level", "enable.auto.commit", "partition.assignment.strategy"])
def test_consumer_settings_that_are_not_done_are_refused(key: str) -> None:
    with Server() as server, pytest.raises(ClientError, match=key):
        kafka_wire.open_reader(wiring(server, consumer={key: "read_committed"}), [0])


# --- in the loops ---


@pytest.mark.parametrize(("places", "rate_per_s"), [(1, None), (3, None), (2, 3000.0)])
def test_worker_processes_write_the_same_ledger_as_ever(tmp_path: Path, places: int, rate_per_s: float | None) -> None:
    with Server(places) as server:
        load = Workload(rate_per_s=rate_per_s, size_bytes=100, window=3000)
        plans = [
            WorkerPlan(
                role=role, number=0, run_number=7, wiring=wiring(server), workload=load,
                folder=str(tmp_path / name), log=str(tmp_path / f"{name}.log"), settle_s=5,
            )
            for role, name in ((Role.PRODUCER, "sends.0"), (Role.CONSUMER, "receipts.0"))
        ]  # fmt: skip
        group = Workers("test", lambda _event: None)
        try:
            group.start(plans)
            for plan in plans:
                group.go(plan.role)
            wait_until(lambda: group.total("acked") > 2000, 50, "acks", poll_s=0.01)
            group.stop(Role.PRODUCER)
            group.wait_done(Role.PRODUCER, 50)
            sent = group.total("sent")
            wait_until(lambda: group.total("delivered") >= sent, 50, "deliveries", poll_s=0.01)
            group.stop(Role.CONSUMER)
            group.wait_done(Role.CONSUMER, 50)
        finally:
            group.close()
        due, receipts = ledger.load_sends(tmp_path / "sends.0"), ledger.load_receipts(tmp_path / "receipts.0")
        seqs = np.flatnonzero(due["sent_ns"][:])
        sends = {name: column[seqs] for name, column in due.items()}
        assert rate_per_s is not None or len(seqs) == len(due["sent_ns"]), "only what is due is skipped"
        assert set(sends["outcome"]) == {Outcome.ACKED}
        assert np.array_equal(sends["place"], seqs % places)
        assert (sends["sent_ns"] >= sends["due_ns"]).all()
        assert (sends["settled_ns"] >= sends["sent_ns"]).all()
        assert (due["due_ns"][:] > 0).all() == (rate_per_s is not None)
        assert sorted(receipts["seq"].tolist()) == seqs.tolist()
        assert set(receipts["flags"]) == {0}
        by_seq = np.argsort(receipts["seq"])
        assert np.array_equal(receipts["offset"][by_seq], sends["offset"])
        assert np.array_equal(receipts["place"][by_seq], sends["place"])
        texts = {(p, o): v for p in range(places) for _, _, b in server.logs[p] for o, _, v in read_batch(b).records}
        for nth in (0, 1, len(seqs) - 1):
            where = int(sends["place"][nth]), int(sends["offset"][nth])
            assert texts[where] == body.encode(7, 0, int(seqs[nth]), int(sends["due_ns"][nth]), 100)
