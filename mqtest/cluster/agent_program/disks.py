"""A disk of its own for each node: an image file in our volume, a filesystem in it, a loop device before it.

An image is allocated whole, so that a node never meets the host's full disk as an I/O error. A new disk is as empty
as a RAM disk (no lost+found, which Kafka takes for a damaged partition), but for files of ours: the two witnesses of
the power cut, two empty ones of the other disk faults, and a clock with the library that reads it. They are writable
by anybody, because a broker's image may change their owner and the agent has no right over other users' files. Only
loop devices with a backing file of ours are ever detached.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from .proofs import DISKS, FailedError, RefusedError, attached, images, prove_loop, this_run

SYNCED = ".mqtest-synced"
UNSYNCED = ".mqtest-unsynced"
WITNESS_BYTES = 4096
FILLER = ".mqtest-filler"
PROBE = ".mqtest-probe"
CLOCK = ".mqtest-clock"
LIBRARY = ".mqtest-faketime.so"

LOOP_CLR_FD = 0x4C01
SPARE_BYTES = 1 << 30
"""what making disks must leave free for everybody else"""
DETACH_S = 15.0

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,120}")
_MKFS = {
    # The file's blocks read as zeros already, so nothing needs to be zeroed, now or by a thread in the background;
    # discarding them would give the allocated space back.
    "ext4": ["mkfs.ext4", "-q", "-F", "-E", "nodiscard,assume_storage_prezeroed=1"],
    "xfs": ["mkfs.xfs", "-q", "-f", "-K"],
}


def make(names: Sequence[str], fs: str, size_mb: int) -> dict[str, str]:
    """Make and attach one disk a name; returns name -> device. All of them, or none."""
    folder = DISKS / _checked(this_run())
    folder.mkdir(exist_ok=True)
    room = os.statvfs(folder)
    needed = len(names) * (size_mb << 20)
    if room.f_bavail * room.f_frsize < needed + SPARE_BYTES:
        raise FailedError(
            f"{len(names)} disks of {size_mb} MB do not fit: "
            f"{room.f_bavail * room.f_frsize >> 20} MB are free, and 1024 MB of them stay so"
        )
    images = {name: folder / f"{_checked(name)}.img" for name in names}
    there = [name for name, image in images.items() if image.exists()]
    if there:
        raise FailedError(f"disks of this name are there already: {', '.join(there)}")
    try:
        return {name: _make_one(image, fs, size_mb) for name, image in images.items()}
    except BaseException:
        remove([f"{this_run()}/{name}" for name in names])
        raise


def _checked(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise RefusedError(f"{name!r} does not name a disk")
    return name


def _make_one(image: Path, fs: str, size_mb: int) -> str:
    fd = os.open(image, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        os.posix_fallocate(fd, 0, size_mb << 20)
    finally:
        os.close(fd)
    _run([*_MKFS[fs], str(image)])
    device = _run(["losetup", "--find", "--show", str(image)])
    _furnish(device, fs)
    return device


def _furnish(device: str, fs: str) -> None:
    """Mounts the new disk here for a moment, and leaves files of ours on it and nothing else."""
    with _mounted_here(device, fs) as point:
        with contextlib.suppress(FileNotFoundError):
            (point / "lost+found").rmdir()
        witness = b"0".ljust(WITNESS_BYTES)
        files = {
            SYNCED: witness,
            UNSYNCED: witness,
            FILLER: b"",
            PROBE: b"",
            CLOCK: clock_text(0),
            LIBRARY: _faketime(),
        }
        for name, text in files.items():
            fd = os.open(point / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
            try:
                os.fchmod(fd, 0o666)
                os.write(fd, text)
                os.fsync(fd)
            finally:
                os.close(fd)


def clock_text(seconds: float) -> bytes:
    """What libfaketime reads; always of one length, so that it is overwritten in one piece."""
    return f"{seconds:+016.3f}\n".encode()


def _faketime() -> bytes:
    return next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1")).read_bytes()


@contextlib.contextmanager
def mounted(disk: str) -> Iterator[int]:
    """A disk of this run or another, given as `run/name`, mounted here for a moment, and its root open: the same
    filesystem that its node has, when that runs."""
    loops = attached()
    image = image_of(disk)
    if image not in loops:
        raise FailedError(f"disk {disk} is not attached to a loop device")
    device = f"/dev/loop{loops[image]}"
    with _mounted_here(device, _run(["blkid", "-p", "-o", "value", "-s", "TYPE", device])) as point:
        fd = os.open(point, os.O_RDONLY | os.O_DIRECTORY)
        try:
            yield fd
        finally:
            os.close(fd)


@contextlib.contextmanager
def _mounted_here(device: str, fs: str) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir="/run/agent") as folder:
        _run(["mount", "-t", fs, device, folder])
        try:
            yield Path(folder)
        finally:
            _run(["umount", folder])


def listing() -> list[dict[str, str | None]]:
    """Every image in our volume: `disk` (`run/name`), `device` or None."""
    loops = attached()
    return [
        {"disk": f"{path.parent.name}/{path.stem}", "device": f"/dev/loop{loops[path]}" if path in loops else None}
        for path in sorted(images().values())
    ]


def remove(disks: Sequence[str]) -> dict[str, list[str]]:
    """Detach and delete disks, given as `run/name`; absent ones are fine. A disk that somebody still has mounted
    is left as it is, in `busy`: its image must outlive its device, or nobody could tell any more whose it is."""
    wanted = {path for disk in disks for path in [image_of(disk)] if path.exists()}
    loops = {path: minor for path, minor in attached().items() if path in wanted}
    for minor in loops.values():
        detach(minor)
    deadline = time.monotonic() + DETACH_S
    while (still := wanted & attached().keys()) and time.monotonic() < deadline:
        time.sleep(0.02)
    for path in wanted - still:
        path.unlink()
    for folder in {path.parent for path in wanted}:
        with contextlib.suppress(OSError):  # other disks of the run are in it
            folder.rmdir()
    return {
        "detached": [f"/dev/loop{minor}" for path, minor in loops.items() if path not in still],
        "removed": sorted(f"{path.parent.name}/{path.stem}" for path in wanted - still),
        "busy": sorted(f"{path.parent.name}/{path.stem}" for path in still),
    }


def image_of(disk: str) -> Path:
    """The image of a disk that is given as `run/name`."""
    run, _, name = disk.partition("/")
    return DISKS / _checked(run) / f"{_checked(name)}.img"


def detach(minor: int) -> None:
    """Detach a loop device of ours; one that is mounted goes when its last user does."""
    prove_loop(minor)
    fd = os.open(f"/dev/loop{minor}", os.O_RDWR)
    try:
        fcntl.ioctl(fd, LOOP_CLR_FD, 0)
    finally:
        os.close(fd)


def await_unmounted(devices: Sequence[str], timeout_s: float) -> list[str]:
    """Wait until no filesystem is mounted from these devices, by anybody; returns those that still are.

    A filesystem that was shut down stays so while anybody holds it, and mounting again would join it.
    """
    deadline = time.monotonic() + timeout_s
    while (busy := [device for device in devices if in_use(device)]) and time.monotonic() < deadline:
        time.sleep(0.01)
    return busy


def in_use(device: str) -> bool:
    """Whether a filesystem is mounted from a device of ours; one that was frozen when its last mount went counts."""
    prove_loop(int(device.removeprefix("/dev/loop")))
    try:
        os.close(os.open(device, os.O_RDONLY | os.O_EXCL))  # exclusive fails while a filesystem has it
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        return True
    return False


def _run(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise FailedError(f"{command[0]} failed: {said[-1] if said else f'exit code {done.returncode}'}")
    return done.stdout.strip()
