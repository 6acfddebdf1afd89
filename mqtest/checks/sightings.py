"""What the checks of delivery share: where messages were seen, and how a finding says it.

A sighting is one receipt, of a consumer or of the audit. A violation that was seen counts; that none was seen says
nothing while the audit is incomplete.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import Any

import numpy as np

from mqtest.history import History
from mqtest.tables import Ints, groups

MOST_EXAMPLES = 20
MOST_MESSAGES = 5


def joined(history: History, column: str) -> Ints:
    """One column of receipts and audit together."""
    return np.concatenate([getattr(history.receipts, column), getattr(history.audit, column)])


def positions(history: History) -> tuple[Ints, Ints, Ints]:
    """Distinct (message, place, offset) over receipts and audit, in that order, where the offset is known."""
    message, place, offset = (joined(history, column) for column in ("message", "place", "offset"))
    order, new = groups(message, place, offset, by=3)
    keep = order[new]
    keep = keep[offset[keep] >= 0]
    return message[keep], place[keep], offset[keep]


def seen(history: History, count: int) -> int | None:
    """A violation that was seen counts; none seen says nothing while the audit is incomplete."""
    return count if count or history.incomplete is None else None


def position(place: Any, offset: Any) -> str:
    return f"place {place} offset {offset}"


def examples(lines: Iterable[str]) -> tuple[str, ...]:
    """The first of them; the rest is never made."""
    return tuple(islice(lines, MOST_EXAMPLES))


def run_starts(history: History, messages: Ints) -> tuple[tuple[int, int], ...]:
    """Producer and seq of the first of these messages that do not follow directly on another of them."""
    ordered = np.unique(messages)
    producer, seq = history.sends.producer[ordered], history.sends.seq[ordered]
    new = np.ones(len(ordered), dtype=np.bool_)
    new[1:] = (np.diff(producer) != 0) | (np.diff(seq) != 1)
    return tuple((int(producer[i]), int(seq[i])) for i in np.flatnonzero(new)[:MOST_MESSAGES])
