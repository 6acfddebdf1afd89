"""Clients of the tests are driven by hand: polled until something is so. How long tests wait for what must come."""

from __future__ import annotations

from collections.abc import Callable

from mqtest.clients import Consumer, Producer
from mqtest.clock import wait_until
from mqtest.model import Delivery

PATIENCE_S = 60.0
"""bounds the wait for what never comes, and says nothing of speed: on a busy machine a process was seen to wait 7.5 s
for a CPU. Where speed is what is tested, a test has a bound of its own."""


def poll_until(producer: Producer, condition: Callable[[], object]) -> None:
    """Poll until the condition is met."""

    def met() -> object:
        producer.poll(0.02)
        return condition()

    wait_until(met, PATIENCE_S, "the answers", poll_s=0)


def take(consumer: Consumer, count: int) -> list[Delivery]:
    """Poll until so many deliveries came."""
    found: list[Delivery] = []

    def enough() -> bool:
        found.extend(consumer.poll(0.05))
        return len(found) >= count

    wait_until(enough, PATIENCE_S, f"{count} deliveries", poll_s=0)
    return found
