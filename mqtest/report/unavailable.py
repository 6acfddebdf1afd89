"""How long a cluster was unavailable, as report.md shows it: for each profile and fault, and in the order of time.

Which columns there are the checks say: every number of a check of recovery that is a column of results.csv and that
some cell measured. Timelines are shown of cells with several parts of a fault, and of clusters of somebody else's.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence

from mqtest.fault_log import NO_FAULT
from mqtest.judge import COLUMNS
from mqtest.report.blocks import MOST, section, table
from mqtest.report.collect import JudgedCell
from mqtest.report.summary import NOT_MEASURED, Group, count, groups, measured, millis, seconds, spread
from mqtest.timeline import Clock, Counts, Timeline

_CHECKS = ("unavailability", "recovery")
_STRETCHES = ("at, s", "UTC", "for, s", "what", "longest gap of acks in it, s")
_INCIDENTS = ("began, s", "UTC", "lasted, s", "places", "lost", "unknown", "stored twice", "redelivered")
_SECONDS = (
    "Seconds. A gap is a time without an acknowledgement (of deliveries, without one), an outage a gap of a second or "
    "more. Stages count from the fault, of several parts from the first: *detected*, a send failed or an outage began; "
    "*rate 90*, a second with 90 % of the steady rate; *drained*, consumers had caught up; *in sync*, all replicas. "
    "*Recovery* counts from the heal. *p50, p99 of acks*: milliseconds, of messages that fell due in the fault phase "
    "and were acknowledged at last; in parentheses those of the steady phase."
)
_TELLING = 2
"""a cell with so many parts has a timeline"""


def unavailable_text(cells: Sequence[JudgedCell], floor: str = "") -> str:
    """The section: the longest gap, all outages together, and when each stage of the recovery was reached; with the
    noise floor, where it has latencies."""
    columns = _columns(cells)
    rows = [
        (group.fault, group.profile, *(_figure(group, column) for column in columns), _latency(group))
        for group in groups(cell.row for cell in cells)
        if group.fault != NO_FAULT or any((measured(row, "ack_gap_s_max") or 0) >= 1 for row in group.rows)
    ]
    rows = [row for row in rows if set(row[2:]) - {NOT_MEASURED}]
    if not rows:
        return ""
    headings = ["fault", "profile", *map(_heading, columns), "p50, p99 of acks"]
    if all(row[-1] == NOT_MEASURED for row in rows):
        headings, rows, floor = headings[:-1], [row[:-1] for row in rows], ""
    return section(
        "## How long it was unavailable",
        _SECONDS,
        table(headings, rows, numbers_from=2),
        floor,
    )


def timelines_text(cells: Sequence[JudgedCell]) -> str:
    """The section: what happened when, with the gap beside it, and what each outage cost."""
    shown = [cell for cell in cells if cell.timeline is not None and _has_one(cell, cell.timeline)]
    parts = [text for cell in shown[:MOST] for text in _timeline(cell)]
    return section("## Timelines", *parts)


def _columns(cells: Sequence[JudgedCell]) -> list[str]:
    names = {n for c in cells for f in c.findings if f.check in _CHECKS for n, v in f.numbers.items() if v is not None}
    return [column for column in COLUMNS if column in names]


def _heading(column: str) -> str:
    """`first_ack_after_fault_s` → `first ack after fault`: every one is in seconds."""
    return " ".join(word for word in column.split("_") if word != "s")


def _figure(group: Group, column: str) -> str:
    return spread([v for row in group.rows if (v := measured(row, column)) is not None], seconds)


def _latency(group: Group) -> str:
    """`60.1 (9.9), 83.4 (30.2)`: over repeats the medians."""

    def middle(column: str) -> str:
        values = [v for row in group.rows if (v := measured(row, column)) is not None]
        return millis(statistics.median(values)) if values else NOT_MEASURED

    if middle("fault_latency_ms_p50") == NOT_MEASURED:
        return NOT_MEASURED
    return ", ".join(f"{middle(f'fault_latency_ms_{q}')} ({middle(f'latency_ms_{q}')})" for q in ("p50", "p99"))


def _has_one(cell: JudgedCell, timeline: Timeline) -> bool:
    return len(timeline.stretches) >= _TELLING or "attached" in cell.facts


def _timeline(cell: JudgedCell) -> Iterator[str]:
    timeline = cell.timeline
    assert timeline is not None
    clock = timeline.clock
    attached = cell.facts.get("attached")
    if attached:
        yield f"### `{cell.id}`: {attached.get('topic')} at {attached.get('at')}"
    else:
        yield f"### `{cell.id}`"
    if timeline.stretches:
        rows = [
            (
                *_when(clock, stretch.began_ns),
                NOT_MEASURED if stretch.ended_ns is None else seconds((stretch.ended_ns - stretch.began_ns) / 1e9),
                stretch.what,
                NOT_MEASURED if stretch.gap_s is None else seconds(stretch.gap_s),
            )
            for stretch in timeline.stretches
        ]
        yield "What happened to the cluster:\n\n" + table(_STRETCHES, rows)
    elif attached:
        yield "Of nobody it was seen that it went away or was broken."
    if not timeline.outages:
        yield "No second without an acknowledgement."
        return
    outages = [
        (*_when(clock, o.began_ns), seconds(o.length_s), str(o.places), *_costs(o.counts)) for o in timeline.outages
    ]
    outside = ("outside of these", "", "", "", *_costs(timeline.outside))
    yield "Incidents, each a second or more without an acknowledgement:\n\n" + table(_INCIDENTS, [*outages, outside])


def _when(clock: Clock, t_ns: int) -> tuple[str, str]:
    at = clock.at(t_ns)
    return f"{clock.seconds(t_ns):.1f}", at.strftime("%Y-%m-%d %H:%M:%S") if at else NOT_MEASURED


def _costs(counts: Counts) -> tuple[str, ...]:
    return tuple(count(n) for n in (counts.lost, counts.unknown, counts.stored_twice, counts.redelivered))
