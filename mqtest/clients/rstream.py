"""RabbitMQ streams by rstream, over the stream protocol: a second client for profiles of kind log.

Rules, and what they come from (rstream 1.1.1, rabbitmq_stream 4.3):
- A producer is connected to the leader of each stream, a consumer to one of its replicas, as rstream finds them: it
  asks a node for metadata, and goes to the host that the nodes advertise (compose.yaml).
- Publishing ids are the sequence numbers, of a publisher without a name: so RabbitMQ drops no duplicates, and nothing
  is sent twice. Sends go out in poll by `send_batch`: `send` would keep them up to half a second, and send a whole
  batch again when a part of it had failed.
- A confirm is ACKED. The one error code for a send that RabbitMQ gives before it appends (rabbit_stream_reader,
  `publish` of a publisher that there is not, or no longer) is REFUSED, any other is UNKNOWN.
- A chunk whose CRC is wrong ends rstream's listener, and so this client.
- Positions stand in stream_positions.py. The audit is pika's: another library, over another protocol, says what is
  there.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Final

import rstream
from rstream.exceptions import PublisherDoesNotExist

from mqtest.clients import ClientError, Settle, pika
from mqtest.clients.pika_link import queue_name
from mqtest.clients.pika_producer import PRODUCER as PIKA_PRODUCER
from mqtest.clients.rstream_link import Link, connect
from mqtest.clients.rstream_messages import decode, encode
from mqtest.clients.stream_positions import Positions
from mqtest.model import Delivery, Outcome, Value, Wiring

PRODUCER: Final[Mapping[str, Value]] = {"port": 5552, "heartbeat": 5, "frame_max": 1 << 20}
CONSUMER: Final[Mapping[str, Value]] = {"port": 5552, "heartbeat": 5, "frame_max": 1 << 20, "initial_credit": 10}
"""Settings of a profile, by rstream's names, with their defaults. The credit is in chunks, one more for each that came.
Those of AMQP 0-9-1 may stand there too, for one profile serves both clients: they change nothing here."""

_BATCH_BYTES: Final = 1 << 17
"""in one frame, unless one message is larger"""
_WAITING_BYTES: Final = 1 << 20
"""more than this not taken by the socket: blocked"""
_FRAME_BYTES: Final = 13
_ENTRY_BYTES: Final = 12
"""what a publish frame adds once, and for each message"""


class RstreamProducer:
    """See mqtest.clients.Producer."""

    def __init__(self, wiring: Wiring, settle: Settle, number: int, epoch: int) -> None:
        chosen = _options(wiring.producer, PRODUCER, PIKA_PRODUCER, "producer")
        self._settle = settle
        self._streams = [queue_name(wiring, place) for place in range(wiring.places)]
        self._told = [partial(self._note, place) for place in range(wiring.places)]
        """rstream keeps the open ids by callback, so each place has one"""
        self._answers: list[tuple[int, Outcome, int]] = []
        """(seq, outcome, place), since the last poll"""
        self._waiting: list[list[rstream.RawMessage]] = [[] for _ in self._streams]
        self._waiting_bytes = 0
        """in `_waiting`, and of what is being published"""
        self._publishing: Any = None
        """the task that publishes, while there is one"""
        turn = 0 if epoch == 0 else number + epoch
        self._link, self._producer = connect(
            rstream.Producer, wiring.addresses, turn, chosen, rstream.Producer.start, self._declare
        )
        most_bytes = min(client.frame_max for client in self._link.clients) - _FRAME_BYTES
        self._most_bytes = most_bytes - _ENTRY_BYTES
        """of one message"""
        self._batch_bytes = min(_BATCH_BYTES, most_bytes)

    @property
    def failed(self) -> str | None:
        """See Producer."""
        return self._link.failed

    @property
    def blocked(self) -> bool:
        """See Producer."""
        return self._waiting_bytes > _WAITING_BYTES

    def send(self, seq: int, place: int, body: bytes) -> bool:
        """See Producer. A message that is larger than a frame may be is refused: it would end the connection."""
        if self.failed is not None or self.blocked:
            return False
        message = encode(body)
        if len(message) > self._most_bytes:
            self._settle(seq, Outcome.REFUSED, -1, place)
        else:
            self._waiting[place].append(rstream.RawMessage(message, seq))
            self._waiting_bytes += len(message) + _ENTRY_BYTES
        return True

    def poll(self, timeout_s: float) -> None:
        """See Producer."""
        if self.failed is None and self._publishing is None and self._waiting_bytes:
            waiting, self._waiting = self._waiting, [[] for _ in self._streams]
            self._publishing = self._link.spawn(self._publish(waiting, self._waiting_bytes))
        self._link.step(timeout_s)
        self._settle_answers()

    def close(self, timeout_s: float) -> None:
        """See Producer."""
        self._link.step(0)
        self._link.close(self._producer.close, timeout_s)
        self._settle_answers()

    async def _declare(self, _link: Link, producer: rstream.Producer) -> None:
        """Connect to the leader of each stream now; rstream would do it with the first send."""
        for stream in self._streams:
            await producer._get_or_create_publisher(stream)

    async def _publish(self, waiting: Sequence[Sequence[rstream.RawMessage]], waiting_bytes: int) -> None:
        """Returns when the socket has taken all. Not after a failure: rstream would connect again for it."""
        for place, messages in enumerate(waiting):
            for batch in _cut(messages, self._batch_bytes):
                if self.failed is None:
                    await self._producer.send_batch(self._streams[place], batch, on_publish_confirm=self._told[place])
        self._waiting_bytes -= waiting_bytes
        self._publishing = None

    def _note(self, place: int, answer: rstream.ConfirmationStatus) -> None:
        """What became of one message. A negative code is rstream's own, for messages whose connection is gone: it is
        no answer, so they stay open."""
        if answer.is_confirmed:
            outcome = Outcome.ACKED
        elif answer.response_code == PublisherDoesNotExist.code:
            outcome = Outcome.REFUSED
        elif answer.response_code >= 0:
            outcome = Outcome.UNKNOWN
        else:
            return
        if not self._answers:
            self._link.wake()
        self._answers.append((answer.message_id, outcome, place))

    def _settle_answers(self) -> None:
        answers, self._answers = self._answers, []
        for seq, outcome, place in answers:
            self._settle(seq, outcome, -1, place)


class RstreamConsumer:
    """See mqtest.clients.Consumer."""

    def __init__(self, wiring: Wiring, places: Sequence[int], number: int, epoch: int) -> None:
        chosen = _options(wiring.consumer, CONSUMER, pika.CONSUMER, "consumer")
        self._credit = int(chosen.pop("initial_credit"))
        self._streams = {place: queue_name(wiring, place) for place in places}
        self._positions = Positions(wiring, places)
        self._arrived: list[tuple[int, int, bytes]] = []
        """(place, offset, message)"""
        self._seen: dict[int, int] = {}
        """place -> newest offset that poll returned and nobody acknowledged"""
        self._link, self._consumer = connect(
            rstream.Consumer, wiring.addresses, number + epoch, chosen, _locate, self._subscribe
        )

    @property
    def failed(self) -> str | None:
        """See Consumer."""
        return self._link.failed

    def poll(self, timeout_s: float) -> Sequence[Delivery]:
        """See Consumer."""
        end = time.monotonic() + timeout_s
        self._link.step(0)
        while not self._arrived and self.failed is None and (left := end - time.monotonic()) > 0:
            self._link.step(left)
        arrived, self._arrived = self._arrived, []
        self._seen.update((place, offset) for place, offset, _ in arrived)
        return [Delivery(place, offset, decode(message), False) for place, offset, message in arrived]

    def ack(self) -> None:
        """See Consumer."""
        for place, offset in self._seen.items():
            self._positions.acknowledged(place, offset)
        self._seen.clear()

    def close(self, timeout_s: float) -> None:
        """See Consumer."""
        self._link.close(self._consumer.close, timeout_s)

    async def _subscribe(self, link: Link, consumer: rstream.Consumer) -> None:
        self._arrived.clear()
        for place, stream in self._streams.items():
            at = self._positions.next(place)
            kind = rstream.OffsetType.FIRST if at is None else rstream.OffsetType.OFFSET
            await consumer.subscribe(
                stream,
                partial(self._take, link, place),
                offset_specification=rstream.ConsumerOffsetSpecification(kind, at),
                initial_credit=self._credit,
            )

    def _take(self, link: Link, place: int, message: Any, context: rstream.MessageContext) -> None:
        if not self._arrived:
            link.wake()
        self._arrived.append((place, context.offset, message))


def open_producer(wiring: Wiring, settle: Settle, number: int, epoch: int) -> RstreamProducer:
    """See mqtest.clients.Client."""
    return RstreamProducer(wiring, settle, number, epoch)


def open_consumer(wiring: Wiring, number: int, epoch: int, consumers: int) -> RstreamConsumer:
    """See mqtest.clients.Client. The places are shared out by number, as pika's are."""
    places = range(wiring.places)[number::consumers]
    if epoch == 0:
        Positions(wiring, places).forget()
    return RstreamConsumer(wiring, places, number, epoch)


def open_reader(wiring: Wiring, places: Sequence[int]) -> pika.PikaConsumer:
    """See mqtest.clients.Client."""
    known = {key: value for key, value in wiring.consumer.items() if key in pika.CONSUMER}
    return pika.open_reader(replace(wiring, consumer=known), places)


async def _locate(consumer: rstream.Consumer) -> None:
    await consumer.default_client


def _cut(waiting: Sequence[rstream.RawMessage], most_bytes: int) -> Iterator[list[rstream.RawMessage]]:
    """In batches of at most so many bytes, or of one message."""
    batch: list[rstream.RawMessage] = []
    batch_bytes = 0
    for message in waiting:
        message_bytes = len(message.data) + _ENTRY_BYTES
        if batch and batch_bytes + message_bytes > most_bytes:
            yield batch
            batch, batch_bytes = [], 0
        batch.append(message)
        batch_bytes += message_bytes
    if batch:
        yield batch


def _options(
    given: Mapping[str, Value], ours: Mapping[str, Value], of_amqp: Mapping[str, Value], table: str
) -> dict[str, Any]:
    """The profile's settings over the defaults; raises ClientError for one that neither client has."""
    for key in given:
        if key not in ours and key not in of_amqp:
            raise ClientError(f"rstream: {table}.{key}: no such setting; allowed: {', '.join(ours)}")
    return {key: given.get(key, default) for key, default in ours.items()}
