"""RabbitMQ, through pika."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

import pika
from orders import Order
from pika.exceptions import AMQPError, NackError, UnroutableError

Broken = AMQPError
"""what an inbox raises when it is beyond use"""


def place_orders(shop: dict[str, Any], bodies: Iterable[bytes], told: Callable[[bytes, bool], None]) -> None:
    """Send them; `told` is called with each and whether the broker has confirmed it."""
    connection = _connection(shop)
    channel = connection.channel()
    channel.confirm_delivery()
    persistent = pika.BasicProperties(delivery_mode=2)
    for body in bodies:
        try:
            channel.basic_publish("", shop["queue"], body, persistent, mandatory=True)
        except (NackError, UnroutableError):
            told(body, False)
        else:
            told(body, True)
    connection.close()


class Inbox:
    """See orders.py."""

    def __init__(self, shop: dict[str, Any]) -> None:
        self._connection = _connection(shop)
        self._channel = self._connection.channel()
        self._channel.basic_qos(prefetch_count=500)
        self._deliveries = self._channel.consume(shop["queue"], inactivity_timeout=0.5)
        self._last = 0

    def take(self) -> list[Order]:
        orders: list[Order] = []
        for method, _properties, body in self._deliveries:
            if method is None:
                break
            self._last = method.delivery_tag
            orders.append(Order(body, 0, method.delivery_tag, method.redelivered))
            if len(orders) == 500:
                break
        return orders

    def done(self) -> None:
        if self._last:
            self._channel.basic_ack(self._last, multiple=True)
            self._last = 0

    def close(self) -> None:
        self._connection.close()


def _connection(shop: dict[str, Any], patience_s: float = 60.0) -> pika.BlockingConnection:
    """To the first node that answers."""
    nodes = [pika.URLParameters(f"amqp://guest:guest@{address}/%2f") for address in shop["addresses"]]
    deadline = time.monotonic() + patience_s
    while True:
        try:
            return pika.BlockingConnection(nodes)
        except AMQPError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)
