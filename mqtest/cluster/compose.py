"""A cluster of containers, fresh for one cell: compose up on disks of its own.

`bring_up` takes a network from the pool and a loop disk for each container, and hands them to the broker's
compose.yaml as environment variables; nothing else passes between the two. What it made is found again by the
compose project's label, and all of it is removed when bring-up fails half way. What can be done to the cluster
afterwards stands in containers.py.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from testcontainers.compose import DockerCompose

from mqtest.brokers import Door
from mqtest.cluster import agent as agents
from mqtest.cluster import clocks, disks, links, network
from mqtest.cluster.agent import Agent
from mqtest.cluster.containers import PROJECT_LABEL, ComposeCluster, remove
from mqtest.cluster.disks import Disk
from mqtest.cluster.engine import asking
from mqtest.cluster.images import Image
from mqtest.errors import ClusterError, EngineError, MqtestError
from mqtest.model import Node
from mqtest.paths import recipes

Progress = Callable[[str], None]

SERVICE_LABEL: Final = "com.docker.compose.service"


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
    fakes_clock: bool = False,
    door: Door | None = None,
) -> ComposeCluster:
    """Bring up the first `nodes` brokers of a compose file, and all its coordinators.

    A service called `<broker>-<n>` is a broker, any other a coordinator. `recipe` is the compose file, by default the
    one of the broker. With a `door`, clients come to it through proxies; with `fakes_clock` the nodes' wall clocks can
    jump. `timeout_s` bounds compose. Raises UsageError, EngineError, ClusterError; whatever was made is removed then.
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
        mounts = _services(_compose([file], variables, timeout_s))
        roles = _roles(sorted(mounts), broker, nodes)
        progress(f"making {len(roles)} disks of {disk_mb} MB, {fs}")
        for name, disk in disks.make(agent, [f"{project}.{name}" for name in roles], fs, disk_mb).items():
            made[name.rpartition(".")[2]] = disk
        variables |= {disk_variable(name): disk.device for name, disk in made.items()}
        progress(f"starting {', '.join(roles)} on {subnet}")
        with _quiet(), _clocks({name: mounts[name] for name in roles} if fakes_clock else {}) as more:
            compose = _compose([file, *more], variables, timeout_s)
            compose.services = list(roles)
            _up(compose, timeout_s)
        network.guard(agent.client, progress)
        cluster = _cluster(agent, project, roles, image, made, mounts, str(subnet[1]))
        if door is not None:
            named = {PROJECT_LABEL: project}
            cluster.links, cluster.nodes = links.start(agent.client, named, run, cluster.nodes, door, progress)
        return cluster
    except BaseException:
        with contextlib.suppress(MqtestError):  # the first error is the one to tell
            remove(agent, project, [disk.image for disk in made.values()])
        agent.close()
        raise


def disk_variable(service: str) -> str:
    """The variable of compose.yaml that names a service's disk, such as MQTEST_DISK_KAFKA_1."""
    return f"MQTEST_DISK_{service.upper().replace('-', '_')}"


def _compose(files: Sequence[Path], variables: Mapping[str, str], timeout_s: float) -> DockerCompose:
    """A DockerCompose that is bounded in time, and sees our variables and none that are about in the environment."""
    compose = DockerCompose(context=files[0].parent, compose_file_name=[str(file) for file in files], wait=False)
    stray = [f"--unset={name}" for name in os.environ if name.startswith(("MQTEST_", "COMPOSE_"))]
    pairs = [f"{name}={value}" for name, value in variables.items()]
    bound = ["timeout", "--foreground", "--kill-after=5", f"{timeout_s:g}"]
    compose.compose_command_property = ["env", *stray, *pairs, *bound, *compose.compose_command_property]
    return compose


def _services(compose: DockerCompose) -> dict[str, str]:
    """Service -> where its disk is mounted."""
    command = [*compose.docker_compose_command(), "config", "--format", "json"]
    done = subprocess.run(command, cwd=compose.context, capture_output=True, text=True, check=False, timeout=60)
    if done.returncode != 0:
        raise ClusterError(f"compose does not take {compose.context}: {_last_line(done.stderr)}")
    services: dict[str, Any] = json.loads(done.stdout)["services"]
    found = {}
    for name, service in services.items():
        mounts = [mount["target"] for mount in service.get("volumes", ()) if mount["type"] == "volume"]
        if len(mounts) != 1:
            raise ClusterError(f"{name} has {len(mounts)} volumes; one is wanted, its disk")
        found[name] = mounts[0]
    return found


@contextlib.contextmanager
def _clocks(mounts: Mapping[str, str]) -> Iterator[Sequence[Path]]:
    """A compose file that lets the clocks of these services jump; none when there are none."""
    if not mounts:
        yield ()
        return
    services = {name: {"environment": clocks.environment(mount)} for name, mount in mounts.items()}
    with tempfile.TemporaryDirectory(prefix="mqtest-") as folder:
        file = Path(folder) / "clocks.json"
        file.write_text(json.dumps({"services": services}))
        yield (file,)


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
    agent: Agent,
    project: str,
    roles: Mapping[str, str],
    image: Image,
    made: Mapping[str, Disk],
    data: Mapping[str, str],
    gateway: str,
) -> ComposeCluster:
    """Reads the addresses back from the engine; `gateway` is the bridge's, the first of the subnet."""
    with asking("looking at the new containers"):
        found = {
            one.labels[SERVICE_LABEL]: one.attrs["NetworkSettings"]["Networks"]
            for one in agent.client.containers.list(all=True, filters={"label": f"{PROJECT_LABEL}={project}"})
        }
    nodes = []
    for name, role in roles.items():
        (attachment,) = found[name].values()
        nodes.append(Node(name, attachment["IPAMConfig"]["IPv4Address"], role))
    facts = {"tag": image.tag, "id": image.id, "origin": image.origin}
    return ComposeCluster(
        agent=agent,
        project=project,
        nodes=tuple(nodes),
        image=facts,
        disks=made,
        data={name: data[name] for name in roles},
        gateway=gateway,
    )
