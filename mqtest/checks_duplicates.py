"""Checks of duplicates: stored twice, and delivered again, by cause. See checks.py."""

from __future__ import annotations

import numpy as np

from mqtest.history import History, groups
from mqtest.model import Finding, Flag, Kind
from mqtest.sightings import examples, joined, position, positions, seen


def stored_twice(history: History) -> Finding:
    """Log: messages found at more than one (place, offset), in receipts and audit together."""
    if history.kind is not Kind.LOG:
        return Finding(check="stored-twice", count=None, numbers={"stored_twice": None})
    message, place, offset = positions(history)
    repeated = np.flatnonzero(message[1:] == message[:-1]) + 1
    messages = np.unique(message[repeated])
    count = seen(history, len(messages))
    return Finding(
        check="stored-twice",
        count=count,
        numbers={"stored_twice": count},
        examples=examples(
            f"{history.name(message[r])} at {position(place[r - 1], offset[r - 1])} and {position(place[r], offset[r])}"
            for r in repeated
        ),
    )


def redelivered(history: History) -> Finding:
    """Extra receipts of a message, by cause: with the broker's word for it, or (queue) without, a second copy.

    Queue: receipts after the first of a message, deliveries and audit together, with and without the flag. A flag on
    a first delivery is no duplicate. Log: a message read again at the same position, by consumers only.
    """
    if history.kind is Kind.LOG:
        read = history.receipts
        order, new = groups(read.message, read.place, read.offset, by=3)
        message = read.message[order[~new]]
        flagged = np.ones(len(message), dtype=np.bool_)
        count: int | None = len(message)
        unflagged = None
    else:
        every = joined(history, "message")
        order, new = groups(every, joined(history, "received_ns"), by=1)
        message = every[order[~new]]
        flagged = (joined(history, "flags")[order[~new]] & Flag.REDELIVERED) != 0
        count = seen(history, int(np.count_nonzero(flagged)))
        unflagged = seen(history, int(np.count_nonzero(~flagged)))
    return Finding(
        check="redelivered",
        count=None if count is None and unflagged is None else (count or 0) + (unflagged or 0),
        numbers={"redelivered": count, "redelivered_unflagged": unflagged},
        examples=examples(
            f"{history.name(message[i])} again{'' if flagged[i] else ', without the flag'}"
            for i in np.argsort(flagged, kind="stable")  # the unflagged ones first: they are the worse
        ),
    )
