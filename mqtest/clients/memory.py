"""The client of the memory broker, and the template for a new one: Producer, Consumer and Reader over one connection.

Sends gather into one frame until the next poll or until BATCH_BYTES are there; answers settle them in `poll`. A
consumer has one fetch under way at a time, so it holds at most `prefetch` deliveries that nobody asked for yet.
Places of a log are shared out by number among the consumers of the group; in a queue they compete.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mqtest.clients import OPEN_TIMEOUT_S, ClientError, Settle
from mqtest.clients.memory_wire import Ack, Connection, Delivered, Describe, Fetch, Produce, Settled, Subscribe, known
from mqtest.clients.pipeline import Pipeline
from mqtest.model import Delivery, Kind, Outcome, Wiring

BATCH_BYTES = 64 * 1024
BACKLOG_BYTES = 4 * 1024 * 1024
"""more than this not taken by the broker: blocked"""


class MemoryProducer:
    """See mqtest.clients.Producer."""

    def __init__(self, wiring: Wiring, settle: Settle) -> None:
        known(wiring.producer, {}, "producer")
        self._settle = settle
        self._quiet = not wiring.acknowledged
        self._topic = wiring.topic
        self._batch: list[tuple[int, int, bytes]] = []
        self._batch_bytes = 0
        self._connection = _open(wiring)
        self._connection.ask(Describe(self._topic), OPEN_TIMEOUT_S)

    @property
    def failed(self) -> str | None:
        """See Producer."""
        return self._connection.failed

    @property
    def blocked(self) -> bool:
        """See Producer."""
        return self._connection.backlog_bytes > BACKLOG_BYTES

    def send(self, seq: int, place: int, body: bytes) -> bool:
        """See Producer."""
        if self.failed or self.blocked:
            return False
        self._batch.append((seq, place, body))
        self._batch_bytes += len(body)
        if self._batch_bytes >= BATCH_BYTES:
            self._hand_over()
        return True

    def poll(self, timeout_s: float) -> None:
        """See Producer."""
        self._hand_over()
        for answer in self._connection.pump(timeout_s):
            if isinstance(answer, Settled):
                for row in answer.rows:
                    self._settle(*row)

    def close(self, timeout_s: float) -> None:
        """See Producer."""
        self.poll(0)
        self._connection.close(timeout_s)

    def _hand_over(self) -> None:
        if not self._batch:
            return
        self._connection.put(Produce(self._quiet, self._batch, self._topic))
        if self._quiet:  # nobody will answer
            for seq, place, _ in self._batch:
                self._settle(seq, Outcome.UNKNOWN, -1, place)
        self._batch = []
        self._batch_bytes = 0


class MemoryConsumer:
    """See mqtest.clients.Consumer and Reader."""

    def __init__(self, wiring: Wiring, places: Sequence[int], group: str) -> None:
        options = known(wiring.consumer, {"prefetch": 500}, "consumer")
        self._fetch = Fetch(options["prefetch"])
        self._places = places
        self._last: dict[int, int] = {}
        self._connection = _open(wiring)
        described = self._connection.ask(Subscribe(list(places), group, wiring.topic), OPEN_TIMEOUT_S)
        self._starts = {place: described.places[place].start for place in places}
        self._connection.put(self._fetch)

    @property
    def failed(self) -> str | None:
        """See Consumer."""
        return self._connection.failed

    def starts(self) -> Mapping[int, int]:
        """See Reader."""
        return self._starts

    def poll(self, timeout_s: float) -> Sequence[Delivery]:
        """See Consumer."""
        deliveries: list[Delivery] = []
        for answer in self._connection.pump(timeout_s):
            if isinstance(answer, Delivered):
                deliveries += answer.deliveries
                self._connection.put(self._fetch)
        for delivery in deliveries:
            self._last[delivery.place] = delivery.offset
        return deliveries

    def ack(self) -> None:
        """See Consumer."""
        if self._last:
            self._connection.put(Ack(self._last))
            self._last = {}

    def close(self, timeout_s: float) -> None:
        """See Consumer."""
        self._connection.close(timeout_s)


def _open(wiring: Wiring) -> Connection:
    if not wiring.addresses:
        raise ClientError("memory broker: no address")
    return Connection(wiring.addresses[0], OPEN_TIMEOUT_S)


def open_producer(wiring: Wiring, settle: Settle, number: int, epoch: int) -> MemoryProducer:
    """See Client."""
    return MemoryProducer(wiring, settle)


def open_consumer(wiring: Wiring, number: int, epoch: int, consumers: int) -> MemoryConsumer:
    """See Client."""
    own = range(number, wiring.places, consumers) if wiring.kind is Kind.LOG else range(wiring.places)
    return MemoryConsumer(wiring, own, wiring.group)


def open_transformer(wiring: Wiring, number: int, epoch: int, transformers: int) -> Pipeline:
    """See Client."""
    return Pipeline(open_consumer, open_producer, wiring, number, epoch, transformers)


def open_reader(wiring: Wiring, places: Sequence[int]) -> MemoryConsumer:
    """See Client."""
    return MemoryConsumer(wiring, places, "")
