"""A scripted server of the stream protocol, for tests of the client: rstream's own codec, a thread, no broker.

One process is a cluster of `brokers` nodes on addresses of this host: every node answers what a client asks in order to
open, names the leader and the replicas that the test wants, notes what is declared, published and subscribed, and does
what the test tells it to.
"""

from __future__ import annotations

import socket
import struct
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Final

from rstream import schema
from rstream.encoding import decode_frame, encode_frame
from rstream.schema import Frame

OK: Final = 1
NOBODY: Final = 65535
HOSTS: Final = ("127.0.0.1", "127.0.0.2", "127.0.0.3")
_RESPONSE: Final = 0x80
"""in the first byte of an answer's key"""


class StreamServer:
    """The nodes HOSTS listen on one port of this host."""

    def __init__(self, on_publish: Callable[[StreamServer, int], None] | None, silent: Sequence[int]) -> None:
        self.leader = 0
        """number of the node that leads every stream, or NOBODY"""
        self.replicas: Sequence[int] = (1,)
        self.codes: Mapping[type[Frame], int] = {}
        """what a request is answered with, where not with OK"""
        self.heartbeat = 60
        self.frame_max = 1 << 20
        self.at_once: Sequence[bytes] = ()
        """messages from offset 0 on that are delivered before a subscription is answered"""
        self.largest = 0
        """bytes of the largest frame"""
        self.mute = False
        """no answers any more, and no heartbeats"""
        self.published: list[tuple[int, str, int, bytes]] = []
        """(node, stream, publishing id, message)"""
        self.references: list[str] = []
        """of publishers"""
        self.subscribed: list[tuple[int, str, int, int | None, int]] = []
        """(node, stream, offset type, offset, credit)"""
        self.credits: list[tuple[int, int]] = []
        self.entered: list[int] = []
        """node of each connection"""
        self._on_publish = on_publish
        self._silent = silent
        self._listeners = _listen()
        self.port = int(self._listeners[0].getsockname()[1])
        self.addresses = tuple(f"{host}:5672" for host in HOSTS)
        self._connections: list[tuple[int, socket.socket]] = []
        self._newest = self._listeners[0]
        """the connection on which somebody declared a publisher or subscribed last"""
        self._publishers: dict[tuple[socket.socket, int], str] = {}
        self._threads: list[threading.Thread] = []
        self._sending = threading.Lock()
        for node in range(len(HOSTS)):
            self._start(self._serve, node)

    # --- what a test does ---

    def confirm(self, *ids: int, publisher: int = 0) -> None:
        """Confirm messages."""
        self.say(schema.PublishConfirm(publisher, list(ids)))

    def refuse(self, code: int, *ids: int, publisher: int = 0) -> None:
        """Answer messages with an error."""
        self.say(schema.PublishError(publisher, [schema.PublishingError(one, code) for one in ids]))

    def deliver(self, offset: int, messages: Sequence[bytes], subscription: int = 0, *, damaged: bool = False) -> None:
        """One chunk that begins at this offset."""
        data = b"".join(struct.pack(">I", len(message)) + message for message in messages)
        count, crc = len(messages), zlib.crc32(data)
        chunk = schema.Deliver(subscription, 0x50, 0, count, count, 0, 1, offset, crc, len(data), 0, 0, data)
        chunk.chunk_crc ^= int(damaged)
        self.say(chunk)

    def say(self, frame: Frame, to: socket.socket | None = None, response: bool = False) -> None:
        """Send one frame, over the connection that was used last unless told otherwise."""
        raw = bytearray(encode_frame(frame))
        if response:
            raw[4] |= _RESPONSE
        with self._sending:
            (to or self._newest).sendall(raw)

    def drop(self) -> None:
        """Cut the connection that was used last."""
        self._newest.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Stop; the threads have ended afterwards."""
        for listener in self._listeners:
            listener.shutdown(socket.SHUT_RDWR)
        for _, connection in self._connections:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(5)
        for one in (*self._listeners, *(connection for _, connection in self._connections)):
            one.close()

    # --- what the nodes do ---

    def _start(self, what: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=what, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _serve(self, node: int) -> None:
        while True:
            try:
                connection, _ = self._listeners[node].accept()
            except OSError:
                return
            self._connections.append((node, connection))
            self.entered.append(node)
            if node not in self._silent:
                self._start(self._talk, node, connection)

    def _talk(self, node: int, connection: socket.socket) -> None:
        waiting = b""
        with suppress(OSError):
            while data := connection.recv(65536):
                waiting += data
                while len(waiting) >= 4 and len(waiting) >= 4 + (length := int.from_bytes(waiting[:4], "big")):
                    raw, waiting = waiting[4 : 4 + length], waiting[4 + length :]
                    self._answer(node, connection, raw)

    def _answer(self, node: int, connection: socket.socket, raw: bytes) -> None:
        self.largest = max(self.largest, len(raw))
        if raw[:2] == schema.Subscribe.key.value.to_bytes(2, "big"):
            self._subscribe(node, connection, raw)
            return
        frame: Any = decode_frame(raw)
        if isinstance(frame, schema.Publish):
            stream = self._publishers[connection, frame.publisher_id]
            for message in frame.messages:
                self.published.append((node, stream, message.publishing_id, message.data))
                if self._on_publish is not None:
                    self._on_publish(self, len(self.published))
        elif isinstance(frame, schema.Credit):
            self.credits.append((frame.subscription_id, frame.credit))
        elif isinstance(frame, schema.Heartbeat):
            if not self.mute:
                self.say(schema.Heartbeat(), connection)
        elif not isinstance(frame, schema.Tune) and not self.mute:
            if isinstance(frame, schema.DeclarePublisher):
                self._newest = connection
                self._publishers[connection, frame.publisher_id] = frame.stream
                self.references.append(frame.reference)
            self.say(self._reply(frame), connection, response=True)
            if isinstance(frame, schema.SaslAuthenticate):
                self.say(schema.Tune(self.frame_max, self.heartbeat), connection)

    def _reply(self, frame: Any) -> Frame:
        number, code = frame.correlation_id, self.codes.get(type(frame), OK)
        if isinstance(frame, schema.Metadata):
            brokers = [schema.Broker(at, host, self.port) for at, host in enumerate(HOSTS)]
            streams = [schema.StreamMetadata(name, code, self.leader, list(self.replicas)) for name in frame.streams]
            return schema.MetadataResponse(number, brokers, streams)
        if isinstance(frame, schema.SaslHandshake):
            return schema.SaslHandshakeResponse(number, code, ["PLAIN"])
        if isinstance(frame, schema.PeerProperties):
            return schema.PeerPropertiesResponse(number, code, [])
        if isinstance(frame, schema.Open):
            return schema.OpenResponse(number, code, [])
        answers: dict[type[Frame], Any] = {
            schema.SaslAuthenticate: schema.SaslAuthenticateResponse,
            schema.DeclarePublisher: schema.DeclarePublisherResponse,
            schema.DeletePublisher: schema.DeletePublisherResponse,
            schema.Unsubscribe: schema.UnsubscribeResponse,
            schema.Close: schema.CloseResponse,
        }
        reply: Frame = answers[type(frame)](number, code)
        return reply

    def _subscribe(self, node: int, connection: socket.socket, raw: bytes) -> None:
        """By hand: rstream's decoder does not know the value of an offset specification."""
        number, _subscription, length = struct.unpack_from(">IBH", raw, 4)
        stream = raw[11 : 11 + length].decode()
        at = 11 + length
        (kind,) = struct.unpack_from(">H", raw, at)
        value = struct.unpack_from(">Q", raw, at + 2)[0] if kind == 4 else None
        (credit,) = struct.unpack_from(">H", raw, at + (2 if value is None else 10))
        self._newest = connection
        self.subscribed.append((node, stream, kind, value, credit))
        if self.at_once:
            self.deliver(0, self.at_once)
        code = self.codes.get(schema.Subscribe, OK)
        self.say(schema.SubscribeResponse(number, code), connection, response=True)


def _listen() -> list[socket.socket]:
    """One port that is free on all hosts."""
    for _ in range(50):
        first = socket.create_server((HOSTS[0], 0))
        others: list[socket.socket] = []
        try:
            for host in HOSTS[1:]:
                others.append(socket.create_server((host, first.getsockname()[1])))
        except OSError:
            for one in (first, *others):
                one.close()
            time.sleep(0.01)
        else:
            return [first, *others]
    raise OSError("no port is free on all addresses")


@contextmanager
def stream_server(
    on_publish: Callable[[StreamServer, int], None] | None = None, silent: Sequence[int] = ()
) -> Iterator[StreamServer]:
    """A cluster that has ended afterwards; nodes of `silent` take connections and say nothing."""
    server = StreamServer(on_publish, silent)
    try:
        yield server
    finally:
        server.close()
