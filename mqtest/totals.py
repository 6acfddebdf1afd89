"""What the rows of a ledger folder come to, chunk by chunk: all that a writer that comes back has to know of them.

A packed chunk has its own written in it, so the rows themselves are not read again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mqtest.model import RUNNER, Flag, Outcome

Rows = Mapping[str, NDArray[Any]]


class SendCounts(NamedTuple):
    """Messages of one producer so far. `unknown` has only those settled so; open = sent minus all the others."""

    sent: int
    skipped: int
    acked: int
    degraded: int
    refused: int
    returned: int
    unknown: int


@dataclass(frozen=True, slots=True)
class SendTotals:
    """Of sends."""

    sent: int = 0
    skipped: int = 0
    settled: list[int] = field(default_factory=lambda: [0] * len(Outcome))
    """by outcome"""
    last_ack_ns: int = 0
    """when the newest ack was settled; 0: none yet"""
    next_epoch: int = 0
    """one past the last epoch that sent anything"""

    @classmethod
    def of(cls, rows: Rows) -> SendTotals:
        """Of these rows, unused ones among them."""
        sent, settled, outcome = rows["sent_ns"] != 0, rows["settled_ns"], rows["outcome"]
        return cls(
            sent=int(np.count_nonzero(sent)),
            skipped=int(np.count_nonzero((rows["due_ns"] != 0) & ~sent)),
            settled=[int(np.count_nonzero((outcome == o) & (settled != 0))) for o in Outcome],
            last_ack_ns=int(settled[outcome == Outcome.ACKED].max(initial=0)),
            next_epoch=_next_epoch(rows["epoch"][sent]),
        )

    def __add__(self, other: SendTotals) -> SendTotals:
        return SendTotals(
            self.sent + other.sent,
            self.skipped + other.skipped,
            [a + b for a, b in zip(self.settled, other.settled, strict=True)],
            max(self.last_ack_ns, other.last_ack_ns),
            max(self.next_epoch, other.next_epoch),
        )


@dataclass(frozen=True, slots=True)
class ReceiptTotals:
    """Of receipts."""

    own: int = 0
    """those of the workload's own messages"""
    positions: list[tuple[int, int]] = field(default_factory=list)
    """(place, highest offset)"""
    next_epoch: int = 0
    """one past the last epoch that received anything"""

    @classmethod
    def of(cls, rows: Rows) -> ReceiptTotals:
        """Of these rows, unused ones among them."""
        received = rows["received_ns"] != 0
        strange = (rows["flags"] & (Flag.CORRUPT | Flag.FOREIGN)) != 0
        place, offset = rows["place"][received], rows["offset"][received]
        return cls(
            own=int(np.count_nonzero(received & ~strange & (rows["producer"] != RUNNER))),
            positions=[(int(p), int(offset[place == p].max())) for p in np.unique(place)],
            next_epoch=_next_epoch(rows["epoch"][received]),
        )

    def __add__(self, other: ReceiptTotals) -> ReceiptTotals:
        highest = dict(self.positions)
        for place, offset in other.positions:
            highest[place] = max(offset, highest.get(place, offset))
        return ReceiptTotals(self.own + other.own, [*highest.items()], max(self.next_epoch, other.next_epoch))


def _next_epoch(epoch: NDArray[Any]) -> int:
    return int(epoch.max()) + 1 if len(epoch) else 0
