"""The parts of mqtest.cluster that decide without Docker: addresses, roles, whose process, which run is live."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from ipaddress import IPv4Network
from pathlib import Path

import pytest

from mqtest.cluster import leftovers, locks, network
from mqtest.cluster.agent_program.disks import clock_text
from mqtest.cluster.agent_program.proofs import containers
from mqtest.cluster.compose import _roles, disk_variable, project_name
from mqtest.cluster.engine import connect
from mqtest.cluster.leftovers import Removed, run_of_process
from mqtest.errors import ClusterError, EngineError, UsageError, WaitTimeout

POOL = IPv4Network("198.19.0.0/16")
FIB = """\
Main:
  +-- 0.0.0.0/0 3 0 4
     |-- 0.0.0.0
        /0 universe UNICAST
     +-- 172.17.0.0/16 2 0 2
        |-- 172.17.0.0
           /16 link UNICAST
        |-- 172.17.0.1
           /32 host LOCAL
     |-- 198.19.0.0
        /24 link UNICAST
        /16 universe UNREACHABLE
Local:
     |-- 198.19.0.1
        /32 host LOCAL
"""


def nets(*texts: str) -> list[IPv4Network]:
    return [IPv4Network(text) for text in texts]


# --- network ---


def test_routes_of_all_tables_without_default() -> None:
    expected = [
        ("172.17.0.0/16", "UNICAST"),
        ("172.17.0.1/32", "LOCAL"),
        ("198.19.0.0/24", "UNICAST"),
        ("198.19.0.0/16", "UNREACHABLE"),
        ("198.19.0.1/32", "LOCAL"),
    ]
    assert [(str(net), kind) for net, kind in network.routes(FIB)] == expected


@pytest.mark.parametrize(
    ("expected", "routes", "ours", "theirs"),
    [
        (None, [], [], []),
        (None, [("198.19.0.0/16", "UNREACHABLE")], [], []),
        (None, [("198.19.7.0/24", "UNICAST"), ("198.19.7.1/32", "LOCAL")], ["198.19.7.0/24"], []),
        (None, [("172.17.0.0/16", "UNICAST")], [], ["172.17.0.0/16"]),
        ("a route to 198.19.7.0/24", [("198.19.7.0/24", "UNICAST")], ["198.19.8.0/24"], []),
        ("a route to 198.18.0.0/15", [("198.18.0.0/15", "UNICAST")], [], []),
        ("a route to 198.19.0.0/16", [("198.19.0.0/16", "UNICAST")], [], []),
        ("a route to 198.19.0.0/17", [("198.19.0.0/17", "UNREACHABLE")], [], []),
        ("the Docker network 198.19.3.0/24", [], [], ["198.19.3.0/24"]),
    ],
)
def test_what_overlaps_the_pool(
    expected: str | None, routes: list[tuple[str, str]], ours: list[str], theirs: list[str]
) -> None:
    seen = [(IPv4Network(net), kind) for net, kind in routes]
    assert network.foreign(POOL, seen, nets(*ours), nets(*theirs)) == expected


def test_the_one_free_subnet_is_chosen() -> None:
    taken = [net for net in POOL.subnets(new_prefix=24) if str(net) not in ("198.19.77.0/24", "198.19.255.0/24")]
    assert network.choose(POOL, taken, "any") == IPv4Network("198.19.77.0/24")


def test_no_free_subnet_is_an_error_and_the_one_for_by_hand_is_never_taken() -> None:
    taken = [net for net in POOL.subnets(new_prefix=24) if str(net) != "198.19.255.0/24"]
    with pytest.raises(UsageError, match=r"no /24 of the pool 198\.19\.0\.0/16 is free"):
        network.choose(POOL, taken, "any")


def test_the_choice_depends_on_the_seed_alone() -> None:
    chosen = [network.choose(POOL, [], seed) for seed in ("a", "a", "b")]
    assert chosen[0] == chosen[1]
    assert chosen[0] != chosen[2]


@pytest.mark.parametrize("text", ["8.8.0.0/16", "198.19.0.0/24", "198.19.0.1/16", "everything"])
def test_a_pool_that_is_none(text: str) -> None:
    with pytest.raises(UsageError, match="MQTEST_POOL="):
        network.pool({"MQTEST_POOL": text})


def test_pools() -> None:
    assert network.pool({}) == POOL
    assert network.pool({"MQTEST_POOL": "10.9.0.0/20"}) == IPv4Network("10.9.0.0/20")


# --- proofs ---

ID = "0123456789abcdef" * 4
OTHER = "fedcba9876543210" * 4


@pytest.mark.parametrize(
    ("expected", "cgroup"),
    [
        ({ID}, f"9:name=systemd:/docker/{ID}\n8:pids:/docker/{ID}\n0::/\n"),
        ({ID}, f"0::/system.slice/docker-{ID}.scope\n"),
        ({ID}, f"0::/../docker-{ID}.scope\n"),
        ({OTHER}, f"0::/docker/{ID}/docker/{OTHER}\n"),
        (set(), f"0::/docker/{ID}/init.scope\n"),
        (set(), f"0::/docker/{ID[:12]}\n"),
        (set(), f"0::/docker/{ID}0\n"),
        (set(), "0::/user.slice/user-1000.slice\n"),
        (set(), ""),
    ],
)
def test_containers_that_a_cgroup_names(expected: set[str], cgroup: str) -> None:
    assert containers(cgroup) == expected


# --- compose ---


def test_roles_are_the_first_brokers_and_all_others() -> None:
    services = ["kafka-1", "kafka-2", "kafka-3", "names-1"]
    assert _roles(services, "kafka", 2) == {"kafka-1": "broker", "kafka-2": "broker", "names-1": "coordinator"}


def test_roles_of_too_many_nodes() -> None:
    with pytest.raises(ClusterError, match="has not 3 services kafka-1"):
        _roles(["kafka-1", "kafka-2"], "kafka", 3)


def test_disk_variable() -> None:
    assert disk_variable("rocketmq-ns-1") == "MQTEST_DISK_ROCKETMQ_NS_1"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [(b"+00000000000.000\n", 0), (b"+00000003600.000\n", 3600), (b"-00000000000.500\n", -0.5)],
)
def test_clock_texts_are_of_one_length(text: bytes, seconds: float) -> None:
    assert clock_text(seconds) == text


def test_project_names_are_what_docker_takes_and_differ_by_run_and_cell() -> None:
    cell = "003-kafka-acks-all-power-cut-all-1-and-much-more-text"
    names = {project_name(run, cell + end) for run in ("r1", "r2") for end in ("", "x")}
    assert len(names) == 4
    assert all(name.startswith("mqtest-003-kafka-acks-all-power-cut-") and len(name) < 60 for name in names)


# --- leftovers ---

WORKER = b"/x/python\0-m\0mqtest.workload\0"


@pytest.mark.parametrize(
    ("expected", "cmdline", "environ"),
    [
        ("r1", WORKER, b"HOME=/\0MQTEST_RUN=r1\0"),
        ("r1", b"docker\0compose\0-f\0compose.yaml\0up\0--detach\0", b"MQTEST_RUN=r1\0"),
        (None, WORKER, b"HOME=/\0"),
        (None, WORKER, b"MQTEST_RUN=\0"),
        (None, WORKER, b"NOT_MQTEST_RUN=r1\0"),
        (None, b"/bin/bash\0", b"MQTEST_RUN=r1\0"),
        (None, b"python\0-m\0mqtest.workload.other\0", b"MQTEST_RUN=r1\0"),
        (None, b"vi\0-m mqtest.workload\0", b"MQTEST_RUN=r1\0"),
    ],
)
def test_whose_process(expected: str | None, cmdline: bytes, environ: bytes) -> None:
    assert run_of_process(cmdline, environ) == expected


def test_removed_in_words() -> None:
    assert str(Removed()) == "nothing"
    assert str(Removed(processes=1, containers=3, loop_devices=1)) == "1 process, 3 containers, 1 loop device"


# --- locks ---


def test_a_run_is_live_while_its_lock_is_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert locks.live_runs() == set()
    with locks.RunLock("r1"):
        assert locks.live_runs() == {"r1"}
        with locks.RunLock("r2"):
            assert locks.live_runs() == {"r1", "r2"}
    assert locks.live_runs() == set()
    assert list(tmp_path.rglob("*.lock")) == []


def test_a_killed_run_is_dead_and_its_file_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    program = "from mqtest.cluster.locks import RunLock\nwith RunLock('r1'):\n    print('held', flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        assert locks.live_runs() == {"r1"}
        process.kill()
        process.wait(10)
    assert len(list(tmp_path.rglob("*.lock"))) == 1
    assert locks.live_runs() == set()
    assert list(tmp_path.rglob("*.lock")) == []


def test_one_lock_is_not_held_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    with locks.RunLock("r1"), pytest.raises(WaitTimeout, match="the lock of run r1"), locks.RunLock("r1", take_s=0.1):
        pass


# --- the engine, and who is spared ---


@pytest.mark.usefixtures("no_engine")
def test_an_engine_that_is_not_there_is_one_line() -> None:
    with pytest.raises(EngineError, match="no Docker engine answers"):
        connect()


@pytest.mark.parametrize(
    ("removed", "all_runs", "by_hand"),
    [
        ({"dead", "by-hand", "up-kafka"}, False, True),
        ({"dead"}, False, False),
        ({"dead", "live", "by-hand", "up-kafka"}, True, True),
    ],
)
def test_whom_clean_removes(removed: set[str], all_runs: bool, by_hand: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    picked: set[str] = set()

    def remove_runs(dead: Callable[[str], bool], progress: Callable[[str], None]) -> Removed:
        picked.update(run for run in ("dead", "live", "by-hand", "up-kafka") if dead(run))
        return Removed()

    monkeypatch.setattr(leftovers, "live_runs", lambda: {"live"})
    monkeypatch.setattr(leftovers, "remove_runs", remove_runs)
    leftovers.clean(all_runs=all_runs, by_hand=by_hand, progress=print)
    assert picked == removed
