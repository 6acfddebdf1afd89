"""Kafka as a cluster of somebody else's, through the client library's AdminClient alone. See foreign.py.

Rules: whatever the cluster advertises is how it is reached, so its nodes are named HOST:PORT as it advertises them. A
node that is down or fenced is not among them. Nothing is asked of a node's own socket: it may want TLS.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient, NewTopic, ResourceType  # type: ignore[attr-defined]

from mqtest.brokers.foreign import Asked, Held, Members, ends, host_ports, wiring
from mqtest.brokers.kafka import ADMIN_TIMEOUT_S, DECISIVE, admin_client, describe, positions_of, text
from mqtest.errors import ClusterError, SettingError
from mqtest.model import Wiring

PROFILE: Final = "acks-all"
ACCESS: Final = (
    *("security.protocol", "sasl.mechanism", "sasl.mechanisms", "sasl.username", "sasl.password"),
    *("sasl.oauthbearer.method", "sasl.oauthbearer.client.id", "sasl.oauthbearer.client.secret"),
    *("sasl.oauthbearer.scope", "sasl.oauthbearer.token.endpoint.url", "sasl.oauthbearer.config"),
    *("sasl.kerberos.service.name", "sasl.kerberos.principal", "sasl.kerberos.keytab"),
    *("ssl.ca.location", "ssl.ca.pem", "ssl.certificate.location", "ssl.certificate.pem"),
    *("ssl.key.location", "ssl.key.pem", "ssl.key.password", "ssl.keystore.location", "ssl.keystore.password"),
    *("ssl.endpoint.identification.algorithm", "enable.ssl.certificate.verification"),
)

_OF_THE_TOPIC: Final = {
    "min.insync.replicas": "min.insync.replicas",
    "unclean.leader.election.enable": "unclean.leader.election.enable",
    "log.flush.interval.messages": "flush.messages",
    "log.flush.interval.ms": "flush.ms",
}
"""settings of a node that a topic can have for itself: our topic gets those of the profile"""
_COPIES: Final = 3
"""of a topic that is made, where there are so many nodes"""
_LOOK_S: Final = 2.0


def attach(asked: Asked) -> KafkaForeign:
    """See ForeignModule."""
    return KafkaForeign(asked)


class KafkaForeign:
    """See Foreign."""

    def __init__(self, asked: Asked) -> None:
        self._asked = asked
        self._addresses = host_ports(asked.at)
        self._places = 0
        self._begins: Mapping[int, int] = {}
        self._looking: AdminClient | None = None

    def found(self) -> Mapping[int, Held] | None:
        """See Foreign."""
        with self._admin("look for the topic") as admin:
            topics = admin.list_topics(timeout=ADMIN_TIMEOUT_S).topics  # all: naming one could make it
            if self._asked.topic not in topics:
                return None
            places = range(len(topics[self._asked.topic].partitions))
            first = positions_of(admin, self._asked.topic, places, end=False)
            end = positions_of(admin, self._asked.topic, places, end=True)
        return {place: Held(end[place] - first[place], end[place], 0) for place in places}

    def adopt(self, found: Mapping[int, Held]) -> None:
        """See Foreign."""
        self._places = len(found)
        self._begins = ends(self._asked, found)

    def create(self, places: int, replicas: int | None) -> None:
        """See Foreign. What the profile asks of the nodes, and a topic can have too, the topic gets."""
        settings = self._asked.profile.settings
        asked = {_OF_THE_TOPIC[k]: text(v) for k, v in settings.get("broker", {}).items() if k in _OF_THE_TOPIC}
        asked |= {key: text(value) for key, value in settings.get("topic", {}).items()}
        with self._admin("create the topic") as admin:
            copies = replicas or min(_COPIES, len(admin.list_topics(timeout=ADMIN_TIMEOUT_S).brokers))
            topic = NewTopic(self._asked.topic, num_partitions=places, replication_factor=copies, config=asked)
            made = admin.create_topics([topic], operation_timeout=ADMIN_TIMEOUT_S, request_timeout=ADMIN_TIMEOUT_S)
            try:
                made[self._asked.topic].result(ADMIN_TIMEOUT_S + 1)
            except KafkaException as error:
                if error.args[0].code() not in (KafkaError.INVALID_CONFIG, KafkaError.INVALID_REPLICATION_FACTOR):
                    raise
                raise SettingError(f"the topic was refused: Kafka says {error.args[0].str()!r}") from error
        self._places = places

    def remove(self) -> None:
        """See Foreign."""
        with self._admin("delete the topic") as admin:
            gone = admin.delete_topics([self._asked.topic], operation_timeout=ADMIN_TIMEOUT_S)
            gone[self._asked.topic].result(ADMIN_TIMEOUT_S + 1)

    def members(self) -> Members | None:
        """See Foreign; through one client that stays, so that a look costs one request."""
        try:
            self._looking = self._looking or self._new_admin()
            seen = self._looking.list_topics(self._asked.topic, timeout=_LOOK_S)
        except KafkaException:
            return Members((), None)
        names = {number: f"{node.host}:{node.port}" for number, node in seen.brokers.items()}
        topic = seen.topics.get(self._asked.topic)
        place = topic.partitions.get(0) if topic else None
        return Members(tuple(sorted(names.values())), names.get(place.leader) if place else None)

    def not_whole(self) -> str | None:
        """See Foreign."""
        with self._admin("list the replicas") as admin:
            seen = admin.list_topics(self._asked.topic, timeout=ADMIN_TIMEOUT_S).topics[self._asked.topic].partitions
        for number, partition in sorted(seen.items()):
            if partition.leader < 0:
                return f"partition {number} has no leader"
            if set(partition.isrs) != set(partition.replicas):
                return f"partition {number} has {sorted(partition.isrs)} of {sorted(partition.replicas)} in sync"
        return None if seen else "the topic"

    def version(self) -> str | None:
        """See Foreign: the protocol has no word for it."""
        return None

    def effective(self) -> Mapping[str, str]:
        """See Foreign: the topic's decisive settings, the nodes' defaults in them, and how many replicas it has."""
        with self._admin("read the topic's settings") as admin:
            values = describe(admin, ResourceType.TOPIC, self._asked.topic)
            seen = admin.list_topics(self._asked.topic, timeout=ADMIN_TIMEOUT_S).topics[self._asked.topic].partitions
        shown = {f"topic.{key}": values.get(key) or "" for key in DECISIVE["topic"]}
        return shown | {"topic.replicas": str(min((len(p.replicas) for p in seen.values()), default=0))}

    def leader(self, place: int) -> str | None:
        """See Reachable; of place 0 whichever is asked for."""
        members = self.members()
        return members.leader if members else None

    def remaining(self, positions: Mapping[int, int]) -> int:
        """See Reachable."""
        with self._admin("read the end positions") as admin:
            ends = positions_of(admin, self._asked.topic, range(self._places), end=True)
        read = {place: positions.get(place, self._begins.get(place, 0) - 1) for place in ends}
        return sum(max(0, end - read[place] - 1) for place, end in ends.items())

    def counts(self) -> Mapping[str, int]:
        """See Reachable: a client is not told."""
        return {}

    def wiring(self) -> Wiring:
        """See Reachable."""
        return wiring(self._asked, self._addresses, self._places, self._begins)

    def close(self) -> None:
        """See Reachable."""
        self._looking = None

    def _new_admin(self) -> Any:
        return admin_client(self._addresses, self._asked.access)

    @contextmanager
    def _admin(self, what: str) -> Iterator[Any]:
        """A new AdminClient; a failed call in the block comes out as ClusterError."""
        try:
            yield self._new_admin()
        except (KafkaException, TimeoutError) as error:
            raise ClusterError(f"Kafka did not {what}: {error}") from error
