"""The loop of one transformer: every input becomes one output in another topic, with its producer and seq unchanged.

So the second topic is a history of its own, in which each message is named by its source. An input is written into the
ledger before its output is made. How outputs and positions hang together is the client's affair. A client that is
beyond use is closed and replaced with the next epoch, as a producer is.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mqtest import body
from mqtest.clients import ClientError, Transformer, client
from mqtest.clock import NS_PER_S, now_ns
from mqtest.ledger import ReceiptsWriter
from mqtest.model import RUNNER, Delivery, Outcome
from mqtest.workload import WorkerPlan
from mqtest.workload.consumer import record
from mqtest.workload.control import Control

_REOPEN_NS = NS_PER_S // 5
_POLL_S = 0.1
_CLOSE_S = 10.0
"""an orderly end hands over what is still queued"""


class TransformerLoop:
    """One transformer: its ledger and its current client."""

    def __init__(self, plan: WorkerPlan, control: Control) -> None:
        self._plan = plan
        self._control = control
        self._ledger = ReceiptsWriter(Path(plan.folder))
        self._open_client = client(plan.wiring.client).open_transformer
        self._client: Transformer | None = None
        self._epoch = self._ledger.next_epoch - 1
        self._reopen_at_ns = 0
        self._why_not = ""
        self._written = 0

    def run(self) -> None:
        """From `ready` to `done`; LedgerError ends it."""
        self._control.ready()
        if self._control.wait_go():
            while not self._control.stopping:
                self._round()
        if self._client is not None:
            self._client.close(_CLOSE_S)
        self._ledger.close()
        self._control.stats(self._stats(), force=True)

    def _round(self) -> None:
        if self._client is not None and self._client.failed is not None:
            self._says(state="failed", epoch=self._epoch, why=self._client.failed)
            self._client.close(0.5)
            self._client = None
        if self._client is None:
            self._connect()
        if self._client is not None:
            inputs = self._client.poll(_POLL_S)
            if inputs and self._client.failed is None:
                record(self._ledger, inputs, self._plan.run_number, self._epoch, {})
                self._write(self._client, inputs)
        self._control.stats(self._stats())

    def _write(self, writer: Transformer, inputs: Sequence[Delivery]) -> None:
        outputs = [(place, text) for place, _offset, text, _redelivered in inputs if self._own(text)]
        outcome = writer.write(outputs)
        if outcome is Outcome.ACKED:
            self._written += len(outputs)
        else:
            self._says(state="not written", epoch=self._epoch, outcome=outcome.name.lower(), inputs=len(inputs))

    def _own(self, text: bytes) -> bool:
        """Whether a message is of the workload: the runner's are not passed on, nor is what cannot be told."""
        head = body.decode(text)
        return head is not None and head.run == self._plan.run_number and head.producer != RUNNER

    def _connect(self) -> None:
        now = now_ns()
        if now < self._reopen_at_ns:
            self._control.pause((self._reopen_at_ns - now) / NS_PER_S)
        self._reopen_at_ns = now_ns() + _REOPEN_NS
        epoch = self._epoch + 1
        try:
            self._client = self._open_client(self._plan.wiring, self._plan.number, epoch)
        except ClientError as error:
            if str(error) != self._why_not:
                self._why_not = str(error)
                self._says(state="not opened", why=self._why_not)
            return
        self._why_not = ""
        self._epoch = epoch
        self._says(state="opened", epoch=epoch)

    def _says(self, **what: object) -> None:
        self._control.event("client", transformer=self._plan.number, **what)

    def _stats(self) -> dict[str, object]:
        positions = self._client.positions if self._client is not None else {}
        return {"written": self._written, "positions": {str(p): o for p, o in positions.items()}}
