"""The loop of one transformer: every input becomes one output in another topic, with its producer and seq unchanged.

So the second topic is a history of its own, in which each message is named by its source. An input is written into the
ledger before its output is made. How outputs and positions hang together is the client's affair; how far the inputs are
done with stands in a checkpoint as well, for a broker that keeps no positions. A client that is beyond use is closed
and replaced with the next epoch, as a producer is. With a state (job.py) the outputs are what the job says of the
inputs, and its state is read back whenever a client is opened.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from mqtest import body
from mqtest.clients import FENCING, Transformer, client
from mqtest.clock import NS_PER_S, now_ns
from mqtest.errors import LedgerError, MqtestError
from mqtest.ledger import ReceiptsWriter
from mqtest.model import RUNNER, Delivery, Outcome
from mqtest.workload import WorkerPlan
from mqtest.workload.consumer import record
from mqtest.workload.control import Control
from mqtest.workload.job import Input, Job

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
        self._checkpoint = Path(f"{plan.folder}.json")
        library = client(plan.wiring.client)
        self._open_client = library.open_transformer
        self._job = Job(plan, library) if plan.replay is not None else None
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
        own = self._own(inputs)
        outputs = [(i.place, i.body) for i in own] if self._job is None else self._job.outputs(own)
        outcome = writer.write(outputs)
        if self._job is not None:
            self._job.settle(outcome)
        if outcome is Outcome.ACKED:
            self._written += len(outputs)
            self._save(writer)
        else:
            self._says(state="not written", epoch=self._epoch, outcome=outcome.name.lower(), inputs=len(inputs))

    def _own(self, inputs: Sequence[Delivery]) -> list[Input]:
        """Those of the workload: the runner's are not passed on, nor is what cannot be told."""
        heads = ((item, body.decode(item.body)) for item in inputs)
        return [
            Input(item.place, item.offset, item.body, head)
            for item, head in heads
            if head is not None and head.run == self._plan.run_number and head.producer != RUNNER
        ]

    def _save(self, writer: Transformer) -> None:
        """Write down how far the inputs are done with, whole or not at all."""
        part = self._checkpoint.with_suffix(".part")
        try:
            part.write_text(json.dumps({place: offset + 1 for place, offset in writer.positions.items()}))
            part.replace(self._checkpoint)
        except OSError as error:
            raise LedgerError(f"{self._checkpoint}: {error.strerror}") from error

    def _saved(self) -> dict[int, int]:
        if not self._checkpoint.is_file():
            return {}
        return {int(place): offset for place, offset in json.loads(self._checkpoint.read_text()).items()}

    def _connect(self) -> None:
        now = now_ns()
        if now < self._reopen_at_ns:
            self._control.pause((self._reopen_at_ns - now) / NS_PER_S)
        self._reopen_at_ns = now_ns() + _REOPEN_NS
        epoch = self._epoch + 1
        try:
            opened = self._opened(epoch)
        except LedgerError:
            raise
        except MqtestError as error:
            if str(error) != self._why_not:
                self._why_not = str(error)
                self._says(state="not opened", why=self._why_not)
            return
        self._client = opened
        self._why_not = ""
        self._epoch = epoch
        self._says(state="opened", epoch=epoch)

    def _opened(self, epoch: int) -> Transformer:
        """A new client; of a job that has its state again. Raises MqtestError."""
        wiring, job = replace(self._plan.wiring, resume=self._saved()), self._job
        if job is None:
            return self._open_client(wiring, self._plan.number, epoch, self._plan.workload.transformers)
        fencing = wiring.client in FENCING
        if not fencing:
            self._restore(job)
        opened = self._open_client(wiring, self._plan.number, epoch, 1)
        if fencing:
            try:
                self._restore(job)
            except MqtestError:
                opened.close(0.5)
                raise
        return opened

    def _restore(self, job: Job) -> None:
        self._says(state="restored", outputs=job.restore())

    def _says(self, **what: object) -> None:
        self._control.event("client", transformer=self._plan.number, **what)

    def _stats(self) -> dict[str, object]:
        positions = self._client.positions if self._client is not None else {}
        return {"written": self._written, "positions": {str(p): o for p, o in positions.items()}}
