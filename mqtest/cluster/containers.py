"""The containers of one cell, and all that can be done to them.

Whatever needs privilege goes through the agent (agent.py); the rest is asked of the engine, of all nodes at the same
time. Nodes that do not run are left out of what is done to them. compose.py brings the cluster up.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from docker.models.containers import Container

from mqtest.clock import wait_until
from mqtest.cluster import HOST, Evidence, Links, disks, leftovers
from mqtest.cluster.agent import Agent
from mqtest.cluster.disk_faults import DiskFaults
from mqtest.cluster.disks import Disk
from mqtest.cluster.engine import asking, together
from mqtest.cluster.flink import Flink
from mqtest.cluster.holds import Drop, Holds
from mqtest.errors import ClusterError, MqtestError, WaitTimeout
from mqtest.model import Node

WITNESS_AGE_S: Final = 1.0
"""how long before the cut the witnesses are written"""
EXIT_S: Final = 30.0
"""at most, from SIGKILL until the engine has noticed"""
CLOCK_S: Final = 10.0
"""at most, until a clock is seen to follow"""
CLOCK_SLACK_S: Final = 2.0
PROJECT_LABEL: Final = "com.docker.compose.project"
FULL: Final = 0.02
"""a disk with less free than this part is no proof against a broker"""


@dataclass(slots=True)
class ComposeCluster:
    """The nodes of one cell; implements mqtest.cluster.Cluster."""

    agent: Agent
    project: str
    nodes: tuple[Node, ...]
    image: Mapping[str, str]
    disks: Mapping[str, Disk]
    """by node"""
    data: Mapping[str, str]
    """by node: where its disk is mounted"""
    gateway: str
    """the address of the host in the cell's network, from which clients come"""
    links: Links | None = None
    flink: Flink | None = None
    _witnesses: dict[str, Mapping[str, str]] = field(default_factory=dict)
    """by node: the texts "old" and "new" of the last power cut"""
    _holds: Holds = field(init=False)
    _disk_faults: DiskFaults = field(init=False)
    _down: bool = False

    def __post_init__(self) -> None:
        """Nothing is in force yet."""
        self._holds = Holds(self.agent, self._targets)
        self._disk_faults = DiskFaults(self.agent, self._targets, self.disks)

    # --- actions and their undoing ---

    def sync(self) -> None:
        """Flush the disk of every node that runs."""
        self.agent.call("sync", {"targets": self._targets(self._names())})

    def kill(self, names: Sequence[str]) -> Evidence:
        """SIGKILL to PID 1 of all at once; a disk that stands still is thawed first. Evidence: `exit_code` by node
        (137), `killed_ns`."""
        hit = self._targets(names)
        if not hit:
            return {}
        self._before_death(names)
        answer = self.agent.call("kill", {"targets": hit})
        return {"exit_code": self._await_exit([target["name"] for target in hit]), "killed_ns": answer["killed_ns"]}

    def stop(self, names: Sequence[str], grace_s: float = 30.0) -> Evidence:
        """SIGTERM to all at once, SIGKILL after the grace. Evidence: `exit_code` by node."""
        running = [name for name in names if self._state(name)["Running"]]
        self._before_death(running)
        with asking(f"stopping {', '.join(running)}"):
            together(lambda name: self._container(name).stop(timeout=int(grace_s)), running)
        return {"exit_code": self._await_exit(running)} if running else {}

    def start(self, names: Sequence[str]) -> None:
        """Start what does not run, all at once, each on its disk, mounted afresh. It drops the packets that it
        dropped before."""
        halted = [name for name in names if not self._state(name)["Running"]]
        if not halted:
            return
        disks.await_unmounted(self.agent, [self.disks[name] for name in halted])
        with asking(f"starting {', '.join(halted)}"):
            together(lambda name: self._container(name).start(), halted)
        self._holds.after_start(halted)

    def pause(self, names: Sequence[str]) -> Evidence:
        """Freeze all processes of each node. Evidence: `state` by node, as the engine reports it (`paused`)."""
        awake = [name for name in names if self._state(name)["Status"] == "running"]
        with asking(f"pausing {', '.join(awake)}"):
            together(lambda name: self._container(name).pause(), awake)
        return {"state": {name: self._state(name)["Status"] for name in awake}} if awake else {}

    def unpause(self, names: Sequence[str]) -> None:
        """Thaw what is frozen."""
        frozen = [name for name in names if self._state(name)["Paused"]]
        with asking(f"thawing {', '.join(frozen)}"):
            together(lambda name: self._container(name).unpause(), frozen)

    def cut_power(self, names: Sequence[str]) -> Evidence:
        """The power cut (agent_program/power.py), a second after the witnesses are written; returns once the
        engine has seen the nodes end.

        Evidence: CLOCK_MONOTONIC `begun_ns`, `silence_ns`, `cut_ns`, `killed_ns`, each when the last node's step was
        done; `died_ns` by node; `spread_ms` from the first step to the last; `stolen_ms`, what a hypervisor took of
        it; `exit_code` by node.
        """
        hit = self._targets(names)
        if not hit:
            return {}
        self._before_death(names)
        answer = self.agent.call("cut", {"targets": hit, "age_s": WITNESS_AGE_S})
        self._witnesses.update(answer.pop("witnesses"))
        spread_ms = (answer["killed_ns"] - answer["begun_ns"]) / 1e6
        return {**answer, "spread_ms": spread_ms, "exit_code": self._await_exit([one["name"] for one in hit])}

    def forgotten(self, names: Sequence[str]) -> Evidence:
        """After the nodes that were cut run again: by node {"synced": "new", "unsynced": "old"}. Empty when any
        disk remembered what was not synced, lost what was, or was never cut."""
        seen = self.agent.call("witnesses", {"targets": self._targets(names)})
        for name in names:
            if name not in seen or name not in self._witnesses:
                return {}
            written = self._witnesses[name]
            if seen[name] != {"synced": written["new"], "unsynced": written["old"]}:
                return {}
        return {name: {"synced": "new", "unsynced": "old"} for name in names}

    def isolate(
        self, names: Sequence[str], peers: Sequence[str], *, direction: str = "both", tag: str = "partition"
    ) -> Evidence:
        """Drop all packets between `names` and `peers`, by rules in the network of each of `names`. Evidence: `rules`
        by node."""
        if direction not in WAYS:
            raise ClusterError(f"direction {direction!r} is none: one of {', '.join(WAYS)}")
        drops = {}
        for name in names:
            addresses = tuple(sorted({one for peer in peers if peer != name for one in self._addresses(peer)}))
            if addresses:
                drops[name] = Drop(peers=addresses, ways=WAYS[direction])
        return self._holds.add(tag, drops)

    def rejoin(self, tag: str = "partition") -> Evidence:
        """Remove the rules that isolate added. Evidence: `dropped` packets by node; empty when there were none."""
        return self._holds.lift(tag)

    def lose_packets(self, names: Sequence[str], percent: float, tag: str = "loss") -> Evidence:
        """Drop so many of the packets that come in, and of those that go out, at random. Evidence: `rules` by node."""
        if not 0 < percent <= 100:
            raise ClusterError(f"percent = {percent:g} of the packets cannot be lost: above 0, at most 100")
        return self._holds.add(tag, {name: Drop(peers=None, ways=WAYS["both"], percent=percent) for name in names})

    def keep_packets(self, tag: str = "loss") -> Evidence:
        """Remove the rules that lose_packets added. Evidence: `dropped` packets by node; empty when there were none."""
        return self._holds.lift(tag)

    def fill_disk(self, names: Sequence[str]) -> Evidence:
        """Leave no block free on the disks. Evidence: by node free bytes before and after, and ENOSPC on a write."""
        return self._disk_faults.fill(names)

    def free_disk(self, names: Sequence[str]) -> Evidence:
        """Give back what fill_disk took, whether the nodes run or not. Evidence: `free_bytes` by node."""
        return self._disk_faults.free(names)

    def fail_disk(self, names: Sequence[str]) -> Evidence:
        """Let the disks fail whatever is asked of them. Undone by kill and start. Evidence: by node EIO on a write."""
        return self._disk_faults.fail(names)

    def stall_disk(self, names: Sequence[str]) -> Evidence:
        """Flush the disks, and let every write to them wait from then on. Evidence: `state` by node (`frozen`)."""
        return self._disk_faults.stall(names)

    def thaw_disk(self, names: Sequence[str]) -> Evidence:
        """Undo stall_disk. Evidence: `stalled_ms` by node."""
        return self._disk_faults.thaw(names)

    def slow_disk(self, names: Sequence[str], stalled_ms: float, free_ms: float) -> Evidence:
        """Let the disks stand still for so long, and work for so long, in turn. Evidence: `cycle_ms` by node."""
        return self._disk_faults.slow(names, stalled_ms, free_ms)

    def unslow_disk(self, names: Sequence[str]) -> Evidence:
        """Undo slow_disk. Evidence: by node `cycles`, and `stalled_ms` in all."""
        return self._disk_faults.unslow(names)

    def jump_clock(self, names: Sequence[str], seconds: float) -> Evidence:
        """Set the wall clocks of nodes that run ahead, or back. Evidence: `offset_s` by node, as its `date` says; empty
        unless all follow."""
        self.agent.call("jump-clocks", {"targets": self._targets(names), "seconds": seconds})
        return self._clocks_off_by(names, seconds)

    def reset_clock(self, names: Sequence[str]) -> Evidence:
        """Set the wall clocks right, whether the nodes run or not. Evidence: `offset_s` by node that runs."""
        self.agent.call("reset-clocks", {"disks": [self.disks[name].image for name in names]})
        return self._clocks_off_by(names, 0)

    # --- questions ---

    def exited(self) -> Mapping[str, int]:
        """Nodes that do not run now, with their exit codes."""
        states = {name: self._state(name) for name in self._names()}
        return {name: int(state["ExitCode"]) for name, state in states.items() if not state["Running"]}

    def whole(self) -> str | None:
        """None when the engine answers, the network and every loop disk are there, no disk is full, and no
        container was ended for lack of memory; else what is wrong, in words."""
        try:
            return self._what_is_wrong()
        except MqtestError as error:
            return str(error)

    def messages_on_disk(self, run_number: int, size: int) -> Mapping[str, Mapping[str, Sequence[Sequence[int]]]]:
        """See Cluster."""
        asked = {"targets": self._targets(self._names()), "run": run_number, "size": size}
        found: dict[str, dict[str, list[list[int]]]] = self.agent.call("search", asked)
        return found

    def save_logs(self, folder: Path) -> None:
        """Write `<node>.log`: all that the node said, over all its starts, with the engine's times."""
        for name in self._names():
            with asking(f"reading the log of {name}"), (folder / f"{name}.log").open("wb") as file:
                for part in self._container(name).logs(stream=True, follow=False, timestamps=True):
                    file.write(part)
        if self.flink is not None:
            self.flink.save_logs(folder)

    def usage(self) -> Mapping[str, Mapping[str, float]]:
        """By node that runs: `cpu_s` and `memory_bytes`, since its last start, and what its disk did (disk_work.py)."""
        running = [name for name in self._names() if self._state(name)["Running"]]

        def ask(name: str) -> dict[str, float]:
            return of_stats(self.agent.client.api.stats(str(self._container(name).id), stream=False, one_shot=True))

        with asking("measuring"):
            seen = dict(zip(running, together(ask, running), strict=True))
        images = {name: self.disks[name].image for name in running}
        did = self.agent.call("disk-counters", {"disks": list(images.values())})
        return {name: figures | did.get(images[name], {}) for name, figures in seen.items()}

    def flush_times(self) -> Mapping[str, Sequence[int]]:
        """See Cluster."""
        taken: dict[str, list[int]] = self.agent.call("flush-times", {"targets": self._targets(self._names())})
        return taken

    def down(self) -> None:
        """Remove containers, network, volumes and disks; the agent stays for the run's next cell."""
        if self._down:
            return
        self._disk_faults.undo()
        remove(self.agent, self.project, [disk.image for disk in self.disks.values()])
        self._down = True
        self.agent.close()

    # --- inside ---

    def _names(self) -> list[str]:
        return [node.name for node in self.nodes]

    def _node(self, name: str) -> Node:
        return next(node for node in self.nodes if node.name == name)

    def _before_death(self, names: Sequence[str]) -> None:
        self._holds.before_death(names)
        self._disk_faults.before_death(names)

    def _clocks_off_by(self, names: Sequence[str], seconds: float) -> Evidence:
        running = [name for name in names if self._state(name)["Status"] == "running"]  # a frozen one tells no time
        off: dict[str, float] = {}

        def all_follow() -> bool:
            with asking("looking at clocks"):
                for name in running:
                    said: Any = self._container(name).exec_run(["date", "+%s.%N"])
                    off[name] = round(float(said.output) - time.time(), 1)
            return all(abs(each - seconds) < CLOCK_SLACK_S for each in off.values())

        try:
            wait_until(all_follow, CLOCK_S, f"the clocks of {', '.join(running)} to be set")
        except WaitTimeout:
            return {}
        return {"offset_s": off} if off else {}

    def _addresses(self, peer: str) -> list[str]:
        """Of a node, or of all that clients come from: the host, and their proxies where there are some."""
        if peer != HOST:
            return [self._node(peer).address]
        return [self.gateway, *(node.via.partition(":")[0] for node in self.nodes if node.via)]

    def _container(self, name: str) -> Container:
        return self.agent.client.containers.get(f"{self.project}-{name}-1")

    def _state(self, name: str) -> dict[str, Any]:
        with asking(f"looking at {name}"):
            state: dict[str, Any] = self._container(name).attrs["State"]
            return state

    def _targets(self, names: Sequence[str]) -> list[dict[str, Any]]:
        """What the agent must know of those that run."""

        def ask(name: str) -> dict[str, Any]:
            with asking(f"looking at {name}"):
                container = self._container(name)
            pid = container.attrs["State"]["Pid"] if container.attrs["State"]["Running"] else 0
            return {"name": name, "container": container.id, "pid": pid, "data": self.data[name]}

        return [target for target in together(ask, names) if target["pid"]]

    def _await_exit(self, names: Sequence[str]) -> dict[str, int]:
        def all_ended() -> dict[str, int]:
            states = {name: self._state(name) for name in names}
            if any(state["Running"] for state in states.values()):
                return {}
            return {name: int(state["ExitCode"]) for name, state in states.items()}

        return wait_until(all_ended, EXIT_S, f"{', '.join(names)} to end")

    def _what_is_wrong(self) -> str | None:
        for name in self._names():
            if self._state(name)["OOMKilled"]:
                return f"{name} was ended for lack of memory"
        if self.links is not None and (why := self.links.wrong()):
            return why
        with asking("looking for the network"):
            if not self.agent.client.api.networks(filters={"label": f"{PROJECT_LABEL}={self.project}"}):
                return "the network is gone"
        attached = {entry["disk"]: entry["device"] for entry in self.agent.call("list-disks")}
        for name, disk in self.disks.items():
            if attached.get(disk.image) != disk.device:
                return f"the disk of {name} is not attached to {disk.device}"
        for name, free in self.agent.call("space", {"targets": self._targets(self._names())}).items():
            if free < FULL:
                return f"the disk of {name} is full"
        return None


def of_stats(seen: Mapping[str, Any]) -> dict[str, float]:
    """`cpu_s` and `memory_bytes` of an answer of the engine's stats; the same keys under cgroup v1 and v2. Left out is
    what a container that has just ended no longer says."""
    found = {
        "cpu_s": (seen.get("cpu_stats") or {}).get("cpu_usage", {}).get("total_usage"),
        "memory_bytes": (seen.get("memory_stats") or {}).get("usage"),
    }
    units = {"cpu_s": 1e9, "memory_bytes": 1}
    return {name: value / units[name] for name, value in found.items() if value}


def remove(agent: Agent, project: str, images: Sequence[str]) -> None:
    """Remove the containers, network and volumes of a compose project, and then the disks."""
    leftovers.remove_labelled(agent.client, {"label": f"{PROJECT_LABEL}={project}"})
    disks.remove(agent, images)


WAYS: Final[Mapping[str, tuple[str, ...]]] = {"both": ("in", "out"), "in": ("in",), "out": ("out",)}
"""direction -> the ways that packets go, as the isolated node sees them"""
