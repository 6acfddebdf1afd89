"""The check of a fault's parts: what each of them cost. Rules: __init__.py."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from mqtest.checks.gaps import Span, acks_by_place, load, points
from mqtest.checks.sightings import MOST_EXAMPLES
from mqtest.clock import NS_PER_S
from mqtest.fates import Fate
from mqtest.fault_log import parts
from mqtest.history import History
from mqtest.model import Finding
from mqtest.tables import Ints


def incidents(history: History) -> Finding:
    """Parts of the fault, one line each: what was done to whom and when, the longest ack gap, and what it lost.

    A part lasts from `injected` to the first `recovered` after its `healed` event, or to the end of the load; a rolling
    restart has a line for each node's turn. The gap of a part is the longest time without an ack that began before it
    ended, counted from its begin at the earliest, in the worst place. A lost message belongs to the first part that
    ended after its ack. Of more than 20 parts the lines with the longest gaps.
    """
    span = load(history)
    seen = [] if span is None else list(_seen(history, span))
    if not seen or span is None:
        return Finding(check="incidents", count=None, numbers={"incident_gap_s_max": None})
    windows = [window for _name, window in seen]
    by_place = [points(times, span) for times in acks_by_place(history)]
    gaps = [_longest_s(by_place, window) if history.acknowledged else None for window in windows]
    lost = _lost_in(history, windows) if history.acknowledged and history.incomplete is None else None
    worst = sorted(range(len(seen)), key=lambda i: -(gaps[i] or 0))[:MOST_EXAMPLES]
    return Finding(
        check="incidents",
        count=len(seen),
        numbers={"incident_gap_s_max": max((gap for gap in gaps if gap is not None), default=None)},
        examples=tuple(
            f"{seen[i][0]} at {(windows[i][0] - span[0]) / NS_PER_S:.1f} s of the load: "
            f"{'acks not known' if gaps[i] is None else f'no ack for {gaps[i]:.1f} s'}, "
            f"{'loss not known' if lost is None else f'{lost[i]} lost'}"
            for i in sorted(worst)
        ),
    )


def _seen(history: History, span: Span) -> Iterator[tuple[str, Span]]:
    """`kill:leader (kafka-1)`, and how long it lasted."""
    for part in parts(history.events):
        if part.turns:
            yield from ((f"{part.step} ({node})", _within(turn, span)) for node, turn in part.turns.items())
        elif part.injected_ns is not None:
            recovered = (e["t_ns"] for e in history.events if e["event"] == "recovered")
            ends = [t for t in recovered if part.healed_ns is not None and t >= part.healed_ns]
            yield str(part), _within((part.injected_ns, min([*ends, span[1]])), span)


def _within(window: Sequence[int], span: Span) -> Span:
    """Not beyond the end of the load, nor before its own begin."""
    return window[0], max(window[0], min(window[1], span[1]))


def _longest_s(by_place: Sequence[Ints], window: Span) -> float:
    """The longest gap between acks that began before the window's end, counted from its begin, in the worst place."""
    longest = 0
    for ends in by_place:
        mine = (ends[1:] > window[0]) & (ends[:-1] < window[1])
        gaps = ends[1:][mine] - np.maximum(ends[:-1][mine], window[0])
        longest = max(longest, int(gaps.max(initial=0)))
    return round(longest / NS_PER_S, 3)


def _lost_in(history: History, windows: list[Span]) -> list[int]:
    """How many lost messages belong to each of these windows, which lie in the order of their begins."""
    acks: Ints = history.sends.settled_ns[history.fate == Fate.LOST]
    ends = np.maximum.accumulate(np.array([end for _, end in windows], dtype=np.int64))
    owner = np.minimum(np.searchsorted(ends, acks, side="right"), len(windows) - 1)
    return [int(n) for n in np.bincount(owner, minlength=len(windows))]
