"""What became of a message, from the one byte of state that is kept of each. The rules stand in history.py."""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum

import numpy as np

from mqtest.model import Kind, Outcome
from mqtest.tables import OUTCOME_BITS, Bools, Ints

RECEIVED, AUDITED, ODD, EARLY, WRITTEN = 8, 16, 32, 64, 128
"""beside the outcome: a consumer had it; the audit has it; it is looked at closely; a consumer had it before the broker
counted what is left; it has an output"""
STATES = np.arange(256, dtype=np.int64)
"""every state that there can be: the tables below have an entry for each"""


class Fate(IntEnum):
    """What became of one message."""

    OPEN = 0
    """not attempted, or not to be told because the audit is incomplete"""
    DELIVERED = 1
    LOST = 2
    LOST_DEGRADED = 3
    RECOVERED = 4
    UNRESOLVED = 5
    PHANTOM = 6
    REFUSED = 7


_FATES: Mapping[Outcome, tuple[Fate, Fate]] = {
    Outcome.ACKED: (Fate.DELIVERED, Fate.LOST),
    Outcome.DEGRADED: (Fate.DELIVERED, Fate.LOST_DEGRADED),
    Outcome.UNKNOWN: (Fate.RECOVERED, Fate.UNRESOLVED),
    Outcome.REFUSED: (Fate.PHANTOM, Fate.REFUSED),
    Outcome.RETURNED: (Fate.PHANTOM, Fate.REFUSED),
}
"""outcome -> fate when there, fate when not"""


def outcomes() -> Ints:
    """The outcome of each state."""
    return STATES & OUTCOME_BITS


def there(kind: Kind) -> Bools:
    """For each state, whether the message is there."""
    seen: Bools = (STATES & (AUDITED if kind is Kind.LOG else AUDITED | RECEIVED)) != 0
    return seen


def fates(kind: Kind, *, complete: bool) -> Ints:
    """The fate of each state."""
    anywhere = (STATES & (AUDITED | RECEIVED)) != 0
    found = np.full(len(STATES), Fate.OPEN, dtype=np.uint8)
    for outcome, (when_there, when_not) in _FATES.items():
        mine = outcomes() == outcome
        seen = anywhere if when_there is Fate.PHANTOM else there(kind)
        found[mine] = np.where(seen[mine], when_there, when_not)
    if not complete:
        found[found != Fate.PHANTOM] = Fate.OPEN
    return found
