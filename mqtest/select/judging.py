"""One need held against one cell, and against all cells of a candidate. Pure.

A cell says yes, no, or nothing:
- Nothing: it is not about the need's fault; its verdict is unknown or invalid; the figure was not measured; or what it
  shows is no proof (below).
- Loss: a profile without acknowledgements never keeps anything, for nobody was told that a message was stored.
- A cluster that stayed away (`dead`) kept nothing that its clients could have, and was away for longer than was
  measured: loss and times lost are missed there, whatever the figures.
- At a rate: what holds at a higher rate holds at this one, and what fails at a lower one fails at this one. So a cell
  at a lower rate can say no and never yes. The rate of a cell is what was asked for, where as much was acknowledged;
  else what was acknowledged. The loads of a search count too, at their shares of what it found.
- A rate that was all that was asked for is no upper bound: more may have been possible, so it can say yes and never no.
- A fault that did not bite proves no survival.
Of a need: missed when one cell says no; met when one says yes and none no; else not measured.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from mqtest.fault_log import NO_FAULT
from mqtest.model import Verdict
from mqtest.report.summary import PROVE_NOTHING, Row, at_most, count, fault_of, measured, millis, verdict_of
from mqtest.select.candidates import Candidate, cell_name
from mqtest.select.needs import Need, number
from mqtest.select.words import WORDS

_LATENCY = "latency_ms_"
_LOAD = re.compile(r"load_(\d+)_(latency_ms_.*)")
_KEPT_UP = 0.95
"""of what was asked for: so much acknowledged in the steady phase counts as all of it (as in checks/sustained.py)"""
_ASKED: Mapping[str, str] = {
    "ack_rate_per_s": "rate_asked_per_s",
    "delivered_per_s": "rate_asked_per_s",
    "sustained_per_s": "search.most_per_s",
    "searched_per_s": "search.most_per_s",
}
"""a rate → the column with the most that it could come to"""


class Result(StrEnum):
    """What the cells say of a need."""

    MET = "met"
    MISSED = "missed"
    NOT_MEASURED = "not measured"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """One cell under one need."""

    row: Row
    met: bool | None
    """None: it says nothing"""
    value: float | None = None
    """the figure that decided it"""
    why: str = ""
    """where the figure does not say it: why it says nothing, or no"""

    @property
    def cell(self) -> str:
        """`run/cell`."""
        return cell_name(self.row)


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """One need of one candidate."""

    need: Need
    readings: tuple[Reading, ...]
    """of the cells that it is about, in their order"""
    wanted: int
    """cells that have to say yes"""

    @property
    def result(self) -> Result:
        """By the rule of the module."""
        if self.missing:
            return Result.MISSED
        return Result.MET if self.meeting and len(self.meeting) >= self.wanted else Result.NOT_MEASURED

    @property
    def meeting(self) -> tuple[Reading, ...]:
        """The cells that say yes."""
        return tuple(reading for reading in self.readings if reading.met)

    @property
    def missing(self) -> tuple[Reading, ...]:
        """The cells that say no: those farthest off first, those without a figure last."""
        found = [reading for reading in self.readings if reading.met is False]
        return tuple(sorted(found, key=lambda r: (r.value is None, -self._off(r), r.cell)))

    @property
    def speaking(self) -> int:
        """How many say anything."""
        return len(self.meeting) + len(self.missing)

    @property
    def bound(self) -> float | None:
        """Where none misses: at most this share of such cells does, with 95 % confidence."""
        return at_most(len(self.meeting)) if self.meeting and not self.missing else None

    @property
    def by(self) -> float | None:
        """By how much the worst cell misses; None: none misses, or none with a figure."""
        return self._off(self.missing[0]) if self.missing and self.missing[0].value is not None else None

    @property
    def range(self) -> tuple[float, float] | None:
        """The lowest and the highest figure of the cells that say yes."""
        values = [reading.value for reading in self.meeting if reading.value is not None]
        return (min(values), max(values)) if values else None

    @property
    def silent(self) -> int:
        """How many cells it is about and say nothing."""
        return len(self.readings) - self.speaking

    @property
    def silence(self) -> str:
        """Why it is not measured, in one line."""
        if not self.readings:
            under = "" if self.need.fault is None else f" under {self.need.fault}"
            return f"not measured: no cell{under}"
        if self.meeting:
            return f"not measured enough: met in {_cells(len(self.meeting))}, {self.wanted} are wanted"
        reasons = Counter(reading.why for reading in self.readings)
        return "not measured: " + "; ".join(f"{_cells(times)}: {why}" for why, times in sorted(reasons.items()))

    def _off(self, reading: Reading) -> float:
        return 0.0 if reading.value is None else abs(reading.value - self.need.bound)


def judged(need: Need, candidate: Candidate, wanted: int = 1) -> Judged:
    """The need held against every cell of the candidate that it is about."""
    readings = (reading_of(need, row) for row in candidate.rows if need.covers(fault_of(row)))
    return Judged(need=need, readings=tuple(readings), wanted=wanted)


def reading_of(need: Need, row: Row) -> Reading:
    """The need held against one cell."""
    verdict = verdict_of(row)
    if verdict in PROVE_NOTHING:
        return Reading(row=row, met=None, why=f"{verdict}: it proves nothing")
    if need.of_loss and row.get("not_found") is not None:
        missing = count(measured(row, "not_found"))
        return Reading(row=row, met=False, why=f"without acknowledgements nothing is promised ({missing} not found)")
    found = _weighed(need, row)
    stayed_away = verdict is Verdict.DEAD and (need.of_loss or need.of_time_lost)
    if stayed_away and found.met is not False:
        return Reading(row=row, met=False, why="dead: the cluster did not come back by itself")
    if found.met and need.fault not in (None, NO_FAULT) and row.get("fault_bit") is False:
        return Reading(row=row, met=None, value=found.value, why="the fault did not bite")
    return found


def missed_words(worst: Judged) -> str:
    """`missed by 110 (160), in 1 of 7 cells`: what the worst cell says, and how many say no."""
    reading = worst.missing[0]
    of = f"in {len(worst.missing)} of {_cells(worst.speaking)}"
    if reading.value is None:
        return f"missed, {reading.why}, {of}"
    word = WORDS.get(worst.need.subject)
    if word is not None:
        return f"missed, {word.missed.format(count(reading.value))}, {of}"
    value = "" if worst.need.bound == 0 else f" ({figure(reading.value)})"
    return f"missed by {figure(worst.by or 0)}{value}, {of}"


def met_words(found: Judged) -> str:
    """`met, 2.1 to 9.9, in 7 of 7 cells (missed in at most 43 %)`."""
    low, high = found.range or (0.0, 0.0)
    values = figure(low) if figure(low) == figure(high) else f"{figure(low)} to {figure(high)}"
    told = "" if found.need.op == "==" else f", {values},"
    bound = f"missed in at most {100 * (found.bound or 1):.0f} %"
    others = f", {found.silent} more say{'s' if found.silent == 1 else ''} nothing" if found.silent else ""
    return f"met{told} in {len(found.meeting)} of {_cells(found.speaking)} ({bound}){others}"


def figure(value: float) -> str:
    """`8,096`, `12.5`, `0.004`."""
    if value == int(value):
        return count(value)
    return millis(value) if abs(value) >= 1 else f"{value:.3g}"


def _weighed(need: Need, row: Row) -> Reading:
    """By the figures alone."""
    points = list(_points(need, row))
    if not points:
        return Reading(row=row, met=None, why=f"{need.subject} was not measured")
    rate, nothing = need.rate_per_s, "its rate is not known"
    met: Reading | None = None
    for value, at in points:
        holds = need.holds(value)
        if rate is not None and at is None:
            continue
        if holds and (rate is None or (at or 0) >= rate):
            met = met or Reading(row=row, met=True, value=value)
        elif holds:
            nothing = f"met at {figure(at or 0)}/s, and a lower rate proves nothing"
        elif _all_that_was_asked(need, value, row):
            nothing = "as much as was asked for, so no upper bound"
        elif rate is None or (at or 0) <= rate:
            return Reading(row=row, met=False, value=value)
        else:
            nothing = f"missed at {figure(at or 0)}/s, and a higher rate refutes nothing"
    return met or Reading(row=row, met=None, why=nothing)


def _points(need: Need, row: Row) -> Iterator[tuple[float, float | None]]:
    """What the cell measured of it, and at which rate."""
    word = WORDS.get(need.subject)
    value = word.figure(row) if word else measured(row, need.subject)
    load = _LOAD.fullmatch(need.subject)
    if value is not None:
        yield value, _share_of_search(row, int(load[1])) if load else rate_of(row)
    if need.rate_per_s is not None and need.subject.startswith(_LATENCY):
        for column in row:
            found = _LOAD.fullmatch(column)
            if found and found[2] == need.subject and (value := measured(row, column)) is not None:
                yield value, _share_of_search(row, int(found[1]))


def rate_of(row: Row) -> float | None:
    """Messages a second in the steady phase; None for a closed loop and for a search, which have none."""
    asked, acked = measured(row, "rate_asked_per_s"), measured(row, "ack_rate_per_s")
    return asked if asked is None or acked is None or acked >= _KEPT_UP * asked else acked


def _share_of_search(row: Row, percent: int) -> float | None:
    found = measured(row, "searched_per_s")
    return None if found is None else found * percent / 100


def _all_that_was_asked(need: Need, value: float, row: Row) -> bool:
    """Whether more was not even tried, where it would have been needed."""
    if need.op not in (">", ">=", "=="):
        return False
    try:
        most = float(str(row.get(_ASKED.get(need.subject, ""))))
    except ValueError:
        return False
    return value < need.bound and value >= _KEPT_UP * most


def _cells(how_many: int) -> str:
    return f"{number(how_many)} cell{'' if how_many == 1 else 's'}"


def not_proven(needs: Sequence[Need]) -> tuple[str, ...]:
    """What these needs leave open, one line for each word, `no loss` for every need about loss, and one for speed."""
    lines = {}
    for need in needs:
        name = need.subject if need.subject in WORDS else "no loss" if need.of_loss else None
        if name is not None:
            asked = f"replay of {need.span}" if need.span else str(need.subject)
            lines[name] = f"{asked}: {WORDS[name].not_proven}"
    speed = ", ".join(dict.fromkeys(need.subject for need in needs if need.of_speed))
    machines = (f"{speed}: other machines and loads than those of the cells, which stand in results.csv",)
    return (*lines.values(), *(machines if speed else ()))
