"""Connections that speak Kafka's protocol, and the question who leads which place.

Non-blocking underneath: nothing waits longer than its timeout. A broken link says so in `lost` and stays broken.
Answers come in the order of the requests. What is written is not copied, so it must not change until it has left.
"""

from __future__ import annotations

import contextlib
import select
import socket
import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from mqtest.clients import OPEN_TIMEOUT_S, ClientError
from mqtest.clients.kafka_codec import Api, Cursor, MalformedError, head, metadata, parsed, read_metadata
from mqtest.clock import now_ns
from mqtest.model import Wiring

TRY_S: Final = OPEN_TIMEOUT_S / 5
"""what one node gets to take a connection, or to answer a question while a client is opened"""
OPEN_S: Final = OPEN_TIMEOUT_S * 0.8
_LARGEST_BYTES: Final = 256 << 20
_MOST_PARTS: Final = 64


class Link:
    """One connection. `lost` says why it is beyond use."""

    def __init__(self, address: str, client_id: str, timeout_s: float) -> None:
        """Connect; raises ClientError."""
        self.address = address
        self.lost: str | None = None
        self.heard_ns = now_ns()
        """when bytes last arrived"""
        self.asked_bytes = self.left_bytes = 0
        """of all requests so far; how many of them the kernel has"""
        self._client_id = client_id
        host, _, port = address.rpartition(":")
        try:
            self._socket = socket.create_connection((host, int(port)), timeout_s)
        except OSError as error:
            raise ClientError(f"{address}: {error}") from error
        self._socket.setblocking(False)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._out: deque[memoryview] = deque()
        self._correlation = 0
        self._size = bytearray(4)
        self._frame: bytearray | None = None
        """the answer that is arriving, once its size is known"""
        self._got = 0

    @property
    def unsent(self) -> int:
        """Bytes that wait for the peer to take them."""
        return self.asked_bytes - self.left_bytes

    def fileno(self) -> int:
        """For `wait`."""
        return self._socket.fileno()

    def ask(self, api: Api, *body: bytes | memoryview) -> int:
        """Queue a request; returns its number on this connection. It leaves with the next flush."""
        self._correlation += 1
        parts = [head(api, self._correlation, self._client_id, sum(map(len, body))), *body]
        self._out.extend(memoryview(part) for part in parts)
        self.asked_bytes += sum(map(len, parts))
        return self._correlation

    def flush(self) -> None:
        """Send what the peer takes now."""
        try:
            while self._out and not self.lost:
                sent = self._socket.sendmsg([self._out[n] for n in range(min(len(self._out), _MOST_PARTS))])
                self.left_bytes += sent
                while sent:
                    part = self._out.popleft()
                    if sent < len(part):
                        self._out.appendleft(part[sent:])
                    sent -= min(sent, len(part))
        except BlockingIOError:
            return
        except OSError as error:
            self.lost = self.lost or f"{self.address}: {error}"

    def take(self) -> list[tuple[int, Cursor]]:
        """Whole answers that have arrived: the request's number, and what follows it. Ends what arrived before the
        connection was lost with it."""
        found: list[tuple[int, Cursor]] = []
        try:
            while not self.lost and (more := self._receive()):
                found += more
        except BlockingIOError:
            pass
        except (OSError, MalformedError) as error:
            self.lost = self.lost or f"{self.address}: {error}"
        return found

    def _receive(self) -> Iterable[tuple[int, Cursor]]:
        """One read, and the answers (one at most) that it made whole; an empty one only at the end of the stream."""
        whole: list[tuple[int, Cursor]] = []
        while not whole:
            target = self._size if self._frame is None else self._frame
            got = self._socket.recv_into(memoryview(target)[self._got :])
            if not got:
                self.lost = self.lost or f"{self.address}: closed by the peer"
                return whole
            self.heard_ns = now_ns()
            self._got += got
            if self._got < len(target):
                continue
            self._got = 0
            if self._frame is None:
                size = int.from_bytes(self._size, "big")
                if not 4 <= size <= _LARGEST_BYTES:
                    raise MalformedError(f"an answer of {size} bytes")
                self._frame = bytearray(size)
            else:
                frame = memoryview(self._frame)
                self._frame = None
                whole.append((int.from_bytes(frame[:4], "big"), Cursor(frame[4:])))
        return whole

    def call(self, api: Api, body: bytes, timeout_s: float) -> Cursor:
        """One request and its answer, other answers dropped; raises ClientError when none comes in time."""
        deadline = time.monotonic() + timeout_s
        asked = self.ask(api, body)
        while True:
            self.flush()
            for answered, cursor in self.take():
                if answered == asked:
                    return cursor
            if self.lost:
                raise ClientError(self.lost)
            if (left := deadline - time.monotonic()) <= 0:
                raise ClientError(f"{self.address}: no answer to {api.name} in {timeout_s:g} s")
            wait([self], left)

    def close(self) -> None:
        """Drop the connection."""
        self.lost = self.lost or f"{self.address}: closed"
        with contextlib.suppress(OSError):
            self._socket.close()


def wait(links: Iterable[Link], timeout_s: float) -> None:
    """Until one of them has something to read, or takes what waits to be sent; timeout_s at most."""
    events = select.poll()
    for link in links:
        if not link.lost:
            events.register(link, select.POLLIN | (select.POLLOUT if link.unsent else 0))
    events.poll(max(0.0, timeout_s) * 1000)


def connect(wiring: Wiring, places: Sequence[int], client_id: str) -> Mapping[int, Link]:
    """Place -> a connection to its leader, which says itself that it leads; one a node. All nodes are asked, and the
    newest leader epoch counts: a leader that was cut off goes on naming itself. Raises ClientError within OPEN_S."""
    if wiring.access:
        raise ClientError("kafka-wire speaks neither TLS nor SASL: a cluster with access takes the client 'confluent'")
    deadline = time.monotonic() + OPEN_S
    links: dict[str, Link] = {}
    views: dict[str, Mapping[int, tuple[int, str]]] = {}
    used: Mapping[int, Link] = {}
    try:
        used = _leaders(wiring, places, links, views, client_id, deadline)
    finally:
        close_all(link for link in links.values() if link not in used.values())
    return used


def _leaders(
    wiring: Wiring,
    places: Sequence[int],
    links: dict[str, Link],
    views: dict[str, Mapping[int, tuple[int, str]]],
    client_id: str,
    deadline: float,
) -> Mapping[int, Link]:
    """As `connect`; `links` gets every connection that was made, `views` what each node said."""
    why = "no node given"
    for address in wiring.addresses:
        try:
            views[address] = _asked(links, address, wiring, client_id, deadline)
        except ClientError as error:
            why = str(error)
    if not views:
        raise ClientError(why)
    found = {}
    for place in places:
        epoch, there = max((view[place] for view in views.values() if place in view), default=(-1, ""))
        if not there:
            raise ClientError(f"nobody who answers knows a leader of {wiring.topic}-{place}")
        if there not in views:
            views[there] = _asked(links, there, wiring, client_id, deadline)
        if views[there].get(place) != (epoch, there):
            raise ClientError(f"{there} does not lead {wiring.topic}-{place} by its own word")
        found[place] = links[there]
    return found


def _asked(
    links: dict[str, Link], address: str, wiring: Wiring, client_id: str, deadline: float
) -> Mapping[int, tuple[int, str]]:
    """Place -> leader epoch, host:port of the leader, where there is one, by the word of one node."""
    if address not in links:
        links[address] = Link(address, client_id, _left(deadline))
    answer = links[address].call(Api.METADATA, metadata(wiring.topic), _left(deadline))
    try:
        view = parsed(answer, read_metadata)
    except MalformedError as error:
        raise ClientError(f"{address}: {error}") from error
    told = {
        place: (seen.epoch, view.nodes[seen.leader])
        for (_topic, place), seen in view.partitions.items()
        if seen.leader in view.nodes
    }
    return {place: (epoch, wiring.via.get(there, there)) for place, (epoch, there) in told.items()}


def _left(deadline: float) -> float:
    """What one node gets, in s, of the time that is left."""
    return max(0.01, min(TRY_S, deadline - time.monotonic()))


def close_all(links: Iterable[Link]) -> None:
    """Drop these connections."""
    for link in links:
        link.close()
