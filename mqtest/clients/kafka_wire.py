"""Kafka by its own protocol, without a Python object a message: the producer, and how all three are opened.

Rules:
- Leaders are asked for when a client is opened. One that finds its leader gone, silent or no longer leader is `failed`:
  opening again finds the new one. Nothing is sent twice, so an answer says what became of the one try.
- A batch is built of what waits for a place once it is full (`batch.size`) or `linger.ms` old, and at most
  `max.in.flight.requests.per.connection` are under way on a connection. Each has one batch.
- ACKED: no error. REFUSED: an error that `REFUSALS` lists, with the place in apache/kafka where it is answered before
  anything is appended, and base offset -1: what was appended before it failed keeps its offset in the answer
  (ReplicaManager.appendRecords; DelayedProduce only replaces the error, so NOT_LEADER_OR_FOLLOWER may come after the
  append, too). Everything else is UNKNOWN, and so is what has no answer when the connection ends.
- acks=0: nobody answers; UNKNOWN once the kernel has the request.
- Idempotent: producer id and sequence for order; a batch behind a refused one is refused by its sequence. When all of
  a place are answered, the next one takes the sequence of the first refused one. An unknown one ends the client.
- After a refusal, one batch at a time, 50 ms apart, until one is taken.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, NamedTuple

import numpy as np

from mqtest.bodies import Bodies
from mqtest.clients import Settle, SettleMany
from mqtest.clients.kafka_batches import NOT_IDEMPOTENT, fitting, make
from mqtest.clients.kafka_codec import (
    Api,
    Cursor,
    Error,
    Stored,
    named,
    parsed,
    produce,
    read_produce,
)
from mqtest.clients.kafka_link import Link, close_all, connect, wait
from mqtest.clients.kafka_producer_ids import producer_id
from mqtest.clients.kafka_wire_consumer import WireConsumer, WireReader
from mqtest.clients.kafka_wire_settings import ProducerSettings, producer_settings
from mqtest.clock import NS_PER_MS, NS_PER_S, now_ns
from mqtest.model import RUNNER, Outcome, Wiring

REFUSALS: Final[Mapping[int, str]] = {
    Error.CORRUPT_MESSAGE: "UnifiedLog.analyzeAndValidateRecords: before the append",
    Error.UNKNOWN_TOPIC_OR_PARTITION: "KafkaApis.handleProduceRequest, ReplicaManager.getPartitionOrException",
    Error.NOT_LEADER_OR_FOLLOWER: "Partition.appendRecordsToLeader: no leader log here",
    Error.MESSAGE_TOO_LARGE: "UnifiedLog.analyzeAndValidateRecords: before the append",
    Error.RECORD_LIST_TOO_LARGE: "UnifiedLog.append: larger than a segment, before the append",
    Error.NOT_ENOUGH_REPLICAS: "Partition.appendRecordsToLeader: before the append",
    Error.TOPIC_AUTHORIZATION_FAILED: "KafkaApis.handleProduceRequest",
    Error.INVALID_TIMESTAMP: "LogValidator: before the append",
    Error.OUT_OF_ORDER_SEQUENCE_NUMBER: "ProducerAppendInfo.checkSequence: before the append",
    Error.INVALID_RECORD: "LogValidator: before the append",
}
_LEAVE: Final = (
    Error.UNKNOWN_TOPIC_OR_PARTITION,
    Error.LEADER_NOT_AVAILABLE,
    Error.NOT_LEADER_OR_FOLLOWER,
    Error.KAFKA_STORAGE_ERROR,
)
"""this node is of no more use for the place"""
_REFUSED_PAUSE_NS: Final = 50 * NS_PER_MS
_MOST_WAITING_BYTES: Final = 16 << 20
_SEQUENCES: Final = 1 << 31


def outcome_of(stored: Stored) -> Outcome:
    """What an answer to a batch proves."""
    if stored.error == Error.NONE:
        return Outcome.ACKED
    return Outcome.REFUSED if stored.error in REFUSALS and stored.offset < 0 else Outcome.UNKNOWN


class _Flight(NamedTuple):
    """A batch under way."""

    place: int
    runs: Sequence[range]
    messages: int
    sequence: int
    sent_ns: int
    left_at: int
    """bytes of its connection, its own included"""


@dataclass(slots=True)
class _Waiting:
    """What waits for one place."""

    link: Link
    pieces: deque[tuple[range, Bodies]] = field(default_factory=deque)
    count: int = 0
    bytes: int = 0
    since_ns: int = 0
    """when the first of them came"""
    sequence: int = 0
    """of the next batch's first record"""
    in_flight: int = 0
    back_to: int | None = None
    """after a refusal, until all that were under way are answered: the sequence to go on with, which is that of the
    first refused batch, or the one behind the last that was taken after it"""

    def cut(self, most_bytes: int) -> tuple[list[range], list[Bodies]]:
        """Take off what makes one batch: messages of one size, from the first one on."""
        runs: list[range] = []
        bodies: list[Bodies] = []
        size = self.pieces[0][1].shape[1]
        room = fitting(size, most_bytes)
        while room and self.pieces and self.pieces[0][1].shape[1] == size:
            seqs, piece = self.pieces.popleft()
            if len(seqs) > room:
                self.pieces.appendleft((seqs[room:], piece[room:]))
                seqs, piece = seqs[:room], piece[:room]
            room -= len(seqs)
            self.count -= len(seqs)
            self.bytes -= piece.size
            last = runs[-1] if runs else None
            if last and last[-1] + last.step == seqs[0] and (last.step == seqs.step or len(seqs) == 1):
                runs[-1] = range(last.start, seqs[-1] + 1, last.step)
            else:
                runs.append(seqs)
            bodies.append(piece)
        return runs, bodies


class WireProducer:
    """See mqtest.clients.BlockProducer."""

    def __init__(
        self,
        links: Mapping[int, Link],
        wiring: Wiring,
        settle: Settle,
        settings: ProducerSettings,
        producer: tuple[int, int] | None,
    ) -> None:
        self.failed: str | None = None
        self.settle_many: SettleMany | None = None
        self._settle = settle
        self._settings = settings
        self._topic = wiring.topic
        self._stored = Outcome.ACKED if wiring.acknowledged else Outcome.UNKNOWN
        self._producer = producer
        """its id and epoch, where it is idempotent"""
        self._waiting = {place: _Waiting(link) for place, link in links.items()}
        self._links = {id(link): link for link in links.values()}
        self._open: dict[int, dict[int, _Flight]] = {key: {} for key in self._links}
        """per connection, by the number of the request"""
        self._waiting_bytes = 0
        self._refused = False
        """the last answer was a refusal"""
        self._resume_ns = 0

    @property
    def blocked(self) -> bool:
        return self._waiting_bytes > _MOST_WAITING_BYTES or now_ns() < self._resume_ns

    # --- taking ---

    def send(self, seq: int, place: int, body: bytes) -> bool:
        if self.failed or self.blocked:
            return False
        self._take(place, range(seq, seq + 1), np.frombuffer(body, dtype=np.uint8).reshape(1, len(body)))
        return True

    def send_many(self, seqs: range, places: int, bodies: Bodies) -> bool:
        if self.failed or self.blocked:
            return False
        for place in range(places):
            mine = slice((place - seqs.start) % places, None, places)
            if seqs[mine]:
                self._take(place, seqs[mine], bodies[mine])
        return True

    def _take(self, place: int, seqs: range, bodies: Bodies) -> None:
        waiting = self._waiting[place]
        if not waiting.count:
            waiting.since_ns = now_ns()
        waiting.pieces.append((seqs, bodies))
        waiting.count += len(seqs)
        waiting.bytes += bodies.size
        self._waiting_bytes += bodies.size

    # --- I/O ---

    def poll(self, timeout_s: float) -> None:
        deadline_ns = now_ns() + int(timeout_s * NS_PER_S)
        while True:
            heard = self._hear()
            at_ns = now_ns()
            self._launch(at_ns)
            self._watch(at_ns)
            if heard or self.failed or at_ns >= deadline_ns:
                return
            wait(self._links.values(), (min(deadline_ns, self._next_ns(at_ns)) - at_ns) / NS_PER_S)

    def close(self, timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        while True:
            for link in self._links.values():
                link.flush()
            self._hear()
            left_s = deadline - time.monotonic()
            if self.failed or left_s <= 0 or not any(self._open.values()):
                break
            wait(self._links.values(), left_s)
        close_all(self._links.values())

    def _next_ns(self, at_ns: int) -> int:
        """When the next batch is old enough to leave, of those that nothing else holds."""
        due = [self._due_ns(w) for w in self._waiting.values() if w.count and self._may_leave(w)]
        return max(at_ns + NS_PER_MS, min(due)) if due else at_ns + NS_PER_S

    def _due_ns(self, waiting: _Waiting) -> int:
        return max(waiting.since_ns + self._settings.linger_ns, self._resume_ns)

    def _may_leave(self, waiting: _Waiting) -> bool:
        if waiting.back_to is not None:
            return False
        most = 1 if self._refused else self._settings.in_flight
        return len(self._open[id(waiting.link)]) < most

    def _launch(self, at_ns: int) -> None:
        """Send every batch that is full or old enough."""
        for place, waiting in self._waiting.items():
            while waiting.count and self._may_leave(waiting) and at_ns >= self._resume_ns:
                if not self._full(waiting) and at_ns < self._due_ns(waiting):
                    break
                self._send_batch(place, waiting, at_ns)
        for link in self._links.values():
            link.flush()
        if not self._settings.acks:
            self._hear()

    def _full(self, waiting: _Waiting) -> bool:
        size = waiting.pieces[0][1].shape[1]
        return bool(waiting.bytes >= fitting(size, self._settings.batch_bytes) * size)

    def _send_batch(self, place: int, waiting: _Waiting, at_ns: int) -> None:
        before = waiting.bytes
        runs, bodies = waiting.cut(self._settings.batch_bytes)
        self._waiting_bytes -= before - waiting.bytes
        waiting.since_ns = at_ns
        count = sum(map(len, runs))
        producer = (*self._producer, waiting.sequence) if self._producer else NOT_IDEMPOTENT
        batch = make(bodies, time.time_ns() // NS_PER_MS, producer)
        settings, link = self._settings, waiting.link
        asked = link.ask(
            Api.PRODUCE, produce(self._topic, place, settings.acks, settings.timeout_ms, len(batch)), batch
        )
        self._open[id(link)][asked] = _Flight(place, runs, count, waiting.sequence, at_ns, link.asked_bytes)
        waiting.sequence = (waiting.sequence + count) % _SEQUENCES
        waiting.in_flight += 1

    def _hear(self) -> bool:
        """Settle what was answered; True: something was."""
        heard = False
        for key, link in self._links.items():
            flights = self._open[key]
            for asked, answer in link.take():
                flight = flights.pop(asked, None)
                if flight is not None:
                    heard = True
                    self._answered(flight, answer)
            if not self._settings.acks:
                for asked in [n for n, flight in flights.items() if flight.left_at <= link.left_bytes]:
                    heard = True
                    self._settled(flights.pop(asked), Outcome.UNKNOWN, -1)
            self.failed = self.failed or link.lost
        return heard

    def _answered(self, flight: _Flight, answer: Cursor) -> None:
        try:
            (stored,) = parsed(answer, read_produce)
        except ValueError as error:
            self._fail(f"an answer to a batch that is none: {error}")
            return
        outcome, waiting = outcome_of(stored), self._waiting[flight.place]
        self._settled(flight, self._stored if outcome is Outcome.ACKED else outcome, stored.offset)
        if outcome is Outcome.ACKED:
            self._refused = False
            if waiting.back_to is not None:  # a broker that knows nothing of the producer takes any sequence
                waiting.back_to = (flight.sequence + flight.messages) % _SEQUENCES
        elif stored.error in _LEAVE or (outcome is Outcome.UNKNOWN and self._producer):
            self._fail(f"{waiting.link.address}: {self._topic}-{flight.place}: {named(stored.error)}")
        else:
            self._refused = True
            self._resume_ns = now_ns() + _REFUSED_PAUSE_NS
            if self._producer and waiting.back_to is None:
                waiting.back_to = flight.sequence
        if waiting.back_to is not None and not waiting.in_flight:
            waiting.sequence, waiting.back_to = waiting.back_to, None

    def _settled(self, flight: _Flight, outcome: Outcome, offset: int) -> None:
        self._waiting[flight.place].in_flight -= 1
        offset = offset if outcome is not Outcome.REFUSED else -1
        for seqs in flight.runs:
            if self.settle_many is not None:
                self.settle_many(seqs, outcome, offset, flight.place)
            else:
                for nth, seq in enumerate(seqs):
                    self._settle(seq, outcome, offset + nth if offset >= 0 else -1, flight.place)
            offset += len(seqs) if offset >= 0 else 0

    def _watch(self, at_ns: int) -> None:
        """A leader that is silent for so long is gone: a frozen process still holds its connections."""
        for key, link in self._links.items():
            oldest = next(iter(self._open[key].values()), None)
            if oldest is not None and at_ns - max(oldest.sent_ns, link.heard_ns) > self._settings.silent_ns:
                self._fail(f"{link.address}: nothing heard for {self._settings.silent_ns / NS_PER_S:g} s")

    def _fail(self, why: str) -> None:
        self.failed = self.failed or why


def open_producer(wiring: Wiring, settle: Settle, number: int, epoch: int) -> WireProducer:
    """See mqtest.clients.Client."""
    if number == RUNNER:  # its fences must be acknowledged in earnest, whatever the profile does
        wiring = replace(wiring, producer={**wiring.producer, "acks": "all"})
    settings = producer_settings(wiring.producer)
    links = connect(wiring, range(wiring.places), f"producer-{number}-{epoch}")
    try:
        producer = producer_id(next(iter(links.values())), wiring, number) if settings.idempotent else None
    except BaseException:
        close_all(links.values())
        raise
    return WireProducer(links, wiring, settle, settings, producer)


def open_consumer(wiring: Wiring, number: int, epoch: int, consumers: int) -> WireConsumer:
    """Consumer `number` has the places p with p % consumers == number."""
    places = [place for place in range(wiring.places) if place % consumers == number]
    return WireConsumer(wiring, places, f"consumer-{number}-{epoch}")


def open_reader(wiring: Wiring, places: Sequence[int]) -> WireReader:
    """See mqtest.clients.Client."""
    return WireReader(wiring, places)
