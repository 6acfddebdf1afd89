"""Faults: undo belongs to do, and evidence comes from the cluster, never from what was asked."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from random import Random
from typing import Any, cast

import pytest

from mqtest.brokers import Broker
from mqtest.cluster import Cluster, Evidence
from mqtest.errors import ClusterError
from mqtest.fault_run import FaultRun
from mqtest.faults import FAULTS, Action, Hit, inject
from mqtest.model import Fault, Node, Step, Value
from mqtest.targets import TARGETS, Stand
from mqtest.workload import Role
from mqtest.workload.processes import Workers


def recorded(word: str, evidence: Evidence) -> Callable[..., Evidence]:
    """A method that writes down the word, the names and the numbers that it is given."""

    def act(self: RecordingCluster, names: Sequence[str], *numbers: object) -> Evidence:
        self.done.append(" ".join([word, *names, *map(str, numbers)]))
        return evidence

    return act


class RecordingCluster:
    """Three brokers and a coordinator that only write down what is done to them."""

    nodes = (Node("a-1", "x"), Node("a-2", "x"), Node("a-3", "x"), Node("ns-1", "x", "coordinator"))
    image: Mapping[str, str] = {}

    def __init__(self, *, forgets: bool = True, dies: bool = True) -> None:
        self.done: list[str] = []
        self._forgets = forgets
        self._dies = dies

    def kill(self, names: Sequence[str]) -> Evidence:
        self.done.append(f"kill {' '.join(names)}")
        if not self._dies:
            raise ClusterError("will not die")
        return {"exit_code": dict.fromkeys(names, 137)}

    def stop(self, names: Sequence[str]) -> Evidence:
        self.done.append(f"stop {' '.join(names)}")
        return {"exit_code": dict.fromkeys(names, 143)}

    def pause(self, names: Sequence[str]) -> Evidence:
        self.done.append(f"pause {' '.join(names)}")
        return {"state": dict.fromkeys(names, "paused")}

    def unpause(self, names: Sequence[str]) -> None:
        self.done.append(f"unpause {' '.join(names)}")

    def start(self, names: Sequence[str]) -> None:
        self.done.append(f"start {' '.join(names)}")

    def cut_power(self, names: Sequence[str]) -> Evidence:
        self.done.append(f"cut {' '.join(names)}")
        return {"spread_ms": 4.0}

    def forgotten(self, names: Sequence[str]) -> Evidence:
        self.done.append(f"forgotten {' '.join(names)}")
        return {"witness": "old"} if self._forgets else {}

    def isolate(self, names: Sequence[str], peers: Sequence[str], *, direction: str = "both", tag: str) -> Evidence:
        self.done.append(f"isolate {' '.join(names)} {direction} from {' '.join(peers)} as {tag}")
        return {"rules": 6}

    def rejoin(self, tag: str) -> Evidence:
        self.done.append(f"rejoin {tag}")
        return {"dropped": 17}

    def keep_packets(self, tag: str) -> Evidence:
        self.done.append(f"keep {tag}")
        return {"dropped": 9}

    lose_packets = recorded("lose", {"rules": 2})
    fill_disk = recorded("fill", {"probe": "ENOSPC"})
    free_disk = recorded("free", {"free_bytes": 1})
    fail_disk = recorded("fail", {"probe": "EIO"})
    stall_disk = recorded("stall", {"state": "frozen"})
    thaw_disk = recorded("thaw", {"stalled_ms": 5})
    slow_disk = recorded("slow", {"cycle_ms": 100})
    unslow_disk = recorded("unslow", {"cycles": 3})
    jump_clock = recorded("jump", {"offset_s": -5.1})
    reset_clock = recorded("reset", {"offset_s": 0.0})


class LeaderBroker:
    def __init__(self, leader: str | None) -> None:
        self._leader = leader

    def leader(self, place: int) -> str | None:
        assert place == 0
        return self._leader

    def controller(self) -> str | None:
        return self._leader


class RecordingWorkers:
    def __init__(self, cluster: RecordingCluster) -> None:
        self._cluster = cluster

    def names(self, role: Role) -> list[str]:
        return [f"{role} 0", f"{role} 1"]

    def crash(self, role: Role) -> Evidence:
        self._cluster.done.append(f"crash {role}")
        return {"exit_code": {f"{role} 0": -9}}

    def revive(self, role: Role) -> None:
        self._cluster.done.append(f"revive {role}")


def stand(recording: RecordingCluster, leader: str | None = "a-2", seed: int = 1) -> Stand:
    return Stand(
        cluster=cast("Cluster", recording),
        broker=cast("Broker", LeaderBroker(leader)),
        workers=cast("Workers", RecordingWorkers(recording)),
        rng=Random(seed),
        await_ready=lambda: recording.done.append("ready"),
    )


def hit(recording: RecordingCluster, *names: str, target: str = "one") -> Hit:
    return Hit(stand=stand(recording), target=target, names=names, settings={}, tag="0")


def test_kill_is_undone_and_proven_by_exit_codes() -> None:
    recording = RecordingCluster()
    with inject(FAULTS["kill"], hit(recording, "a-1")) as injection:
        assert injection.evidence == {"exit_code": {"a-1": 137}}
        assert recording.done == ["kill a-1"]
        injection.heal()
        assert injection.prove() == {"exit_code": {"a-1": 137}}
    assert recording.done == ["kill a-1", "start a-1"], "healed once"


def test_undo_runs_when_do_fails_and_when_the_body_fails() -> None:
    recording = RecordingCluster(dies=False)
    with pytest.raises(ClusterError), inject(FAULTS["kill"], hit(recording, "a-1")):
        raise AssertionError("not reached")
    assert recording.done == ["kill a-1", "start a-1"]
    recording = RecordingCluster()
    with pytest.raises(KeyboardInterrupt), inject(FAULTS["kill"], hit(recording, "a-1")):
        raise KeyboardInterrupt
    assert recording.done == ["kill a-1", "start a-1"]


@pytest.mark.parametrize(("forgets", "evidence"), [(True, {"witness": "old"}), (False, {})])
def test_a_power_cut_is_proven_only_by_what_was_forgotten(forgets: bool, evidence: Evidence) -> None:
    recording = RecordingCluster(forgets=forgets)
    with inject(FAULTS["power-cut"], hit(recording, "a-1", "a-2")) as injection:
        assert injection.evidence == {}
        assert injection.detail == {"spread_ms": 4.0}
        injection.heal()
        assert injection.prove() == evidence
    assert recording.done == ["cut a-1 a-2", "start a-1 a-2", "forgotten a-1 a-2"]


@pytest.mark.parametrize(
    ("action", "settings", "at_once", "evidence", "done"),
    [
        ("partition", {}, {}, {"dropped": 17}, ["isolate a-2 both from a-1 a-3 ns-1 as 0", "rejoin 0"]),
        ("partition-one-way", {}, {}, {"dropped": 17}, ["isolate a-2 in from a-1 a-3 ns-1 as 0", "rejoin 0"]),
        (
            "partition-one-way",
            {"direction": "out"},
            {},
            {"dropped": 17},
            ["isolate a-2 out from a-1 a-3 ns-1 as 0", "rejoin 0"],
        ),
        ("partition-bridge", {}, {}, {"dropped": 17}, ["isolate a-2 both from a-3 ns-1 as 0", "rejoin 0"]),
        ("partition-clients", {}, {}, {"dropped": 17}, ["isolate a-2 both from host as 0", "rejoin 0"]),
        ("packet-loss", {"percent": 5}, {}, {"dropped": 9}, ["lose a-2 5.0 0", "keep 0"]),
        ("disk-full", {}, {"probe": "ENOSPC"}, {"probe": "ENOSPC"}, ["fill a-2", "free a-2", "start a-2"]),
        ("disk-failing", {}, {"probe": "EIO"}, {"probe": "EIO"}, ["fail a-2", "kill a-2", "start a-2"]),
        ("disk-stalled", {}, {}, {"stalled_ms": 5}, ["stall a-2", "thaw a-2", "start a-2"]),
        ("clock-jump", {"seconds": -5}, {"offset_s": -5.1}, {"offset_s": -5.1}, ["jump a-2 -5.0", "reset a-2"]),
        ("disk-slow", {"free_ms": 7}, {}, {"cycles": 3}, ["slow a-2 80.0 7.0", "unslow a-2", "start a-2"]),
    ],
)
def test_what_an_action_does_and_what_proves_it(
    action: str, settings: dict[str, Value], at_once: Evidence, evidence: Evidence, done: list[str]
) -> None:
    recording = RecordingCluster()
    on = replace(hit(recording, "a-2"), settings={**FAULTS[action].settings, **settings})
    with inject(FAULTS[action], on) as injection:
        assert injection.evidence == at_once
        injection.heal()
        assert injection.prove() == evidence
    assert recording.done == done


def test_a_kill_of_workers_hits_them_and_no_node() -> None:
    recording = RecordingCluster()
    with inject(FAULTS["kill"], hit(recording, "producer 0", target="producers")) as injection:
        assert injection.evidence == {"exit_code": {"producer 0": -9}}
    assert recording.done == ["crash producer", "revive producer"]


def test_a_rolling_restart_awaits_each_node_before_the_next() -> None:
    recording = RecordingCluster()
    with inject(FAULTS["rolling-restart"], hit(recording, "a-1", "a-2")) as injection:
        assert injection.evidence["exit_code"] == {"a-1": 143, "a-2": 143}
        (began, ended), (next_began, next_ended) = (injection.evidence["turns"][name] for name in ("a-1", "a-2"))
        assert began < ended <= next_began < next_ended
    assert recording.done == ["stop a-1", "start a-1", "ready", "stop a-2", "start a-2", "ready", "start a-1 a-2"]


def test_a_do_step_that_does_nothing_leaves_no_evidence() -> None:
    recording = RecordingCluster()
    for name in ("kill", "stop", "pause"):
        idle = replace(FAULTS[name], do=lambda _hit: {}, undo=lambda _hit: {})
        with inject(idle, hit(recording, "a-1")) as injection:
            injection.heal()
            assert injection.prove() == {}


def drawn(target: str, hit_before: Sequence[str] = ()) -> set[tuple[str, ...]]:
    """What 60 seeds make of a target."""
    found = set()
    for seed in range(60):
        on = stand(RecordingCluster(), seed=seed)
        if hit_before:
            on.hit.append(hit_before)
        found.add(tuple(TARGETS[target](on)))
    return found


@pytest.mark.parametrize(
    ("target", "names"),
    [
        ("leader", {("a-2",)}),
        ("follower", {("a-1",), ("a-3",)}),
        ("controller", {("a-2",)}),
        ("one", {("a-1",), ("a-2",), ("a-3",)}),
        ("minority", {("a-1",), ("a-2",), ("a-3",)}),
        ("majority", {("a-1", "a-2"), ("a-1", "a-3"), ("a-2", "a-3")}),
        ("all", {("a-1", "a-2", "a-3", "ns-1")}),
        ("producers", {("producer 0", "producer 1")}),
        ("consumers", {("consumer 0", "consumer 1")}),
    ],
)
def test_targets(target: str, names: set[tuple[str, ...]]) -> None:
    assert drawn(target) == names


def test_targets_that_look_at_the_step_before() -> None:
    assert drawn("same", ["a-3"]) == {("a-3",)}
    assert drawn("other", ["a-3"]) == {("a-1",), ("a-2",)}
    assert {len(names) for names in drawn("random")} == {1, 2, 3}


@pytest.mark.parametrize(("target", "message"), [("leader", "no leader"), ("controller", "no controller")])
def test_a_target_that_is_not_there(target: str, message: str) -> None:
    with pytest.raises(ClusterError, match=message):
        TARGETS[target](stand(RecordingCluster(), leader=None))


def test_nobody_before_and_nobody_left() -> None:
    on = stand(RecordingCluster())
    with pytest.raises(ClusterError, match="no step before"):
        TARGETS["same"](on)
    on.hit.append(["a-1", "a-2", "a-3"])
    with pytest.raises(ClusterError, match="not 1 nodes"):
        TARGETS["other"](on)


def test_the_same_seed_hits_the_same() -> None:
    for target in ("one", "follower", "minority", "random"):
        assert TARGETS[target](stand(RecordingCluster(), seed=7)) == TARGETS[target](stand(RecordingCluster(), seed=7))


def test_every_target_of_every_action_is_known() -> None:
    assert {t for action in FAULTS.values() for t in action.targets} == set(TARGETS)


class Log:
    """A teller that lets no time pass."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        self.phases: list[str] = []
        self.waited: list[float] = []

    def event(self, event: str, **fields: Any) -> None:
        self.events.append({"event": event, **fields})

    def phase(self, name: str) -> None:
        self.phases.append(name)

    def last(self, seconds: float) -> None:
        self.waited.append(round(max(0.0, seconds)))


def run(recording: RecordingCluster, fault: Fault, hold_s: float = 6.0) -> Log:
    log = Log()
    FaultRun(stand(recording, leader="a-1"), log, fault, hold_s, {}).run()
    return log


def test_a_single_step_writes_its_four_events() -> None:
    recording = RecordingCluster()
    log = run(recording, Fault("kill:leader", ((Step("kill", "leader"),),)))
    assert recording.done == ["kill a-1", "start a-1", "ready"]
    assert log.phases == ["fault", "heal", "recover"]
    assert log.waited == [0, 6]
    steps = [event for event in log.events if event["event"] == "fault"]
    assert [event["step"] for event in steps] == ["inject", "injected", "heal", "healed"]
    assert {(event["part"], event["action"], tuple(event["target"])) for event in steps} == {(0, "kill", ("a-1",))}
    assert steps[1]["evidence"] == steps[3]["evidence"] == {"exit_code": {"a-1": 137}}
    assert "t_ns" in steps[3]


@pytest.mark.parametrize(("action", "at_once"), [("rolling-restart", True), ("restart", True), ("kill", False)])
def test_what_is_over_when_it_is_done_counts_from_its_begin(action: str, at_once: bool) -> None:
    log = run(RecordingCluster(), Fault(f"{action}:one", ((Step(action, "one"),),)))
    inject, injected = (e["t_ns"] for e in log.events if e["event"] == "fault" and e["step"] in ("inject", "injected"))
    assert (injected == inject) is at_once


def test_steps_that_overlap_are_done_and_undone_at_their_times() -> None:
    recording = RecordingCluster()
    steps = (
        Step("pause", "leader", for_s=9),
        Step("power-cut", "other", at_s=3, for_s=2),
        Step("kill", "same", at_s=20),
    )
    log = run(recording, Fault("x", (steps,)), hold_s=1)
    other = recording.done[1].removeprefix("cut ")
    assert other in ("a-2", "a-3")
    assert recording.done == [
        "pause a-1",
        f"cut {other}",
        f"start {other}",
        "unpause a-1",
        f"kill {other}",
        f"start {other}",
        "ready",
        f"forgotten {other}",
    ]
    assert log.waited == [0, 3, 5, 9, 20, 21]
    assert [(e["part"], e["step"]) for e in log.events if e["event"] == "fault" and e["step"] == "healed"] == [
        (0, "healed"),
        (1, "healed"),
        (2, "healed"),
    ]


def test_groups_recover_in_between_and_share_the_phases() -> None:
    recording = RecordingCluster()
    group = (Step("kill", "leader", for_s=1),)
    log = run(recording, Fault("x", (group, group), every_s=30))
    assert recording.done == ["kill a-1", "start a-1", "ready"] * 2
    assert log.phases == ["fault", "heal", "recover"]
    assert log.waited == [0, 1, 30, 0, 1]
    assert [e["part"] for e in log.events if e.get("step") == "inject"] == [0, 1]
    assert [e["event"] for e in log.events].count("recovered") == 2


def test_everything_in_force_is_undone_when_a_later_step_fails() -> None:
    recording = RecordingCluster(dies=False)
    steps = (Step("pause", "leader"), Step("kill", "other", at_s=1))
    with pytest.raises(ClusterError, match="will not die"):
        run(recording, Fault("x", (steps,)))
    assert recording.done[-2].startswith("start a-")
    assert recording.done[-1] == "unpause a-1"


def test_the_numbers_of_an_action_come_from_the_scenario_over_its_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[dict[str, Any]] = []
    slow = Action(
        "", ("one",), lambda h: seen.append(dict(h.settings)) or {"bit": 1}, lambda _h: {}, settings={"ms": 5, "of": 9}
    )
    monkeypatch.setitem(cast("dict[str, Action]", FAULTS), "slow", slow)
    fault = Fault("slow:one", ((Step("slow", "one"),),))
    FaultRun(stand(RecordingCluster()), Log(), fault, 0, {"slow": {"ms": 7}}).run()
    assert seen == [{"ms": 7, "of": 9}]
