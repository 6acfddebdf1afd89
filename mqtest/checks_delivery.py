"""Checks of what was delivered: lost, stored twice, redelivered, reordered, or never sent at all. See checks.py."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import Any

import numpy as np

from mqtest.clock import NS_PER_S
from mqtest.history import Bools, Fate, History, Ints, groups
from mqtest.model import Finding, Flag, Kind, Outcome

MOST_EXAMPLES = 20


def outcomes(history: History) -> Finding:
    """What the client said of each attempted message; skipped ones were never sent."""
    sends = history.sends
    said = {o: int(np.count_nonzero(sends.outcome == o)) for o in Outcome if o is not Outcome.NONE}
    sent = sum(said.values())
    promised = history.acknowledged
    return Finding(
        check="outcomes",
        count=sent,
        numbers={
            "sent": sent,
            "skipped": int(np.count_nonzero((sends.sent_ns == 0) & (sends.due_ns != 0))),
            "acked": said[Outcome.ACKED] if promised else None,
            "degraded": said[Outcome.DEGRADED] if promised else None,
            "refused": said[Outcome.REFUSED],
            "returned": said[Outcome.RETURNED],
            "unknown": said[Outcome.UNKNOWN],
        },
    )


def loss(history: History) -> Finding:
    """Acked messages that are not there, with what was lost of each producer's run, and how old it was.

    prefix, middle, suffix: before, between, after the producer's first and last survivor (suffix too when none
    survived). `lost_age_s_max`: seconds from the ack of the oldest lost message to `injected` (the RPO); negative:
    acked after the fault. `read_then_lost` (log): a consumer had read it. `offsets_reused` (log): positions of lost
    messages, by their ack or their reader, that the audit found another message at. Without acknowledgements or a
    complete audit: all None.
    """
    sends = history.sends
    lost = history.fate == Fate.LOST
    count = history.count(Fate.LOST) if history.acknowledged else None
    acked = int(np.count_nonzero(sends.outcome == Outcome.ACKED))
    names = ("delivered", "lost", "lost_ppm", "lost_degraded", "read_then_lost", "offsets_reused")
    if count is None:
        return Finding(check="loss", count=None, numbers=dict.fromkeys(names))
    is_log = history.kind is Kind.LOG
    read = np.zeros(len(lost), dtype=np.bool_)
    read[history.receipts.message] = True
    messages = np.flatnonzero(lost)
    return Finding(
        check="loss",
        count=count,
        numbers={
            "delivered": history.count(Fate.DELIVERED),
            "lost": count,
            "lost_ppm": round(1e6 * count / acked, 3) if acked else None,
            "lost_degraded": history.count(Fate.LOST_DEGRADED),
            "read_then_lost": int(np.count_nonzero(lost & read)) if is_log else None,
            "offsets_reused": _offsets_reused(history, lost) if is_log else None,
            **_runs(history, messages),
            **_ages(history, messages),
        },
        examples=_examples(
            f"{history.name(m)} acked at {_position(sends.place[m], sends.offset[m])}{', was read' if read[m] else ''}"
            for m in messages
        ),
    )


def unconfirmed(history: History) -> Finding:
    """Messages whose sending ended unknown: recovered (there) or unresolved (not there); neither breaks a promise.

    Without acknowledgements every send is one, and `not_found` has those that are not there; else it is None.
    """
    recovered, unresolved = history.count(Fate.RECOVERED), history.count(Fate.UNRESOLVED)
    not_found = None if history.acknowledged else unresolved
    return Finding(
        check="unconfirmed",
        count=None if recovered is None or unresolved is None else recovered + unresolved,
        numbers={"recovered": recovered, "unresolved": unresolved, "not_found": not_found},
    )


def phantom(history: History) -> Finding:
    """Messages that were refused or returned, and yet are there."""
    messages = np.flatnonzero(history.fate == Fate.PHANTOM)
    return Finding(
        check="phantom",
        count=len(messages),
        numbers={"phantom": len(messages)},
        examples=_examples(f"{history.name(m)} {Outcome(history.sends.outcome[m]).name.lower()}" for m in messages),
    )


def strangers(history: History) -> Finding:
    """Receipts that are foreign (of a message that this cell never sent) or corrupt (the body's CRC is wrong)."""
    return Finding(
        check="strangers",
        count=history.foreign + history.corrupt,
        numbers={"foreign": history.foreign, "corrupt": history.corrupt},
        examples=history.strangers,
    )


def stored_twice(history: History) -> Finding:
    """Log: messages found at more than one (place, offset), in receipts and audit together."""
    if history.kind is not Kind.LOG:
        return Finding(check="stored-twice", count=None, numbers={"stored_twice": None})
    message, place, offset = _positions(history)
    repeated = np.flatnonzero(message[1:] == message[:-1]) + 1
    messages = np.unique(message[repeated])
    count = _seen(history, len(messages))
    return Finding(
        check="stored-twice",
        count=count,
        numbers={"stored_twice": count},
        examples=_examples(
            f"{history.name(message[r])} at {_position(place[r - 1], offset[r - 1])} and "
            f"{_position(place[r], offset[r])}"
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
        every = _joined(history, "message")
        order, new = groups(every, _joined(history, "received_ns"), by=1)
        message = every[order[~new]]
        flagged = (_joined(history, "flags")[order[~new]] & Flag.REDELIVERED) != 0
        count = _seen(history, int(np.count_nonzero(flagged)))
        unflagged = _seen(history, int(np.count_nonzero(~flagged)))
    return Finding(
        check="redelivered",
        count=None if count is None and unflagged is None else (count or 0) + (unflagged or 0),
        numbers={"redelivered": count, "redelivered_unflagged": unflagged},
        examples=_examples(
            f"{history.name(message[i])} again{'' if flagged[i] else ', without the flag'}"
            for i in np.argsort(flagged, kind="stable")  # the unflagged ones first: they are the worse
        ),
    )


def reordered(history: History) -> Finding:
    """Messages whose sequence is below the highest so far of their producer in their place.

    Log: in the audit by offset, each message at its first position. Queue: over first deliveries and drain by
    `received_ns`, in places that one consumer (and one audit reader) had to itself; None when there is no such place.
    """
    if history.kind is Kind.LOG:
        message, place, at = history.audit.message, history.audit.place, history.audit.offset
    else:
        message, place, at = (_joined(history, column) for column in ("message", "place", "received_ns"))
        shared = _shared_places(history)
        alone = ~np.isin(place, shared)
        if len(shared) and not alone.any():
            return Finding(check="reordered", count=None, numbers={"reordered": None})
        message, place, at = message[alone], place[alone], at[alone]
    order, new = groups(message, place, at, by=2)
    first = np.sort(order[new])
    message, place = message[first], place[first]
    order, new = groups(place, history.sends.producer[message], at[first], by=2)
    seq = history.sends.seq[message[order]]
    # each (place, producer) lifted above the one before it, so that one running maximum serves them all
    lifted = seq + (np.cumsum(new) - 1) * (int(seq.max(initial=0)) + 1)
    late = order[lifted < np.maximum.accumulate(lifted)] if len(lifted) else order
    count = _seen(history, len(late))
    return Finding(
        check="reordered",
        count=count,
        numbers={"reordered": count},
        examples=_examples(f"{history.name(message[i])} after a later one in place {place[i]}" for i in late),
    )


def divergence(history: History) -> Finding:
    """Log: one position with two different messages that are both there, or a message elsewhere than its ack said.

    Positions in the audit, and in receipts where the ack named that position, plus messages (acked, degraded, with an
    offset) none of whose audited positions is the acked one. A position of a lost message that another took is
    `offsets_reused`, part of the loss. Nor is it one when a consumer read a copy that was never acked there, the broker
    lost it, and the client stored the message again: Kafka's does so by itself after a power cut.
    """
    if history.kind is not Kind.LOG:
        return Finding(check="divergence", count=None, numbers={"offset_divergence": None})
    message, place, offset = _positions(history)
    both = history.there[message] & _held_or_acked(history, message, place, offset)
    message, place, offset = message[both], place[both], offset[both]
    order, new = groups(place, offset, by=2)
    second = np.flatnonzero(~new)
    positions = np.unique(np.cumsum(new)[second])
    moved, sends = _moved(history), history.sends
    count = _seen(history, len(positions) + len(moved))
    return Finding(
        check="divergence",
        count=count,
        numbers={"offset_divergence": count, "positions_with_two": len(positions), "moved_from_ack": len(moved)},
        examples=_examples(
            [
                f"{_position(place[order[i]], offset[order[i]])} held {history.name(message[order[i - 1]])} and "
                f"{history.name(message[order[i]])}"
                for i in second[:MOST_EXAMPLES]
            ]
            + [
                f"{history.name(m)}, acked at {_position(sends.place[m], sends.offset[m])}, was audited elsewhere"
                for m in moved[:MOST_EXAMPLES]
            ]
        ),
    )


def _held_or_acked(history: History, message: Ints, place: Ints, offset: Ints) -> Bools:
    """Which of these sightings the audit has too, or the message's own ack named."""
    audit, sends = history.audit, history.sends
    columns = [
        np.concatenate([mine, audits])
        for mine, audits in ((message, audit.message), (place, audit.place), (offset, audit.offset))
    ]
    held = np.zeros(len(columns[0]), dtype=np.int8)
    held[len(message) :] = 1
    order, new = groups(*columns, held, by=3)
    group = np.cumsum(new) - 1
    audited = np.zeros(int(group[-1]) + 1 if len(group) else 0, dtype=np.bool_)
    np.logical_or.at(audited, group, held[order] == 1)
    in_audit = np.zeros(len(order), dtype=np.bool_)
    in_audit[order] = audited[group]
    settled = (sends.outcome[message] == Outcome.ACKED) | (sends.outcome[message] == Outcome.DEGRADED)
    here = (sends.offset[message] == offset) & ((sends.place[message] == place) | (sends.place[message] < 0))
    seen: Bools = in_audit[: len(message)] | (settled & here)
    return seen


def _moved(history: History) -> Ints:
    """Messages that the audit holds, but never at the position that their ack named."""
    sends, audit = history.sends, history.audit
    named = ((sends.outcome == Outcome.ACKED) | (sends.outcome == Outcome.DEGRADED)) & (sends.offset >= 0)
    m = audit.message
    as_acked = (audit.offset == sends.offset[m]) & ((audit.place == sends.place[m]) | (sends.place[m] < 0))
    confirmed = np.zeros(len(named), dtype=np.bool_)
    confirmed[m[as_acked]] = True
    return np.flatnonzero(named & history.there & ~confirmed)


def _positions(history: History) -> tuple[Ints, Ints, Ints]:
    """Distinct (message, place, offset) over receipts and audit, in that order, where the offset is known."""
    message, place, offset = (_joined(history, column) for column in ("message", "place", "offset"))
    order, new = groups(message, place, offset, by=3)
    keep = order[new]
    keep = keep[offset[keep] >= 0]
    return message[keep], place[keep], offset[keep]


def _offsets_reused(history: History, lost: Bools) -> int:
    """Positions of lost messages that the audit found something else at."""
    sends, read = history.sends, history.receipts
    named = np.flatnonzero(lost & (sends.offset >= 0))
    seen = lost[read.message] & (read.offset >= 0)
    place = np.concatenate([sends.place[named], read.place[seen], history.held_place])
    offset = np.concatenate([sends.offset[named], read.offset[seen], history.held_offset])
    held = np.zeros(len(place), dtype=np.int8)
    held[len(place) - len(history.held_place) :] = 1
    order, new = groups(place, offset, held, by=2)
    last = np.append(np.flatnonzero(new)[1:] - 1, len(order) - 1) if len(order) else np.zeros(0, dtype=np.int64)
    # of each position the first row says whether a lost message claims it, the last whether the audit holds it
    return int(np.count_nonzero((held[order[new]] == 0) & (held[order[last]] == 1)))


def _runs(history: History, messages: Ints) -> dict[str, int]:
    """How many of the lost messages come before, between and after the survivors of their producer."""
    sends = history.sends
    counts = {"prefix": 0, "middle": 0, "suffix": 0}
    for producer in np.unique(sends.producer[messages]):
        lost = sends.seq[messages][sends.producer[messages] == producer]
        survivors = sends.seq[history.there & (sends.producer == producer)]
        first, last = (int(survivors.min()), int(survivors.max())) if len(survivors) else (-1, -1)
        counts["prefix"] += int(np.count_nonzero(lost < first))
        counts["suffix"] += int(np.count_nonzero(lost > last))
        counts["middle"] += int(np.count_nonzero((lost > first) & (lost < last)))
    return counts


def _ages(history: History, messages: Ints) -> dict[str, float | None]:
    """Seconds from the ack of the oldest and the newest lost message to `injected`."""
    injected = history.fault_times("injected")
    if not injected or not len(messages):
        return {"lost_age_s_max": None, "lost_age_s_min": None}
    ages = (injected[0] - history.sends.settled_ns[messages]) / NS_PER_S
    return {"lost_age_s_max": round(float(ages.max()), 3), "lost_age_s_min": round(float(ages.min()), 3)}


def _shared_places(history: History) -> Ints:
    """Places of a queue that more than one consumer, or more than one audit reader, received from."""
    shared = []
    for side in (history.receipts, history.audit):
        order, new = groups(side.place, side.actor, by=2)
        places, actors = np.unique(side.place[order[new]], return_counts=True)
        shared.append(places[actors > 1])
    return np.unique(np.concatenate(shared))


def _joined(history: History, column: str) -> Ints:
    """One column of receipts and audit together."""
    return np.concatenate([getattr(history.receipts, column), getattr(history.audit, column)])


def _seen(history: History, count: int) -> int | None:
    """A violation that was seen counts; none seen says nothing while the audit is incomplete."""
    return count if count or history.incomplete is None else None


def _position(place: Any, offset: Any) -> str:
    return f"place {place} offset {offset}"


def _examples(lines: Iterable[str]) -> tuple[str, ...]:
    """The first of them; the rest is never made."""
    return tuple(islice(lines, MOST_EXAMPLES))
