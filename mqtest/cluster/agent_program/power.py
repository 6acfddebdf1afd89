"""Silence, disks that forget, death: the power cut; and the plain SIGKILL, of many nodes at once.

Order of the cut: open every filesystem (the open file keeps it from being unmounted, which would flush it), then take
every interface down (a machine without power sends no FIN; peers find out by time-out), then shut the filesystems down
without flushing their logs, then SIGKILL every PID 1. Silence comes first because of what follows it: a writer that
outlives its disk by a millisecond (one to mapped memory does not even notice) reaches neither the disk nor anybody who
would take its acknowledgement. Death comes last because the end of a large process takes the processors for
milliseconds, which the disks would wait for. All that can be prepared is prepared before, so that the three loops
between `begun` and `killed` are bare system calls. Each time is taken when the last node's step had shown its effect:
the kernel acknowledged, or the disk fails a read.

ext4 says on the kernel's console that it is about to stop, before it stops, and a serial console takes 5 ms a line.
So its messages are held back until the cut is done, and the cut goes before all else that wants a processor; where the
machine does not let us, it takes longer. What the journal says after it stopped cannot be held back, and takes a
processor for as long: so one is kept free of that, to look at the disks and to kill.

The witnesses are two files of 4 KiB on each disk, both synced. One second before the cut one is overwritten with
fdatasync, one without. Afterwards a disk that lost power has the first new and the second old.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import gc
import os
import signal
import socket
import struct
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .disks import SYNCED, UNSYNCED, WITNESS_BYTES
from .proofs import FailedError, GoneError, Target, filesystem, hold, network

FS_IOC_SHUTDOWN = 0x8004587D
NO_LOG_FLUSH = struct.pack("I", 2)
"""XFS_FSOP_GOING_FLAGS_NOLOGFLUSH, and ext4's flag of the same value"""

CLONE_NEWNET = 0x40000000
RTM_NEWLINK = 16
REQUEST_ACK = 5
"""NLM_F_REQUEST | NLM_F_ACK"""
IFF_UP = 1
PROBE_S = 0.0001
ANSWER_NS = 5_000_000_000
"""at most, from the shutdown until a disk stops answering"""


@dataclass(frozen=True, slots=True)
class Doomed:
    """A node, with all that its end takes."""

    target: Target
    pidfd: int
    disk: int
    probe: int
    """a file on it, to see when it stops answering"""
    link: socket.socket
    """netlink, in the node's network namespace"""
    down: tuple[bytes, ...]
    """one message an interface"""


def cut(targets: Sequence[Target], age_s: float) -> dict[str, Any]:
    """Cut the power of all targets, `age_s` seconds after the witnesses were written.

    Returns CLOCK_MONOTONIC `begun_ns`, `silence_ns`, `cut_ns`, `killed_ns`; `died_ns` by name; `stolen_ms`, what a
    hypervisor took meanwhile of the processor that this runs on, in steps of a clock tick; and `witnesses`: name -> the
    texts {"old", "new"}.
    """
    with contextlib.ExitStack() as stack:
        doomed = [_prepare(target, stack) for target in targets]
        witnesses = {node.target.name: write_witnesses(node.disk) for node in doomed}
        # Bytes younger than this are lost by many a machine; the bound is how long they get, not a wait for anything.
        time.sleep(age_s)
        times, errors = _end(doomed)
    if errors:
        raise FailedError("the cut was not clean: " + "; ".join(errors))
    return {**times, "witnesses": witnesses}


def _prepare(target: Target, stack: contextlib.ExitStack) -> Doomed:
    pidfd = stack.enter_context(hold(target))
    disk = stack.enter_context(filesystem(target, pidfd))
    link, indexes = _netlink(stack.enter_context(network(target, pidfd)))
    stack.enter_context(link)
    probe = os.open(SYNCED, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=disk)
    stack.callback(os.close, probe)
    stack.enter_context(mute(disk))
    return Doomed(target, pidfd, disk, probe, link, tuple(_interface_down(index) for index in indexes))


def _end(doomed: Sequence[Doomed]) -> tuple[dict[str, Any], list[str]]:
    """The cut itself. What fails is noted and the rest goes on: half a power cut is the worst of all."""
    errors: list[str] = []
    mine, *others = sorted(os.sched_getaffinity(0))
    ready, waiting = os.pipe()
    go, forget = os.pipe()
    calls = [_shutdown(node, waiting, go, forget, others or [mine], number) for number, node in enumerate(doomed)]
    os.close(go)
    os.close(waiting)
    os.read(ready, 1)  # nothing comes: it ends when the last one waits
    os.close(ready)
    os.sched_setaffinity(0, {mine})
    gc.disable()
    died: dict[str, int] = {}
    stolen = _stolen_ms(mine)
    _go_before_all()
    begun = time.monotonic_ns()
    for node in doomed:
        _silence(node, errors)
    silence = time.monotonic_ns()
    os.write(forget, bytes(len(calls)))
    for node in doomed:
        if not _forgets(node, silence + ANSWER_NS):
            errors.append(f"{node.target.name}: its disk still answers")
    forgotten = time.monotonic_ns()
    for node in doomed:
        try:
            # A node that ended by itself, for want of its disk, is as dead.
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(node.pidfd, signal.SIGKILL)
        except OSError as error:
            errors.append(f"{node.target.name}: SIGKILL: {error.strerror}")
        died[node.target.name] = time.monotonic_ns()
    killed = time.monotonic_ns()
    stolen = _stolen_ms(mine) - stolen
    os.close(forget)
    for node, call in zip(doomed, calls, strict=True):
        if code := os.waitstatus_to_exitcode(os.waitpid(call, 0)[1]):
            errors.append(f"{node.target.name}: shutdown: {os.strerror(code)}")
    times = {"begun_ns": begun, "silence_ns": silence, "cut_ns": forgotten, "killed_ns": killed, "died_ns": died}
    return {**times, "stolen_ms": stolen}, errors


def _go_before_all() -> None:
    """Real-time priority, where we may; else it is only slower. Not a moment sooner than needed: once a second the
    kernel may hand ordinary processes up to 50 ms of a processor before real-time ones (its fair server, from 6.12)."""
    with contextlib.suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))


def _stolen_ms(processor: int) -> int:
    """Time that this processor was ready and a hypervisor ran another machine on it, since boot."""
    for line in Path("/proc/stat").read_text().splitlines():
        name, *ticks = line.split()
        if name == f"cpu{processor}" and len(ticks) > 7:  # user nice system idle iowait irq softirq steal
            return int(ticks[7]) * 1000 // os.sysconf("SC_CLK_TCK")
    return 0


def _shutdown(node: Doomed, waiting: int, go: int, forget: int, processors: Sequence[int], number: int) -> int:
    """A process that closes `waiting`, waits for a byte from `go`, shuts the node's filesystem down, and exits with the
    errno; its PID.

    ext4 stops at once, but the call returns only when the superblock says so on the disk: all disks side by side. And
    not in threads: one that comes back from its call takes the interpreter's lock, to a processor that the console may
    hold, and then nobody kills.
    """
    pid = os.fork()
    if pid:
        return pid
    code = errno.ECANCELED  # the parent died: no byte came
    try:
        os.close(forget)
        os.sched_setaffinity(0, {processors[number % len(processors)]})
        _go_before_all()
        os.close(waiting)
        if os.read(go, 1):
            fcntl.ioctl(node.disk, FS_IOC_SHUTDOWN, NO_LOG_FLUSH)
            code = 0
    except OSError as error:
        code = error.errno or errno.EIO
    finally:
        os._exit(code)


@contextlib.contextmanager
def mute(disk: int) -> Iterator[None]:
    """Hold back what ext4 says about this filesystem on the kernel's console; where we may not, it is only slower."""
    minor = os.minor(os.fstat(disk).st_dev)
    burst = Path(f"/sys/fs/ext4/loop{minor}/msg_ratelimit_burst")
    try:
        before = burst.read_text()
        burst.write_text("0")
    except OSError:  # another filesystem, or sysfs is read-only
        yield
        return
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # the filesystem is gone with its last user
            burst.write_text(before)


def _forgets(node: Doomed, deadline_ns: int) -> bool:
    """Whether the disk stopped answering, waiting for it: a filesystem that is shut down fails even to read."""
    while time.monotonic_ns() < deadline_ns:
        try:
            os.pread(node.probe, 1, 0)
        except OSError:
            return True
        time.sleep(PROBE_S)
    return False


def _silence(node: Doomed, errors: list[str]) -> None:
    try:
        for message in node.down:
            node.link.send(message)
            (code,) = struct.unpack_from("=i", node.link.recv(4096), 16)
            if code:
                errors.append(f"{node.target.name}: interface down: {os.strerror(-code)}")
    except OSError as error:
        errors.append(f"{node.target.name}: interface down: {error}")


def _netlink(namespace: int) -> tuple[socket.socket, list[int]]:
    """A netlink socket in that namespace (a socket stays where it was made), and its interfaces, without loopback."""
    own = os.open("/proc/self/ns/net", os.O_RDONLY)
    try:
        _enter(namespace)
        try:
            link = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
            link.settimeout(5)
            link.bind((0, 0))
            indexes = [index for index, name in socket.if_nameindex() if name != "lo"]
        finally:
            _enter(own)
    finally:
        os.close(own)
    return link, indexes


def _enter(namespace: int) -> None:
    os.setns(namespace, CLONE_NEWNET)  # type: ignore[attr-defined]  # the agent's Python is 3.13, the host's may be 3.11


def _interface_down(index: int) -> bytes:
    """RTM_NEWLINK: struct nlmsghdr, struct ifinfomsg with IFF_UP among the flags to change, and not set."""
    body = struct.pack("=BxHiII", socket.AF_UNSPEC, 0, index, 0, IFF_UP)
    return struct.pack("=IHHII", 16 + len(body), RTM_NEWLINK, REQUEST_ACK, 1, 0) + body


def kill(targets: Sequence[Target]) -> dict[str, int]:
    """SIGKILL to PID 1 of each target, all held before the first dies; returns `killed_ns`."""
    with contextlib.ExitStack() as stack:
        pidfds = [stack.enter_context(hold(target)) for target in targets]
        for pidfd in pidfds:
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        return {"killed_ns": time.monotonic_ns()}


def sync(targets: Sequence[Target]) -> dict[str, Any]:
    """Flush each target's own disk, and have its witnesses at hand.

    An inode that ext4 reads in the middle of a transaction counts as part of it, so the first fdatasync on it commits
    that whole. Read now, right after a commit, the witnesses bring nothing of the broker's to the disk later.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    for target in targets:
        with hold(target) as pidfd, filesystem(target, pidfd) as disk:
            if libc.syncfs(disk) != 0:
                raise FailedError(f"{target.name}: syncfs: {os.strerror(ctypes.get_errno())}")
            for name in (SYNCED, UNSYNCED):
                os.stat(name, dir_fd=disk, follow_symlinks=False)
    return {}


# --- witnesses ---


def write_witnesses(disk: int) -> dict[str, str]:
    """Overwrite both witnesses in place, one of them synced; returns the texts {"old", "new"}, `old` synced in both."""
    old, new = f"{time.monotonic_ns()}", f"{time.monotonic_ns()}+"
    for name in (SYNCED, UNSYNCED):
        _overwrite(disk, name, old, sync=True)
    _overwrite(disk, SYNCED, new, sync=True)
    _overwrite(disk, UNSYNCED, new, sync=False)
    return {"old": old, "new": new}


def _overwrite(disk: int, name: str, text: str, *, sync: bool) -> None:
    fd = os.open(name, os.O_WRONLY | os.O_NOFOLLOW, dir_fd=disk)
    try:
        os.pwrite(fd, text.encode().ljust(WITNESS_BYTES), 0)
        if sync:
            os.fdatasync(fd)
    finally:
        os.close(fd)


def read_witnesses(targets: Sequence[Target]) -> dict[str, dict[str, str]]:
    """What each target's disk has now: name -> the texts {"synced", "unsynced"}."""
    seen = {}
    for target in targets:
        with hold(target) as pidfd, filesystem(target, pidfd) as disk:
            seen[target.name] = {"synced": _text(disk, SYNCED), "unsynced": _text(disk, UNSYNCED)}
    return seen


def _text(disk: int, name: str) -> str:
    fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=disk)
    try:
        return os.read(fd, WITNESS_BYTES).decode("ascii", "replace").strip()
    finally:
        os.close(fd)


def space(targets: Sequence[Target]) -> dict[str, float]:
    """The free part of each target's disk, 0 to 1; without those that end meanwhile."""
    free = {}
    for target in targets:
        with contextlib.suppress(GoneError), hold(target) as pidfd, filesystem(target, pidfd) as disk:
            seen = os.statvfs(disk)
            free[target.name] = seen.f_bavail / seen.f_blocks
    return free
