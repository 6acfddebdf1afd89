"""The loop of one consumer process: a receipt is written before the message is acknowledged to the broker.

A receipt says that the message was processed: where the workload has `process_ms`, it is written that long after the
one before it. So a consumer that dies in the middle of a batch has no receipts of the rest.

A consumer that is beyond use is closed and replaced with the next epoch, as a producer is. Bodies that do not decode,
and messages of another run, are written down as what they are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from mqtest import body
from mqtest.bodies import decode_many, prepare
from mqtest.clients import Arrived, Block, BlockConsumer, ClientError, Consumer, client
from mqtest.clock import NS_PER_S, now_ns
from mqtest.ledger import ReceiptsWriter
from mqtest.model import NOBODY, RUNNER, Delivery, Flag
from mqtest.workload import WorkerPlan
from mqtest.workload.control import Control

_REOPEN_NS = NS_PER_S // 5
_POLL_S = 0.1
FEW = 20
"""a block of fewer messages costs less one by one"""


def record(ledger: ReceiptsWriter, arrived: Arrived, run_number: int, epoch: int, fences: dict[int, int]) -> int:
    """Write receipts; returns how many were the workload's own. `fences` gets place → seq of the runner's messages."""
    own = 0
    for item in arrived:
        if isinstance(item, Block):
            if len(item.offsets) < FEW:
                own += record(ledger, item.deliveries, run_number, epoch, fences)
            else:
                own += _record_block(ledger, item, run_number, epoch, fences)
            continue
        place, offset, text, redelivered = item
        head = body.decode(text)
        flags = int(Flag.REDELIVERED) if redelivered else 0
        if head is None:
            ledger.append(now_ns(), NOBODY, -1, place, offset, flags | Flag.CORRUPT, epoch)
            continue
        if head.run != run_number:
            flags |= Flag.FOREIGN
        elif head.producer == RUNNER:
            fences[place] = max(head.seq, fences.get(place, -1))
        else:
            own += 1
        ledger.append(now_ns(), head.producer, head.seq, place, offset, flags, epoch)
    return own


def _record_block(ledger: ReceiptsWriter, block: Block, run_number: int, epoch: int, fences: dict[int, int]) -> int:
    """As `record`, of the messages of one block together."""
    heads = decode_many(block.bodies)
    foreign = heads.valid & (heads.run != run_number)
    runners = heads.valid & ~foreign & (heads.producer == RUNNER)
    if runners.any():
        fences[block.place] = max(int(heads.seq[runners].max()), fences.get(block.place, -1))
    producers = np.where(heads.valid, heads.producer, NOBODY)
    seqs = np.where(heads.valid, heads.seq, -1)
    flags = ~heads.valid * int(Flag.CORRUPT) + foreign * int(Flag.FOREIGN)
    ledger.append_many(now_ns(), producers, seqs, block.place, block.offsets, flags, epoch)
    return int(np.count_nonzero(heads.valid & ~foreign & ~runners))


def own(arrived: Arrived, begins: Mapping[int, int]) -> Arrived:
    """Without what stood in the places of a log before the cell began."""
    if not begins:
        return arrived
    found: list[Delivery | Block] = []
    for item in arrived:
        first = begins.get(item.place, 0)
        if isinstance(item, Block):
            inside = item.offsets >= first
            if inside.any():
                found.append(Block(item.place, item.offsets[inside], item.bodies[inside]))
        elif item.offset >= first:
            found.append(item)
    return found


def taking(source: Consumer) -> Callable[[float], Arrived]:
    """How to poll it for receipts: by blocks where it gives them."""
    return source.poll_blocks if isinstance(source, BlockConsumer) else source.poll


class ConsumerLoop:
    """One consumer: its ledger and its current client."""

    def __init__(self, plan: WorkerPlan, control: Control) -> None:
        self._plan = plan
        self._control = control
        self._ledger = ReceiptsWriter(Path(plan.folder))
        self._open_client = client(plan.wiring.client).open_consumer
        self._client: Consumer | None = None
        self._poll: Callable[[float], Arrived]
        """the client's, of one kind or the other"""
        self._epoch = self._ledger.next_epoch - 1
        self._reopen_at_ns = 0
        self._why_not = ""
        self._delivered = self._ledger.own
        self._positions = dict(self._ledger.positions)

    def run(self) -> None:
        """From `ready` to `done`; LedgerError ends it."""
        self._control.ready()
        if self._control.wait_go():
            while not self._control.stopping:
                self._round()
        self._leave(10.0)
        self._ledger.close()
        self._control.stats(self._stats(), force=True)

    def _round(self) -> None:
        if self._client is not None and self._client.failed is not None:
            why = self._client.failed
            self._says(epoch=self._epoch, state="failed", why=why)
            self._leave(0.5)
        if self._client is None:
            self._connect()
        if self._client is not None:
            taken = self._poll(_POLL_S)
            arrived = own(taken, self._plan.wiring.begins)
            if taken:
                self._process(arrived)
                self._client.ack()
            for place, offset in getattr(self._client, "ends", {}).items():
                self._positions[place] = max(offset, self._positions.get(place, -1))
        self._control.stats(self._stats())

    def _process(self, arrived: Arrived) -> None:
        work_s = self._plan.workload.process_ms / 1000
        if not work_s:
            self._record(arrived)
            return
        for delivery in arrived:
            self._control.pause(work_s)  # what is left at the end of the cell goes quickly
            self._record([delivery])
            self._control.stats(self._stats())

    def _record(self, arrived: Arrived) -> None:
        self._delivered += record(self._ledger, arrived, self._plan.run_number, self._epoch, {})
        for item in arrived:
            last = int(item.offsets.max()) if isinstance(item, Block) else item.offset
            if last > self._positions.get(item.place, -1):
                self._positions[item.place] = last

    def _leave(self, timeout_s: float) -> None:
        """Close the client; some have `late` deliveries then, which came and are acknowledged already."""
        if self._client is not None:
            self._client.close(timeout_s)
            self._record(own(getattr(self._client, "late", ()), self._plan.wiring.begins))
            self._client = None

    def _connect(self) -> None:
        now = now_ns()
        if now < self._reopen_at_ns:
            self._control.pause((self._reopen_at_ns - now) / NS_PER_S)
        self._reopen_at_ns = now_ns() + _REOPEN_NS
        epoch, consumers = self._epoch + 1, self._plan.workload.consumers
        number = self._plan.number % consumers  # a reader has its topic to itself, whatever its number
        try:
            self._client = self._open_client(self._plan.wiring, number, epoch, consumers)
        except ClientError as error:
            if str(error) != self._why_not:
                self._why_not = str(error)
                self._says(state="not opened", why=self._why_not)
            return
        self._why_not = ""
        if isinstance(self._client, BlockConsumer):
            prepare(self._plan.workload.size_bytes)
        self._poll = self._client.poll if self._plan.workload.process_ms else taking(self._client)
        self._epoch = epoch
        self._says(epoch=self._epoch, state="opened")

    def _says(self, **what: object) -> None:
        self._control.event("client", **{str(self._plan.role): self._plan.number}, **what)

    def _stats(self) -> dict[str, object]:
        return {"delivered": self._delivered, "positions": {str(p): o for p, o in self._positions.items()}}
