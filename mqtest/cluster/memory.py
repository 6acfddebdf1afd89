"""The memory broker's cluster: one process in a folder, and what can be done to it. Needs no Docker.

A kill is a real SIGKILL and a pause a real SIGSTOP. Only the disk is played: after the death of a power cut every
file of the store is cut to the length that was fsynced. The process has a group of its own, so that a Ctrl-C does
not reach it, and it ends when this one does, paused or not: its stdin closes, and the kernel wakes stopped
processes of a group that nobody is left to look after.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path

from mqtest.brokers.memory_store import AppendFile, forget
from mqtest.clients import ClientError
from mqtest.clients.memory_wire import Connection, Sync
from mqtest.clock import now_ns, wait_until
from mqtest.cluster import Evidence
from mqtest.cluster.agent_program import disk_work, search
from mqtest.errors import ClusterError, UsageError
from mqtest.model import Node

_NAME = "memory-1"
_WITNESSES = ("witness-synced", "witness-unsynced")
_NO_DISK = f"{_NAME} has no disk of its own"
_STATE_S = 5.0
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class MemoryCluster:
    """See mqtest.cluster.Cluster; `names` that are not running are left out of what is done."""

    def __init__(self, folder: Path, environment: Mapping[str, str], nodes: int) -> None:
        """Start the process, with its store and log in `folder`/memory-1; raises UsageError unless `nodes` is 1."""
        if nodes != 1:
            raise UsageError(f"nodes: the memory broker has one node, not {nodes}")
        self._folder = folder / _NAME
        self._store = self._folder / "store"
        self._log = self._folder / "log"
        self._environment = environment
        self._node = Node(_NAME, f"@mqtest-{secrets.token_hex(8)}")
        self._process: subprocess.Popen[bytes] | None = None
        self._cuts = 0
        self._forgotten_bytes = 0
        self._store.mkdir(parents=True)
        self.start([_NAME])

    @property
    def nodes(self) -> tuple[Node, ...]:
        """See Cluster."""
        return (self._node,)

    @property
    def links(self) -> None:
        """See Cluster: a local socket has none."""

    @property
    def flink(self) -> None:
        """See Cluster: it is for brokers in containers."""

    @property
    def image(self) -> Mapping[str, str]:
        """See Cluster: there is none."""
        return {"tag": "", "id": "", "origin": "embedded"}

    def start(self, names: Sequence[str]) -> None:
        """See Cluster."""
        if _NAME not in names or self._running() is not None:
            return
        command = [sys.executable, "-m", "mqtest.brokers.memory_server", str(self._store), self._node.address]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env=os.environ | self._environment,
                process_group=0,
            )

    def sync(self) -> None:
        """See Cluster."""
        try:
            with closing(Connection(self._node.address, _STATE_S)) as connection:
                connection.ask(Sync(), _STATE_S)
        except ClientError as error:
            raise ClusterError(f"{_NAME}: cannot sync: {error}") from error

    def kill(self, names: Sequence[str]) -> Evidence:
        """See Cluster."""
        process = self._hit(names)
        if process is None:
            return {}
        process.kill()
        return {"exit_code": {_NAME: _ended(process, _STATE_S)}}

    def stop(self, names: Sequence[str], grace_s: float = 30.0) -> Evidence:
        """See Cluster."""
        process = self._hit(names)
        if process is None:
            return {}
        process.terminate()
        try:
            return {"exit_code": {_NAME: _ended(process, grace_s)}}
        except subprocess.TimeoutExpired:
            return self.kill(names)

    def pause(self, names: Sequence[str]) -> Evidence:
        """See Cluster."""
        process = self._hit(names)
        if process is None:
            return {}
        process.send_signal(signal.SIGSTOP)
        wait_until(lambda: _stopped(process), _STATE_S, f"{_NAME} to be stopped", poll_s=0.001)
        return {"state": {_NAME: "stopped"}}

    def unpause(self, names: Sequence[str]) -> None:
        """See Cluster."""
        process = self._hit(names)
        if process is not None:
            process.send_signal(signal.SIGCONT)

    def cut_power(self, names: Sequence[str]) -> Evidence:
        """See Cluster. The witnesses are written through the same store files as messages are, then forgotten."""
        if self._hit(names) is None:
            return {}
        self._cuts += 1
        for name in _WITNESSES:
            with closing(AppendFile(self._store, name)) as witness:
                witness.append([str(self._cuts).encode()])
                if name == "witness-synced":
                    witness.sync()
        silence_ns = now_ns()
        self.kill(names)
        killed_ns = now_ns()
        self._forgotten_bytes = forget(self._store)
        return {"silence_ns": silence_ns, "killed_ns": killed_ns, "cut_ns": now_ns(), "spread_ms": 0.0}

    def forgotten(self, names: Sequence[str]) -> Evidence:
        """See Cluster; with `bytes`: how much the last cut took from all files."""
        if _NAME not in names or not self._cuts:
            return {}
        written = str(self._cuts).encode()
        found = {}
        for name in _WITNESSES:
            with closing(AppendFile(self._store, name)) as witness:
                found[name] = written in witness.recovered
        if found["witness-unsynced"] or not found["witness-synced"]:
            return {}
        return {_NAME: {"synced": "there", "unsynced": "gone", "bytes": self._forgotten_bytes}}

    def isolate(
        self, names: Sequence[str], peers: Sequence[str], *, direction: str = "both", tag: str = "partition"
    ) -> Evidence:
        """See Cluster; raises ClusterError: there is nobody to be cut off from."""
        raise ClusterError(f"{_NAME} has no peers to be cut off from")

    def rejoin(self, tag: str = "partition") -> Evidence:
        """See Cluster: nothing to undo."""
        return {}

    def lose_packets(self, names: Sequence[str], percent: float, tag: str = "loss") -> Evidence:
        """See Cluster; raises ClusterError: a local socket has no packets."""
        raise ClusterError(f"{_NAME} has no packets to lose")

    def keep_packets(self, tag: str = "loss") -> Evidence:
        """See Cluster: nothing to undo."""
        return {}

    def fill_disk(self, names: Sequence[str]) -> Evidence:
        """See Cluster; raises ClusterError."""
        raise ClusterError(_NO_DISK)

    def free_disk(self, names: Sequence[str]) -> Evidence:
        """See Cluster: nothing to undo."""
        return {}

    def fail_disk(self, names: Sequence[str]) -> Evidence:
        """See Cluster; raises ClusterError."""
        raise ClusterError(_NO_DISK)

    def stall_disk(self, names: Sequence[str]) -> Evidence:
        """See Cluster; raises ClusterError."""
        raise ClusterError(_NO_DISK)

    def thaw_disk(self, names: Sequence[str]) -> Evidence:
        """See Cluster: nothing to undo."""
        return {}

    def slow_disk(self, names: Sequence[str], stalled_ms: float, free_ms: float) -> Evidence:
        """See Cluster; raises ClusterError."""
        raise ClusterError(_NO_DISK)

    def unslow_disk(self, names: Sequence[str]) -> Evidence:
        """See Cluster: nothing to undo."""
        return {}

    def jump_clock(self, names: Sequence[str], seconds: float) -> Evidence:
        """See Cluster; raises ClusterError."""
        raise ClusterError(f"{_NAME} has no clock of its own")

    def reset_clock(self, names: Sequence[str]) -> Evidence:
        """See Cluster: nothing to undo."""
        return {}

    def exited(self) -> Mapping[str, int]:
        """See Cluster."""
        if self._process is None or self._running() is not None:
            return {}
        return {_NAME: _exit_code(self._process.returncode)}

    def whole(self) -> str | None:
        """See Cluster."""
        if not self._store.is_dir():
            return f"the store {self._store} is gone"
        return None if shutil.disk_usage(self._store).free else f"the disk of {self._store} is full"

    def messages_on_disk(self, run_number: int, size: int) -> Mapping[str, Mapping[str, Sequence[Sequence[int]]]]:
        """See Cluster."""
        folder = os.open(self._store, os.O_RDONLY | os.O_DIRECTORY)
        try:
            return {_NAME: search.in_folder(folder, run_number, size)}
        finally:
            os.close(folder)

    def save_logs(self, folder: Path) -> None:
        """See Cluster."""
        if self._log.exists():
            shutil.copyfile(self._log, folder / f"{_NAME}.log")

    def usage(self) -> Mapping[str, Mapping[str, float]]:
        """See Cluster; of the present process only, what it was before a kill is not counted. `written_bytes` are those
        that it handed to the kernel for a disk (/proc/PID/io)."""
        process = self._running()
        if process is None:
            return {}
        ticks = _stat(process)[11:13]
        pages = int(Path(f"/proc/{process.pid}/statm").read_text().split()[1])
        io = dict(line.split(": ") for line in Path(f"/proc/{process.pid}/io").read_text().splitlines())
        return {
            _NAME: {
                "cpu_s": sum(map(int, ticks)) / _TICKS_PER_S,
                "memory_bytes": float(pages * _PAGE_BYTES),
                "written_bytes": float(io["write_bytes"]),
            }
        }

    def flush_times(self) -> Mapping[str, Sequence[int]]:
        """See Cluster; beside the store, on the same disk."""
        with tempfile.TemporaryFile(dir=self._folder) as file:
            return {_NAME: disk_work.appended(os.dup(file.fileno()))}

    def down(self) -> None:
        """See Cluster."""
        self.kill([_NAME])
        self._process = None
        shutil.rmtree(self._folder, ignore_errors=True)

    def _running(self) -> subprocess.Popen[bytes] | None:
        return self._process if self._process is not None and self._process.poll() is None else None

    def _hit(self, names: Sequence[str]) -> subprocess.Popen[bytes] | None:
        """The process, when it is meant and runs."""
        return self._running() if _NAME in names else None


def _ended(process: subprocess.Popen[bytes], timeout_s: float) -> int:
    """Wait for the end of a process; its exit code as engines show it. Raises subprocess.TimeoutExpired."""
    process.wait(timeout_s)
    if process.stdin is not None:
        process.stdin.close()
    return _exit_code(process.returncode)


def _exit_code(returncode: int) -> int:
    return 128 - returncode if returncode < 0 else returncode


def _stat(process: subprocess.Popen[bytes]) -> list[str]:
    """The fields of /proc/PID/stat behind the name."""
    return Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()


def _stopped(process: subprocess.Popen[bytes]) -> bool:
    """Whether all threads have stopped, by the kernel's word. Until then the first one's state says so too soon: it is
    no stopped process yet, and nobody would wake it if this process died now."""
    return os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOHANG | os.WNOWAIT) is not None
