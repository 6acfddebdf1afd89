"""The check of loss: which acked messages are gone, how old they were, and where they went. Rules: __init__.py."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from mqtest.causes import flush_interval
from mqtest.checks.sightings import examples, position, run_starts
from mqtest.clock import NS_PER_S
from mqtest.fates import Fate, outcomes
from mqtest.history import History
from mqtest.model import Finding, Kind, Outcome
from mqtest.tables import Bools, Ints, groups


def loss(history: History) -> Finding:
    """Acked messages that are not there, with what was lost of each producer's run, how old it was, where it went.

    prefix, middle, suffix: before, between, after the producer's first and last survivor (suffix too when none
    survived). `lost_age_s_max`: seconds from the ack of the oldest lost message to the next `injected` (the RPO);
    negative: acked after the last one. `flush_interval_s`: what the settings allow it to be. `read_then_lost` (log): a
    consumer had read it. `offsets_reused` (log): positions of lost messages, by their ack or their reader, that the
    audit found another message at. Each lost message of a log is one of `lost_cut_off` (another one is at its
    position), `lost_beyond_end`, `lost_in_hole` (the log goes on behind it), `lost_unplaced` (nobody named a position).
    `lost_on_disk`: those that still lie whole in a file of some node; None where the disks were not searched, or show
    nothing of this cell. Without acknowledgements or a complete audit: all None.
    """
    sends = history.sends
    lost = history.fate == Fate.LOST
    count = history.count(Fate.LOST) if history.acknowledged else None
    acked = history.total(outcomes() == Outcome.ACKED)
    if count is None:
        names = ("delivered", "lost", "lost_ppm", "lost_degraded", "read_then_lost", "offsets_reused", "lost_on_disk")
        return Finding(check="loss", count=None, numbers=dict.fromkeys(names))
    is_log = history.kind is Kind.LOG
    read = np.zeros(len(lost), dtype=np.bool_)
    read[history.receipts.message] = True
    messages = np.flatnonzero(lost)
    ages, went = _ages(history, messages), _whereabouts(history, messages) if is_log else {}
    disks = _on_disks(history, messages)
    kept = np.logical_or.reduce([*disks.values()], initial=False) if disks else None
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
            "lost_on_disk": None if kept is None else int(np.count_nonzero(kept)),
            **_runs(history, messages),
            **ages,
            **{f"lost_{where}": int(np.count_nonzero(mask)) for where, mask in went.items()},
        },
        notes=(*_span_note(history, ages), *_disk_notes(disks)),
        examples=examples(
            f"{history.name(m)} acked at {position(sends.place[m], sends.offset[m])}"
            + "".join(f", {_WENT[where]}" for where, mask in went.items() if mask[i] and where in _WENT)
            + (", was read" if read[m] else "")
            for i, m in enumerate(messages)
        ),
        messages=run_starts(history, messages),
    )


_WENT: Mapping[str, str] = {
    "cut_off": "where another one is now",
    "beyond_end": "beyond the end of the log",
    "in_hole": "where nothing is now",
}


def _whereabouts(history: History, messages: Ints) -> dict[str, Bools]:
    """For each way to be lost, which of these messages went it; by the acked position, else a reader's."""
    sends, read = history.sends, history.receipts
    place, offset = sends.place.astype(np.int64), sends.offset.copy()
    unnamed = (offset[read.message] < 0) & (read.offset >= 0)
    offset[read.message[unnamed]], place[read.message[unnamed]] = read.offset[unnamed], read.place[unnamed]
    place, offset = place[messages], offset[messages]
    unplaced = (offset < 0) | (place < 0)
    held = _held(history, place, offset) & ~unplaced
    ends = np.full(len(messages), -1, dtype=np.int64)
    for p in np.unique(history.held_place):
        ends[place == p] = history.held_offset[history.held_place == p].max()
    beyond = ~unplaced & ~held & (offset > ends)
    return {
        "cut_off": held,
        "beyond_end": beyond,
        "in_hole": ~unplaced & ~held & ~beyond,
        "unplaced": unplaced,
    }


def _held(history: History, place: Ints, offset: Ints) -> Bools:
    """At which of these positions the audit holds a message."""
    held = np.zeros(len(place), dtype=np.bool_)
    for p in np.unique(place):
        mine = place == p
        held[mine] = np.isin(offset[mine], history.held_offset[history.held_place == p])
    return held


def _offsets_reused(history: History, lost: Bools) -> int:
    """Positions of lost messages that the audit found something else at."""
    sends, read = history.sends, history.receipts
    named = np.flatnonzero(lost & (sends.offset >= 0))
    seen = lost[read.message] & (read.offset >= 0)
    place = np.concatenate([sends.place[named], read.place[seen]])
    offset = np.concatenate([sends.offset[named], read.offset[seen]])
    order, new = groups(place, offset, by=2)
    distinct = order[new]
    return int(np.count_nonzero(_held(history, place[distinct], offset[distinct])))


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
    """Seconds from the ack of the oldest and the newest lost message to the next `injected`, else to the last one."""
    interval = flush_interval(history.cell)
    numbers: dict[str, float | None] = {
        "lost_age_s_max": None,
        "lost_age_s_min": None,
        "flush_interval_s": interval.seconds if interval else None,
    }
    injected = np.sort(np.array(history.fault_times("injected"), dtype=np.int64))
    if len(injected) and len(messages):
        acks = history.sends.settled_ns[messages]
        following = np.minimum(np.searchsorted(injected, acks), len(injected) - 1)
        ages = (injected[following] - acks) / NS_PER_S
        numbers |= {"lost_age_s_max": round(float(ages.max()), 3), "lost_age_s_min": round(float(ages.min()), 3)}
    return numbers


def _span_note(history: History, ages: Mapping[str, float | None]) -> tuple[str, ...]:
    """Whether the age of the oldest lost message is what the flush settings allow."""
    oldest_s, interval = ages["lost_age_s_max"], flush_interval(history.cell)
    if oldest_s is None:
        return ()
    if oldest_s <= 0:
        return (f"all lost messages were acked after the fault, the first {abs(oldest_s):g} s after it",)
    span = f"the oldest lost message was acked {oldest_s:g} s before the fault"
    if interval is None:
        return (f"{span}; the settings name no flush interval, so the operating system decides when it writes",)
    if oldest_s <= interval.seconds:
        return (f"{span}, within the flush interval of {interval.seconds:g} s ({interval.said_by})",)
    return (f"{span}, longer than the flush interval of {interval.seconds:g} s ({interval.said_by}) explains",)


def _on_disks(history: History, messages: Ints) -> dict[str, Bools]:
    """Which of these messages lie in files of each node that was searched and shows any message of this cell."""
    searched = [e["nodes"] for e in history.events if e["event"] == "on disk"]
    producer, seq = history.sends.producer[messages], history.sends.seq[messages]
    found = {}
    for node, producers in (searched[0] if searched else {}).items():
        if producers:
            found[node] = np.zeros(len(messages), dtype=np.bool_)
        for number, runs in producers.items():
            first, last = np.array(runs, dtype=np.int64).T
            mine = np.flatnonzero(producer == int(number))
            which = np.searchsorted(first, seq[mine], side="right") - 1
            found[node][mine] = (which >= 0) & (seq[mine] <= last[which])
    return found


def _disk_notes(disks: Mapping[str, Bools]) -> tuple[str, ...]:
    """`120 of them still lie in files of kafka-1`."""
    held = {node: int(np.count_nonzero(mask)) for node, mask in disks.items()}
    if disks and not any(held.values()):
        return (f"none of them lies in a file of {' or '.join(disks)} any more",)
    return tuple(f"{number} of them still lie in files of {node}" for node, number in held.items() if number)
