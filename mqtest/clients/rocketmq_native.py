"""RocketMQ by rocketmq-client-python 0.5.0rc2, the C++ client's Python binding: a second client, as teams install it.

Rules, and what they come from:
- It tells no failure from another (each is an exception with the same text), so every failure is UNKNOWN.
- It sends again inside itself and chooses the queue itself; where the topic has several, the place stays unknown.
- Its sends block, so a few threads (`threads`) make them; results wait in a queue until `poll` settles them.
- Its consumer pushes: a callback holds its message until `ack`, at most `threads` of them at a time. One that
  `close` still finds held counts as consumed for the broker: to give it back would store a copy of it elsewhere.
- Its own threads keep the process from ending while they call back into Python: so what a process leaves open is
  closed when it exits. Everything of ours is a daemon thread, and nothing waits for the library longer than asked.
- It cannot read from a position, so the audit is the wire client's.
"""

from __future__ import annotations

import atexit
import contextlib
import queue
import threading
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from mqtest.clients import OPEN_TIMEOUT_S, ClientError, Settle, tls
from mqtest.clients.rocketmq_link import login, options
from mqtest.clients.rocketmq_wire import open_reader
from mqtest.model import Delivery, Outcome, Wiring

__all__ = ["open_consumer", "open_producer", "open_reader"]

_NAME: Final = "rocketmq-client-python"
PRODUCER: Final = {"timeout_ms": 3000, "threads": 8}
CONSUMER: Final = {"threads": 20}
"""their settings, with defaults"""
_MOST_WAITING: Final = 10_000
_HOLD_S: Final = 60.0
_EXIT_S: Final = 3.0
_LOG_LEVEL_ERROR: Final = 2
_OUTCOMES: Final[Mapping[int, Outcome]] = {  # rocketmq.client.SendStatus
    0: Outcome.ACKED,
    1: Outcome.DEGRADED,
    2: Outcome.DEGRADED,
    3: Outcome.DEGRADED,
}


_open: weakref.WeakSet[NativeProducer | NativeConsumer] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    for client in list(_open):
        with contextlib.suppress(Exception):  # nobody is left to be told
            client.leave()


def _in_time(what: str, call: Callable[[], object], timeout_s: float) -> None:
    """Run a call of the library that may hang; raises ClientError when it fails or does not return in time."""
    failures: list[BaseException] = []

    def guarded() -> None:
        try:
            call()
        except Exception as error:  # the library's own, and whatever ctypes makes of it
            failures.append(error)

    thread = threading.Thread(target=guarded, daemon=True)
    thread.start()
    thread.join(timeout_s)
    if thread.is_alive():
        raise ClientError(f"{_NAME}: {what} took longer than {timeout_s:g} s")
    if failures:
        raise ClientError(f"{_NAME}: {what}: {failures[0]}")


def _sign_in(native: Any, wiring: Wiring) -> None:
    """Raises ClientError where TLS is wanted, which this library does not speak from Python."""
    if tls.context(wiring.access) is not None:
        raise ClientError(f"{_NAME}: no TLS with this client; take a profile of rocketmq-wire")
    who = login(wiring.access)
    if who is not None:
        native.set_session_credentials(who.access_key, who.secret_key, "")


class _Send(NamedTuple):
    seq: int
    place: int
    body: bytes


class _Sent(NamedTuple):
    seq: int
    outcome: Outcome
    offset: int


class NativeProducer:
    """See mqtest.clients.Producer."""

    def __init__(self, wiring: Wiring, settle: Settle, number: int, epoch: int) -> None:
        from rocketmq.client import Message, Producer
        from rocketmq.ffi import dll

        chosen = options(_NAME, "producer", wiring.producer, PRODUCER)
        self._settle = settle
        self._one_place = wiring.places == 1
        self._waiting: queue.SimpleQueue[_Send | None] = queue.SimpleQueue()
        self._sent: queue.SimpleQueue[_Sent] = queue.SimpleQueue()
        self._closing = False
        # one process may not have two producers of one group
        self._producer = Producer(f"mqtest-producer-{number}-{epoch}", timeout=chosen["timeout_ms"])
        dll.SetProducerLogLevel(self._producer._handle, _LOG_LEVEL_ERROR)
        self._producer.set_namesrv_addr(";".join(wiring.addresses))
        _sign_in(self._producer, wiring)
        _in_time("start of a producer", self._producer.start, OPEN_TIMEOUT_S)
        self._threads = [
            threading.Thread(target=self._work, args=(Message, wiring.topic), daemon=True)
            for _ in range(chosen["threads"])
        ]
        for thread in self._threads:
            thread.start()
        _open.add(self)

    @property
    def failed(self) -> str | None:
        # it reconnects inside itself
        return None

    @property
    def blocked(self) -> bool:
        return self._waiting.qsize() >= _MOST_WAITING

    def _work(self, message: Any, topic: str) -> None:
        while (send := self._waiting.get()) is not None and not self._closing:
            outcome, offset = Outcome.UNKNOWN, -1
            try:
                native = message(topic)
                try:
                    native.set_body(send.body)
                    result = self._producer.send_sync(native)
                finally:
                    native.destroy()
                outcome, offset = _OUTCOMES.get(int(result.status), Outcome.UNKNOWN), int(result.offset)
            except Exception:
                outcome = Outcome.UNKNOWN  # whatever it was: it may have been stored
            self._sent.put(_Sent(send.seq, outcome, offset))

    def send(self, seq: int, place: int, body: bytes) -> bool:
        if self.blocked:
            return False
        self._waiting.put(_Send(seq, place, body))
        return True

    def poll(self, timeout_s: float) -> None:
        try:
            self._take(self._sent.get(timeout=timeout_s) if timeout_s > 0 else self._sent.get_nowait())
            while True:
                self._take(self._sent.get_nowait())
        except queue.Empty:
            return

    def _take(self, sent: _Sent) -> None:
        self._settle(sent.seq, sent.outcome, sent.offset, 0 if self._one_place else -1)

    def close(self, timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        if self._stopped(deadline):
            _shut_down(self._producer.shutdown, deadline)
        self.poll(0)
        _open.discard(self)

    def leave(self) -> None:
        """At the end of the process, where no thread can be started: shut the library down, if no send is under way."""
        if self._stopped(time.monotonic() + _EXIT_S):
            self._producer.shutdown()

    def _stopped(self, deadline: float) -> bool:
        self._closing = True
        for _ in self._threads:
            self._waiting.put(None)
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)


def _shut_down(call: Callable[[], object], deadline: float) -> None:
    try:
        _in_time("shutdown", call, max(0.1, deadline - time.monotonic()))
    except ClientError:
        return  # it is left to the end of the process


class _Held(NamedTuple):
    delivery: Delivery
    acked: threading.Event


class NativeConsumer:
    """See mqtest.clients.Consumer. The group shares the queues out by itself, after some seconds."""

    def __init__(self, wiring: Wiring, number: int, epoch: int) -> None:
        from rocketmq.client import ConsumeStatus, PushConsumer
        from rocketmq.ffi import dll

        chosen = options(_NAME, "consumer", wiring.consumer, CONSUMER)
        self._arrived: queue.SimpleQueue[_Held] = queue.SimpleQueue()
        self._handed: list[_Held] = []
        self._closing = threading.Event()
        self._consumer = PushConsumer(wiring.group)
        dll.SetPushConsumerLogLevel(self._consumer._handle, _LOG_LEVEL_ERROR)
        self._consumer.set_namesrv_addr(";".join(wiring.addresses))
        _sign_in(self._consumer, wiring)
        self._consumer.set_instance_name(f"mqtest-{number}-{epoch}")
        self._consumer.set_thread_count(chosen["threads"])

        def arrived(message: Any) -> Any:
            held = _Held(
                Delivery(message.queue_id, message.queue_offset, message.body, message.reconsume_times > 0),
                threading.Event(),
            )
            self._arrived.put(held)
            until = time.monotonic() + _HOLD_S
            while not held.acked.wait(0.2):
                if self._closing.is_set() or time.monotonic() > until:
                    break
            return ConsumeStatus.CONSUME_SUCCESS

        self._consumer.subscribe(wiring.topic, arrived)
        _in_time("start of a consumer", self._consumer.start, OPEN_TIMEOUT_S)
        _open.add(self)

    @property
    def failed(self) -> str | None:
        # it reconnects inside itself
        return None

    def poll(self, timeout_s: float) -> Sequence[Delivery]:
        held: list[_Held] = []
        try:
            held.append(self._arrived.get(timeout=timeout_s) if timeout_s > 0 else self._arrived.get_nowait())
            while True:
                held.append(self._arrived.get_nowait())
        except queue.Empty:
            self._handed += held
        return [h.delivery for h in held]

    def ack(self) -> None:
        for held in self._handed:
            held.acked.set()
        self._handed.clear()

    def close(self, timeout_s: float) -> None:
        self._closing.set()
        _shut_down(self._consumer.shutdown, time.monotonic() + timeout_s)
        _open.discard(self)

    def leave(self) -> None:
        """At the end of the process, where no thread can be started: let the callbacks go, shut the library down."""
        self._closing.set()
        self._consumer.shutdown()


def open_producer(wiring: Wiring, settle: Settle, number: int, epoch: int) -> NativeProducer:
    """See mqtest.clients.Client."""
    return NativeProducer(wiring, settle, number, epoch)


def open_consumer(wiring: Wiring, number: int, epoch: int, consumers: int) -> NativeConsumer:
    """See mqtest.clients.Client; the library shares the places out among `consumers` itself."""
    return NativeConsumer(wiring, number, epoch)
