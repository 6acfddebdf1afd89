"""The answer in two sentences: what was kept and what was not, and what that costs."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence

from mqtest.fault_log import NO_FAULT
from mqtest.model import Verdict
from mqtest.report.summary import PROVE_NOTHING, Group, Row, count, groups, loss, measured, millis, profile_of

_MOST_NAMES = 4


def answer(rows: Sequence[Row]) -> tuple[str, str]:
    """What became of the messages, and the price."""
    every = groups(rows)
    if not every:
        return "No cell finished, so there is no answer.", "Nor is there a price."
    by_profile: dict[str, list[Group]] = {}
    for group in every:
        by_profile.setdefault(group.profile, []).append(group)
    safe = [name for name, mine in by_profile.items() if all(group.verdict is Verdict.KEPT for group in mine)]
    return _kept(every, by_profile, safe), _price(rows, safe)


def _kept(every: Sequence[Group], by_profile: Mapping[str, Sequence[Group]], safe: Sequence[str]) -> str:
    faults = [fault for fault in dict.fromkeys(group.fault for group in every) if fault != NO_FAULT]
    number = {0: "", 1: "", 2: "both"}.get(len(faults), f"all {len(faults)}")
    under = f"under {number} faults" if number else f"under {faults[0]}" if faults else "without any fault"
    parts = [f"{_names(safe) if safe else 'No profile'} kept every message that was acknowledged {under}"]
    losing = [group for group in every if group.losing and group.verdict is not Verdict.BROKEN]
    if losing:
        worst = max(losing, key=_most)
        most, who = f"{count(_most(worst))} {_under(worst)}", len({group.profile for group in losing})
        parts.append(
            f"{worst.profile} lost {most}" if who == 1 else f"{who} profiles lost some, {worst.profile} most ({most})"
        )
    for verdict, words in ((Verdict.BROKEN, "broke a promise"), (Verdict.DEAD, "did not come back")):
        those = {name: [group for group in mine if group.verdict is verdict] for name, mine in by_profile.items()}
        told = [f"{name} {words} {_under(*mine)}" for name, mine in those.items() if mine]
        parts += told[:_MOST_NAMES]
        if len(told) > _MOST_NAMES:
            parts.append(f"{len(told) - _MOST_NAMES} more {words}")
    nothing = sum(group.verdict in PROVE_NOTHING for group in every)
    if nothing:
        parts.append(f"{nothing} of {len(every)} combinations {'proves' if nothing == 1 else 'prove'} nothing")
    return "; ".join(parts) + "."


def _price(rows: Sequence[Row], safe: Sequence[str]) -> str:
    """By what was searched for, else by the p99 of the steady phase."""
    rates, p99 = _middle(rows, "sustained_per_s"), _middle(rows, "latency_ms_p99")
    if rates:
        return _compared(
            {name: f"sustained {count(round(rates[name]))} messages a second" for name in _ranked(rates, -1)}, safe
        )
    if p99:
        return _compared(
            {name: f"answered within {millis(p99[name])} ms (p99, steady phase)" for name in _ranked(p99, 1)}, safe
        )
    return "What that costs was not measured by these cells."


def _ranked(figures: Mapping[str, float], sign: int) -> list[str]:
    """The best first: with sign 1 the least."""
    return sorted(figures, key=lambda name: sign * figures[name])


def _compared(told: Mapping[str, str], safe: Sequence[str]) -> str:
    """`told`: what each did, the fastest first."""
    fastest = next(iter(told))
    first = next((name for name in told if name in safe), None)
    if first is None:
        return (
            f"The fastest, {fastest}, {told[fastest]}; what safety costs cannot be told, as none that kept everything "
            f"was measured."
        )
    if first != fastest:
        than = f"; the fastest of all, {fastest}, {told[fastest]}"
    else:
        than = "" if all(name in safe for name in told) else ", and none of those that did not was faster"
    return f"The fastest that kept everything, {first}, {told[first]}{than}."


def _middle(rows: Iterable[Row], column: str) -> dict[str, float]:
    """Profile → the median over its cells."""
    found: dict[str, list[float]] = {}
    for row in rows:
        value = measured(row, column)
        if value is not None:
            found.setdefault(profile_of(row), []).append(value)
    return {profile: statistics.median(values) for profile, values in found.items()}


def _most(group: Group) -> float:
    return max(loss(row) or 0 for row in group.proven)


def _under(*those: Group) -> str:
    faults = [group.fault for group in those if group.fault != NO_FAULT]
    calm = "even without a fault" if len(faults) < len(those) else ""
    under = f"under {_names(faults)}" if faults else ""
    return " and ".join(part for part in (under, calm) if part)


def _names(names: Sequence[str]) -> str:
    """`a, b and c`; of many the first, and how many more."""
    shown = list(names[:_MOST_NAMES])
    if len(names) > _MOST_NAMES:
        shown.append(f"{len(names) - _MOST_NAMES} more")
    return " and ".join([", ".join(shown[:-1]), shown[-1]] if len(shown) > 1 else shown)
