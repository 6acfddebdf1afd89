"""RabbitMQ by pika: the producers, over one SelectConnection and one channel.

Rules:
- Callbacks only note what came (pika_link.py says why); it is settled in poll and close.
- Published to the default exchange, with the queue `<topic>-<place>` as routing key. A message that comes back
  (basic.return, before its ack) is RETURNED whatever the ack says; a nack says only that the broker takes no
  responsibility: UNKNOWN.
- FramesProducer writes, byte for byte, the frames that pika would: method and header are marshalled by pika once for a
  place and a size, and the bodies put behind copies of them. It takes blocks; messages of a block leave place by place.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import pika
import pika.exceptions
import pika.frame
from pika import spec

from mqtest import body as message
from mqtest.bodies import Bodies
from mqtest.clients import Settle, SettleMany
from mqtest.clients.pika_confirms import Confirms
from mqtest.clients.pika_link import BUSY, GATHER_S, Link, connect, options, queue_name
from mqtest.model import Outcome, Value, Wiring

PRODUCER: Final[Mapping[str, Value]] = {
    "heartbeat": 5,
    "blocked_connection_timeout": 30,
    "mandatory": True,
    "delivery_mode": 2,
    "publisher": "plain",
}
"""Settings of a profile's `producer` table, with their defaults. `publisher`: `plain` marshals each message by
basic_publish; `frames` is FramesProducer"""

_BACKLOG_BYTES: Final = 4 * 1024 * 1024
"""more than this not taken by the socket: blocked"""
_BATCH_BYTES: Final = 1 << 16
"""`frames` hands the connection so much in one piece"""
_FRAME_END: Final = 0xCE


class PikaProducer:
    """See mqtest.clients.Producer."""

    def __init__(self, wiring: Wiring, settle: Settle, number: int, epoch: int) -> None:
        chosen = options(wiring.producer, PRODUCER, "producer")
        self._settle = settle
        self._confirms = Confirms() if wiring.acknowledged else None
        self._mandatory = bool(chosen["mandatory"])
        self._queues = [queue_name(wiring, place) for place in range(wiring.places)]
        self._properties = pika.BasicProperties(delivery_mode=int(chosen["delivery_mode"]))
        self._events: list[Any] = []
        """what came since the last poll: confirms as pika gives them, returns as (routing key, body)"""
        turn = 0 if epoch == 0 else number + epoch
        self._link = connect(
            wiring.addresses,
            turn,
            self._prepare,
            heartbeat=int(chosen["heartbeat"]),
            blocked_timeout_s=float(chosen["blocked_connection_timeout"]),
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
        if self.failed is not None or self.blocked or not self._publish(place, body):
            return False
        self._sent(range(seq, seq + 1), place)
        return True

    def poll(self, timeout_s: float) -> None:
        """See Producer."""
        self._link.step(timeout_s)
        self._settle_events()

    def close(self, timeout_s: float) -> None:
        """See Producer."""
        self._link.step(0)
        self._link.close(timeout_s)
        self._settle_events()

    def _prepare(self, link: Link, timeout_s: float) -> None:
        link.channel.add_on_return_callback(
            lambda _channel, method, _properties, text: self._events.append((method.routing_key, text))
        )
        if self._confirms is not None:
            confirmed: list[Any] = []
            link.channel.confirm_delivery(self._events.append, callback=confirmed.append)
            link.wait(lambda: confirmed, timeout_s, "confirms")

    def _publish(self, place: int, body: bytes) -> bool:
        try:
            self._link.channel.basic_publish("", self._queues[place], body, self._properties, self._mandatory)
        except (pika.exceptions.ChannelWrongStateError, pika.exceptions.ConnectionWrongStateError):
            return False  # closing: raised before anything is marshalled
        return True

    def _sent(self, seqs: range, place: int) -> None:
        if self._confirms is None:
            self._settled(seqs, Outcome.UNKNOWN, place)
        else:
            self._confirms.sent(seqs, place)

    def _settled(self, seqs: range, outcome: Outcome, place: int) -> None:
        for seq in seqs:
            self._settle(seq, outcome, -1, place)

    def _settle_events(self) -> None:
        """Answers in the order in which they came, so a return stands before the ack of its message. Single answers
        that follow each other are one."""
        events = self._events.copy()
        self._events.clear()  # the same list goes on: the channel appends to it
        if self._confirms is None:
            return  # a message without confirms that comes back is UNKNOWN for good
        named: tuple[Outcome, int, int] | None = None
        for event in events:
            if isinstance(event, tuple):
                self._settle_tags(named)
                named = None
                self._settle_return(self._confirms, *event)
                continue
            answer = event.method
            outcome = Outcome.ACKED if isinstance(answer, spec.Basic.Ack) else Outcome.UNKNOWN
            if named and not answer.multiple and named[0] is outcome and named[2] + 1 == answer.delivery_tag:
                named = (outcome, named[1], answer.delivery_tag)
                continue
            self._settle_tags(named)
            named = (outcome, *self._confirms.named(answer.delivery_tag, answer.multiple))
        self._settle_tags(named)

    def _settle_tags(self, named: tuple[Outcome, int, int] | None) -> None:
        if named is not None and self._confirms is not None:
            for run in self._confirms.take(*named[1:]):
                self._settled(run.seqs, named[0], run.place)

    def _settle_return(self, confirms: Confirms, queue: str, text: bytes) -> None:
        header = message.decode(text)
        if header is not None:
            confirms.returned.add(header.seq)
            self._settle(header.seq, Outcome.RETURNED, -1, self._queues.index(queue))


class FramesProducer(PikaProducer):
    """See mqtest.clients.BlockProducer."""

    def __init__(self, wiring: Wiring, settle: Settle, number: int, epoch: int) -> None:
        self.settle_many: SettleMany | None = None
        self._heads: dict[tuple[int, int], bytes] = {}
        self._batch: list[bytes] = []
        self._batch_bytes = 0
        self._confirmed = 0
        """by the last poll"""
        super().__init__(wiring, settle, number, epoch)

    def send_many(self, seqs: range, places: int, bodies: Bodies) -> bool:
        """See BlockProducer."""
        if self.failed is not None or self.blocked:
            return False
        for place in range(places):
            mine = slice((place - seqs.start) % places, None, places)
            if not len(seqs[mine]):
                continue
            if bodies.shape[1] <= self._most_bytes:
                self._add(_framed(self._head(place, bodies.shape[1]), bodies[mine]))
            elif not all(self._publish(place, row.tobytes()) for row in bodies[mine]):
                break  # closing, so `failed` tells the next time; these stay open
            self._sent(seqs[mine], place)
        return True

    def poll(self, timeout_s: float) -> None:
        """See Producer."""
        self._flush()
        if self._confirmed >= BUSY and timeout_s >= GATHER_S:
            self._link.step(0)  # what is to be written leaves first
            time.sleep(GATHER_S)
        self._confirmed = 0
        super().poll(timeout_s)

    def close(self, timeout_s: float) -> None:
        """See Producer."""
        self._flush()
        super().close(timeout_s)

    @property
    def _most_bytes(self) -> int:
        """of a body that goes into one frame"""
        return int(self._link.connection._body_max_length)

    def _publish(self, place: int, body: bytes) -> bool:
        if len(body) > self._most_bytes:
            self._flush()
            return super()._publish(place, body)
        self._add(self._head(place, len(body)) + body + bytes([_FRAME_END]))
        return True

    def _head(self, place: int, size: int) -> bytes:
        head = self._heads.get((place, size))
        if head is None:
            number = self._link.channel.channel_number
            publish = spec.Basic.Publish(exchange="", routing_key=self._queues[place], mandatory=self._mandatory)
            head = (
                pika.frame.Method(number, publish).marshal()
                + pika.frame.Header(number, size, self._properties).marshal()
                + struct.pack(">BHL", spec.FRAME_BODY, number, size)
            )
            self._heads[place, size] = head
        return head

    def _add(self, frames: bytes) -> None:
        self._batch.append(frames)
        self._batch_bytes += len(frames)
        if self._batch_bytes >= _BATCH_BYTES:
            self._flush()

    def _flush(self) -> None:
        if self._batch and self.failed is None:
            self._link.connection._output_marshaled_frames([b"".join(self._batch)])
        self._batch.clear()
        self._batch_bytes = 0

    def _settled(self, seqs: range, outcome: Outcome, place: int) -> None:
        self._confirmed += len(seqs)
        if self.settle_many is None:
            super()._settled(seqs, outcome, place)
        else:
            self.settle_many(seqs, outcome, -1, place)


def _framed(head: bytes, bodies: Bodies) -> bytes:
    """All frames of these messages."""
    rows = np.empty((len(bodies), len(head) + bodies.shape[1] + 1), dtype=np.uint8)
    rows[:, : len(head)] = np.frombuffer(head, dtype=np.uint8)
    rows[:, len(head) : -1] = bodies
    rows[:, -1] = _FRAME_END
    return rows.tobytes()
