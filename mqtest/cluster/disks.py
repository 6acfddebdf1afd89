"""Disks of their own for the nodes of a cell, made, attached and removed through the agent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mqtest.cluster.agent import Agent
from mqtest.errors import ClusterError, UsageError

SMALLEST_MB: Mapping[str, int] = {"ext4": 16, "xfs": 300}
"""filesystem -> the smallest disk that its mkfs accepts"""


@dataclass(frozen=True, slots=True)
class Disk:
    """One disk: `device` on the host, and its image, `run/name` in our volume."""

    device: str
    image: str


def make(agent: Agent, names: Sequence[str], fs: str, size_mb: int) -> dict[str, Disk]:
    """A fresh disk for each name (unique in the run); all or none. Raises UsageError, ClusterError."""
    if fs not in SMALLEST_MB:
        raise UsageError(f"fs = {fs!r} is not a filesystem of ours: one of {', '.join(SMALLEST_MB)}")
    if size_mb < SMALLEST_MB[fs]:
        raise UsageError(f"disk_mb = {size_mb} is too small for {fs}: {SMALLEST_MB[fs]} or more")
    devices = agent.call("make-disks", {"names": list(names), "fs": fs, "size_mb": size_mb})
    return {name: Disk(device, f"{agent.run}/{name}") for name, device in devices.items()}


def remove(agent: Agent, images: Sequence[str]) -> None:
    """Detach and delete; absent ones are fine. Raises ClusterError when somebody still has one mounted."""
    busy = agent.call("remove-disks", {"disks": list(images)})["busy"]
    if busy:
        raise ClusterError(f"disks still mounted, so not removed: {', '.join(busy)}")


def await_unmounted(agent: Agent, disks: Sequence[Disk], timeout_s: float = 40) -> None:
    """Until no filesystem is mounted from them, so that the next mount replays the journal. Raises ClusterError."""
    busy = agent.call("await-unmounted", {"devices": [disk.device for disk in disks], "timeout_s": timeout_s})
    if busy:
        raise ClusterError(f"{', '.join(busy)} still mounted {timeout_s:g} s after the nodes ended")
