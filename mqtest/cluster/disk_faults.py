"""Disks that fill up, fail, stand still or limp: what is in force in one cluster, and its undoing.

The agent does it (agent_program/disk_faults.py); here stands whose disk is in which state. No process can die that
waits for a disk that stands still: so `before_death` thaws it, and how long it stood until then is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mqtest.cluster import Evidence
from mqtest.cluster.agent import Agent
from mqtest.cluster.disks import Disk
from mqtest.errors import ClusterError

Targets = Callable[[Sequence[str]], list[dict[str, Any]]]
"""names of nodes -> what the agent must know of those that run"""


@dataclass(slots=True)
class DiskFaults:
    """See mqtest.cluster.Cluster for what each does, and its evidence."""

    agent: Agent
    targets: Targets
    disks: Mapping[str, Disk]
    """by node"""
    _frozen_ns: dict[str, int] = field(default_factory=dict)
    """by node whose disk stands still: since when"""
    _stalled_ms: dict[str, float] = field(default_factory=dict)
    """by node whose disk was thawed before its death: how long it had stood"""
    _limping: dict[str, str] = field(default_factory=dict)
    """by node whose disk limps: its container"""

    def fill(self, names: Sequence[str]) -> Evidence:
        """Evidence: by node `free_bytes_before`, `free_bytes_after`, `probe` (ENOSPC)."""
        return _all_say("ENOSPC", self.agent.call("fill-disks", {"targets": self.targets(names)}))

    def free(self, names: Sequence[str]) -> Evidence:
        """Whether its nodes run or not. Evidence: `free_bytes` by node."""
        left = self.agent.call("free-disks", {"disks": [self.disks[name].image for name in names]})
        return {"free_bytes": {name: left[self.disks[name].image] for name in names}}

    def fail(self, names: Sequence[str]) -> Evidence:
        """Evidence: by node `failed_ns`, `probe` (EIO)."""
        return _all_say("EIO", self.agent.call("fail-disks", {"targets": self.targets(names)}))

    def stall(self, names: Sequence[str]) -> Evidence:
        """Evidence: `state` by node (`frozen`)."""
        targets = self.targets(names)
        self._frozen_ns |= {
            target["name"]: 0 for target in targets
        }  # before it happens: so it is undone however it ends
        answer = self.agent.call("stall-disks", {"targets": targets})
        self._frozen_ns |= {name: entry["frozen_ns"] for name, entry in answer.items()}
        states = {name: entry["state"] for name, entry in answer.items()}
        return {"state": states} if states and set(states.values()) == {"frozen"} else {}

    def thaw(self, names: Sequence[str]) -> Evidence:
        """Evidence: `stalled_ms` by node, of those that stood still until now, or until their death."""
        frozen = {name: self.disks[name].image for name in names if name in self._frozen_ns}
        thawed = self.agent.call("thaw-disks", {"disks": list(frozen.values())}) if frozen else {}
        stalled = {name: self._stalled_ms.pop(name) for name in names if name in self._stalled_ms}
        for name, image in frozen.items():
            since = self._frozen_ns.pop(name)
            if image in thawed and since:
                stalled[name] = (thawed[image] - since) / 1e6
        return {"stalled_ms": stalled} if stalled else {}

    def slow(self, names: Sequence[str], stalled_ms: float, free_ms: float) -> Evidence:
        """Evidence: the cycle, by node; that it bit shows when it is undone."""
        if stalled_ms <= 0 or free_ms <= 0:
            raise ClusterError(f"a disk cannot stand still for {stalled_ms:g} ms in turn with {free_ms:g} ms: above 0")
        targets = self.targets(names)
        self._limping |= {target["name"]: target["container"] for target in targets}
        self.agent.call("slow-disks", {"targets": targets, "stalled_ms": stalled_ms, "free_ms": free_ms})
        return {"cycle_ms": dict.fromkeys((target["name"] for target in targets), stalled_ms + free_ms)}

    def unslow(self, names: Sequence[str]) -> Evidence:
        """Evidence: by node `cycles`, and `stalled_ms` in all; empty when there was no cycle."""
        limping = {name: self._limping[name] for name in names if name in self._limping}
        answer = self.agent.call("unslow-disks", {"containers": limping}) if limping else {}
        for name in limping:
            del self._limping[name]
        return dict(answer) if any(entry["cycles"] for entry in answer.values()) else {}

    def before_death(self, names: Sequence[str]) -> None:
        """Let no disk of these nodes stand still. One that limps stops by itself when its node ends."""
        self._stalled_ms |= self.thaw(names).get("stalled_ms", {})

    def undo(self) -> None:
        """All that cannot end with the cluster by itself."""
        self.unslow(list(self._limping))
        self.thaw(list(self._frozen_ns))


def _all_say(error: str, answer: Mapping[str, Mapping[str, Any]]) -> Evidence:
    return dict(answer) if all(entry["probe"] == error for entry in answer.values()) else {}
