"""The noise floor of the machine (run.json, `noise_floor`), as it stands beside every latency."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich import box
from rich.table import Table

from mqtest.report.collect import Collected
from mqtest.report.summary import NOT_MEASURED, count, measured, millis

_FIGURES = {
    "latency_ms_p50": "p50",
    "latency_ms_p99": "p99",
    "latency_ms_p999": "p99.9",
    "latency_ms_max": "max",
    "pacing_lag_ms_p99": "pacing lag p99",
}
_TELLING = ("latency_ms_p50", "pacing_lag_ms_p99")
"""how the columns end beside which a floor belongs"""


def floor_text(collected: Collected) -> str:
    """One paragraph; nothing where neither a latency nor our own lag was measured."""
    if all(measured(row, key) is None for row in collected.rows for key in row if key.endswith(_TELLING)):
        return ""
    floors = dict.fromkeys(text for run in collected.runs if (text := _sentence(run.get("noise_floor"))))
    none = "No noise floor of this machine was measured (`mqtest calibrate`): what of a latency is ours is not known."
    return "\n".join(floors) or none


def _sentence(floor: Mapping[str, Any] | None) -> str:
    if not floor:
        return ""
    at = "; ".join(f"at {row[0]} per s {' / '.join(row[1:-1])} ({row[-1]})" for row in _rows(floor))
    names = " / ".join(list(_FIGURES.values())[:-1])
    return (
        f"Noise floor of this machine, our own load on a broker that costs nothing (`{floor.get('broker')}`, "
        f"{floor.get('measured_utc')}), {names} (pacing lag p99) in ms: {at}."
    )


def floor_table(floor: Mapping[str, Any]) -> Table:
    """For the terminal."""
    result = Table(title="Noise floor, ms", title_justify="left", box=box.SIMPLE_HEAD)
    for heading in ("messages per s", *_FIGURES.values()):
        result.add_column(heading, justify="right")
    for row in _rows(floor):
        result.add_row(*row)
    return result


def _rows(floor: Mapping[str, Any]) -> Iterator[list[str]]:
    for rate in floor.get("rates") or ():
        values = [measured(rate, key) for key in _FIGURES]
        yield [count(rate["rate_per_s"]), *(NOT_MEASURED if ms is None else millis(ms) for ms in values)]
