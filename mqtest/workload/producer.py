"""The loop of one producer process: what is due is sent, what was answered is settled, and a dead client is replaced.

Rules (design, section 5):
- A row is written before the client call. Nothing is retried; `sent` again only after a hand-over that provably did not
  leave the process.
- Open loop: message i is due at t0 + i x interval, whatever happened to the ones before. Messages that fall due while
  the client takes none wait, at most `window` of them; beyond that they are skipped, and counted. Sends that are due in
  one tick go out together.
- A new rate holds from when it is heard: what fell due until then stays due, and the next message is due one new
  interval after the last one, at once where that is past. Every change is an event (`rate`).
- Pacing lag (pacing.py) is how long after its due time the loop noticed a message: the part of its response time that
  is ours. All that keeps the loop counts: its own Python, a turn that the machine gave to others, a tick in which sends
  gather, and a client's `send` or `poll` that took longer than it was asked to. Those must not wait for a broker
  (clients/__init__.py), so what they take is work on this thread, and another program would spend it elsewhere; we
  cannot tell it from a lost turn, and count it against ourselves. Not counted: what a message waits once it is noticed,
  for a client that takes none or a full window; and the time in which the loop opens or closes a client, for there is
  none then that would have taken the message.
- A client that is beyond use is closed, its open sends stay unsettled (unknown), and a new one goes on with the next
  epoch. This is the only place that reconnects.
- What is due goes out in one loop for all clients. One that takes blocks gets up to BLOCK messages at a time: bodies,
  ledger rows and outcomes of a block are made together, with the same rows as the result.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from mqtest import body
from mqtest.bodies import Ints, encode_many, prepare
from mqtest.clients import BlockProducer, ClientError, Producer, SettleMany, client
from mqtest.clock import NS_PER_S, now_ns
from mqtest.ledger import SendsWriter
from mqtest.model import Outcome
from mqtest.pacing import PacingWriter, path_of
from mqtest.workload import WorkerPlan
from mqtest.workload.backlog import Backlog, due_times
from mqtest.workload.control import Control

TICK_S = 0.001
"""shortest time between two rounds of sends in an open loop"""
BURST = 256
"""most messages that are handed over between two polls of a client that takes them one by one"""
BLOCK = 4096
"""the same of a client that takes blocks, and BLOCK_BYTES the most bytes: what lies in a core's own cache"""
BLOCK_BYTES = 1 << 19
_REOPEN_NS = NS_PER_S // 10
_IDLE_S = 0.05
_NEVER_NS = 1 << 62
"""beyond every time of this clock"""


def retimed(rate_per_s: float, share: float, producers: int, last_due_ns: int, from_ns: int) -> tuple[int, float]:
    """When the next message is due and the interval after it, in ns, where all `producers` together are to send
    `rate_per_s` from `from_ns` on; this one is `share` (0 to 1) of an interval behind the first. Rate 0: never."""
    if rate_per_s <= 0:
        return _NEVER_NS, 0.0
    interval_ns = NS_PER_S * producers / rate_per_s
    return max(from_ns + int(interval_ns * share), last_due_ns + int(interval_ns)), interval_ns


class ProducerLoop:
    """One producer: its ledger, its current client, what is due and what is open."""

    def __init__(self, plan: WorkerPlan, control: Control) -> None:
        self._plan = plan
        self._control = control
        self._ledger = SendsWriter(Path(plan.folder))
        self._open_client = client(plan.wiring.client).open_producer
        self._client: Producer | None = None
        self._blocks: BlockProducer | None = None
        """the same where it takes blocks"""
        self._epoch = self._ledger.next_epoch - 1
        self._reopen_at_ns = 0
        self._back_ns = 0
        """when the loop came back from opening or closing a client"""
        self._why_not = ""
        self._in_flight = 0
        self._seq = self._ledger.next_seq
        self._waiting = Backlog()
        self._interval_ns = 0.0
        """between two due times; 0: nothing falls due"""

    def run(self) -> None:
        """From `ready` to `done`; LedgerError ends it."""
        self._connect()
        self._control.ready()
        if self._control.wait_go():
            rate_per_s = self._plan.workload.rate_per_s
            if rate_per_s is None:
                self._closed_loop()
            else:
                self._open_loop(rate_per_s)
        self._settle()
        if self._client is not None:
            self._client.close(2.0)
        self._ledger.close()
        self._control.stats(self._stats(), force=True)

    # --- sending

    def _open_loop(self, rate_per_s: float) -> None:
        first, last_due = self._seq, 0
        t0 = self._retimed(rate_per_s, last_due, now_ns())
        window = self._plan.workload.window
        pacing = PacingWriter(path_of(Path(self._plan.folder).parent, self._plan.number), self._interval_ns)
        while not self._control.stopping:
            now = now_ns()
            fallen_due = due_times(t0, self._interval_ns, self._seq - first, now)
            if len(fallen_due):
                pacing.noticed(now, int(fallen_due[0]), len(fallen_due), self._back_ns)
                self._take_up(fallen_due, window)
            due = t0 + int((self._seq - first) * self._interval_ns)
            if (new_per_s := self._control.new_rate()) is not None:
                if self._seq > first:
                    last_due = t0 + int((self._seq - 1 - first) * self._interval_ns)
                first, t0 = self._seq, self._retimed(new_per_s, last_due, now)
                pacing.paced(self._interval_ns, now)
                due = t0
                self._tell_rate(new_per_s, t0)
            self._hand_over()
            self._await(due)
        pacing.close(now_ns())
        for seq, due in self._waiting:
            self._ledger.skip(seq, due)

    def _take_up(self, due_ns: Ints, window: int) -> None:
        """The next messages are due then: they wait, or are skipped."""
        room = max(0, window - len(self._waiting))
        self._waiting.add(self._seq, due_ns[:room])
        for seq, due in enumerate(due_ns[room:].tolist(), self._seq + room):
            self._ledger.skip(seq, due)
        self._seq += len(due_ns)

    def _retimed(self, rate_per_s: float, last_due_ns: int, from_ns: int) -> int:
        producers = self._plan.workload.producers
        share = self._plan.number / producers
        next_due_ns, self._interval_ns = retimed(rate_per_s, share, producers, last_due_ns, from_ns)
        return next_due_ns

    def _tell_rate(self, rate_per_s: float, next_due_ns: int) -> None:
        self._control.event(
            "rate", producer=self._plan.number, rate_per_s=rate_per_s, seq=self._seq, next_due_ns=next_due_ns
        )
        self._control.stats(self._stats(), force=True)

    def _await(self, due_ns: int) -> None:
        """Hear the client until a message is due, for a tick at least. Clients wait for whole milliseconds, rounded up:
        where nothing is open, and so nothing to be heard, the last part of one is slept out instead."""
        left_s = min(_IDLE_S, (due_ns - now_ns()) / NS_PER_S)
        if self._in_flight == 0 and self._can_send() and self._interval_ns >= TICK_S * NS_PER_S:
            if 0 < left_s < TICK_S:
                self._control.pause(left_s)
                return
            left_s -= left_s % TICK_S
        self._round(max(TICK_S, left_s))

    def _hand_over(self) -> None:
        while self._waiting and self._can_send():
            seqs, due_ns = self._waiting.head(self._most())
            taken = self._send(seqs, due_ns)
            if taken:
                self._waiting.drop(taken)
            if taken < len(seqs):
                return

    def _closed_loop(self) -> None:
        while not self._control.stopping:
            most, taken = self._most(), 0
            if self._can_send():
                taken = self._send(range(self._seq, self._seq + most), 0)
                self._seq += taken
            full = self._blocks is not None and self._in_flight > self._plan.workload.window // 2
            self._round(0.0 if taken == most and not full else TICK_S)

    def _most(self) -> int:
        """How many messages to hand over at once."""
        if self._blocks is None:
            return BURST
        workload = self._plan.workload
        block = min(BLOCK, max(1, BLOCK_BYTES // workload.size_bytes))
        return max(1, min(block, workload.window - self._in_flight))

    def _can_send(self) -> bool:
        sender = self._client
        return (
            sender is not None
            and self._in_flight < self._plan.workload.window
            and sender.failed is None
            and not sender.blocked
        )

    def _send(self, seqs: range, due_ns: Ints | int) -> int:
        """Hand over these messages, due then (0: a closed loop); returns how many of them, from the first one on, the
        client took."""
        if self._blocks is not None:
            return len(seqs) if self._send_block(self._blocks, seqs, due_ns) else 0
        taken = 0
        for seq, due in zip(seqs, [due_ns] * len(seqs) if isinstance(due_ns, int) else due_ns.tolist(), strict=True):
            if not self._can_send() or not self._send_one(seq, due):
                break
            taken += 1
        return taken

    def _send_one(self, seq: int, due_ns: int) -> bool:
        plan = self._plan
        assert self._client is not None
        place = seq % plan.wiring.places
        text = body.encode(plan.run_number, plan.number, seq, due_ns, plan.workload.size_bytes)
        self._ledger.sent(seq, due_ns, place, self._epoch, now_ns())
        self._in_flight += 1
        if self._client.send(seq, place, text):
            return True
        self._in_flight -= 1
        return False

    def _send_block(self, sender: BlockProducer, seqs: range, due_ns: Ints | int) -> bool:
        plan, places = self._plan, self._plan.wiring.places
        numbers = np.arange(seqs.start, seqs.stop)
        bodies = encode_many(plan.run_number, plan.number, numbers, due_ns, plan.workload.size_bytes)
        at_ns = now_ns()
        for place in range(places):
            mine = slice((place - seqs.start) % places, None, places)
            due = due_ns if isinstance(due_ns, int) else due_ns[mine]
            self._ledger.sent_many(seqs[mine], due, place, self._epoch, at_ns)
        self._in_flight += len(seqs)
        if sender.send_many(seqs, places, bodies):
            return True
        self._in_flight -= len(seqs)
        return False

    # --- the client

    def _round(self, timeout_s: float) -> None:
        """One poll of the client, or one try to get a new one."""
        if self._client is not None and self._client.failed is not None:
            self._drop(self._client.failed)
        if self._client is None:
            self._connect()
            self._back_ns = now_ns()
        if self._client is not None:
            self._client.poll(timeout_s)
        self._control.stats(self._stats())

    def _connect(self) -> None:
        now = now_ns()
        if now < self._reopen_at_ns:
            self._control.pause(min(_IDLE_S, (self._reopen_at_ns - now) / NS_PER_S))
            return
        self._reopen_at_ns = now + _REOPEN_NS
        epoch = self._epoch + 1
        try:
            self._client = self._open_client(self._plan.wiring, self._settler(epoch), self._plan.number, epoch)
        except ClientError as error:
            if str(error) != self._why_not:  # said once, not ten times a second
                self._why_not = str(error)
                self._control.event("client", producer=self._plan.number, state="not opened", why=self._why_not)
            return
        self._why_not = ""
        self._epoch = epoch
        self._in_flight = 0
        self._blocks = self._client if isinstance(self._client, BlockProducer) else None
        if self._blocks is not None:
            self._blocks.settle_many = self._settler_many(epoch)
            prepare(self._plan.workload.size_bytes)
        self._control.event("client", producer=self._plan.number, epoch=epoch, state="opened")

    def _drop(self, why: str) -> None:
        assert self._client is not None
        self._control.event(
            "client", producer=self._plan.number, epoch=self._epoch, state="failed", why=why, open=self._in_flight
        )
        self._client.close(0.5)
        self._client = self._blocks = None
        self._in_flight = 0

    def _settler(self, epoch: int) -> Callable[[int, Outcome, int, int], None]:
        settle = self._ledger.settle

        def settled(seq: int, outcome: Outcome, offset: int, place: int) -> None:
            if settle(seq, outcome, offset, place, now_ns()) and epoch == self._epoch:
                self._in_flight -= 1

        return settled

    def _settler_many(self, epoch: int) -> SettleMany:
        settle_many = self._ledger.settle_many

        def settled(seqs: range, outcome: Outcome, offset: int, place: int) -> None:
            were_open = settle_many(seqs, outcome, offset, place, now_ns())
            if epoch == self._epoch:
                self._in_flight -= were_open

        return settled

    # --- the end

    def _settle(self) -> None:
        """Wait, bounded, until nothing is open; a client that dies meanwhile is not replaced."""
        deadline = now_ns() + int(self._plan.settle_s * NS_PER_S)
        while self._client is not None and self._in_flight > 0 and now_ns() < deadline:
            if self._client.failed is not None:
                self._drop(self._client.failed)
                return
            self._client.poll(_IDLE_S)
            self._control.stats(self._stats())

    def _stats(self) -> dict[str, int]:
        counts = self._ledger.counts
        return {
            "sent": counts.sent,
            "skipped": counts.skipped,
            "acked": counts.acked,
            "refused": counts.refused + counts.returned,
            "unknown": counts.unknown,
            "in_flight": self._in_flight,
            "waiting": len(self._waiting),
            "paused": int(not self._interval_ns),
            "last_ack_ns": self._ledger.last_ack_ns,
        }
