"""Kafka transactions, as the producer and the transformer of the confluent client both use them; and the producer.

Rules:
- What a transaction holds has no outcome before the transaction has. Committed: acked. Aborted, by the coordinator's
  word: refused, for readers at read_committed. A commit without an answer: unknown.
- The transactional.id stands for the number of the worker. The next epoch has the same: init_transactions fences the
  old client and aborts what it left open.
- Whatever may block runs in a thread of its own, and we give up on it by our own clock: librdkafka does not keep its
  time-outs there (confluentinc/librdkafka issues 4420, 5456, 5511). A client that was given up is left alone, for
  closing it under a call that is still inside would take the process down.
- Commit and abort are given the rest of the transaction's time (time-out -1), as the library's documentation demands.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, TypeVar

from confluent_kafka import KafkaError, KafkaException, Message, TopicPartition
from confluent_kafka import Producer as RdProducer

from mqtest.clients import OPEN_TIMEOUT_S, ClientError, Settle, library_settings
from mqtest.clients.confluent_common import bounded, common
from mqtest.model import Outcome, Wiring

MESSAGES: Final = "mqtest.transaction.messages"
AGE_MS: Final = "mqtest.transaction.ms"
GRACE_S: Final = 5.0
"""beyond transaction.timeout.ms, until a call that does not come back is given up"""
_AGAIN_S: Final = 0.05

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Ended:
    """What became of a transaction: ACKED, REFUSED (aborted) or UNKNOWN."""

    outcome: Outcome
    why: str | None = None
    """it was not committed"""
    failed: str | None = None
    """the client is beyond use"""


def is_transactional(wiring: Wiring) -> bool:
    """Whether the profile asks for transactions."""
    return MESSAGES in wiring.producer


def limit_s(wiring: Wiring) -> float:
    """How long a transaction may take to end."""
    return float(wiring.producer.get("transaction.timeout.ms", 60_000)) / 1000 + GRACE_S


def call(do: Callable[[], T]) -> Future[T]:
    """Do it in a thread of its own."""
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(do())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True, name="transaction").start()
    return future


def opened(wiring: Wiring, name: str, client_id: str, on_error: Callable[[KafkaError], None]) -> RdProducer:
    """A producer of that transactional.id with a transaction begun; raises ClientError within OPEN_TIMEOUT_S."""
    settings = {
        **library_settings(wiring.producer),
        **common(wiring, client_id),
        "transactional.id": name,
        "error_cb": on_error,
    }
    try:
        client = RdProducer(settings)
    except KafkaException as error:
        raise ClientError(f"the Kafka client refuses its settings: {error.args[0].str()}") from error

    def begin() -> None:
        client.init_transactions(OPEN_TIMEOUT_S)
        client.begin_transaction()

    begun = call(begin)
    try:
        begun.result(OPEN_TIMEOUT_S + 1)
    except TimeoutError:
        raise ClientError("init_transactions does not come back") from None
    except KafkaException as error:
        bounded(client.close, 1.0)
        raise ClientError(f"no transactions for {name}: {error.args[0].str()}") from error
    return client


def end(
    client: RdProducer,
    broken: str | None,
    within_s: float,
    positions: Sequence[TopicPartition] = (),
    group: Any = None,
) -> Ended:
    """Commit the open transaction, with these positions of the group in it, or abort it when it is `broken`; then begin
    the next one. Blocks; to be run by `call`."""
    deadline = time.monotonic() + within_s
    why = broken
    try:
        if why is None:
            try:
                if positions:
                    _insist(partial(client.send_offsets_to_transaction, list(positions), group), deadline)
                _insist(client.commit_transaction, deadline)
            except KafkaException as error:
                if not error.args[0].txn_requires_abort():
                    raise
                why = error.args[0].str()
        if why is not None:
            _insist(client.abort_transaction, deadline)
    except KafkaException as error:
        said = f"{error.args[0].name()}: {error.args[0].str()}"
        return Ended(Outcome.UNKNOWN, why, failed=f"the transaction has no end: {said}")
    outcome = Outcome.ACKED if why is None else Outcome.REFUSED
    try:
        client.begin_transaction()
    except KafkaException as error:
        return Ended(outcome, why, failed=f"no new transaction: {error.args[0].str()}")
    return Ended(outcome, why)


def _insist(do: Callable[[], object], deadline: float) -> None:
    """Again while the library says that it may be tried again."""
    while True:
        try:
            do()
            return
        except KafkaException as error:
            if not error.args[0].retriable() or time.monotonic() > deadline:
                raise
        time.sleep(_AGAIN_S)


class TransactionalProducer:
    """See mqtest.clients.Producer, and the module's rules. Takes no message while a transaction ends."""

    def __init__(self, wiring: Wiring, settle: Settle, number: int, epoch: int) -> None:
        self.failed: str | None = None
        self._topic = wiring.topic
        self._settle = settle
        self._most = int(wiring.producer[MESSAGES])
        self._age_s = float(wiring.producer.get(AGE_MS, 100)) / 1000
        self._limit_s = limit_s(wiring)
        self._rows: dict[int, tuple[int, int]] = {}  # of the open transaction: seq -> (place, offset)
        self._began_at = 0.0
        self._broken: str | None = None
        self._full = False
        self._ending: Future[Ended] | None = None
        self._give_up_at = 0.0
        self._client = opened(wiring, f"{wiring.topic}-producer-{number}", f"producer-{number}-{epoch}", self._error)

    @property
    def blocked(self) -> bool:
        """See Producer."""
        return self._full or self._ending is not None or self._broken is not None

    def send(self, seq: int, place: int, body: bytes) -> bool:
        """See Producer."""
        if self.blocked or self.failed:
            return False
        try:
            self._client.produce(self._topic, body, partition=place, on_delivery=partial(self._report, seq))
        except BufferError:
            self._full = True
            return False
        except KafkaException as raised:
            error = raised.args[0]
            if error.fatal() or error.code() == KafkaError._FATAL:
                self._error(error)
                return False
            if error.code() == KafkaError._STATE:  # the transaction takes nothing any more
                self._broken = error.str()
                return False
            self._settle(seq, Outcome.REFUSED, -1, place)
            return True
        if not self._rows:
            self._began_at = time.monotonic()
        self._rows[seq] = (place, -1)
        return True

    def poll(self, timeout_s: float) -> None:
        """See Producer."""
        if self._ending is None:
            self._end_due()
        if self._ending is None:
            if self._rows:
                timeout_s = max(0.0, min(timeout_s, self._began_at + self._age_s - time.monotonic()))
            if self._client.poll(timeout_s):
                self._full = False
            self._end_due()
        elif wait([self._ending], timeout_s).done:
            self._ended(self._ending.result())
        elif time.monotonic() > self._give_up_at:
            self.failed = "the end of the transaction does not come back"

    def close(self, timeout_s: float) -> None:
        """See Producer. What is open is aborted by the library, or by the next epoch; nobody settles it."""
        if self._ending is not None:
            if not wait([self._ending], timeout_s).done:
                return
            self._ended(self._ending.result())
        bounded(self._client.close, timeout_s)

    def _end_due(self) -> None:
        age_s = time.monotonic() - self._began_at
        if self._broken or (self._rows and (len(self._rows) >= self._most or age_s >= self._age_s)):
            self._give_up_at = time.monotonic() + self._limit_s + GRACE_S
            self._ending = call(partial(end, self._client, self._broken, self._limit_s))

    def _ended(self, ended: Ended) -> None:
        rows, self._rows = self._rows, {}
        self._broken, self._ending, self._full = None, None, False
        self.failed = self.failed or ended.failed
        for seq, (place, offset) in rows.items():
            self._settle(seq, ended.outcome, offset if ended.outcome is Outcome.ACKED else -1, place)

    def _report(self, seq: int, error: KafkaError | None, message: Message) -> None:
        """Comes in the thread that ends the transaction, too, while the other one only waits for it."""
        if seq not in self._rows:
            return
        if error is None:
            offset = message.offset()
            self._rows[seq] = (self._rows[seq][0], -1 if offset is None else offset)
        else:
            self._broken = self._broken or error.str()

    def _error(self, error: KafkaError) -> None:
        if error.fatal() or error.code() == KafkaError._FATAL:
            self.failed = self.failed or f"fatal: {error.str()}"
