"""The memory broker brought up for a test: what tests of it, and of what runs on it, share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from mqtest.body import decode, encode
from mqtest.brokers import memory
from mqtest.brokers.memory import MemoryBroker
from mqtest.clients.memory import MemoryProducer, open_producer, open_reader
from mqtest.clock import wait_until
from mqtest.cluster.memory import MemoryCluster
from mqtest.model import Delivery, Kind, Outcome, Profile, Value
from mqtest.profile import find_profile
from tests.polling import PATIENCE_S

NODE = ["memory-1"]


def profile(dials: Mapping[str, Value], kind: Kind = Kind.LOG, *, acknowledged: bool = True) -> Profile:
    """A profile of the memory broker with just these dials."""
    base = find_profile("memory/log-safe")
    return replace(base, kind=kind, acknowledged=acknowledged, settings={"broker": dials})


def gather(poll: Callable[[float], Sequence[Delivery]], wanted: int) -> list[Delivery]:
    """Poll until there are `wanted` deliveries or more."""
    found: list[Delivery] = []

    def enough() -> bool:
        found.extend(poll(0.01))
        return len(found) >= wanted

    wait_until(enough, PATIENCE_S, f"{wanted} deliveries", poll_s=0)
    return found


def seqs(deliveries: Sequence[Delivery]) -> list[int | None]:
    """The sequence number of each delivery, None for a corrupt one."""
    headers = [decode(d.body) for d in deliveries]
    return [None if h is None else h.seq for h in headers]


class Producing:
    """A producer with what it was told: seq → (outcome, offset)."""

    def __init__(self, broker: MemoryBroker) -> None:
        self.rows: dict[int, tuple[Outcome, int]] = {}
        self.inner: MemoryProducer = open_producer(broker.wiring(), self._settle, 0, 0)

    def _settle(self, seq: int, outcome: Outcome, offset: int, place: int) -> None:
        self.rows[seq] = (outcome, offset)

    def await_settled(self, wanted: int) -> None:
        """Poll until `wanted` sends are settled."""

        def enough() -> bool:
            self.inner.poll(0.01)
            return len(self.rows) >= wanted

        wait_until(enough, PATIENCE_S, f"{wanted} answers", poll_s=0)

    def close(self) -> None:
        """Close the producer."""
        self.inner.close(1)


@dataclass(frozen=True, slots=True)
class Rig:
    """A running memory broker with one place."""

    cluster: MemoryCluster
    broker: MemoryBroker

    def send(self, numbers: Sequence[int]) -> dict[int, tuple[Outcome, int]]:
        """Send in one frame and wait until all are settled: seq → (outcome, offset)."""
        with closing(Producing(self.broker)) as producer:
            for seq in numbers:
                assert producer.inner.send(seq, 0, encode(1, 0, seq, 0, 64))
            producer.await_settled(len(numbers))
            return producer.rows

    def read(self) -> list[Delivery]:
        """All that the broker says is there, read from the start."""
        reader = open_reader(self.broker.wiring(), [0])
        try:
            return gather(reader.poll, self.broker.remaining({}))
        finally:
            reader.close(1)

    def restart(self) -> None:
        """Start the node again and wait until it is ready."""
        self.cluster.start(NODE)
        self.broker.await_ready(PATIENCE_S)


@contextmanager
def running(folder: Path, asked: Profile) -> Iterator[Rig]:
    """Bring a memory broker up; take it down on every way out."""
    cluster = MemoryCluster(folder, memory.environment(asked, 1), 1)
    try:
        broker = memory.connect(asked, cluster.nodes, 1)
        broker.await_nodes(PATIENCE_S)
        broker.create_places()
        yield Rig(cluster, broker)
    finally:
        cluster.down()
