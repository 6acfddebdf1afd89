"""Kafka through confluent-kafka (librdkafka), which reconnects and retries inside itself.

Rules:
- The only outcome of a send is its delivery report, or what `produce` itself raises. A report without error is ACKED;
  a failed one is UNKNOWN, whatever it says, because a retry before it may have been stored.
- A fatal error makes a client useless (an idempotent producer after the broker forgot part of the log). The library
  hands it to no callback: `poll` raises it.
- So does a lost leader: told that a partition has none for the moment, librdkafka (2.12 to 2.16, its issue 5430) may
  never send to it again, whoever leads later; every message then waits for its timeout. It says so in its log alone.
  The first timeout after that, with no acknowledgement between, ends the client, as whoever watched it would.
- Every report finds its message through a partial that carries the sequence number: 0.3 µs of CPU dearer than reading
  it out of the returned body, and it needs no knowledge of the body.
- A consumer's position is committed after `ack`, at most every COMMIT_EVERY_S; by the library itself only where the
  profile asks for it (`enable.auto.commit`), and then whatever it has handed over.
- The reader belongs to no group and begins at the first position that the broker names.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Final

from confluent_kafka import Consumer as RdConsumer
from confluent_kafka import KafkaError, KafkaException, Message, TopicPartition
from confluent_kafka import Producer as RdProducer

from mqtest.clients import OPEN_TIMEOUT_S, ClientError, Settle, library_settings
from mqtest.clients.confluent_common import CONSUMER, GROUP_BATCH, LeaderLog, bounded, common, connected, fetch, log
from mqtest.clients.confluent_transactions import TransactionalProducer, is_transactional
from mqtest.clients.confluent_transformer import Transformer
from mqtest.model import RUNNER, Delivery, Outcome, Wiring

COMMIT_EVERY_S: Final = 0.2


def open_producer(wiring: Wiring, settle: Settle, number: int, epoch: int) -> Producer | TransactionalProducer:
    """Connect producer `number`; raises ClientError when no node answers within OPEN_TIMEOUT_S."""
    if number == RUNNER:  # its fences must be acknowledged in earnest, each for itself, whatever the profile does
        wiring = replace(wiring, producer={**wiring.producer, "acks": "all"})
    elif is_transactional(wiring):
        return TransactionalProducer(wiring, settle, number, epoch)
    return Producer(wiring, settle, f"producer-{number}-{epoch}")


def open_consumer(wiring: Wiring, number: int, epoch: int, consumers: int) -> Consumer:
    """Join wiring.group as consumer `number`; raises ClientError when no node answers within OPEN_TIMEOUT_S."""
    return Consumer(wiring, f"consumer-{number}-{epoch}")


def open_transformer(wiring: Wiring, number: int, epoch: int, transformers: int) -> Transformer:
    """Join the transformers' group as `number`; raises ClientError when no node answers in time."""
    return Transformer(wiring, number, epoch)


def open_reader(wiring: Wiring, places: Sequence[int]) -> Reader:
    """Read `places` from their first position; raises ClientError when a place cannot be asked for it."""
    return Reader(wiring, places)


class Producer:
    """One librdkafka producer; see the module's rules."""

    def __init__(self, wiring: Wiring, settle: Settle, name: str) -> None:
        self.failed: str | None = None
        self.blocked = False
        self._topic = wiring.topic
        self._settle = settle
        self._delivered = Outcome.ACKED if wiring.acknowledged else Outcome.UNKNOWN
        self._closed = False
        self._log = LeaderLog()
        own = {"error_cb": self._error, "logger": self._log}
        settings = {**library_settings(wiring.producer), **common(wiring, name), **own}
        self._client = connected(RdProducer, settings, wiring.topic)

    def send(self, seq: int, place: int, body: bytes) -> bool:
        """Queue one message. False: the local queue is full, or the client is beyond use; nothing left the process."""
        try:
            self._client.produce(self._topic, body, partition=place, on_delivery=partial(self._report, seq, place))
        except BufferError:
            self.blocked = True
            return False
        except KafkaException as error:
            self._error(error.args[0])
            if self.failed:
                return False
            self._settle(seq, Outcome.REFUSED, -1, place)
        return True

    def poll(self, timeout_s: float) -> None:
        """Hand on the delivery reports that are there; waits for the first one up to timeout_s."""
        try:
            if self._client.poll(timeout_s):
                self.blocked = False
        except KafkaException as error:
            self._fail(error.args[0])

    def close(self, timeout_s: float) -> None:
        """Hand on the reports that are there, forget what is queued or in flight, disconnect."""
        self.poll(0)
        self._closed = True  # the reports that purging makes are ours, not the broker's
        self._client.purge()
        bounded(self._client.close, timeout_s)

    def _report(self, seq: int, place: int, error: KafkaError | None, message: Message) -> None:
        if self._closed:
            return
        if error is None:
            self._log.lost = False
            offset = message.offset()
            self._settle(seq, self._delivered, -1 if offset is None else offset, place)
        else:
            self._settle(seq, Outcome.UNKNOWN, -1, place)
            self._error(error)
            if self._log.lost and error.code() == KafkaError._MSG_TIMED_OUT:
                self.failed = self.failed or "librdkafka sends no more since a partition was without a leader"

    def _error(self, error: KafkaError) -> None:
        if error.fatal() or error.code() == KafkaError._FATAL:
            self._fail(error)

    def _fail(self, error: KafkaError) -> None:
        self.failed = self.failed or f"fatal: {error.str()}"


class Consumer:
    """One member of the cell's consumer group."""

    def __init__(self, wiring: Wiring, name: str) -> None:
        self.failed: str | None = None
        self._topic = wiring.topic
        self._returned: dict[int, int] = {}
        self._acked: dict[int, int] = {}
        self._committed: dict[int, int] = {}
        self._committed_at = 0.0
        settings = {
            **CONSUMER,
            **wiring.consumer,
            **common(wiring, name),
            "group.id": wiring.group,
            "enable.partition.eof": is_transactional(wiring),
            "error_cb": self._error,
            "on_commit": self._commit_answered,
        }
        self._auto = bool(settings["enable.auto.commit"])
        self.ends: dict[int, int] = {}
        self._client = connected(RdConsumer, settings, wiring.topic)
        self._client.subscribe([wiring.topic], on_revoke=self._revoked)

    def poll(self, timeout_s: float) -> Sequence[Delivery]:
        """What has arrived, at most GROUP_BATCH; returns as soon as there is something."""
        deliveries, broken = fetch(self._client, timeout_s, self._error, self.ends, GROUP_BATCH)
        self.failed = self.failed or broken
        for place, offset, _body, _redelivered in deliveries:
            self._returned[place] = offset
        self._commit_due()
        return deliveries

    def ack(self) -> None:
        """Mark what poll returned for commit; commits when the last one is COMMIT_EVERY_S ago."""
        if self._auto:
            return
        self._acked.update(self._returned)
        self._commit_due()

    def close(self, timeout_s: float) -> None:
        """Commit what was acked and leave the group."""

        def leave() -> None:
            try:
                if offsets := self._uncommitted():
                    self._client.commit(offsets=offsets, asynchronous=False)
                    self._committed.update(self._acked)
            except KafkaException as error:
                log.warning("commit at close failed: %s", error)
            self._client.close()

        bounded(leave, timeout_s)

    def _commit_due(self) -> None:
        if time.monotonic() - self._committed_at >= COMMIT_EVERY_S:
            self._commit()

    def _commit(self) -> None:
        offsets = self._uncommitted()
        if not offsets:
            return
        self._committed_at = time.monotonic()
        try:
            self._client.commit(offsets=offsets, asynchronous=True)
        except KafkaException as error:
            self._error(error.args[0])
            return
        self._committed.update({o.partition: o.offset - 1 for o in offsets})

    def _commit_answered(self, error: KafkaError | None, partitions: Sequence[TopicPartition]) -> None:
        """A commit that failed is made again with the next one that is due."""
        if error is not None or any(p.error is not None for p in partitions):
            self._committed.clear()

    def _uncommitted(self) -> list[TopicPartition]:
        return [
            TopicPartition(self._topic, place, offset + 1)
            for place, offset in self._acked.items()
            if self._committed.get(place) != offset
        ]

    def _revoked(self, _client: RdConsumer, partitions: Sequence[TopicPartition]) -> None:
        """The group takes places away: commit what was acked, then forget them. What was returned and not acked is
        read again by whoever gets them."""
        self._commit()
        for partition in partitions:
            for positions in (self._returned, self._acked, self._committed):
                positions.pop(partition.partition, None)

    def _error(self, error: KafkaError) -> None:
        if error.fatal() or error.code() in (KafkaError._MAX_POLL_EXCEEDED, KafkaError._FATAL):
            self.failed = self.failed or error.str()


class Reader:
    """The audit of some places."""

    def __init__(self, wiring: Wiring, places: Sequence[int]) -> None:
        self.failed: str | None = None
        settings = {
            **common(wiring, "reader"),
            "group.id": f"{wiring.group}-audit",  # demanded by the library; nothing is committed
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "auto.offset.reset": "error",  # the first position comes from the broker, so a reset is a fault
            "isolation.level": wiring.consumer.get("isolation.level", CONSUMER["isolation.level"]),
            "socket.timeout.ms": 10_000,
            "socket.connection.setup.timeout.ms": 2000,
            "reconnect.backoff.max.ms": 1000,
            "fetch.wait.max.ms": 50,
            "fetch.error.backoff.ms": 50,
            "fetch.message.max.bytes": 8 << 20,
            "queued.min.messages": 200_000,
            "error_cb": self._error,
        }
        self._client = connected(RdConsumer, settings, wiring.topic)
        self._starts: dict[int, int] = {}
        try:
            for place in places:
                low, _high = self._client.get_watermark_offsets(
                    TopicPartition(wiring.topic, place), timeout=OPEN_TIMEOUT_S, cached=False
                )
                self._starts[place] = low
            self._client.assign([TopicPartition(wiring.topic, p, low) for p, low in self._starts.items()])
        except KafkaException as error:
            bounded(self._client.close, 1.0)
            raise ClientError(f"Kafka does not say where {wiring.topic} begins: {error}") from error

    def starts(self) -> Mapping[int, int]:
        """The first position of each place when the reader was opened, by the leader's word."""
        return self._starts

    def poll(self, timeout_s: float) -> Sequence[Delivery]:
        """What has arrived, at most BATCH; returns as soon as there is something."""
        deliveries, broken = fetch(self._client, timeout_s, self._error, {})
        self.failed = self.failed or broken
        return deliveries

    def ack(self) -> None:
        """Nothing: an audit leaves no trace."""

    def close(self, timeout_s: float) -> None:
        """Disconnect."""
        bounded(self._client.close, timeout_s)

    def _error(self, error: KafkaError) -> None:
        if error.fatal() or error.code() in (KafkaError._AUTO_OFFSET_RESET, KafkaError._FATAL):
            self.failed = self.failed or error.str()
