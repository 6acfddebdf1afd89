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
    """CPU that a client, or all nodes together, had used by then."""

    t_ns: int
    cpu_s: float


class Cpu(NamedTuple):
    """CPU over the time of a run, of either side."""

    client: Sequence[CpuSample]
    nodes: Sequence[CpuSample]


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """How much got through in how long, and what the client and the brokers needed for it."""

    messages: float
    seconds: float
    cpu_s: float | None
    nodes_cpu_s: float | None

    @property
    def rate_per_s(self) -> float:
        """Messages a second."""
        return self.messages / self.seconds

    @property
    def cpu_us(self) -> float | None:
        """CPU of the client a message, in µs."""
        return self._a_message_us(self.cpu_s)

    @property
    def nodes_us(self) -> float | None:
        """CPU of all brokers a message, in µs."""
        return self._a_message_us(self.nodes_cpu_s)

    def _a_message_us(self, cpu_s: float | None) -> float | None:
        return None if cpu_s is None or not self.messages else cpu_s / self.messages * 1e6


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """Several runs of one side. The CPU a message, of the client and of the brokers, is a median too."""

    rates_per_s: tuple[float, ...]
    cpu_us: float | None
    nodes_us: float | None

    @property
    def median(self) -> float:
        """Of the rates."""
        return median(self.rates_per_s)


def spread(figures: Sequence[Figure | None]) -> Spread | None:
    """Of those that were measured; None when none was."""
    there = [figure for figure in figures if figure is not None]
    if not there:
        return None
    return Spread(
        rates_per_s=tuple(f.rate_per_s for f in there),
        cpu_us=_median([f.cpu_us for f in there]),
        nodes_us=_median([f.nodes_us for f in there]),
    )


def _median(values: Sequence[float | None]) -> float | None:
    measured = [value for value in values if value is not None]
    return median(measured) if measured else None


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


def from_intervals(taken: Sequence[Interval], heard_ns: Sequence[int], cpu: Cpu) -> Figure | None:
    """The figure of a tool's measured intervals; `heard_ns`: when each of its lines came. None without messages."""
    messages = sum(one.messages for one in taken)
    if not messages:
        return None
    begin_ns = heard_ns[taken[0].line] - int(taken[0].seconds * NS_PER_S)
    return _figure(messages, sum(one.seconds for one in taken), cpu, begin_ns, heard_ns[taken[-1].line])


def from_times(parts: Iterable[NDArray[Any]], begin_ns: int, seconds: float, cpu: Cpu) -> Figure | None:
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
    return _figure(messages - 1, (last_ns - first_ns) / NS_PER_S, cpu, first_ns, last_ns)


def _figure(messages: float, seconds: float, cpu: Cpu, begin_ns: int, end_ns: int) -> Figure:
    return Figure(
        messages=messages,
        seconds=seconds,
        cpu_s=cpu_between(cpu.client, begin_ns, end_ns),
        nodes_cpu_s=cpu_between(cpu.nodes, begin_ns, end_ns),
    )


def cpu_between(samples: Sequence[CpuSample], begin_ns: int, end_ns: int) -> float | None:
    """CPU seconds used between two times, interpolated; None when the samples do not reach that far."""
    if not samples or samples[0].t_ns > begin_ns + _FAR_NS or samples[-1].t_ns < end_ns - _FAR_NS:
        return None
    times, used = zip(*samples, strict=True)
    at = np.interp([begin_ns, end_ns], times, used)
    return float(at[1] - at[0])
