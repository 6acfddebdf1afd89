"""mqtest.cluster on a real engine, with tiny nodes: what is done to them, what is refused, what is left."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from mqtest import body
from mqtest.clock import wait_until
from mqtest.cluster import HOST, disks, images, leftovers, network, powercut_control
from mqtest.cluster import agent as agents
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


def up(
    run: str, cell: str, *, nodes: int = 3, fs: str = "ext4", image: Image | None = None, fakes_clock: bool = False
) -> ComposeCluster:
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
        fakes_clock=fakes_clock,
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


def datagrams(cluster: ComposeCluster, node: str, peer: str, count: int) -> int:
    """How many of so many datagrams arrive; nobody listens on their port, and the peer's kernel counts them."""
    program = """
import socket, sys
for _ in range(int(sys.argv[2])):
    try:
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"x", (sys.argv[1], 9))
    except PermissionError:  # dropped on its way out
        pass
"""

    def arrived() -> int:
        heads, counts = [line.split() for line in inside(cluster, peer, "grep", "^Udp:", "/proc/net/snmp").splitlines()]
        return int(counts[heads.index("NoPorts")])

    before = arrived()
    inside(cluster, node, "python3", "-c", program, cluster._node(peer).address, str(count))
    return arrived() - before


def arrives(cluster: ComposeCluster, node: str, peer: str) -> bool:
    return datagrams(cluster, node, peer, 1) == 1


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
    """Three cuts, each of filesystems that were mounted for it; one of them may meet a machine that was busy."""
    three = ["node-1", "node-2", "node-3"]
    spreads = []
    for _ in range(3):
        spreads.append(cluster.cut_power(three)["spread_ms"])
        cluster.start(three)
    with capsys.disabled():
        print(f"\npower cut of three nodes: spread in ms {', '.join(f'{ms:.1f}' for ms in spreads)}")
    assert sorted(spreads)[1] < 10


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
        "drops = {'old': [{'peers': [sys.argv[2]], 'ways': ['in', 'out'], 'percent': 100}]};"
        "print(packets.drop(proofs.Target.read(json.loads(sys.argv[1])), drops))"
    )
    targets = cluster._targets(["node-1"])
    command = ["python3", "-c", program, json.dumps(*targets), cluster._node("node-2").address]
    done: Any = agent.client.containers.get(agent.container).exec_run(command, workdir="/run/agent")
    assert done.output == b"{'old': 2}\n"
    assert not reaches(cluster, "node-1", "node-2")
    assert agent.call("let-pass", {"targets": targets, "tag": "old"})["node-1"] >= 1
    assert reaches(cluster, "node-1", "node-2")


def test_isolation_without_traffic_is_no_evidence(cluster: ComposeCluster) -> None:
    assert cluster.isolate(["node-1"], ["node-2"])
    assert cluster.rejoin() == {}


def test_isolation_outlives_a_restart_and_what_it_dropped_before_counts(cluster: ComposeCluster) -> None:
    await_serving(cluster)
    cluster.isolate(["node-1"], ["node-2"])
    assert not arrives(cluster, "node-2", "node-1")
    cluster.kill(["node-1"])
    assert cluster.rejoin("another") == {}
    cluster.start(["node-1"])
    assert not arrives(cluster, "node-2", "node-1")
    assert cluster.rejoin()["dropped"]["node-1"] >= 2
    assert arrives(cluster, "node-2", "node-1")
    cluster.isolate(["node-1"], ["node-2"])
    assert not arrives(cluster, "node-2", "node-1")
    cluster.kill(["node-1"])
    assert cluster.rejoin()["dropped"]["node-1"] >= 1, "dead, yet it had dropped some"
    cluster.start(["node-1"])
    assert arrives(cluster, "node-2", "node-1")


def test_one_way(cluster: ComposeCluster) -> None:
    cluster.isolate(["node-1"], ["node-2"], direction="in", tag="in")
    assert arrives(cluster, "node-1", "node-2")
    assert not arrives(cluster, "node-2", "node-1")
    assert cluster.rejoin("in")["dropped"]["node-1"] >= 1
    cluster.isolate(["node-1"], ["node-2"], direction="out", tag="out")
    assert not arrives(cluster, "node-1", "node-2")
    assert arrives(cluster, "node-2", "node-1")
    assert cluster.rejoin("out")["dropped"]["node-1"] >= 1
    assert arrives(cluster, "node-1", "node-2")
    with pytest.raises(ClusterError, match="direction 'up' is none: one of both, in, out"):
        cluster.isolate(["node-1"], ["node-2"], direction="up")


def test_clients_cut_from_a_node_that_its_peers_reach(cluster: ComposeCluster) -> None:
    await_serving(cluster)
    cluster.isolate(["node-1"], [HOST], tag="clients")
    assert not serves(cluster, "node-1")
    assert serves(cluster, "node-2")
    assert reaches(cluster, "node-1", "node-2")
    assert reaches(cluster, "node-2", "node-1")
    assert cluster.rejoin("clients")["dropped"]["node-1"] >= 1
    assert serves(cluster, "node-1")


def test_partitions_that_overlap_are_undone_apart(cluster: ComposeCluster) -> None:
    cluster.isolate(["node-1"], ["node-2"], tag="a")
    cluster.isolate(["node-1", "node-3"], ["node-2", "names-1"], tag="b")
    assert not arrives(cluster, "node-1", "node-2")
    assert not arrives(cluster, "node-3", "node-2")
    cluster.rejoin("a")
    assert not arrives(cluster, "node-1", "node-2")
    cluster.rejoin("b")
    assert arrives(cluster, "node-1", "node-2")
    assert arrives(cluster, "node-3", "names-1")


def test_packets_are_lost_at_random_but_on_the_loopback(cluster: ComposeCluster) -> None:
    assert cluster.lose_packets(["node-2"], 50) == {"rules": {"node-2": 2}}
    arrived = datagrams(cluster, "node-1", "node-2", 400)
    assert 120 < arrived < 280
    assert datagrams(cluster, "node-2", "node-2", 400) == 400
    dropped = cluster.keep_packets()["dropped"]["node-2"]
    assert 400 - arrived <= dropped <= 400 - arrived + 30, "answers to those that arrived are lost too, few of them"
    assert datagrams(cluster, "node-1", "node-2", 400) == 400
    with pytest.raises(ClusterError, match="percent = 0"):
        cluster.lose_packets(["node-2"], 0)


# --- disks that fill up, fail, stand still or limp ---


WRITE = "import os, time; b = time.monotonic(); f = os.open('/data/w', os.O_RDWR|os.O_CREAT); "
SYNCED = WRITE + "os.pwrite(f, os.urandom(65536), 0); os.fsync(f); print(time.monotonic() - b)"


def says(cluster: ComposeCluster, node: str, program: str) -> str:
    """The last word of a Python program inside the node, an error's name included."""
    done: Any = cluster._container(node).exec_run(["python3", "-c", program])
    return str(done.output.decode().strip().splitlines()[-1])


def test_full_disk_and_space_again_for_the_living_and_the_dead(cluster: ComposeCluster) -> None:
    two = ["node-1", "node-2"]
    evidence = cluster.fill_disk(two)
    for name in two:
        assert evidence[name]["probe"] == "ENOSPC"
        assert evidence[name]["free_bytes_before"] > 300 << 20
        assert evidence[name]["free_bytes_after"] == 0
        assert "No space left" in says(cluster, name, SYNCED)
    assert cluster.whole() == "the disk of node-1 is full"
    cluster.kill(["node-2"])
    left = cluster.free_disk(two)["free_bytes"]
    cluster.start(two)
    for name in two:
        assert left[name] > 300 << 20
        assert float(says(cluster, name, SYNCED)) < 10
    assert cluster.whole() is None


def test_failing_disk_until_the_node_starts_again(cluster: ComposeCluster) -> None:
    inside(cluster, "node-1", "python3", "-c", SYNCED)
    assert cluster.fail_disk(["node-1"])["node-1"]["probe"] == "EIO"
    assert "Input/output error" in says(cluster, "node-1", SYNCED)
    assert cluster.exited() == {}, "the node itself goes on"
    cluster.kill(["node-1"])
    cluster.start(["node-1"])
    assert inside(cluster, "node-1", "stat", "-c", "%s", "/data/w") == "65536\n"
    assert float(says(cluster, "node-1", SYNCED)) < 10


def test_stalled_disk_lets_a_write_wait_until_it_is_thawed(cluster: ComposeCluster) -> None:
    two = ["node-1", "node-2"]
    assert cluster.stall_disk(two) == {"state": {"node-1": "frozen", "node-2": "frozen"}}
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(says, cluster, "node-1", SYNCED)
        time.sleep(1)
        assert not waiting.done()
        stalled_ms = cluster.thaw_disk(two)["stalled_ms"]
        assert float(waiting.result(20)) > 0.2
    assert list(stalled_ms) == two
    assert min(stalled_ms.values()) > 1000
    assert cluster.thaw_disk(two) == {}


@pytest.mark.parametrize("end", ["kill", "cut_power"])
def test_a_node_with_a_stalled_disk_can_die(cluster: ComposeCluster, end: str) -> None:
    cluster.stall_disk(["node-1"])
    cluster._container("node-1").exec_run(["python3", "-c", SYNCED], detach=True)
    assert getattr(cluster, end)(["node-1"])["exit_code"] == {"node-1": 137}
    assert cluster.thaw_disk(["node-1"])["stalled_ms"]["node-1"] > 0
    cluster.start(["node-1"])
    assert float(says(cluster, "node-1", SYNCED)) < 10


def test_slow_disk_until_undone_or_until_the_node_ends(cluster: ComposeCluster) -> None:
    cluster.slow_disk(["node-1", "node-2"], stalled_ms=400, free_ms=20)
    took_s = [float(says(cluster, "node-1", SYNCED)) for _ in range(6)]
    assert max(took_s) > 0.2
    cluster.kill(["node-2"])
    evidence = cluster.unslow_disk(["node-1", "node-2"])
    assert evidence["node-1"]["cycles"] >= 2
    assert evidence["node-1"]["stalled_ms"] > 400
    assert cluster.unslow_disk(["node-1"]) == {}
    cluster.start(["node-2"])
    for name in ("node-1", "node-2"):
        assert cluster.stall_disk([name]), "so it was thawed"
        assert cluster.thaw_disk([name])
    with pytest.raises(ClusterError, match="above 0"):
        cluster.slow_disk(["node-1"], stalled_ms=0, free_ms=20)


def test_clock_of_a_node_jumps_stays_so_over_a_restart_and_is_set_right(run: str) -> None:
    cluster = up(run, "clock", nodes=1, fakes_clock=True)
    try:
        cluster.jump_clock(["node-1"], -3600)
        assert cluster.jump_clock(["node-1"], 3600)["offset_s"]["node-1"] == pytest.approx(3600, abs=2)
        now = "import time; print(time.time())"
        assert float(says(cluster, "node-1", now)) == pytest.approx(time.time() + 3600, abs=5)
        assert float(says(cluster, "names-1", now)) == pytest.approx(time.time(), abs=5)
        cluster.kill(["node-1"])
        cluster.start(["node-1"])
        assert float(says(cluster, "node-1", now)) == pytest.approx(time.time() + 3600, abs=5)
        assert cluster.reset_clock(["node-1"])["offset_s"]["node-1"] == pytest.approx(0, abs=2)
        assert float(says(cluster, "node-1", now)) == pytest.approx(time.time(), abs=5)
    finally:
        cluster.down()


def test_clock_that_cannot_jump(cluster: ComposeCluster) -> None:
    with pytest.raises(ClusterError, match="not started with a clock that can jump"):
        cluster.jump_clock(["node-1"], 60)


def test_whole_names_a_full_disk_and_a_detached_one(cluster: ComposeCluster) -> None:
    assert cluster.whole() is None
    inside(cluster, "node-2", "sh", "-c", "head -c 500M /dev/zero > /data/fill 2>/dev/null; true")
    assert cluster.whole() == "the disk of node-2 is full"
    inside(cluster, "node-2", "rm", "/data/fill")
    elsewhere = {**cluster.disks, "node-3": disks.Disk("/dev/loop99", cluster.disks["node-3"].image)}
    assert dataclasses.replace(cluster, disks=elsewhere).whole() == "the disk of node-3 is not attached to /dev/loop99"


def test_messages_in_files_of_a_node_are_found(cluster: ComposeCluster) -> None:
    for name, seqs in (("node-1", (1, 2, 3, 7)), ("node-2", (7,))):
        text = "x".join(body.encode(5, 3, seq, 0, 100).decode() for seq in seqs)
        inside(cluster, name, "sh", "-c", f"mkdir /data/log && printf %s '{text}' > /data/log/0")
    cluster.kill(["node-2"])
    assert cluster.messages_on_disk(5, 100) == {"names-1": {}, "node-1": {"3": [[1, 3], [7, 7]]}, "node-3": {}}
    cluster.start(["node-2"])
    assert cluster.messages_on_disk(5, 100)["node-2"] == {"3": [[7, 7]]}


def test_logs_survive_a_restart(cluster: ComposeCluster, tmp_path: Path) -> None:
    await_serving(cluster)
    cluster.kill(["node-1"])
    cluster.start(["node-1"])
    cluster.save_logs(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"{name}.log" for name in ALL]
    assert "GET / HTTP" in (tmp_path / "node-1.log").read_text()


def test_each_node_says_what_it_and_its_disk_did(cluster: ComposeCluster) -> None:
    await_serving(cluster)
    cluster.sync()
    before = cluster.usage()
    assert set(before) == set(ALL)
    inside(cluster, "node-1", "dd", "if=/dev/zero", "of=/data/some", "bs=4096", "count=512", "conv=fsync")
    after = cluster.usage()
    grown = {name: {key: after[name][key] - before[name][key] for key in before[name]} for name in ALL}
    assert grown["node-1"]["written_bytes"] >= 512 * 4096
    assert grown["node-1"]["writes"] > 0
    assert grown["node-1"]["flushes"] > 0
    assert grown["node-1"]["cpu_s"] > 0
    assert grown["node-2"]["written_bytes"] < 512 * 4096, "a disk is one node's"


def test_how_fast_each_disk_flushes(cluster: ComposeCluster) -> None:
    await_serving(cluster)
    cluster.kill(["node-2"])
    taken = cluster.flush_times()
    assert set(taken) == {"names-1", "node-1", "node-3"}
    assert all(min(times) > 0 for times in taken.values())
    assert inside(cluster, "node-1", "stat", "-c", "%s", "/data/.mqtest-probe").strip() == "0"


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
    more = {"stalled_ms": 1, "free_ms": 1, "seconds": 1}
    for command in ("sync", "fill-disks", "fail-disks", "stall-disks", "slow-disks", "jump-clocks"):
        with pytest.raises(RefusedError, match="not a loop device"):
            agent.call(command, {"targets": [target(bystander, "/data")], **more})
    assert bystander.exec_run(["sh", "-c", "echo alive > /data/file"]).exit_code == 0


def test_a_foreign_process_is_refused(agent: Agent, bystander: Any) -> None:
    with subprocess.Popen(["sleep", "600"]) as foreign:
        try:
            disks = ("fill-disks", "fail-disks", "stall-disks", "slow-disks", "jump-clocks")
            targets = [{**target(bystander, "/data", foreign.pid), "drops": {}}]
            more = {"age_s": 0, "tag": "x", "tags": ["x"], "stalled_ms": 1, "free_ms": 1, "seconds": 1}
            for command in ("kill", "cut", "drop", "let-pass", "dropped", *disks):
                with pytest.raises(RefusedError, match=f"process {foreign.pid} does not run in container"):
                    agent.call(command, {"targets": targets, **more})
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
        drops = {"x": [{"peers": ["198.19.250.250"], "ways": ["in"], "percent": 100}]}
        try:
            with pytest.raises(RefusedError, match="shares the network of the host"):
                agent.call("drop", {"targets": [{**target(container, "/"), "drops": drops}]})
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


def test_a_chain_is_not_named_by_anything_else(cluster: ComposeCluster, agent: Agent) -> None:
    for tag in ("INPUT -j ACCEPT", "x" * 18, ""):
        with pytest.raises(RefusedError, match="does not tag rules"):
            agent.call("let-pass", {"targets": cluster._targets(["node-1"]), "tag": tag})


def test_a_disk_is_not_named_by_a_path(agent: Agent) -> None:
    for command in ("remove-disks", "free-disks", "thaw-disks", "reset-clocks"):
        with pytest.raises(RefusedError, match="does not name a disk"):
            agent.call(command, {"disks": ["../x"]})
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
    cluster.slow_disk(["names-1"], 300, 10)
    cluster.stall_disk(["node-1"])
    cluster._container("node-1").exec_run(["touch", "/data/waits"], detach=True)
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
