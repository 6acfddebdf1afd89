"""Replays of history: what the new job made of it, and what that did to the live load: the section of such cells."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from mqtest.report.blocks import section, table
from mqtest.report.collect import JudgedCell
from mqtest.report.summary import NOT_MEASURED, Group, count, groups, measured, millis, seconds, spread, verdict_words

_RULE = (
    "A stateful job runs live; a new one starts beside it on the whole history, catches up, and readers are switched "
    "to its output. *Missing*, *doubled*: inputs that the new job's result lacks, or has more than once. *Out of "
    "order*: inputs that it was handed behind a later one. *Differs*: what only one of the two jobs has. *Deleted*: "
    "what the log had no more when the new job came to it. *Amounts*: what the sums by key and time window lack / have "
    "too much. *Dashboard*: the same of a ClickHouse table that its output was fed to. *Catching up*: inputs a second, "
    "beside what producers got acknowledged meanwhile. *p99*: of producers, with the old job alone / with the replay "
    "beside it. *Gap*: how long readers saw nothing fresh at the switch."
)
_HEADERS = (
    "fault", "profile", "verdict", "missing", "doubled", "out of order", "differs", "deleted", "amounts lost / doubled",
    "dashboard lost / doubled", "caught up after, s", "catching up / live, per s", "p99 without / with, ms", "gap, s",
)  # fmt: skip


def replays_text(cells: Sequence[JudgedCell]) -> str:
    """The section: one row a profile and fault, over repeats the medians and the worst in parentheses; nothing without
    such cells."""
    found = groups(cell.row for cell in cells if cell.facts.get("replay"))
    if not found:
        return ""
    return section("## Replay of history", _RULE, table(_HEADERS, [_figures(group) for group in found]))


def _figures(group: Group) -> tuple[str, ...]:
    def told(name: str, text: Callable[[float], str] = count) -> str:
        values = [value for row in group.rows if (value := measured(row, name)) is not None]
        return spread(values, text)

    def pair(first: str, second: str, text: Callable[[float], str] = count) -> str:
        both = told(first, text), told(second, text)
        return NOT_MEASURED if both == (NOT_MEASURED, NOT_MEASURED) else " / ".join(both)

    return (
        group.fault,
        group.profile,
        verdict_words(group),
        *(told(f"replay_{name}") for name in ("missing", "doubled", "reordered", "differs", "gone")),
        pair("amount_lost", "amount_doubled", _amount),
        pair("table_lost", "table_doubled", _amount),
        told("catch_up_s", seconds),
        pair("catch_up_per_s", "catch_up_live_per_s"),
        pair("latency_ms_p99", "replay_latency_ms_p99", millis),
        told("switch_gap_s", seconds),
    )


def _amount(hundredths: float) -> str:
    return f"{hundredths / 100:,.2f}" if hundredths else "0"
