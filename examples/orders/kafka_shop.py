"""Kafka, through confluent-kafka."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer
from orders import Order

Broken = KafkaException
"""what an inbox raises when it is beyond use"""


def place_orders(shop: dict[str, Any], bodies: Iterable[bytes], told: Callable[[bytes, bool], None]) -> None:
    """Send them; `told` is called with each and whether the broker has acknowledged it."""

    def report(error: KafkaError | None, message: Message) -> None:
        body = message.value()
        assert body is not None
        told(body, error is None)

    producer = Producer({"bootstrap.servers": shop["bootstrap"], **shop["producer"]})
    for body in bodies:
        producer.produce(shop["topic"], body, on_delivery=report)
        producer.poll(0)
    producer.flush(60)


class Inbox:
    """See orders.py."""

    def __init__(self, shop: dict[str, Any]) -> None:
        ours = {"group.id": shop["group"], "auto.offset.reset": "earliest", "enable.auto.commit": False}
        self._consumer = Consumer({"bootstrap.servers": shop["bootstrap"], **shop["consumer"], **ours})
        self._consumer.subscribe([shop["topic"]])
        self._taken = False

    def take(self) -> list[Order]:
        messages = [m for m in self._consumer.consume(500, timeout=1.0) if m.error() is None]
        self._taken = bool(messages)
        return [Order(m.value() or b"", m.partition() or 0, m.offset() or 0, False) for m in messages]

    def done(self) -> None:
        if self._taken:
            self._consumer.commit(asynchronous=False)

    def close(self) -> None:
        self._consumer.close()
