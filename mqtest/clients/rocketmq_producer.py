"""RocketMQ's producer over the remoting protocol: many sends in flight on one connection to the master.

Rules:
- SEND_OK is ACKED. FLUSH_DISK_TIMEOUT, FLUSH_SLAVE_TIMEOUT and SLAVE_NOT_AVAILABLE are DEGRADED: stored, though not
  as safely as asked. REFUSED is what `REFUSALS` lists, each with the place in apache/rocketmq where it is answered
  before anything is appended. Everything else is UNKNOWN, and so is a send without an answer after `timeout_ms`; a
  late answer is still reported.
- A broker that refuses gets one send at a time, 50 ms apart, until it takes one: what falls due meanwhile waits.
- With `batch` above 1, so many messages of one place leave in one request (SEND_BATCH_MESSAGE), and its answer is that
  of each of them: the position that it names is the first one's, the others follow one by one
  (CommitLog.DefaultAppendMessageCallback). A batch is stored message by message, so a crash may keep a part of it. No
  batch is larger than a broker takes by default (`maxMessageSize`, 4 MiB).
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Final, NamedTuple

from mqtest.bodies import Bodies
from mqtest.clients import Settle, SettleMany
from mqtest.clients.rocketmq_codec import Code, Header, SendFrames, batch_body
from mqtest.clients.rocketmq_link import Link
from mqtest.clock import NS_PER_MS, NS_PER_S, now_ns
from mqtest.model import Outcome, Wiring

TAKEN: Final[Mapping[int, Outcome]] = {
    Code.SUCCESS: Outcome.ACKED,
    Code.FLUSH_DISK_TIMEOUT: Outcome.DEGRADED,
    Code.FLUSH_SLAVE_TIMEOUT: Outcome.DEGRADED,
    Code.SLAVE_NOT_AVAILABLE: Outcome.DEGRADED,
}


class Refusal(NamedTuple):
    """An answer that proves that nothing was stored: its code, how its remark begins, who gives it and when."""

    code: int
    remark: str
    source: str


REFUSALS: Final = (
    Refusal(Code.SYSTEM_BUSY, "[REJECTREQUEST]", "NettyRemotingAbstract.processRequestCommand: before it is a task"),
    Refusal(Code.SYSTEM_BUSY, "[OVERLOAD]", "NettyRemotingAbstract.processRequestCommand: thread pool rejected it"),
    Refusal(Code.SYSTEM_BUSY, "[TIMEOUT_CLEAN_QUEUE]", "BrokerFastFailure: taken off the queue before it ran"),
    Refusal(Code.SYSTEM_BUSY, "[PCBUSY_CLEAN_QUEUE]", "BrokerFastFailure: taken off the queue before it ran"),
    Refusal(Code.SYSTEM_BUSY, "[PC_SYNCHRONIZED]", "HookUtils.checkBeforePutMessage"),
    Refusal(Code.GO_AWAY, "", "NettyRemotingAbstract.processRequestCommand: shutting down, before it is a task"),
    Refusal(Code.SYSTEM_ERROR, "in-sync replicas not enough", "CommitLog.asyncPutMessage: before the append lock"),
    Refusal(Code.SERVICE_NOT_AVAILABLE, "service not available now", "HookUtils.checkBeforePutMessage"),
    Refusal(Code.NO_PERMISSION, "", "AbstractSendMessageProcessor.msgCheck"),
    Refusal(Code.TOPIC_NOT_EXIST, "", "AbstractSendMessageProcessor.msgCheck"),
    Refusal(Code.INVALID_PARAMETER, "", "AbstractSendMessageProcessor.msgCheck"),
    Refusal(Code.MESSAGE_ILLEGAL, "", "msgCheck, HookUtils, MessageExtEncoder.encode: before the append"),
)

_NOT_MASTER: Final = (Code.SYSTEM_BUSY, Code.SERVICE_NOT_AVAILABLE, Code.GO_AWAY, Code.TOPIC_NOT_EXIST)
"""What a broker that is no longer master answers to sends (a busy master too, so not at once)."""
REFUSALS_TO_LEAVE: Final = 5
REFUSED_PAUSE_NS: Final = NS_PER_S // 20
_MOST_UNSENT_BYTES: Final = 1 << 20
_MOST_BATCH_BYTES: Final = 4 << 20


def outcome_of(header: Header) -> Outcome:
    """What an answer to a send proves."""
    taken = TAKEN.get(header.code)
    if taken is not None:
        return taken
    remark = header.remark or ""
    refused = any(header.code == r.code and remark.startswith(r.remark) for r in REFUSALS)
    return Outcome.REFUSED if refused else Outcome.UNKNOWN


class _Open(NamedTuple):
    seqs: range
    place: int
    sent_ns: int


class WireProducer:
    """See mqtest.clients.Producer."""

    def __init__(self, link: Link, wiring: Wiring, settle: Settle, number: int, timeout_ms: int) -> None:
        self.settle_many: SettleMany | None = None
        self._link = link
        self._settle = settle
        group = f"mqtest-producer-{number}"
        self._frames = SendFrames(wiring.topic, group, link.login)
        self._batches = SendFrames(wiring.topic, group, link.login, batch=True)
        self._timeout_ns = timeout_ms * NS_PER_MS
        self._open: dict[int, _Open] = {}
        self._late: dict[int, _Open] = {}
        self._refused = 0
        """refusals since the last send that was taken"""
        self._resume_ns = 0
        self._failed: str | None = None

    @property
    def failed(self) -> str | None:
        """See Producer and Consumer."""
        return self._failed or self._link.lost

    @property
    def blocked(self) -> bool:
        if self._refused and (self._open or now_ns() < self._resume_ns):
            return True
        return self._link.unsent > _MOST_UNSENT_BYTES

    def send(self, seq: int, place: int, body: bytes) -> bool:
        if self.failed or self.blocked:
            return False
        self._write(self._frames, range(seq, seq + 1), place, body)
        return True

    def send_batch(self, seqs: range, place: int, bodies: Bodies) -> None:
        """As `send`, of several messages in one request; not where `failed` or `blocked` tell."""
        self._write(self._batches, seqs, place, batch_body(bodies))

    def _write(self, frames: SendFrames, seqs: range, place: int, body: bytes) -> None:
        opaque, at_ns = self._link.opaque(), now_ns()
        self._open[opaque] = _Open(seqs, place, at_ns)
        self._link.write(frames.frame(opaque, place, time.time_ns() // NS_PER_MS, body))

    def _settled(self, seqs: range, outcome: Outcome, offset: int, place: int) -> None:
        if self.settle_many is not None:
            self.settle_many(seqs, outcome, offset, place)
            return
        for nth, seq in enumerate(seqs):
            self._settle(seq, outcome, offset + nth if offset >= 0 else -1, place)

    def poll(self, timeout_s: float) -> None:
        for frame in self._link.poll(timeout_s):
            self._answered(frame.header)
        self._expire(now_ns())

    def _answered(self, header: Header) -> None:
        sent = self._open.pop(header.opaque, None)
        late = sent is None
        if sent is None:
            sent = self._late.pop(header.opaque, None)
            if sent is None:
                return
        outcome = outcome_of(header)
        if outcome in (Outcome.ACKED, Outcome.DEGRADED):
            self._refused = 0
            fields = header.fields or {}
            offset, place = int(fields.get("queueOffset", -1)), int(fields.get("queueId", sent.place))
            self._settled(sent.seqs, outcome, offset, place)
            return
        if not late:  # unknown never turns into refused
            self._settled(sent.seqs, outcome, -1, sent.place)
        if outcome is Outcome.REFUSED:
            self._refused += 1
            self._resume_ns = now_ns() + REFUSED_PAUSE_NS
            if header.code in _NOT_MASTER and self._refused >= REFUSALS_TO_LEAVE and not self._open:
                self._failed = f"{self._link.address} takes no messages: {header.code} {header.remark}"

    def _expire(self, at_ns: int) -> None:
        while self._open:
            opaque = next(iter(self._open))
            sent = self._open[opaque]
            if at_ns - sent.sent_ns < self._timeout_ns:
                return
            self._late[opaque] = self._open.pop(opaque)
            self._settled(sent.seqs, Outcome.UNKNOWN, -1, sent.place)
            if self._link.heard_ns < sent.sent_ns:
                self._failed = f"{self._link.address}: nothing heard for {self._timeout_ns / NS_PER_S:g} s"

    def close(self, timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        while self._open and not self.failed and time.monotonic() < deadline:
            self.poll(deadline - time.monotonic())
        self.poll(0)
        self._link.close()


class BatchProducer:
    """See mqtest.clients.BlockProducer: batches, each of up to `batch` messages, of what a WireProducer sends."""

    def __init__(self, inner: WireProducer, batch: int) -> None:
        self._inner = inner
        self._batch = batch
        self.send, self.poll, self.close = inner.send, inner.poll, inner.close

    @property
    def settle_many(self) -> SettleMany | None:
        return self._inner.settle_many

    @settle_many.setter
    def settle_many(self, settle_many: SettleMany | None) -> None:
        self._inner.settle_many = settle_many

    @property
    def failed(self) -> str | None:
        return self._inner.failed

    @property
    def blocked(self) -> bool:
        return self._inner.blocked

    def send_many(self, seqs: range, places: int, bodies: Bodies) -> bool:
        if self.failed or self.blocked:
            return False
        most = min(self._batch, max(1, _MOST_BATCH_BYTES // bodies.shape[1] - 1))
        for place in range(places):
            mine = slice((place - seqs.start) % places, None, places)
            of_place, texts = seqs[mine], bodies[mine]
            for first in range(0, len(of_place), most):
                part = slice(first, first + most)
                self._inner.send_batch(of_place[part], place, texts[part])
        return True
