"""Two runs, or a committed baseline and a run → what got worse, what got better, and what cannot be told.

Cells of one profile (with what was varied of it) under one fault are a group, its repeats taken together, also over
several folders or runs of one side; groups of the same name are held against each other. Rules:
- Cells that are unknown or invalid prove nothing: they are left out of every comparison, and told.
- Verdict: from good to bad kept, lost-as-documented, dead, broken. A group got worse when the worst of its cells did.
- An anomaly class is a column that is not 0 in some cell of NEW and in none of OLD, where OLD looked. One cell is
  enough, whatever the number of repeats: that it can happen is no matter of noise. How much of it there was is not
  compared. It is worse, unless the promise allows it (redelivery, disorder) or no promise is about it (`_TOLD`): then
  it is told.
- A figure of unavailability, or a p99, is worse when it is beyond the noise of the repeats; what that means stands in
  compare_figures.py. With fewer than three repeats on either side none ever is.
- Versions and settings, asked or read back, that differ between groups of one name: a line each, whatever it is about.
- Groups on one side alone are told. One that is broken or dead and has nothing to be held against, one that proved
  something in OLD and proves nothing in NEW or is not there, and a planned cell of NEW that did not finish could not be
  compared. A part is compared on purpose with `--only`.
Exit code: 1 when something is worse or differs, else 2 when something, or all, could not be compared, else 0.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from mqtest.errors import UsageError
from mqtest.fault_log import NO_FAULT
from mqtest.model import Verdict
from mqtest.only import meant
from mqtest.report.bare import gather
from mqtest.report.collect import JudgedCell
from mqtest.report.compare_figures import moves, texts
from mqtest.report.csv_table import csv_text, read_table, rows_of
from mqtest.report.summary import (
    PROVE_NOTHING,
    WORST_FIRST,
    Group,
    Row,
    count,
    fault_of,
    groups,
    measured,
    verdict_of,
    verdict_words,
)
from mqtest.report.surprises import replay
from mqtest.verdict import GUARANTEES, named_in

_ALWAYS_WORSE = (*GUARANTEES["loss"], *GUARANTEES["outputs"], "skipped_by_consumer", "committed_beyond_end")
_TOLD = ("lost_degraded", "unaccounted")
"""no promise is about them; the counts of a broker may lag"""
_CLASSES = tuple(dict.fromkeys([*(c for columns in GUARANTEES.values() for c in columns), *_ALWAYS_WORSE, *_TOLD]))
_ASKED = ("settings.",)
"""not being there is a value, too"""
_SETTINGS = ("effective.", "versions.", "workload.", "phases.", "search.")
_ALSO = ("client", "kind", "nodes", "rate_asked_per_s", "size_bytes", "fs")
_TOLD_FACTS = ("host.", "image.origin", "image.tag")


class Weight(StrEnum):
    """What a line is, the gravest first."""

    WORSE = "worse"
    DIFFERS = "differs"
    NOT_COMPARED = "not compared"
    BETTER = "better"
    NOTE = "note"


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One line of the comparison."""

    weight: Weight
    where: str
    """the group, as `broker/profile under fault`; the profiles that a setting is of; empty: about a whole run"""
    what: str
    column: str = ""
    """of results.csv, where it is about one"""
    rows: tuple[Row, ...] = ()
    """of NEW, the cells that show it"""
    replay: str | None = None
    """the command that runs the first of them again, where something is worse and NEW is a run"""

    @property
    def line(self) -> str:
        """Without its weight."""
        return f"{self.where}: {self.what}" if self.where else self.what


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One of the two."""

    name: str
    rows: tuple[Row, ...]
    """as results.csv has them"""
    cells: tuple[JudgedCell, ...] = ()
    """one for each row; none of a results.csv by its own name"""
    runs: tuple[Mapping[str, Any], ...] = ()
    unfinished: tuple[str, ...] = ()

    def behind(self, rows: Iterable[Row]) -> list[JudgedCell]:
        """The cells of these rows, in the side's order."""
        wanted = {id(row) for row in rows}
        return [cell for row, cell in zip(self.rows, self.cells, strict=False) if id(row) in wanted]


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What came of it."""

    old: str
    new: str
    changes: tuple[Change, ...]
    """the gravest first"""
    compared: int
    """groups that prove something on both sides"""

    @property
    def exit_code(self) -> int:
        """See the module's rules."""
        weights = {change.weight for change in self.changes}
        if weights & {Weight.WORSE, Weight.DIFFERS}:
            return 1
        return 2 if Weight.NOT_COMPARED in weights or not self.compared else 0

    def of(self, weight: Weight) -> tuple[Change, ...]:
        """The lines of one weight."""
        return tuple(change for change in self.changes if change.weight is weight)


def read(paths: Sequence[Path]) -> Side:
    """A results.csv, or the folders of a run (shards are taken together), whose cells are judged anew where their
    ledgers are there. Raises UsageError."""
    name = " ".join(map(str, paths))
    if len(paths) == 1 and paths[0].is_file():
        return Side(name=name, rows=tuple(read_table(paths[0])))
    found = gather(paths)
    return Side(
        name=name,
        rows=tuple(rows_of(csv_text(found.cells), name)),  # what a file of it would say
        cells=found.cells,
        runs=found.runs,
        unfinished=found.unfinished,
    )


def narrowed(old: Side, new: Side, only: Sequence[str]) -> tuple[Side, Side]:
    """The two with no more than the cells that these globs mean (only.py). Of a cell that did not finish no more than
    the id is known: a repeat of it tells its profile and fault, and where there is none it stays. Raises UsageError
    when neither has such a cell."""
    names = {_without_repeat(str(row["cell"])): _name(row) for side in (old, new) for row in side.rows}
    sides = (_narrowed(old, only, names), _narrowed(new, only, names))
    if not any(side.rows or side.unfinished for side in sides):
        raise UsageError(f"--only {' '.join(only)}: no cell of OLD or NEW matches")
    return sides


def _narrowed(side: Side, only: Sequence[str], names: Mapping[str, str]) -> Side:
    rows = tuple(row for row in side.rows if meant(only, _name(row), str(row["cell"])))
    open_ones = ((cell, names.get(_without_repeat(cell))) for cell in side.unfinished)
    return replace(
        side,
        rows=rows,
        cells=tuple(side.behind(rows)),
        unfinished=tuple(cell for cell, name in open_ones if name is None or meant(only, name, cell)),
    )


def _name(row: Row) -> str:
    return f"{row['broker']}/{row['profile']}/{fault_of(row)}"


def _without_repeat(cell: str) -> str:
    """The id of a cell without its number in the plan and that of its repeat."""
    return re.sub(r"^\d+-|-\d+$", "", cell)


def compare(old: Side, new: Side, *, allow_differences: bool = False) -> Comparison:
    """See the module's rules. `allow_differences`: versions and settings that differ are told, and no more."""
    before = {(group.profile, group.fault): group for group in groups(old.rows)}
    after = {(group.profile, group.fault): group for group in groups(new.rows)}
    both = [(before[key], group) for key, group in after.items() if key in before]
    pairs = [(a, b) for a, b in both if _proven(a) and _proven(b)]
    changes = [change for a, b in pairs for change in (*_verdicts(a, b), *_anomalies(a, b), *_figures(a, b))]
    changes += _differing(both, Weight.NOTE if allow_differences else Weight.DIFFERS)
    changes += _without_proof(both)
    changes += _alone(before, after)
    changes += [_not_compared(f"{cell} was planned, and did not finish") for cell in new.unfinished]
    if not both:
        changes.append(_not_compared("the two have no profile and fault in common"))
    order = list(Weight)
    return Comparison(
        old=old.name,
        new=new.name,
        changes=tuple(_replayed(c, new) for c in sorted(changes, key=lambda change: order.index(change.weight))),
        compared=len(pairs),
    )


def failing(comparison: Comparison, new: Side) -> list[JudgedCell]:
    """The cells of NEW that a person will want to look into: those behind what is worse, and those that are broken or
    dead, or prove nothing."""
    bad = (Verdict.BROKEN, Verdict.DEAD, *PROVE_NOTHING)
    rows = [row for change in comparison.of(Weight.WORSE) for row in change.rows]
    return new.behind([*rows, *(row for row in new.rows if verdict_of(row) in bad)])


def _replayed(change: Change, new: Side) -> Change:
    cells = new.behind(change.rows[:1]) if change.weight is Weight.WORSE else []
    return replace(change, replay=replay(cells[0], new.runs)) if cells else change


def _proven(group: Group) -> list[Row]:
    return [row for row in group.rows if verdict_of(row) not in PROVE_NOTHING]


def _change(group: Group, weight: Weight, what: str, column: str, rows: Iterable[Row]) -> Change:
    return Change(weight=weight, where=_where(group), what=what, column=column, rows=tuple(rows))


def _not_compared(what: str, where: str = "") -> Change:
    return Change(weight=Weight.NOT_COMPARED, where=where, what=what)


def _where(group: Group) -> str:
    return f"{group.profile} " + ("without a fault" if group.fault == NO_FAULT else f"under {group.fault}")


# --- verdicts and anomalies


def _verdicts(old: Group, new: Group) -> Iterator[Change]:
    was, now = _worst(old), _worst(new)
    if was is now:
        return
    weight = Weight.WORSE if WORST_FIRST.index(now) < WORST_FIRST.index(was) else Weight.BETTER
    rows = [row for row in new.rows if verdict_of(row) is now]
    what = f"verdict {_verdicts_of(old)} → {_verdicts_of(new)} ({_reason(rows[0])})"
    yield _change(new, weight, what, "verdict", rows)


def _reason(row: Row) -> str:
    return str(row["reason"] or "no reason given")


def _worst(group: Group) -> Verdict:
    return replace(group, rows=tuple(_proven(group))).verdict


def _verdicts_of(group: Group) -> str:
    """`kept`, of several cells `kept ×3`."""
    words = verdict_words(group)
    return words if len(group.rows) == 1 or "×" in words else f"{words} ×{len(group.rows)}"


def _anomalies(old: Group, new: Group) -> Iterator[Change]:
    for column in _CLASSES:
        looked = [row for row in _proven(old) if measured(row, column) is not None]
        had = [row for row in old.rows if measured(row, column)]
        has = [row for row in new.rows if measured(row, column)]
        proven = [row for row in has if verdict_of(row) not in PROVE_NOTHING]
        words = column.replace("_", " ")
        if has and not had:
            yield _anomaly(new, column, looked, has, proven)
        elif had and not has and (clean := [r for r in _proven(new) if measured(r, column) == 0]):
            what = f"{words}: in {len(had)} of {len(old.rows)} cells before, in none of {len(clean)} now"
            yield _change(new, Weight.BETTER, what, column, clean)


def _anomaly(new: Group, column: str, looked: Sequence[Row], has: Sequence[Row], proven: Sequence[Row]) -> Change:
    """Of a class that OLD has nothing of; `looked`: the cells of OLD that could have had it."""
    most = count(max(abs(measured(row, column) or 0) for row in has))
    breaking = [row for row in proven if named_in(str(row["reason"]), column, row[column])]
    cells = f"in {len(has)} of {len(new.rows)} cells (most {most})"
    before = f"in none of {len(looked)} before" if looked else "not looked for before"
    if breaking:
        weight, why = Weight.WORSE, "it breaks the promise"
    elif not proven:
        weight, why = Weight.NOTE, "in a cell that proves nothing"
    elif column in _ALWAYS_WORSE:
        weight, why = Weight.WORSE if looked else Weight.NOTE, "nothing was promised about it"
    else:
        weight, why = Weight.NOTE, "no promise is about it" if column in _TOLD else "the promise allows it"
    what = f"new anomaly: {column.replace('_', ' ')} {cells}, {before}; {why}"
    return _change(new, weight, what, column, breaking or has)


def _figures(old: Group, new: Group) -> Iterator[Change]:
    for move in moves(_proven(old), _proven(new), by_name=new.fault != NO_FAULT and ":" not in new.fault):
        weight = Weight.NOTE if move.doubt else Weight.WORSE if move.worse else Weight.BETTER
        rows = [row for row in _proven(new) if measured(row, move.column) is not None]
        yield _change(new, weight, move.words, move.column, rows)


# --- what differs, what is missing


def _differing(both: Sequence[tuple[Group, Group]], weight: Weight) -> Iterator[Change]:
    """A line for each setting and its two values, with the profiles concerned."""
    found: dict[tuple[str, str, str], list[Group]] = {}
    columns = dict.fromkeys(column for pair in both for group in pair for row in group.rows for column in row)
    for column in columns:
        asked = column.startswith(_ASKED)
        if not (asked or column.startswith((*_SETTINGS, *_TOLD_FACTS)) or column in _ALSO):
            continue
        for old, new in both:
            before, after = texts(old.rows, column), texts(new.rows, column)
            if before != after and (asked or (before and after)):
                found.setdefault((column, _listed(before), _listed(after)), []).append(new)
    for (column, was, now), those in found.items():
        profiles = list(dict.fromkeys(group.profile for group in those))
        more = f" and {len(profiles) - 3} more" if len(profiles) > 3 else ""
        yield Change(
            weight=Weight.NOTE if column.startswith(_TOLD_FACTS) else weight,
            where=", ".join(profiles[:3]) + more,
            what=f"{column}: {was} → {now}",
            column=column,
        )


def _listed(values: Iterable[str]) -> str:
    return " or ".join(sorted(values)) or "(nothing)"


def _without_proof(both: Sequence[tuple[Group, Group]]) -> Iterator[Change]:
    """Of the groups on both sides: what their cells that prove nothing leave open."""
    for old, new in both:
        blind = [row for row in new.rows if verdict_of(row) in PROVE_NOTHING]
        reason = f" ({_reason(blind[0])})" if blind else ""
        why = f"{len(blind)} of {len(new.rows)} cells prove nothing{reason}"
        if not _proven(old):
            yield _unheld(new, "nothing was proven before")
        elif not _proven(new):
            yield _not_compared(why, _where(new))
        elif blind:
            yield _change(new, Weight.NOTE, why, "verdict", blind)


def _alone(before: Mapping[tuple[str, str], Group], after: Mapping[tuple[str, str], Group]) -> Iterator[Change]:
    """Of the groups on one side: a line for each that is bad in NEW or proven in OLD, one for all others of a side."""
    mine = [group for key, group in after.items() if key not in before]
    yield from (_unheld(group, "only in NEW") for group in mine if _bad(group))
    gone = [group for key, group in before.items() if key not in after]
    yield from (_not_compared(f"only in OLD: {_verdicts_of(g)}", _where(g)) for g in gone if _proven(g))
    for words, those in (
        ("only in NEW", [group for group in mine if not _bad(group)]),
        ("only in OLD, and nothing was proven", [group for group in gone if not _proven(group)]),
    ):
        more = f" and {len(those) - 3} more" if len(those) > 3 else ""
        if those:
            names = ", ".join(map(_where, those[:3]))
            yield Change(weight=Weight.NOTE, where="", what=f"{words}: {names}{more}")


def _bad(group: Group) -> list[Row]:
    return [row for row in group.rows if verdict_of(row) in (Verdict.BROKEN, Verdict.DEAD)]


def _unheld(new: Group, why: str) -> Change:
    """A group that there is nothing to hold against."""
    bad = _bad(new)
    weight = Weight.NOT_COMPARED if bad else Weight.NOTE
    reason = f" ({_reason(bad[0])})" if bad else ""
    return _change(new, weight, f"{why}: {_verdicts_of(new)}{reason}", "verdict", bad)
