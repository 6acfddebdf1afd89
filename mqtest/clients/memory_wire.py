"""The protocol of the memory broker: frames, the messages in them, and one connection as clients and driver use it.

A frame is 4 bytes of length (big-endian) and one msgpack array, whose first element names the message. Clients send
Describe, Create, Sync, Produce, Subscribe, Fetch and Ack; the server answers with Described, Refused, Settled and
Delivered. Many messages travel in one frame, which is what makes it fast. An address `@name` is a socket in Linux's
abstract namespace: no file, so nothing is left behind and no path is too long.
"""

from __future__ import annotations

import select
import socket
import struct
import time
from collections.abc import Mapping
from typing import Any, Generic, TypeVar

import msgspec

from mqtest.clients import ClientError
from mqtest.model import Delivery, Kind, Outcome

TOPIC = "mqtest"
_LENGTH = struct.Struct(">I")
_READ_BYTES = 1 << 20


class Describe(msgspec.Struct, frozen=True, array_like=True, tag="describe"):
    """Say who you are and what you hold of a topic; answered by Described."""

    topic: str = TOPIC


class Create(msgspec.Struct, frozen=True, array_like=True, tag="create"):
    """Make the places of a topic; all topics are of one kind. Answered by Described."""

    kind: Kind
    places: int
    topic: str = TOPIC


class Sync(msgspec.Struct, frozen=True, array_like=True, tag="sync"):
    """Flush everything to the disk; answered by Described, of no topic."""


class Produce(msgspec.Struct, frozen=True, array_like=True, tag="produce"):
    """Store these: (seq, place, body). Answered by Settled, unless `quiet`."""

    quiet: bool
    messages: list[tuple[int, int, bytes]]
    topic: str = TOPIC


class Subscribe(msgspec.Struct, frozen=True, array_like=True, tag="subscribe"):
    """Read these places in `group`; without a group ("") a log is read from its start. Answered by Described."""

    places: list[int]
    group: str
    topic: str = TOPIC


class Fetch(msgspec.Struct, frozen=True, array_like=True, tag="fetch"):
    """Give me up to `most` deliveries, as soon as there is one; answered by Delivered."""

    most: int


class Ack(msgspec.Struct, frozen=True, array_like=True, tag="ack"):
    """Everything up to this offset (log) or delivery tag (queue) of each place is done with; not answered."""

    last: dict[int, int]


class PlaceState(msgspec.Struct, frozen=True, array_like=True):
    """Log: first and next position. Queue: messages ready, and delivered but not acknowledged."""

    start: int
    end: int
    ready: int
    unacked: int
    committed: dict[str, int]
    """log: group -> its next position"""


class Described(msgspec.Struct, frozen=True, array_like=True, tag="described"):
    """The server's own word on itself."""

    version: str
    settings: dict[str, str]
    places: list[PlaceState]


class Refused(msgspec.Struct, frozen=True, array_like=True, tag="refused"):
    """The request before cannot be done."""

    why: str


class Settled(msgspec.Struct, frozen=True, array_like=True, tag="settled"):
    """(seq, outcome, offset, place) of each message produced."""

    rows: list[tuple[int, Outcome, int, int]]


class Delivered(msgspec.Struct, frozen=True, array_like=True, tag="delivered"):
    """What Fetch asked for."""

    deliveries: list[Delivery]


Request = Describe | Create | Sync | Produce | Subscribe | Fetch | Ack
Answer = Described | Refused | Settled | Delivered
T = TypeVar("T")

requests: msgspec.msgpack.Decoder[Request] = msgspec.msgpack.Decoder(Request)
answers: msgspec.msgpack.Decoder[Answer] = msgspec.msgpack.Decoder(Answer)
_encoder = msgspec.msgpack.Encoder()


def pack(message: Request | Answer) -> bytes:
    """One frame."""
    payload = _encoder.encode(message)
    return _LENGTH.pack(len(payload)) + payload


class Unpacker(Generic[T]):
    """Bytes as they arrive → messages."""

    __slots__ = ("_decoder", "_rest")

    def __init__(self, decoder: msgspec.msgpack.Decoder[T]) -> None:
        self._decoder = decoder
        self._rest = bytearray()

    def feed(self, data: bytes) -> list[T]:
        """The messages that are whole now; raises msgspec.DecodeError on what is not of this protocol."""
        self._rest += data
        messages, at = [], 0
        while len(self._rest) - at >= _LENGTH.size:
            end = at + _LENGTH.size + _LENGTH.unpack_from(self._rest, at)[0]
            if end > len(self._rest):
                break
            messages.append(self._decoder.decode(self._rest[at + _LENGTH.size : end]))
            at = end
        del self._rest[:at]
        return messages


def socket_address(address: str) -> str:
    """`@name` → a name in the abstract namespace; anything else is a path."""
    return "\0" + address[1:] if address.startswith("@") else address


class Connection:
    """One connection to the server. Never reconnects: once `failed` says why, it is beyond use."""

    def __init__(self, address: str, timeout_s: float) -> None:
        """Raises ClientError when nobody listens or answers within `timeout_s`."""
        self.failed: str | None = None
        self._out = bytearray()
        self._unpacker = Unpacker(answers)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(timeout_s)
        try:
            self._socket.connect(socket_address(address))
        except OSError as error:
            self._socket.close()
            raise ClientError(f"memory broker at {address}: {error}") from error
        self._socket.setblocking(False)
        self._poller = select.poll()

    @property
    def backlog_bytes(self) -> int:
        """Bytes that the broker has not taken yet."""
        return len(self._out)

    def put(self, message: Request) -> None:
        """Send one message, or queue what the socket does not take; `pump` goes on with that."""
        self._out += pack(message)
        self._send()

    def pump(self, timeout_s: float) -> list[Answer]:
        """Send and receive what can be; returns when something happened, or after `timeout_s`."""
        if self.failed:
            return []
        self._send()
        self._poller.register(self._socket, select.POLLIN | (select.POLLOUT if self._out else 0))
        self._poller.poll(timeout_s * 1000)
        self._send()
        return self._receive()

    def ask(self, message: Request, timeout_s: float) -> Described:
        """Send a request that is answered by Described; raises ClientError within `timeout_s`, and is then closed."""
        self.put(message)
        deadline = time.monotonic() + timeout_s
        while not self.failed:
            left_s = deadline - time.monotonic()
            for answer in self.pump(max(left_s, 0)):
                if isinstance(answer, Described):
                    return answer
                if isinstance(answer, Refused):
                    self.failed = answer.why
            if left_s <= 0:
                self.failed = self.failed or f"no answer within {timeout_s:g} s"
        self.close(0)
        raise ClientError(f"memory broker: {self.failed}")

    def close(self, timeout_s: float = 0.0) -> None:
        """Send what is queued, for at most `timeout_s`, and drop the connection."""
        deadline = time.monotonic() + timeout_s
        while self._out and not self.failed and (left_s := deadline - time.monotonic()) > 0:
            self.pump(left_s)
        self.failed = self.failed or "closed"
        self._socket.close()

    def _send(self) -> None:
        try:
            while self._out:
                del self._out[: self._socket.send(self._out)]
        except BlockingIOError:
            pass
        except OSError:
            self._out.clear()  # what was answered before the end is still to be read: _receive sees the end

    def _receive(self) -> list[Answer]:
        received: list[Answer] = []
        while not self.failed:
            try:
                data = self._socket.recv(_READ_BYTES)
            except BlockingIOError:
                break
            except OSError as error:
                self.failed = f"connection lost: {error}"
                break
            if not data:
                self.failed = "connection closed by the broker"
            received += self._unpacker.feed(data)
        return received


def known(options: Mapping[str, Any], allowed: Mapping[str, int], where: str) -> dict[str, int]:
    """The client's own settings over their defaults; raises ClientError for one that there is not."""
    for key in options:
        if key not in allowed:
            raise ClientError(f"memory: {where}.{key}: no such setting; allowed: {', '.join(allowed) or 'none'}")
    return {key: int(options.get(key, default)) for key, default in allowed.items()}
