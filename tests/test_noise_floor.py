"""The noise floor, on the real embedded broker: when it is measured, where it is kept, and what reports say of it; and
that an outage is in every latency that it should be in.

What is asserted of a time holds however busy the machine is.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mqtest import hdr, history, host, latency_log, noise_floor, plan, runner
from mqtest.cell_run import CellRun
from mqtest.cli import main
from mqtest.errors import ClusterError
from mqtest.model import Outcome, Workload
from mqtest.report.collect import collect
from mqtest.report.noise import floor_text
from mqtest.report.unavailable import unavailable_text
from mqtest.scenario import Scenario, load
from mqtest.watch import SilentWatch
from tests.cells import QUICK, make_cell, run_cell
from tests.run_dirs import make_cell as make_judged_cell
from tests.run_dirs import make_run

QUICKLY = """
title = "t"
question = "q?"
profiles = ["memory/null"]
faults = ["none"]
nodes = 1
floor = 1
[workload]
rate_per_s = 200
[phases]
warm_up_s = 0.1
steady_s = 0.2
hold_s = 0
after_s = 0
"""
RATE = {
    "rate_per_s": 300, "latency_ms_p50": 0.41, "latency_ms_p99": 3.3, "latency_ms_p999": 13.25, "latency_ms_max": 213.0,
    "pacing_lag_ms_p99": 2.5,
}  # fmt: skip
FLOOR = {"measured_utc": "2026-01-02T03:04:05Z", "broker": "memory/null", "rates": [RATE]}


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(noise_floor, "_ALONE_S", 0.1)
    monkeypatch.setattr(noise_floor, "RUN_S", 0.1)


def scenario(folder: Path, *, latency: bool = False, extra: str = "") -> Scenario:
    path = folder / "x.toml"
    path.write_text(("latency = true" if latency else "") + QUICKLY + extra, encoding="utf-8")
    return load(path)


def floor_of(run_dir: Path) -> Mapping[str, Any] | None:
    found: Mapping[str, Any] | None = json.loads((run_dir / "run.json").read_text(encoding="utf-8"))["noise_floor"]
    return found


def run(chosen: Scenario, results: Path) -> Path:
    return runner.run(chosen, plan.plan(chosen), results, keep=False, ray=None, resume=None, watch=SilentWatch())


def test_calibrate_shows_and_keeps_the_floor_and_later_runs_on_this_machine_take_it_over(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = tmp_path / "results"
    assert floor_of(run(scenario(tmp_path), results)) is None
    assert main(["calibrate", "--rate", "100", "--rate", "200", "--rate", "100", "--results", str(results)]) == 0
    assert "pacing lag p99" in capsys.readouterr().out
    kept = json.loads((results / noise_floor.FILE).read_text(encoding="utf-8"))
    assert kept["host"] == host.facts()
    assert [rate["rate_per_s"] for rate in kept["rates"]] == [100, 200]
    for rate in kept["rates"]:
        assert 0 < rate["latency_ms_p50"] <= rate["latency_ms_p99"] <= rate["latency_ms_p999"] <= rate["latency_ms_max"]
        assert 0 <= rate["pacing_lag_ms_p99"] <= rate["pacing_lag_ms_max"]
        assert rate["messages"] > 10
    run_dir = run(scenario(tmp_path), results)
    assert floor_of(run_dir) == kept
    assert "Noise floor of this machine" in floor_text(collect([run_dir])), "even where its latency was refused"
    (results / noise_floor.FILE).write_text(json.dumps(kept | {"host": {"cpu": "another"}}), encoding="utf-8")
    assert floor_of(run(scenario(tmp_path), results)) is None
    assert not list(results.glob(".noise-floor-*")), "ledgers are removed"


def test_a_run_that_measures_latency_measures_the_floor_first_at_its_own_rates(tmp_path: Path) -> None:
    vary = '[vary]\n"workload.rate_per_s" = [100, 200, 300, 400, 500]\n'
    chosen = scenario(tmp_path, latency=True, extra=vary)
    floor = noise_floor.of_run(chosen, tmp_path, lambda _text: None)
    assert floor is not None
    assert [rate["rate_per_s"] for rate in floor["rates"]] == [100, 300, 500], "a few of them"
    run_dir = run(scenario(tmp_path, latency=True), tmp_path / "results")
    (rate,) = (floor_of(run_dir) or {})["rates"]
    assert rate["rate_per_s"] == 200
    assert (run_dir / "cells" / "001-memory-null-none-1" / "cell.json").read_text().count('"latency": true') == 1


def test_the_floor_is_of_producers_alone_and_of_no_closed_loop(tmp_path: Path) -> None:
    (load_,) = noise_floor._open_loops([scenario(tmp_path)])
    assert (load_.rate_per_s, load_.consumers, load_.transformers) == (200, 0, 0)
    path = tmp_path / "closed.toml"
    path.write_text("closed_loop = true" + QUICKLY, encoding="utf-8")
    assert noise_floor._open_loops([load(path)]) == []


def test_a_floor_that_could_not_be_measured_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(self: CellRun, *_: object) -> None:
        raise ClusterError("no memory left")

    monkeypatch.setattr(CellRun, "_live", fails)
    with pytest.raises(ClusterError, match="the noise floor could not be measured: no memory left"):
        noise_floor.measure([Workload(rate_per_s=100)], 0.1, tmp_path, lambda _text: None)


# --- the report


def test_the_report_says_the_floor_or_that_there_is_none(tmp_path: Path) -> None:
    run_dir = make_run(tmp_path, "r", ["1"])
    make_judged_cell(run_dir, "1")
    none = "No noise floor of this machine was measured (`mqtest calibrate`): what of a latency is ours is not known."
    assert floor_text(collect([run_dir])) == none
    path = run_dir / "run.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"noise_floor": FLOOR}), encoding="utf-8")
    text = floor_text(collect([run_dir]))
    assert text == (
        "Noise floor of this machine, our own load on a broker that costs nothing (`memory/null`, 2026-01-02T03:04:05Z)"
        ", p50 / p99 / p99.9 / max (pacing lag p99) in ms: at 300 per s 0.4 / 3.3 / 13.2 / 213 (2.5)."
    )
    cells = collect([run_dir]).cells
    table = unavailable_text(
        [replace(c, row={**c.row, "ack_gap_s_max": 2.0, "fault": "kill:all"}) for c in cells], text
    )
    assert "Noise floor" not in table, "this table has no latency"
    (run_dir / "cells" / "1" / "cell.json").unlink()
    assert floor_text(collect([run_dir])) == ""


# --- no coordinated omission


def test_a_pause_of_the_broker_is_in_the_response_times_of_all_that_fell_due_in_it(tmp_path: Path) -> None:
    pause_s = 1.0
    phases = replace(QUICK, steady_s=1.5, hold_s=pause_s, after_s=1.0)
    cell = make_cell("memory/log-safe", "pause:leader", phases=phases, workload=Workload(rate_per_s=500))
    run_cell(tmp_path, cell)
    seen = history.load(tmp_path / "cells" / cell.id, closely=True)
    by_phase = latency_log.by_phase(hdr.intervals(latency_log.lines(seen)))
    whole = hdr.empty()
    for histogram in by_phase.values():
        whole.add(histogram)
    response_s = [(hdr.quantile_ns(whole, q) or 0) / 1e9 for q in (999, 1000)]
    assert min(response_s) > 0.9 * pause_s
    sends = seen.sends
    paused = (sends.start_ns >= seen.fault_times("injected")[0]) & (sends.start_ns < seen.fault_times("heal")[0])
    waited_s = ((seen.fault_times("heal")[0] - sends.start_ns) / 1e9)[paused]
    took_s = ((sends.settled_ns - sends.start_ns) / 1e9)[paused]
    assert paused.sum() > 400, "a generator that waits for answers would have sent a handful"
    assert (took_s >= waited_s).all(), "each waited for the rest of the pause, and has that time"
    acked = sends.outcome == Outcome.ACKED
    service_s = sorted(((sends.settled_ns - sends.sent_ns) / 1e9)[acked & ~paused].tolist())
    assert service_s[len(service_s) // 2] < pause_s / 2, "most of what did not fall due in it was quick"
