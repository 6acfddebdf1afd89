"""What every broker driver with its client must do; the memory broker and the real ones run the same tests.

A new driver adds one row to SUBJECTS. Tests of one subject share a cluster, and so do neighbours in the table whose
nodes are configured alike, so each test takes messages of its own run number, and a consumer group of its own. The last
test of a subject kills every node.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace

import msgspec
import pytest

from mqtest.body import decode
from mqtest.clients import NO_PIPELINES, OPEN_TIMEOUT_S, ClientError
from mqtest.clock import wait_until
from mqtest.errors import ClusterError, SettingError, WaitTimeout
from mqtest.model import RUNNER, Delivery, Kind, Outcome, Wiring
from mqtest.replay_table import of_job
from tests.contract.rig import PLACES, Rig, Sender, Subject, holds, opened, own, read_until, seqs

SUBJECTS = (
    Subject(profile="memory/log-safe", nodes=1),
    Subject(profile="memory/log-lossy", nodes=1),
    Subject(profile="memory/queue-safe", nodes=1, names_offsets=False),
    Subject(profile="kafka/acks-all", reconnects=True),
    Subject(profile="kafka/acks-all-wire"),
    Subject(profile="rabbitmq/classic", names_offsets=False),
    Subject(profile="rabbitmq/quorum", names_offsets=False),
    Subject(profile="rabbitmq/stream", names_offsets=False),
    Subject(profile="rabbitmq/stream-rstream", names_offsets=False),
    Subject(profile="rocketmq/async-flush"),
    Subject(profile="rocketmq/sync-flush-all-ack"),
)

SLACK_S = 2.0
"""more than a bound may take on a loaded machine"""

pytestmark = pytest.mark.parametrize(
    "subject_rig",
    [pytest.param(s, id=s.profile, marks=[pytest.mark.docker] if s.real else []) for s in SUBJECTS],
    indirect=True,
    scope="module",
)


def test_ready_by_the_brokers_own_word(rig: Rig) -> None:
    rig.broker.await_ready(30)
    assert rig.broker.version() != ""
    brokers = {node.name for node in rig.cluster.nodes if node.role == "broker"}
    assert len(brokers) == rig.subject.nodes
    assert {rig.broker.leader(place) for place in range(PLACES)} <= brokers
    assert rig.cluster.exited() == {}


def test_the_controller_is_a_node_of_the_cluster_where_it_can_be_told(rig: Rig) -> None:
    controller = rig.broker.controller()
    assert (controller in rig.names) == ("controller" not in rig.module.NO_TARGETS), controller


def test_every_setting_is_read_back(rig: Rig) -> None:
    asked = {f"{table}.{key}" for table in ("broker", "topic") for key in rig.profile.settings.get(table, {})}
    assert asked - set(rig.broker.effective()) == set()


def test_setting_that_did_not_take_is_named(rig: Rig) -> None:
    settings = {**rig.profile.settings, "broker": {**rig.profile.settings["broker"], "noSuchSetting": 1}}
    topic = rig.broker.wiring().topic
    planted = rig.module.connect(replace(rig.profile, settings=settings), rig.cluster.nodes, PLACES, topic)
    try:
        with pytest.raises(SettingError, match="noSuchSetting"):
            planted.effective()
    finally:
        planted.close()


def test_wiring_travels_as_json(rig: Rig) -> None:
    wiring = rig.broker.wiring()
    assert (wiring.kind, wiring.places, wiring.client) == (rig.profile.kind, PLACES, rig.profile.client)
    assert msgspec.json.decode(msgspec.json.encode(wiring), type=Wiring) == wiring


def test_another_topic_comes_and_goes_and_the_first_one_stays(rig: Rig) -> None:
    if not rig.subject.real:
        pytest.skip("a topic of the memory broker ends with it")
    other = rig.module.connect(rig.profile, rig.cluster.nodes, 1, "contract-other")
    other.create_places()
    other.await_ready(60)
    assert other.wiring().topic == "contract-other"
    assert other.remaining({}) == 0
    other.remove_places()
    if rig.profile.broker != "rocketmq":  # where a group has a leader, not a topic
        wait_until(lambda: other.leader(0) is None, 30, "the other topic to be gone", swallow=(ClusterError,))
    other.close()
    rig.broker.await_ready(60)


def test_consumer_gets_all_and_again_what_it_did_not_acknowledge(rig: Rig) -> None:
    sender = Sender(rig)
    bodies = [sender.body(seq, size) for seq, size in enumerate((64, 65536) * 20)]
    bodies[7] = bodies[7][:-1] + b"!"
    assert decode(bodies[7]) is None
    for seq, body in enumerate(bodies):
        sender.send(seq, seq % PLACES, body)
    sender.await_settled(len(bodies))
    sender.close()
    wiring = rig.new_group()

    first = rig.client.open_consumer(wiring, 0, 0, 1)
    before = own(read_until(first, holds(bodies), "all messages", ack=False), bodies)
    first.close(5)
    assert sorted(d.body for d in before) == sorted(bodies)
    for place in range(PLACES):
        assert seqs(before, sender, place) == [seq for seq in range(40) if seq % PLACES == place and seq != 7]

    second = rig.client.open_consumer(wiring, 0, 1, 1)
    everything = read_until(second, holds(bodies), "all messages again", ack=False)
    again = own(everything, bodies)
    assert sorted(d.body for d in again) == sorted(bodies)
    if rig.profile.kind is Kind.QUEUE:
        assert {d.redelivered for d in again} == {True}
    else:
        assert {(d.place, d.offset) for d in again} == {(d.place, d.offset) for d in before}
    assert rig.broker.remaining({}) >= len(bodies)
    second.ack()
    positions = _positions(everything)
    wait_until(lambda: rig.broker.remaining(positions) == 0, 10, "nothing to remain")
    second.close(5)
    assert rig.broker.remaining(positions) == 0
    counts = rig.broker.counts()
    assert {name: counts.get(name) for name in ("ready", "unacked")} == (
        {"ready": 0, "unacked": 0} if rig.profile.kind is Kind.QUEUE else {"ready": None, "unacked": None}
    )


def test_a_transformer_goes_on_behind_what_it_has_written(rig: Rig) -> None:
    if rig.profile.client in NO_PIPELINES:
        pytest.skip("this client has no transformers")
    sender = Sender(rig)
    bodies = [sender.body(seq) for seq in range(60)]
    wiring = of_job(rig.new_group(), 0, 0)
    output = rig.module.connect(rig.profile, rig.cluster.nodes, PLACES, wiring.output.topic)
    output.create_places()
    output.await_ready(60)
    _send_all(sender, bodies[:40], 0)
    positions = _transform(rig, wiring, 0, bodies[:40])[1]
    _send_all(sender, bodies[40:], 40)
    sender.close()
    resumed = replace(wiring, resume={place: offset + 1 for place, offset in positions.items()})
    handed, _ = _transform(rig, resumed, 1, bodies[40:])
    assert set(handed).isdisjoint(bodies[:40]), "it was handed again what it had written"
    reader = opened(lambda: rig.client.open_reader(wiring.output, range(PLACES)))
    found = own(read_until(reader, holds(bodies), "the outputs"), bodies)
    reader.close(5)
    assert sorted(d.body for d in found) == sorted(bodies)
    for place in range(PLACES):
        assert seqs(found, sender, place) == list(range(place, 60, PLACES))
    output.close()


def _send_all(sender: Sender, bodies: Sequence[bytes], first: int) -> None:
    for seq, body in enumerate(bodies, first):
        sender.send(seq, seq % PLACES, body)
    sender.await_settled(first + len(bodies))


def _transform(rig: Rig, wiring: Wiring, epoch: int, bodies: Sequence[bytes]) -> tuple[list[bytes], Mapping[int, int]]:
    """Pass on what comes until all of these came; everything that came, and the positions afterwards."""
    transformer = opened(lambda: rig.client.open_transformer(wiring, 0, epoch, 1))
    handed: list[bytes] = []

    def enough() -> bool:
        batch = transformer.poll(0.1)
        ours = [d for d in batch if d.body in bodies]
        if batch:
            assert transformer.write([(d.place, d.body) for d in ours]) is Outcome.ACKED, transformer.failed
        handed.extend(d.body for d in batch)
        return set(bodies) <= set(handed)

    wait_until(enough, 60, "all inputs", poll_s=0)
    positions = dict(transformer.positions)
    transformer.close(5)
    return handed, positions


def _positions(deliveries: Sequence[Delivery]) -> Mapping[int, int]:
    """Last offset of each place."""
    return {d.place: d.offset for d in sorted(deliveries, key=lambda d: d.offset)}


def test_two_producers_are_acknowledged_with_places_and_offsets(rig: Rig) -> None:
    senders = [Sender(rig, number) for number in (0, 1)]
    for seq in range(100):
        for sender in senders:
            sender.send(seq, seq % PLACES, sender.body(seq))
    taken: set[tuple[int, int]] = set()
    for sender in senders:
        sender.await_settled(100)
        sender.close()
        assert sender.out_of_turn == []
        assert {seq: (outcome, place) for seq, (outcome, _, place) in sender.rows.items()} == {
            seq: (Outcome.ACKED, seq % PLACES) for seq in range(100)
        }
        for place in range(PLACES):
            offsets = [sender.rows[seq][1] for seq in range(place, 100, PLACES)]
            if not rig.subject.names_offsets:
                assert set(offsets) == {-1}
                continue
            assert offsets == sorted(set(offsets))
            assert offsets[0] >= 0
            assert taken.isdisjoint((place, offset) for offset in offsets)
            taken.update((place, offset) for offset in offsets)


def test_reader_reads_from_the_start_through_a_fence(rig: Rig) -> None:
    sender = Sender(rig)
    for seq in range(60):
        sender.send(seq, seq % PLACES, sender.body(seq))
    sender.await_settled(60)
    sender.close()
    fences = Sender(rig, RUNNER)
    for place in range(PLACES):
        fences.send(place, place, fences.body(place))
    fences.await_settled(PLACES)
    fences.close()

    reader = rig.client.open_reader(rig.wiring(), range(PLACES))
    assert reader.starts() == dict.fromkeys(range(PLACES), 0)
    found = read_until(reader, holds([fences.body(place) for place in range(PLACES)]), "the fences")
    wait_until(lambda: rig.broker.remaining(_positions(found)) == 0, 10, "nothing to remain")
    reader.close(5)
    for place in range(PLACES):
        assert seqs(found, sender, place) == list(range(place, 60, PLACES))
        offsets = [d.offset for d in found if d.place == place]
        assert offsets == sorted(set(offsets))
        if rig.profile.kind is Kind.LOG:
            assert offsets[0] == 0
    if rig.subject.names_offsets:
        acked = {(place, offset) for _, offset, place in sender.rows.values()}
        assert {(d.place, d.offset) for d in own(found, [sender.body(seq) for seq in range(60)])} == acked


def test_close_is_bounded_and_settles_nothing_later(rig: Rig) -> None:
    sender = Sender(rig)
    for seq in range(500):
        sender.hand_over(seq, seq % PLACES, sender.body(seq, 1024))
    began = time.monotonic()
    sender.close(1.0)
    assert time.monotonic() - began < 1.0 + SLACK_S
    settled = len(sender.rows)
    assert sender.out_of_turn == []
    assert {outcome for outcome, _, _ in sender.rows.values()} <= {Outcome.ACKED}
    consumer = rig.client.open_consumer(rig.new_group(), 0, 0, 1)
    began = time.monotonic()
    consumer.close(1.0)
    assert time.monotonic() - began < 1.0 + SLACK_S
    assert len(sender.rows) == settled


def test_death_of_all_nodes_is_told_and_a_new_epoch_works(rig: Rig) -> None:
    sender = Sender(rig)
    sender.send(0, 0, sender.body(0))
    sender.await_settled(1)
    assert set(rig.cluster.kill(rig.names)["exit_code"].items()) == {(name, 137) for name in rig.names}
    try:
        _assert_dead(rig, sender)
    finally:
        rig.cluster.start(rig.names)
    rig.broker.await_nodes(120)
    try:
        rig.broker.await_ready(60)
    except (WaitTimeout, ClusterError):  # a slave of RocketMQ may stay out (docs/rocketmq.md): as an operator would
        rig.cluster.stop(rig.names)
        rig.cluster.start(rig.names)
        rig.broker.await_nodes(60)
        rig.broker.await_ready(60)
    assert rig.cluster.exited() == {}

    late = _acknowledged_by_a_new_epoch(rig)
    wiring = rig.new_group()
    consumer = opened(lambda: rig.client.open_consumer(wiring, 0, 0, 1))
    read_until(consumer, holds([late]), "the message of the new epoch")
    consumer.close(5)


def _acknowledged_by_a_new_epoch(rig: Rig) -> bytes:
    """A message, by as many epochs as it takes: a cluster that restarted as a whole may elect once more when it is
    ready already (RocketMQ's controller does), and refuses meanwhile."""
    end = time.monotonic() + 30
    for epoch in itertools.count(1):
        late = opened(lambda epoch=epoch: Sender(rig, epoch=epoch))  # type: ignore[misc]
        late.send(0, 0, late.body(0))
        late.await_settled(1)
        late.close()
        if late.rows[0][0] is Outcome.ACKED:
            return late.body(0)
        assert time.monotonic() < end, late.rows
        time.sleep(0.5)
    raise AssertionError


def _assert_dead(rig: Rig, sender: Sender) -> None:
    """Nobody runs: the open producer says so or keeps silent, a new client cannot be opened, all in bounded time."""
    assert set(rig.cluster.exited()) == set(rig.names)
    sender.hand_over(1, 0, sender.body(1))
    if rig.subject.reconnects:
        sender.poll(1.0)
    else:
        wait_until(lambda: sender.poll(0.1) or sender.inner.failed, 10, "the producer to fail", poll_s=0)
    assert sender.rows.get(1, (Outcome.UNKNOWN,))[0] in (Outcome.UNKNOWN, Outcome.REFUSED)
    began = time.monotonic()
    sender.close(1.0)
    assert time.monotonic() - began < 1.0 + SLACK_S
    assert sender.out_of_turn == []
    wiring = rig.new_group()
    openings: tuple[Callable[[], object], ...] = (
        lambda: rig.client.open_producer(wiring, lambda *_: None, 0, 1),
        lambda: rig.client.open_consumer(wiring, 0, 1, 1),
        lambda: rig.client.open_reader(wiring, [0]),
    )
    with ThreadPoolExecutor(len(openings)) as pool:
        assert max(pool.map(_refused_after_s, openings)) < OPEN_TIMEOUT_S + SLACK_S
    with suppress(ClusterError):
        assert rig.broker.leader(0) is None


def _refused_after_s(open_client: Callable[[], object]) -> float:
    """How long it takes until a client that cannot be opened says so."""
    began = time.monotonic()
    with pytest.raises(ClientError):
        open_client()
    return time.monotonic() - began
