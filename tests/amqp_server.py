"""A scripted AMQP server of one connection, for tests of the client: pika's own codec, a thread, no broker.

It answers whatever a client asks in order to open, notes what is published, consumed and acknowledged, and does what
the test tells it to on each publish.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pika
import pika.frame
from pika import spec

CAPABILITIES = {"publisher_confirms": True, "basic.nack": True, "connection.blocked": True}


class AmqpServer:
    """Listens on a port of this host; `published` has (queue, body, delivery mode, mandatory)."""

    def __init__(self, on_publish: Callable[[AmqpServer, int], None] | None, silent: bool, refuse: str | None) -> None:
        self.published: list[tuple[str, bytes, int, bool]] = []
        self.consumed: list[tuple[str, Any]] = []
        self.acked: list[tuple[int, bool]] = []
        self.entered: list[bytes | str] = []
        """login and virtual host of each connection"""
        self.no_ack: list[bool] = []
        self.on_the_way: list[tuple[int, bytes]] = []
        """(tag, body) of what is delivered just before a consumer is cancelled"""
        self._on_publish = on_publish
        self._silent = silent
        self._refuse = refuse
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._connections: list[socket.socket] = []
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def say(self, method: Any, channel: int = 1) -> None:
        """Send one method."""
        self._connections[-1].sendall(pika.frame.Method(channel, method).marshal())

    def content(self, method: Any, body: bytes, headers: dict[str, Any] | None = None) -> None:
        """Send one method that carries a message."""
        self._connections[-1].sendall(
            pika.frame.Method(1, method).marshal()
            + pika.frame.Header(1, len(body), pika.BasicProperties(headers=headers)).marshal()
            + pika.frame.Body(1, body).marshal()
        )

    def deliver(self, tag: int, body: bytes, offset: int | None = None, queue_number: int = 0) -> None:
        """Deliver one message to the consumer of a place."""
        headers = None if offset is None else {"x-stream-offset": offset}
        self.content(spec.Basic.Deliver(f"place-{queue_number}", tag, False, "", "q"), body, headers)

    def drop(self) -> None:
        """Cut the connection."""
        self._connections[-1].shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Stop; the thread has ended afterwards."""
        self._listener.shutdown(socket.SHUT_RDWR)
        for connection in self._connections:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue
        self._thread.join(5)
        for connection in (*self._connections, self._listener):
            connection.close()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._connections.append(connection)
            if not self._silent:
                try:
                    self._talk(connection)
                except OSError:
                    continue

    def _talk(self, connection: socket.socket) -> None:
        waiting = b""
        message: list[Any] = []
        while data := connection.recv(65536):
            waiting += data
            while waiting:
                used, frame = pika.frame.decode_frame(waiting)
                if frame is None:
                    break
                waiting = waiting[used:]
                if isinstance(frame, pika.frame.ProtocolHeader):
                    self.say(spec.Connection.Start(0, 9, {"capabilities": CAPABILITIES}, "PLAIN", "en_US"), 0)
                elif isinstance(frame, pika.frame.Method) and not isinstance(frame.method, spec.Basic.Publish):
                    self._answer(frame.method)
                elif not isinstance(frame, pika.frame.Heartbeat):
                    message = self._gather(message, frame)

    def _gather(self, message: list[Any], frame: Any) -> list[Any]:
        """Method, header and body frames of one publish; what is incomplete."""
        message = [*message, frame]
        if len(message) < 2 or sum(len(f.fragment) for f in message[2:]) < message[1].body_size:
            return message
        method, header = message[0].method, message[1]
        body = b"".join(f.fragment for f in message[2:])
        self.published.append((method.routing_key, body, header.properties.delivery_mode, bool(method.mandatory)))
        if self._on_publish is not None:
            self._on_publish(self, len(self.published))
        return []

    def _answer(self, method: Any) -> None:
        if isinstance(method, spec.Basic.Ack):
            self.acked.append((method.delivery_tag, bool(method.multiple)))
        elif isinstance(method, spec.Connection.StartOk):
            self.entered.append(method.response)
            self.say(spec.Connection.Tune(2047, 131072, 0), 0)
        elif isinstance(method, spec.Connection.Open):
            self.entered.append(method.virtual_host)
            self.say(spec.Connection.OpenOk(), 0)
        elif isinstance(method, spec.Connection.Close):
            self.say(spec.Connection.CloseOk(), 0)
        elif isinstance(method, spec.Channel.Open):
            self.say(spec.Channel.OpenOk())
        elif isinstance(method, spec.Channel.Close):
            self.say(spec.Channel.CloseOk())
        elif isinstance(method, spec.Confirm.Select):
            self.say(spec.Confirm.SelectOk())
        elif isinstance(method, spec.Basic.Qos):
            self.say(spec.Basic.QosOk())
        elif isinstance(method, spec.Basic.Cancel):
            for tag, body in self.on_the_way:
                self.deliver(tag, body)
            self.on_the_way.clear()
            self.say(spec.Basic.CancelOk(method.consumer_tag))
        elif isinstance(method, spec.Basic.Consume):
            self.no_ack.append(bool(method.no_ack))
            self.consumed.append((method.queue, (method.arguments or {}).get("x-stream-offset")))
            if self._refuse is None:
                self.say(spec.Basic.ConsumeOk(method.consumer_tag))
            else:
                self.say(spec.Channel.Close(406, self._refuse, 60, 20))


@contextmanager
def amqp_server(
    on_publish: Callable[[AmqpServer, int], None] | None = None, *, silent: bool = False, refuse: str | None = None
) -> Iterator[AmqpServer]:
    """A server for one test. `silent`: takes connections and says nothing; `refuse`: closes the channel with this
    text when it is to serve a consumer."""
    server = AmqpServer(on_publish, silent, refuse)
    try:
        yield server
    finally:
        server.close()
