"""The check of order, per producer and place. Rules: __init__.py."""

from __future__ import annotations

import numpy as np

from mqtest.causes import disorder
from mqtest.checks.sightings import examples, joined, run_starts, seen
from mqtest.history import History
from mqtest.model import Finding, Flag, Kind
from mqtest.tables import Ints, groups


def reordered(history: History) -> Finding:
    """Messages whose sequence is below the highest so far of their producer in their place.

    Log: in the audit by offset, each message at its first position. Queue: over first deliveries and drain by
    `received_ns`, in places that one consumer (and one audit reader) had to itself; None when there is no such place.
    `reordered_by_max`: how far below at most. `reordered_in_session`: those below the highest of their own connection
    (epoch): what is on its way of one that failed may come late, and no broker says otherwise. `reordered_unflagged`:
    of these, those that no flag of the broker tells to have been requeued; in a log all.
    The notes give each producer and place, and the settings that allow it.
    """
    if history.kind is Kind.LOG:
        message, place, at = history.audit.message, history.audit.place, history.audit.offset
        requeued = np.zeros(len(message), dtype=np.bool_)
    else:
        message, place, at = (joined(history, column) for column in ("message", "place", "received_ns"))
        requeued = (joined(history, "flags") & Flag.REDELIVERED) != 0
        shared = _shared_places(history)
        alone = ~np.isin(place, shared)
        if len(shared) and not alone.any():
            return Finding(check="reordered", count=None, numbers=dict.fromkeys(_MEASURED))
        message, place, at, requeued = message[alone], place[alone], at[alone], requeued[alone]
    order, new = groups(message, place, at, by=2)
    first = np.sort(order[new])
    message, place, requeued = message[first], place[first], requeued[first]
    producer, at = history.sends.producer[message], at[first]
    behind = _behind(history, message, place, producer, at)
    in_session = behind > 0
    if in_session.any():  # who is late in its session is late
        in_session = _behind(history, message, place, producer, history.sends.epoch[message], at) > 0
    late = np.flatnonzero(behind)
    late = late[np.lexsort((at[late], producer[late], place[late]))]
    count = seen(history, len(late))
    return Finding(
        check="reordered",
        count=count,
        numbers={
            "reordered": count,
            "reordered_in_session": seen(history, int(np.count_nonzero(in_session))),
            "reordered_unflagged": seen(history, int(np.count_nonzero(in_session & ~requeued))),
            "reordered_by_max": int(behind.max(initial=0)) if count is not None else None,
        },
        notes=(*_where(producer[late], place[late]), *_allowed(history, int(np.count_nonzero(~in_session[late]))))
        if count
        else (),
        examples=examples(f"{history.name(message[i])} after a later one in place {place[i]}" for i in late),
        messages=run_starts(history, message[late]),
    )


def _behind(history: History, message: Ints, *keys: Ints) -> Ints:
    """For each message, how far its sequence is below the highest before it of the same keys; the last key is when."""
    order, new = groups(*keys, by=len(keys) - 1)
    seq = history.sends.seq[message[order]]
    # each group lifted above the one before it, so that one running maximum serves them all
    lifted = seq + (np.cumsum(new) - 1) * (int(seq.max(initial=0)) + 1)
    behind = np.zeros(len(order), dtype=np.int64)
    if len(order):
        behind[order] = np.maximum.accumulate(lifted) - lifted
    return behind


_MEASURED = ("reordered", "reordered_in_session", "reordered_unflagged")
_MOST_NOTES = 10
"""producers and places that are named"""


def _where(producer: Ints, place: Ints) -> tuple[str, ...]:
    """`producer 0 in place 1: 12 out of order`, the worst first."""
    pairs, counts = np.unique(np.stack([producer, place]), axis=1, return_counts=True)
    worst = np.argsort(-counts, kind="stable")[:_MOST_NOTES]
    return tuple(f"producer {pairs[0, i]} in place {pairs[1, i]}: {counts[i]} out of order" for i in worst)


def _allowed(history: History, across: int) -> tuple[str, ...]:
    """Why they came late, as far as the settings and the sessions tell; `across`: of a connection that was over."""
    late = (f"{across} of them were on their way of a connection that failed, and came after those of the next",)
    return (*(late if across else ()), *(disorder(history.cell) or ("no setting of this client is known to allow it",)))


def _shared_places(history: History) -> Ints:
    """Places of a queue that more than one consumer, or more than one audit reader, received from."""
    shared = []
    for side in (history.receipts, history.audit):
        order, new = groups(side.place, side.actor, by=2)
        places, actors = np.unique(side.place[order[new]], return_counts=True)
        shared.append(places[actors > 1])
    return np.unique(np.concatenate(shared))
