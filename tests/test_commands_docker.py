"""The README's commands that need real brokers, as a person types them."""

from __future__ import annotations

import contextlib
import csv
import subprocess
import sys
from pathlib import Path

import docker
import pytest
from docker.models.containers import Container

from mqtest.cluster.leftovers import remaining
from mqtest.event_log import events_path, load_events
from mqtest.ledger import load_sends, sends_folders
from mqtest.model import RUNNER, Outcome

pytestmark = [pytest.mark.docker, pytest.mark.timeout(900)]

MOST_UNFLUSHED = 200
"""messages of a slave that are received and not flushed, on a slow machine; ten or so by the interval"""
SILENCE_GRACE_NS = 250_000_000
SPREAD_MS = 50
"""on any machine, however busy; what it is on a quiet one shows test_cluster_docker.py"""


def mqtest(folder: Path, *words: str, timeout_s: float = 600) -> subprocess.CompletedProcess[str]:
    """Run `mqtest …` in a folder of its own."""
    return subprocess.run(
        [sys.executable, "-m", "mqtest", *words],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout_s,
    )


def rows(folder: Path) -> dict[str, dict[str, str]]:
    """profile/fault → row of the one run's results.csv."""
    (path,) = (folder / "results").glob("*/results.csv")
    with path.open(encoding="utf-8") as file:
        return {f"{r['broker']}/{r['profile']}/{r['fault']}": r for r in csv.DictReader(file)}


def test_first_look_shows_who_loses(tmp_path: Path) -> None:
    done = mqtest(tmp_path, "run", "first-look")  # mqtest run first-look
    found = {name: (row["verdict"], int(row["lost"] or -1)) for name, row in rows(tmp_path).items()}
    for profile in ("kafka/acks-1", "rabbitmq/classic", "rocketmq/async-flush"):
        verdict, lost = found[f"{profile}/power-cut:all"]
        assert verdict == "lost-as-documented", found
        assert lost > 0
    for profile in ("kafka/acks-all-fsync", "rabbitmq/quorum"):
        assert found[f"{profile}/power-cut:all"] == ("kept", 0), found
    verdict, lost = found[
        "rocketmq/sync-flush-all-ack/power-cut:all"
    ]  # slaves flush within 10 ms after they acknowledge
    assert verdict in ("kept", "lost-as-documented"), found
    assert 0 <= lost < MOST_UNFLUSHED, found
    assert done.returncode == 0
    assert "rabbitmq/quorum" in done.stdout
    cells = list(tmp_path.glob("results/*/cells/*"))
    assert len(cells) == 6
    for folder in cells:
        assert_one_power_cut(folder)


def assert_one_power_cut(folder: Path) -> None:
    """All nodes went together, and nothing that they said settled later than silence + 250 ms, until the heal."""
    events = [e for e in load_events(events_path(folder)) if e["event"] == "fault"]
    cut = next(e for e in events if e["step"] == "injected")["detail"]
    heal_ns = next(e for e in events if e["step"] == "heal")["t_ns"]
    assert cut["spread_ms"] < SPREAD_MS, folder.name
    for number, sends in sends_folders(folder).items():
        if number != RUNNER:
            columns = load_sends(sends)
            acked = columns["settled_ns"][columns["outcome"] == Outcome.ACKED]
            assert not ((acked > cut["silence_ns"] + SILENCE_GRACE_NS) & (acked < heal_ns)).any()


@pytest.mark.long
def test_live_shows_what_was_read_and_then_lost(tmp_path: Path) -> None:
    done = mqtest(tmp_path, "run", "live", "--only", "kafka/*")  # mqtest run live
    found = rows(tmp_path)
    clean, cut = found["kafka/acks-all/none"], found["kafka/acks-all/power-cut:all"]
    figures = ("lost", "stored_twice", "redelivered", "reordered", "offset_divergence", "read_then_lost")
    assert [clean[name] for name in figures] == ["0"] * 6
    assert clean["verdict"] == "kept"
    assert int(cut["lost"]) > 0
    assert int(cut["read_then_lost"]) > 0
    assert done.returncode == 0


def test_up_attach_and_down(tmp_path: Path) -> None:
    done = mqtest(tmp_path, "up", "kafka/acks-all")  # mqtest up kafka/acks-all
    assert done.returncode == 0, done.stderr
    nodes = [line.split() for line in done.stdout.splitlines()[:3]]
    assert [name for name, _address, _role in nodes] == ["kafka-1", "kafka-2", "kafka-3"]
    node = container_at(nodes[0][1])
    attach(tmp_path, ",".join(f"{address}:9092" for _name, address, _role in nodes), node.id)
    down = mqtest(tmp_path, "down")  # mqtest down
    assert down.returncode == 0, down.stderr
    assert remaining(node.labels["mqtest.run"]) == []
    assert [path.name for path in tmp_path.iterdir()] == ["results"]


def container_at(address: str) -> Container:
    """The container of ours that has this address; other runs have theirs."""

    def has(one: Container) -> bool:
        return address in {network["IPAddress"] for network in one.attrs["NetworkSettings"]["Networks"].values()}

    with contextlib.closing(docker.from_env()) as client:
        (found,) = filter(has, client.containers.list(filters={"label": "mqtest.run"}, ignore_removed=True))
    return found


def attach(folder: Path, at: str, node: str) -> None:
    """Somebody kills a node of theirs and starts it again, by commands of their own."""
    commands = ("--fault", f"docker kill {node}", "--heal", f"docker start {node}")
    times = ("--after", "3s", "--hold", "3s", "--for", "8s")
    done = mqtest(folder, "attach", "kafka", "--bootstrap", at, *commands, *times)  # mqtest attach kafka --bootstrap
    assert done.returncode == 0, done.stdout + done.stderr
    found = rows(folder)["kafka/acks-all/attached"]
    assert (found["verdict"], found["lost"], found["fault_bit"]) == ("kept", "0", "true")
    assert int(found["acked"]) > 500


def test_the_doctor_proves_the_power_cut(tmp_path: Path) -> None:
    done = mqtest(tmp_path, "doctor", "--power-cut")  # mqtest doctor --power-cut
    assert done.returncode == 0
    assert "power cut" in done.stdout
