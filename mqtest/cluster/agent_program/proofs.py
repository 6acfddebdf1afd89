"""Is it ours? Every act of the agent passes through here first, and what cannot be proven is refused.

A process is held by a pidfd, and then its cgroup must name the container that the caller means: so the signal
cannot reach a process that took over the number. A filesystem must lie on a loop device, and the device's backing
file must be an image of this run in our disk volume, told by device and inode, not by a path (the data of a plain
volume lies on the host's own disk). A network namespace must not be the host's.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import select
import stat
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DISKS = Path("/disks")
"""Where our disk volume is mounted: `<run>/<name>.img`."""

LOOP_MAJOR = 7
LOOP_GET_STATUS64 = 0x4C05
LOOP_INFO64_BYTES = 232
"""struct loop_info64; it opens with lo_device and lo_inode of the backing file"""

_CONTAINER = re.compile(r"(?:docker-)?([0-9a-f]{64})(?:\.scope)?")


class RefusedError(Exception):
    """What was asked for could not be proven to be ours."""


class FailedError(Exception):
    """Ours, but it did not work."""


class GoneError(FailedError):
    """The node ended meanwhile."""


@dataclass(frozen=True, slots=True)
class Target:
    """One container that the caller means: its id, its PID 1 as the host counts, its data directory inside."""

    name: str
    container: str
    pid: int
    data: str

    @staticmethod
    def read(entry: Mapping[str, Any]) -> Target:
        """From a request."""
        return Target(str(entry["name"]), str(entry["container"]), int(entry["pid"]), str(entry["data"]))


def containers(cgroup: str) -> frozenset[str]:
    """The container ids that a `/proc/PID/cgroup` names, under cgroup v1 and v2, by either cgroup driver.

    Only the last part of a path counts: what runs in a container inside a container is not in the outer one.
    """
    last = (line.rpartition("/")[2] for line in cgroup.splitlines())
    return frozenset(found[1] for part in last if (found := _CONTAINER.fullmatch(part)))


@contextlib.contextmanager
def hold(target: Target) -> Iterator[int]:
    """A pidfd of the target's PID 1, proven to run in the target's container."""
    try:
        pidfd = os.pidfd_open(target.pid)
    except ProcessLookupError:
        raise GoneError(f"{target.name}: process {target.pid} is gone") from None
    try:
        try:
            named = containers(Path(f"/proc/{target.pid}/cgroup").read_text())
        except (FileNotFoundError, ProcessLookupError):
            raise GoneError(f"{target.name}: process {target.pid} is gone") from None
        if target.container not in named:
            raise RefusedError(f"{target.name}: process {target.pid} does not run in container {target.container[:12]}")
        prove_alive(target, pidfd)
        yield pidfd
    finally:
        os.close(pidfd)


def prove_alive(target: Target, pidfd: int) -> None:
    """The process has not ended: so all that was read or opened by its number until now was of this process."""
    if select.select([pidfd], [], [], 0)[0]:  # a pidfd turns readable at the end
        raise GoneError(f"{target.name}: process {target.pid} is gone")


@contextlib.contextmanager
def filesystem(target: Target, pidfd: int) -> Iterator[int]:
    """The target's data directory, opened, proven to lie on a disk of this run."""
    path = f"/proc/{target.pid}/root{target.data}"
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        prove_alive(target, pidfd)
        device = os.fstat(fd).st_dev
        if os.major(device) != LOOP_MAJOR:
            raise RefusedError(
                f"{target.name}: {target.data} lies on device {os.major(device)}:{os.minor(device)}, "
                f"which is not a loop device"
            )
        prove_loop(os.minor(device), this_run())
        yield fd
    finally:
        os.close(fd)


@contextlib.contextmanager
def network(target: Target, pidfd: int) -> Iterator[int]:
    """The target's network namespace, opened, proven not to be the host's."""
    fd = os.open(f"/proc/{target.pid}/ns/net", os.O_RDONLY)
    try:
        # The parent of a container's PID 1 is the engine's shim, which lives where the engine does: in the host's.
        parent = _parent(target.pid)
        prove_alive(target, pidfd)
        if os.fstat(fd).st_ino == Path(f"/proc/{parent}/ns/net").stat().st_ino:
            raise RefusedError(f"{target.name}: shares the network of the host")
        yield fd
    finally:
        os.close(fd)


def _parent(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("PPid:"))


def this_run() -> str:
    """The run that this agent serves."""
    return os.environ["MQTEST_RUN"]


def images(run: str | None = None) -> dict[tuple[int, int], Path]:
    """The image files in our volume, of one run or of all, by device and inode."""
    found = {}
    for path in DISKS.glob(f"{run or '*'}/*.img"):
        seen = path.lstat()
        if stat.S_ISREG(seen.st_mode):
            found[seen.st_dev, seen.st_ino] = path
    return found


def backing(minor: int) -> tuple[int, int] | None:
    """Device and inode of the file behind `/dev/loop<minor>`, as the kernel knows them; None: nothing is attached."""
    fd = os.open(f"/dev/loop{minor}", os.O_RDONLY | os.O_NOFOLLOW)
    try:
        if os.fstat(fd).st_rdev != os.makedev(LOOP_MAJOR, minor):
            raise RefusedError(f"/dev/loop{minor} is not loop device {minor}")
        info = fcntl.ioctl(fd, LOOP_GET_STATUS64, bytes(LOOP_INFO64_BYTES))
    except OSError as error:
        if error.errno in (6, 19):  # ENXIO, ENODEV: nothing attached
            return None
        raise
    finally:
        os.close(fd)
    device, inode = struct.unpack_from("<QQ", info)
    return device, inode


def prove_loop(minor: int, run: str | None = None) -> Path:
    """The image of ours behind a loop device (of that run); refused when it is anything else."""
    behind = backing(minor)
    ours = images(run)
    if behind is None or behind not in ours:
        raise RefusedError(f"/dev/loop{minor} is not backed by a disk image of {f'run {run}' if run else 'mqtest'}")
    return ours[behind]


def attached() -> dict[Path, int]:
    """Our images that are attached to a loop device now, with its number."""
    ours = images()
    found = {}
    for folder in Path("/sys/block").glob("loop*"):
        if (folder / "loop").exists():
            minor = int(folder.name.removeprefix("loop"))
            behind = backing(minor)
            if behind in ours:
                found[ours[behind]] = minor
    return found
