"""RabbitMQ by pika: producer, consumer and reader, each over one SelectConnection and one channel.

Rules:
- Callbacks only note what came (pika_link.py says why); it is settled or handed on in send, poll and close.
- A producer publishes to the default exchange with the queue `<topic>-<place>` as routing key. Confirms name delivery
  tags; tags start at 1 on each channel. A message that comes back (basic.return, before its ack) is RETURNED whatever
  the ack says; a nack says only that the broker takes no responsibility: UNKNOWN.
- AMQP does not redirect: a client talks to the node that it chose, wherever the queue leads. Producers with epoch 0
  take the first address (the driver puts the leader of place 0 there), everybody else goes on round the list.
- A stream is read from `first`. RabbitMQ leaves positions to the consumer, so ours are kept here, in the process: a
  consumer with a later epoch goes on behind what its predecessor acknowledged.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import pika
import pika.exceptions
import pika.frame
from pika import spec

from mqtest import body as message
from mqtest.clients import OPEN_TIMEOUT_S, ClientError, Settle
from mqtest.clients.pika_deliveries import stream_offset, take_deliveries
from mqtest.clients.pika_link import Link
from mqtest.model import Delivery, Kind, Outcome, Value, Wiring

PRODUCER: Final[Mapping[str, Value]] = {
    "heartbeat": 5,
    "blocked_connection_timeout": 30,
    "mandatory": True,
    "delivery_mode": 2,
    "publisher": "plain",
}
"""Settings of a profile's `producer` table, with their defaults. `publisher`: `plain` marshals each message by
basic_publish; `frames` marshals method and header once for each place and size, and splices the body in."""
CONSUMER: Final[Mapping[str, Value]] = {"heartbeat": 5, "prefetch": 300, "auto_ack": False, "receiver": "plain"}
"""`auto_ack`: the broker drops a message when it writes it to the connection, and prefetch bounds nothing. Of the
workload's consumers only, never of the audit. `receiver`: `plain` has pika decode each message, `frames` reads
deliveries out of what the socket gave (pika_deliveries.py)"""
READER_PREFETCH: Final = 2000
"""for the audit; quorum queues take no more"""

_BACKLOG_BYTES: Final = 4 * 1024 * 1024
"""more than this not taken by the socket: blocked"""
_BATCH: Final = 100
"""`frames` hands the connection so many messages in one piece"""
_FRAME_END: Final = b"\xce"

_positions: dict[tuple[str, ...], int] = {}
"""(addresses…, group, queue) -> next position of a stream that this process's consumer wants"""


class PikaProducer:
    """See mqtest.clients.Producer."""

    def __init__(self, wiring: Wiring, settle: Settle, number: int, epoch: int) -> None:
        options = _options(wiring.producer, PRODUCER, "producer")
        self._settle = settle
        self._confirms = wiring.acknowledged
        self._mandatory = bool(options["mandatory"])
        self._frames = options["publisher"] == "frames"
        self._queues = [_queue(wiring, place) for place in range(wiring.places)]
        self._properties = pika.BasicProperties(delivery_mode=int(options["delivery_mode"]))
        self._tag = 0
        self._lowest = 1
        self._open: dict[int, tuple[int, int]] = {}
        self._returned: set[int] = set()
        self._events: list[Any] = []
        """what came since the last poll: confirms as pika gives them, returns as (routing key, body)"""
        self._heads: dict[tuple[int, int], bytes] = {}
        self._batch: list[bytes] = []
        turn = 0 if epoch == 0 else number + epoch
        self._link = _connect(
            wiring.addresses,
            turn,
            self._prepare,
            heartbeat=int(options["heartbeat"]),
            blocked_timeout_s=float(options["blocked_connection_timeout"]),
            access=wiring.access,
        )

    @property
    def failed(self) -> str | None:
        """See Producer."""
        return self._link.failed

    @property
    def blocked(self) -> bool:
        """See Producer."""
        return self._link.blocked or self._link.backlog_bytes > _BACKLOG_BYTES

    def send(self, seq: int, place: int, body: bytes) -> bool:
        """See Producer."""
        if self.failed is not None or self.blocked:
            return False
        if self._frames and len(body) <= self._link.connection._body_max_length:
            self._splice(place, body)
        else:
            self._flush()
            try:
                self._link.channel.basic_publish("", self._queues[place], body, self._properties, self._mandatory)
            except (pika.exceptions.ChannelWrongStateError, pika.exceptions.ConnectionWrongStateError):
                return False  # closing: raised before anything is marshalled
        if self._confirms:
            self._tag += 1
            self._open[self._tag] = (seq, place)
        else:
            self._settle(seq, Outcome.UNKNOWN, -1, place)
        return True

    def poll(self, timeout_s: float) -> None:
        """See Producer."""
        self._flush()
        self._link.step(timeout_s)
        self._settle_events()

    def close(self, timeout_s: float) -> None:
        """See Producer."""
        self._flush()
        self._link.step(0)
        self._link.close(timeout_s)
        self._settle_events()

    def _prepare(self, link: Link, timeout_s: float) -> None:
        link.channel.add_on_return_callback(
            lambda _channel, method, _properties, text: self._events.append((method.routing_key, text))
        )
        if self._confirms:
            confirmed: list[Any] = []
            link.channel.confirm_delivery(self._events.append, callback=confirmed.append)
            link.wait(lambda: confirmed, timeout_s, "confirms")

    def _splice(self, place: int, body: bytes) -> None:
        head = self._heads.get((place, len(body)))
        if head is None:
            number = self._link.channel.channel_number
            publish = spec.Basic.Publish(exchange="", routing_key=self._queues[place], mandatory=self._mandatory)
            head = (
                pika.frame.Method(number, publish).marshal()
                + pika.frame.Header(number, len(body), self._properties).marshal()
                + struct.pack(">BHL", spec.FRAME_BODY, number, len(body))
            )
            self._heads[place, len(body)] = head
        self._batch += (head, body, _FRAME_END)
        if len(self._batch) >= 3 * _BATCH:
            self._flush()

    def _flush(self) -> None:
        if self._batch and self.failed is None:
            self._link.connection._output_marshaled_frames([b"".join(self._batch)])
        self._batch.clear()

    def _settle_events(self) -> None:
        """Answers in the order in which they came, so a return stands before the ack of its message."""
        events = self._events.copy()
        self._events.clear()  # the same list goes on: the channel appends to it
        for event in events:
            if isinstance(event, tuple):
                self._settle_return(*event)
                continue
            answer = event.method
            outcome = Outcome.ACKED if isinstance(answer, spec.Basic.Ack) else Outcome.UNKNOWN
            for tag in self._tags(answer.delivery_tag, answer.multiple):
                self._settle_tag(tag, outcome)

    def _settle_return(self, queue: str, text: bytes) -> None:
        header = message.decode(text)
        if header is not None and self._confirms:  # without confirms it is UNKNOWN for good
            self._returned.add(header.seq)
            self._settle(header.seq, Outcome.RETURNED, -1, self._queues.index(queue))

    def _tags(self, tag: int, multiple: bool) -> Sequence[int]:
        if not multiple:
            return (tag,)
        through = tag or self._tag  # 0 stands for all so far
        tags = range(self._lowest, through + 1)
        self._lowest = max(self._lowest, through + 1)
        return tags

    def _settle_tag(self, tag: int, outcome: Outcome) -> None:
        sent = self._open.pop(tag, None)
        if sent is None:
            return
        seq, place = sent
        if seq in self._returned:
            self._returned.remove(seq)
        else:
            self._settle(seq, outcome, -1, place)


class PikaConsumer:
    """See mqtest.clients.Consumer and Reader. `places` are consumed on one channel; `resume` keeps positions."""

    def __init__(self, wiring: Wiring, places: Sequence[int], turn: int, prefetch: int, resume: bool) -> None:
        options = _options(wiring.consumer, CONSUMER, "consumer")
        self._stream = wiring.kind is Kind.LOG
        self._resume = resume
        self._places = {f"place-{place}": place for place in places}
        self._by_tag = {tag.encode(): place for tag, place in self._places.items()}
        self._frames = options["receiver"] == "frames"
        self._keys = {place: _position_key(wiring, place) for place in places}
        self._arrived: list[Delivery] = []
        self._first: dict[int, int] = {}
        self._tag = 0
        """of the newest delivery that arrived"""
        self._unacked = 0
        """of the newest delivery that poll returned and nobody acknowledged; 0: none"""
        self._seen: dict[int, int] = {}
        self._queues = {place: _queue(wiring, place) for place in places}
        self._prefetch = prefetch or int(options["prefetch"])
        self._auto_ack = resume and bool(options["auto_ack"])
        self.late: Sequence[Delivery] = ()
        """what came while it was closing and the broker gave up for good"""
        heartbeat = int(options["heartbeat"])
        self._link = _connect(wiring.addresses, turn, self._prepare, heartbeat=heartbeat, access=wiring.access)

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
        end = time.monotonic() + timeout_s
        self._link.step(0)
        while not self._arrived and self.failed is None and (left := end - time.monotonic()) > 0:
            self._link.step(left)
        arrived, self._arrived = self._arrived, []
        if arrived:
            self._unacked = self._tag
            if self._stream and self._resume:
                self._seen.update((delivery.place, delivery.offset) for delivery in arrived)
        return arrived

    def ack(self) -> None:
        """See Consumer."""
        if self._unacked and self.failed is None and not self._auto_ack:
            self._link.channel.basic_ack(self._unacked, multiple=True)
            self._link.step(0)
        self._unacked = 0
        for place, offset in self._seen.items():
            _positions[self._keys[place]] = offset + 1
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
            take_deliveries(link.connection, self._take)
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
        return {"x-stream-offset": _positions.get(self._keys[place], "first") if self._resume else "first"}

    def _deliver(self, _channel: Any, method: Any, properties: Any, body: bytes) -> None:
        offset = int(properties.headers["x-stream-offset"]) if self._stream else method.delivery_tag
        self._note(self._places[method.consumer_tag], method.delivery_tag, offset, body, bool(method.redelivered))

    def _take(self, consumer_tag: bytes, tag: int, redelivered: bool, header: bytes, body: bytes) -> None:
        offset = stream_offset(header) if self._stream else tag
        self._note(self._by_tag[consumer_tag], tag, offset, body, redelivered)

    def _note(self, place: int, tag: int, offset: int, body: bytes, redelivered: bool) -> None:
        self._first.setdefault(place, offset)
        self._tag = tag
        self._arrived.append(Delivery(place, offset, body, redelivered))


def open_producer(wiring: Wiring, settle: Settle, number: int, epoch: int) -> PikaProducer:
    """See mqtest.clients.Client."""
    return PikaProducer(wiring, settle, number, epoch)


def open_consumer(wiring: Wiring, number: int, epoch: int, consumers: int) -> PikaConsumer:
    """See mqtest.clients.Client. Consumers compete for a queue; the places of a stream are shared out by number."""
    places = range(wiring.places)
    if wiring.kind is Kind.LOG:
        places = places[number::consumers]
    if epoch == 0:
        for place in places:
            _positions.pop(_position_key(wiring, place), None)
    return PikaConsumer(wiring, places, number + epoch, 0, resume=True)


def open_reader(wiring: Wiring, places: Sequence[int]) -> PikaConsumer:
    """See mqtest.clients.Client."""
    return PikaConsumer(wiring, places, 0, READER_PREFETCH, resume=False)


def _connect(
    addresses: Sequence[str],
    turn: int,
    prepare: Callable[[Link, float], None],
    *,
    heartbeat: int,
    access: Mapping[str, Value],
    blocked_timeout_s: float | None = None,
) -> Link:
    """A link, made ready by `prepare(link, timeout_s)`, to one of the addresses, beginning with number `turn`. Each
    gets its share of the time that is left: a paused node takes connections and says nothing."""
    end = time.monotonic() + OPEN_TIMEOUT_S
    failures: list[str] = []
    for tried in range(len(addresses)):
        now = time.monotonic()
        share_end = now + max((end - now) / (len(addresses) - tried), 0.1)
        try:
            link = Link(
                addresses[(turn + tried) % len(addresses)], share_end - now, heartbeat, blocked_timeout_s, access
            )
            try:
                prepare(link, share_end - time.monotonic())
            except ClientError:
                link.close(0.2)
                raise
            return link
        except ClientError as error:
            failures.append(str(error))
    raise ClientError("; ".join(failures))


def _options(given: Mapping[str, Value], allowed: Mapping[str, Value], table: str) -> Mapping[str, Any]:
    """The profile's settings over the defaults; raises ClientError for one that pika's client here does not have."""
    for key in given:
        if key not in allowed:
            raise ClientError(f"pika: {table}.{key}: no such setting; allowed: {', '.join(allowed)}")
    return {**allowed, **given}


def _queue(wiring: Wiring, place: int) -> str:
    return f"{wiring.topic}-{place}"


def _position_key(wiring: Wiring, place: int) -> tuple[str, ...]:
    return (*sorted(wiring.addresses), wiring.group, _queue(wiring, place))
