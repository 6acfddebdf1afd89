"""One AMQP connection with one channel, over pika's SelectConnection without a thread; and how a client gets one.

Rules: pika's I/O loop is driven in bounded steps by whoever owns the Link. pika swallows what a callback raises, so
callbacks only note what came. A Link that failed says why in `failed`, for good, and is never opened again; closing
always lets go of the socket, also when the broker does not answer.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import pika
import pika.exceptions
from pika.adapters.select_connection import IOLoop, SelectConnection

from mqtest.clients import OPEN_TIMEOUT_S, ClientError, tls
from mqtest.model import Value, Wiring

USER: Final = "guest"
PASSWORD: Final = "guest"
"""of a broker that lives for one cell, on a network of this host only"""
ACCESS: Final = ("username", "password", "vhost", *tls.ACCESS)
"""what a broker that is not ours may want"""

logging.getLogger("pika").addHandler(logging.NullHandler())  # what it would print to stderr is in `failed`


BUSY: Final = 8
"""a client by frames that was brought so many at once lets GATHER_S go by before it looks again: one look costs as much
as twenty messages"""
GATHER_S: Final = 0.001


class Link:
    """One connection with one open channel. Raises ClientError when it is not open within `timeout_s`."""

    def __init__(
        self,
        address: str,
        timeout_s: float,
        heartbeat: int = 5,
        blocked_timeout_s: float | None = None,
        access: Mapping[str, Value] | None = None,
    ) -> None:
        host, _, port = address.rpartition(":")
        self.address = address
        self.failed: str | None = None
        self.blocked = False
        self.channel: Any = None
        self._closed = False
        access = access or {}
        context = tls.context(access)
        self._loop = IOLoop()
        self._loop.activate_poller()
        parameters = pika.ConnectionParameters(
            host=host,
            port=int(port),
            virtual_host=str(access.get("vhost", "/")),
            credentials=pika.PlainCredentials(str(access.get("username", USER)), str(access.get("password", PASSWORD))),
            ssl_options=pika.SSLOptions(context, host) if context else None,
            heartbeat=heartbeat,
            blocked_connection_timeout=blocked_timeout_s,
            connection_attempts=1,
            socket_timeout=0.9 * timeout_s,  # pika gives up by itself, before it is closed while it opens
            stack_timeout=0.9 * timeout_s,
        )
        self.connection: Any = SelectConnection(
            parameters,
            on_open_callback=self._opened,
            on_open_error_callback=self._lost,
            on_close_callback=self._lost,
            custom_ioloop=self._loop,
        )
        try:
            self.wait(lambda: self.channel is not None and self.channel.is_open, timeout_s, "an open channel")
        except ClientError:
            self.close(0.2)
            raise

    def step(self, timeout_s: float) -> None:
        """One round of I/O: returns when something happened, or after timeout_s."""
        if self._closed:
            return
        timer = self._loop.call_later(timeout_s, _nothing)
        self._loop.poll()
        self._loop.process_timeouts()
        self._loop.remove_timeout(timer)

    def wait(self, condition: Callable[[], object], timeout_s: float, why: str) -> None:
        """Step until `condition()`; raises ClientError when the link fails or the time is over."""
        end = time.monotonic() + timeout_s
        while not condition():
            left = end - time.monotonic()
            if self.failed is not None or left <= 0:
                raise ClientError(f"{self.address}: {self.failed or f'waited {timeout_s:.1f} s for {why}'}")
            self.step(left)

    def depth(self, queue: str, timeout_s: float) -> int:
        """Messages ready in the queue, by a passive declare: live, where the management's totals lag."""
        return int(self.declared(queue, timeout_s).message_count)

    def declared(self, queue: str, timeout_s: float, arguments: Mapping[str, Any] | None = None) -> Any:
        """The answer to a declare: `message_count` (ready) and `consumer_count`. Passive without `arguments`; with them
        the queue is made, durable. A queue that is not there, or is another, closes the channel."""
        answers: list[Any] = []
        passive = arguments is None
        self.channel.queue_declare(
            queue, passive=passive, durable=True, arguments=arguments and dict(arguments), callback=answers.append
        )
        self.wait(lambda: answers, timeout_s, f"{queue} to be declared")
        return answers[0].method

    def delete(self, queue: str, timeout_s: float) -> None:
        """Delete the queue."""
        answers: list[Any] = []
        self.channel.queue_delete(queue, callback=answers.append)
        self.wait(lambda: answers, timeout_s, f"{queue} to be deleted")

    def serves_stream(self, queue: str, timeout_s: float) -> bool:
        """Whether this node has a running replica of the stream, which it must have to serve consumers. It is asked to
        serve one that wants nothing of the past; the link is of no further use."""
        answers: list[Any] = []
        self.channel.basic_qos(prefetch_count=1)
        self.channel.basic_consume(
            queue, lambda *_: None, arguments={"x-stream-offset": "next"}, callback=answers.append
        )
        try:
            self.wait(lambda: answers, timeout_s, f"{self.address} to serve {queue}")
        except ClientError:
            return False
        return True

    @property
    def backlog_bytes(self) -> int:
        """What the socket has not taken yet."""
        return 0 if self.failed is not None else int(self.connection._get_write_buffer_size())

    def close(self, timeout_s: float) -> None:
        """Close in order within timeout_s, else drop the connection. Idempotent."""
        if self._closed:
            return
        reason, self.failed = self.failed, None
        try:
            self._let_go(time.monotonic() + timeout_s)
        except AssertionError as error:  # pika's, when it is closed in the middle of opening; the socket is closed then
            reason = reason or str(error)
        self.failed = reason or self.failed or "closed"
        self._closed = True
        self._loop.deactivate_poller()
        self._loop.close()

    def _let_go(self, end: float) -> None:
        connection = self.connection
        if not (connection.is_closed or connection.is_closing):
            connection.close()
        while self.failed is None and not connection.is_closed and time.monotonic() < end:
            self.step(max(0.0, end - time.monotonic()))
        if not connection.is_closed:  # the broker does not answer: drop the socket
            connection._terminate_stream(pika.exceptions.ConnectionClosed(0, "dropped"))
        for _ in range(3):  # pika closes the socket in callbacks of its loop
            self.step(0)

    def _opened(self, connection: Any) -> None:
        connection.add_on_connection_blocked_callback(lambda *_: self._set_blocked(True))
        connection.add_on_connection_unblocked_callback(lambda *_: self._set_blocked(False))
        connection.channel(on_open_callback=self._channel_opened)

    def _channel_opened(self, channel: Any) -> None:
        channel.add_on_close_callback(self._lost)
        self.channel = channel

    def _set_blocked(self, blocked: bool) -> None:
        self.blocked = blocked

    def fail(self, why: str) -> None:
        """Beyond use from now on; the first reason stays."""
        if self.failed is None:
            self.failed = why

    def _lost(self, _what: Any, error: BaseException | str) -> None:
        self.fail(_innermost(error))


def connect(
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


def options(given: Mapping[str, Value], allowed: Mapping[str, Value], table: str) -> Mapping[str, Any]:
    """The profile's settings over the defaults; raises ClientError for one that pika's client here does not have."""
    for key in given:
        if key not in allowed:
            raise ClientError(f"pika: {table}.{key}: no such setting; allowed: {', '.join(allowed)}")
    return {**allowed, **given}


def queue_name(wiring: Wiring, place: int) -> str:
    return f"{wiring.topic}-{place}"


def _innermost(error: Any) -> str:
    """The cause that pika wraps in up to four exceptions of its own while it connects."""
    while True:
        inner = getattr(error, "exceptions", None) or [getattr(error, "exception", None), *getattr(error, "args", ())]
        causes = [cause for cause in inner if isinstance(cause, BaseException)]
        if not causes:
            return str(error) or repr(error)
        error = causes[-1]


def _nothing() -> None:
    """Wakes the poll at its time."""
