"""A cell's folder → its row of results.csv, its findings and its verdict. Needs only the files.

COLUMNS is the one list of the columns of results.csv; a check fills those whose names stand in its numbers, the rest
comes from cell.json. None: not measured. A ledger that cannot be read gives `unknown` with the reason, not an error.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mqtest import history as histories
from mqtest import ledger
from mqtest.checks import CHECKS
from mqtest.errors import LedgerError
from mqtest.fault_log import NO_FAULT, groups_of
from mqtest.history import History
from mqtest.model import Duplicates, Finding, Order, Output, Promise, Verdict
from mqtest.neighbourhood import Neighbourhood, neighbourhoods
from mqtest.timeline import Timeline, timeline
from mqtest.verdict import Facts, fault_bit, felt, promised, verdict

COLUMNS: tuple[str, ...] = (
    "run", "cell", "broker", "broker_version", "client", "profile", "varied", "kind", "fault", "target", "repeat",
    "seed", "nodes", "rate_asked_per_s", "size_bytes",
    "sent", "skipped", "acked", "degraded", "refused", "returned", "unknown",
    "delivered", "lost", "lost_ppm", "lost_degraded", "read_then_lost", "not_found", "recovered", "unresolved",
    "offsets_reused", "lost_on_disk", "phantom", "foreign", "corrupt",
    "stored_twice", "redelivered", "redelivered_unflagged",
    "reordered", "reordered_in_session", "reordered_unflagged", "offset_divergence",
    "skipped_by_consumer", "committed_beyond_end", "unaccounted",
    "output_lost", "output_doubled", "output_phantom",
    "replay_missing", "replay_doubled", "replay_reordered", "replay_differs", "replay_gone",
    "amount_lost", "amount_doubled", "totals_wrong", "table_lost", "table_doubled", "table_wrong",
    "catch_up_s", "catch_up_per_s", "catch_up_live_per_s", "switch_s", "switch_gap_s",
    "ack_gap_s_max", "outage_s_total", "delivery_gap_s_max", "delivery_outage_s_total",
    "detected_s", "new_leader_s", "first_ack_after_fault_s", "first_delivery_after_fault_s", "rate_90_s", "drained_s",
    "in_sync_s", "recovery_s", "ack_rate_per_s", "delivered_per_s",
    "latency_ms_p50", "latency_ms_p95", "latency_ms_p99", "latency_ms_p999", "latency_ms_max",
    "fault_latency_ms_p50", "fault_latency_ms_p99", "fault_latency_ms_max",
    "replay_latency_ms_p50", "replay_latency_ms_p99",
    "delivery_latency_ms_p50", "delivery_latency_ms_p99",
    "sustained_per_s", "searched_per_s",
    "load_25_latency_ms_p50", "load_25_latency_ms_p99", "load_25_latency_ms_p999", "load_25_latency_ms_max",
    "load_50_latency_ms_p50", "load_50_latency_ms_p99", "load_50_latency_ms_p999", "load_50_latency_ms_max",
    "load_75_latency_ms_p50", "load_75_latency_ms_p99", "load_75_latency_ms_p999", "load_75_latency_ms_max",
    "pacing_lag_ms_p50", "pacing_lag_ms_p99", "pacing_lag_ms_max",
    "load_25_pacing_lag_ms_p99", "load_50_pacing_lag_ms_p99", "load_75_pacing_lag_ms_p99",
    "broker_cpu_cores", "client_cpu_cores", "broker_cpu_us_per_message", "client_cpu_us_per_message",
    "consumer_cpu_us_per_message", "broker_written_bytes_per_message", "broker_writes_per_message",
    "broker_flushes_per_message", "fsync_ms_p50", "fsync_ms_p99",
    "audit_complete", "fault_bit", "verdict", "reason",
)  # fmt: skip
"""columns of results.csv, in order; settings and host facts follow them (report/csv_table.py)"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """What a cell came to. `row` has every column of COLUMNS, in that order."""

    row: Mapping[str, Any]
    findings: tuple[Finding, ...]
    verdict: Verdict
    reason: str
    promised: tuple[str, ...] = ()
    """columns that have to be 0 in this cell; none where it could not be read"""
    timeline: Timeline | None = None
    """None: not measured"""
    neighbourhoods: Mapping[str, tuple[Neighbourhood, ...]] = field(default_factory=dict)
    """of a broken promise, by check: the first messages concerned, with their neighbours"""


def judge(cell_dir: Path) -> Judgement:
    """Judge one cell from its files; what cannot be read makes it `unknown`, with the file in the reason."""
    cell: Mapping[str, Any] = {}
    try:
        cell = ledger.read_cell(cell_dir)
        history = histories.load(cell_dir)
        promise = _promise(cell, cell_dir)
    except LedgerError as error:
        return _judgement(cell, cell_dir, (), {}, Verdict.UNKNOWN, str(error))
    findings = tuple(check(history) for check in CHECKS.values())
    found = {name: number for finding in findings for name, number in finding.numbers.items()}
    groups = groups_of(cell)
    facts = Facts(
        fault=str(cell.get("fault") or NO_FAULT),
        groups=groups,
        felt=felt(groups, history.events),
        bit=fault_bit(groups, history.events),
        promise=promise,
        acknowledged=history.acknowledged,
        floor=int(cell.get("floor") or 0),
        nodes=int(cell.get("nodes") or 0),
        found=found,
        dead=_why(history, "dead"),
        failed=_why(history, "failed"),
        incomplete=history.incomplete or (history.jobs.unread if history.jobs else None),
        latency=bool(cell.get("latency")),
    )
    found |= {"audit_complete": history.incomplete is None, "fault_bit": facts.bit}
    decided, reason = verdict(facts)
    broken = decided is Verdict.BROKEN
    return replace(
        _judgement(cell, cell_dir, findings, found, decided, reason),
        promised=promised(facts),
        timeline=timeline(history),
        neighbourhoods={f.check: neighbourhoods(history, f.messages) for f in findings if broken and f.messages},
    )


def _judgement(
    cell: Mapping[str, Any],
    cell_dir: Path,
    findings: tuple[Finding, ...],
    found: Mapping[str, Any],
    decided: Verdict,
    reason: str,
) -> Judgement:
    reason = " ".join(reason.split())
    known = {**_identity(cell, cell_dir), **found, "verdict": decided, "reason": reason}
    row = {column: known.get(column) for column in COLUMNS}
    return Judgement(row=row, findings=findings, verdict=decided, reason=reason)


def _identity(cell: Mapping[str, Any], cell_dir: Path) -> dict[str, Any]:
    """The columns that say which cell it is; a cell.json that could not be read leaves them empty."""
    same = ("run", "broker", "client", "profile", "varied", "kind", "fault", "target", "repeat", "seed", "nodes")
    load = _table(cell, "workload")
    return {name: cell.get(name) for name in same} | {
        "cell": cell.get("id") or cell_dir.name,
        "broker_version": _table(cell, "versions").get("broker"),
        "varied": ", ".join(f"{key}={value}" for key, value in _table(cell, "varied").items()) or None,
        "rate_asked_per_s": None if cell.get("search") else load.get("rate_per_s"),
        "size_bytes": load.get("size_bytes"),
    }


def _table(cell: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = cell.get(name)
    return value if isinstance(value, Mapping) else {}


def _promise(cell: Mapping[str, Any], cell_dir: Path) -> Promise:
    said = _table(cell, "promise")
    try:
        survives: Sequence[str] = said["survives"]
        return Promise(
            survives=tuple(survives),
            duplicates=Duplicates(said["duplicates"]),
            order=Order(said["order"]),
            source=str(said.get("source", "")),
            output=Output(said.get("output", Output.NONE)),
        )
    except (KeyError, ValueError, TypeError) as error:
        raise LedgerError(f"{cell_dir / 'cell.json'}: promise: {error!r} cannot be used") from error


def _why(history: History, event: str) -> str | None:
    """The reason that the first event of that name gives, or None when there is none."""
    for seen in history.events:
        if seen["event"] == event:
            nodes = seen.get("nodes") or ()
            who = f"{', '.join(map(str, nodes))}: " if nodes else ""
            return f"{who}{seen.get('why') or event}"
    return None
