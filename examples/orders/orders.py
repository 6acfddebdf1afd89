"""The application: it takes orders out of a queue, and ships each once. Two loops, of which one has the bug.

An inbox (kafka_shop.py, rabbitmq_shop.py, memory_shop.py) has `take()`, which returns what has arrived, and `done()`,
which tells the broker that everything taken so far is done with.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol


class Order(NamedTuple):
    """One message, as it came."""

    body: bytes
    place: int
    offset: int
    redelivered: bool


class Inbox(Protocol):
    """See the module."""

    def take(self) -> list[Order]: ...
    def done(self) -> None: ...
    def close(self) -> None: ...


def work_careless(inbox: Inbox, ship: Callable[[Order], None], stopped: Callable[[], bool]) -> None:
    """The bug: the broker is told that the orders are done with before they are. Who dies in between forgets them."""
    while not stopped():
        orders = inbox.take()
        inbox.done()
        for order in orders:
            ship(order)


def work_careful(inbox: Inbox, ship: Callable[[Order], None], stopped: Callable[[], bool]) -> None:
    """Only then. Who dies in between is given the orders again, and ships some of them twice."""
    while not stopped():
        orders = inbox.take()
        for order in orders:
            ship(order)
        inbox.done()
