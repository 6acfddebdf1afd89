"""The verdicts of a run at a glance: profiles down, faults across, one table a broker; and the controls beside each
fault: the same profiles without a fault, and whether a profile that must lose under it did."""

from __future__ import annotations

from collections.abc import Sequence

from mqtest.fault_log import NO_FAULT
from mqtest.model import Verdict
from mqtest.report.blocks import code, plain, table
from mqtest.report.collect import Collected
from mqtest.report.summary import NOT_MEASURED, Group, cells_that_lost, count, loss, verdict_words
from mqtest.report.surprises import must_lose


def matrix_text(all_groups: Sequence[Group]) -> str:
    """One table a broker, where a run has several faults or profiles; else nothing."""
    faults = sorted(dict.fromkeys(group.fault for group in all_groups), key=lambda fault: fault != NO_FAULT)
    if len(all_groups) < 2:
        return ""
    at = {(group.profile, group.fault): group for group in all_groups}
    tables = []
    for broker in dict.fromkeys(group.profile.partition("/")[0] for group in all_groups):
        profiles = list(dict.fromkeys(g.profile for g in all_groups if g.profile.partition("/")[0] == broker))
        here = [fault for fault in faults if any((profile, fault) in at for profile in profiles)]
        rows = [
            [profile.partition("/")[2], *(_in_short(at.get((profile, fault))) for fault in here)]
            for profile in profiles
        ]
        tables.append(table([plain(broker), *map(code, here)], rows))
    return "\n\n".join(tables) + "\n\nA number is of messages lost, of repeats in the worst cell."


def controls_text(collected: Collected, all_groups: Sequence[Group]) -> str:
    """A line a fault: whether the eyes of this run were open under it."""
    demanded = must_lose(collected)
    clean = {group.profile: group.verdict is Verdict.KEPT for group in all_groups if group.fault == NO_FAULT}
    rows = []
    for fault in dict.fromkeys(group.fault for group in all_groups if group.fault != NO_FAULT):
        under = [group for group in all_groups if group.fault == fault]
        lost = sum(1 for group in under if group.losing)
        demand = NOT_MEASURED if fault not in demanded else "yes, and one did" if lost else "yes, and **none did**"
        same = [clean[group.profile] for group in under if group.profile in clean]
        controls = f"{same.count(True)} of {len(same)} kept everything" if same else "not among these cells"
        rows.append((code(fault), demand, f"{lost} of {len(under)}", controls))
    if not rows or (len(all_groups) < 2 and not demanded):
        return ""
    headers = ("fault", "some profile must lose", "profiles that lost", "the same ones without a fault")
    return "Controls:\n\n" + table(headers, rows)


def _in_short(group: Group | None) -> str:
    """`lost-as-documented: 8,096`; over repeats `lost-as-documented ×2, kept ×1: lost in 2 of 3, worst 40`, and where
    none lost `kept: lost in 0 of 3 (≤ 100 %)`. What nobody should pass over is bold."""
    if group is None:
        return ""
    words = f"**{verdict_words(group)}**" if group.verdict in (Verdict.BROKEN, Verdict.DEAD) else verdict_words(group)
    worst = max((loss(row) or 0 for row in group.proven), default=0)
    if len(group.rows) == 1 or not group.proven:
        return f"{words}: {count(worst)}" if worst else words
    return f"{words}: lost in {cells_that_lost(group)}" + (f", worst {count(worst)}" if worst else "")
