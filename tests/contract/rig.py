"""What the contract suite stands on: one broker profile brought up, and a producer and readers under observation."""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from mqtest.body import decode, encode
from mqtest.brokers import Broker, BrokerModule, broker_module
from mqtest.clients import Client, ClientError, Consumer, client
from mqtest.clock import wait_until
from mqtest.cluster import Cluster
from mqtest.cluster.compose import bring_up
from mqtest.cluster.images import ensure_image
from mqtest.cluster.leftovers import close_run
from mqtest.cluster.locks import RunLock
from mqtest.cluster.memory import MemoryCluster
from mqtest.errors import ClusterError
from mqtest.model import Delivery, Outcome, Profile, Wiring
from mqtest.profile import find_profile, image_version

PLACES = 2
_numbers = itertools.count(1)
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """One row of the suite's table."""

    profile: str
    nodes: int = 3
    names_offsets: bool = True
    """its acknowledgements name the position"""
    reconnects: bool = False
    """its client library reconnects inside itself, so a lost connection is no failure"""

    @property
    def real(self) -> bool:
        """Whether it needs Docker."""
        return not self.profile.startswith("memory/")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rig:
    """A cluster that is up and ready, with its places made."""

    subject: Subject
    profile: Profile
    module: BrokerModule
    client: Client
    cluster: Cluster
    broker: Broker

    @property
    def names(self) -> list[str]:
        """All nodes."""
        return [node.name for node in self.cluster.nodes]

    def wiring(self, group: str = "contract") -> Wiring:
        """The broker's wiring, with a consumer group of the test's own."""
        return replace(self.broker.wiring(), group=group)

    def new_group(self) -> Wiring:
        """Wiring with a group that nobody used before."""
        return self.wiring(f"contract-{next(_numbers)}")


class Standing:
    """The cluster of the last subject. One whose nodes are configured alike takes it over, as it stands."""

    def __init__(self) -> None:
        self._configured: tuple[object, ...] = ()
        self._undo = ExitStack()
        self._cluster: Cluster | None = None

    def cluster(self, subject: Subject, profile: Profile, folder: Path) -> Cluster:
        """One for this subject, up. What is made in `folder` is the memory broker's."""
        environment = broker_module(profile.broker).environment(profile, subject.nodes)
        configured = profile.broker, subject.nodes, dict(environment)
        if self._cluster is None or configured != self._configured:
            self.close()
            if subject.real:
                self._cluster = _containers(subject, profile, environment, self._undo)
            else:
                self._cluster = MemoryCluster(folder, environment, subject.nodes)
            self._undo.callback(self._cluster.down)
            self._configured = configured
        return self._cluster

    def close(self) -> None:
        """Take it down."""
        self._cluster = None
        self._undo.close()


@contextmanager
def brought_up(subject: Subject, standing: Standing, folder: Path) -> Iterator[Rig]:
    """The subject's cluster, with a topic of its own, which goes on every way out."""
    profile = find_profile(subject.profile)
    module = broker_module(profile.broker)
    with ExitStack() as undo:
        cluster = standing.cluster(subject, profile, folder)
        broker = module.connect(profile, cluster.nodes, PLACES, f"contract-{profile.name}")
        undo.callback(broker.close)
        broker.await_nodes(120)
        broker.create_places()
        undo.callback(_removed, broker)
        broker.settle()
        broker.await_ready(60)
        yield Rig(
            subject=subject,
            profile=profile,
            module=module,
            client=client(profile.client),
            cluster=cluster,
            broker=broker,
        )


def _removed(broker: Broker) -> None:
    with suppress(ClusterError):  # of a cluster that a failed test left without nodes
        broker.remove_places()


def _containers(subject: Subject, profile: Profile, environment: Mapping[str, str], undo: ExitStack) -> Cluster:
    """A run of its own, with its agent, which `undo` ends."""
    run = f"contract-{os.getpid()}-{profile.broker}-{profile.name}"
    undo.enter_context(RunLock(run))
    undo.callback(close_run, run, print)
    return bring_up(
        broker=profile.broker,
        environment=environment,
        image=ensure_image(profile.broker, image_version(profile.broker), print),
        nodes=subject.nodes,
        run=run,
        cell=profile.name,
        fs="ext4",
        disk_mb=1024,
        timeout_s=120,
        progress=print,
    )


class Sender:
    """A producer with what it was told, and when it was told out of turn."""

    def __init__(self, rig: Rig, number: int = 0, epoch: int = 0) -> None:
        self.run = next(_numbers)
        self.number = number
        self.rows: dict[int, tuple[Outcome, int, int]] = {}
        """seq → (outcome, offset, place), the last word on it"""
        self.out_of_turn: list[int] = []
        """settled outside of send, poll and close, or in another thread"""
        self._turn: int | None = None
        self.inner = rig.client.open_producer(rig.wiring(), self._settle, number, epoch)

    def _settle(self, seq: int, outcome: Outcome, offset: int, place: int) -> None:
        if self._turn != threading.get_ident():
            self.out_of_turn.append(seq)
        self.rows[seq] = (outcome, offset, place)

    def body(self, seq: int, size: int = 64) -> bytes:
        """The message `seq` of this sender."""
        return encode(self.run, self.number, seq, 0, size)

    def hand_over(self, seq: int, place: int, body: bytes) -> bool:
        """One try to send, in turn."""
        with self._our_turn():
            return self.inner.send(seq, place, body)

    def send(self, seq: int, place: int, body: bytes, timeout_s: float = 10) -> None:
        """Send one message as soon as the client takes it."""

        def taken() -> bool:
            return self.hand_over(seq, place, body) or self.poll(0.01)

        wait_until(taken, timeout_s, f"message {seq} to be taken", poll_s=0)

    def poll(self, timeout_s: float) -> bool:
        """Poll once; False, for use in conditions."""
        with self._our_turn():
            self.inner.poll(timeout_s)
        return False

    def await_settled(self, wanted: int, timeout_s: float = 20) -> None:
        """Poll until `wanted` sends are settled."""
        wait_until(
            lambda: len(self.rows) >= wanted or self.poll(0.05) or len(self.rows) >= wanted,
            timeout_s,
            f"{wanted} answers",
            poll_s=0,
        )

    def close(self, timeout_s: float = 5) -> None:
        """Close the producer."""
        with self._our_turn():
            self.inner.close(timeout_s)

    @contextmanager
    def _our_turn(self) -> Iterator[None]:
        self._turn = threading.get_ident()
        try:
            yield
        finally:
            self._turn = None


def opened(open_client: Callable[[], T], timeout_s: float = 30) -> T:
    """What `open_client` opens, tried again as the workers do; for right after a restart."""
    return wait_until(open_client, timeout_s, "a client to connect", swallow=(ClientError,))


def read_until(
    source: Consumer, done: Callable[[Sequence[Delivery]], bool], why: str, *, ack: bool = True, timeout_s: float = 30
) -> list[Delivery]:
    """Poll, and acknowledge, until `done` says so of all that arrived; fails when the source does.

    Without acknowledgements a broker may hold back all but the first few hundred messages.
    """
    found: list[Delivery] = []

    def enough() -> bool:
        found.extend(source.poll(0.1))
        if ack:
            source.ack()
        assert source.failed is None
        return done(found)

    wait_until(enough, timeout_s, why, poll_s=0)
    return found


def holds(bodies: Sequence[bytes]) -> Callable[[Sequence[Delivery]], bool]:
    """Whether deliveries contain every one of these bodies."""
    wanted = set(bodies)
    seen = 0

    def complete(found: Sequence[Delivery]) -> bool:
        nonlocal seen
        wanted.difference_update(d.body for d in found[seen:])
        seen = len(found)
        return not wanted

    return complete


def own(deliveries: Sequence[Delivery], bodies: Sequence[bytes]) -> list[Delivery]:
    """Those of the deliveries that are of these bodies."""
    wanted = set(bodies)
    return [d for d in deliveries if d.body in wanted]


def seqs(deliveries: Sequence[Delivery], sender: Sender, place: int) -> list[int]:
    """Sequence numbers of a sender's messages in one place, as they were delivered."""
    headers = [(d.place, decode(d.body)) for d in deliveries]
    return [h.seq for at, h in headers if h and at == place and (h.run, h.producer) == (sender.run, sender.number)]
