"""Where a stream begins and ends on one RabbitMQ node, asked over the stream protocol.

The management API shows no positions of a stream, and its counts lag by five seconds. A node answers StreamStats from
its own member, at once. This speaks just enough of the protocol for that: hello, login, one question. Every message
is a length, a key, version 1 and, save for Tune, a correlation number; strings have a 16-bit length, all big-endian.
"""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Mapping
from typing import Final

from mqtest.errors import ClusterError

_PEER_PROPERTIES: Final = 0x11
_SASL_HANDSHAKE: Final = 0x12
_SASL_AUTHENTICATE: Final = 0x13
_TUNE: Final = 0x14
_OPEN: Final = 0x15
_STATS: Final = 0x1C
_RESPONSE: Final = 0x8000
_OK: Final = 1


def stream_stats(address: str, port: int, user: str, password: str, stream: str, timeout_s: float) -> Mapping[str, int]:
    """What the node's own member of the stream says: `first_chunk_id` and `committed_offset` (both −1: nothing yet)
    among others. Raises ClusterError when the node has no running member, does not answer, or answers nonsense."""
    try:
        with socket.create_connection((address, port), timeout_s) as connection:
            return _Session(connection, timeout_s).stats(user, password, stream)
    except (OSError, struct.error, UnicodeDecodeError) as error:
        raise ClusterError(f"{address}:{port}: no statistics of stream {stream}: {error}") from None


class _Session:
    def __init__(self, connection: socket.socket, timeout_s: float) -> None:
        self._connection = connection
        self._end = time.monotonic() + timeout_s
        self._correlation = 0

    def stats(self, user: str, password: str, stream: str) -> Mapping[str, int]:
        self._call(_PEER_PROPERTIES, struct.pack(">i", 0), "hello")
        self._call(_SASL_HANDSHAKE, b"", "handshake")
        login = f"\0{user}\0{password}".encode()
        self._call(_SASL_AUTHENTICATE, _text("PLAIN") + struct.pack(">i", len(login)) + login, "login")
        key, limits = self._receive()
        if key != _TUNE:
            raise ClusterError(f"stream protocol: expected Tune, got {key:#x}")
        self._send(_TUNE, limits)
        self._call(_OPEN, _text("/"), "open")
        return _numbers(self._call(_STATS, _text(stream), f"statistics of {stream}"))

    def _call(self, key: int, body: bytes, what: str) -> bytes:
        self._correlation += 1
        self._send(key, struct.pack(">I", self._correlation) + body)
        answered, answer = self._receive()
        _, code = struct.unpack_from(">IH", answer)
        if answered != key | _RESPONSE or code != _OK:
            raise ClusterError(f"stream protocol: {what}: answer {answered:#x}, code {code}")
        return answer[6:]

    def _send(self, key: int, body: bytes) -> None:
        self._connection.sendall(struct.pack(">IHH", len(body) + 4, key, 1) + body)

    def _receive(self) -> tuple[int, bytes]:
        (length,) = struct.unpack(">I", self._exactly(4))
        key, _version = struct.unpack(">HH", self._exactly(4))
        return key, self._exactly(length - 4)

    def _exactly(self, length: int) -> bytes:
        got = b""
        while len(got) < length:
            self._connection.settimeout(max(self._end - time.monotonic(), 0.001))
            piece = self._connection.recv(length - len(got))
            if not piece:
                raise ConnectionError("the node closed the connection")
            got += piece
        return got


def _text(value: str) -> bytes:
    encoded = value.encode()
    return struct.pack(">h", len(encoded)) + encoded


def _numbers(answer: bytes) -> Mapping[str, int]:
    """An array of (name, 64-bit number)."""
    (count,) = struct.unpack_from(">i", answer)
    at, numbers = 4, {}
    for _ in range(count):
        (length,) = struct.unpack_from(">h", answer, at)
        name = answer[at + 2 : at + 2 + length].decode()
        (numbers[name],) = struct.unpack_from(">q", answer, at + 2 + length)
        at += 10 + length
    return numbers
