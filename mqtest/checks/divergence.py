"""The check of positions: two messages at one, or a message elsewhere than its ack said. Rules: __init__.py."""

from __future__ import annotations

import numpy as np

from mqtest.checks.sightings import MOST_EXAMPLES, examples, position, positions, run_starts, seen
from mqtest.history import History
from mqtest.model import Finding, Kind, Outcome
from mqtest.tables import Bools, Ints, groups


def divergence(history: History) -> Finding:
    """Log: one position with two different messages that are both there, or a message elsewhere than its ack said.

    Positions in the audit, and in receipts where the ack named that position, plus messages (acked, degraded, with an
    offset) none of whose audited positions is the acked one. A position of a lost message that another took is
    `offsets_reused`, part of the loss. Nor is it one when a consumer read a copy that was never acked there, the broker
    lost it, and the client stored the message again: Kafka's does so by itself after a power cut.
    """
    if history.kind is not Kind.LOG:
        return Finding(check="divergence", count=None, numbers={"offset_divergence": None})
    message, place, offset = positions(history)
    both = history.there[message] & _held_or_acked(history, message, place, offset)
    message, place, offset = message[both], place[both], offset[both]
    order, new = groups(place, offset, by=2)
    second = np.flatnonzero(~new)
    doubled = np.unique(np.cumsum(new)[second])
    moved, sends = _moved(history), history.sends
    count = seen(history, len(doubled) + len(moved))
    return Finding(
        check="divergence",
        count=count,
        numbers={"offset_divergence": count, "positions_with_two": len(doubled), "moved_from_ack": len(moved)},
        examples=examples(
            [
                f"{position(place[order[i]], offset[order[i]])} held {history.name(message[order[i - 1]])} and "
                f"{history.name(message[order[i]])}"
                for i in second[:MOST_EXAMPLES]
            ]
            + [
                f"{history.name(m)}, acked at {position(sends.place[m], sends.offset[m])}, was audited elsewhere"
                for m in moved[:MOST_EXAMPLES]
            ]
        ),
        messages=run_starts(history, np.concatenate([message[order[second]], moved])),
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
