"""Checks of what the client said, and of what can never be: phantoms, foreign, corrupt messages. Rules: __init__.py."""

from __future__ import annotations

import numpy as np

from mqtest.checks.sightings import examples, run_starts
from mqtest.fates import Fate
from mqtest.fates import outcomes as outcome_of_states
from mqtest.history import History
from mqtest.model import Finding, Outcome


def outcomes(history: History) -> Finding:
    """What the client said of each attempted message; skipped ones were never sent."""
    said = {o: history.total(outcome_of_states() == o) for o in Outcome if o is not Outcome.NONE}
    sent = sum(said.values())
    promised = history.acknowledged
    return Finding(
        check="outcomes",
        count=sent,
        numbers={
            "sent": sent,
            "skipped": history.messages.skipped,
            "acked": said[Outcome.ACKED] if promised else None,
            "degraded": said[Outcome.DEGRADED] if promised else None,
            "refused": said[Outcome.REFUSED],
            "returned": said[Outcome.RETURNED],
            "unknown": said[Outcome.UNKNOWN],
        },
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
        examples=examples(f"{history.name(m)} {Outcome(history.sends.outcome[m]).name.lower()}" for m in messages),
        messages=run_starts(history, messages),
    )


def strangers(history: History) -> Finding:
    """Receipts that are foreign (of a message that this cell never sent) or corrupt (the body's CRC is wrong)."""
    return Finding(
        check="strangers",
        count=history.foreign + history.corrupt,
        numbers={"foreign": history.foreign, "corrupt": history.corrupt},
        examples=history.strangers,
    )
