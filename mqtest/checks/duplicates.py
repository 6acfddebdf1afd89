"""Checks of duplicates: stored twice, and delivered again, by cause. Rules: __init__.py."""

from __future__ import annotations

import numpy as np

from mqtest.causes import second_copies
from mqtest.checks.sightings import examples, joined, position, positions, run_starts, seen
from mqtest.history import History
from mqtest.model import Finding, Flag, Kind, Outcome
from mqtest.tables import Bools, Ints, groups


def stored_twice(history: History) -> Finding:
    """Log: messages found at more than one (place, offset), in receipts and audit together.

    By cause, each message under one: `twice_read_copy_gone`: the audit has no more than one of its positions, the
    other was read and then lost, so the client sent it again; else `twice_after_doubt`: the client never had an answer
    (unknown), and `twice_after_ack`: it had one in the end. The notes name what lets the client store a copy.
    """
    if history.kind is not Kind.LOG:
        return Finding(check="stored-twice", count=None, numbers={"stored_twice": None})
    message, place, offset = positions(history)
    repeated = np.flatnonzero(message[1:] == message[:-1]) + 1
    messages = np.unique(message[repeated])
    count = seen(history, len(messages))
    both = _audited_positions(history)[messages] > 1
    unknown = history.sends.outcome[messages] == Outcome.UNKNOWN
    return Finding(
        check="stored-twice",
        count=count,
        numbers={
            "stored_twice": count,
            "twice_read_copy_gone": int(np.count_nonzero(~both)),
            "twice_after_doubt": int(np.count_nonzero(both & unknown)),
            "twice_after_ack": int(np.count_nonzero(both & ~unknown)),
        },
        notes=(second_copies(history.cell) or ("no setting of this client is known to allow it",)) if count else (),
        examples=examples(
            f"{history.name(message[r])} at {position(place[r - 1], offset[r - 1])} and {position(place[r], offset[r])}"
            for r in repeated
        ),
        messages=run_starts(history, messages),
    )


def redelivered(history: History) -> Finding:
    """Extra receipts of a message, by cause: with the broker's word for it, or (queue) without, a second copy.

    Queue: receipts after the first of a message, deliveries and audit together, with and without the flag. A flag on
    a first delivery is no duplicate. Log: a message read again at the same position, by consumers only. Each extra
    one, held against the receipt before it, is one of `again_after_reconnect` (another consumer, or another connection
    or assignment of the same one), `again_in_same_session`, and (queue) `again_in_audit`.
    """
    is_log = history.kind is Kind.LOG
    message, extra, again = _repeats(history)
    flags = history.receipts.flags if is_log else joined(history, "flags")
    flagged = np.ones(len(extra), dtype=np.bool_) if is_log else (flags[extra] & Flag.REDELIVERED) != 0
    count = len(extra) if is_log else seen(history, int(np.count_nonzero(flagged)))
    unflagged = None if is_log else seen(history, int(np.count_nonzero(~flagged)))
    return Finding(
        check="redelivered",
        count=None if count is None and unflagged is None else (count or 0) + (unflagged or 0),
        numbers={"redelivered": count, "redelivered_unflagged": unflagged}
        | {f"again_{how}": int(np.count_nonzero(mask)) for how, mask in again.items()},
        examples=examples(
            f"{history.name(message[extra[i]])} again{_AGAIN[next(how for how in again if again[how][i])]}"
            f"{'' if flagged[i] else ', without the flag'}"
            for i in np.argsort(flagged, kind="stable")  # the unflagged ones first: they are the worse
        ),
        messages=run_starts(history, message[extra[~flagged] if (~flagged).any() else extra]),
    )


_AGAIN = {"in_audit": " in the audit", "after_reconnect": " after a reconnect or a rebalance", "in_same_session": ""}


def _repeats(history: History) -> tuple[Ints, Ints, dict[str, Bools]]:
    """The message of each receipt, which receipts are extra ones, and how each of these came about."""
    if history.kind is Kind.LOG:
        read = history.receipts
        message, actor, epoch = read.message, read.actor, read.epoch
        audited = np.zeros(len(message), dtype=np.bool_)
        order, new = groups(message, read.place, read.offset, read.received_ns, by=3)
    else:
        message, actor, epoch = (joined(history, column) for column in ("message", "actor", "epoch"))
        audited = np.arange(len(message)) >= len(history.receipts)
        order, new = groups(message, joined(history, "received_ns"), by=1)
    later = np.flatnonzero(~new)
    extra, before = order[later], order[later - 1]
    in_audit = audited[extra]
    other = (actor[extra] != actor[before]) | (epoch[extra] != epoch[before])
    again = {"after_reconnect": ~in_audit & other, "in_same_session": ~in_audit & ~other}
    return message, extra, again if history.kind is Kind.LOG else {"in_audit": in_audit, **again}


def _audited_positions(history: History) -> Ints:
    """Of each message, at how many positions the audit holds it."""
    audit = history.audit
    order, new = groups(audit.message, audit.place, audit.offset, by=3)
    return np.bincount(audit.message[order[new]], minlength=len(history.fate))
