"""The nodes of one cell and what can be done to them: the protocol Cluster.

Only this package touches Docker. Two things implement the protocol: `ComposeCluster` (containers.py: containers with
a loop disk each) and `MemoryCluster` (memory.py: a local process). Every action takes node names, hits them
together, is idempotent where undone, and returns its evidence as a plain dict of JSON values; faults.py composes
them into faults with an undo.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Protocol

from mqtest.model import Node, Value

STREAMS: Final = ("both", "upstream", "downstream")
"""which way a link is bad; upstream: from clients to brokers"""

HOST: Final = "host"
"""a peer that is no node: the host, on which the clients run"""

Evidence = dict[str, Any]
"""Empty: it did not bite."""


class Links(Protocol):
    """The proxies between clients and brokers. Everything that is put on them has a tag, and goes by it."""

    def impair(self, action: str, names: Sequence[str], settings: Mapping[str, Value], tag: str) -> Evidence:
        """Make these nodes' links bad in the way of the action (`link-latency`, …). Evidence: what a client of our own
        saw before and after."""

    def restore(self, tag: str) -> Evidence:
        """Undo it. Evidence: what was in force until now, and the bytes that went through meanwhile."""

    def wrong(self) -> str | None:
        """None while the proxies work; else what is wrong."""


class Processor(Protocol):
    """Apache Flink beside the brokers; its parts are `jobmanager` and `taskmanager`."""

    @property
    def address(self) -> str:
        """host:port of its REST interface."""

    def kill(self, names: Sequence[str]) -> Evidence:
        """SIGKILL; evidence: `exit_code` of each (137)."""

    def start(self, names: Sequence[str]) -> None:
        """Start again what does not run."""


class Cluster(Protocol):
    """A running cluster; `nodes` has every container, name servers and controllers included."""

    @property
    def nodes(self) -> tuple[Node, ...]:
        """All nodes."""

    @property
    def links(self) -> Links | None:
        """Where a fault of the cell needs them."""

    @property
    def flink(self) -> Processor | None:
        """Where it runs the jobs of the cell's replay."""

    @property
    def image(self) -> Mapping[str, str]:
        """`tag`, `id`, `origin` of the image that the brokers run."""

    def sync(self) -> None:
        """Flush every node's own disk (never the host's)."""

    def kill(self, names: Sequence[str]) -> Evidence:
        """SIGKILL, all at once; evidence: `exit_code` of each (137)."""

    def stop(self, names: Sequence[str], grace_s: float = 30.0) -> Evidence:
        """SIGTERM, then SIGKILL after the grace; evidence: exit codes."""

    def start(self, names: Sequence[str]) -> None:
        """Start again what does not run; the same disk."""

    def pause(self, names: Sequence[str]) -> Evidence:
        """Freeze every process of the node; evidence: the state that the engine reports."""

    def unpause(self, names: Sequence[str]) -> None:
        """Thaw what is frozen."""

    def cut_power(self, names: Sequence[str]) -> Evidence:
        """Silence, forgetting disks and death, all nodes at once. Evidence: `silence_ns`, `cut_ns`, `killed_ns`
        (CLOCK_MONOTONIC), `spread_ms`; what was forgotten shows only in `forgotten`."""

    def forgotten(self, names: Sequence[str]) -> Evidence:
        """After the nodes run again: which of the two witness files (synced, unsynced) each disk has. Empty when
        any disk remembered its unsynced bytes."""

    def isolate(
        self, names: Sequence[str], peers: Sequence[str], *, direction: str = "both", tag: str = "partition"
    ) -> Evidence:
        """Drop all packets between `names` and `peers` (nodes, or HOST: clients stay attached unless it is named).

        `direction` is "both", or "in" or "out" as `names` see it: what comes from the peers, what goes to them. Stays
        in force when a node starts again, until the tag is undone. Evidence: rules.
        """

    def rejoin(self, tag: str = "partition") -> Evidence:
        """Remove exactly the rules that isolate added under this tag. Evidence: packets dropped by each node's rules,
        those that it dropped before a restart included."""

    def lose_packets(self, names: Sequence[str], percent: float, tag: str = "loss") -> Evidence:
        """Drop so many of the packets of these nodes at random, those that come and those that go, whoever the other
        side is. Stays in force when a node starts again. Evidence: rules."""

    def keep_packets(self, tag: str = "loss") -> Evidence:
        """Undo lose_packets. Evidence: packets dropped by each node's rules."""

    def fill_disk(self, names: Sequence[str]) -> Evidence:
        """Leave no byte free on their disks. Evidence: free bytes before and after, and ENOSPC on a write of ours."""

    def free_disk(self, names: Sequence[str]) -> Evidence:
        """Give back what fill_disk took, whether the nodes run or not. Evidence: bytes free by node."""

    def fail_disk(self, names: Sequence[str]) -> Evidence:
        """From now on their disks answer everything with an I/O error, and what was not flushed is gone. Undone by
        kill and start. Evidence: EIO on a write of ours."""

    def stall_disk(self, names: Sequence[str]) -> Evidence:
        """Flush their disks, then let every write wait until thaw_disk, or until the node is killed. Evidence:
        the state that the kernel reports."""

    def thaw_disk(self, names: Sequence[str]) -> Evidence:
        """Undo stall_disk. Evidence: for how long each stood still."""

    def slow_disk(self, names: Sequence[str], stalled_ms: float, free_ms: float) -> Evidence:
        """Let their disks stand still and work in turn, until unslow_disk, or until the node ends. Each time they are
        flushed first, so less is at stake in a power cut meanwhile."""

    def unslow_disk(self, names: Sequence[str]) -> Evidence:
        """Undo slow_disk. Evidence: cycles, and for how long in all each stood still."""

    def jump_clock(self, names: Sequence[str], seconds: float) -> Evidence:
        """Set the wall clocks of nodes ahead, or back; only of a cluster that was brought up for it. Evidence: by how
        much each is off, as the node itself says."""

    def reset_clock(self, names: Sequence[str]) -> Evidence:
        """Set them right. Evidence: likewise."""

    def exited(self) -> Mapping[str, int]:
        """Nodes that do not run now, with their exit codes."""

    def whole(self) -> str | None:
        """None when disks, network and engine are proven whole; else what is not."""

    def messages_on_disk(self, run_number: int, size: int) -> Mapping[str, Mapping[str, Sequence[Sequence[int]]]]:
        """Which messages of that number and size lie whole in files of each node that runs, whatever its broker makes
        of them: producer -> first and last sequence number of each run. A broker that compresses hides them."""

    def save_logs(self, folder: Path) -> None:
        """Write `<node>.log` for every node."""

    def usage(self) -> Mapping[str, Mapping[str, float]]:
        """Of every node that runs, so far: `cpu_s`, `memory_bytes`, and of its disk `written_bytes`, `writes` and
        `flushes`, as far as that can be told. What only grows, but CPU starts anew with the node."""

    def flush_times(self) -> Mapping[str, Sequence[int]]:
        """By node that runs: how many ns it takes to append a block of 4 KiB to a file on its disk and flush it, some
        dozens of times. All else that is on the disk is flushed with it."""

    def down(self) -> None:
        """Remove everything that this cluster brought; idempotent."""
