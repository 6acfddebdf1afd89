"""The driver of the memory broker, and the template for a new one: see Broker for what each call must do.

The broker is a process of ours on a local socket (memory_server.py): one node, no replicas, no network to cut. Each
question is a connection of its own, so there is nothing to keep up across a kill.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing

import msgspec

from mqtest.brokers import TOPIC
from mqtest.brokers.memory_dials import SETTINGS, text
from mqtest.clients import ClientError, memory_wire
from mqtest.clock import wait_until
from mqtest.errors import ClusterError, SettingError, UsageError
from mqtest.model import Kind, Node, Profile, Wiring

NO_TARGETS: Sequence[str] = ("follower", "controller", "other", "minority", "majority")
BRING_UP_S = 0.5
"""from nothing to the first acknowledgement, seen on two cores; for the plan's guess"""
FAULTS: Sequence[str] = ("kill", "stop", "pause", "power-cut", "restart", "rolling-restart")
"""no partition: one node has no peers"""
_GROUP = "mqtest"
_ANSWER_S = 2.0


def environment(profile: Profile, nodes: int) -> Mapping[str, str]:
    """See BrokerModule; raises UsageError for more than one node."""
    if nodes != 1:
        raise UsageError(f"nodes: the memory broker has one node, not {nodes}")
    return {SETTINGS: msgspec.json.encode(profile.settings.get("broker", {})).decode()}


def connect(profile: Profile, nodes: Sequence[Node], places: int, topic: str = TOPIC) -> MemoryBroker:
    """See BrokerModule."""
    return MemoryBroker(profile, nodes[0], places, topic)


class MemoryBroker:
    """See mqtest.brokers.Broker."""

    def __init__(self, profile: Profile, node: Node, places: int, topic: str) -> None:
        self._profile = profile
        self._topic = topic
        self._node = node
        self._places = places

    def await_nodes(self, timeout_s: float) -> None:
        """See Broker."""
        wait_until(self._describe, timeout_s, f"{self._node.name} to answer", swallow=(ClusterError,))

    def create_places(self) -> None:
        """See Broker."""
        for key in self._profile.settings.get("topic", {}):
            raise SettingError(f"topic.{key}: the memory broker has no such setting")
        self._ask(memory_wire.Create(self._profile.kind, self._places, self._topic))

    def settle(self) -> None:
        """It is."""

    def await_ready(self, timeout_s: float) -> None:
        """See Broker."""
        wait_until(
            lambda: len(self._describe().places) == self._places,
            timeout_s,
            f"{self._places} places on {self._node.name}",
            swallow=(ClusterError,),
        )

    def version(self) -> str:
        """See Broker."""
        return self._describe().version

    def effective(self) -> Mapping[str, str]:
        """See Broker."""
        settings = self._describe().settings
        for key, asked in self._profile.settings.get("broker", {}).items():
            if key not in settings:
                raise SettingError(f"broker.{key}: asked for {text(asked)}, and the broker has no such setting")
            if settings[key] != text(asked):
                raise SettingError(f"broker.{key}: asked for {text(asked)}, in force is {settings[key]}")
        return {f"broker.{key}": value for key, value in settings.items()}

    def leader(self, place: int) -> str | None:
        """See Broker."""
        try:
            return self._node.name if place < len(self._describe().places) else None
        except ClusterError:
            return None

    def remove_places(self) -> None:
        """See Broker: they end with it."""

    def controller(self) -> str | None:
        """See Broker: nobody is elected."""
        return None

    def committed(self) -> Mapping[int, tuple[int, int]]:
        """See Broker."""
        places = enumerate(self._describe().places)
        return {place: (state.committed[_GROUP], state.end) for place, state in places if _GROUP in state.committed}

    def counts(self) -> Mapping[str, int]:
        """See Broker."""
        if self._profile.kind is Kind.LOG:
            return {}
        places = self._describe().places
        return {"ready": sum(p.ready for p in places), "unacked": sum(p.unacked for p in places)}

    def remaining(self, positions: Mapping[int, int]) -> int:
        """See Broker."""
        places = self._describe().places
        if self._profile.kind is Kind.LOG:
            return sum(max(0, state.end - positions.get(place, -1) - 1) for place, state in enumerate(places))
        return sum(state.ready + state.unacked for state in places)

    def wiring(self) -> Wiring:
        """See Broker."""
        return Wiring(
            broker=self._profile.broker,
            client=self._profile.client,
            kind=self._profile.kind,
            acknowledged=self._profile.acknowledged,
            addresses=(self._node.address,),
            topic=self._topic,
            places=self._places,
            group=_GROUP,
            producer=self._profile.settings.get("producer", {}),
            consumer=self._profile.settings.get("consumer", {}),
            topic_settings=self._profile.settings.get("topic", {}),
        )

    def close(self) -> None:
        """See Broker: nothing is kept open."""

    def _describe(self) -> memory_wire.Described:
        return self._ask(memory_wire.Describe(self._topic))

    def _ask(self, request: memory_wire.Describe | memory_wire.Create) -> memory_wire.Described:
        try:
            with closing(memory_wire.Connection(self._node.address, _ANSWER_S)) as connection:
                return connection.ask(request, _ANSWER_S)
        except ClientError as error:
            raise ClusterError(f"{self._node.name}: {error}") from error
