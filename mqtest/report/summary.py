"""Rows of results.csv → groups of repeats, their figures, and the sentences that a person reads.

A group is one profile, with what was varied of it, under one fault; its rows are the repeats. Loss over repeats is told
from the cells that prove something (verdict kept, lost-as-documented, broken or dead, with a complete audit): k of n
lost, median, worst. That 0 of n lost bounds the share of cells that lose by 3/n with 95 % confidence (rule of three).
A figure that nobody measured is shown as a dash, never as 0.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from mqtest.fault_log import NO_FAULT
from mqtest.model import Verdict

Row = Mapping[str, object]

WORST_FIRST = (
    Verdict.BROKEN,
    Verdict.DEAD,
    Verdict.LOST_AS_DOCUMENTED,
    Verdict.UNKNOWN,
    Verdict.INVALID,
    Verdict.KEPT,
)
PROVE_NOTHING = (Verdict.UNKNOWN, Verdict.INVALID)
NOT_MEASURED = "–"

HEADERS = (
    "fault",
    "profile",
    "verdict",
    "lost / acked",
    "cells that lost",
    "read, then lost",
    "duplicates",
    "reordered",
    "longest ack gap, s",
    "first ack after fault, s",
    "acked per s",
    "p50 / p99, ms",
    "pacing lag p99, ms",
)
"""of the columns that `figures` gives"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """All repeats of one profile (`profile_of`) under one fault (its name)."""

    profile: str
    fault: str
    rows: tuple[Row, ...]

    @property
    def proven(self) -> tuple[Row, ...]:
        """The rows that prove something about loss."""
        return tuple(r for r in self.rows if verdict_of(r) not in PROVE_NOTHING and loss(r) is not None)

    @property
    def verdict(self) -> Verdict:
        """The worst of its cells."""
        present = {verdict_of(row) for row in self.rows}
        return next(verdict for verdict in WORST_FIRST if verdict in present)

    @property
    def losing(self) -> int:
        """How many of the proven cells lost something."""
        return sum(1 for row in self.proven if (loss(row) or 0) > 0)


def groups(rows: Iterable[Row]) -> tuple[Group, ...]:
    """Rows by fault, then by profile, each in order of first appearance."""
    found: dict[str, dict[str, list[Row]]] = {}
    for row in rows:
        found.setdefault(fault_of(row), {}).setdefault(profile_of(row), []).append(row)
    return tuple(
        Group(profile=profile, fault=fault, rows=tuple(members))
        for fault, profiles in found.items()
        for profile, members in profiles.items()
    )


def profile_of(row: Row) -> str:
    """`broker/profile`, as scenarios write it, with what was varied of it in parentheses; `?` where the cell's own file
    could not be read."""
    name = f"{row['broker'] or '?'}/{row['profile'] or '?'}"
    return f"{name} ({row['varied']})" if row.get("varied") else name


def fault_of(row: Row) -> str:
    """`action:target`, or `none`; `?` where the cell's own file could not be read."""
    return str(row["fault"] or "?")


def verdict_of(row: Row) -> Verdict:
    """The row's verdict."""
    return Verdict(str(row["verdict"]))


def exit_code(rows: Iterable[Row], unfinished: int = 0) -> int:
    """1: a cell is broken or dead; else 2: one is unknown or invalid, was planned and did not finish, or there is no
    cell at all; else 0."""
    verdicts = [verdict_of(row) for row in rows]
    if any(verdict in (Verdict.BROKEN, Verdict.DEAD) for verdict in verdicts):
        return 1
    if not verdicts or unfinished or any(verdict in PROVE_NOTHING for verdict in verdicts):
        return 2
    return 0


def at_most(cells: int) -> float:
    """Upper bound (95 %) on the share of cells that lose, when 0 of `cells` did: the rule of three, 3/n, at most 1."""
    return min(1.0, 3 / cells)


def _amounts_lost(group: Group) -> bool:
    """Whether the result of a replay lost something in a proven cell, though no message was lost."""
    return any(row.get("amount_lost") for row in group.proven)


def teeth(all_groups: Sequence[Group], must_lose: Iterable[str]) -> tuple[str, ...]:
    """What the run does not prove about its own eyes: a line for each fault under which some profile must lose and
    none did, and one when a control cell without a fault was not clean."""
    notes = []
    for fault in dict.fromkeys(must_lose):
        under = [group for group in all_groups if group.fault == fault]
        if not under or any(group.losing or _amounts_lost(group) for group in under):
            continue  # without a finished cell nothing is claimed about this fault
        seen = ", ".join(f"{group.profile} {loss_words(group)}" for group in under)
        notes.append(
            f"This run does not prove that a loss under `{fault}` would have been seen: the scenario says that some "
            f"profile must lose under it, and none did ({seen}). Take no comfort from a `kept` under this fault."
        )
    for group in all_groups:
        if group.fault == NO_FAULT and group.verdict in (Verdict.BROKEN, Verdict.DEAD, Verdict.LOST_AS_DOCUMENTED):
            notes.append(
                f"The control cell of {group.profile}, which has no fault, is `{group.verdict}`: what its cells with "
                f"a fault show cannot be laid to the fault alone."
            )
    return tuple(notes)


def loss_words(group: Group) -> str:
    """`12 of 20,000 acked`, over repeats `lost in 2 of 3 cells, median 12, worst 40 of 20,000 acked`."""
    proven = group.proven or tuple(row for row in group.rows if loss(row) is not None)
    if not proven:
        return "loss not judged"
    what, of = ("lost", "acked") if measured(proven[0], "lost") is not None else ("not found", "sent")
    losses = [loss(row) or 0 for row in proven]
    if len(proven) == 1:
        return f"{what} {count(losses[0])} of {count(measured(proven[0], of))} {of}"
    if not any(losses):
        together = sum(measured(row, of) or 0 for row in proven)
        return f"{what} 0 in {len(proven)} cells, of {count(together)} {of} together"
    worst = max(proven, key=lambda row: loss(row) or 0)
    return (
        f"{what} some in {sum(1 for n in losses if n)} of {len(proven)} cells, median "
        f"{count(statistics.median(losses))}, worst {count(max(losses))} of {count(measured(worst, of))} {of}"
    )


def figures(group: Group) -> tuple[str, ...]:
    """The texts under HEADERS. Over repeats: median, and the worst in parentheses where it differs."""
    rows = group.rows
    return (
        group.fault,
        group.profile,
        verdict_words(group),
        _loss_of(group),
        cells_that_lost(group),
        spread(_all(rows, "read_then_lost"), count),
        duplicates(rows),
        spread(_all(rows, "reordered"), count),
        spread(_all(rows, "ack_gap_s_max"), seconds),
        spread(_all(rows, "first_ack_after_fault_s"), seconds),
        spread(_all(rows, "ack_rate_per_s"), count, worst=min),
        f"{spread(_all(rows, 'latency_ms_p50'), millis)} / {spread(_all(rows, 'latency_ms_p99'), millis)}",
        spread(_all(rows, "pacing_lag_ms_p99"), millis),
    )


def verdict_words(group: Group) -> str:
    """The verdict; where repeats differ, how often which."""
    seen = [verdict_of(row) for row in group.rows]
    counted = [(verdict, seen.count(verdict)) for verdict in WORST_FIRST if verdict in seen]
    if len(counted) == 1:
        return str(counted[0][0])
    return ", ".join(f"{verdict} ×{times}" for verdict, times in counted)


def cells_that_lost(group: Group) -> str:
    """`2 of 3`; `0 of 30 (≤ 10 %)`: with the bound of the rule of three where none lost."""
    proven = len(group.proven)
    if not proven:
        return NOT_MEASURED
    bound = "" if group.losing else f" (≤ {at_most(proven):.0%})".replace("%", " %")
    return f"{group.losing} of {proven}{bound}"


def duplicates(rows: Sequence[Row]) -> str:
    """By cause, the worst cell's number of each; `0` when all that was measured is 0."""
    causes = {
        "stored_twice": "stored twice",
        "redelivered": "redelivered",
        "redelivered_unflagged": "unflagged",
        "output_doubled": "outputs doubled",
    }
    worst = {name: max(values) for key, name in causes.items() if (values := _all(rows, key))}
    if not worst:
        return NOT_MEASURED
    return ", ".join(f"{count(number)} {name}" for name, number in worst.items() if number) or "0"


def cost(rows: Iterable[Row]) -> tuple[str, ...]:
    """One sentence a profile about its steady phase: rate and latency, and against the fastest of its broker."""
    by_profile: dict[str, list[Row]] = {}
    for row in rows:
        by_profile.setdefault(profile_of(row), []).append(row)
    p99 = {p: statistics.median(v) for p, members in by_profile.items() if (v := _all(members, "latency_ms_p99"))}
    sentences = []
    for profile, members in by_profile.items():
        rates, asked = _all(members, "ack_rate_per_s"), _all(members, "rate_asked_per_s")
        if not rates and profile not in p99:
            continue
        of = f" of {count(statistics.median(asked))} asked" if asked else ", as fast as it would go"
        text = f"{profile}: {spread(rates, count, worst=min)} acked per s{of}"
        if profile in p99:
            text += f", p99 {millis(p99[profile])} ms"
            same = {p: ms for p, ms in p99.items() if p.partition("/")[0] == profile.partition("/")[0]}
            fastest = min(same, key=lambda p: same[p])
            if same[fastest] > 0 and (times := f"{p99[profile] / same[fastest]:.1f}") != "1.0":
                text += f", {times} times that of {fastest.partition('/')[2]}"
        sentences.append(text)
    return tuple(sentences)


def measured(row: Row, key: str) -> float | None:
    """The figure, or None when it was not measured."""
    value = row.get(key)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def loss(row: Row) -> float | None:
    """Acked and lost; for a profile without acknowledgements, what was not found."""
    lost = measured(row, "lost")
    return measured(row, "not_found") if lost is None else lost


def spread(
    values: Sequence[float], text: Callable[[float], str], *, worst: Callable[[Sequence[float]], float] = max
) -> str:
    """The median, and the worst in parentheses where it reads otherwise; a dash for no values."""
    if not values:
        return NOT_MEASURED
    middle, bad = text(statistics.median(values)), text(worst(values))
    return middle if middle == bad else f"{middle} ({bad})"


def count(value: float | None) -> str:
    """`20,000`; a half only where a median has one."""
    if value is None:
        return NOT_MEASURED
    return f"{value:,.0f}" if value == int(value) or value >= 1000 else f"{value:,.1f}"


def seconds(value: float) -> str:
    """`3.21`."""
    return f"{value:,.2f}"


def millis(value: float) -> str:
    """`1.4` below 100, `231` above."""
    return f"{value:,.1f}" if value < 100 else f"{value:,.0f}"


def _loss_of(group: Group) -> str:
    """`12 / 20,000`; for a profile without acknowledgements `12 not found / 20,000 sent`; where a pipeline lost outputs
    `0 / 20,000, 12 outputs`."""
    rows = group.proven or group.rows
    if not any(measured(row, "lost") is not None for row in rows) and (missing := _all(rows, "not_found")):
        return f"{spread(missing, count)} not found / {spread(_all(rows, 'sent'), count, worst=statistics.median)} sent"
    acked = spread(_all(rows, "acked"), count, worst=statistics.median)
    outputs = _all(rows, "output_lost")
    more = f", {spread(outputs, count)} outputs" if any(outputs) else ""
    return f"{spread(_all(rows, 'lost'), count)} / {acked}{more}"


def _all(rows: Iterable[Row], key: str) -> list[float]:
    return [value for row in rows if (value := measured(row, key)) is not None]
