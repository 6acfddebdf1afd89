"""The memory broker: its store, each dial in both directions, its deaths, and that it never outlives its runner."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from mqtest import __version__
from mqtest.body import encode
from mqtest.brokers import memory
from mqtest.brokers.memory_dials import Dials, read_dials
from mqtest.brokers.memory_store import AppendFile, forget
from mqtest.clients import ClientError, memory_wire
from mqtest.clients.memory import open_consumer, open_producer, open_reader
from mqtest.clock import now_ns, wait_until
from mqtest.cluster.memory import MemoryCluster
from mqtest.errors import ClusterError, SettingError, UsageError, WaitTimeout
from mqtest.model import Kind, Outcome, Value
from mqtest.scenario import load, locate
from tests.memory_rig import NODE, Producing, gather, profile, running, seqs
from tests.polling import PATIENCE_S

ACKED, REFUSED = Outcome.ACKED, Outcome.REFUSED


# The store.


@pytest.mark.parametrize(
    ("synced", "unsynced", "kept", "forgotten_bytes"),
    [
        ([b"a", b"bb"], [], [b"a", b"bb"], 0),
        ([b"a"], [b"bb", b""], [b"a"], 10),
        ([], [b"a"], [], 5),
        ([], [], [], 0),
    ],
)
def test_power_cut_forgets_exactly_what_was_not_synced(
    tmp_path: Path, synced: list[bytes], unsynced: list[bytes], kept: list[bytes], forgotten_bytes: int
) -> None:
    with closing(AppendFile(tmp_path, "x")) as file:
        file.append(synced)
        file.sync()
        file.append(unsynced)
    with closing(AppendFile(tmp_path, "x")) as file:
        assert file.recovered == synced + unsynced
    assert forget(tmp_path) == forgotten_bytes
    with closing(AppendFile(tmp_path, "x")) as file:
        assert file.recovered == kept


def test_torn_record_is_cut_off_and_the_next_one_is_whole(tmp_path: Path) -> None:
    with closing(AppendFile(tmp_path, "x")) as file:
        file.append([b"first", b"torn"])
    os.truncate(tmp_path / "x.log", 4 + 5 + 4 + 2)
    with closing(AppendFile(tmp_path, "x")) as file:
        assert file.recovered == [b"first"]
        file.append([b"next"])
    with closing(AppendFile(tmp_path, "x")) as file:
        assert file.recovered == [b"first", b"next"]


# Settings.


def test_dials_take_what_they_know_and_ignore_the_rest() -> None:
    text = '{"fsync": false, "delay_ms": 3, "fsyncc": true, "duplicate_every": "5", "reorder_every": true}'
    assert read_dials(text) == Dials(fsync=False, delay_ms=3)


@pytest.mark.parametrize(
    ("asked", "named"),
    [({"fsyncc": True}, "broker.fsyncc"), ({"delay_ms": "3"}, "broker.delay_ms"), ({"fsync": 0}, "broker.fsync")],
)
def test_setting_that_did_not_take_is_named(tmp_path: Path, asked: Mapping[str, Value], named: str) -> None:
    with running(tmp_path, profile(asked)) as rig, pytest.raises(SettingError, match=named):
        rig.broker.effective()


def test_settings_are_read_back(tmp_path: Path) -> None:
    with running(tmp_path, profile({"fsync": False, "delay_ms": 3})) as rig:
        effective = rig.broker.effective()
    assert (effective["broker.fsync"], effective["broker.delay_ms"]) == ("false", "3")
    assert effective["broker.lose_last_on_kill"] == "0"


def test_topic_setting_is_refused(tmp_path: Path) -> None:
    cluster = MemoryCluster(tmp_path, {}, 1)
    try:
        broker = memory.connect(replace(profile({}), settings={"topic": {"retention": 1}}), cluster.nodes, 1)
        broker.await_nodes(PATIENCE_S)
        with pytest.raises(SettingError, match=r"topic\.retention"):
            broker.create_places()
    finally:
        cluster.down()


def test_client_setting_that_there_is_not_is_named(tmp_path: Path) -> None:
    with running(tmp_path, profile({})) as rig:
        wiring = replace(rig.broker.wiring(), producer={"acks": "all"}, consumer={"prefetsch": 1})
        with pytest.raises(ClientError, match=r"producer\.acks.*none"):
            open_producer(wiring, lambda *_: None, 0, 0)
        with pytest.raises(ClientError, match=r"consumer\.prefetsch.*prefetch"):
            open_consumer(wiring, 0, 0, 1)


# Dials: six messages in, what is acknowledged and what is there.

ALL_ACKED = [(ACKED, n) for n in range(6)]


@pytest.mark.parametrize(
    ("dial", "settled", "there"),
    [
        ({}, ALL_ACKED, [0, 1, 2, 3, 4, 5]),
        (
            {"duplicate_every": 3},
            [(ACKED, 0), (ACKED, 1), (ACKED, 2), (ACKED, 4), (ACKED, 5), (ACKED, 6)],
            [0, 1, 2, 2, 3, 4, 5, 5],
        ),
        (
            {"reorder_every": 3},
            [(ACKED, 0), (ACKED, 1), (ACKED, 3), (ACKED, 2), (ACKED, 4), (ACKED, 5)],
            [0, 1, 3, 2, 4, 5],
        ),
        ({"corrupt_every": 3}, ALL_ACKED, [0, 1, None, 3, 4, None]),
        (
            {"drop_acked_every": 3},
            [(ACKED, 0), (ACKED, 1), (ACKED, 2), (ACKED, 2), (ACKED, 3), (ACKED, 4)],
            [0, 1, 3, 4],
        ),
        ({"misreport_every": 6}, [*ALL_ACKED[:5], (ACKED, 6)], [0, 1, 2, 3, 4, 5]),
        (
            {"refuse_every": 3},
            [(ACKED, 0), (ACKED, 1), (REFUSED, -1), (ACKED, 2), (ACKED, 3), (REFUSED, -1)],
            [0, 1, 3, 4],
        ),
        ({"refuse_stored_every": 6}, [*ALL_ACKED[:5], (REFUSED, 5)], [0, 1, 2, 3, 4, 5]),
    ],
)
def test_dial_breaks_one_promise(
    tmp_path: Path, dial: Mapping[str, Value], settled: list[tuple[Outcome, int]], there: list[int | None]
) -> None:
    with running(tmp_path, profile(dial)) as rig:
        rows = rig.send(range(6))
        assert [rows[seq] for seq in range(6)] == settled
        assert seqs(rig.read()) == there


@pytest.mark.parametrize(
    ("every", "there"),
    [
        (0, [(0, False), (1, False), (2, False), (3, False)]),
        (2, [(0, False), (1, False), (1, True), (2, False), (3, False), (3, True)]),
    ],
)
def test_redelivering_queue_flags_the_second_copy(tmp_path: Path, every: int, there: list[tuple[int, bool]]) -> None:
    with running(tmp_path, profile({"redeliver_every": every}, Kind.QUEUE)) as rig:
        rig.send(range(4))
        consumer = open_consumer(rig.broker.wiring(), 0, 0, 1)
        found = gather(consumer.poll, len(there))
        consumer.ack()
        wait_until(lambda: rig.broker.remaining({}) == 0, PATIENCE_S, "an empty queue")
        consumer.close(1)
    assert [(seq, d.redelivered) for seq, d in zip(seqs(found), found, strict=True)] == there


def test_delay_holds_answers_back(tmp_path: Path) -> None:
    with running(tmp_path, profile({"delay_ms": 200})) as rig:
        began_ns = now_ns()
        assert rig.send([0]) == {0: (ACKED, 0)}
        assert now_ns() - began_ns >= 200_000_000


def test_answers_come_no_faster_than_the_dial_says(tmp_path: Path) -> None:
    with running(tmp_path, profile({"answers_per_s": 100})) as rig:
        began_ns = now_ns()
        assert rig.send(range(20)) == {seq: (ACKED, seq) for seq in range(20)}
        assert now_ns() - began_ns >= 200_000_000


def test_without_acknowledgements_sends_are_unknown_and_stored(tmp_path: Path) -> None:
    with running(tmp_path, profile({"reorder_every": 2}, acknowledged=False)) as rig:
        assert rig.send(range(3)) == dict.fromkeys(range(3), (Outcome.UNKNOWN, -1))
        wait_until(lambda: rig.broker.remaining({}) == 3, PATIENCE_S, "three messages")
        assert seqs(rig.read()) == [0, 2, 1]


# Deaths: six acknowledged messages, then what is left.


@pytest.mark.parametrize(
    ("death", "dials", "there"),
    [
        ("kill", {}, 6),
        ("kill", {"fsync": False}, 6),
        ("kill", {"lose_last_on_kill": 2}, 4),
        ("kill", {"lose_last_on_kill": 9}, 0),
        ("stop", {"lose_last_on_kill": 2, "fsync": False}, 6),
        ("cut_power", {}, 6),
        ("cut_power", {"lose_last_on_kill": 2}, 4),
        ("cut_power", {"fsync": False}, 0),
    ],
)
@pytest.mark.parametrize("kind", [Kind.LOG, Kind.QUEUE])
def test_death_loses_what_the_dials_say(
    tmp_path: Path, kind: Kind, death: str, dials: Mapping[str, Value], there: int
) -> None:
    with running(tmp_path, profile(dials, kind)) as rig:
        assert {outcome for outcome, _ in rig.send(range(6)).values()} == {ACKED}
        assert getattr(rig.cluster, death)(NODE)
        rig.restart()
        assert seqs(rig.read()) == list(range(there))
        assert rig.send([7])[7] == (ACKED, there if kind is Kind.LOG else -1)


def test_power_cut_keeps_what_was_synced_by_hand(tmp_path: Path) -> None:
    with running(tmp_path, profile({"fsync": False})) as rig:
        rig.send(range(3))
        rig.cluster.sync()
        rig.send(range(3, 6))
        rig.cluster.cut_power(NODE)
        rig.restart()
        assert seqs(rig.read()) == [0, 1, 2]


@pytest.mark.parametrize("death", ["kill", "cut_power"])
def test_acknowledged_deliveries_stay_acknowledged(tmp_path: Path, death: str) -> None:
    with running(tmp_path, profile({}, Kind.QUEUE)) as rig:
        wiring = replace(rig.broker.wiring(), consumer={"prefetch": 4})
        rig.send(range(6))
        consumer = open_consumer(wiring, 0, 0, 1)
        assert seqs(gather(consumer.poll, 1)) == [0, 1, 2, 3]
        consumer.ack()
        wait_until(lambda: rig.broker.remaining({}) == 2, PATIENCE_S, "four acknowledged")
        getattr(rig.cluster, death)(NODE)
        rig.restart()
        found = rig.read()
        consumer.close(1)
    assert [(seq, d.redelivered) for seq, d in zip(seqs(found), found, strict=True)] == [(4, True), (5, True)]


def test_committed_group_goes_on_where_it_was(tmp_path: Path) -> None:
    with running(tmp_path, profile({"lose_last_on_kill": 2})) as rig:
        rig.send(range(6))
        assert rig.broker.committed() == {}
        first = open_consumer(rig.broker.wiring(), 0, 0, 1)
        assert seqs(gather(first.poll, 1)) == [0, 1, 2, 3, 4, 5]
        first.ack()
        first.close(1)
        assert rig.broker.version() == __version__  # asked later, so the acknowledgement has been taken by now
        assert rig.broker.committed() == {0: (6, 6)}
        rig.cluster.kill(NODE)
        rig.restart()  # four are left, the group had six: it goes on at the end
        assert rig.broker.committed() == {0: (4, 4)}
        rig.send([6])
        second = open_consumer(rig.broker.wiring(), 0, 1, 1)
        assert seqs(gather(second.poll, 1)) == [6]
        second.close(1)


# Evidence, and silence.


def test_evidence_of_deaths(tmp_path: Path) -> None:
    with running(tmp_path, profile({})) as rig:
        assert rig.cluster.kill(NODE) == {"exit_code": {"memory-1": 137}}
        assert rig.cluster.exited() == {"memory-1": 137}
        assert rig.broker.leader(0) is None
        assert rig.cluster.kill(NODE) == rig.cluster.stop(NODE) == rig.cluster.pause(NODE) == {}
        assert rig.cluster.cut_power(NODE) == {}
        rig.restart()
        assert rig.cluster.exited() == {}
        assert rig.broker.leader(0) == "memory-1"
        assert rig.cluster.stop(NODE) == {"exit_code": {"memory-1": 0}}


def test_power_cut_shows_what_was_forgotten(tmp_path: Path) -> None:
    with running(tmp_path, profile({"fsync": False})) as rig:
        assert rig.cluster.forgotten(NODE) == {}
        rig.send(range(3))
        cut = rig.cluster.cut_power(NODE)
        assert cut["silence_ns"] <= cut["killed_ns"] <= cut["cut_ns"]
        rig.restart()
        lost_bytes = 3 * (4 + 64) + (4 + 1)  # three messages and a witness
        assert rig.cluster.forgotten(NODE) == {"memory-1": {"synced": "there", "unsynced": "gone", "bytes": lost_bytes}}


def test_power_cut_that_forgets_nothing_has_no_evidence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mqtest.cluster.memory.forget", lambda _store: 0)
    with running(tmp_path, profile({})) as rig:
        rig.cluster.cut_power(NODE)
        rig.restart()
        assert rig.cluster.forgotten(NODE) == {}


def test_paused_broker_neither_answers_nor_takes_without_end(tmp_path: Path) -> None:
    with running(tmp_path, profile({})) as rig, closing(Producing(rig.broker)) as producer:
        assert rig.cluster.pause(NODE) == {"state": {"memory-1": "stopped"}}
        with (
            pytest.raises(ClientError, match="no answer"),
            closing(memory_wire.Connection(rig.cluster.nodes[0].address, 1)) as connection,
        ):
            connection.ask(memory_wire.Describe(), 0.1)
        body = encode(1, 0, 0, 0, 65536)
        taken = 0
        while producer.inner.send(taken, 0, body):
            taken += 1
            producer.inner.poll(0)
        assert producer.inner.blocked
        assert producer.rows == {}
        rig.cluster.unpause(NODE)
        producer.await_settled(taken)
        assert producer.inner.failed is None


HALF_STOPPED = """
import os, threading
threading.Thread(target=os.posix_spawn, args=("/bin/true", ["true"], {}), kwargs={
    "file_actions": [(os.POSIX_SPAWN_OPEN, 0, os.environ["FIFO"], os.O_RDONLY, 0)]
}).start()
"""
"""its second thread cannot stop before its child runs, and that opens a pipe which nobody writes to"""


def test_a_pause_holds_only_once_every_thread_stands_still(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "fifo")
    with running(tmp_path / "cluster", profile({})) as rig:
        rig.cluster.kill(NODE)
        child = subprocess.Popen([sys.executable, "-c", HALF_STOPPED], env={"FIFO": str(tmp_path / "fifo")})
        monkeypatch.setattr(rig.cluster, "_process", child)
        wait_until(lambda: _states(child.pid)[1:] == ["D"], PATIENCE_S, "the second thread to wait for its child")
        with monkeypatch.context() as hasty:
            hasty.setattr("mqtest.cluster.memory._STATE_S", 0.2)
            with pytest.raises(WaitTimeout, match="memory-1 to be stopped"):
                rig.cluster.pause(NODE)
        wait_until(lambda: _states(child.pid) == ["T", "D"], PATIENCE_S, "the first thread to stop")
        os.close(os.open(tmp_path / "fifo", os.O_WRONLY))
        assert rig.cluster.pause(NODE) == {"state": {"memory-1": "stopped"}}
        assert _states(child.pid) == ["T", "T"]


def _states(pid: int) -> list[str]:
    """Of each thread, the first one's first."""
    tasks = sorted(Path(f"/proc/{pid}/task").iterdir(), key=lambda task: task.name != str(pid))
    return [(task / "stat").read_text().rpartition(")")[2].split()[0] for task in tasks]


def test_log_of_the_node_is_kept_and_nothing_else(tmp_path: Path) -> None:
    folder, logs = tmp_path / "cluster", tmp_path / "logs"
    logs.mkdir()
    with running(folder, profile({})) as rig:
        assert rig.cluster.whole() is None
        assert rig.cluster.usage()["memory-1"]["memory_bytes"] > 0
        rig.cluster.kill(NODE)
        rig.restart()
        rig.cluster.save_logs(logs)
    assert (logs / "memory-1.log").read_text().count("memory broker") == 2
    assert list(folder.iterdir()) == []
    rig.cluster.down()


RUNNER = """
import sys
from pathlib import Path
from mqtest import __version__
from mqtest.brokers import memory
from mqtest.cluster.memory import MemoryCluster
from mqtest.profile import find_profile
profile = find_profile("memory/log-safe")
cluster = MemoryCluster(Path(sys.argv[1]), memory.environment(profile, 1), 1)
memory.connect(profile, cluster.nodes, 1).await_nodes(60)
if sys.argv[2] == "paused":
    cluster.pause(["memory-1"])
print(cluster._process.pid, flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("state", ["running", "paused"])
def test_broker_does_not_outlive_a_killed_runner(tmp_path: Path, state: str) -> None:
    command = [sys.executable, "-c", RUNNER, str(tmp_path), state]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as runner:
        assert runner.stdout is not None
        pid = int(runner.stdout.readline())
        assert Path(f"/proc/{pid}").exists()
        runner.send_signal(signal.SIGKILL)
    wait_until(lambda: _gone(pid), PATIENCE_S, "the broker to end with its runner")


def _gone(pid: int) -> bool:
    """Ended, even where nobody reaps it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


# What it cannot have.


def test_more_than_one_node_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="one node, not 3"):
        memory.environment(profile({}), 3)
    with pytest.raises(UsageError, match="one node, not 3"):
        MemoryCluster(tmp_path, {}, 3)
    assert list(tmp_path.iterdir()) == []


def test_partition_is_refused(tmp_path: Path) -> None:
    text = locate("self-test").read_text()
    planted = text.replace('"kill:leader", "pause:leader"', '"kill:leader", "partition:leader"')
    assert planted != text
    (tmp_path / "x.toml").write_text(planted)
    with pytest.raises(UsageError, match=r"memory cannot have 'partition'; allowed: none, kill, stop"):
        load(tmp_path / "x.toml")
    with running(tmp_path, profile({})) as rig:
        with pytest.raises(ClusterError, match="no peers"):
            rig.cluster.isolate(NODE, [])
        with pytest.raises(ClusterError, match="no packets"):
            rig.cluster.lose_packets(NODE, 20)
        with pytest.raises(ClusterError, match="no disk of its own"):
            rig.cluster.stall_disk(NODE)


def test_reader_of_a_place_that_there_is_not(tmp_path: Path) -> None:
    with running(tmp_path, profile({})) as rig, pytest.raises(ClientError, match="no such place"):
        open_reader(rig.broker.wiring(), [1])
