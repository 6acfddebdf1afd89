"""What a scenario says of a fault → Fault; a Fault → its timeline. No cluster is needed for either.

A fault is named in `faults` in one of three ways:
    "none"                       the control cell
    "kill:leader", "a:x+b:y"     one step, or several at the same moment, held for the phase's `hold_s`
    "frozen-minority"            a schedule of the scenario, a table of its own:
        [schedule.frozen-minority]
        steps = [{ do = "pause:minority", for_s = 14 }, { do = "power-cut:other", at_s = 5, for_s = 3 }]
        repeat = 3               # so many groups of these steps, each after the recovery of the one before
        every_s = 20             # from group to group, at least
        [schedule.chaos]
        draw = ["kill:leader", "power-cut:one"]    # groups of one step, drawn from the cell's seed …
        lasts_s = 600            # … for so long
        every_s = 15
        hold_s = [2, 8]
Drawn with the same seed a schedule is the same, to the last digit. Times are in seconds from the beginning of a group.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from mqtest.errors import UsageError
from mqtest.faults import FAULTS
from mqtest.model import NO_FAULT, Draw, Fault, Step
from mqtest.toml import unknown


@dataclass(frozen=True, slots=True, kw_only=True)
class StepTable:
    """One entry of `steps`."""

    do: str
    """`action:target`; the target may be `same` (whom the step before hit) or `other` (whom no step hit yet)"""
    at_s: float = 0.0
    """from the beginning of its group"""
    for_s: float | None = None
    """how long it is held; without it for `phases.hold_s`, or not at all where it is over at once (`restart`)"""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleTable:
    """The keys of `[schedule.<name>]`."""

    steps: Sequence[StepTable] = ()
    """one group of steps, each at its time; they may overlap"""
    repeat: int = 1
    """so many groups of these steps, each after the recovery of the one before"""
    draw: Sequence[str] = ()
    """in place of `steps`: groups of one step each, drawn from these by the cell's seed"""
    lasts_s: float = 60.0
    """how long groups are drawn for"""
    every_s: float = 0.0
    """from the beginning of a group to that of the next, at least"""
    hold_s: Sequence[float] = (2.0, 8.0)
    """least and most time that a drawn step is held"""


class Moment(NamedTuple):
    """A step of a group begins or ends."""

    at_s: float
    heals: bool
    part: int
    """place of the step in its group"""


def parse_fault(text: str, where: str, schedules: Mapping[str, Fault]) -> Fault:
    """A name out of `faults` → Fault; raises UsageError that begins with `where` (file and key)."""
    if text == NO_FAULT.name:
        return NO_FAULT
    if text in schedules:
        return schedules[text]
    return Fault(text, (tuple(parse_step(part, where, [*FAULTS, *schedules]) for part in text.split("+")),))


def parse_step(text: str, where: str, known: Sequence[str] = ()) -> Step:
    """`action:target` → Step; raises UsageError that begins with `where`."""
    action, _, target = text.partition(":")
    if action == NO_FAULT.name:
        raise UsageError(f"{where}: fault {text!r} cannot have the target {target!r}; allowed: {NO_FAULT}, alone")
    if action not in FAULTS:
        raise UsageError(f"{where}: {unknown('fault', action, [*(known or FAULTS), NO_FAULT.name])}")
    allowed = FAULTS[action].targets
    if target not in allowed:
        choices = ", ".join(f"{action}:{t}" for t in allowed)
        raise UsageError(f"{where}: fault {text!r} cannot have the target {target!r}; allowed: {choices}")
    return Step(action, target)


def parse_schedule(name: str, table: ScheduleTable, where: str) -> Fault:
    """A table `[schedule.<name>]` → Fault; raises UsageError that begins with `where` (file and table)."""
    if name == NO_FAULT.name or ":" in name or "+" in name:
        raise UsageError(f"{where}: {name!r} cannot name a schedule: it would read as a fault")
    if bool(table.steps) == bool(table.draw):
        raise UsageError(f"{where}: either `steps` or `draw` is wanted")
    for key, least in (("repeat", 1), ("every_s", 0), ("lasts_s", 0)):
        if getattr(table, key) < least:
            raise UsageError(f"{where}.{key}: must be at least {least}")
    if table.draw:
        return Fault(name, every_s=table.every_s, draw=_draw(table, where))
    steps = []
    for number, entry in enumerate(table.steps):
        at = f"{where}.steps[{number}]"
        if entry.at_s < 0 or (entry.for_s is not None and entry.for_s < 0):
            raise UsageError(f"{at}: at_s and for_s must not be negative")
        steps.append(replace(parse_step(entry.do, f"{at}.do"), at_s=entry.at_s, for_s=entry.for_s))
    ordered = tuple(sorted(steps, key=lambda step: step.at_s))
    return Fault(name, (ordered,) * table.repeat, every_s=table.every_s)


def drawn(fault: Fault, seed: int) -> Fault:
    """The fault with its groups drawn from the seed; a fault that draws nothing is returned as it is."""
    draw = fault.draw
    if draw is None:
        return fault
    rng = random.Random(seed)
    groups = []
    for _ in range(max(1, int(draw.lasts_s / draw.every_s))):
        step = rng.choice(draw.steps)
        groups.append((replace(step, for_s=round(rng.uniform(*draw.hold_s), 1)),))
    return replace(fault, groups=tuple(groups))


def moments(steps: Sequence[Step], hold_s: float) -> list[Moment]:
    """When each step of a group begins and ends, in order; at the same time what ends comes first."""
    found = []
    for part, step in enumerate(steps):
        found.append(Moment(step.at_s, False, part))
        found.append(Moment(step.at_s + held_s(step, hold_s), True, part))
    # a step that is held for no time at all begins, and then ends
    return sorted(found, key=lambda m: (m.at_s, not (m.heals and steps[m.part].at_s < m.at_s), m.part, m.heals))


def held_s(step: Step, hold_s: float) -> float:
    """How long a step is held, in a cell with that `hold_s`."""
    if step.for_s is not None:
        return step.for_s
    return hold_s if FAULTS[step.action].held else 0.0


def lasts_s(fault: Fault, hold_s: float) -> float:
    """From the first injection to the last heal, with the pauses between groups and without the recoveries."""
    ends = [max(moment.at_s for moment in moments(group, hold_s)) for group in fault.groups]
    return sum(max(end, fault.every_s) for end in ends[:-1]) + ends[-1] if ends else 0.0


def timeline(fault: Fault, hold_s: float) -> Iterator[str]:
    """A line for each step: `group 2 at 0 s: kill:leader for 4.5 s`."""
    for number, group in enumerate(fault.groups, 1):
        for step in group:
            how_long = f" for {held_s(step, hold_s):g} s" if held_s(step, hold_s) else ""
            yield f"group {number} at {step.at_s:g} s: {step}{how_long}"


def _draw(table: ScheduleTable, where: str) -> Draw:
    if table.every_s <= 0:
        raise UsageError(f"{where}.every_s: must be above 0 for a schedule that is drawn")
    if len(table.hold_s) != 2 or not 0 <= table.hold_s[0] <= table.hold_s[1]:
        raise UsageError(f"{where}.hold_s: two numbers are wanted, the least and the most")
    steps = tuple(parse_step(text, f"{where}.draw") for text in table.draw)
    return Draw(steps, table.lasts_s, table.every_s, (table.hold_s[0], table.hold_s[1]))
