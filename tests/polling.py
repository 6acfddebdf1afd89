"""Clients of the tests are driven by hand: polled until something is so."""

from __future__ import annotations

from collections.abc import Callable

from mqtest.clients import Consumer, Producer
from mqtest.clock import wait_until
from mqtest.model import Delivery


def poll_until(producer: Producer, condition: Callable[[], object]) -> None:
    """Poll until the condition is met."""

    def met() -> object:
        producer.poll(0.02)
        return condition()

    wait_until(met, 5, "the answers", poll_s=0)


def take(consumer: Consumer, count: int) -> list[Delivery]:
    """Poll until so many deliveries came."""
    found: list[Delivery] = []

    def enough() -> bool:
        found.extend(consumer.poll(0.05))
        return len(found) >= count

    wait_until(enough, 5, f"{count} deliveries", poll_s=0)
    return found
