"""What safety costs: the strongest failure that each profile survived, beside what it sustains. Both are of cells of
the same runs: those with a search, and those of the same profiles under a fault."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

from mqtest.fault_log import NO_FAULT
from mqtest.model import Verdict
from mqtest.report.blocks import code, section, table
from mqtest.report.collect import JudgedCell
from mqtest.report.summary import NOT_MEASURED, Group, groups, loss, millis, verdict_of
from mqtest.report.throughput import by_profile, figures

STRENGTH = ("power-cut:all", "power-cut:leader", "kill:all", "kill:leader")
"""failures, the strongest first: a node without power forgets what was not on its disk yet, one that is killed keeps
what its kernel has; of all nodes at once no copy is left elsewhere. It is an order to read by: a profile may survive
one and lose under a weaker one, as a cluster whose leader alone dies goes on with what the others have."""
_HALF = "load_50_latency_ms_p99"
_RULE = (
    "*Survived*: lost no acknowledged message and came back by itself, in every cell that proves something; the "
    f"strongest of {', '.join(map(code, STRENGTH))}, in this order. *Lost under*: those of them that took messages, or "
    "after which the cluster stayed away. *Sustained* is of the cells without a fault (see Throughput), *p99* at half "
    "of it."
)


def safety_text(cells: Sequence[JudgedCell]) -> str:
    """The section: one row a profile; nothing without both kinds of cells."""
    searched = by_profile(cells)
    under: dict[str, dict[str, Group]] = {}
    for group in groups(cell.row for cell in cells):
        if group.fault in STRENGTH and group.profile in searched:
            under.setdefault(group.profile, {})[group.fault] = group
    if not under:
        return ""
    rates = {p: statistics.median(found) for p, c in searched.items() if (found := figures(c, "sustained_per_s"))}
    rows = [
        (profile, *survival(under.get(profile, {})), *_speed(profile, rates), _p99(members))
        for profile, members in searched.items()
    ]
    headers = ("profile", "strongest survived", "lost under", "sustained per s", "of the fastest", "p99 at half, ms")
    return section("## Cost of safety", _RULE, table(headers, rows))


def proven(under: Mapping[str, Group]) -> dict[str, list[bool]]:
    """Fault, the strongest first → of each cell that proves something, whether the profile survived in it."""
    return {fault: found for fault in STRENGTH if fault in under and (found := outcomes(under[fault]))}


def survival(under: Mapping[str, Group]) -> tuple[str, str]:
    """`power-cut:all (3 of 3)`, and what it did not survive, `kill:leader (1 of 3)` where one of three cells did."""
    told = proven(under)
    if not told:
        return NOT_MEASURED, NOT_MEASURED
    words = {fault: f"{code(fault)} ({sum(found)} of {len(found)})" for fault, found in told.items()}
    survived = [words[fault] for fault, found in told.items() if all(found)]
    lost = [words[fault] for fault, found in told.items() if not all(found)]
    return survived[0] if survived else "none of these", ", ".join(lost) or NO_FAULT


def outcomes(group: Group) -> list[bool]:
    """Of each cell that proves something, whether the profile survived in it."""
    dead = [row for row in group.rows if verdict_of(row) is Verdict.DEAD]
    alive = [row for row in group.proven if verdict_of(row) is not Verdict.DEAD]
    return [False for _ in dead] + [not loss(row) for row in alive]


def _speed(profile: str, rates: Mapping[str, float]) -> tuple[str, str]:
    """The rate, and what share that is of the fastest profile of the same broker."""
    if profile not in rates:
        return NOT_MEASURED, NOT_MEASURED
    same = {p: rate for p, rate in rates.items() if p.partition("/")[0] == profile.partition("/")[0]}
    fastest = max(same, key=lambda p: same[p])
    share = (
        "the fastest"
        if profile == fastest
        else f"{100 * rates[profile] / same[fastest]:.0f} % of {fastest.partition('/')[2]}"
    )
    return f"{rates[profile]:,.0f}", share


def _p99(cells: Sequence[JudgedCell]) -> str:
    found = figures(cells, _HALF)
    return millis(statistics.median(found)) if found else NOT_MEASURED
