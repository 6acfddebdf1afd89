"""The search for the highest sustained rate: the rate that it tries next, and whole cells on a broker with a limit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from mqtest.event_log import events_path, load_events
from mqtest.ledger import read_cell
from mqtest.model import Search, Verdict, Workload
from mqtest.search_run import highest, next_rate
from tests.cells import QUICK, changed, make_cell, run_cell

SEARCH = Search(start_per_s=1000, most_per_s=64_000, trials=30)


def tried(sustained: Callable[[float, int], bool], search: Search = SEARCH) -> list[tuple[float, bool]]:
    """All trials on a broker that sustains a rate, tried for the n-th time (from 0), or does not."""
    rates: list[tuple[float, bool]] = []
    while (rate := next_rate(search, rates)) is not None:
        rates.append((rate, sustained(rate, [r for r, _ in rates].count(rate))))
    return rates


def test_it_doubles_and_then_closes_in() -> None:
    rates = tried(lambda rate, _n: rate <= 5000)
    assert [(round(rate), ok) for rate, ok in rates] == [
        (1000, True),
        (2000, True),
        (4000, True),
        (8000, False),
        (8000, False),
        (5657, False),
        (5657, False),
        (4757, True),
        (5187, False),
        (5187, False),
    ]
    assert highest(rates) == pytest.approx(4757, abs=1)


@pytest.mark.parametrize("limit", [3.0, 700.0, 1000.0, 1999.0, 33_333.0, 63_999.0])
def test_it_comes_within_ten_per_cent_from_below(limit: float) -> None:
    found = highest(tried(lambda rate, _n: rate <= limit))
    assert found is not None
    assert limit / 1.1 <= found <= limit


def test_the_first_rate_can_be_too_much() -> None:
    assert [round(rate) for rate, _ in tried(lambda rate, _n: rate <= 300)][:6] == [1000, 1000, 500, 500, 250, 354]


def test_it_ends_at_the_highest_rate_of_the_scenario() -> None:
    search = replace(SEARCH, most_per_s=3000)
    assert tried(lambda _rate, _n: True, search) == [(1000, True), (2000, True), (3000, True)]


def test_one_stall_of_the_machine_costs_one_trial() -> None:
    rates = tried(lambda rate, n: rate <= 5000 and (rate, n) != (2000, 0))
    assert rates[:4] == [(1000, True), (2000, False), (2000, True), (4000, True)]


def test_no_more_trials_than_allowed() -> None:
    assert len(tried(lambda rate, _n: rate <= 5000, replace(SEARCH, trials=6))) == 6
    assert highest(tried(lambda _rate, _n: False, replace(SEARCH, trials=6))) is None


LIMIT_PER_S = 1500


def test_a_cell_finds_the_limit_of_a_broker_and_measures_at_shares_of_it(tmp_path: Path) -> None:
    profile = changed("memory/log-safe", "broker", fsync=False, answers_per_s=LIMIT_PER_S)
    search = Search(start_per_s=1000, most_per_s=8000, step_s=1.5, trials=6, settle_s=5, at=(0.25, 0.5), at_s=0.4)
    cell = replace(
        make_cell(profile, "none", phases=QUICK), search=search, workload=Workload(rate_per_s=1000, consumers=0)
    )
    judged = run_cell(tmp_path, cell)
    folder = tmp_path / "cells" / cell.id
    events = load_events(events_path(folder))
    said = [f"{e['rate_per_s']:.0f}: {e['why']}" for e in events if e["event"] == "trial"]
    assert judged.verdict is Verdict.KEPT, judged.reason
    assert judged.row["sustained_per_s"] is not None, said
    assert LIMIT_PER_S / 1.5 <= judged.row["sustained_per_s"] <= LIMIT_PER_S * 1.5, said
    found = next(e["rate_per_s"] for e in events if e["event"] == "searched")
    paced = [e["rate_per_s"] for e in events if e["event"] == "rate"]
    assert paced[-2:] == [found * 0.25, found * 0.5]
    assert paced[1:-2:2] == [0] * (len(paced) // 2 - 1), "after each trial nothing falls due until all has settled"
    phases = [e["name"] for e in events if e["event"] == "phase"]
    assert phases == ["up", "warm-up", "search", "load-25", "load-50", "drain", "audit", "down"]
    (numbers,) = [f.numbers for f in judged.findings if f.check == "latency"]
    for name in ("load_25", "load_50"):
        (p99,) = (n for n in (numbers[f"{name}_latency_ms_p99"], numbers[f"{name}_latency_ms_p99_refused"]) if n)
        assert 0 < p99 < 1000
        assert judged.row[f"{name}_pacing_lag_ms_p99"] > 0
    assert judged.row["load_75_latency_ms_p50"] is None
    assert judged.row["latency_ms_p50"] is None, "there is no steady phase"
    assert read_cell(folder)["search"]["trials"] == 6


def test_a_cell_that_sustains_nothing_is_judged_all_the_same(tmp_path: Path) -> None:
    profile = changed("memory/log-safe", "broker", fsync=False, answers_per_s=100)
    search = Search(start_per_s=1000, most_per_s=1000, step_s=1.0, trials=2, settle_s=10, at_s=0.1)
    workload = Workload(rate_per_s=1000, window=20)  # so many may be open, so many wait; the rest is skipped
    cell = replace(make_cell(profile, "none", floor=1), search=search, workload=workload)
    judged = run_cell(tmp_path, replace(cell, phases=replace(QUICK, warm_up_s=0)))
    assert (judged.verdict, judged.row["lost"]) == (Verdict.KEPT, 0)
    assert judged.row["sustained_per_s"] is None
    events = load_events(events_path(tmp_path / "cells" / cell.id))
    trials = [e for e in events if e["event"] == "trial"]
    assert [(e["rate_per_s"], e["sustained"]) for e in trials] == [(1000, False)] * 2
    assert all(e["why"] for e in trials)
    assert [e["name"] for e in events if e["event"] == "phase"] == ["up", "warm-up", "search", "drain", "audit", "down"]
