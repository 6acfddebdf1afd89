"""What mqtest asks of a cluster that somebody else runs: the protocol Foreign, and how its module is found.

`mqtest attach` drives and judges such a cluster; whoever runs it also breaks it. Rules:
- Nothing is started, stopped or deleted there but the topic (queues) that the run made, and that only when asked.
- What holds messages of others is not written to without the user's word; a queue never, for reading would take them.
- Addresses are those that a client needs, no more: who is alive and who leads is told where a client can know it.
The module of broker `x` is `mqtest/brokers/x_foreign.py`; a broker without one cannot be attached to.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, cast

from mqtest.brokers import BROKERS, Reachable
from mqtest.errors import UsageError
from mqtest.model import Kind, Profile, Value, Wiring


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What to attach to."""

    profile: Profile
    """for the settings of its clients and its promise"""
    at: str
    """where, as the user wrote it"""
    topic: str
    """RabbitMQ: place p is the queue `<topic>-<p>`"""
    group: str
    access: Mapping[str, Value] = field(default_factory=dict, repr=False)


class Held(NamedTuple):
    """What one place holds."""

    messages: int
    end: int
    """log: the next position"""
    consumers: int
    """queue: of others"""


class Members(NamedTuple):
    """Who is there, by the cluster's own word."""

    alive: tuple[str, ...]
    """empty: nobody answered"""
    leader: str | None
    """of place 0"""


class Foreign(Reachable, Protocol):
    """One cluster of somebody else's. Every call is bounded and raises ClusterError."""

    def found(self) -> Mapping[int, Held] | None:
        """What each place of the topic holds; None when there is no such topic."""

    def adopt(self, found: Mapping[int, Held]) -> None:
        """Use the places that are there, from their ends on."""

    def create(self, places: int, replicas: int | None) -> None:
        """Make the topic, with the profile's `topic` settings; without a number with the replicas that a careful owner
        gives it (three of Kafka and a quorum queue). Raises SettingError for a setting that the broker refuses."""

    def remove(self) -> None:
        """Delete the topic."""

    def members(self) -> Members | None:
        """Who is there now; None where a client cannot know."""

    def not_whole(self) -> str | None:
        """What is missing until every replica of the topic is in sync; None when nothing is, or nobody can tell."""

    def version(self) -> str | None:
        """The broker's own word, where it gives one to clients."""

    def effective(self) -> Mapping[str, str]:
        """Settings in force that bear on an acknowledgement, as far as a client may read them: `table.key` -> text."""


class ForeignModule(Protocol):
    """A module `<broker>_foreign`."""

    PROFILE: str
    """the profile that is taken when none is named: the safest that promises nothing of the nodes' own settings"""
    ACCESS: Sequence[str]
    """the keys of credentials and TLS"""

    def attach(self, asked: Asked) -> Foreign:
        """A driver for the cluster there; raises UsageError for an address that cannot be one."""


def foreign_module(broker: str) -> ForeignModule:
    """The module of that broker; raises UsageError."""
    if broker not in BROKERS:
        raise UsageError(f"broker {broker!r} is not known: one of {', '.join(BROKERS)}")
    return cast("ForeignModule", importlib.import_module(f"{BROKERS[broker]}_foreign"))


def host_ports(at: str) -> tuple[str, ...]:
    """`a:1,b:2` → its parts; raises UsageError for one that is not HOST:PORT. Login data has no place in it."""
    parts = tuple(part.strip() for part in at.split(",") if part.strip())
    for part in parts:
        host, _, port = part.rpartition(":")
        if not host or not port.isdecimal() or "@" in part:
            raise UsageError("an address is HOST:PORT, several with commas between; credentials come from a file")
    if not parts:
        raise UsageError("no address given: HOST:PORT, several with commas between")
    return parts


def ends(asked: Asked, found: Mapping[int, Held]) -> Mapping[int, int]:
    """Where a cell begins in places that were there before; a queue is empty, and has no positions."""
    return {place: held.end for place, held in found.items()} if asked.profile.kind is Kind.LOG else {}


def wiring(asked: Asked, addresses: tuple[str, ...], places: int, begins: Mapping[int, int]) -> Wiring:
    """What clients need."""
    profile = asked.profile
    return Wiring(
        broker=profile.broker,
        client=profile.client,
        kind=profile.kind,
        acknowledged=profile.acknowledged,
        addresses=addresses,
        topic=asked.topic,
        places=places,
        group=asked.group,
        producer=profile.settings.get("producer", {}),
        consumer=profile.settings.get("consumer", {}),
        topic_settings=profile.settings.get("topic", {}),
        access=asked.access,
        begins=begins,
    )
