"""The noise floor of this machine: what our own load, ledger and clock make of a broker that costs nothing.

The same producers send at the same rates to `memory/null`, a process that answers at once and writes to no disk. The
response times that come out are mqtest's own, with all that goes on beside it on the machine: nothing below them can be
laid to a broker. Rules:
- `mqtest calibrate` measures at the rates of the scenarios that ship (or those that are asked), and keeps what it found
  in results/noise-floor.json. A run of a scenario that measures latency (`latency = true`) measures first, for at most
  RUN_S, at its own rates. Any other run takes over what is kept, where that was measured on the same machine.
- A run's floor stands in its run.json; the report prints it beside every latency. None is no error: it says so.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mqtest import __version__, hdr, history, host, latency_log, paths
from mqtest.cell_run import CellRun
from mqtest.checks.pacing import lag_ms
from mqtest.clock import NS_PER_MS
from mqtest.errors import ClusterError, LedgerError, UsageError
from mqtest.ledger import read_record
from mqtest.model import NO_FAULT, Cell, Consume, Phases, Workload
from mqtest.profile import find_profile, image_version
from mqtest.scenario import Scenario, load
from mqtest.watch import SilentWatch

FILE = "noise-floor.json"
RUN_S = 10.0
"""at most, before a run that measures latency"""
_ALONE_S = 5.0
"""a rate, for `mqtest calibrate`"""
_AROUND_S = 2.0
"""of these, what is not the steady phase"""
_MOST = 3
"""rates, before a run"""
_QUANTILES = {"p50": 500, "p99": 990, "p999": 999, "max": 1000}
_BROKER = "memory/null"

Floor = dict[str, Any]


def measure(loads: Iterable[Workload], total_s: float, results: Path, progress: Callable[[str], None]) -> Floor:
    """One cell each for these open loops, some `total_s` seconds together; their ledgers lie in `results`, where the
    others do, and are removed. Raises ClusterError when one fails, UsageError where nothing can be written."""
    chosen = list(loads)
    each_s = total_s / max(1, len(chosen))
    rates = []
    for workload in chosen:
        progress(f"measuring the noise floor at {workload.rate_per_s:g} messages per s")
        rates.append(_rate(workload, max(0.5, each_s - _AROUND_S), results))
    return {
        "measured_utc": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "mqtest_version": __version__,
        "broker": _BROKER,
        "host": host.facts(),
        "rates": rates,
    }


def calibrate(rates_per_s: Sequence[float], results: Path, progress: Callable[[str], None]) -> Floor:
    """Measure at these rates (none: those of the scenarios that ship), and keep it in `results`."""
    shipped = [] if rates_per_s else [load(path) for path in sorted(paths.scenarios().glob("*.toml"))]
    loads = [replace(_plain(Workload()), rate_per_s=rate) for rate in sorted(set(rates_per_s))] or _open_loops(shipped)
    floor = measure(loads, _ALONE_S * len(loads), results, progress)
    (results / FILE).write_text(json.dumps(floor, indent=1) + "\n", encoding="utf-8")
    return floor


def of_run(scenario: Scenario, results: Path, progress: Callable[[str], None]) -> Floor | None:
    """The floor that belongs to a run of this scenario: measured now, or the one that is kept, or None."""
    if not scenario.latency:
        return kept(results)
    loads = _open_loops([scenario])
    few = loads if len(loads) <= _MOST else [loads[0], loads[len(loads) // 2], loads[-1]]
    return measure(few, RUN_S, results, progress)


def kept(results: Path) -> Floor | None:
    """What `calibrate` left there; None where it left nothing, or the machine is another one."""
    try:
        floor = read_record(results / FILE)
    except LedgerError:
        return None
    return floor if floor.get("host") == host.facts() else None


def _open_loops(scenarios: Iterable[Scenario]) -> list[Workload]:
    """The loads of these scenarios that have a rate, slowest first; of several at one rate the first."""
    by_rate: dict[float, Workload] = {}
    for scenario in scenarios:
        for arm in scenario.arms:
            if arm.workload.rate_per_s:
                by_rate.setdefault(arm.workload.rate_per_s, _plain(arm.workload))
    return [by_rate[rate] for rate in sorted(by_rate)]


def _plain(workload: Workload) -> Workload:
    """Its producers alone: what others do beside them belongs to what is measured, not to the floor."""
    return replace(workload, consumers=0, transformers=0, consume=Consume.AFTER_HEAL)


def _rate(workload: Workload, steady_s: float, results: Path) -> dict[str, float | int | None]:
    cell = Cell(
        id="noise-floor",
        index=1,
        profile=find_profile(_BROKER),
        fault=NO_FAULT,
        repeat=1,
        seed=1,
        nodes=1,
        workload=workload,
        phases=Phases(warm_up_s=0.5, steady_s=steady_s, hold_s=0, after_s=0, settle_s=5),
        floor=1,
        fs="ext4",
        disk_mb=0,
        version=image_version("memory"),
    )
    try:
        results.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=results, prefix=".noise-floor-") as folder:
            cell_dir = Path(folder) / cell.id
            CellRun(f"noise-floor-{os.getpid()}", cell, cell_dir, keep=False, watch=SilentWatch()).run()
            return {"rate_per_s": workload.rate_per_s, "size_bytes": workload.size_bytes, **_figures(cell_dir)}
    except OSError as error:
        raise UsageError(f"{results}: {error.strerror}") from error


def _figures(cell_dir: Path) -> dict[str, float | int | None]:
    """Of the steady phase. Most of a response time is our own lag here, so nothing is refused for that."""
    seen = history.load(cell_dir)
    for event in seen.events:
        if event["event"] == "failed":
            raise ClusterError(f"the noise floor could not be measured: {event['why']}")
    steady = latency_log.by_phase(hdr.intervals(latency_log.lines(seen))).get("steady", hdr.empty())
    times = {name: hdr.quantile_ns(steady, q) for name, q in _QUANTILES.items()}
    return {
        "messages": steady.get_total_count(),
        **{f"latency_ms_{name}": None if ns is None else round(ns / NS_PER_MS, 3) for name, ns in times.items()},
        **lag_ms(seen.pacing, seen.window("steady")),
    }
