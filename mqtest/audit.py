"""The complete read of what the broker holds, after heal and recovery, through a fence.

Rules (design, section 5):
- The runner's own producer (number RUNNER, with a sends folder of its own) gets one more message acknowledged in each
  place: the fence. It is the end of the audit, so that "nothing came for a while" is never an argument.
- Log: each place is read from its first position through its fence. A log that starts above 0 (in a topic that was
  there before: above where the cell began), by the broker's own word, has lost its head to retention: incomplete.
- Queue: all consumers are gone; read through the fence to depth 0 with nothing unacknowledged.
- Every reader ends in an `audit` event with `complete` and, if not, why. Loss is judged only when all are complete.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

from mqtest import body
from mqtest.brokers import Reachable
from mqtest.clients import Arrived, Client, ClientError, Producer, Reader
from mqtest.clock import NS_PER_S, now_ns
from mqtest.errors import WaitTimeout
from mqtest.ledger import ReceiptsWriter, SendsWriter
from mqtest.model import RUNNER, Kind, Outcome, Wiring
from mqtest.workload.consumer import own, record, taking

_POLL_S = 0.2
_AGAIN_S = 0.05
_SEND_S = 10.0
"""a fence that is not acknowledged after so long is sent again, as another message, by another client"""


class RunnerProducer:
    """The runner's own producer: probes before the load, fences after it."""

    def __init__(self, client: Client, folder: Path, run_number: int, size_bytes: int) -> None:
        self._client = client
        self._ledger = SendsWriter(folder)
        self._run_number = run_number
        self._size = size_bytes
        self._epoch = 0

    def acknowledge_one_each(self, wiring: Wiring, timeout_s: float, why: str) -> Mapping[int, int]:
        """Get one message acknowledged in every place; returns place → its sequence number. Raises WaitTimeout."""
        deadline = now_ns() + int(timeout_s * NS_PER_S)
        got: dict[int, int] = {}
        last = "no answer"
        while len(got) < wiring.places:
            if now_ns() > deadline:
                raise WaitTimeout(f"waited {timeout_s:g} s for {why} to be acknowledged in every place ({last})")
            last = self._try(replace(wiring, acknowledged=True), got, deadline)
            if len(got) < wiring.places:
                time.sleep(_AGAIN_S)  # a broker that is down refuses at once
        return got

    def close(self) -> None:
        """Close the ledger."""
        self._ledger.close()

    def _try(self, wiring: Wiring, got: dict[int, int], deadline: int) -> str:
        """One client, one message for each place that has none yet; returns why it was not enough."""
        seqs: dict[int, int] = {}
        outcomes: dict[int, Outcome] = {}

        def settle(seq: int, outcome: Outcome, offset: int, place: int) -> None:
            self._ledger.settle(seq, outcome, offset, place, now_ns())
            outcomes[seq] = outcome

        self._epoch += 1
        try:
            producer = self._client.open_producer(wiring, settle, RUNNER, self._epoch)
        except ClientError as error:
            return str(error)
        end = min(deadline, now_ns() + int(_SEND_S * NS_PER_S))
        for place in range(wiring.places):
            if place not in got:
                seqs[place] = self._send(producer, place, end)
        while len(outcomes) < len(seqs) and now_ns() < end and producer.failed is None:
            producer.poll(_POLL_S)
        failed = producer.failed
        producer.close(2.0)
        got.update({place: seq for place, seq in seqs.items() if outcomes.get(seq) is Outcome.ACKED})
        return failed or ", ".join(f"place {p}: {outcomes.get(s, Outcome.NONE).name}" for p, s in seqs.items())

    def _send(self, producer: Producer, place: int, end: int) -> int:
        seq = self._ledger.next_seq
        text = body.encode(self._run_number, RUNNER, seq, 0, self._size)
        while True:
            self._ledger.sent(seq, 0, place, self._epoch, now_ns())
            if producer.send(seq, place, text) or now_ns() > end or producer.failed is not None:
                return seq
            producer.poll(_POLL_S)


def read_all(
    client: Client,
    broker: Reachable,
    wiring: Wiring,
    fences: Mapping[int, int],
    folder: Path,
    run_number: int,
    timeout_s: float,
    look: Callable[[Arrived], None] | None = None,
) -> str | None:
    """Read every place through its fence into the audit ledger at `folder`; returns why it is incomplete, or None.
    `look` gets everything that is read, in order; what a reader that failed had read, again."""
    deadline = now_ns() + int(timeout_s * NS_PER_S)
    ledger = ReceiptsWriter(folder)
    seen: dict[int, int] = {}
    epoch = 0
    why: str | None = "not begun"
    try:
        while why is not None and now_ns() < deadline:
            try:
                reader = client.open_reader(wiring, sorted(fences))
            except ClientError as error:
                why = str(error)
                continue
            try:
                ate = eaten(reader.starts(), wiring.begins)
                if ate and wiring.kind is Kind.LOG:
                    return f"retention ate the head of the log: {', '.join(ate)}"
                write = partial(_write, look, ledger, wiring, run_number, epoch, seen)
                why = _read(reader, broker, wiring, fences, seen, write, deadline)
            finally:
                reader.close(2.0)
            epoch += 1  # a reader that failed is replaced; positions that it read again are the same positions
        return why
    finally:
        ledger.close()


def eaten(starts: Mapping[int, int], begins: Mapping[int, int]) -> list[str]:
    """Places of a log whose head is gone: they start above where the cell began."""
    return [f"place {place} starts at {first}" for place, first in starts.items() if first > begins.get(place, 0)]


def _write(
    look: Callable[[Arrived], None] | None,
    ledger: ReceiptsWriter,
    wiring: Wiring,
    run_number: int,
    epoch: int,
    seen: dict[int, int],
    arrived: Arrived,
) -> None:
    mine = own(arrived, wiring.begins)
    record(ledger, mine, run_number, epoch, seen)
    if look is not None:
        look(mine)


def _read(
    reader: Reader,
    broker: Reachable,
    wiring: Wiring,
    fences: Mapping[int, int],
    seen: Mapping[int, int],
    write: Callable[[Arrived], None],
    deadline: int,
) -> str | None:
    poll = taking(reader)
    while now_ns() < deadline:
        if reader.failed is not None:
            return reader.failed
        arrived = poll(_POLL_S)
        if arrived:
            write(arrived)
            reader.ack()
            continue
        if all(seen.get(place, -1) >= seq for place, seq in fences.items()) and (
            wiring.kind is Kind.LOG or broker.remaining({}) == 0
        ):
            return None
    missing = [str(p) for p, seq in fences.items() if seen.get(p, -1) < seq]
    if missing:
        return f"the fence was not reached in place {', '.join(missing)} within the time"
    return f"{broker.remaining({})} messages still in the queue after the time"
