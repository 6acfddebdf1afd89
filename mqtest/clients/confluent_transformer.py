"""A pipeline on Kafka: read one topic, write another, and remember how far; three ways, by the profile's settings.

    transactional (mqtest.transaction.…)   the outputs and the positions in one transaction: both, or neither
    manual (the default)                   the outputs are acknowledged, then the positions are committed: at least once
    automatic (enable.auto.commit)         the library commits what it handed over, whatever became of it: no promise

Rules:
- One batch at a time: `poll` hands over inputs, `write` writes their outputs. `positions` has a place only as far as
  its inputs are done with by the rules of the way, so it may go back after a rebalance; never further than that.
- After an abort the same inputs must come again: the consumer is put back to where the batch began. A rebalance needs
  no such thing, whoever gets the place asks the group where to begin.
- The group's generation goes into the transaction: a transformer that was thrown out of the group cannot commit.
- Calls that may block are given up by our own clock (confluent_transactions.py says why).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import wait
from functools import partial
from typing import Any, Final

from confluent_kafka import Consumer as RdConsumer
from confluent_kafka import KafkaError, KafkaException, Message, TopicPartition
from confluent_kafka import Producer as RdProducer

from mqtest.clients import library_settings
from mqtest.clients.confluent_common import CONSUMER, bounded, common, connected, fetch
from mqtest.clients.confluent_transactions import GRACE_S, MESSAGES, call, end, is_transactional, limit_s, opened
from mqtest.model import Delivery, Outcome, Wiring

BATCH: Final = 500
"""inputs of one batch, where the profile says nothing"""
_FULL_S: Final = 0.01


class Transformer:
    """See mqtest.clients.Transformer, and the module's rules."""

    def __init__(self, wiring: Wiring, number: int, epoch: int) -> None:
        self.failed: str | None = None
        self._topic, self._output = wiring.topic, wiring.output.topic
        self._transactional = is_transactional(wiring)
        self._batch = int(wiring.producer.get(MESSAGES, BATCH))
        self._limit_s = limit_s(wiring)
        self._open = 0  # outputs without a report
        self._broken: str | None = None  # the first report that failed
        self._began: dict[int, int] = {}  # of the batch: place -> first offset
        self._next: dict[int, int] = {}  # of the batch: place -> one past its last offset
        self._ends: dict[int, int] = {}
        self._done: dict[int, int] = {}
        name = f"transformer-{number}-{epoch}"
        self._producer = self._open_producer(wiring, f"{wiring.topic}-transformer-{number}", name)
        settings = {
            **CONSUMER,
            **library_settings(wiring.consumer),
            **common(wiring, name),
            "group.id": f"{wiring.group}-transformers",
            "enable.partition.eof": True,
            "error_cb": self._error,
        }
        self._automatic = bool(settings["enable.auto.commit"])
        self._consumer: RdConsumer = connected(RdConsumer, settings, wiring.topic)
        self._consumer.subscribe([wiring.topic], on_revoke=self._revoked, on_lost=self._revoked)

    def _open_producer(self, wiring: Wiring, identity: str, name: str) -> RdProducer:
        if self._transactional:
            return opened(wiring, identity, name, self._error)
        settings = {**library_settings(wiring.producer), **common(wiring, name), "error_cb": self._error}
        client: RdProducer = connected(RdProducer, settings, wiring.output.topic)
        return client

    @property
    def positions(self) -> Mapping[int, int]:
        """See Transformer."""
        return self._done

    def poll(self, timeout_s: float) -> Sequence[Delivery]:
        """See Transformer."""
        self._producer.poll(0)
        self._ends.clear()
        inputs, broken = fetch(self._consumer, timeout_s, self._error, self._ends, self._batch)
        self.failed = self.failed or broken
        self._began = {}
        self._next = {}
        for place, offset, _body, _redelivered in inputs:
            self._began.setdefault(place, offset)
            self._next[place] = offset + 1
        if not inputs:
            self._done.update(self._ends)
        return inputs

    def write(self, outputs: Sequence[tuple[int, bytes]]) -> Outcome:
        """See Transformer."""
        deadline = time.monotonic() + self._limit_s + GRACE_S
        self._broken = None
        whole = all(self._produce(place, body, deadline) for place, body in outputs)
        if not whole:
            self._broken = self._broken or self.failed or "not every output was taken"
        outcome = self._conclude(deadline)
        if outcome is Outcome.ACKED:
            self._done.update({place: offset - 1 for place, offset in self._next.items()})
            self._done.update(self._ends)
        return outcome

    def close(self, timeout_s: float) -> None:
        """See Transformer."""
        if self.failed is None and not self._transactional:
            self._producer.flush(timeout_s)
        bounded(self._consumer.close, timeout_s)
        if self.failed is None:  # a call that was given up may still be inside
            bounded(self._producer.close, timeout_s)

    def _produce(self, place: int, body: bytes, deadline: float) -> bool:
        while self.failed is None:
            try:
                self._producer.produce(self._output, body, partition=place, on_delivery=self._report)
            except BufferError:
                if time.monotonic() > deadline:
                    self.failed = "the local queue stays full"
                self._producer.poll(_FULL_S)
            except KafkaException as error:
                self._broken = self._broken or error.args[0].str()
                self._error(error.args[0])
                return False
            else:
                self._open += 1
                return True
        return False

    def _conclude(self, deadline: float) -> Outcome:
        """The batch's end, in the way of the profile."""
        if self._transactional:
            return self._conclude_transaction()
        if self._automatic:
            return Outcome.UNKNOWN if self.failed else Outcome.ACKED
        while self._open and self.failed is None and time.monotonic() < deadline:
            self._producer.poll(_FULL_S)
        if self._open or self._broken:
            return self._fail(f"not every output is acknowledged: {self._broken or 'no answer'}")
        return self._in_time(partial(self._consumer.commit, offsets=self._positions(), asynchronous=False))

    def _conclude_transaction(self) -> Outcome:
        try:
            group: Any = self._consumer.consumer_group_metadata()
        except KafkaException as error:
            return self._fail(f"no generation of the group: {error.args[0].str()}")
        ending = call(partial(end, self._producer, self._broken, self._limit_s, self._positions(), group))
        if not wait([ending], self._limit_s + GRACE_S).done:
            return self._fail("the end of the transaction does not come back")
        ended = ending.result()
        self.failed = self.failed or ended.failed
        if ended.outcome is Outcome.REFUSED and self.failed is None:
            self._put_back()
        return ended.outcome

    def _put_back(self) -> None:
        """To where the batch began, in the places that are still ours."""
        try:
            ours = {p.partition for p in self._consumer.assignment()}
            for place, offset in self._began.items():
                if place in ours:
                    self._consumer.seek(TopicPartition(self._topic, place, offset))
        except KafkaException as error:
            self._fail(f"the consumer cannot be put back: {error.args[0].str()}")

    def _positions(self) -> list[TopicPartition]:
        return [TopicPartition(self._topic, place, offset) for place, offset in self._next.items()]

    def _in_time(self, commit: Callable[[], object]) -> Outcome:
        committing = call(commit)
        if not wait([committing], self._limit_s).done:
            return self._fail("the commit of the positions does not come back")
        error = committing.exception()
        return Outcome.ACKED if error is None else self._fail(f"the positions are not committed: {error}")

    def _fail(self, why: str) -> Outcome:
        self.failed = self.failed or why
        return Outcome.UNKNOWN

    def _revoked(self, _client: RdConsumer, partitions: Sequence[TopicPartition]) -> None:
        for partition in partitions:
            for positions in (self._done, self._ends):
                positions.pop(partition.partition, None)

    def _report(self, error: KafkaError | None, _message: Message) -> None:
        self._open -= 1
        if error is not None:
            self._broken = self._broken or error.str()
            self._error(error)

    def _error(self, error: KafkaError) -> None:
        if error.fatal() or error.code() in (KafkaError._MAX_POLL_EXCEEDED, KafkaError._FATAL):
            self.failed = self.failed or f"fatal: {error.str()}"
