"""What runs leave behind, and its removal: `mqtest down`, the start of a run, and the end of one.

Ours is what carries the label `mqtest.run`, the disk images in our volume, the loop devices before them, the guard of
the address pool, and the processes of a run (workers, a compose that still works). Everything belongs to a run by
name, and a run is spared while it is live (locks.py). The disk volume and the guard belong to all, and go with the
last. Order matters: processes and agents, so that nothing is made anew; disks are thawed; containers, which unmounts
them; then the rest.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import select
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final

import docker
import docker.errors
from docker.models.containers import Container

from mqtest.clock import wait_until
from mqtest.cluster import agent as agents
from mqtest.cluster import network
from mqtest.cluster.agent import Agent
from mqtest.cluster.engine import RUN_LABEL, asking, connect, together
from mqtest.cluster.locks import RunLock, live_runs
from mqtest.errors import ClusterError

Progress = Callable[[str], None]
BY_HAND: Final = ("by-hand", "up-")
"""runs that a person started with compose, or with `mqtest up`: no process holds a lock for them"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Removed:
    """How much of each was removed."""

    processes: int = 0
    containers: int = 0
    networks: int = 0
    volumes: int = 0
    loop_devices: int = 0
    disks: int = 0
    routes: int = 0
    busy: tuple[str, ...] = ()
    """disks that somebody still has mounted, and that stay"""

    def __str__(self) -> str:
        """Such as `3 containers, 1 network`."""
        counts = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "busy"}
        words = [f"{n} {(name if n != 1 else _singular(name)).replace('_', ' ')}" for name, n in counts.items() if n]
        return ", ".join(words) or "nothing"


def clean(*, all_runs: bool = False, by_hand: bool = True, progress: Progress) -> Removed:
    """Remove what runs left; live ones are spared unless `all_runs`, a person's clusters (`by-hand`, `mqtest up`)
    when not `by_hand`. Idempotent. Raises EngineError."""
    live = set() if all_runs else live_runs()
    return remove_runs(lambda run: run not in live and (by_hand or not run.startswith(BY_HAND)), progress)


def close_run(run: str, progress: Progress) -> Removed:
    """The end of a run: remove everything of it, its agent too."""
    return remove_runs(lambda other: other == run, progress)


def remove_runs(dead: Callable[[str], bool], progress: Progress) -> Removed:
    """Remove everything of the runs that `dead` picks by name, and what is shared when no run is left."""
    own = f"down-{os.getpid()}"
    client = connect()
    with contextlib.closing(client), RunLock(own):
        processes = end_processes(dead)
        # Agents first: one that lets a disk limp would freeze it again.
        ended, _, _ = remove_labelled(client, {"label": [RUN_LABEL, agents.AGENT_LABEL]}, dead)
        with _own_agent(client, own, progress) as agent:
            disks = _thawed_disks(agent, dead)
            filters = {"label": RUN_LABEL}
            containers, networks, volumes = remove_labelled(client, filters, lambda run: run != own and dead(run))
            gone = agent.call("remove-disks", {"disks": disks}) if agent and disks else {}
        routes = 0
        if _unused(client):
            with contextlib.suppress(ClusterError):  # in use: another run has begun just now
                volumes += _remove_volume(client, agents.DISK_VOLUME)
            routes = int(network.unguard(client, progress))
    return Removed(
        processes=processes,
        containers=ended + containers,
        networks=networks,
        volumes=volumes,
        loop_devices=len(gone.get("detached", ())),
        disks=len(gone.get("removed", ())),
        routes=routes,
        busy=tuple(gone.get("busy", ())),
    )


# --- on the engine ---


def remove_labelled(
    client: docker.DockerClient, filters: dict[str, Any], dead: Callable[[str], bool] = lambda run: True
) -> tuple[int, int, int]:
    """Remove containers, networks and volumes that the filters find and whose run is dead; returns how many."""
    with asking("listing what to remove"):
        containers = [
            one
            for one in client.containers.list(all=True, filters=filters, ignore_removed=True)
            if dead(one.labels.get(RUN_LABEL, ""))
        ]
        networks = [one for one in client.api.networks(filters=filters) if dead(_run_of(one))]
        volumes = [one for one in client.api.volumes(filters=filters)["Volumes"] or [] if dead(_run_of(one))]
    together(_remove_container, containers)
    for one in networks:
        with asking(f"removing network {one['Name']}"), contextlib.suppress(docker.errors.NotFound):
            client.api.remove_network(one["Id"])
    together(lambda one: _remove_volume(client, one["Name"]), volumes)
    return len(containers), len(networks), len(volumes)


def _run_of(entry: dict[str, Any]) -> str:
    return str((entry.get("Labels") or {}).get(RUN_LABEL, ""))


def _remove_container(container: Container) -> None:
    def gone() -> bool:
        try:
            container.remove(force=True, v=True)
        except docker.errors.NotFound:
            return True
        except docker.errors.APIError as error:
            if error.status_code == 409:  # somebody else is about to remove it
                return False
            raise
        return True

    with asking(f"removing container {container.name}"):
        wait_until(gone, 30, f"container {container.name} to go", poll_s=0.2)


def _remove_volume(client: docker.DockerClient, name: str) -> int:
    with asking(f"removing volume {name}"):
        try:
            client.api.remove_volume(name)
        except docker.errors.NotFound:
            return 0
    return 1


def _unused(client: docker.DockerClient) -> bool:
    """Whether nothing of any run is left."""
    with asking("looking for other runs"):
        others = client.containers.list(all=True, filters={"label": RUN_LABEL}, ignore_removed=True)
        return not others and not client.api.networks(filters={"label": RUN_LABEL})


@contextlib.contextmanager
def _own_agent(client: docker.DockerClient, own: str, progress: Progress) -> Iterator[Agent | None]:
    """An agent of our own for the disks of dead runs; None when there is no disk volume, and so are no disks."""
    try:
        with asking("looking for the disk volume"):
            client.volumes.get(agents.DISK_VOLUME)
    except ClusterError:
        yield None
        return
    agent = agents.start(own, progress)
    try:
        yield agent
    finally:
        remove_labelled(client, {"label": f"{RUN_LABEL}={own}"})
        agent.close()


def _thawed_disks(agent: Agent | None, dead: Callable[[str], bool]) -> list[str]:
    """The disks of dead runs, none of them frozen: a process that waits for one does not even die of a SIGKILL."""
    if agent is None:
        return []
    disks = [entry["disk"] for entry in agent.call("list-disks") if dead(entry["disk"].partition("/")[0])]
    agent.call("thaw-disks", {"disks": disks})
    return disks


# --- processes ---


def end_processes(dead: Callable[[str], bool]) -> int:
    """SIGKILL the processes of dead runs: proven by command line and environment, then ended through a pidfd."""
    ended = 0
    for folder in Path("/proc").glob("[0-9]*"):
        if folder.name == str(os.getpid()) or not _is_dead(folder, dead):
            continue
        with _pidfd(int(folder.name)) as pidfd:
            # again, now that the number cannot pass to another process
            if pidfd is not None and _is_dead(folder, dead):
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
                    ended += bool(select.select([pidfd], [], [], 5)[0])
    return ended


def run_of_process(cmdline: bytes, environ: bytes) -> str | None:
    """The run that a process works for, from its /proc files; None when it is not one of ours.

    Ours are `python -m mqtest.workload` and `docker compose` with MQTEST_RUN in the environment, nothing else: a
    shell in which a person set the variable is left alone.
    """
    words = cmdline.split(b"\0")
    worker = (b"-m", b"mqtest.workload") in itertools.pairwise(words)
    composing = b"compose" in words and b"up" in words
    if not worker and not composing:
        return None
    for entry in environ.split(b"\0"):
        name, _, value = entry.partition(b"=")
        if name == b"MQTEST_RUN" and value:
            return value.decode(errors="replace")
    return None


def _is_dead(folder: Path, dead: Callable[[str], bool]) -> bool:
    try:
        run = run_of_process((folder / "cmdline").read_bytes(), (folder / "environ").read_bytes())
    except OSError:  # gone, or another user's
        return False
    return run is not None and dead(run)


@contextlib.contextmanager
def _pidfd(pid: int) -> Iterator[int | None]:
    try:
        fd = os.pidfd_open(pid)
    except OSError:
        yield None
        return
    try:
        yield fd
    finally:
        os.close(fd)


def _singular(name: str) -> str:
    return {"processes": "process"}.get(name, name.removesuffix("s"))


def remaining(run: str) -> Sequence[str]:
    """What is left of a run on the engine, by name; for tests and for the end of a run."""
    client = connect()
    filters: dict[str, Any] = {"label": f"{RUN_LABEL}={run}"}
    with contextlib.closing(client), asking("listing what is left"):
        return [
            *(str(one.name) for one in client.containers.list(all=True, filters=filters, ignore_removed=True)),
            *(str(one["Name"]) for one in client.api.networks(filters=filters)),
            *(str(one["Name"]) for one in client.api.volumes(filters=filters)["Volumes"] or []),
        ]
