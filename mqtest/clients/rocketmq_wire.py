"""RocketMQ by its remoting protocol: how clients are opened; the consumer and the audit's reader, which pull.

Rules:
- Place p is queue p of the topic. The master is asked of the name servers (route) when a client is opened, and a
  client that finds it gone, silent or no longer master is `failed`: opening again finds the new one.
- How sends are made and what their answers prove stands in rocketmq_producer.py.
- A consumer has every n-th queue and commits its group's offsets at the master; what it pulls, it pulls ahead: the
  next pull of a place leaves before the answer to the one before it is read (rocketmq_messages.py).
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Final

from mqtest.clients import OPEN_TIMEOUT_S, Block, ClientError, Settle, one_by_one
from mqtest.clients.pipeline import Pipeline
from mqtest.clients.rocketmq_codec import Code, Header, MalformedError, Request
from mqtest.clients.rocketmq_link import Link, master_address, options
from mqtest.clients.rocketmq_messages import blocks
from mqtest.clients.rocketmq_producer import REFUSALS_TO_LEAVE, REFUSED_PAUSE_NS, BatchProducer, WireProducer
from mqtest.clock import NS_PER_S, now_ns
from mqtest.model import Delivery, Wiring

_NAME: Final = "rocketmq-wire"
PRODUCER: Final = {"timeout_ms": 3000, "batch": 1}
CONSUMER: Final = {"batch": 1024, "from_timestamp": False}
"""their settings, with defaults. `from_timestamp`: a group that has no position begins at the first one that was stored
at or after Wiring.since_ms, as CONSUME_FROM_TIMESTAMP of the Java client; else at the first of all"""
_SUSPEND_MS: Final = 1000
_QUIET_NS: Final = NS_PER_S
_SILENT_NS: Final = 3 * NS_PER_S


def _open_master(wiring: Wiring) -> Link:
    """A connection to the master, which has answered on it; within OPEN_TIMEOUT_S."""
    told = master_address(wiring.addresses, wiring.topic, OPEN_TIMEOUT_S / 5, wiring.access)
    link = Link(wiring.via.get(told, told), OPEN_TIMEOUT_S / 5, wiring.access)
    try:
        # a frozen process still accepts connections: this proves that it lives
        link.call(Request.GET_MAX_OFFSET, {"topic": wiring.topic, "queueId": "0"}, timeout_s=OPEN_TIMEOUT_S / 5)
    except ClientError:
        link.close()
        raise
    return link


class WireConsumer:
    """See mqtest.clients.BlockConsumer and Reader: with a group it goes on from, and commits, the group's offsets;
    without one it reads from the first position on. One pull a place is always under way."""

    def __init__(self, link: Link, wiring: Wiring, places: Sequence[int], group: str | None) -> None:
        self._link = link
        self._topic = wiring.topic
        self._group = group
        asked = options(_NAME, "consumer", wiring.consumer, CONSUMER)
        self._batch = str(asked["batch"])
        self._since_ms = wiring.since_ms if asked["from_timestamp"] else 0
        self._failed: str | None = None
        self._refused = 0
        self._pulls: dict[int, int] = {}
        self._again: dict[int, int] = {}
        """places whose next pull has to wait until then (ns)"""
        self._asked_ns = 0
        """when a sign of life was asked for that has not come yet"""
        deadline = time.monotonic() + OPEN_TIMEOUT_S / 5
        self._starts = {p: self._first(p, deadline) for p in places}
        self._next = {p: self._committed(p, deadline) if group else start for p, start in self._starts.items()}
        self._read: dict[int, int] = {}
        """place -> last offset that poll returned and no commit covers"""
        self._commits: set[int] = set()
        for place in places:
            self._pull(place)

    @property
    def failed(self) -> str | None:
        """See Producer and Consumer."""
        return self._failed or self._link.lost

    def starts(self) -> Mapping[int, int]:
        return dict(self._starts)

    def _queue(self, place: int) -> dict[str, str]:
        return {"topic": self._topic, "queueId": str(place)}

    def _first(self, place: int, deadline: float) -> int:
        timeout_s = deadline - time.monotonic()
        header = self._link.call(Request.GET_MIN_OFFSET, self._queue(place), timeout_s=timeout_s).header
        return int((header.fields or {})["offset"])

    def _committed(self, place: int, deadline: float) -> int:
        header = self._link.call(
            Request.QUERY_CONSUMER_OFFSET,
            {"consumerGroup": str(self._group), **self._queue(place)},
            timeout_s=deadline - time.monotonic(),
            accept=(Code.SUCCESS, Code.QUERY_NOT_FOUND),
        ).header
        known = self._starts[place] if header.code == Code.QUERY_NOT_FOUND else int((header.fields or {})["offset"])
        # of a group that is new the broker says 0 as long as the queue begins there (ConsumerManageProcessor)
        return max(known, self._since(place, deadline)) if self._since_ms else known

    def _since(self, place: int, deadline: float) -> int:
        """The first position that was stored at or after since_ms."""
        asked = {**self._queue(place), "timestamp": str(self._since_ms)}
        timeout_s = deadline - time.monotonic()
        header = self._link.call(Request.SEARCH_OFFSET_BY_TIMESTAMP, asked, timeout_s=timeout_s).header
        return int((header.fields or {})["offset"])

    def _pull(self, place: int) -> None:
        fields = {
            "consumerGroup": self._group or "mqtest-audit",
            **self._queue(place),
            "queueOffset": str(self._next[place]),
            "maxMsgNums": self._batch,
            "sysFlag": "6",  # may be suspended (2), names its subscription (4)
            "commitOffset": "0",
            "suspendTimeoutMillis": str(_SUSPEND_MS),
            "subscription": "*",
            "subVersion": "0",
            "expressionType": "TAG",
        }
        self._pulls[self._link.ask(Request.PULL_MESSAGE, fields)] = place

    def poll(self, timeout_s: float) -> Sequence[Delivery]:
        return one_by_one(self.poll_blocks(timeout_s))

    def poll_blocks(self, timeout_s: float) -> Sequence[Block]:
        if self.failed:
            return []
        self._wake(now_ns())
        if self._again:  # some place waits a little: do not sleep beyond that
            timeout_s = min(timeout_s, 0.02)
        brought: list[tuple[int, bytes]] = []
        for frame in self._link.poll(timeout_s):
            self._commits.discard(frame.header.opaque)
            place = self._pulls.pop(frame.header.opaque, None)
            if place is not None and self._pulled(place, frame.header):
                brought.append((place, frame.body))
        self._link.flush()  # the broker works on the next pulls while these are read
        self._watch(now_ns())
        return list(chain.from_iterable(self._blocks(place, body) for place, body in brought))

    def _pulled(self, place: int, header: Header) -> bool:
        """Go on from where the answer says; True: it has messages."""
        code, fields = header.code, header.fields or {}
        if code in (Code.SYSTEM_BUSY, Code.PULL_RETRY_IMMEDIATELY) or "nextBeginOffset" not in fields:
            self._refuse(place, header)
            return False
        position = int(fields["nextBeginOffset"])
        if code == Code.PULL_OFFSET_MOVED and self._group is None and position != self._next[place]:
            self._failed = f"place {place}: the broker has no position {self._next[place]}, names {position}"
            return False
        self._refused = 0
        self._next[place] = position
        self._pull(place)
        return code == Code.SUCCESS

    def _blocks(self, place: int, body: bytes) -> list[Block]:
        try:
            found = blocks(body)
        except MalformedError as error:
            self._failed = f"{self._link.address}: {error}"
            return []
        if found:
            self._read[place] = int(found[-1].offsets[-1])
        return found

    def _refuse(self, place: int, header: Header) -> None:
        # a slave, a store that still loads, or a busy broker
        self._refused += 1
        self._again[place] = now_ns() + REFUSED_PAUSE_NS
        if self._refused >= REFUSALS_TO_LEAVE * 4:
            self._failed = f"{self._link.address} gives no messages: {header.code} {header.remark}"

    def _wake(self, at_ns: int) -> None:
        for place in [p for p, due_ns in self._again.items() if due_ns <= at_ns]:
            del self._again[place]
            self._pull(place)

    def _watch(self, at_ns: int) -> None:
        """Suspended pulls are answered only after seconds, so the peer is asked for a sign of life in between."""
        if self._asked_ns and self._link.heard_ns >= self._asked_ns:
            self._asked_ns = 0
        if self._asked_ns and at_ns - self._asked_ns > _SILENT_NS:
            self._failed = f"{self._link.address}: nothing heard for {_SILENT_NS / NS_PER_S:g} s"
        elif not self._asked_ns and self._starts and at_ns - self._link.heard_ns > _QUIET_NS:
            self._asked_ns = at_ns
            self._link.ask(Request.GET_MIN_OFFSET, self._queue(next(iter(self._starts))))
            self._link.flush()

    def ack(self) -> None:
        if self._group is None:
            return
        for place, offset in self._read.items():
            fields = {"consumerGroup": self._group, **self._queue(place), "commitOffset": str(offset + 1)}
            self._commits.add(self._link.ask(Request.UPDATE_CONSUMER_OFFSET, fields))
        self._read.clear()
        self._link.flush()

    def close(self, timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        while self._commits and not self.failed and time.monotonic() < deadline:
            for frame in self._link.poll(deadline - time.monotonic()):
                self._commits.discard(frame.header.opaque)
        self._link.close()


def open_producer(wiring: Wiring, settle: Settle, number: int, epoch: int) -> WireProducer | BatchProducer:
    """See mqtest.clients.Client."""
    asked = options(_NAME, "producer", wiring.producer, PRODUCER)
    producer = WireProducer(_open_master(wiring), wiring, settle, number, asked["timeout_ms"])
    return producer if asked["batch"] == 1 else BatchProducer(producer, asked["batch"])


def open_consumer(wiring: Wiring, number: int, epoch: int, consumers: int) -> WireConsumer:
    """Consumer `number` has the places p with p % consumers == number."""
    places = [p for p in range(wiring.places) if p % consumers == number]
    return _opened(wiring, places, wiring.group)


def open_transformer(wiring: Wiring, number: int, epoch: int, transformers: int) -> Pipeline:
    """See mqtest.clients.Client."""
    return Pipeline(open_consumer, open_producer, wiring, number, epoch, transformers)


def open_reader(wiring: Wiring, places: Sequence[int]) -> WireConsumer:
    """See mqtest.clients.Client."""
    return _opened(wiring, places, None)


def _opened(wiring: Wiring, places: Sequence[int], group: str | None) -> WireConsumer:
    link = _open_master(wiring)
    try:
        return WireConsumer(link, wiring, places, group)
    except (ClientError, KeyError, ValueError) as error:
        link.close()
        raise ClientError(f"{link.address}: {error}") from error
