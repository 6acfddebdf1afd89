"""What one run of one side came to, and how several are put together. Pure functions.

Times are CLOCK_MONOTONIC in ns, durations in s. None: not measured.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mqtest.clock import NS_PER_S

_LATE_S = 0.2
"""a report that a tool gives so much before its second is full still counts as full"""
_FAR_NS = NS_PER_S
"""CPU samples that begin later, or end earlier, than a time by more than this say nothing about it"""


class Interval(NamedTuple):
    """A stretch of time for which a tool told how much got through."""

    line: int
    """number of the line that tells it, from 0"""
    begin_s: float
    """since the tool began to count"""
    seconds: float
    messages: float


class CpuSample(NamedTuple):
    """CPU that a client had used by then."""

    t_ns: int
    cpu_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """How much got through in how long, and what the client needed for it."""

    messages: float
    seconds: float
    cpu_s: float | None

    @property
    def rate_per_s(self) -> float:
        """Messages a second."""
        return self.messages / self.seconds

    @property
    def cpu_us(self) -> float | None:
        """CPU of the client a message, in µs."""
        return None if self.cpu_s is None or not self.messages else self.cpu_s / self.messages * 1e6


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """Several runs of one side. `cpu_us` is a median too."""

    rates_per_s: tuple[float, ...]
    cpu_us: float | None

    @property
    def median(self) -> float:
        """Of the rates."""
        return median(self.rates_per_s)


def spread(figures: Sequence[Figure | None]) -> Spread | None:
    """Of those that were measured; None when none was."""
    there = [figure for figure in figures if figure is not None]
    if not there:
        return None
    cpu = [figure.cpu_us for figure in there if figure.cpu_us is not None]
    return Spread(rates_per_s=tuple(f.rate_per_s for f in there), cpu_us=median(cpu) if cpu else None)


def ratio(ours: Spread | None, theirs: Spread | None) -> float | None:
    """Median by median."""
    return None if ours is None or theirs is None or not theirs.median else ours.median / theirs.median


def measured(intervals: Sequence[Interval], warm_up_s: float, seconds: float) -> Sequence[Interval]:
    """Those after the warm-up, as many as the asked seconds need; fewer where the tool told of no more."""
    taken: list[Interval] = []
    for interval in intervals:
        if sum(one.seconds for one in taken) >= seconds - _LATE_S:
            break
        if interval.begin_s >= warm_up_s - _LATE_S and interval.seconds > 0:
            taken.append(interval)
    return taken


def from_intervals(taken: Sequence[Interval], heard_ns: Sequence[int], samples: Sequence[CpuSample]) -> Figure | None:
    """The figure of a tool's measured intervals; `heard_ns`: when each of its lines came. None without messages."""
    messages = sum(one.messages for one in taken)
    if not messages:
        return None
    begin_ns = heard_ns[taken[0].line] - int(taken[0].seconds * NS_PER_S)
    cpu_s = cpu_between(samples, begin_ns, heard_ns[taken[-1].line])
    return Figure(messages=messages, seconds=sum(one.seconds for one in taken), cpu_s=cpu_s)


def from_times(
    parts: Iterable[NDArray[Any]], begin_ns: int, seconds: float, samples: Sequence[CpuSample]
) -> Figure | None:
    """The figure of acknowledgements, or receipts, from the first to the last of those within the seconds from
    `begin_ns` on. Their times come in parts, in any order. The first one is the beginning, and not counted. None when
    they are fewer than two."""
    messages, ends = 0, []
    for times_ns in parts:
        within = times_ns[(times_ns >= begin_ns) & (times_ns < begin_ns + int(seconds * NS_PER_S))]
        if len(within):
            messages += len(within)
            ends += [int(within.min()), int(within.max())]
    if messages < 2 or min(ends) == max(ends):
        return None
    first_ns, last_ns = min(ends), max(ends)
    cpu_s = cpu_between(samples, first_ns, last_ns)
    return Figure(messages=messages - 1, seconds=(last_ns - first_ns) / NS_PER_S, cpu_s=cpu_s)


def cpu_between(samples: Sequence[CpuSample], begin_ns: int, end_ns: int) -> float | None:
    """CPU seconds used between two times, interpolated; None when the samples do not reach that far."""
    if not samples or samples[0].t_ns > begin_ns + _FAR_NS or samples[-1].t_ns < end_ns - _FAR_NS:
        return None
    times, used = zip(*samples, strict=True)
    at = np.interp([begin_ns, end_ns], times, used)
    return float(at[1] - at[0])
