"""Kafka: how a profile becomes server.properties, when three KRaft nodes are whole, who leads, what is in force.

Rules:
- Ready, and who leads, is judged from the views of all nodes side by side (kafka_wire.py), never from one answer of
  whichever node the client library asked: a node that was cut off still believes what was.
- Whatever changes or reads settings and offsets goes through a client of the library, a new one for each call
  (about 10 ms), because a connection from before a power cut is a black hole.
- A setting took when every node reads it back with the value that was asked. Kafka keeps unknown keys and reads them
  back without a value, so a misspelt one shows.
"""

from __future__ import annotations

import difflib
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Final, TypeVar

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # the package does not mark what it exports again
    AdminClient,
    ConfigResource,
    NewTopic,
    OffsetSpec,
    ResourceType,
)

from mqtest.brokers import TOPIC, Door
from mqtest.brokers.kafka_wire import features, quorum_leader, view
from mqtest.clients import library_settings
from mqtest.clients.kafka_codec import View
from mqtest.clock import wait_until
from mqtest.errors import ClusterError, SettingError, WaitTimeout
from mqtest.model import Node, Profile, Value, Wiring

T = TypeVar("T")

NO_TARGETS: Sequence[str] = ()
NO_FAULTS: Sequence[str] = ("clock-jump",)
"""under libfaketime three nodes had elected no controller after 60 s"""
DOOR: Final = Door(9094, b"\0\0\0\x0a\0\x12\0\0\0\0\0\0\xff\xff")
"""the listener that tells clients the addresses of the proxies (compose.yaml); ApiVersions, version 0"""
BRING_UP_S = 10.0
"""from nothing to the first acknowledgement, seen on two cores; for the plan's guess"""

PORT: Final = 9092
GROUP: Final = "mqtest"
VIEW_TIMEOUT_S: Final = 1.0
"""One node's answer; a node that takes longer counts as silent."""
ADMIN_TIMEOUT_S: Final = 15.0

DECISIVE: Final = {
    "broker": (
        "broker.session.timeout.ms",
        "log.flush.interval.messages",
        "log.flush.interval.ms",
        "min.insync.replicas",
        "replica.lag.time.max.ms",
        "unclean.leader.election.enable",
    ),
    "topic": ("flush.messages", "flush.ms", "min.insync.replicas", "unclean.leader.election.enable"),
}
"""Recorded for every profile, whether it sets them or not: they decide what an acknowledgement is worth."""

RELEASE: Final = "sasl.kerberos.service.name"
"""The setting in which the start script puts the release (compose.yaml says why)."""

_log = logging.getLogger("mqtest.librdkafka")
_log.addHandler(logging.NullHandler())


def environment(profile: Profile, nodes: int) -> Mapping[str, str]:
    """MQTEST_NODES; MQTEST_SETTINGS: the profile's `broker` table as lines of a properties file; MQTEST_FORMAT: its
    `feature` table as arguments of the storage tool."""
    lines = [f"{key}={_line(key, value)}" for key, value in profile.settings.get("broker", {}).items()]
    levels = [f"--feature {name}={level}" for name, level in profile.settings.get("feature", {}).items()]
    return {"MQTEST_NODES": str(nodes), "MQTEST_SETTINGS": "\n".join(lines), "MQTEST_FORMAT": " ".join(levels)}


def connect(profile: Profile, nodes: Sequence[Node], places: int, topic: str = TOPIC) -> Kafka:
    """A driver for the cluster made of these nodes, and this topic; asks nothing yet."""
    return Kafka(profile, nodes, places, topic)


class Kafka:
    """One cluster of one cell; see the module's rules."""

    def __init__(self, profile: Profile, nodes: Sequence[Node], places: int, topic: str) -> None:
        self._profile = profile
        self._topic = topic
        self._nodes = {int(n.name.rsplit("-", 1)[1]): n for n in nodes}
        self._places = places

    def await_nodes(self, timeout_s: float) -> None:
        """Until every node answers and sees every node alive; raises ClusterError."""
        self._await(self._missing, timeout_s, "every Kafka node to join")

    def create_places(self) -> None:
        """Make the topic; raises SettingError when Kafka refuses one of the profile's topic settings."""
        asked = self._topic_settings()
        topic = NewTopic(self._topic, num_partitions=self._places, replication_factor=len(self._nodes), config=asked)
        with self._admin("create the topic") as admin:
            made = admin.create_topics([topic], operation_timeout=ADMIN_TIMEOUT_S, request_timeout=ADMIN_TIMEOUT_S)
            try:
                made[self._topic].result(ADMIN_TIMEOUT_S + 1)
            except KafkaException as error:
                if error.args[0].code() != KafkaError.INVALID_CONFIG:
                    raise
                said = error.args[0].str()
                key = max((key for key in asked if key in said), key=len, default="one of " + ", ".join(asked))
                raise SettingError(f"topic.{key} = {asked.get(key, '…')} did not take: Kafka says {said!r}") from error

    def remove_places(self) -> None:
        """Delete the topic; the nodes drop its files a minute later."""
        with self._admin("delete the topic") as admin:
            gone = admin.delete_topics([self._topic], operation_timeout=ADMIN_TIMEOUT_S)
            gone[self._topic].result(ADMIN_TIMEOUT_S + 1)

    def settle(self) -> None:
        """It is."""

    def await_ready(self, timeout_s: float) -> None:
        """Until every node sees every node alive, and all agree on the leaders of all partitions, with every replica
        in sync; the cluster's own topics included. Raises ClusterError."""
        self._await(self._unready, timeout_s, "every Kafka partition to have a leader and a full ISR")

    def version(self) -> str:
        """The release in the name of the jar that the nodes run, as they read it back (the protocol itself has no
        word for it); where a node does not have it, the metadata version that the cluster has finalized."""
        with self._admin("read the version") as admin:
            found = {describe(admin, ResourceType.BROKER, str(i)).get(RELEASE) for i in self._nodes}
        if len(found) == 1 and (release := found.pop()) and release[0].isdigit():
            return release
        return f"metadata.version {self._features().get('metadata.version', 'unknown')}"

    def effective(self) -> Mapping[str, str]:
        """`broker.…` and `topic.…`: the profile's keys and the decisive ones, as read back; `feature.…`: what the
        cluster has finalized. Raises SettingError for the first one that did not take on some node."""
        with self._admin("read the settings back") as admin:
            nodes = {n.name: describe(admin, ResourceType.BROKER, str(i)) for i, n in self._nodes.items()}
            topic = {f"topic {self._topic}": describe(admin, ResourceType.TOPIC, self._topic)}
        check_clients(self._profile)
        in_force: dict[str, str] = {}
        for table, found in (("broker", nodes), ("topic", topic)):
            asked = self._profile.settings.get(table, {})
            for where, values in found.items():
                for key, value in asked.items():
                    check_taken(table, key, value, where, values)
            first = next(iter(found.values()))
            in_force |= {f"{table}.{key}": first.get(key) or "" for key in sorted({*asked, *DECISIVE[table]})}
        return in_force | features_in_force(self._profile.settings.get("feature", {}), self._features())

    def leader(self, place: int) -> str | None:
        """The leader in the view with the highest leader epoch; None while that has none or no node answers."""
        name = self._topic, place
        seen = [v.partitions[name] for v in self._views().values() if name in v.partitions]
        newest = max(seen, key=lambda p: p.epoch, default=None)
        node = self._nodes.get(newest.leader) if newest else None
        return node.name if node else None

    def controller(self) -> str | None:
        """The leader of the metadata quorum in the highest epoch that any node tells; None when none does."""
        told = self._ask_all(quorum_leader).values()
        node = self._nodes.get(max(told, key=lambda t: t[1])[0]) if told else None
        return node.name if node else None

    def committed(self) -> Mapping[int, tuple[int, int]]:
        """As the group's coordinator says; the end is the high watermark."""
        with self._admin("read the committed positions") as admin:
            told = self._positions_of_group()
            ends = positions_of(admin, self._topic, list(told), end=True) if told else {}
        return {place: (offset, ends[place]) for place, offset in told.items()}

    def _positions_of_group(self) -> dict[int, int]:
        """Place -> committed offset, asked for as a consumer that does not join. An AdminClient of librdkafka 2.16 dies
        (a null pointer in its OffsetFetch) where the group has no coordinator yet."""
        asking = Consumer({**_connection(self._addresses(), {}), "group.id": GROUP}, logger=_log)
        try:
            places = [TopicPartition(self._topic, place) for place in range(self._places)]
            answers = asking.committed(places, timeout=ADMIN_TIMEOUT_S)
        finally:
            asking.close()
        return {p.partition: p.offset for p in answers if p.offset >= 0 and not p.error}

    def counts(self) -> Mapping[str, int]:
        """A log has none."""
        return {}

    def remaining(self, positions: Mapping[int, int]) -> int:
        """Messages up to the high watermark that lie beyond `positions`."""
        with self._admin("read the end positions") as admin:
            ends = positions_of(admin, self._topic, range(self._places), end=True)
        return sum(max(0, end - positions.get(place, -1) - 1) for place, end in ends.items())

    def wiring(self) -> Wiring:
        """What clients need."""
        profile = self._profile
        return Wiring(
            broker=profile.broker,
            client=profile.client,
            kind=profile.kind,
            acknowledged=profile.acknowledged,
            addresses=tuple(n.via or f"{n.address}:{PORT}" for n in self._nodes.values()),
            topic=self._topic,
            places=self._places,
            group=GROUP,
            producer=profile.settings.get("producer", {}),
            consumer=profile.settings.get("consumer", {}),
            topic_settings=profile.settings.get("topic", {}),
        )

    def close(self) -> None:
        """Nothing is kept open between calls."""

    def _addresses(self) -> tuple[str, ...]:
        return tuple(f"{n.address}:{PORT}" for n in self._nodes.values())

    def _topic_settings(self) -> dict[str, str]:
        return {key: text(value) for key, value in self._profile.settings.get("topic", {}).items()}

    def _views(self) -> Mapping[int, View]:
        return self._ask_all(view)

    def _ask_all(self, question: Callable[[str, int, float], T]) -> Mapping[int, T]:
        """Node id -> its answer, of those that answer in time; all are asked at once."""

        def ask(node: Node) -> T | None:
            try:
                return question(node.address, PORT, VIEW_TIMEOUT_S)
            except (OSError, ValueError):
                return None

        with ThreadPoolExecutor(len(self._nodes)) as pool:
            answers = pool.map(ask, self._nodes.values())
            return {i: a for i, a in zip(self._nodes, answers, strict=True) if a is not None}

    def _features(self) -> Mapping[str, int]:
        node = next(iter(self._nodes.values()))
        try:
            return features(node.address, PORT, VIEW_TIMEOUT_S)
        except (OSError, ValueError) as error:
            raise ClusterError(f"{node.name} does not tell its features: {error}") from error

    def _missing(self, views: Mapping[int, View]) -> str | None:
        """Why not every node has joined, or None."""
        for i, node in self._nodes.items():
            if i not in views:
                return f"{node.name} does not answer"
            absent = [self._nodes[j].name for j in self._nodes if j not in views[i].nodes]
            if absent:
                return f"{node.name} does not see {', '.join(absent)}"
        return None

    def _unready(self, views: Mapping[int, View]) -> str | None:
        """Why the cluster is not ready, or None."""
        if missing := self._missing(views):
            return missing
        for place in range(self._places):
            if any((self._topic, place) not in v.partitions for v in views.values()):
                return f"{self._topic}-{place} is not known to every node"
        return disagreement(list(views.values()))

    def _await(self, why_not: Callable[[Mapping[int, View]], str | None], timeout_s: float, why: str) -> None:
        last = "no node was asked yet"

        def ready() -> bool:
            nonlocal last
            last = why_not(self._views()) or ""
            return not last

        try:
            wait_until(ready, timeout_s, why)
        except WaitTimeout as error:
            raise ClusterError(f"{error}: {last}") from error

    @contextmanager
    def _admin(self, what: str) -> Iterator[AdminClient]:
        """A new AdminClient; a failed call in the block comes out as ClusterError."""
        try:
            yield admin_client(self._addresses(), {})
        except (KafkaException, TimeoutError) as error:
            raise ClusterError(f"Kafka did not {what}: {error}") from error


def admin_client(addresses: Sequence[str], access: Mapping[str, Value]) -> AdminClient:
    """A new AdminClient; raises KafkaException for settings that it does not take."""
    return AdminClient(_connection(addresses, access), logger=_log)


def _connection(addresses: Sequence[str], access: Mapping[str, Value]) -> dict[str, str | int | float | bool]:
    return {
        **access,
        "bootstrap.servers": ",".join(addresses),
        "socket.timeout.ms": int(ADMIN_TIMEOUT_S * 1000),
        "socket.connection.setup.timeout.ms": 2000,
        "reconnect.backoff.max.ms": 500,
    }


def describe(admin: AdminClient, kind: ResourceType, name: str) -> dict[str, str | None]:
    """Every setting of one node or topic as it is in force; None: Kafka does not tell the value."""
    resource = ConfigResource(kind, name)
    future = admin.describe_configs([resource], request_timeout=ADMIN_TIMEOUT_S)[resource]
    return {key: entry.value for key, entry in future.result(ADMIN_TIMEOUT_S + 1).items()}


def positions_of(admin: AdminClient, topic: str, places: Iterable[int], *, end: bool) -> dict[int, int]:
    """Place -> its next position (`end`), or its first."""
    spec = OffsetSpec.latest() if end else OffsetSpec.earliest()  # type: ignore[no-untyped-call]
    asked = {TopicPartition(topic, place): spec for place in places}
    answers = admin.list_offsets(asked, request_timeout=ADMIN_TIMEOUT_S)
    return {p.partition: future.result(ADMIN_TIMEOUT_S + 1).offset for p, future in answers.items()}


def check_clients(profile: Profile) -> None:
    """Raise SettingError for a `producer` or `consumer` key or value that the client library does not take."""
    kinds: tuple[tuple[str, type[Producer | Consumer], dict[str, Value]], ...] = (
        ("producer", Producer, {}),
        ("consumer", Consumer, {"group.id": GROUP}),
    )
    for table, kind, more in kinds:
        try:
            kind({**library_settings(profile.settings.get(table, {})), **more}, logger=_log)
        except KafkaException as error:
            raise SettingError(f"{table}: the client library says {error.args[0].str()!r}") from error


def features_in_force(asked: Mapping[str, Value], finalized: Mapping[str, int]) -> dict[str, str]:
    """`feature.<name>` -> level; one that is not finalized is at level 0. Raises SettingError."""
    levels = {**dict.fromkeys(asked, 0), **finalized}
    for name, level in asked.items():
        if levels[name] != level:
            raise SettingError(f"feature.{name} = {level} did not take: the cluster has {levels[name]}")
    return {f"feature.{name}": str(level) for name, level in sorted(levels.items())}


def disagreement(views: Sequence[View]) -> str | None:
    """Where the nodes' views differ, or agree on a partition that has no leader or not all replicas in sync; None
    when all is well."""
    for name in sorted({name for v in views for name in v.partitions}):
        seen = [v.partitions.get(name) for v in views]
        first, what = seen[0], f"{name[0]}-{name[1]}"
        if first is None or any(p is None or (p.leader, p.epoch) != (first.leader, first.epoch) for p in seen):
            return f"the nodes do not agree who leads {what}"
        if first.leader < 0:
            return f"{what} has no leader"
        for p in seen:
            if p is not None and set(p.in_sync) != set(p.replicas):
                return f"{what} has only {sorted(p.in_sync)} of {sorted(p.replicas)} in sync"
    return None


def check_taken(table: str, key: str, asked: Value, where: str, found: Mapping[str, str | None]) -> None:
    """Raise SettingError unless `found`, all settings read back from `where`, has `key` with the value asked for."""
    value = found.get(key)
    if value is None:
        close = difflib.get_close_matches(key, [k for k, v in found.items() if v is not None], 1)
        hint = f" (did you mean {close[0]!r}?)" if close else ""
        raise SettingError(f"{table}.{key} = {text(asked)} did not take: {where} does not know this setting{hint}")
    if not same(asked, value):
        raise SettingError(f"{table}.{key} = {text(asked)} did not take: {where} has {value}")


def text(value: Value) -> str:
    """A setting as Kafka writes it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def same(asked: Value, found: str) -> bool:
    """Whether a value read back is the one asked for: numbers by value, lists without regard to spaces, booleans in
    any case."""
    left, right = text(asked).strip(), found.strip()
    try:
        return float(left) == float(right)
    except ValueError:
        pass
    if right in ("true", "false"):
        return left.lower() == right
    return [part.strip() for part in left.split(",")] == [part.strip() for part in right.split(",")]


def _line(key: str, value: Value) -> str:
    """The value as it stands in a properties file."""
    line = text(value)
    if "\n" in line or "\n" in key:
        raise SettingError(f"broker.{key}: a setting of Kafka is one line")
    return line.replace("\\", "\\\\")
