"""Kafka by its own protocol: the consumer and the audit's reader. One fetch a leader is always under way.

Rules:
- A consumer is no member of its group: it has the places it was opened with, begins where the group's offsets stand
  (where there are none, or the log does not have that position: at the first one), and commits there after `ack`, at
  most every COMMIT_EVERY_S, and when it is closed. Kafka takes such commits for a group without members.
- What comes back is checked against the CRC of its batch (kafka_batches.py). Positions before the one that was asked
  for are dropped. A position that the log no longer has, a leader that leads no longer or is silent: `failed`.
- The reader has no group, and begins at the first position that the leader names.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final, TypeVar

from mqtest.clients import Block, ClientError, one_by_one
from mqtest.clients import kafka_codec as codec
from mqtest.clients.kafka_batches import read
from mqtest.clients.kafka_codec import Api, Cursor, Error, MalformedError, named, parsed
from mqtest.clients.kafka_link import OPEN_S, TRY_S, Link, close_all, connect, wait
from mqtest.clients.kafka_wire_settings import consumer_settings
from mqtest.clock import NS_PER_S, now_ns
from mqtest.model import Delivery, Wiring

T = TypeVar("T")

COMMIT_EVERY_S: Final = 0.2
_NOT_YET: Final = (
    Error.COORDINATOR_LOAD_IN_PROGRESS,
    Error.COORDINATOR_NOT_AVAILABLE,
    Error.NOT_COORDINATOR,
)
"""the group's coordinator is on its way: ask again"""
_AGAIN_S: Final = 0.1


class _Fetching:
    """The places of one client, each with the connection to its leader and the position to go on from."""

    def __init__(self, wiring: Wiring, links: Mapping[int, Link], positions: Mapping[int, int]) -> None:
        self.failed: str | None = None
        self._topic = wiring.topic
        self._settings = consumer_settings(wiring.consumer)
        self._positions = dict(positions)
        self.links = list({id(link): link for link in links.values()}.values())
        self._asked: dict[int, tuple[int, int]] = {}
        """per connection: the number of the fetch under way, and when it left (ns)"""
        self._places = {id(link): [p for p, own in links.items() if own is link] for link in self.links}

    def take(self) -> list[Block]:
        """What has arrived; the next fetch of a leader leaves before what it brought is handed on."""
        blocks: list[Block] = []
        for link in self.links:
            for asked, answer in link.take():
                if self._asked.get(id(link), (0, 0))[0] == asked:
                    del self._asked[id(link)]
                    blocks += self._fetched(link, answer)
            self.failed = self.failed or link.lost
            self._fetch(link)
        return blocks

    def _fetch(self, link: Link) -> None:
        if id(link) in self._asked or self.failed:
            self._watch(link)
            return
        positions = {place: self._positions[place] for place in self._places[id(link)]}
        body = codec.fetch(self._topic, positions, self._settings.wait_ms, self._settings.most_bytes)
        self._asked[id(link)] = (link.ask(Api.FETCH, body), now_ns())
        link.flush()

    def _watch(self, link: Link) -> None:
        _number, asked_ns = self._asked.get(id(link), (0, now_ns()))
        if now_ns() - max(asked_ns, link.heard_ns) > self._settings.silent_ns:
            self.failed = self.failed or f"{link.address}: nothing heard for {self._settings.silent_ns / NS_PER_S:g} s"

    def _fetched(self, link: Link, answer: Cursor) -> list[Block]:
        blocks: list[Block] = []
        try:
            error, places = parsed(answer, codec.read_fetch)
            for one in places:
                error = error or one.error
                if one.error:
                    continue
                found = read(one.records, self._positions[one.place])
                blocks += [Block(one.place, offsets, bodies) for offsets, bodies in found.blocks]
                self._positions[one.place] = found.position
            # Kafka fills an answer in the order of the request: another place is the first one the next time
            self._places[id(link)] = self._places[id(link)][1:] + self._places[id(link)][:1]
        except (MalformedError, KeyError) as malformed:
            self.failed = self.failed or f"{link.address}: {malformed}"
            return blocks
        if error:
            self.failed = self.failed or f"{link.address}: {self._topic} is not fetched: {named(error)}"
        return blocks


class WireReader:
    """See mqtest.clients.Reader and BlockConsumer."""

    def __init__(self, wiring: Wiring, places: Sequence[int]) -> None:
        self._links = connect(wiring, places, "reader")
        try:
            self._starts = _positions(wiring, self._links, codec.EARLIEST)
            self._fetching = _Fetching(wiring, self._links, self._starts)
        except BaseException:
            close_all(self._links.values())
            raise

    @property
    def failed(self) -> str | None:
        return self._fetching.failed

    def starts(self) -> Mapping[int, int]:
        """The first position of each place when the reader was opened, by the leader's word."""
        return self._starts

    def poll_blocks(self, timeout_s: float) -> Sequence[Block]:
        return _polled(self._fetching, timeout_s)

    def poll(self, timeout_s: float) -> Sequence[Delivery]:
        return one_by_one(self.poll_blocks(timeout_s))

    def ack(self) -> None:
        """Nothing: an audit leaves no trace."""

    def close(self, timeout_s: float) -> None:
        close_all(self._links.values())


class WireConsumer:
    """See mqtest.clients.BlockConsumer."""

    def __init__(self, wiring: Wiring, places: Sequence[int], name: str) -> None:
        deadline = time.monotonic() + OPEN_S
        self._wiring = wiring
        self._links: Mapping[int, Link] = {}
        self._coordinator: Link | None = None
        try:
            self._links = connect(wiring, places or [0], name)  # a consumer without places still has its group
            self._coordinator = _coordinator(wiring, next(iter(self._links.values())), name, deadline)
            committed = _until(deadline, lambda: _committed(wiring, self._coordinator, places))
            links = {place: self._links[place] for place in places}
            starts, ends = (_positions(wiring, links, which) for which in (codec.EARLIEST, codec.LATEST))
            begin = {p: committed[p] if starts[p] <= committed[p] <= ends[p] else starts[p] for p in places}
            self._fetching = _Fetching(wiring, links, begin)
        except MalformedError as malformed:
            self._drop()
            raise ClientError(str(malformed)) from malformed
        except BaseException:
            self._drop()
            raise
        self._returned: dict[int, int] = {}
        """place -> one past the last position that poll returned"""
        self._acked: dict[int, int] = {}
        """the same of what was acknowledged, as far as no commit has it"""
        self._commits: set[int] = set()
        self._committed_at = 0.0

    @property
    def failed(self) -> str | None:
        assert self._coordinator is not None
        return self._fetching.failed or self._coordinator.lost

    def poll_blocks(self, timeout_s: float) -> Sequence[Block]:
        blocks = _polled(self._fetching, timeout_s, self._coordinator)
        for block in blocks:
            self._returned[block.place] = int(block.offsets[-1]) + 1
        self._commit_due()
        self._hear_commits()
        return blocks

    def poll(self, timeout_s: float) -> Sequence[Delivery]:
        return one_by_one(self.poll_blocks(timeout_s))

    def ack(self) -> None:
        self._acked.update(self._returned)
        self._returned.clear()
        self._commit_due()

    def close(self, timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        if self._coordinator is not None and not self.failed:
            self._commit()
            while self._commits and not self._coordinator.lost and (left := deadline - time.monotonic()) > 0:
                wait([self._coordinator], left)
                self._hear_commits()
        self._drop()

    def _drop(self) -> None:
        close_all({*self._links.values(), *([self._coordinator] if self._coordinator else [])})

    def _commit_due(self) -> None:
        if self._acked and time.monotonic() - self._committed_at >= COMMIT_EVERY_S:
            self._commit()

    def _commit(self) -> None:
        if not self._acked:
            return
        assert self._coordinator is not None
        self._committed_at = time.monotonic()
        body = codec.offset_commit(self._wiring.group, self._wiring.topic, self._acked)
        self._commits.add(self._coordinator.ask(Api.OFFSET_COMMIT, body))
        self._coordinator.flush()
        self._acked.clear()

    def _hear_commits(self) -> None:
        """A commit that the coordinator refuses ends the client: the next one finds the coordinator anew."""
        assert self._coordinator is not None
        self._coordinator.flush()
        for asked, answer in self._coordinator.take():
            if asked in self._commits:
                self._commits.discard(asked)
                try:
                    error = parsed(answer, codec.read_offset_commit)
                    why = named(error) if error else None
                except MalformedError as malformed:
                    why = str(malformed)
                if why:
                    why = f"{self._coordinator.address}: positions not committed: {why}"
                    self._fetching.failed = self._fetching.failed or why


def _polled(fetching: _Fetching, timeout_s: float, more: Link | None = None) -> list[Block]:
    """Wait for the first blocks; `more`: another connection that may have something to say meanwhile."""
    deadline = time.monotonic() + timeout_s
    while True:
        blocks = fetching.take()
        left_s = deadline - time.monotonic()
        if blocks or fetching.failed or left_s <= 0:
            return blocks
        wait(fetching.links, min(left_s, 0.1))
        if more is not None and more.lost:
            return blocks


def _until(deadline: float, ask: Callable[[], T | int]) -> T:
    """Ask until the answer is no error code of _NOT_YET; raises ClientError for any other, or after the time."""
    while True:
        answer = ask()
        if not isinstance(answer, int):
            return answer
        if answer not in _NOT_YET or time.monotonic() + _AGAIN_S >= deadline:
            raise ClientError(f"the group has no coordinator: {named(answer)}")
        time.sleep(_AGAIN_S)


def _coordinator(wiring: Wiring, link: Link, name: str, deadline: float) -> Link:
    """A connection to the group's coordinator."""

    def found() -> str | int:
        answer = link.call(Api.FIND_COORDINATOR, codec.find_coordinator(wiring.group), TRY_S)
        error, there = parsed(answer, codec.read_coordinator)
        return error or there

    there = _until(deadline, found)
    return Link(wiring.via.get(there, there), name, TRY_S)


def _committed(wiring: Wiring, link: Link | None, places: Sequence[int]) -> Mapping[int, int] | int:
    assert link is not None
    answer = link.call(Api.OFFSET_FETCH, codec.offset_fetch(wiring.group, wiring.topic, places), TRY_S)
    error, committed = parsed(answer, codec.read_offset_fetch)
    return error or {place: committed.get(place, -1) for place in places}


def _positions(wiring: Wiring, links: Mapping[int, Link], which: int) -> dict[int, int]:
    """Place -> its first or last position, by its leader's word; raises ClientError."""
    found = {}
    for place, link in links.items():
        try:
            answer = link.call(Api.LIST_OFFSETS, codec.list_offsets(wiring.topic, [place], which), TRY_S)
            error, offset = parsed(answer, codec.read_list_offsets)[place]
        except (MalformedError, KeyError) as malformed:
            raise ClientError(f"{link.address}: {malformed}") from malformed
        if error:
            raise ClientError(f"{link.address} does not say where {wiring.topic}-{place} begins: {named(error)}")
        found[place] = offset
    return found
