"""Whole replays on the memory broker: a history, two jobs, a fault between, the switch, and the verdict."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from mqtest import replay_run
from mqtest.brokers import Reachable
from mqtest.event_log import events_path, load_events
from mqtest.jobs import NEW
from mqtest.journal import Journal
from mqtest.judge import Judgement
from mqtest.load import Load
from mqtest.model import Cell, Output, Profile, Replay, Verdict, Workload
from tests.cells import QUICK, changed, make_cell, run_cell

LOAD = Workload(rate_per_s=500, consumers=0, transformers=2, size_bytes=128)
REPLAY = Replay(history_s=1, history_per_s=3000, keys=7, window_s=0.5, beside_s=0.3, catch_up_s=30)
PHASES = replace(QUICK, after_s=0.5, drain_s=20, audit_s=30)
CLEAN = ("replay_missing", "replay_doubled", "replay_reordered", "replay_differs", "replay_gone", "amount_lost",
         "amount_doubled", "totals_wrong", "output_lost", "output_doubled", "output_phantom", "lost")  # fmt: skip


def replay_cell(
    profile: str | Profile, fault: str = "none", output: Output = Output.AT_LEAST_ONCE, **more: object
) -> Cell:
    cell = make_cell(profile, fault, workload=LOAD, replay=replace(REPLAY, output=output), phases=PHASES)
    return replace(cell, **more)  # type: ignore[arg-type]


def events_of(folder: Path, cell: Cell) -> list[Mapping[str, Any]]:
    return load_events(events_path(folder / "cells" / cell.id))


def phases_of(folder: Path, cell: Cell) -> list[str]:
    return [str(e["name"]) for e in events_of(folder, cell) if e["event"] == "phase"]


def figures(judged: Judgement) -> dict[str, object]:
    return {name: judged.row[name] for name in CLEAN}


class Played:
    """Load, journal and broker in one: writes down what it is asked, and no job is behind."""

    rate_per_s = 500.0

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __getattr__(self, name: str) -> Callable[..., int]:
        def ask(*_given: object, step: str = "", **_named: object) -> int:
            self.asked.append(f"{name} {step}".strip())
            return 0

        return ask


def test_what_a_new_job_is_handed_comes_after_its_start() -> None:
    """Else a runner that waits for a CPU between the two leaves the beginning out of the rate."""
    played = Played()
    replay_run.run(REPLAY, cast("Load", played), cast("Journal", played), cast("Reachable", played), None)
    order = [what for what in played.asked if what in ("start_job", "event started", "go_job", "event caught up")]
    assert order == ["start_job", "event started", "go_job", "event caught up"]


def test_a_new_job_reads_the_whole_history_and_takes_over(tmp_path: Path) -> None:
    cell = replay_cell("memory/log-safe", workload=replace(LOAD, places=2, producers=2))
    judged = run_cell(tmp_path, cell)
    assert (judged.verdict, judged.reason) == (Verdict.KEPT, judged.reason)
    assert figures(judged) == dict.fromkeys(CLEAN, 0)
    began, ended = (event for event in events_of(tmp_path, cell) if event["event"] == "job" and event["job"] == NEW)
    assert (began["step"], ended["step"]) == ("started", "caught up")
    assert ended["behind"] <= LOAD.rate_per_s < began["behind"]
    handed = judged.row["catch_up_per_s"] * judged.row["catch_up_s"]  # of rounded figures
    assert handed >= 0.99 * (began["behind"] - ended["behind"])
    assert judged.row["catch_up_live_per_s"] > 0
    assert judged.row["switch_gap_s"] is not None  # of less than half a millisecond it is 0
    assert judged.row["switch_s"] > 0
    assert phases_of(tmp_path, cell) == [
        *("up", "warm-up", "history", "steady", "start", "replay", "beside", "switch", "after", "drain", "audit"),
        "down",
    ]


@pytest.mark.parametrize("output", [Output.AT_LEAST_ONCE, Output.EXACTLY_ONCE])
def test_jobs_that_are_killed_lose_nothing_and_double_nothing_that_they_promise(tmp_path: Path, output: Output) -> None:
    judged = run_cell(tmp_path, replay_cell("memory/log-safe", "kill:transformers", output))
    assert (judged.verdict, judged.reason) == (Verdict.KEPT, judged.reason)
    assert judged.row["fault_bit"] is True
    may = (
        ("replay_doubled", "amount_doubled", "totals_wrong", "output_doubled") if output is Output.AT_LEAST_ONCE else ()
    )
    assert {name: value for name, value in figures(judged).items() if name not in may and value} == {}


def test_a_power_cut_during_the_replay_takes_nothing_that_was_flushed(tmp_path: Path) -> None:
    cell = replay_cell("memory/log-safe", "power-cut:all", Output.EXACTLY_ONCE)
    judged = run_cell(tmp_path, cell)
    assert (judged.verdict, judged.reason) == (Verdict.KEPT, judged.reason)
    assert figures(judged) == dict.fromkeys(CLEAN, 0)
    phases = phases_of(tmp_path, cell)
    assert phases.index("replay") < phases.index("fault") < phases.index("catch-up") < phases.index("switch")


def test_a_log_that_stores_outputs_twice_breaks_a_promise_of_once(tmp_path: Path) -> None:
    doubling = changed("memory/log-safe", "broker", duplicate_every=50)
    judged = run_cell(tmp_path, replay_cell(doubling, output=Output.EXACTLY_ONCE))
    assert judged.verdict is Verdict.BROKEN
    assert judged.row["replay_doubled"] > 0
    assert judged.row["replay_missing"] == judged.row["amount_lost"] == judged.row["amount_doubled"] == 0


def test_a_dashboard_shows_what_was_doubled_though_the_totals_are_right(tmp_path: Path) -> None:
    """An output that the log stores twice changes no last row, and counts twice in a table of outputs."""
    pytest.importorskip("chdb")
    doubling = changed("memory/log-safe", "broker", duplicate_every=50)
    judged = run_cell(tmp_path, replay_cell(doubling, replay=replace(REPLAY, dashboard=True)))
    assert judged.row["table_doubled"] > judged.row["table_lost"] == 0
    assert (judged.row["amount_lost"], judged.row["amount_doubled"]) == (0, 0)


def test_a_queue_cannot_replay_and_the_cell_says_how_much_is_missing(tmp_path: Path) -> None:
    judged = run_cell(tmp_path, replay_cell("memory/queue-safe"))
    assert judged.verdict is Verdict.LOST_AS_DOCUMENTED
    assert judged.reason == f"{judged.row['replay_missing']} inputs missing from the replay, which nobody promised"
    assert judged.row["replay_missing"] > 0.7 * judged.row["acked"]
    assert judged.row["lost"] == 0, "every message was delivered, once"


def test_a_history_that_was_deleted_under_the_reader_is_counted(tmp_path: Path) -> None:
    forgetful = changed("memory/log-safe", "broker", retain_messages=1000)
    judged = run_cell(tmp_path, replay_cell(forgetful))
    assert judged.row["replay_gone"] > 1000
    assert judged.row["replay_missing"] is None
    assert (judged.verdict, "retention ate the head of the log" in judged.reason) == (Verdict.UNKNOWN, True)


def test_a_new_job_that_does_not_catch_up_is_not_switched_to(tmp_path: Path) -> None:
    late = replace(REPLAY, catch_up_s=0.01, history_per_s=8000)
    cell = replay_cell("memory/log-safe", replay=late)
    judged = run_cell(tmp_path, cell)
    assert "switch" not in phases_of(tmp_path, cell)
    assert (judged.row["catch_up_s"], judged.row["switch_gap_s"]) == (None, None)
    assert judged.row["replay_missing"] == 0, "it is given the time of the drain to read the rest"
