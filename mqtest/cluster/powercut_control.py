"""Proof that a power cut here forgets what it must and keeps what it must: four writers, one cut, four answers.

A container on a disk of its own writes four ways and is cut by the same command that cuts the brokers' nodes; then it
starts again and says what its disk holds. A write or a mapped page that was synced must be there, one that was not
must be gone. A machine whose answers differ cannot tell a safe broker from an unsafe one.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from docker.models.containers import Container

from mqtest.clock import wait_until
from mqtest.cluster import agent as agents
from mqtest.cluster import disks, images, leftovers
from mqtest.cluster.agent import Agent
from mqtest.cluster.disks import Disk
from mqtest.cluster.engine import asking, labels
from mqtest.cluster.locks import RunLock

EXPECTED: Final = {
    "write and fsync": "kept",
    "write without fsync": "lost",
    "mmap and msync": "kept",
    "mmap without msync": "lost",
}
"""case -> what a power cut does to it"""

_WRITER: Final = """
import json, mmap, os, signal
OLD, NEW = b"old" * 1365, b"new" * 1365
CASES = ["write and fsync", "write without fsync", "mmap and msync", "mmap without msync"]
paths = {case: "/data/" + case.replace(" ", "-") for case in CASES}
if os.path.exists("/data/written"):
    seen = {case: open(path, "rb").read() for case, path in paths.items()}
    print(json.dumps({case: {NEW: "kept", OLD: "lost"}.get(text, "torn") for case, text in seen.items()}), flush=True)
    raise SystemExit
files = {case: os.open(path, os.O_RDWR | os.O_CREAT) for case, path in paths.items()}
files["mark"] = os.open("/data/written", os.O_RDWR | os.O_CREAT)
for file in files.values():
    os.write(file, OLD)
    os.fsync(file)
os.fsync(os.open("/data", os.O_RDONLY))
os.pwrite(files["write and fsync"], NEW, 0)
os.fsync(files["write and fsync"])
os.pwrite(files["write without fsync"], NEW, 0)
synced = mmap.mmap(files["mmap and msync"], len(NEW))
synced[:] = NEW
synced.flush()
unsynced = mmap.mmap(files["mmap without msync"], len(NEW))
unsynced[:] = NEW
print("written", flush=True)
signal.pause()
"""


@dataclass(frozen=True, slots=True)
class ControlCase:
    """One case: what it is called, what must become of it, what became of it (`kept`, `lost` or `torn`)."""

    name: str
    expected: str
    seen: str
    ok: bool


def prove(fs: str, progress: Callable[[str], None]) -> list[ControlCase]:
    """Run the four cases on a fresh disk with that filesystem (ext4, xfs); some five seconds.

    Raises EngineError, ClusterError, RefusedError when it cannot be done at all. Leaves nothing behind.
    """
    run = f"control-{os.getpid()}-{fs}"
    image = images.ensure_agent(progress)
    with RunLock(run):
        try:
            agent = agents.start(run, progress)
            try:
                progress(f"power cut on {fs}: four writers")
                seen = _cut_and_look(agent, image.id, disks.make(agent, ["disk"], fs, 320)["disk"], fs)
            finally:
                agent.close()
        finally:
            leftovers.close_run(run, progress)
    return [ControlCase(case, must, seen[case], must == seen[case]) for case, must in EXPECTED.items()]


def _cut_and_look(agent: Agent, image: str, disk: Disk, fs: str) -> dict[str, str]:
    client = agent.client
    with asking("running the control program"):
        volume = client.volumes.create(
            f"mqtest-{agent.run}", driver_opts={"type": fs, "device": disk.device}, labels=labels(agent.run)
        )
        container = client.containers.create(
            image,
            ["python3", "-c", _WRITER],
            labels=labels(agent.run),
            volumes={volume.name: {"bind": "/data", "mode": "rw"}},
            network_mode="bridge",
        )
        container.start()
        wait_until(lambda: b"written" in container.logs(), 30, "the control program to write")
        container.reload()
    target = {"name": "control", "container": container.id, "pid": container.attrs["State"]["Pid"], "data": "/data"}
    agent.call("cut", {"targets": [target], "age_s": 1.0})
    with asking("running the control program again"):
        _await_end(container)
        disks.await_unmounted(agent, [disk])
        container.start()
        _await_end(container)
        answer: dict[str, str] = json.loads(container.logs().splitlines()[-1])
    return answer


def _await_end(container: Container) -> None:
    def ended() -> bool:
        container.reload()
        return str(container.status) == "exited"

    wait_until(ended, 30, "the control program to end")
