"""SIGKILL of the runner in the middle of a fault: `mqtest down` leaves nothing of ours, and the ledgers read whole.

`MQTEST_KILLS` says how often (default 2): the first kill right after the injection, each later one a little later.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Collection
from pathlib import Path

import docker
import pytest

from mqtest.clock import wait_until
from mqtest.cluster import network
from mqtest.cluster.locks import live_runs
from mqtest.event_log import events_path, load_events
from mqtest.judge import judge
from mqtest.ledger import load_sends, sends_folders
from mqtest.model import Verdict

pytestmark = [pytest.mark.docker, pytest.mark.timeout(300)]

KILLS = int(os.environ.get("MQTEST_KILLS", "2"))
FAULTS = ("power-cut:all", "partition:leader", "pause:leader", "kill:all", "power-cut:leader")

SCENARIO = """
title = "killed"
question = "What is left when the runner is killed?"
profiles = ["rabbitmq/quorum"]
faults = ["{fault}"]
[workload]
rate_per_s = 500
consume = "live"
[phases]
warm_up_s = 1
steady_s = 1
hold_s = 30
"""


def leftovers(run: str, subnets: Collection[str]) -> list[str]:
    """What carries the run's name and is still on this machine, and routes to its subnets; where no other run goes on,
    also the guard of the address pool, which all share."""
    with contextlib.closing(docker.from_env()) as client:
        of_run = {"label": f"mqtest.run={run}"}
        found = [f"container {c.name}" for c in client.containers.list(all=True, filters=of_run)]
        found += [f"network {n.name}" for n in client.networks.list(filters=of_run)]
        found += [f"volume {v.name}" for v in client.volumes.list(filters=of_run)]
    for path in Path("/sys/block").glob("loop*/loop/backing_file"):
        if f"/{run}/" in (backing := path.read_text().strip()):
            found.append(f"loop device {path.parts[3]} on {backing}")
    routes = subprocess.run(["ip", "route"], capture_output=True, text=True, check=True, timeout=10).stdout
    found += [f"route {line}" for line in routes.splitlines() if line.split()[0] in subnets]
    if network.guarded(network.pool()) and not live_runs():
        found.append("the guard of the address pool")
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has just ended, or is another user's
            if f"MQTEST_RUN={run}".encode() in (process / "environ").read_bytes().split(b"\0"):
                found.append(f"process {process.name}")
    return found


def subnets_of(run: str) -> set[str]:
    """Those of the run's networks."""
    with contextlib.closing(docker.from_env()) as client:
        networks = client.networks.list(filters={"label": f"mqtest.run={run}"})
        return {config["Subnet"] for one in networks for config in one.attrs["IPAM"]["Config"]}


def in_force(run_dir: Path) -> bool:
    """Whether the fault of the run's cell has been injected."""
    folders = list(run_dir.glob("*/cells/*"))
    if not folders or not events_path(folders[0]).is_file():
        return False
    return any(e.get("step") == "injected" for e in load_events(events_path(folders[0])))


@pytest.mark.parametrize("number", range(KILLS))
def test_nothing_is_left(tmp_path: Path, number: int) -> None:
    scenario = tmp_path / "killed.toml"
    scenario.write_text(SCENARIO.format(fault=FAULTS[number % len(FAULTS)]))
    command = [sys.executable, "-m", "mqtest", "run", str(scenario), "--results", str(tmp_path / "r"), "--plain"]
    runner = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: in_force(tmp_path / "r"), 120, "the fault to be injected")
        time.sleep(0.4 * number)
    finally:
        runner.kill()
        runner.wait(10)
    (folder,) = (tmp_path / "r").glob("*/cells/*")
    run = folder.parent.parent.name
    subnets = subnets_of(run)
    left = {what.split()[0] for what in leftovers(run, subnets)}
    assert left >= {"container", "network", "volume", "loop", "route"}, "the kill left something to remove"
    done = subprocess.run(
        [sys.executable, "-m", "mqtest", "down"], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert leftovers(run, subnets) == []
    sent = sum(len(load_sends(path)["sent_ns"]) for path in sends_folders(folder).values())
    assert sent > 500
    assert json.loads((folder / "cell.json").read_text())["finished"] is False
    assert judge(folder).verdict is Verdict.UNKNOWN
