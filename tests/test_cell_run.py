"""Whole cells on the memory broker: from a profile and a fault to a verdict, with real processes and a real ledger.

Each costs a second or two. What a cell of `self-test` shows as well stands in test_self_test.py.
"""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import pytest

from mqtest import cell_run, faults
from mqtest.brokers.memory import MemoryBroker
from mqtest.clients import client
from mqtest.cluster.memory import MemoryCluster
from mqtest.errors import ClusterError, EngineError
from mqtest.event_log import events_path, load_events
from mqtest.ledger import read_cell
from mqtest.load import counted
from mqtest.model import Consume, Verdict, Workload
from mqtest.schedule import ScheduleTable, StepTable, parse_schedule
from tests.cells import QUICK, changed, make_cell, run_cell

LIVE = Workload(rate_per_s=2000, consume=Consume.LIVE)
SHORT = replace(QUICK, warm_up_s=0.1, steady_s=0.1, hold_s=0.1, after_s=0.1)
"""for cells whose verdict does not depend on how much was sent"""


@pytest.mark.parametrize("profile", ["memory/log-safe", "memory/queue-safe"])
def test_safe_profiles_keep_everything_when_stopped(tmp_path: Path, profile: str) -> None:
    judged = run_cell(tmp_path, make_cell(profile, "stop:leader"))
    assert (judged.verdict, judged.reason) == (Verdict.KEPT, judged.reason)
    assert judged.row["acked"] > 500
    assert judged.row["lost"] == judged.row["reordered"] == judged.row["phantom"] == judged.row["foreign"] == 0
    assert judged.row["fault_bit"] is True
    assert judged.row["audit_complete"] is True


def test_a_lying_log_is_broken(tmp_path: Path) -> None:
    judged = run_cell(tmp_path, make_cell("memory/log-lying", "kill:leader"))
    assert judged.verdict is Verdict.BROKEN


def test_live_consumers_have_read_what_is_lost(tmp_path: Path) -> None:
    judged = run_cell(tmp_path, make_cell("memory/log-lossy", "power-cut:all", workload=LIVE))
    assert judged.verdict is Verdict.LOST_AS_DOCUMENTED
    assert judged.row["read_then_lost"] > 0
    assert judged.row["lost_on_disk"] == 0, "the log was cut off"


def test_disks_that_cannot_be_searched_cost_one_figure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def silent(_cluster: MemoryCluster, _run_number: int, _size: int) -> None:
        raise EngineError("no answer within 50 s")

    monkeypatch.setattr(MemoryCluster, "messages_on_disk", silent)
    judged = run_cell(tmp_path, make_cell("memory/log-lossy", "power-cut:all", workload=LIVE))
    assert judged.verdict is Verdict.LOST_AS_DOCUMENTED
    assert (judged.row["lost"] > 0, judged.row["lost_on_disk"]) == (True, None)


@pytest.mark.parametrize("profile", ["memory/log-safe", "memory/queue-safe"])
def test_live_consumers_without_a_fault_show_no_duplicate_and_no_disorder(tmp_path: Path, profile: str) -> None:
    judged = run_cell(tmp_path, make_cell(profile, "none", workload=replace(LIVE, producers=2)))
    assert judged.verdict is Verdict.KEPT
    figures = ("stored_twice", "redelivered", "redelivered_unflagged", "reordered", "offset_divergence")
    assert [judged.row[f] or 0 for f in figures] == [0, 0, 0, 0, 0]
    assert judged.row["delivered_per_s"] > 0


@pytest.mark.parametrize("hasty", [True, False])
def test_a_hasty_cell_meets_a_cluster_at_its_first_start(
    tmp_path: Path, hasty: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    monkeypatch.setattr(MemoryBroker, "settle", lambda _broker: done.append("settled"))
    monkeypatch.setattr(MemoryCluster, "sync", lambda _cluster: done.append("synced"))
    run_cell(tmp_path, replace(make_cell("memory/log-safe", "none", phases=SHORT), hasty=hasty))
    assert done == ([] if hasty else ["settled", "synced"])


def test_a_closed_loop(tmp_path: Path) -> None:
    cell = make_cell("memory/log-safe", "none", workload=Workload(rate_per_s=None, window=100), phases=SHORT)
    judged = run_cell(tmp_path, cell)
    assert judged.verdict is Verdict.KEPT
    assert judged.row["rate_asked_per_s"] is None
    assert judged.row["acked"] > 500


@pytest.mark.parametrize("action", ["kill", "stop", "pause", "power-cut"])
def test_a_fault_that_does_nothing_is_invalid(tmp_path: Path, action: str, monkeypatch: pytest.MonkeyPatch) -> None:
    idle = replace(faults.FAULTS[action], do=lambda _hit: {})
    monkeypatch.setattr(faults, "FAULTS", MappingProxyType({**faults.FAULTS, action: idle}))
    judged = run_cell(tmp_path, make_cell("memory/log-safe", f"{action}:all", phases=SHORT))
    assert judged.verdict is Verdict.INVALID
    assert judged.row["fault_bit"] is False


def test_a_power_cut_that_only_kills_is_invalid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kill = faults.FAULTS["kill"].do
    only_kills = replace(faults.FAULTS["power-cut"], do=kill)
    monkeypatch.setattr(faults, "FAULTS", MappingProxyType({**faults.FAULTS, "power-cut": only_kills}))
    judged = run_cell(tmp_path, make_cell("memory/log-safe", "power-cut:all", phases=SHORT))
    assert judged.verdict is Verdict.INVALID


@pytest.mark.parametrize("back", [True, False])
def test_a_cluster_that_does_not_come_back_is_dead_and_judged_after_a_restart_of_every_node(
    tmp_path: Path, back: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    ready, stop, stopped = MemoryBroker.await_ready, MemoryCluster.stop, list[str]()

    def out_of_sync(broker: MemoryBroker, timeout_s: float) -> None:
        if broken and not (back and stopped):
            raise ClusterError("a replica is out of sync")
        ready(broker, timeout_s)

    broken: list[bool] = []
    monkeypatch.setattr(MemoryBroker, "await_ready", out_of_sync)
    monkeypatch.setattr(MemoryCluster, "stop", lambda cluster, names: (stopped.extend(names), stop(cluster, names))[1])
    kill = faults.FAULTS["kill"]
    breaks = replace(kill, do=lambda hit: (broken.append(True), kill.do(hit))[1])
    monkeypatch.setattr(faults, "FAULTS", MappingProxyType({**faults.FAULTS, "kill": breaks}))
    judged = run_cell(tmp_path, make_cell("memory/log-safe", "kill:leader", phases=replace(SHORT, recover_s=0.3)))
    assert judged.verdict is Verdict.DEAD
    assert stopped == ["memory-1"]
    assert judged.reason.startswith("not in sync again within 0.3 s of the heal: a replica is out of sync")
    assert (
        judged.reason.endswith(f"after a restart of every node: 0 of {judged.row['acked']} acked messages lost") is back
    )
    assert judged.row["audit_complete"] is back


@pytest.mark.parametrize(("late", "unacked"), [(1, 0), (99, 2)])
def test_the_broker_is_asked_for_its_counts_until_nobody_holds_anything(late: int, unacked: int) -> None:
    asked: list[int] = []

    class Queue:
        def counts(self) -> dict[str, int]:
            asked.append(1)
            if len(asked) == 1:
                raise ClusterError("no answer yet")
            return {"ready": 0, "unacked": 0 if len(asked) > 1 + late else 2}

    assert counted(Queue(), timeout_s=1) == {"ready": 0, "unacked": unacked}  # type: ignore[arg-type]


def test_an_audit_that_stops_half_way_judges_no_loss(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Half:
        """The memory client with a reader that goes silent after 100 messages."""

        def __init__(self) -> None:
            self._real = client("memory")

        def __getattr__(self, name: str) -> object:
            return getattr(self._real, name)

        def open_reader(self, wiring: object, places: object) -> object:
            reader = self._real.open_reader(wiring, places)  # type: ignore[arg-type]
            poll, seen = reader.poll, [0]

            def half(timeout_s: float) -> object:
                if seen[0] == 100:
                    time.sleep(timeout_s)
                    return ()
                arrived = poll(timeout_s)[: 100 - seen[0]]
                seen[0] += len(arrived)
                return arrived

            reader.poll = half  # type: ignore[method-assign,assignment]
            return reader

    monkeypatch.setattr(cell_run, "client", lambda _name: Half())
    cell = make_cell("memory/log-safe", "none")
    judged = run_cell(tmp_path, replace(cell, phases=replace(SHORT, audit_s=0.5)))
    assert judged.verdict is Verdict.UNKNOWN
    assert judged.row["lost"] is None
    assert "fence" in judged.reason


@pytest.mark.parametrize(
    ("keys", "said"),
    [({"fsnyc": True}, "broker.fsnyc"), ({"delay_ms": "soon"}, "delay_ms")],
)
def test_a_setting_that_does_not_take_is_named(tmp_path: Path, keys: dict[str, bool | str], said: str) -> None:
    profile = changed("memory/log-safe", "broker", **keys)
    judged = run_cell(tmp_path, make_cell(profile, "none"))
    assert judged.verdict is Verdict.UNKNOWN
    assert said in judged.reason


SCHEDULE = parse_schedule(
    "twice",
    ScheduleTable(
        steps=[StepTable(do="kill:leader", for_s=0.1), StepTable(do="kill:producers", at_s=0.2, for_s=0.1)],
        repeat=2,
        every_s=0.5,
    ),
    "test",
)


def test_a_schedule_of_broker_and_producer_crashes_is_done_recovered_and_judged(tmp_path: Path) -> None:
    cell = replace(make_cell("memory/log-safe", "none"), fault=SCHEDULE)
    judged = run_cell(tmp_path, cell)
    assert judged.verdict is Verdict.KEPT, judged.reason
    folder = tmp_path / "cells" / cell.id
    record = read_cell(folder)
    assert record["fault"] == "twice"
    assert record["groups"] == [["kill:leader", "kill:producers"]] * 2
    assert record["schedule"][1] == "group 1 at 0.2 s: kill:producers for 0.1 s"
    events = load_events(events_path(folder))
    healed = [e for e in events if e["event"] == "fault" and e["step"] == "healed"]
    assert [(e["part"], e["action"], e["aim"]) for e in healed] == [
        (0, "kill", "leader"),
        (1, "kill", "producers"),
        (2, "kill", "leader"),
        (3, "kill", "producers"),
    ]
    assert all(e["evidence"] for e in healed)
    leaders = [e["node"] for e in events if e["event"] == "leader"]
    assert leaders[0] == "memory-1"
