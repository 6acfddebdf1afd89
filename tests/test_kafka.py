"""The Kafka driver: what it renders, what it takes for ready, how a setting that did not take shows."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace

import pytest

from mqtest.brokers import kafka, kafka_wire
from mqtest.brokers.kafka import check_taken, disagreement, environment, same
from mqtest.clients.kafka_codec import Partition, View
from mqtest.errors import ClusterError, SettingError
from mqtest.model import Duplicates, Node, Order, Output, Profile, Value
from mqtest.profile import load_profiles
from mqtest.verdict import covers

ALL = (1, 2, 3)
ALIVE = {1: "198.19.0.11", 2: "198.19.0.12", 3: "198.19.0.13"}


def profile_with(broker: Mapping[str, Value]) -> Profile:
    profile = load_profiles("kafka")["acks-all"]
    return replace(profile, settings={**profile.settings, "broker": broker})


def one_partition(leader: int = 1, epoch: int = 4, in_sync: tuple[int, ...] = ALL) -> View:
    return View(ALIVE, {("mqtest", 0): Partition(leader, epoch, ALL, in_sync)})


# --- profiles and the variables of compose.yaml


def test_the_environment_carries_the_broker_table_as_properties() -> None:
    expected = {
        "MQTEST_NODES": "3",
        "MQTEST_SETTINGS": "min.insync.replicas=2\nunclean.leader.election.enable=false\nlog.flush.interval.messages=1",
        "MQTEST_FORMAT": "",
    }
    assert environment(load_profiles("kafka")["acks-all-fsync"], 3) == expected


def test_a_backslash_is_escaped_and_a_second_line_is_turned_away() -> None:
    assert environment(profile_with({"a": "x\\y"}), 1)["MQTEST_SETTINGS"] == "a=x\\\\y"
    with pytest.raises(SettingError, match=r"^broker\.a: a setting of Kafka is one line$"):
        environment(profile_with({"a": "x\nb=1"}), 1)


def test_the_features_are_arguments_of_the_tool_that_formats() -> None:
    asked = environment(load_profiles("kafka")["acks-all-no-elr"], 3)
    assert asked["MQTEST_FORMAT"] == "--feature eligible.leader.replicas.version=0"


def test_a_feature_that_is_not_finalized_is_at_level_0_and_one_that_did_not_take_is_named() -> None:
    finalized = {"metadata.version": 30}
    expected = {"feature.metadata.version": "30", "feature.x": "0"}
    assert kafka.features_in_force({"x": 0}, finalized) == expected
    with pytest.raises(SettingError, match=r"^feature\.x = 1 did not take: the cluster has 0$"):
        kafka.features_in_force({"x": 1}, finalized)


LADDER = {
    # power-cut of:           follower leader all
    "acks-1": ("kill:follower", True, False, False),
    "acks-0": ("none", False, False, False),
    "acks-all-min-1": ("kill:all", True, False, False),
    "acks-all": ("kill:all", True, True, False),
    "acks-all-auto-commit": ("kill:all", True, True, False),
    "acks-all-auto-commit-100ms": ("kill:all", True, True, False),
    "acks-all-no-elr": ("kill:all", True, False, False),
    "acks-all-unclean": ("kill:all", True, False, False),
    "acks-all-flush-1s": ("kill:all", True, True, False),
    "acks-all-fsync": ("kill:all", True, True, True),
    "acks-all-fsync-committed": ("kill:all", True, True, True),
    "transactional": ("kill:all", True, True, True),
    "acks-all-short-retention": ("kill:all", True, True, False),
    "acks-1-wire": ("kill:follower", True, False, False),
    "acks-all-wire": ("kill:all", True, True, False),
    "acks-all-fsync-wire": ("kill:all", True, True, True),
}


def test_the_ladder_and_what_each_rung_promises() -> None:
    profiles = load_profiles("kafka")
    assert list(profiles) == list(LADDER)
    for name, (process, *power) in LADDER.items():
        promise = profiles[name].promise
        assert covers(promise, process, 3) is (name != "acks-0"), name
        assert [covers(promise, f"power-cut:{t}", 3) for t in ("follower", "leader", "all")] == power, name
        assert covers(promise, "kill:leader", 3) is (process == "kill:all"), name
    assert {name for name, p in profiles.items() if not p.acknowledged} == {"acks-0"}
    assert {name for name, p in profiles.items() if p.promise.output is Output.EXACTLY_ONCE} == {"transactional"}
    assert profiles["acks-all-auto-commit"].promise.output is Output.NONE
    assert profiles["acks-all-min-1"].promise.order is Order.NONE
    assert profiles["transactional"].promise.duplicates is Duplicates.REDELIVERED


# --- settings read back


@pytest.mark.parametrize(
    ("asked", "found", "expected"),
    [
        (2, "2", True),
        (2, "3", False),
        (True, "true", True),
        (False, "true", False),
        ("TRUE", "true", True),
        (0.5, "0.50", True),
        ("1", "1", True),
        ("delete, compact", "delete,compact", True),
        ("delete", "compact", False),
        ("Delete", "delete", False),
    ],
)
def test_a_value_is_compared_by_what_it_means(asked: Value, found: str, expected: bool) -> None:
    assert same(asked, found) is expected


def test_a_setting_that_took_passes() -> None:
    check_taken("broker", "log.flush.interval.messages", 1, "kafka-1", {"log.flush.interval.messages": "1"})


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (
            {"log.flush.interval.messages": "9"},
            "broker.log.flush.interval.messages = 1 did not take: kafka-1 has 9",
        ),
        (
            # Kafka reads unknown keys back without a value
            {"log.flush.interval.messages": None, "log.flush.interval.message": "9"},
            "broker.log.flush.interval.messages = 1 did not take: kafka-1 does not know this setting"
            " (did you mean 'log.flush.interval.message'?)",
        ),
        (
            {},
            "broker.log.flush.interval.messages = 1 did not take: kafka-1 does not know this setting",
        ),
    ],
)
def test_a_setting_that_did_not_take_is_named(found: Mapping[str, str | None], expected: str) -> None:
    with pytest.raises(SettingError) as caught:
        check_taken("broker", "log.flush.interval.messages", 1, "kafka-1", found)
    assert str(caught.value) == expected


@pytest.mark.parametrize(("table", "key"), [("producer", "ackss"), ("consumer", "fetch.wait.max")])
def test_a_key_that_the_client_library_does_not_know_is_named(table: str, key: str) -> None:
    profile = load_profiles("kafka")["acks-all"]
    settings = {**profile.settings, table: {**profile.settings[table], key: 1}}
    with pytest.raises(SettingError, match=rf'^{table}: .*No such configuration property: "{key}"'):
        kafka.check_clients(replace(profile, settings=settings))


def test_the_client_settings_of_every_profile_are_known_to_the_library() -> None:
    for profile in load_profiles("kafka").values():
        kafka.check_clients(profile)


# --- ready


def test_leader_and_controller_are_by_the_newest_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = [Node(f"kafka-{i}", ALIVE[i]) for i in ALL]
    cut_off, new = one_partition(1, 4), one_partition(2, 5, in_sync=(2, 3))
    monkeypatch.setattr(kafka, "view", lambda address, *_: cut_off if address == ALIVE[1] else new)
    monkeypatch.setattr(kafka, "quorum_leader", lambda address, *_: (1, 7) if address == ALIVE[1] else (3, 8))
    broker = kafka.connect(load_profiles("kafka")["acks-all"], nodes, 1)
    assert (broker.leader(0), broker.leader(1), broker.controller()) == ("kafka-2", None, "kafka-3")
    assert broker.counts() == {}


def test_views_that_agree_with_all_replicas_in_sync_are_ready() -> None:
    assert disagreement([one_partition(), one_partition(), one_partition()]) is None


@pytest.mark.parametrize(
    ("views", "expected"),
    [
        # an old leader that was cut off: a full ISR in its own view, an older epoch
        ([one_partition(1, 4), one_partition(2, 5), one_partition(2, 5)], "the nodes do not agree who leads mqtest-0"),
        ([one_partition(1, 4), one_partition(1, 5)], "the nodes do not agree who leads mqtest-0"),
        ([one_partition(), View(ALIVE, {})], "the nodes do not agree who leads mqtest-0"),
        ([one_partition(-1), one_partition(-1)], "mqtest-0 has no leader"),
        ([one_partition(), one_partition(in_sync=(1, 3))], "mqtest-0 has only [1, 3] of [1, 2, 3] in sync"),
    ],
)
def test_what_is_not_ready_says_why(views: list[View], expected: str) -> None:
    assert disagreement(views) == expected


# --- the wire


@contextmanager
def answering(response: bytes) -> Iterator[int]:
    """A node on 127.0.0.1 that gives one answer to one request; the port."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                (size,) = struct.unpack(">i", connection.recv(4))
                connection.recv(size)
                connection.sendall(response)

        thread = threading.Thread(target=serve)
        thread.start()
        yield server.getsockname()[1]
        thread.join(5)


def framed(body: bytes) -> bytes:
    return struct.pack(">ii", len(body) + 4, 1) + body


VIEW = framed(
    struct.pack(">i", 0)  # throttle
    + struct.pack(">i", 1)  # one broker, without a rack
    + struct.pack(">ih9sih", 2, 9, b"127.0.0.1", 9092, -1)
    + struct.pack(">h4si", 4, b"demo", 2)  # cluster id, "controller"
    + struct.pack(">i", 1)  # one topic with one partition
    + struct.pack(">hh6s?i", 0, 6, b"mqtest", False, 1)
    + struct.pack(">hiii", 0, 0, 2, 7)
    + struct.pack(">iii", 2, 2, 3)  # replicas
    + struct.pack(">ii", 1, 2)  # in sync
    + struct.pack(">ii", 1, 3)  # offline
    + struct.pack(">ii", 0, 0)  # authorized operations of topic and cluster
)
FEATURES = framed(
    struct.pack(">h", 0)
    + b"\x02"  # one request that it knows
    + struct.pack(">hhh", 18, 0, 4)
    + b"\x00"
    + struct.pack(">i", 0)  # throttle
    + b"\x02"  # two tags
    + b"\x01\x08"
    + struct.pack(">q", 9)  # the epoch of the features
    + b"\x02\x17"
    + b"\x02\x11metadata.version"
    + struct.pack(">hh", 30, 30)
    + b"\x00"
)


def test_a_view_is_read_from_the_wire() -> None:
    expected = View({2: "127.0.0.1:9092"}, {("mqtest", 0): Partition(2, 7, (2, 3), (2,))})
    with answering(VIEW) as port:
        assert kafka_wire.view("127.0.0.1", port, 5.0) == expected


def test_features_are_read_from_the_wire() -> None:
    with answering(FEATURES) as port:
        assert kafka_wire.features("127.0.0.1", port, 5.0) == {"metadata.version": 30}


def quorum(error: int = 0, leader: int = 2) -> bytes:
    """A DescribeQuorum response: no tags, no error, one topic, one partition; cut after the leader's epoch."""
    partition = struct.pack(">ihii", 0, error, leader, 41)
    return framed(b"\0\0\0" + b"\x02" + b"\x13__cluster_metadata" + b"\x02" + partition)


def test_the_leader_of_the_quorum_is_read_from_the_wire() -> None:
    with answering(quorum()) as port:
        assert kafka_wire.quorum_leader("127.0.0.1", port, 5.0) == (2, 41)


@pytest.mark.parametrize("response", [quorum(error=6), quorum(leader=-1)], ids=["not the leader", "none"])
def test_no_leader_of_the_quorum_is_a_value_error(response: bytes) -> None:
    with answering(response) as port, pytest.raises(ValueError, match="the metadata quorum has no leader"):
        kafka_wire.quorum_leader("127.0.0.1", port, 5.0)


@pytest.mark.parametrize(
    "response",
    [framed(VIEW[8:30]), framed(b""), struct.pack(">i", 2**31 - 1), framed(struct.pack(">ii", 0, 1 << 30))],
    ids=["cut short", "empty", "a huge size", "a huge count"],
)
def test_nonsense_on_the_wire_is_a_value_error(response: bytes) -> None:
    with answering(response) as port, pytest.raises(ValueError, match=r"answered with|not a Kafka response"):
        kafka_wire.view("127.0.0.1", port, 5.0)


def test_a_node_that_closes_in_the_middle_is_an_os_error() -> None:
    with answering(VIEW[:20]) as port, pytest.raises(OSError, match="closed by the node"):
        kafka_wire.view("127.0.0.1", port, 5.0)


def test_a_node_that_is_silent_is_an_os_error_within_the_bound() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, pytest.raises(OSError, match="timed out"):
        kafka_wire.view("127.0.0.1", server.getsockname()[1], 0.2)


def test_nodes_that_are_not_there_have_no_leader_and_are_named() -> None:
    cluster = kafka.connect(load_profiles("kafka")["acks-all"], [Node("kafka-1", "127.0.0.1")], 1)
    assert cluster.leader(0) is None
    with pytest.raises(ClusterError, match=r"every Kafka node to join: kafka-1 does not answer$"):
        cluster.await_nodes(0.1)
