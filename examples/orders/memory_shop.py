"""mqtest's embedded broker, so that the tests can be tried without Docker."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any

import msgspec
from orders import Order

from mqtest.clients import ClientError, client
from mqtest.model import Outcome, Wiring

Broken = ClientError
"""what an inbox raises when it is beyond use"""


def place_orders(shop: dict[str, Any], bodies: Iterable[bytes], told: Callable[[bytes, bool], None]) -> None:
    """Send them; `told` is called with each and whether the broker has acknowledged it."""
    open_now: dict[int, bytes] = {}

    def settle(seq: int, outcome: Outcome, _offset: int, _place: int) -> None:
        told(open_now.pop(seq), outcome is Outcome.ACKED)

    producer = client("memory").open_producer(_wiring(shop), settle, 0, 0)
    for seq, body in enumerate(bodies):
        open_now[seq] = body
        producer.send(seq, 0, body)
    while open_now and producer.failed is None:
        producer.poll(1.0)
    producer.close(1.0)


class Inbox:
    """See orders.py."""

    def __init__(self, shop: dict[str, Any]) -> None:
        self._consumer = client("memory").open_consumer(_wiring(shop), 0, 0, 1)

    def take(self) -> list[Order]:
        if self._consumer.failed is not None:
            raise ClientError(self._consumer.failed)
        return [Order(d.body, d.place, d.offset, d.redelivered) for d in self._consumer.poll(0.2)]

    def done(self) -> None:
        self._consumer.ack()

    def close(self) -> None:
        self._consumer.close(1.0)


def _wiring(shop: dict[str, Any]) -> Wiring:
    return msgspec.json.decode(json.dumps(shop["wiring"]), type=Wiring)
