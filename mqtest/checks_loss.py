"""The check of loss: which acked messages are gone, how old they were, and where they went. See checks.py."""

from __future__ import annotations

import numpy as np

from mqtest.clock import NS_PER_S
from mqtest.history import Bools, Fate, History, Ints, groups
from mqtest.model import Finding, Kind, Outcome
from mqtest.sightings import examples, position


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
        examples=examples(
            f"{history.name(m)} acked at {position(sends.place[m], sends.offset[m])}{', was read' if read[m] else ''}"
            for m in messages
        ),
    )


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
