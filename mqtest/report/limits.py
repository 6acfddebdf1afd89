"""Who was the limit, as report.md says it: CPU of nodes and of clients, and the disks, one line a profile.

Figures are medians over a profile's cells, whatever their fault: the steady phase comes before it.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from mqtest.report.blocks import bullets
from mqtest.report.collect import JudgedCell
from mqtest.report.summary import measured, millis, profile_of

_NOTE = (
    "CPU is that of all containers of a cluster, and of our own load; bytes, writes and flushes are those that reached "
    "the nodes' disks, all replicas together. A client that takes a whole core was the limit, or nodes that leave none "
    "free. *fsync*: 4 KiB appended and flushed on a node's disk before the load; the median disk, and the worst's p99."
)


def limits_text(cells: Sequence[JudgedCell]) -> str:
    """The sentences and what they mean; nothing where nothing was measured."""
    by_profile: dict[str, list[JudgedCell]] = {}
    for cell in cells:
        by_profile.setdefault(profile_of(cell.row), []).append(cell)
    lines = [line for profile, members in by_profile.items() if (line := _line(profile, members))]
    return f"{bullets(lines)}\n\n{_NOTE}" if lines else ""


def _line(profile: str, cells: Sequence[JudgedCell]) -> str:
    """`kafka/acks-all: nodes 0.82 and clients 0.31 of 2 cores; per message …`, with what was measured."""

    def middle(column: str) -> float | None:
        values = [value for cell in cells if (value := measured(cell.row, column)) is not None]
        return statistics.median(values) if values else None

    def told(column: str, template: str, text: str = "{:.2f}") -> list[str]:
        value = middle(column)
        return [] if value is None else [template.format(text.format(value))]

    cores = next((n for cell in cells if (n := (cell.facts.get("host") or {}).get("cores"))), None)
    busy = told("broker_cpu_cores", "nodes {}") + told("client_cpu_cores", "clients {}")
    message = [
        *told("broker_cpu_us_per_message", "{} µs of the nodes' CPU", "{:,.0f}"),
        *told("client_cpu_us_per_message", "{} µs of its producer's", "{:,.0f}"),
        *told("consumer_cpu_us_per_message", "{} µs of its consumer's", "{:,.0f}"),
        *told("broker_written_bytes_per_message", "{} bytes written", "{:,.0f}"),
        *told("broker_writes_per_message", "in {} writes"),
        *told("broker_flushes_per_message", "{} flushes"),
    ]
    p50, p99 = middle("fsync_ms_p50"), middle("fsync_ms_p99")
    parts = [
        f"{' and '.join(busy)}{f' of {cores}' if cores else ''} cores" if busy else "",
        f"per message {', '.join(message)}" if message else "",
        "" if p50 is None or p99 is None else f"fsync p50 {millis(p50)}, p99 {millis(p99)} ms",
    ]
    said = "; ".join(part for part in parts if part)
    return f"{profile}: {said}" if said else ""
