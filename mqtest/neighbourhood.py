"""A message with its neighbours: what became of those sent just before and after it, and what happened around it.

Plain data for the report. Times are seconds from the first injected part of the fault, without a fault from the begin
of the load; what has no time is None.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mqtest.clock import NS_PER_S
from mqtest.fates import Fate
from mqtest.history import History
from mqtest.model import Outcome

EACH_SIDE = 3
"""neighbours, in the producer's sequence"""
AROUND_S = 2.0
"""events so long before and after"""
_MOST_EVENTS = 20
_UNSAID = ("t_ns", "event", "evidence", "detail")


@dataclass(frozen=True, slots=True, kw_only=True)
class Neighbour:
    """One message of the neighbourhood."""

    producer: int
    seq: int
    concerned: bool
    """whether it is the one that the neighbourhood is about"""
    outcome: str
    """`acked`, `unknown`, …; `skipped` when it was never sent"""
    fate: str
    """`delivered`, `lost`, …; `open` where it cannot be told"""
    place: int
    """-1: not known, likewise `offset`: the position that the ack named"""
    offset: int
    sent_s: float | None
    settled_s: float | None
    received_s: float | None
    """first delivery to a consumer"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Neighbourhood:
    """One message, its neighbours in order, and the events around its sending, its settling and its first delivery."""

    since: str
    """what the times count from: `fault` or `load`"""
    neighbours: tuple[Neighbour, ...]
    events: tuple[tuple[float, str], ...]
    """seconds, and the event in one line"""


def neighbourhoods(history: History, messages: Sequence[tuple[int, int]]) -> tuple[Neighbourhood, ...]:
    """One for each of these messages, by producer and seq, as a finding names them."""
    return tuple(_neighbourhood(history, producer, seq) for producer, seq in messages)


def _neighbourhood(history: History, producer: int, seq: int) -> Neighbourhood:
    sends, origin = history.sends, history.first_injected
    since = "load" if origin is None else "fault"
    begin = (history.time_of("warm-up") or 0) if origin is None else origin
    mine = (sends.producer == producer) & (np.abs(sends.seq - seq) <= EACH_SIDE)
    neighbours = tuple(_neighbour(history, int(m), begin, seq) for m in np.flatnonzero(mine))
    about = next(n for n in neighbours if n.concerned)
    times = [t for t in (about.sent_s, about.settled_s, about.received_s) if t is not None]
    return Neighbourhood(
        since=since, neighbours=neighbours, events=tuple(_events(history, begin, times))[:_MOST_EVENTS]
    )


def _neighbour(history: History, message: int, begin: int, about: int) -> Neighbour:
    sends, read = history.sends, history.receipts
    received = read.received_ns[read.message == message]
    outcome, seq = Outcome(sends.outcome[message]), int(sends.seq[message])
    return Neighbour(
        producer=int(sends.producer[message]),
        seq=seq,
        concerned=seq == about,
        outcome="skipped" if outcome is Outcome.NONE else outcome.name.lower(),
        fate=Fate(history.fate[message]).name.lower().replace("_", "-"),
        place=int(sends.place[message]),
        offset=int(sends.offset[message]) if sends.settled_ns[message] else -1,
        sent_s=_seconds(int(sends.sent_ns[message]), begin),
        settled_s=_seconds(int(sends.settled_ns[message]), begin),
        received_s=_seconds(int(received.min(initial=2**63 - 1)) if len(received) else 0, begin),
    )


def _seconds(t_ns: int, begin: int) -> float | None:
    return round((t_ns - begin) / NS_PER_S, 3) if t_ns else None


def _events(history: History, begin: int, times: Sequence[float]) -> Iterator[tuple[float, str]]:
    for event in sorted(history.events, key=lambda e: int(e["t_ns"])):
        at = (event["t_ns"] - begin) / NS_PER_S
        if any(abs(at - t) <= AROUND_S for t in times):
            yield round(at, 3), _in_words(event)


def _in_words(event: Mapping[str, Any]) -> str:
    """`fault: part 0, step injected, action kill, target kafka-1`; evidence and detail are left out."""
    said = [f"{key} {_value(value)}" for key, value in event.items() if key not in _UNSAID]
    return " ".join(f"{event['event']}{': ' if said else ''}{', '.join(said)}".split())


def _value(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)
