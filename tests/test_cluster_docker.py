"""mqtest.cluster on a real engine, with tiny nodes: what is done to them, what is refused, what is left."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mqtest.clock import wait_until
from mqtest.cluster import agent as agents
from mqtest.cluster import disks, images, leftovers, network, powercut_control
from mqtest.cluster.agent import Agent
from mqtest.cluster.compose import ComposeCluster, bring_up
from mqtest.cluster.engine import connect, labels
from mqtest.cluster.images import Image
from mqtest.cluster.locks import RunLock, live_runs
from mqtest.errors import ClusterError, RefusedError

pytestmark = pytest.mark.docker
RECIPE = Path(__file__).with_name("cluster_recipe.yaml")
RUN = f"test-{os.getpid()}"
ALL = ["names-1", "node-1", "node-2", "node-3"]


def quiet(line: str) -> None:
    pass


def up(run: str, cell: str, *, nodes: int = 3, fs: str = "ext4", image: Image | None = None) -> ComposeCluster:
    return bring_up(
        broker="node",
        environment={"MQTEST_GREETING": "two words\n'quoted' $x"},
        image=image or images.ensure_agent(quiet),
        nodes=nodes,
        run=run,
        cell=cell,
        fs=fs,
        disk_mb=400,
        timeout_s=60,
        progress=quiet,
        recipe=RECIPE,
    )


@pytest.fixture(scope="module")
def run() -> Iterator[str]:
    with RunLock(RUN):
        try:
            yield RUN
        finally:
            leftovers.close_run(RUN, quiet)


@pytest.fixture(scope="module")
def agent(run: str) -> Iterator[Agent]:
    with contextlib.closing(agents.start(run, quiet)) as started:
        yield started


@pytest.fixture(scope="module")
def shared(run: str) -> Iterator[ComposeCluster]:
    cluster = up(run, "shared")
    cluster.sync()
    yield cluster
    cluster.down()


@pytest.fixture
def cluster(shared: ComposeCluster) -> ComposeCluster:
    """All nodes run, none is cut off."""
    shared.unpause(ALL)
    shared.start(ALL)
    shared.rejoin()
    return shared


def inside(cluster: ComposeCluster, node: str, *command: str) -> str:
    done: Any = cluster._container(node).exec_run(list(command))
    assert done.exit_code == 0, done.output
    return str(done.output.decode())


def reaches(cluster: ComposeCluster, node: str, peer: str) -> bool:
    program = "import socket, sys; socket.create_connection((sys.argv[1], 8000), timeout=1)"
    address = cluster._node(peer).address
    return bool(cluster._container(node).exec_run(["python3", "-c", program, address]).exit_code == 0)


def serves(cluster: ComposeCluster, node: str) -> bool:
    """As a client on the host sees it."""
    with contextlib.suppress(OSError), urllib.request.urlopen(f"http://{cluster._node(node).address}:8000", timeout=2):
        return True
    return False


def await_serving(cluster: ComposeCluster) -> None:
    wait_until(lambda: all(serves(cluster, name) for name in ALL), 20, "the nodes to serve")


def target(container: Any, data: str, pid: int | None = None) -> dict[str, Any]:
    container.reload()
    return {
        "name": "x",
        "container": container.id,
        "pid": container.attrs["State"]["Pid"] if pid is None else pid,
        "data": data,
    }


# --- the power cut ---


@pytest.mark.parametrize("fs", ["ext4", "xfs"])
def test_control_program(fs: str) -> None:
    expected = {
        "write and fsync": "kept",
        "write without fsync": "lost",
        "mmap and msync": "kept",
        "mmap without msync": "lost",
    }
    cases = powercut_control.prove(fs, quiet)
    assert {case.name: case.seen for case in cases} == expected
    assert all(case.ok for case in cases)


def test_power_cut_forgets_exactly_what_was_not_synced(cluster: ComposeCluster) -> None:
    three = ["node-1", "node-2", "node-3"]
    cluster.sync()
    write = "import os; f = os.open('/data/'+'{0}', os.O_RDWR|os.O_CREAT); os.write(f, b'x'*4096); {1}"
    for name in three:
        inside(cluster, name, "python3", "-c", write.format("synced", "os.fsync(f)"))
        inside(cluster, name, "python3", "-c", write.format("unsynced", "pass"))
    evidence = cluster.cut_power(three)
    assert evidence["exit_code"] == dict.fromkeys(three, 137)
    assert evidence["begun_ns"] < evidence["silence_ns"] < evidence["cut_ns"] < evidence["killed_ns"]
    assert dict(cluster.exited()) == dict.fromkeys(three, 137)
    cluster.start(ALL)
    assert cluster.exited() == {}
    assert cluster.forgotten(three) == {name: {"synced": "new", "unsynced": "old"} for name in three}
    assert cluster.forgotten(ALL) == {}, "the coordinator was never cut"
    for name in three:
        assert inside(cluster, name, "ls", "/data").split() == ["synced"]
    assert cluster.whole() is None


@pytest.mark.parametrize(("witness", "text"), [("unsynced", "new"), ("synced", "old")])
def test_a_disk_that_remembers_or_loses_is_no_evidence(cluster: ComposeCluster, witness: str, text: str) -> None:
    cluster.cut_power(["node-1"])
    cluster.start(["node-1"])
    assert cluster.forgotten(["node-1"])
    planted = cluster._witnesses["node-1"][text]
    inside(cluster, "node-1", "sh", "-c", f"echo {planted} > /data/.mqtest-{witness}")
    assert cluster.forgotten(["node-1"]) == {}


def test_spread_of_the_cut(cluster: ComposeCluster, capsys: pytest.CaptureFixture[str]) -> None:
    """Every one of three, each on a filesystem that was mounted for it."""
    three = ["node-1", "node-2", "node-3"]
    spreads = []
    for _ in range(3):
        spreads.append(cluster.cut_power(three)["spread_ms"])
        cluster.start(three)
    with capsys.disabled():
        print(f"\npower cut of three nodes: spread in ms {', '.join(f'{ms:.1f}' for ms in spreads)}")
    assert max(spreads) < 10


# --- kill, stop, pause, isolate ---


def test_bring_up_reads_back_what_was_made(cluster: ComposeCluster) -> None:
    net = cluster._node("names-1").address.rpartition(".")[0]
    expected = [
        ("names-1", f"{net}.10", "coordinator"),
        *((f"node-{n}", f"{net}.1{n}", "broker") for n in (1, 2, 3)),
    ]
    assert [(node.name, node.address, node.role) for node in cluster.nodes] == expected
    assert dict(cluster.data) == dict.fromkeys(ALL, "/data")
    assert inside(cluster, "node-1", "printenv", "GREETING") == "two words\n'quoted' $x\n"
    assert "/dev/loop" in inside(cluster, "node-1", "sh", "-c", "grep ' /data ' /proc/mounts")
    assert network.guarded(network.pool())


def test_kill_and_start_on_the_same_disk(cluster: ComposeCluster) -> None:
    inside(cluster, "node-1", "touch", "/data/mine")
    evidence = cluster.kill(["node-1", "node-2"])
    assert evidence["exit_code"] == {"node-1": 137, "node-2": 137}
    assert dict(cluster.exited()) == {"node-1": 137, "node-2": 137}
    assert cluster.kill(["node-1"]) == {}, "it does not run: nothing bit"
    cluster.start(ALL)
    assert cluster.exited() == {}
    assert "mine" in inside(cluster, "node-1", "ls", "/data")


def test_stop_ends_in_sigkill_after_the_grace(cluster: ComposeCluster) -> None:
    assert cluster.stop(["node-3"], grace_s=1) == {"exit_code": {"node-3": 137}}
    assert cluster.stop(["node-3"], grace_s=1) == {}


def test_pause(cluster: ComposeCluster) -> None:
    await_serving(cluster)
    assert cluster.pause(["node-2"]) == {"state": {"node-2": "paused"}}
    assert not serves(cluster, "node-2")
    assert cluster.pause(["node-2"]) == {}
    cluster.unpause(ALL)
    assert serves(cluster, "node-2")


def test_isolate_drops_packets_between_peers_and_rejoin_restores(cluster: ComposeCluster) -> None:
    await_serving(cluster)
    assert reaches(cluster, "node-1", "node-2")
    assert cluster.isolate(["node-1"], ["node-1", "node-2", "node-3"]) == {"rules": {"node-1": 4}}
    assert not reaches(cluster, "node-1", "node-2")
    assert not reaches(cluster, "node-3", "node-1")
    assert reaches(cluster, "node-2", "node-3")
    assert reaches(cluster, "node-1", "names-1")
    assert serves(cluster, "node-1"), "clients stay attached"
    dropped = cluster.rejoin()["dropped"]
    assert list(dropped) == ["node-1"]
    assert dropped["node-1"] >= 2
    assert reaches(cluster, "node-1", "node-2")
    assert reaches(cluster, "node-3", "node-1")
    assert cluster.rejoin() == {}


def test_the_legacy_flavour_of_iptables_does_as_well(cluster: ComposeCluster, agent: Agent) -> None:
    await_serving(cluster)
    program = (
        "import json, sys; from agent_program import packets, proofs; packets.FLAVOURS = ('iptables-legacy',);"
        "print(packets.isolate(proofs.Target.read(json.loads(sys.argv[1])), [sys.argv[2]]))"
    )
    command = ["python3", "-c", program, json.dumps(*cluster._targets(["node-1"])), cluster._node("node-2").address]
    done: Any = agent.client.containers.get(agent.container).exec_run(command, workdir="/run/agent")
    assert done.output == b"{'rules': 2}\n"
    assert not reaches(cluster, "node-1", "node-2")
    cluster._cut_off["node-1"] = {cluster._node("node-2").address}
    assert cluster.rejoin()["dropped"]["node-1"] >= 1
    assert reaches(cluster, "node-1", "node-2")


def test_isolation_without_traffic_is_no_evidence_and_a_restart_ends_it(cluster: ComposeCluster) -> None:
    assert cluster.isolate(["node-1"], ["node-2"])
    cluster.kill(["node-1"])
    cluster.start(["node-1"])
    await_serving(cluster)
    assert reaches(cluster, "node-1", "node-2")
    assert cluster.rejoin() == {}


def test_whole_names_a_full_disk_and_a_detached_one(cluster: ComposeCluster) -> None:
    assert cluster.whole() is None
    inside(cluster, "node-2", "sh", "-c", "head -c 500M /dev/zero > /data/fill 2>/dev/null; true")
    assert cluster.whole() == "the disk of node-2 is full"
    inside(cluster, "node-2", "rm", "/data/fill")
    elsewhere = {**cluster.disks, "node-3": disks.Disk("/dev/loop99", cluster.disks["node-3"].image)}
    assert dataclasses.replace(cluster, disks=elsewhere).whole() == "the disk of node-3 is not attached to /dev/loop99"


def test_logs_survive_a_restart(cluster: ComposeCluster, tmp_path: Path) -> None:
    await_serving(cluster)
    cluster.kill(["node-1"])
    cluster.start(["node-1"])
    cluster.save_logs(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"{name}.log" for name in ALL]
    assert "GET / HTTP" in (tmp_path / "node-1.log").read_text()
    assert set(cluster.usage()) == set(ALL)


# --- refusals: each leaves the target as it was ---


@pytest.fixture
def bystander(run: str) -> Iterator[Any]:
    """A container of ours whose data is a plain named volume: a directory on the host's own disk."""
    with contextlib.closing(connect()) as client:
        volume = client.volumes.create(f"{run}-plain", labels=labels(run))
        container = client.containers.run(
            images.ensure_agent(quiet).id,
            ["sleep", "600"],
            detach=True,
            labels=labels(run),
            network_mode="bridge",
            volumes={volume.name: {"bind": "/data", "mode": "rw"}},
        )
        yield container
        container.remove(force=True)
        volume.remove()


def test_a_plain_volume_is_refused(agent: Agent, bystander: Any) -> None:
    with pytest.raises(RefusedError, match=r"/data lies on device \d+:\d+, which is not a loop device"):
        agent.call("cut", {"targets": [target(bystander, "/data")], "age_s": 0})
    with pytest.raises(RefusedError, match="not a loop device"):
        agent.call("sync", {"targets": [target(bystander, "/data")]})
    assert bystander.exec_run(["sh", "-c", "echo alive > /data/file"]).exit_code == 0


def test_a_foreign_process_is_refused(agent: Agent, bystander: Any) -> None:
    with subprocess.Popen(["sleep", "600"]) as foreign:
        try:
            for command in ("kill", "cut", "rejoin"):
                with pytest.raises(RefusedError, match=f"process {foreign.pid} does not run in container"):
                    agent.call(command, {"targets": [target(bystander, "/data", foreign.pid)], "age_s": 0})
            assert foreign.poll() is None
        finally:
            foreign.kill()


def test_one_foreign_target_among_ours_stops_all(cluster: ComposeCluster, agent: Agent, bystander: Any) -> None:
    ours = cluster._targets(["node-1", "node-2"])
    with pytest.raises(RefusedError, match="not a loop device"):
        agent.call("cut", {"targets": [*ours, target(bystander, "/data")], "age_s": 0})
    assert cluster.exited() == {}
    assert cluster.whole() is None


def test_the_network_of_the_host_is_refused(agent: Agent, run: str) -> None:
    with contextlib.closing(connect()) as client:
        container = client.containers.run(
            images.ensure_agent(quiet).id, ["sleep", "600"], detach=True, labels=labels(run), network_mode="host"
        )
        try:
            with pytest.raises(RefusedError, match="shares the network of the host"):
                agent.call("isolate", {"targets": [{**target(container, "/"), "peers": ["198.19.250.250"]}]})
        finally:
            container.remove(force=True)


def test_a_foreign_loop_device_is_refused(agent: Agent, run: str) -> None:
    """A loop device whose backing file lies in another volume: neither detached nor shut down."""
    attach = (
        "truncate -s 64M /foreign/f.img && mkfs.ext4 -q /foreign/f.img && losetup --find --show /foreign/f.img"
        " && sleep 600"
    )
    with contextlib.closing(connect()) as client, contextlib.ExitStack() as undo:
        volume = client.volumes.create(f"{run}-foreign", labels=labels(run))
        undo.callback(volume.remove)
        holder = client.containers.run(
            images.ensure_agent(quiet).id,
            ["sh", "-c", attach],
            detach=True,
            labels=labels(run),
            cap_add=["SYS_ADMIN", "MKNOD"],
            security_opt=["seccomp=unconfined", "apparmor=unconfined"],
            device_cgroup_rules=["b 7:* rmw", "c 10:237 rmw"],
            volumes={"/dev": {"bind": "/dev", "mode": "rw"}, volume.name: {"bind": "/foreign", "mode": "rw"}},
        )
        undo.callback(holder.remove, force=True)
        device = wait_until(lambda: holder.logs().decode().strip(), 20, "the foreign loop device")
        undo.callback(holder.exec_run, ["losetup", "-d", device])
        minor = int(device.removeprefix("/dev/loop"))
        with pytest.raises(RefusedError, match=f"{device} is not backed by a disk image of mqtest"):
            agent.call("detach", {"minor": minor})
        assert (Path("/sys/block") / f"loop{minor}" / "loop").exists()

        data = client.volumes.create(
            f"{run}-foreign-data", driver_opts={"type": "ext4", "device": device}, labels=labels(run)
        )
        undo.callback(data.remove)
        user = client.containers.run(
            images.ensure_agent(quiet).id,
            ["sleep", "600"],
            detach=True,
            labels=labels(run),
            network_mode="bridge",
            volumes={data.name: {"bind": "/data", "mode": "rw"}},
        )
        undo.callback(user.remove, force=True)
        with pytest.raises(RefusedError, match=f"{device} is not backed by a disk image of run {run}"):
            agent.call("cut", {"targets": [target(user, "/data")], "age_s": 0})
        assert user.exec_run(["sh", "-c", "echo alive > /data/file && sync /data/file"]).exit_code == 0


def test_a_disk_of_another_run_is_refused(cluster: ComposeCluster) -> None:
    other = f"{RUN}-other"
    with RunLock(other), contextlib.closing(agents.start(other, quiet)) as agent:
        try:
            with pytest.raises(RefusedError, match=f"not backed by a disk image of run {other}"):
                agent.call("cut", {"targets": cluster._targets(["node-1"]), "age_s": 0})
        finally:
            leftovers.close_run(other, quiet)
    assert cluster.exited() == {}


def test_a_disk_is_not_named_by_a_path(agent: Agent) -> None:
    with pytest.raises(RefusedError, match="does not name a disk"):
        agent.call("remove-disks", {"disks": ["../x"]})
    with pytest.raises(RefusedError, match="does not name a disk"):
        agent.call("make-disks", {"names": ["a/b"], "fs": "ext4", "size_mb": 16})


# --- what is left ---


def test_one_node_and_its_coordinator(run: str) -> None:
    cluster = up(run, "single", nodes=1)
    try:
        assert [node.name for node in cluster.nodes] == ["names-1", "node-1"]
        assert set(cluster.disks) == {"names-1", "node-1"}
        assert cluster.whole() is None
    finally:
        cluster.down()
        cluster.down()


def test_bring_up_that_fails_half_way_leaves_only_the_agent(agent: Agent) -> None:
    before = (sorted(leftovers.remaining(RUN)), _disks_of(RUN))
    with pytest.raises(ClusterError, match="compose up failed"):
        up(RUN, "failing", image=Image("mqtest/agent:no-such-tag", "", "built"))
    assert (sorted(leftovers.remaining(RUN)), _disks_of(RUN)) == before


_RUNNER = """
import subprocess, sys
from tests.test_cluster_docker import up
from mqtest.cluster.locks import RunLock
run = sys.argv[1]
with RunLock(run):
    cluster = up(run, "one", nodes=1)
    worker = [sys.executable, "-c", "import time; print('works', flush=True); time.sleep(600)", "-m", "mqtest.workload"]
    subprocess.Popen(worker, env={"MQTEST_RUN": run})
    cluster.pause(["node-1"])
    input()
"""


def test_after_a_sigkill_all_of_the_dead_run_goes_and_the_live_one_stays() -> None:
    runs = [f"{RUN}-dead", f"{RUN}-live"]
    children: list[subprocess.Popen[bytes]] = []
    try:
        for run in runs:
            child = subprocess.Popen(
                [sys.executable, "-c", _RUNNER, run], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                cwd=RECIPE.parent.parent,
            )  # fmt: skip
            children.append(child)
            assert child.stdout is not None
            assert child.stdout.readline() == b"works\n"
            wait_until(lambda run=run: _paused(run), 20, "the child to pause its node")  # type: ignore[misc]
        children[0].kill()
        children[0].wait(10)
        assert live_runs() & set(runs) == {runs[1]}
        spared = sorted(leftovers.remaining(runs[1]))
        removed = leftovers.remove_runs(lambda run: run in runs and run not in live_runs(), quiet)
        counts = dataclasses.replace(removed, routes=0)
        assert counts == leftovers.Removed(processes=1, containers=3, networks=1, volumes=4, loop_devices=2, disks=2)
        assert leftovers.remaining(runs[0]) == []
        assert sorted(leftovers.remaining(runs[1])) == spared
        assert len(spared) == 8
        assert _disks_of(runs[1]) == 2
    finally:
        for child in children:
            child.kill()
            child.wait(10)
            for pipe in (child.stdin, child.stdout):
                assert pipe is not None
                pipe.close()
        leftovers.remove_runs(lambda run: run in runs, quiet)
    assert [leftovers.remaining(run) for run in runs] == [[], []]


def _paused(run: str) -> bool:
    with contextlib.closing(connect()) as client:
        return bool(client.containers.list(filters={"label": f"mqtest.run={run}", "status": "paused"}))


def _disks_of(run: str) -> int:
    with contextlib.closing(agents.start(run, quiet)) as agent:
        disks = agent.call("list-disks")
    return sum(disk["device"] is not None and disk["disk"].startswith(f"{run}/") for disk in disks)
