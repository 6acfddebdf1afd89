"""A cluster of containers, fresh for one cell: compose up on disks of its own, and all that can be done to it.

`bring_up` takes a network from the pool and a loop disk for each container, and hands them to the broker's
compose.yaml as environment variables; nothing else passes between the two. What it made is found again by the
compose project's label, and all of it is removed when bring-up fails half way. Whatever needs privilege goes through
the agent (agent.py); the rest is asked of the engine, of all nodes at the same time.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from docker.models.containers import Container
from testcontainers.compose import DockerCompose

from mqtest.brokers import Door
from mqtest.clock import wait_until
from mqtest.cluster import Evidence, Links, disks, leftovers, links, network
from mqtest.cluster import agent as agents
from mqtest.cluster.agent import Agent
from mqtest.cluster.disks import Disk
from mqtest.cluster.engine import asking, together
from mqtest.cluster.images import Image
from mqtest.errors import ClusterError, EngineError, MqtestError
from mqtest.model import Node
from mqtest.paths import recipes

Progress = Callable[[str], None]

WITNESS_AGE_S: Final = 1.0
"""how long before the cut the witnesses are written"""
EXIT_S: Final = 30.0
"""at most, from SIGKILL until the engine has noticed"""
PROJECT_LABEL: Final = "com.docker.compose.project"
SERVICE_LABEL: Final = "com.docker.compose.service"
FULL: Final = 0.02
"""a disk with less free than this part is no proof against a broker"""


@dataclass(slots=True)
class ComposeCluster:
    """The containers of one cell; implements mqtest.cluster.Cluster."""

    agent: Agent
    project: str
    nodes: tuple[Node, ...]
    image: Mapping[str, str]
    disks: Mapping[str, Disk]
    """by node"""
    data: Mapping[str, str]
    """by node: where its disk is mounted"""
    links: Links | None = None
    _witnesses: dict[str, Mapping[str, str]] = field(default_factory=dict)
    """by node: the texts "old" and "new" of the last power cut"""
    _cut_off: dict[str, set[str]] = field(default_factory=dict)
    """by node: the addresses that it is isolated from"""
    _down: bool = False

    # --- actions and their undoing ---

    def sync(self) -> None:
        """Flush the disk of every node that runs."""
        self.agent.call("sync", {"targets": self._targets(self._names())})

    def kill(self, names: Sequence[str]) -> Evidence:
        """SIGKILL to PID 1 of all at once. Evidence: `exit_code` by node (137), `killed_ns`."""
        hit = self._targets(names)
        if not hit:
            return {}
        answer = self.agent.call("kill", {"targets": hit})
        return {"exit_code": self._await_exit([target["name"] for target in hit]), "killed_ns": answer["killed_ns"]}

    def stop(self, names: Sequence[str], grace_s: float = 30.0) -> Evidence:
        """SIGTERM to all at once, SIGKILL after the grace. Evidence: `exit_code` by node."""
        running = [name for name in names if self._state(name)["Running"]]
        with asking(f"stopping {', '.join(running)}"):
            together(lambda name: self._container(name).stop(timeout=int(grace_s)), running)
        return {"exit_code": self._await_exit(running)} if running else {}

    def start(self, names: Sequence[str]) -> None:
        """Start what does not run, all at once, each on its disk, mounted afresh."""
        halted = [name for name in names if not self._state(name)["Running"]]
        if not halted:
            return
        disks.await_unmounted(self.agent, [self.disks[name] for name in halted])
        with asking(f"starting {', '.join(halted)}"):
            together(lambda name: self._container(name).start(), halted)

    def pause(self, names: Sequence[str]) -> Evidence:
        """Freeze all processes of each node. Evidence: `state` by node, as the engine reports it (`paused`)."""
        awake = [name for name in names if self._state(name)["Status"] == "running"]
        with asking(f"pausing {', '.join(awake)}"):
            together(lambda name: self._container(name).pause(), awake)
        return {"state": {name: self._state(name)["Status"] for name in awake}} if awake else {}

    def unpause(self, names: Sequence[str]) -> None:
        """Thaw what is frozen."""
        frozen = [name for name in names if self._state(name)["Paused"]]
        with asking(f"thawing {', '.join(frozen)}"):
            together(lambda name: self._container(name).unpause(), frozen)

    def cut_power(self, names: Sequence[str]) -> Evidence:
        """The power cut (agent_program/power.py), a second after the witnesses are written; returns once the
        engine has seen the nodes end.

        Evidence: CLOCK_MONOTONIC `begun_ns`, `silence_ns`, `cut_ns`, `killed_ns`, each when the last node's step was
        done; `spread_ms` from the first step to the last; `exit_code` by node.
        """
        hit = self._targets(names)
        if not hit:
            return {}
        answer = self.agent.call("cut", {"targets": hit, "age_s": WITNESS_AGE_S})
        self._witnesses.update(answer.pop("witnesses"))
        spread_ms = (answer["killed_ns"] - answer["begun_ns"]) / 1e6
        return {**answer, "spread_ms": spread_ms, "exit_code": self._await_exit([one["name"] for one in hit])}

    def forgotten(self, names: Sequence[str]) -> Evidence:
        """After the nodes that were cut run again: by node {"synced": "new", "unsynced": "old"}. Empty when any
        disk remembered what was not synced, lost what was, or was never cut."""
        seen = self.agent.call("witnesses", {"targets": self._targets(names)})
        for name in names:
            if name not in seen or name not in self._witnesses:
                return {}
            written = self._witnesses[name]
            if seen[name] != {"synced": written["new"], "unsynced": written["old"]}:
                return {}
        return {name: {"synced": "new", "unsynced": "old"} for name in names}

    def isolate(self, names: Sequence[str], peers: Sequence[str]) -> Evidence:
        """Drop all packets between `names` and `peers`, both ways, by rules in the network of each of `names`.
        Evidence: `rules` by node. A node that starts again has none of them any more."""
        for name in names:
            self._cut_off.setdefault(name, set()).update(self._node(peer).address for peer in peers if peer != name)
        targets = [{**one, "peers": sorted(self._cut_off[one["name"]])} for one in self._targets(names)]
        answer = self.agent.call("isolate", {"targets": targets})
        return {"rules": {name: entry["rules"] for name, entry in answer.items()}} if answer else {}

    def rejoin(self) -> Evidence:
        """Remove the rules that isolate added. Evidence: `dropped` packets by node; empty when there were none."""
        answer = self.agent.call("rejoin", {"targets": self._targets(list(self._cut_off))}) if self._cut_off else {}
        self._cut_off.clear()
        dropped = {name: entry["dropped"] for name, entry in answer.items()}
        return {"dropped": dropped} if any(dropped.values()) else {}

    # --- questions ---

    def exited(self) -> Mapping[str, int]:
        """Nodes that do not run now, with their exit codes."""
        states = {name: self._state(name) for name in self._names()}
        return {name: int(state["ExitCode"]) for name, state in states.items() if not state["Running"]}

    def whole(self) -> str | None:
        """None when the engine answers, the network and every loop disk are there, no disk is full, and no
        container was ended for lack of memory; else what is wrong, in words."""
        try:
            return self._what_is_wrong()
        except MqtestError as error:
            return str(error)

    def save_logs(self, folder: Path) -> None:
        """Write `<node>.log`: all that the node said, over all its starts, with the engine's times."""
        for name in self._names():
            with asking(f"reading the log of {name}"), (folder / f"{name}.log").open("wb") as file:
                for part in self._container(name).logs(stream=True, follow=False, timestamps=True):
                    file.write(part)

    def usage(self) -> Mapping[str, Mapping[str, float]]:
        """By node that runs: `cpu_s` and `memory_bytes`, since its last start."""
        running = [name for name in self._names() if self._state(name)["Running"]]

        def ask(name: str) -> dict[str, float]:
            seen: Any = self.agent.client.api.stats(str(self._container(name).id), stream=False, one_shot=True)
            return {
                "cpu_s": seen.get("cpu_stats", {}).get("cpu_usage", {}).get("total_usage", 0) / 1e9,
                "memory_bytes": float(seen.get("memory_stats", {}).get("usage", 0)),
            }

        with asking("measuring"):
            return dict(zip(running, together(ask, running), strict=True))

    def down(self) -> None:
        """Remove containers, network, volumes and disks; the agent stays for the run's next cell."""
        if self._down:
            return
        _remove(self.agent, self.project, [disk.image for disk in self.disks.values()])
        self._down = True
        self.agent.close()

    # --- inside ---

    def _names(self) -> list[str]:
        return [node.name for node in self.nodes]

    def _node(self, name: str) -> Node:
        return next(node for node in self.nodes if node.name == name)

    def _container(self, name: str) -> Container:
        return self.agent.client.containers.get(f"{self.project}-{name}-1")

    def _state(self, name: str) -> dict[str, Any]:
        with asking(f"looking at {name}"):
            state: dict[str, Any] = self._container(name).attrs["State"]
            return state

    def _targets(self, names: Sequence[str]) -> list[dict[str, Any]]:
        """What the agent must know of those that run."""

        def ask(name: str) -> dict[str, Any]:
            with asking(f"looking at {name}"):
                container = self._container(name)
            pid = container.attrs["State"]["Pid"] if container.attrs["State"]["Running"] else 0
            return {"name": name, "container": container.id, "pid": pid, "data": self.data[name]}

        return [target for target in together(ask, names) if target["pid"]]

    def _await_exit(self, names: Sequence[str]) -> dict[str, int]:
        def all_ended() -> dict[str, int]:
            states = {name: self._state(name) for name in names}
            if any(state["Running"] for state in states.values()):
                return {}
            return {name: int(state["ExitCode"]) for name, state in states.items()}

        return wait_until(all_ended, EXIT_S, f"{', '.join(names)} to end")

    def _what_is_wrong(self) -> str | None:
        for name in self._names():
            if self._state(name)["OOMKilled"]:
                return f"{name} was ended for lack of memory"
        with asking("looking for the network"):
            if not self.agent.client.api.networks(filters={"label": f"{PROJECT_LABEL}={self.project}"}):
                return "the network is gone"
        attached = {entry["disk"]: entry["device"] for entry in self.agent.call("list-disks")}
        for name, disk in self.disks.items():
            if attached.get(disk.image) != disk.device:
                return f"the disk of {name} is not attached to {disk.device}"
        for name, free in self.agent.call("space", {"targets": self._targets(self._names())}).items():
            if free < FULL:
                return f"the disk of {name} is full"
        return None


def project_name(run: str, cell: str) -> str:
    """The compose project of a cell: unique to run and cell, in the characters and the length that Docker takes."""
    digest = hashlib.sha256(f"{run}/{cell}".encode()).hexdigest()[:10]
    words = re.sub(r"[^a-z0-9]+", "-", cell.lower()).strip("-")[:32]
    return f"mqtest-{words or 'cell'}-{digest}"


def bring_up(
    *,
    broker: str,
    environment: Mapping[str, str],
    image: Image,
    nodes: int,
    run: str,
    cell: str,
    fs: str,
    disk_mb: int,
    timeout_s: float,
    progress: Progress,
    recipe: Path | None = None,
    door: Door | None = None,
) -> ComposeCluster:
    """Bring up the first `nodes` brokers of a compose file, and all its coordinators.

    A service called `<broker>-<n>` is a broker, any other a coordinator. `recipe` is the compose file, by default the
    one of the broker. With a `door`, clients come to it through proxies. `timeout_s` bounds compose. Raises
    UsageError, EngineError, ClusterError; whatever was made is removed then.
    """
    file = recipe or recipes() / broker / "compose.yaml"
    project = project_name(run, cell)
    agent = agents.start(run, progress)
    made: dict[str, Disk] = {}
    try:
        subnet = network.reserve(agent.client, project, progress)
        variables = {
            **environment,
            "COMPOSE_PROJECT_NAME": project,
            "MQTEST_IMAGE": image.tag,
            "MQTEST_RUN": run,
            "MQTEST_SUBNET": str(subnet.network_address).rpartition(".")[0],
            "MQTEST_DISK_TYPE": fs,
        }
        if door is not None:
            variables["MQTEST_VIA"] = links.via(variables["MQTEST_SUBNET"])
        compose = _compose(file, variables, timeout_s)
        roles = _roles(_services(compose), broker, nodes)
        progress(f"making {len(roles)} disks of {disk_mb} MB, {fs}")
        for name, disk in disks.make(agent, [f"{project}.{name}" for name in roles], fs, disk_mb).items():
            made[name.rpartition(".")[2]] = disk
        variables |= {disk_variable(name): disk.device for name, disk in made.items()}
        progress(f"starting {', '.join(roles)} on {subnet}")
        with _quiet():
            compose = _compose(file, variables, timeout_s)
            compose.services = list(roles)
            _up(compose, timeout_s)
        network.guard(agent.client, progress)
        cluster = _cluster(agent, project, roles, image, made)
        if door is not None:
            named = {PROJECT_LABEL: project}
            cluster.links, cluster.nodes = links.start(agent.client, named, run, cluster.nodes, door, progress)
        return cluster
    except BaseException:
        with contextlib.suppress(MqtestError):  # the first error is the one to tell
            _remove(agent, project, [disk.image for disk in made.values()])
        agent.close()
        raise


def disk_variable(service: str) -> str:
    """The variable of compose.yaml that names a service's disk, such as MQTEST_DISK_KAFKA_1."""
    return f"MQTEST_DISK_{service.upper().replace('-', '_')}"


def _compose(file: Path, variables: Mapping[str, str], timeout_s: float) -> DockerCompose:
    """A DockerCompose that is bounded in time, and sees our variables and none that are about in the environment."""
    compose = DockerCompose(context=file.parent, compose_file_name=file.name, wait=False)
    stray = [f"--unset={name}" for name in os.environ if name.startswith(("MQTEST_", "COMPOSE_"))]
    pairs = [f"{name}={value}" for name, value in variables.items()]
    bound = ["timeout", "--foreground", "--kill-after=5", f"{timeout_s:g}"]
    compose.compose_command_property = ["env", *stray, *pairs, *bound, *compose.compose_command_property]
    return compose


def _services(compose: DockerCompose) -> list[str]:
    command = [*compose.docker_compose_command(), "config", "--services"]
    done = subprocess.run(command, cwd=compose.context, capture_output=True, text=True, check=False, timeout=60)
    if done.returncode != 0:
        raise ClusterError(f"compose does not take {compose.context}: {_last_line(done.stderr)}")
    return sorted(done.stdout.split())


def _roles(services: Sequence[str], broker: str, nodes: int) -> dict[str, str]:
    """Service -> role, of those that a cluster of so many brokers needs."""
    roles = {}
    for service in services:
        number = re.fullmatch(rf"{re.escape(broker)}-(\d+)", service)
        if number is None:
            roles[service] = "coordinator"
        elif int(number[1]) <= nodes:
            roles[service] = "broker"
    if list(roles.values()).count("broker") != nodes:
        raise ClusterError(f"the compose file of {broker} has not {nodes} services {broker}-1 …, only {services}")
    return roles


def _up(compose: DockerCompose, timeout_s: float) -> None:
    if shutil.which("docker") is None:
        raise EngineError("the docker command with its compose plugin is not installed: run `make setup`")
    try:
        compose.start()
    except subprocess.CalledProcessError as error:
        late = error.returncode in (124, 137)
        why = f"it took longer than {timeout_s:g} s" if late else _last_line(error.stderr.decode(errors="replace"))
        raise ClusterError(f"compose up failed: {why}") from None


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "it gave no reason"


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """testcontainers logs a failed command whole, environment and all; the error that we raise says enough."""
    logger = logging.getLogger("testcontainers.compose.compose")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)


def _cluster(
    agent: Agent, project: str, roles: Mapping[str, str], image: Image, made: Mapping[str, Disk]
) -> ComposeCluster:
    """Reads addresses and data directories back from the engine."""
    nodes, data = [], {}
    with asking("looking at the new containers"):
        found = {
            one.labels[SERVICE_LABEL]: one
            for one in agent.client.containers.list(all=True, filters={"label": f"{PROJECT_LABEL}={project}"})
        }
    for name, role in roles.items():
        attrs = found[name].attrs
        (attachment,) = attrs["NetworkSettings"]["Networks"].values()
        nodes.append(Node(name, attachment["IPAMConfig"]["IPv4Address"], role))
        mounts = [mount["Destination"] for mount in attrs["Mounts"] if mount["Type"] == "volume"]
        if len(mounts) != 1:
            raise ClusterError(f"{name} has {len(mounts)} volumes; one is wanted, its disk")
        data[name] = mounts[0]
    facts = {"tag": image.tag, "id": image.id, "origin": image.origin}
    return ComposeCluster(agent=agent, project=project, nodes=tuple(nodes), image=facts, disks=made, data=data)


def _remove(agent: Agent, project: str, images: Sequence[str]) -> None:
    leftovers.remove_labelled(agent.client, {"label": f"{PROJECT_LABEL}={project}"})
    disks.remove(agent, images)
