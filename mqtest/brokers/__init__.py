"""What mqtest must be able to ask of a broker: the protocol Broker, and the table of brokers.

A broker is one module here and one folder in compose/. The module has `environment` (how a profile becomes the
variables of compose.yaml), `NO_TARGETS` (whom a fault cannot hit there), perhaps `NO_FAULTS`, and `connect`. It
brings the cluster ready,
finds the leader, reads settings back, and says what is left to consume. It never produces or consumes; clients do.
Every call is bounded and raises ClusterError; "ready" is what the broker itself says, never an open port.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, cast

from mqtest.errors import UsageError
from mqtest.model import Node, Profile, Wiring

TOPIC = "mqtest"


class Reachable(Protocol):
    """What can be asked of any cluster that carries a cell, ours or not."""

    def leader(self, place: int) -> str | None:
        """Name of the node that leads the place (RabbitMQ classic: hosts it), or None while there is none."""

    def remaining(self, positions: Mapping[int, int]) -> int:
        """Messages that consumers have still to get. Log: end positions beyond `positions` (place -> last offset
        read, absent: nothing read). Queue: ready + unacknowledged, `positions` ignored."""

    def committed(self) -> Mapping[int, tuple[int, int]]:
        """Log: place -> what the cell's group has committed there (the next position to read), and the end of the log.
        Places where nothing is committed are left out; empty where the broker keeps no such positions."""

    def counts(self) -> Mapping[str, int]:
        """Queue: the broker's own numbers, over all places: `ready` and `unacked`, as old as its last tick; and
        where it keeps them, since the last start of the node, `published` and `delivered`. Log, and where nobody
        tells: empty."""

    def wiring(self) -> Wiring:
        """What clients need."""

    def close(self) -> None:
        """Drop admin connections."""


class Broker(Reachable, Protocol):
    """One running cluster of one cell. Constructed before the nodes answer; `await_nodes` comes first."""

    def await_nodes(self, timeout_s: float) -> None:
        """Until every node is up and has joined, by the broker's own word."""

    def create_places(self) -> None:
        """Make the topic or queues of the cell, with the profile's `topic` settings, one replica on every node
        (where the profile replicates)."""

    def settle(self) -> None:
        """Bring a cluster that has just started to the state of one that has run for a while, where that changes
        what it survives; nothing, with most brokers. A hasty cell leaves it out: the first start is its question."""

    def await_ready(self, timeout_s: float) -> None:
        """Until every place has a leader, and every replica is in sync and known to the broker (full ISR, all
        members online, full SyncStateSet, topic on every replica). Used after bring-up and after a heal."""

    def version(self) -> str:
        """The broker's own word."""

    def effective(self) -> Mapping[str, str]:
        """The settings in force, read back from the broker, as `table.key` -> text (`broker.…`, `topic.…`); at
        least every key of the profile's broker and topic tables. Raises SettingError, which names the setting,
        when one did not take on some node."""

    def remove_places(self) -> None:
        """Delete the topic or queues, with what is in them; nothing, where that would free no disk."""

    def controller(self) -> str | None:
        """Name of the node that decides who leads (Kafka: the active KRaft controller; RocketMQ: the leading
        controller). None while there is none, and for a broker that has none or does not tell."""


@dataclass(frozen=True, slots=True)
class Door:
    """Where a node waits for clients that come through a proxy."""

    port: int
    greeting: bytes
    """what a client may say first; every node answers it at once, whatever it leads"""


class BrokerModule(Protocol):
    """A module of this package."""

    NO_TARGETS: Sequence[str]
    """of targets.TARGETS"""
    NO_FAULTS: Sequence[str]
    """of faults.FAULTS; absent where there is nothing to leave out"""
    DOOR: Door
    """absent where no proxy can stand between"""

    def environment(self, profile: Profile, nodes: int) -> Mapping[str, str]:
        """Variables for compose.yaml that carry the profile's settings."""

    def connect(self, profile: Profile, nodes: Sequence[Node], places: int, topic: str = TOPIC) -> Broker:
        """A driver for the cluster made of these nodes, and this topic."""


BROKERS: Mapping[str, str] = {
    "memory": "mqtest.brokers.memory",
    "kafka": "mqtest.brokers.kafka",
    "rabbitmq": "mqtest.brokers.rabbitmq",
    "rocketmq": "mqtest.brokers.rocketmq",
}


def broker_module(name: str) -> BrokerModule:
    """The module of that broker; raises UsageError when there is none."""
    if name not in BROKERS:
        raise UsageError(f"broker {name!r} is not known: one of {', '.join(BROKERS)}")
    return cast("BrokerModule", importlib.import_module(BROKERS[name]))
