"""One connection that speaks RocketMQ's remoting protocol, and the question who is master.

Used by the wire client (many requests under way, answers as they come) and by the broker driver (`call`: one
request, its answer). Non-blocking underneath: nothing waits longer than its timeout. A broken link says so in
`lost` and stays broken.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import select
import socket
import ssl
import time
from collections.abc import Mapping, Sequence
from typing import Final

from mqtest.clients import ClientError, tls
from mqtest.clients.rocketmq_codec import Code, Frame, Login, MalformedError, Request, request, take_frames
from mqtest.clock import now_ns
from mqtest.model import Value

ACCESS: Final = ("access_key", "secret_key", *tls.ACCESS)
"""what a broker that is not ours may want"""
_RECEIVE_BYTES: Final = 1 << 18
_LATER: Final = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class AnswerError(ClientError):
    """The peer answered, but with another code than was hoped for; the link goes on."""


class Link:
    """One connection. `lost` says why it is beyond use. Answers come whole and in order from `poll`."""

    def __init__(self, address: str, timeout_s: float, access: Mapping[str, Value] | None = None) -> None:
        self.login = login(access or {})
        self._socket = _connected(address, timeout_s, tls.context(access or {}))
        self._socket.setblocking(False)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._events = select.poll()
        self._events.register(self._socket, select.POLLIN)
        self._in, self._out = bytearray(), bytearray()
        self._opaques = itertools.count(1)
        self.address = address
        self.lost: str | None = None
        self.heard_ns = now_ns()
        """when bytes last arrived"""

    @property
    def unsent(self) -> int:
        """Bytes that wait for the peer to take them."""
        return len(self._out)

    def opaque(self) -> int:
        """A number for the next request on this connection."""
        return next(self._opaques)

    def write(self, frame: bytes) -> None:
        """Queue a frame; it leaves with the next poll, or at once when many wait."""
        self._out += frame
        if len(self._out) >= 1 << 16:
            self.flush()

    def ask(self, code: int, fields: Mapping[str, str], body: bytes = b"") -> int:
        """Queue a request; returns its opaque."""
        opaque = self.opaque()
        self.write(request(code, opaque, self.login.sign(fields, body) if self.login else fields, body))
        return opaque

    def poll(self, timeout_s: float) -> list[Frame]:
        """Answers that have arrived; waits at most timeout_s for the first."""
        self.flush()
        if self.lost:
            return []
        if not _unread(self._socket):
            self._events.modify(self._socket, select.POLLIN | (select.POLLOUT if self._out else 0))
            if not self._events.poll(max(0.0, timeout_s) * 1000):
                return []
        self.flush()
        self._receive()
        try:
            return [frame for frame in take_frames(self._in) if frame.header.is_answer]
        except MalformedError as error:
            self.lost = f"{self.address}: {error}"
            return []

    def flush(self) -> None:
        """Send what the peer takes now."""
        try:
            while self._out and not self.lost:
                sent = self._socket.send(self._out)
                del self._out[:sent]
        except _LATER:
            return
        except OSError as error:
            self.lost = f"{self.address}: {error}"

    def _receive(self) -> None:
        try:
            for _ in range(16):  # a bound, so that one poll ends
                data = self._socket.recv(_RECEIVE_BYTES)
                if not data:
                    self.lost = self.lost or f"{self.address}: closed by the peer"
                    return
                self._in += data
                self.heard_ns = now_ns()
                if len(data) < _RECEIVE_BYTES and not _unread(self._socket):
                    return
        except _LATER:
            return
        except OSError as error:
            self.lost = f"{self.address}: {error}"

    def call(
        self,
        code: int,
        fields: Mapping[str, str] | None = None,
        body: bytes = b"",
        *,
        timeout_s: float = 3.0,
        accept: Sequence[int] = (Code.SUCCESS,),
    ) -> Frame:
        """One request and its answer, other answers dropped; raises ClientError when none comes in time, and
        AnswerError when its code is not in `accept`."""
        deadline = time.monotonic() + timeout_s
        opaque = self.ask(code, fields or {}, body)
        while True:
            for frame in self.poll(deadline - time.monotonic()):
                if frame.header.opaque == opaque:
                    if frame.header.code not in accept:
                        raise AnswerError(
                            f"{self.address}: request {code} got {frame.header.code}: {_line(frame.header.remark)}"
                        )
                    return frame
            if self.lost:
                raise ClientError(self.lost)
            if time.monotonic() >= deadline:
                raise ClientError(f"{self.address}: no answer to request {code} in {timeout_s:g} s")

    def close(self) -> None:
        """Drop the connection."""
        self.lost = self.lost or f"{self.address}: closed"
        with contextlib.suppress(OSError):
            self._socket.close()


def login(access: Mapping[str, Value]) -> Login | None:
    """None where nobody is to be convinced; raises ClientError for half of what it takes."""
    given = [str(access[key]) for key in ("access_key", "secret_key") if key in access]
    if len(given) == 1:
        raise ClientError("a login takes both access_key and secret_key")
    return Login(*given) if given else None


def _connected(address: str, timeout_s: float, context: ssl.SSLContext | None) -> socket.socket:
    """Raises ClientError."""
    host, _, port = address.rpartition(":")
    try:
        plain = socket.create_connection((host, int(port)), timeout_s)
    except OSError as error:
        raise ClientError(f"{address}: {error}") from error
    if context is None:
        return plain
    try:
        return context.wrap_socket(plain, server_hostname=host)
    except OSError as error:
        plain.close()
        raise ClientError(f"{address}: TLS: {error}") from error


def _unread(connection: socket.socket) -> int:
    """Bytes that are decrypted and wait, of which the kernel knows nothing."""
    return connection.pending() if isinstance(connection, ssl.SSLSocket) else 0


def _line(remark: str | None) -> str:
    """A remark without the advice that follows in further lines."""
    return (remark or "").split("\n", 1)[0]


def master_address(
    name_servers: Sequence[str], topic: str, timeout_s: float = 2.0, access: Mapping[str, Value] | None = None
) -> str:
    """host:port of the broker that the first name server to answer calls the topic's master; raises ClientError."""
    why = "no name server given"
    for address in name_servers:
        try:
            link = Link(address, timeout_s, access)
        except ClientError as error:
            why = str(error)
            continue
        try:
            answer = link.call(
                Request.GET_ROUTE, {"topic": topic, "acceptStandardJsonOnly": "true"}, timeout_s=timeout_s
            )
            groups = json.loads(answer.body)["brokerDatas"]
        except (ClientError, ValueError, KeyError) as error:
            why = str(error)
            continue
        finally:
            link.close()
        masters = [str(group["brokerAddrs"]["0"]) for group in groups if "0" in group["brokerAddrs"]]
        if masters:
            return masters[0]
        why = f"{address} knows no master of {topic}"
    raise ClientError(why)


def options(client: str, table: str, asked: Mapping[str, Value], defaults: Mapping[str, int]) -> dict[str, int]:
    """A client's own settings over their defaults; raises ClientError for one that there is not."""
    for key in asked:
        if key not in defaults:
            raise ClientError(f"{client}: {table}.{key}: no such setting; allowed: {', '.join(defaults)}")
    return {key: int(asked.get(key, default)) for key, default in defaults.items()}
