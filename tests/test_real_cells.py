"""Whole cells on real brokers: the contrasts that the README promises, and the teeth of the tool.

Each test is one cell of 30 to 60 seconds; `first-look` and `live` are run whole in test_commands_docker.py. What a weak
arm must lose is asserted, so that a power cut which cuts nothing fails here. On every push: the teeth. Every night, as
`long`: the other contrasts.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import pytest

from mqtest import faults
from mqtest.event_log import events_path, load_events
from mqtest.ledger import load_receipts
from mqtest.model import Cell, Output, Replay, Verdict, Workload
from tests.cells import REAL, changed, make_cell, run_cell

pytestmark = [pytest.mark.docker, pytest.mark.timeout(600)]


def test_fsync_before_the_ack_is_what_saves_kafka(tmp_path: Path) -> None:
    """acks-all-fsync without its flush key is acks-all, and loses."""
    profile = changed("kafka/acks-all-fsync", "broker", log__flush__interval__messages=None)
    judged = run_cell(tmp_path, make_cell(profile, "power-cut:all"))
    assert judged.row["lost"] > 0


@pytest.mark.long
def test_fsync_before_the_ack_is_what_saves_a_quorum_queue(tmp_path: Path) -> None:
    profile = changed("rabbitmq/quorum", "advanced", ra__wal_sync_method="none")
    judged = run_cell(tmp_path, make_cell(profile, "power-cut:all"))
    assert judged.row["lost"] > 0


def test_a_power_cut_that_only_kills_is_invalid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    only_kills = replace(faults.FAULTS["power-cut"], do=faults.FAULTS["kill"].do)
    monkeypatch.setattr(faults, "FAULTS", MappingProxyType({**faults.FAULTS, "power-cut": only_kills}))
    judged = run_cell(tmp_path, make_cell("kafka/acks-all", "power-cut:all"))
    assert judged.verdict is Verdict.INVALID, judged.reason


@pytest.mark.long
@pytest.mark.parametrize("fault", ["pause:leader", "partition:leader"])
def test_a_fault_that_does_nothing_is_invalid(tmp_path: Path, fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    action = fault.partition(":")[0]
    idle = replace(faults.FAULTS[action], do=lambda _hit: {})
    monkeypatch.setattr(faults, "FAULTS", MappingProxyType({**faults.FAULTS, action: idle}))
    judged = run_cell(tmp_path, make_cell("rabbitmq/quorum", fault))
    assert judged.verdict is Verdict.INVALID, judged.reason


@pytest.mark.long
def test_an_isolated_leader_with_acks_1_loses_what_it_went_on_acknowledging(tmp_path: Path) -> None:
    judged = run_cell(tmp_path, make_cell("kafka/acks-1", "partition:leader", phases=replace(REAL, hold_s=15)))
    assert judged.verdict is Verdict.LOST_AS_DOCUMENTED, judged.reason
    assert judged.row["lost"] > 0


@pytest.mark.long
def test_a_killed_master_with_one_copy_loses(tmp_path: Path) -> None:
    """So many a second that some are always acknowledged and not yet replicated: at 1,000 once none was."""
    judged = run_cell(tmp_path, make_cell("rocketmq/async-flush", "kill:leader", workload=Workload(rate_per_s=5000)))
    assert judged.verdict is Verdict.LOST_AS_DOCUMENTED, judged.reason


@pytest.mark.long
def test_a_fatal_error_of_the_idempotent_producer_is_survived_by_a_new_epoch(tmp_path: Path) -> None:
    """Part of the log survives the cut, so the producer's sequence does not: it ends, and another goes on."""
    cell = make_cell("kafka/acks-all", "power-cut:all", phases=replace(REAL, sync_before_fault_s=2))
    judged = run_cell(tmp_path, cell)
    assert judged.verdict is Verdict.LOST_AS_DOCUMENTED, judged.reason
    clients = [e for e in load_events(events_path(tmp_path / "cells" / cell.id)) if e["event"] == "client"]
    assert any(e["state"] == "failed" for e in clients)
    assert max(e["epoch"] for e in clients if "producer" in e) >= 1


@pytest.mark.long
def test_a_transformer_that_dies_in_a_transaction_leaves_each_output_once(tmp_path: Path) -> None:
    """It was handed some inputs twice, for its transaction was aborted, and yet wrote no output twice."""
    workload = Workload(rate_per_s=500, transformers=1, consumers=0)
    cell = make_cell("kafka/transactional", "kill:transformers", workload=workload)
    judged = run_cell(tmp_path, cell)
    assert judged.verdict is Verdict.KEPT, judged.reason
    assert (judged.row["output_lost"], judged.row["output_doubled"], judged.row["output_phantom"]) == (0, 0, 0)
    handed = load_receipts(tmp_path / "cells" / cell.id / "ledger" / "transforms.0")
    assert (handed["producer"] == 0).sum() > judged.row["delivered"]


@pytest.mark.long
@pytest.mark.parametrize("profile", ["kafka/transactional", "rabbitmq/stream", "rocketmq/sync-flush-all-ack"])
def test_a_replay_is_complete_though_its_jobs_are_killed(tmp_path: Path, profile: str) -> None:
    judged = run_cell(tmp_path, replay_cell(profile, "kill:transformers"))
    assert judged.verdict is Verdict.KEPT, judged.reason
    figures = ("replay_missing", "replay_doubled", "replay_reordered", "amount_lost", "amount_doubled", "totals_wrong")
    assert [judged.row[name] for name in figures] == [0] * len(figures)
    assert judged.row["catch_up_per_s"] > judged.row["catch_up_live_per_s"] > 0
    assert judged.row["switch_gap_s"] > 0


@pytest.mark.long
@pytest.mark.parametrize("profile", ["rabbitmq/classic", "rabbitmq/quorum"])
def test_a_queue_cannot_replay(tmp_path: Path, profile: str) -> None:
    judged = run_cell(tmp_path, replay_cell(profile, "none"))
    assert judged.verdict is Verdict.LOST_AS_DOCUMENTED, judged.reason
    assert judged.row["replay_missing"] > judged.row["acked"] / 2
    assert judged.row["lost"] == 0


@pytest.mark.long
@pytest.mark.parametrize(
    ("output", "fault", "right"),
    [
        (Output.EXACTLY_ONCE, "kill:taskmanager", True),
        (Output.EXACTLY_ONCE, "kill:jobmanager", True),
        (Output.NONE, "kill:taskmanager", False),
    ],
)
def test_flinks_sums_are_right_exactly_once_alone(tmp_path: Path, output: Output, fault: str, right: bool) -> None:
    """When a part of it is killed. A job that keeps nothing comes to wrong sums, in its output and on the dashboard."""
    pytest.importorskip("chdb")
    cell = replay_cell("kafka/acks-all-fsync-committed", fault)
    assert cell.replay is not None
    replay = replace(cell.replay, runs_on="flink", dashboard=True, output=output)
    judged = run_cell(tmp_path, replace(cell, replay=replay))
    assert judged.row["fault_bit"] is True
    figures = ("amount_lost", "amount_doubled", "totals_wrong", "table_lost", "table_doubled", "table_wrong")
    wrong = {name: judged.row[name] for name in figures if judged.row[name] != 0}
    if right:
        assert (judged.verdict, wrong) == (Verdict.KEPT, {}), judged.reason
    else:
        assert judged.verdict is Verdict.LOST_AS_DOCUMENTED, judged.reason
        assert wrong["amount_lost"] > 0
        assert wrong["table_wrong"] > 0


def replay_cell(profile: str, fault: str) -> Cell:
    workload = Workload(rate_per_s=500, transformers=2, consumers=0)
    replay = Replay(history_s=8, history_per_s=2000, keys=10, window_s=2, output=Output.EXACTLY_ONCE)
    return make_cell(profile, fault, workload=workload, replay=replay)


def test_a_misspelt_setting_is_named(tmp_path: Path) -> None:
    profile = changed("kafka/acks-all", "broker", log__flush__intervall__messages=1)
    judged = run_cell(tmp_path, make_cell(profile, "none"))
    assert judged.verdict is Verdict.UNKNOWN
    assert "log.flush.intervall.messages" in judged.reason
