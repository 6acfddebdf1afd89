"""Disks that fill up, fail, stand still or limp, under a node that runs.

- Full: a file that was made with the disk (disks.py) takes every block, those that are reserved for root included.
- Failing: the filesystem is shut down, as in a power cut, but the node lives: from then on all it does to it is EIO.
  Only a new mount, that is a new start of the node, brings it back.
- Standing still: the kernel's freeze. It first writes out what is dirty, and then every writer waits, in a sleep from
  which no signal wakes it; so a frozen filesystem must be thawed before its node can die. Thawing therefore needs no
  node: the disk is mounted here for a moment, which gives the very filesystem that is frozen.
- Limping: frozen and thawed in turn, by a process that this program leaves behind. It thaws and ends when its mark is
  removed, when the node ends, and when the agent does.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import select
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .disks import FILLER, PROBE, image_of, in_use, mounted
from .power import FS_IOC_SHUTDOWN, NO_LOG_FLUSH, mute
from .proofs import FailedError, Target, attached, filesystem, hold

FIFREEZE = 0xC0045877
FITHAW = 0xC0045878
BLOCK = 4096
ROUNDS = 50
"""at most; a node that frees space meanwhile is run after"""
READY = Path("/run/agent/ready")
"""has the number of the agent's own first process"""
LIMPING = Path("/run/agent/limping")
"""by container: a mark while its disk limps, and a tally"""
LOOK_S = 0.05
END_S = 20.0
"""at most, from the removal of the mark until the process has ended: it may be in the middle of a freeze"""


@dataclass(frozen=True, slots=True)
class Held:
    """A target and its disk, both proven, and open."""

    target: Target
    pidfd: int
    disk: int


@contextlib.contextmanager
def _held(targets: Sequence[Target]) -> Iterator[list[Held]]:
    """All of them, before anything is done to any."""
    with contextlib.ExitStack() as stack:
        held = []
        for target in targets:
            pidfd = stack.enter_context(hold(target))
            held.append(Held(target, pidfd, stack.enter_context(filesystem(target, pidfd))))
        yield held


# --- full ---


def fill(targets: Sequence[Target]) -> dict[str, dict[str, Any]]:
    """Leave no block free. By name: `free_bytes_before`, `free_bytes_after`, and `probe`, what a write says now."""
    with _held(targets) as held:
        return {each.target.name: _fill(each.disk) for each in held}


def _fill(disk: int) -> dict[str, Any]:
    before, said = _free_bytes(disk), ""
    with _opened(disk, FILLER) as file:
        for _ in range(ROUNDS):
            _take_all(file, os.statvfs(disk).f_bfree)
            said = _probe(disk)
            if said == "ENOSPC":
                break
    return {"free_bytes_before": before, "free_bytes_after": _free_bytes(disk), "probe": said}


def _take_all(file: int, blocks: int) -> None:
    step = max(1, blocks) * BLOCK
    while step >= BLOCK:
        try:
            os.posix_fallocate(file, os.fstat(file).st_size, step)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            step = step // 2 // BLOCK * BLOCK


def free(disks: Sequence[str]) -> dict[str, int]:
    """Give back what `fill` took from disks, given as `run/name`, their nodes alive or not; returns the bytes that
    are free then."""
    left = {}
    for disk in disks:
        with mounted(disk) as point, _opened(point, FILLER) as file:
            os.ftruncate(file, 0)
            left[disk] = _free_bytes(point)
    return left


# --- failing ---


def fail(targets: Sequence[Target]) -> dict[str, dict[str, Any]]:
    """Shut the filesystems down, nothing flushed. By name: `failed_ns`, and `probe`, what a write says now."""
    seen = {}
    with _held(targets) as held:
        for each in held:
            with _opened(each.disk, PROBE) as probe, mute(each.disk):
                fcntl.ioctl(each.disk, FS_IOC_SHUTDOWN, NO_LOG_FLUSH)
                seen[each.target.name] = {"failed_ns": time.monotonic_ns(), "probe": _written(probe)}
    return seen


# --- standing still ---


def stall(targets: Sequence[Target]) -> dict[str, dict[str, Any]]:
    """Freeze all at the same time. By name: `frozen_ns`, and `state`, `frozen` when the kernel says so."""
    with _held(targets) as held, ThreadPoolExecutor(max(1, len(held))) as pool:
        states = list(pool.map(lambda each: _stall(each.disk), held))
        return {each.target.name: state for each, state in zip(held, states, strict=True)}


def _stall(disk: int) -> dict[str, Any]:
    _freeze(disk)
    frozen = time.monotonic_ns()
    return {"frozen_ns": frozen, "state": "frozen" if not _freeze(disk) else "not frozen"}


def thaw(disks: Sequence[str]) -> dict[str, int]:
    """Thaw what is frozen of these disks, given as `run/name`, whoever froze it; returns when each was thawed."""
    thawed = {}
    there = {image_of(disk): disk for disk in disks}
    for image, minor in attached().items():
        if image in there and in_use(f"/dev/loop{minor}"):
            with mounted(there[image]) as point:
                if _thaw(point):
                    thawed[there[image]] = time.monotonic_ns()
    return thawed


def _freeze(disk: int) -> bool:
    """Whether it was not frozen yet."""
    return _ioctl(disk, FIFREEZE, errno.EBUSY)


def _thaw(disk: int) -> bool:
    """Whether it was frozen."""
    return _ioctl(disk, FITHAW, errno.EINVAL)


def _ioctl(disk: int, request: int, already: int) -> bool:
    try:
        fcntl.ioctl(disk, request, 0)
    except OSError as error:
        if error.errno != already:
            raise
        return False
    return True


# --- limping ---


def slow(targets: Sequence[Target], stalled_ms: float, free_ms: float) -> dict[str, Any]:
    """Let each disk limp, until `unslow`; returns when it has begun."""
    LIMPING.mkdir(exist_ok=True)
    with _held(targets) as held:
        agent = os.pidfd_open(int(READY.read_text()))
        for each in held:
            mark = LIMPING / each.target.container
            mark.touch(exist_ok=False)
            if os.fork() == 0:
                try:
                    for other in held:  # or it could not be unmounted when its node ends
                        if other is not each:
                            os.close(other.disk)
                    _limp(each, agent, mark, stalled_ms / 1e3, free_ms / 1e3)
                finally:
                    os._exit(0)
        os.close(agent)
    return {}


def _limp(each: Held, agent: int, mark: Path, stalled_s: float, free_s: float) -> None:
    os.setsid()  # the call that it comes from ends, and must not take it along, nor wait for its output
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in range(3):
        os.dup2(nowhere, stream)

    def goes_on(seconds: float) -> bool:
        until = time.monotonic() + seconds
        while mark.exists():
            left = until - time.monotonic()
            if left <= 0:
                return True
            if select.select([each.pidfd, agent], [], [], min(left, LOOK_S))[0]:  # one of them has ended
                return False
        return False

    cycles, stalled_ns = 0, 0
    try:
        while goes_on(free_s):
            if not _freeze(each.disk):
                continue
            began = time.monotonic_ns()
            try:
                goes_on(stalled_s)
            finally:
                _thaw(each.disk)
            cycles, stalled_ns = cycles + 1, stalled_ns + time.monotonic_ns() - began
    finally:
        tally = mark.with_suffix(".tally")
        tally.with_suffix(".new").write_text(json.dumps({"cycles": cycles, "stalled_ms": stalled_ns / 1e6}))
        tally.with_suffix(".new").rename(tally)


def unslow(containers: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """End it, for containers by name, alive or not. By name of those that limped: `cycles`, `stalled_ms` in all."""
    marks = {name: LIMPING / container for name, container in containers.items()}
    limped = [name for name, mark in marks.items() if mark.exists()]
    for name in limped:
        marks[name].unlink()
    deadline = time.monotonic() + END_S
    seen = {}
    for name in limped:
        tally = marks[name].with_suffix(".tally")
        while not tally.exists():
            if time.monotonic() > deadline:
                raise FailedError(f"{name}: what lets its disk limp does not end")
            time.sleep(0.01)
        seen[name] = json.loads(tally.read_text())
        tally.unlink()
    return seen


# --- looking at a disk ---


@contextlib.contextmanager
def _opened(disk: int, name: str) -> Iterator[int]:
    fd = os.open(name, os.O_RDWR | os.O_NOFOLLOW, dir_fd=disk)
    try:
        yield fd
    finally:
        os.close(fd)


def _free_bytes(disk: int) -> int:
    """What anybody but root may still take; ext4 keeps some megabytes more for itself."""
    seen = os.statvfs(disk)
    return seen.f_bavail * seen.f_frsize


def _probe(disk: int) -> str:
    """What a write of one new block says; the block is given back."""
    with _opened(disk, PROBE) as file:
        said = _written(file)
        os.ftruncate(file, 0)
    return said


def _written(file: int) -> str:
    """Write a block and sync it: "" or the name of the error."""
    try:
        os.pwrite(file, bytes(BLOCK), 0)
        os.fdatasync(file)
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, str(error))
    return ""
