"""A cell as the page shows it: its figures, its pictures, and what the pictures say in words."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from markupsafe import Markup

from mqtest.curves import Curves
from mqtest.model import Finding, Verdict
from mqtest.report.collect import Collected, JudgedCell
from mqtest.report.page import cells as pictures
from mqtest.report.page.colours import short
from mqtest.report.page.svg import Spec, inlined
from mqtest.report.summary import NOT_MEASURED, count, duplicates, fault_of, measured, millis, profile_of, seconds

_MOST_PICTURED = 100
"""cells with pictures: some 50 kB each"""
_OPEN_UP_TO = 4
"""of so few cells, every one is open"""
_STAGES = {
    "detected_s": "detected",
    "new_leader_s": "new leader",
    "first_ack_after_fault_s": "first ack",
    "rate_90_s": "90 % of the rate",
    "drained_s": "consumers caught up",
    "in_sync_s": "all in sync",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class CellView:
    """One cell as the page shows it."""

    id: str
    profile: str
    fault: str
    verdict: str
    tone: str
    reason: str
    brief: str
    figures: tuple[tuple[str, str], ...]
    marks: tuple[str, ...]
    timeline: Markup | None
    percentiles: Markup | None
    runs: Markup | None
    where: tuple[str, ...]
    notes: tuple[str, ...]
    missing: str
    """why there is no picture; empty where there is one"""
    open: bool


def cell_views(collected: Collected, curves: Mapping[Path, Curves | None]) -> Iterator[CellView]:
    """All of them in the order of the plan; of very many, those that kept everything go without pictures first."""
    telling = sorted(collected.cells, key=lambda cell: cell.verdict is Verdict.KEPT)[:_MOST_PICTURED]
    pictured = {cell.folder for cell in telling}
    for cell in collected.cells:
        mine = curves.get(cell.folder) if cell.folder in pictured else None
        if mine is not None:
            missing = ""
        elif not cell.ledger:
            missing = "needs the cell's ledger, of which only the row in results.csv is left"
        elif cell.folder not in pictured:
            missing = f"left out: only {_MOST_PICTURED} cells have pictures"
        else:
            missing = "nothing to draw: its load did not come to an end, or its ledger cannot be read"
        yield _view(cell, mine, missing, few=len(collected.cells) <= _OPEN_UP_TO)


def _view(cell: JudgedCell, curves: Curves | None, missing: str, *, few: bool) -> CellView:
    row = cell.row
    first_ack_s = None
    if curves is not None and curves.bands and (after := measured(row, "first_ack_after_fault_s")) is not None:
        first_ack_s = curves.bands[0].began_s + after
    draw = partial(_drawn, f"{profile_of(row)} under {fault_of(row)}")
    losing = [finding for finding in cell.findings if finding.check == "loss" and finding.count]
    return CellView(
        id=cell.id,
        profile=profile_of(row),
        fault=fault_of(row),
        verdict=str(cell.verdict),
        tone=short(cell.verdict),
        reason=cell.reason,
        brief=_brief(cell),
        figures=tuple(_figures(cell)),
        marks=tuple(_marks(cell, curves, first_ack_s)) if curves else (),
        timeline=draw(pictures.timeline_spec(curves, first_ack_s), _timeline_words(cell, curves)) if curves else None,
        percentiles=draw(pictures.percentiles_spec(curves), _percentile_words(curves)) if curves else None,
        runs=draw(pictures.runs_spec(curves), _runs_words(curves)) if curves else None,
        where=tuple(line for finding in losing for line in _where(finding)),
        notes=tuple(note for f in cell.findings if f.check == "latency" for note in f.notes),
        missing=missing,
        open=few or cell.verdict in (Verdict.BROKEN, Verdict.DEAD),
    )


def _drawn(whose: str, spec: Spec | None, words: str) -> Markup | None:
    return None if spec is None else Markup(inlined(spec, f"{whose}: {words}"))


def _brief(cell: JudgedCell) -> str:
    """What stands beside the verdict while the cell is closed."""
    row = cell.row
    lost, missing = measured(row, "lost"), measured(row, "not_found")
    said = f"{count(lost)} lost" if lost else f"{count(missing)} not found" if lost is None and missing else ""
    gap = measured(row, "ack_gap_s_max")
    return ", ".join(part for part in (said, "" if gap is None else f"longest gap {seconds(gap)} s") if part)


def _figures(cell: JudgedCell) -> Iterator[tuple[str, str]]:
    """What was measured."""
    row = cell.row

    def told(column: str, text: Callable[[float], str] = count) -> str:
        value = measured(row, column)
        return NOT_MEASURED if value is None else text(value)

    if measured(row, "lost") is None and measured(row, "not_found") is not None:
        yield "not found / sent", f"{told('not_found')} / {told('sent')}"
    else:
        yield "lost / acked", f"{told('lost')} / {told('acked')}"
    yield "in doubt", told("unknown")
    yield "duplicates", duplicates([row])
    yield "reordered", told("reordered")
    yield "longest gap without an ack", told("ack_gap_s_max", lambda s: f"{seconds(s)} s")
    yield "acked per second, steady", told("ack_rate_per_s", lambda n: count(round(n)))
    yield "p50 / p99, steady", f"{told('latency_ms_p50', millis)} / {told('latency_ms_p99', millis)} ms"
    if measured(row, "sustained_per_s") is not None:
        yield "sustained per second", told("sustained_per_s", lambda n: count(round(n)))
    stages = [f"{name} {seconds(s)}" for column, name in _STAGES.items() if (s := measured(row, column)) is not None]
    if stages:
        yield "seconds after the fault", ", ".join(stages)


def _marks(cell: JudgedCell, curves: Curves, first_ack_s: float | None) -> Iterator[str]:
    """What the bands and symbols of the timeline are."""
    for band in curves.bands:
        ends = [f"healed {band.healed_s:.1f}" if band.healed_s is not None else "not healed"]
        ends += [f"recovered {band.recovered_s:.1f}"] if band.recovered_s is not None else []
        yield f"{band.what}: from {band.began_s:.1f} s, {', '.join(ends)}"
    if first_ack_s is not None:
        yield f"{pictures.FIRST_ACK} {first_ack_s:.1f} s: first ack of a message sent after the fault"
    yield from (f"{pictures.LEADER} {mark.at_s:.1f} s: {mark.what}" for mark in curves.marks)
    lost, read = measured(cell.row, "lost"), measured(cell.row, "read_then_lost")
    if any(curves.deliveries):
        never = "" if lost is None else f", {count(lost - (read or 0))} were never seen"
        then = f", {count(read)} were read and then lost" if read else ""
        yield f"{count(curves.unseen[-1])} messages were unseen when the audit began{never}{then}"


def _where(finding: Finding) -> Iterator[str]:
    """Where the lost ones lay, in words."""
    numbers = finding.numbers
    runs = [f"{count(n)} {words}" for key, words in _PLACES_IN_RUN.items() if (n := numbers.get(key))]
    if runs:
        yield "In the order of sending: " + ", ".join(runs) + "."
    log = [f"{count(n)} {words}" for key, words in _PLACES_IN_LOG.items() if (n := numbers.get(key))]
    if log:
        yield "In the log: " + ", ".join(log) + "."
    yield from (f"{note[:1].upper()}{note[1:]}." for note in finding.notes)


_PLACES_IN_RUN = {
    "prefix": "before the first survivor of their producer",
    "middle": "between survivors",
    "suffix": "after the last survivor",
}
_PLACES_IN_LOG = {
    "lost_cut_off": "where another message is now",
    "lost_beyond_end": "beyond its end",
    "lost_in_hole": "where nothing is now",
    "lost_unplaced": "at a position that nobody named",
}


def _timeline_words(cell: JudgedCell, curves: Curves) -> str:
    bands = "; ".join(f"{band.what} from {band.began_s:.1f} s" for band in curves.bands) or "no fault"
    return f"{curves.length_s:.0f} seconds of load, {bands}; {_brief(cell) or 'nothing lost'}"


def _percentile_words(curves: Curves) -> str:
    told = (f"{phase} p50 {ms[0]:g}, p99 {ms[4]:g}, highest {ms[-1]:g}" for phase, ms in curves.percentiles.items())
    return "latency percentiles by phase, in ms: " + "; ".join(told)


def _runs_words(curves: Curves) -> str:
    return "; ".join(f"producer {run.producer}: {sum(run.gone):,} of {run.messages:,} gone" for run in curves.runs)
