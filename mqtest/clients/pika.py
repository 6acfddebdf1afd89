"""RabbitMQ by pika: how clients are opened; consumer and reader, each over one SelectConnection and one channel.

Rules:
- Callbacks only note what came (pika_link.py says why); it is handed on in poll. Producers stand in pika_producer.py.
- AMQP does not redirect: a client talks to the node that it chose, wherever the queue leads. Producers with epoch 0
  take the first address (the driver puts the leader of place 0 there), everybody else goes on round the list.
- A stream is read from `first`; a consumer with a later epoch goes on where stream_positions.py says.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

from pika import spec

from mqtest.bodies import Bodies, Ints
from mqtest.clients import OPEN_TIMEOUT_S, Arrived, Block, Settle, one_by_one
from mqtest.clients.pika_deliveries import stream_offset, take_deliveries
from mqtest.clients.pika_link import BUSY, GATHER_S, Link, connect, options, queue_name
from mqtest.clients.pika_producer import PRODUCER, FramesProducer, PikaProducer
from mqtest.clients.pipeline import Pipeline
from mqtest.clients.stream_positions import Positions
from mqtest.model import Delivery, Kind, Value, Wiring

CONSUMER: Final[Mapping[str, Value]] = {"heartbeat": 5, "prefetch": 300, "auto_ack": False, "receiver": "plain"}
"""`auto_ack`: the broker drops a message when it writes it to the connection, and prefetch bounds nothing. Of the
workload's consumers only, never of the audit. `receiver`: `plain` has pika decode each message, `frames` reads
deliveries out of what the socket gave, by the block where they are alike (pika_deliveries.py)"""
READER_PREFETCH: Final = 2000
"""for the audit; quorum queues take no more"""


class PikaConsumer:
    """See mqtest.clients.Consumer and Reader. `places` are consumed on one channel; `resume` keeps positions."""

    def __init__(self, wiring: Wiring, places: Sequence[int], turn: int, prefetch: int, resume: bool) -> None:
        chosen = options(wiring.consumer, CONSUMER, "consumer")
        self._stream = wiring.kind is Kind.LOG
        self._resume = resume
        self._places = {f"place-{place}": place for place in places}
        self._by_tag = {tag.encode(): place for tag, place in self._places.items()}
        self._frames = chosen["receiver"] == "frames"
        self._positions = Positions(wiring, places)
        self._arrived: list[Delivery | Block] = []
        self._first: dict[int, int] = {}
        self._tag = 0
        """of the newest delivery that arrived"""
        self._handed_on = 0
        """of the newest delivery that poll returned"""
        self._busy = False
        self._unacked = 0
        """of the newest delivery that poll returned and nobody acknowledged; 0: none"""
        self._seen: dict[int, int] = {}
        self._queues = {place: queue_name(wiring, place) for place in places}
        self._prefetch = prefetch or int(chosen["prefetch"])
        self._auto_ack = resume and bool(chosen["auto_ack"])
        self.late: Arrived = ()
        """what came while it was closing and the broker gave up for good"""
        heartbeat = int(chosen["heartbeat"])
        self._link = connect(wiring.addresses, turn, self._prepare, heartbeat=heartbeat, access=wiring.access)

    @property
    def failed(self) -> str | None:
        """See Consumer."""
        return self._link.failed

    def starts(self) -> Mapping[int, int]:
        """Position of the first message that the stream handed out from `first`; 0 for a queue, and for a place
        that handed out nothing within OPEN_TIMEOUT_S."""
        if self._stream:
            end = time.monotonic() + OPEN_TIMEOUT_S
            while len(self._first) < len(self._places) and self.failed is None and time.monotonic() < end:
                self._link.step(end - time.monotonic())
        return {place: self._first.get(place, 0) if self._stream else 0 for place in self._places.values()}

    def poll(self, timeout_s: float) -> Sequence[Delivery]:
        """See Consumer."""
        return one_by_one(self.poll_blocks(timeout_s))

    def poll_blocks(self, timeout_s: float) -> Arrived:
        """See BlockConsumer; blocks come only with the receiver `frames`."""
        end = time.monotonic() + timeout_s
        if self._busy and timeout_s >= GATHER_S:
            time.sleep(GATHER_S)
        self._link.step(0)
        while not self._arrived and self.failed is None and (left := end - time.monotonic()) > 0:
            self._link.step(left)
        arrived, self._arrived = self._arrived, []
        if arrived:
            self._busy = self._frames and self._tag - self._handed_on >= BUSY
            self._unacked = self._handed_on = self._tag
            if self._stream and self._resume:
                self._seen.update((item.place, _last(item)) for item in arrived)
        return arrived

    def ack(self) -> None:
        """See Consumer."""
        if self._unacked and self.failed is None and not self._auto_ack:
            self._link.channel.basic_ack(self._unacked, multiple=True)
            self._link.step(0)
        self._unacked = 0
        for place, offset in self._seen.items():
            self._positions.acknowledged(place, offset)
        self._seen.clear()

    def close(self, timeout_s: float) -> None:
        """See Consumer. With auto_ack what is under way is waited for and left in `late`: nobody gets it again."""
        if self._auto_ack:
            self._await_late(timeout_s)
        self._link.close(timeout_s)

    def _await_late(self, timeout_s: float) -> None:
        """Cancel the consumers; what was written before the broker's answer arrives before it. (Not by basic_cancel,
        after which pika throws such deliveries away.)"""
        cancelled: list[Any] = []
        if self.failed is None:
            for tag in self._places:
                answer = (spec.Basic.CancelOk, {"consumer_tag": tag})
                self._link.channel._rpc(spec.Basic.Cancel(consumer_tag=tag), cancelled.append, [answer])
        end = time.monotonic() + timeout_s
        while self.failed is None and len(cancelled) < len(self._places) and (left := end - time.monotonic()) > 0:
            self._link.step(left)
        self.late, self._arrived = self._arrived, []

    def _prepare(self, link: Link, timeout_s: float) -> None:
        """Consume every place; refused where a stream has no running replica on this node."""
        self._arrived.clear()
        self._first.clear()
        ready: list[Any] = []
        if self._frames:
            take_deliveries(link.connection, self._take, self._take_alike)
        link.channel.basic_qos(prefetch_count=self._prefetch)
        link.channel.add_on_cancel_callback(
            lambda frame: link.fail(f"the broker cancelled the consumer {frame.method.consumer_tag}")
        )
        for consumer_tag, place in self._places.items():
            link.channel.basic_consume(
                self._queues[place],
                self._deliver,
                auto_ack=self._auto_ack,
                consumer_tag=consumer_tag,
                arguments=self._arguments(place),
                callback=ready.append,
            )
        link.wait(lambda: len(ready) == len(self._places), timeout_s, "the queues")

    def _arguments(self, place: int) -> dict[str, Any] | None:
        if not self._stream:
            return None
        at = self._positions.next(place) if self._resume else None
        return {"x-stream-offset": "first" if at is None else at}

    def _deliver(self, _channel: Any, method: Any, properties: Any, body: bytes) -> None:
        offset = int(properties.headers["x-stream-offset"]) if self._stream else method.delivery_tag
        self._note(self._places[method.consumer_tag], method.delivery_tag, offset, body, bool(method.redelivered))

    def _take(self, consumer_tag: bytes, tag: int, redelivered: bool, header: bytes, body: bytes) -> None:
        offset = stream_offset(header) if self._stream else tag
        self._note(self._by_tag[consumer_tag], tag, offset, body, redelivered)

    def _take_alike(self, consumer_tag: bytes, tags: Ints, offsets: Ints | None, bodies: Bodies) -> None:
        place = self._by_tag[consumer_tag]
        block = Block(place, tags if offsets is None else offsets, bodies)
        self._first.setdefault(place, int(block.offsets[0]))
        self._tag = int(tags[-1])
        self._arrived.append(block)

    def _note(self, place: int, tag: int, offset: int, body: bytes, redelivered: bool) -> None:
        self._first.setdefault(place, offset)
        self._tag = tag
        self._arrived.append(Delivery(place, offset, body, redelivered))


def open_producer(wiring: Wiring, settle: Settle, number: int, epoch: int) -> PikaProducer:
    """See mqtest.clients.Client."""
    frames = options(wiring.producer, PRODUCER, "producer")["publisher"] == "frames"
    return (FramesProducer if frames else PikaProducer)(wiring, settle, number, epoch)


def open_consumer(wiring: Wiring, number: int, epoch: int, consumers: int) -> PikaConsumer:
    """See mqtest.clients.Client. Consumers compete for a queue; the places of a stream are shared out by number."""
    places = range(wiring.places)
    if wiring.kind is Kind.LOG:
        places = places[number::consumers]
    if epoch == 0:
        Positions(wiring, places).forget()
    return PikaConsumer(wiring, places, number + epoch, 0, resume=True)


def open_transformer(wiring: Wiring, number: int, epoch: int, transformers: int) -> Pipeline:
    """See mqtest.clients.Client."""
    return Pipeline(open_consumer, open_producer, wiring, number, epoch, transformers)


def open_reader(wiring: Wiring, places: Sequence[int]) -> PikaConsumer:
    """See mqtest.clients.Client."""
    return PikaConsumer(wiring, places, 0, READER_PREFETCH, resume=False)


def _last(item: Delivery | Block) -> int:
    return int(item.offsets[-1]) if isinstance(item, Block) else item.offset
