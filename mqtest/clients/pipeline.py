"""A transformer made of a client's own consumer and producer, where there are no transactions to tie them together.

The outputs of a batch are acknowledged, then the positions of its inputs: at least once. An output that is anything but
acknowledged makes it `failed`: the next one begins where the group stands, and writes those again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Final

from mqtest.clients import ClientError, Consumer, Producer, Settle
from mqtest.model import Delivery, Outcome, Wiring

WRITE_S: Final = 30.0
"""at most, for the outputs of one batch to be acknowledged"""
_WAIT_S: Final = 0.05

OpenConsumer = Callable[[Wiring, int, int, int], Consumer]
OpenProducer = Callable[[Wiring, Settle, int, int], Producer]


class Pipeline:
    """See mqtest.clients.Transformer, and the module's rules."""

    def __init__(
        self,
        open_consumer: OpenConsumer,
        open_producer: OpenProducer,
        wiring: Wiring,
        number: int,
        epoch: int,
        transformers: int,
    ) -> None:
        """Raises ClientError when one of the two cannot be opened."""
        self._why: str | None = None
        self._outcomes: dict[int, Outcome] = {}
        """of the batch: number of the output -> what became of it"""
        self._outputs = 0
        self._next: dict[int, int] = {}
        self._done: dict[int, int] = {}
        inputs = replace(wiring, group=f"{wiring.group}-transformers")
        self._consumer = open_consumer(inputs, number % transformers, epoch, transformers)
        try:
            self._producer = open_producer(wiring.output, self._settle, number, epoch)
        except ClientError:
            self._consumer.close(0.0)
            raise

    @property
    def failed(self) -> str | None:
        """See Transformer."""
        return self._why or self._consumer.failed or self._producer.failed

    @property
    def positions(self) -> Mapping[int, int]:
        """See Transformer."""
        return self._done

    def poll(self, timeout_s: float) -> Sequence[Delivery]:
        """See Transformer."""
        self._producer.poll(0)
        inputs = self._consumer.poll(timeout_s)
        self._next = {place: offset for place, offset, _body, _redelivered in inputs}
        return inputs

    def write(self, outputs: Sequence[tuple[int, bytes]]) -> Outcome:
        """See Transformer."""
        deadline = time.monotonic() + WRITE_S
        self._outcomes.clear()
        for place, body in outputs:
            while not self._producer.send(self._outputs, place, body):
                if self._late(deadline):
                    return Outcome.UNKNOWN
            self._outputs += 1
        while len(self._outcomes) < len(outputs):
            if self._late(deadline):
                return Outcome.UNKNOWN
        other = next((o for o in self._outcomes.values() if o is not Outcome.ACKED), None)
        if other is not None:
            self._why = self._why or f"an output is {other.name.lower()}"
            return Outcome.UNKNOWN
        self._consumer.ack()
        self._done.update(self._next)
        return Outcome.ACKED

    def close(self, timeout_s: float) -> None:
        """See Transformer."""
        self._producer.close(timeout_s)
        self._consumer.close(timeout_s)

    def _late(self, deadline: float) -> bool:
        """Let answers come; whether there will be none."""
        self._producer.poll(_WAIT_S)
        if time.monotonic() > deadline:
            self._why = self._why or f"not every output is acknowledged within {WRITE_S:g} s"
        return self.failed is not None

    def _settle(self, seq: int, outcome: Outcome, _offset: int, _place: int) -> None:
        self._outcomes[seq] = Outcome(outcome)
