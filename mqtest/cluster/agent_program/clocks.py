"""The wall clocks of nodes: a file on the node's disk, read each second by libfaketime in every process of the node.

The library stands on the disk as well, so no image has to bring it (disks.py). Timers and timeouts do not see it.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from .disks import CLOCK, LIBRARY, clock_text, mounted
from .proofs import FailedError, Target, filesystem, hold


def jump(targets: Sequence[Target], seconds: float) -> dict[str, bool]:
    """Let the clocks be so many seconds ahead, or behind, of the host's, once the processes look."""
    for target in targets:
        with hold(target) as pidfd, filesystem(target, pidfd) as disk:
            if LIBRARY not in Path(f"/proc/{target.pid}/maps").read_text():
                raise FailedError(f"{target.name}: it was not started with a clock that can jump")
            _write(disk, seconds)
    return {target.name: True for target in targets}


def reset(disks: Sequence[str]) -> dict[str, bool]:
    """Let the clocks be right again, of disks given as `run/name`, their nodes alive or not."""
    for disk in disks:
        with mounted(disk) as point:
            _write(point, 0)
    return dict.fromkeys(disks, True)


def _write(disk: int, seconds: float) -> None:
    fd = os.open(CLOCK, os.O_WRONLY | os.O_NOFOLLOW, dir_fd=disk)
    try:
        os.pwrite(fd, clock_text(seconds), 0)
        os.fsync(fd)
    finally:
        os.close(fd)
