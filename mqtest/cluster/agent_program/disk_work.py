"""What a disk did, and how long it takes to flush.

- Counters: those of the loop device, which is one node's alone. So they hold every byte that reached it, whoever wrote
  it back, under cgroup v1 and v2 alike; a cgroup of version 1 does not count what the kernel writes back later.
- Flushing: a block of 4 KiB is appended to a file of ours and fdatasync waits for it, as a broker's log would; SAMPLES
  times, for about MOST_S at most. The file is emptied afterwards. This commits the filesystem's journal, with all that
  others have made on it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from .disks import PROBE, image_of
from .proofs import Target, attached, filesystem, hold

BLOCK = b"f" * 4096
SAMPLES = 64
MOST_S = 0.5
SECTOR_BYTES = 512
_WRITES, _SECTORS_WRITTEN, _FLUSHES = 4, 6, 15
"""places in /sys/block/DEVICE/stat (Documentation/block/stat.rst); flushes since Linux 5.5"""


def flush_times(targets: Sequence[Target]) -> dict[str, list[int]]:
    """By name: how many ns each appended block took, one target after the other."""
    taken = {}
    for target in targets:
        with hold(target) as pidfd, filesystem(target, pidfd) as disk:
            taken[target.name] = appended(os.open(PROBE, os.O_WRONLY | os.O_NOFOLLOW, dir_fd=disk))
    return taken


def appended(file: int) -> list[int]:
    """The times of blocks that are appended to an open, empty file, which is empty again then, and closed."""
    try:
        taken: list[int] = []
        while not taken or (len(taken) < SAMPLES and sum(taken) < MOST_S * 1e9):
            begun = time.monotonic_ns()
            os.write(file, BLOCK)
            os.fdatasync(file)
            taken.append(time.monotonic_ns() - begun)
        return taken
    finally:
        os.ftruncate(file, 0)
        os.close(file)


def counters(disks: Sequence[str]) -> dict[str, dict[str, int]]:
    """Of each disk (`run/name`) that is attached: what parse() says."""
    minors = attached()
    loops = {disk: minors[image] for disk in disks if (image := image_of(disk)) in minors}
    return {disk: parse(Path(f"/sys/block/loop{minor}/stat").read_text()) for disk, minor in loops.items()}


def parse(stat: str) -> dict[str, int]:
    """`writes` and `written_bytes` since the device was attached; `flushes` where the kernel counts them."""
    fields = [int(field) for field in stat.split()]
    found: Mapping[str, int] = {"writes": fields[_WRITES], "written_bytes": fields[_SECTORS_WRITTEN] * SECTOR_BYTES}
    return {**found, "flushes": fields[_FLUSHES]} if len(fields) > _FLUSHES else dict(found)
