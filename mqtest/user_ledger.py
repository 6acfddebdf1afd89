"""The ledger of a user's own test: what their producers were told and their consumers did, in the files of any cell.

    body = ledger.next_body(b"order 17")       a message, written down before it is sent
    ledger.acked(body)                         the broker took it; `refused`: provably not; `unknown`: nobody knows
    ledger.received(body, place=0, offset=5)   a consumer was given it: by a log its position, …
    ledger.received(body, redelivered=False)   … by a queue whether it says that it delivers it again
    ledger.processed(body)                     that consumer's work is done
    ledger.judge().assert_kept()               once every consumer is closed: the independent read, and the judgement

Rules:
- Each line stands on disk before the call returns, so that a process that dies loses none. A process of its own opens
  the ledger with `join`, by the environment that `environment()` gives it; no two that live send as one producer, or
  consume as one consumer.
- A body is sent once. Who sends a message again takes a new body with the same payload.
- What the broker kept is judged as in any cell, from what was received. What the user's consumers did stands beside it
  (user_judgement.py): an acknowledged message is `missed` when the broker was told that it is done with, and nobody
  ever did its work.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mqtest import body as bodies
from mqtest.clock import now_ns
from mqtest.errors import UsageError
from mqtest.ledger import ReceiptsWriter, SendsWriter
from mqtest.model import Delivery, Kind, Outcome
from mqtest.user_judgement import Judged, judge_user
from mqtest.workload.consumer import record

ENVIRONMENT = "MQTEST_LEDGER"


class Ledger:
    """See the module's rules. Threads may share one."""

    def __init__(
        self,
        cell_dir: Path,
        run_number: int,
        kind: Kind,
        places: int,
        *,
        producer: int = 0,
        consumer: int = 0,
        audit: Callable[[], None] | None = None,
    ) -> None:
        """`audit`: reads the broker to its end; without one (in a process of its own) nothing can be judged here."""
        self._cell_dir = cell_dir
        self._run_number = run_number
        self._kind = kind
        self._places = places
        self._producer = producer
        self._consumer = consumer
        self._audit = audit
        self._lock = threading.Lock()
        self._sends: SendsWriter | None = None
        self._received: ReceiptsWriter | None = None
        self._processed: ReceiptsWriter | None = None
        self._epochs = (0, 0)
        """of this producer and this consumer: those who come back have a new one"""
        self._in_hand: dict[bytes, Delivery] = {}
        self._judged: Judged | None = None

    # --- producers

    def next_body(self, payload: bytes | str = b"", *, place: int | None = None) -> bytes:
        """The body of the next message, to be sent as it is; `payload(body)` is what was wrapped. `place`: the
        partition or queue that it goes to, where that is known and there are several."""
        data = payload.encode() if isinstance(payload, str) else payload
        with self._lock:
            sends = self._open_sends()
            seq = sends.next_seq
            known = place if place is not None else 0 if self._places == 1 else -1
            sends.sent(seq, 0, known, self._epochs[0], now_ns())
        return bodies.wrap(self._run_number, self._producer, seq, data)

    def acked(self, body: bytes, *, place: int | None = None, offset: int | None = None) -> None:
        """The client was told that the broker has it; where it names the position, that can be checked as well."""
        self._settle(body, Outcome.ACKED, place, offset)

    def refused(self, body: bytes) -> None:
        """It was provably not stored. Anything less is `unknown`."""
        self._settle(body, Outcome.REFUSED, None, None)

    def unknown(self, body: bytes) -> None:
        """An error or a time-out that proves nothing. A body of which nothing is said is the same."""
        self._settle(body, Outcome.UNKNOWN, None, None)

    def reconnected(self) -> None:
        """The producer has a new connection: order is promised for each one apart."""
        with self._lock:
            self._open_sends()
            self._epochs = (self._epochs[0] + 1, self._epochs[1])

    # --- consumers

    def received(
        self, body: bytes, *, place: int = 0, offset: int | None = None, redelivered: bool | None = None
    ) -> None:
        """A consumer was given it; before its work, and before anything is told to the broker."""
        if self._kind is Kind.LOG and offset is None:
            raise UsageError("received: a message of a log has a position: give place= and offset=")
        if self._kind is Kind.QUEUE and redelivered is None:
            raise UsageError("received: a queue says whether it delivers a message again: give redelivered=")
        delivery = Delivery(place, -1 if offset is None else offset, body, bool(redelivered))
        with self._lock:
            self._in_hand[body] = delivery
            if self._received is None:
                self._received = ReceiptsWriter(self._cell_dir / "ledger" / f"receipts.{self._consumer}")
                self._epochs = (self._epochs[0], self._received.next_epoch)
            record(self._received, [delivery], self._run_number, self._epochs[1], {})

    def processed(self, body: bytes) -> None:
        """The work for a message that was received is done."""
        with self._lock:
            if body not in self._in_hand:
                raise UsageError("processed: this message was not received by this consumer")
            if self._processed is None:
                self._processed = ReceiptsWriter(self._cell_dir / "ledger" / f"processed.{self._consumer}")
            record(self._processed, [self._in_hand[body]], self._run_number, self._epochs[1], {})

    @staticmethod
    def payload(body: bytes) -> bytes:
        """What `next_body` was given."""
        return bodies.payload(body)

    # --- processes, and the end

    def environment(self, *, producer: int = 0, consumer: int = 0) -> dict[str, str]:
        """Variables for a process of its own, which is that producer, or that consumer; it calls `join`."""
        told = {"cell_dir": str(self._cell_dir), "run_number": self._run_number, "kind": self._kind}
        return {ENVIRONMENT: json.dumps(told | {"places": self._places, "producer": producer, "consumer": consumer})}

    def judge(self) -> Judged:
        """Read the broker to its end, and judge; every consumer has to be closed. The same answer each time."""
        if self._audit is None:
            raise UsageError("judge: only the test that brought the cluster up can judge")
        if self._judged is None:
            self.close()
            self._audit()
            self._judged = judge_user(self._cell_dir)
        return self._judged

    def close(self) -> None:
        """Close the files; they stay, and go on where they ended when something more is said."""
        with self._lock:
            for writer in (self._sends, self._received, self._processed):
                if writer is not None:
                    writer.close()
            self._sends = self._received = self._processed = None

    def _open_sends(self) -> SendsWriter:
        if self._sends is None:
            self._sends = SendsWriter(self._cell_dir / "ledger" / f"sends.{self._producer}")
            self._epochs = (self._sends.next_epoch, self._epochs[1])
        return self._sends

    def _settle(self, body: bytes, outcome: Outcome, place: int | None, offset: int | None) -> None:
        head = bodies.decode(body)
        if head is None or (head.run, head.producer) != (self._run_number, self._producer):
            raise UsageError(f"{outcome.name.lower()}: this body is none that this producer took from next_body()")
        with self._lock:
            where = (-1 if offset is None else offset, -1 if place is None else place)
            self._open_sends().settle(head.seq, outcome, *where, now_ns())


def join(environment: Mapping[str, str] = os.environ) -> Ledger:
    """The ledger of the test that started this process, by its `environment()`; raises UsageError without one."""
    text = environment.get(ENVIRONMENT)
    if text is None:
        raise UsageError(f"{ENVIRONMENT} is not set: start this process with the environment() of mq_ledger")
    told: dict[str, Any] = json.loads(text)
    return Ledger(
        Path(told["cell_dir"]),
        told["run_number"],
        Kind(told["kind"]),
        told["places"],
        producer=told["producer"],
        consumer=told["consumer"],
    )
