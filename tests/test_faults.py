"""Faults: undo belongs to do, and evidence comes from the cluster, never from what was asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from random import Random
from typing import cast

import pytest

from mqtest.brokers import Broker
from mqtest.cluster import Cluster, Evidence
from mqtest.errors import ClusterError, UsageError
from mqtest.faults import FAULTS, TARGETS, inject, parse_fault
from mqtest.model import Fault, Node


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

    def start(self, names: Sequence[str]) -> None:
        self.done.append(f"start {' '.join(names)}")

    def cut_power(self, names: Sequence[str]) -> Evidence:
        self.done.append(f"cut {' '.join(names)}")
        return {"spread_ms": 4.0}

    def forgotten(self, names: Sequence[str]) -> Evidence:
        self.done.append(f"forgotten {' '.join(names)}")
        return {"witness": "old"} if self._forgets else {}

    def isolate(self, names: Sequence[str], peers: Sequence[str]) -> Evidence:
        self.done.append(f"isolate {' '.join(names)} from {' '.join(peers)}")
        return {"rules": 6}

    def rejoin(self) -> Evidence:
        self.done.append("rejoin")
        return {"dropped": 17}


class LeaderBroker:
    def __init__(self, leader: str | None) -> None:
        self._leader = leader

    def leader(self, place: int) -> str | None:
        assert place == 0
        return self._leader


def cluster_of(recording: RecordingCluster) -> Cluster:
    return cast("Cluster", recording)


def test_kill_is_undone_and_proven_by_exit_codes() -> None:
    recording = RecordingCluster()
    with inject(FAULTS["kill"], cluster_of(recording), ["a-1"]) as injection:
        assert injection.evidence == {"exit_code": {"a-1": 137}}
        assert recording.done == ["kill a-1"]
        injection.heal()
        assert injection.prove() == {"exit_code": {"a-1": 137}}
    assert recording.done == ["kill a-1", "start a-1"], "healed once"


def test_undo_runs_when_do_fails_and_when_the_body_fails() -> None:
    recording = RecordingCluster(dies=False)
    with pytest.raises(ClusterError), inject(FAULTS["kill"], cluster_of(recording), ["a-1"]):
        raise AssertionError("not reached")
    assert recording.done == ["kill a-1", "start a-1"]
    recording = RecordingCluster()
    with pytest.raises(KeyboardInterrupt), inject(FAULTS["kill"], cluster_of(recording), ["a-1"]):
        raise KeyboardInterrupt
    assert recording.done == ["kill a-1", "start a-1"]


@pytest.mark.parametrize(("forgets", "evidence"), [(True, {"witness": "old"}), (False, {})])
def test_a_power_cut_is_proven_only_by_what_was_forgotten(forgets: bool, evidence: Evidence) -> None:
    recording = RecordingCluster(forgets=forgets)
    with inject(FAULTS["power-cut"], cluster_of(recording), ["a-1", "a-2"]) as injection:
        assert injection.evidence == {}
        assert injection.detail == {"spread_ms": 4.0}
        injection.heal()
        assert injection.prove() == evidence
    assert recording.done == ["cut a-1 a-2", "start a-1 a-2", "forgotten a-1 a-2"]


def test_a_partition_is_proven_by_dropped_packets() -> None:
    recording = RecordingCluster()
    with inject(FAULTS["partition"], cluster_of(recording), ["a-2"]) as injection:
        assert injection.evidence == {}
        injection.heal()
        assert injection.prove() == {"dropped": 17}
    assert recording.done == ["isolate a-2 from a-1 a-3 ns-1", "rejoin"]


def test_a_do_step_that_does_nothing_leaves_no_evidence() -> None:
    recording = RecordingCluster()
    for name in ("kill", "stop", "pause"):
        idle = replace(FAULTS[name], do=lambda _cluster, _names: {}, undo=lambda _cluster, _names: {})
        with inject(idle, cluster_of(recording), ["a-1"]) as injection:
            injection.heal()
            assert injection.prove() == {}


def test_targets() -> None:
    cluster = cluster_of(RecordingCluster())
    broker = cast("Broker", LeaderBroker("a-2"))
    assert TARGETS["leader"](cluster, broker, Random(1)) == ["a-2"]
    assert TARGETS["all"](cluster, broker, Random(1)) == ["a-1", "a-2", "a-3", "ns-1"]
    hit = {TARGETS["one"](cluster, broker, Random(seed))[0] for seed in range(50)}
    assert hit == {"a-1", "a-2", "a-3"}, "any broker, never a coordinator"
    assert TARGETS["one"](cluster, broker, Random(7)) == TARGETS["one"](cluster, broker, Random(7))
    with pytest.raises(ClusterError, match="no leader"):
        TARGETS["leader"](cluster, cast("Broker", LeaderBroker(None)), Random(1))


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("none", Fault("none", "")),
        ("kill:leader", Fault("kill", "leader")),
        ("power-cut:all", Fault("power-cut", "all")),
    ],
)
def test_parse(text: str, fault: Fault) -> None:
    assert parse_fault(text, "x") == fault
    assert str(fault) == text


@pytest.mark.parametrize("text", ["", "kil", "kill", "kill:", "kill:nobody", "none:all", "partition:all"])
def test_parse_rejects(text: str) -> None:
    with pytest.raises(UsageError, match=r"^file: key: .*(allowed: )"):
        parse_fault(text, "file: key")


def test_every_target_of_every_action_is_known() -> None:
    assert {t for action in FAULTS.values() for t in action.targets} == set(TARGETS)
