"""Where consumers of RabbitMQ streams go on: in the process, as RabbitMQ leaves positions to the consumer.

A consumer with a later epoch goes on behind what its predecessor acknowledged. (The stream protocol can store positions
in the stream, but AMQP 0-9-1 cannot, and it gives no answer: nobody knows whether a position was stored.)
A process that comes back goes on where Wiring.resume says, if it does.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from mqtest.clients.pika_link import queue_name
from mqtest.model import Wiring

_next: Final[dict[tuple[str, ...], int]] = {}
"""(addresses…, group, stream) -> next position that this process's consumer wants"""


class Positions:
    """Of one group in these places."""

    def __init__(self, wiring: Wiring, places: Iterable[int]) -> None:
        self._saved = wiring.resume
        self._keys = {place: (*sorted(wiring.addresses), wiring.group, queue_name(wiring, place)) for place in places}

    def next(self, place: int) -> int | None:
        """The position to go on at; None: from the first one on."""
        return _next.get(self._keys[place], self._saved.get(place))

    def acknowledged(self, place: int, offset: int) -> None:
        """Everything up to this offset is done with."""
        _next[self._keys[place]] = offset + 1

    def forget(self) -> None:
        """Begin anew."""
        for key in self._keys.values():
            _next.pop(key, None)
