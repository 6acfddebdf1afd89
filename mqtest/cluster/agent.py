"""The agent: one privileged container a run, through which everything goes that needs privilege on the host.

It has no network, no listener and a read-only root; it sees the host's processes and loop devices, and has the few
capabilities that its commands need. Its program (agent_program/) goes in when it starts, and is called by `docker
exec`, one command a time, JSON in and out. It proves its target before it acts; what it cannot prove it refuses.
"""

from __future__ import annotations

import base64
import io
import json
import tarfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import docker
import docker.errors

from mqtest import body
from mqtest.clock import wait_until
from mqtest.cluster import images
from mqtest.cluster.engine import asking, connect, labels
from mqtest.errors import ClusterError, EngineError, RefusedError, WaitTimeout

DISK_VOLUME: Final = "mqtest-disks"
"""the one volume that holds the disk images of all runs"""
AGENT_LABEL: Final = "mqtest.agent"
COMMAND_S: Final = 50
"""the longest that a command may take; less than the engine's silence, so that the reason arrives"""

CPU_SHARES: Final = 262144
"""the most there is: a power cut must not wait for a processor behind the brokers that it cuts"""

CAPABILITIES: Final = (
    "SYS_ADMIN",  # enter namespaces, shut a filesystem down, loop devices, mount
    "NET_ADMIN",  # interfaces down, iptables
    "NET_RAW",  # iptables where the kernel takes only its legacy flavour, which goes through a raw socket
    "SYS_PTRACE",  # /proc/PID/root and /proc/PID/ns of other users' processes
    "DAC_READ_SEARCH",  # open a data directory that belongs to the broker's user
    "MKNOD",  # loop devices beyond those that exist
    "SYS_NICE",  # a power cut goes before all else that wants a processor
    "KILL",  # SIGKILL to a broker that does not run as root
)
EXT4: Final = "/sys/fs/ext4"
"""by which a power cut keeps ext4 from the console (agent_program/power.py); the rest of /sys is read-only"""
_DEVICES: Final = ["b 7:* rmw", "c 10:237 rmw"]
"""loop devices and /dev/loop-control"""

_UNPACK: Final = (
    "import base64, io, os, signal, sys, tarfile; "
    "tarfile.open(fileobj=io.BytesIO(base64.b64decode(sys.argv[1]))).extractall('/run/agent', filter='data'); "
    "print(os.getpid(), file=open('/run/agent/new', 'x'), flush=True); "
    "os.rename('/run/agent/new', '/run/agent/ready'); "
    "signal.sigwait({signal.SIGTERM})"
)


@dataclass(frozen=True, slots=True)
class Agent:
    """A running agent. Shares its connection to the engine with the clusters of its run."""

    run: str
    container: str
    client: docker.DockerClient

    def call(self, command: str, request: Mapping[str, Any] | None = None) -> Any:
        """One command of agent_program; returns its answer.

        Raises RefusedError with the agent's reason, ClusterError when it failed, EngineError when there was no answer.
        """
        text = json.dumps(request or {})
        argv = ["timeout", str(COMMAND_S), "python3", "-m", "agent_program", command, text]
        with asking(f"agent: {command}"):
            made = self.client.api.exec_create(self.container, argv, workdir="/run/agent")
            out, said = self.client.api.exec_start(made["Id"], demux=True)
        try:
            answer = json.loads(out or b"")
        except ValueError:
            lines = (said or b"").decode(errors="replace").strip().splitlines()
            reason = lines[-1] if lines else f"no answer within {COMMAND_S} s, or the engine is gone"
            raise EngineError(f"agent: {command}: {reason}") from None
        if "refused" in answer:
            raise RefusedError(f"agent refused {command}: {answer['refused']}")
        if "failed" in answer:
            raise ClusterError(f"agent: {command}: {answer['failed']}")
        return answer["ok"]

    def close(self) -> None:
        """Drop the connection; the container stays for the next cell."""
        self.client.close()


def name_of(run: str) -> str:
    """The name of a run's agent container."""
    return f"mqtest-agent-{run}"


def start(run: str, progress: Callable[[str], None]) -> Agent:
    """The agent of this run: the one that runs already, or a new one. Whoever starts it closes it.

    Raises EngineError and ImageError.
    """
    client = connect()
    try:
        return Agent(run=run, container=_running(client, run) or _create(client, run, progress), client=client)
    except BaseException:
        client.close()
        raise


def stop(run: str) -> None:
    """End the agent of a run that leaves its cluster up. Raises EngineError."""
    client = connect()
    try:
        container = _running(client, run)
        if container is not None:
            with asking("ending the agent"):
                client.api.remove_container(container, force=True)
    finally:
        client.close()


def _running(client: docker.DockerClient, run: str) -> str | None:
    with asking("looking for the agent"):
        try:
            found = client.containers.get(name_of(run))
        except docker.errors.NotFound:
            return None
        if found.status == "running":
            return str(found.id)
        found.remove(force=True)
        return None


def _create(client: docker.DockerClient, run: str, progress: Callable[[str], None]) -> str:
    image = images.ensure_agent(progress)
    with asking("starting the agent"):
        try:
            client.volumes.get(DISK_VOLUME)
        except docker.errors.NotFound:
            client.volumes.create(DISK_VOLUME, labels={"mqtest": "1"})
        container = client.containers.run(
            image.id,
            ["python3", "-c", _UNPACK, _program()],
            name=name_of(run),
            labels={**labels(run), AGENT_LABEL: "1"},
            environment={"MQTEST_RUN": run},
            detach=True,
            network_mode="none",
            pid_mode="host",
            read_only=True,
            tmpfs={"/run": "size=16m,mode=0755"},
            cpu_shares=CPU_SHARES,
            cap_drop=["ALL"],
            cap_add=list(CAPABILITIES),
            security_opt=["seccomp=unconfined", "apparmor=unconfined"],
            device_cgroup_rules=_DEVICES,
            volumes=_volumes(),
        )
        try:
            wait_until(lambda: container.exec_run(["test", "-e", "/run/agent/ready"]).exit_code == 0, 20, "the agent")
        except (WaitTimeout, docker.errors.APIError):
            said = container.logs(tail=1).decode(errors="replace").strip()
            container.remove(force=True)
            raise EngineError(f"the agent does not start: {said or 'it says nothing'}") from None
    return str(container.id)


def _volumes() -> dict[str, dict[str, str]]:
    bound = {"/dev": "/dev", DISK_VOLUME: "/disks"}
    if Path(EXT4).is_dir():  # what is not there cannot be bound, and the cut does without
        bound[EXT4] = EXT4
    return {source: {"bind": at, "mode": "rw"} for source, at in bound.items()}


def _program() -> str:
    """The agent's program as a tar file in base64, small enough for an argument."""
    folder = Path(__file__).with_name("agent_program")
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for path in sorted(folder.glob("*.py")):
            tar.add(path, f"agent_program/{path.name}")
        tar.add(body.__file__, "mqtest/body.py")
    return base64.b64encode(packed.getvalue()).decode()
