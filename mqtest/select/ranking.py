"""The order of those that qualify, by what was measured, like with like. Pure.

A preference compares a figure of all of them where they were measured alike (the columns of `alike`: the same rate, the
same size, the same fault); of the ways in which cells were run it takes those that most of them share. Over cells of
one way it is the median, over ways the worst. Who was not measured alike comes after those who were. Without a
preference, and between equals, comes first what the most cells speak for, then the name.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from mqtest.fault_log import NO_FAULT
from mqtest.model import Verdict
from mqtest.report.summary import PROVE_NOTHING, Row, count, fault_of, measured, millis, seconds, verdict_of
from mqtest.select.candidates import Candidate
from mqtest.select.needs import number

Way = tuple[object, ...]
_SETTINGS = ("settings.broker.", "settings.topic.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Preference:
    """One of them."""

    figure: Callable[[Row], float | None]
    alike: tuple[str, ...]
    """columns that have to be the same"""
    about: str
    told: Callable[[float], str]
    highest: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """Candidates under one preference."""

    preference: str
    values: Mapping[str, float]
    """by candidate; who is not in it was not measured as the others were"""
    how: str
    """the cells were run whose figures these are: `rate_asked_per_s 1000, size_bytes 512`; empty: however they were"""

    def words(self, candidate: str) -> str:
        """`9.9 ms (rate_asked_per_s 1000, size_bytes 512)`, `18.0 s (the worst of 6 by fault; size_bytes 512)`."""
        value = self.values.get(candidate)
        if value is None:
            return "not measured as the others were" if self.values else "not measured"
        return PREFERENCES[self.preference].told(value) + (f" ({self.how})" if self.how else "")


def _column(name: str) -> Callable[[Row], float | None]:
    return lambda row: measured(row, name)


def _gap_under_a_fault(row: Row) -> float | None:
    """None without a fault, and where it never ended."""
    return None if fault_of(row) == NO_FAULT or verdict_of(row) is Verdict.DEAD else measured(row, "ack_gap_s_max")


def _parts(row: Row) -> float | None:
    """Containers, and in hundredths the settings of broker and topic: fewer containers come first."""
    containers = {name.split(".")[1] for name, value in row.items() if name.startswith("usage.") and value is not None}
    settings = sum(1 for name, value in row.items() if name.startswith(_SETTINGS) and value is not None)
    return len(containers) + min(settings, 99) / 100 if containers else None


PREFERENCES: Mapping[str, Preference] = {
    "throughput": Preference(
        figure=_column("sustained_per_s"),
        alike=("size_bytes",),
        about="the highest rate that a search found sustained (sustained_per_s), at the same size",
        told=lambda rate: f"{count(rate)} a second",
        highest=True,
    ),
    "latency": Preference(
        figure=_column("latency_ms_p99"),
        alike=("rate_asked_per_s", "size_bytes"),
        about="the lowest p99 from due to acknowledged (latency_ms_p99), at the same rate and size",
        told=lambda ms: f"{millis(ms)} ms",
    ),
    "availability": Preference(
        figure=_gap_under_a_fault,
        alike=("fault", "rate_asked_per_s", "size_bytes"),
        about="the shortest time without an acknowledgement (ack_gap_s_max), in the worst of the same faults",
        told=lambda gap: f"{seconds(gap)} s",
    ),
    "cpu": Preference(
        figure=_column("broker_cpu_us_per_message"),
        alike=("rate_asked_per_s", "size_bytes"),
        about="the least CPU of the nodes a message (broker_cpu_us_per_message), at the same rate and size",
        told=lambda us: f"{count(us)} µs",
    ),
    "simplicity": Preference(
        figure=_parts,
        alike=(),
        about="the fewest containers that ran (usage.*), then the fewest settings of broker and topic (settings.*)",
        told=lambda parts: f"{int(parts)} containers, {round(parts % 1 * 100)} settings",
    ),
}


def compare(name: str, candidates: Sequence[Candidate]) -> Compared:
    """The candidates under one preference."""
    preference = PREFERENCES[name]
    medians = {candidate.name: _medians(preference, candidate.rows) for candidate in candidates}
    shared = Counter(way for ways in medians.values() for way in ways)
    most = max(shared.values(), default=0)
    chosen = sorted((way for way, times in shared.items() if times == most), key=repr)
    worst = min if preference.highest else max
    values = {
        candidate: worst(ways[way] for way in chosen)
        for candidate, ways in medians.items()
        if chosen and all(way in ways for way in chosen)
    }
    return Compared(preference=name, values=values, how=_how(preference.alike, chosen))


def _how(alike: Sequence[str], ways: Sequence[Way]) -> str:
    """What these ways have in common, with how many they are and by what they differ."""
    seen = {column: {way[at] for way in ways} for at, column in enumerate(alike) if ways}
    differ = [column for column, values in seen.items() if len(values) > 1]
    common = [f"{column} {_text(*values)}" for column, values in seen.items() if len(values) == 1]
    worst = [f"the worst of {len(ways)} by {', '.join(differ)}"] if differ else []
    return "; ".join([*worst, *([", ".join(common)] if common else [])])


def _text(value: object) -> str:
    return number(value) if isinstance(value, int | float) else str(value or "not known")


def place(compared: Compared, candidate: str) -> float:
    """What to sort by: the best is the least."""
    value = compared.values.get(candidate)
    if value is None:
        return float("inf")
    return -value if PREFERENCES[compared.preference].highest else value


def _medians(preference: Preference, rows: Sequence[Row]) -> dict[Way, float]:
    """Of each way in which cells of a candidate were run, the median of those that prove something."""
    found: dict[Way, list[float]] = {}
    for row in rows:
        value = preference.figure(row)
        if value is not None and verdict_of(row) not in PROVE_NOTHING:
            found.setdefault(tuple(row.get(column) for column in preference.alike), []).append(value)
    return {way: statistics.median(values) for way, values in found.items()}
