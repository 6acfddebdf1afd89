"""Apache Flink beside the brokers of one cell: a job manager, a task manager and a ZooKeeper, a container each.

    host ── 198.19.x.31:8081 ──> job manager ──> task manager ──> brokers
                                   └── ZooKeeper (leader, and which checkpoint is the last one)

Rules:
- Only a cell whose replay `runs_on = "flink"` has one. A standalone session cluster with ZooKeeper's high availability,
  as Flink's own pages have it: a job manager that comes back finds its jobs again and their last checkpoint.
- Checkpoints, what ZooKeeper keeps and the job manager's own storage are on one volume, which outlives the containers
  and goes with the cell. It is no disk of a node: a power cut of the brokers takes nothing of it.
- The containers carry the labels of the cluster, go with it, and have nothing on the host's ports.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import docker

from mqtest.clock import wait_until
from mqtest.cluster import Evidence, images
from mqtest.cluster.engine import asking, labels, together
from mqtest.errors import ClusterError, WaitTimeout
from mqtest.flink_rest import PORT, FlinkRest
from mqtest.jobs import JOBS
from mqtest.model import Node

Progress = Callable[[str], None]

OCTETS: Final[Mapping[str, int]] = {"zookeeper": 33, "jobmanager": 31, "taskmanager": 32}
"""container -> the last number of its address; nodes have 10 to 13, proxies 30. In the order in which they start"""
_MEMORY: Final[Mapping[str, str]] = {"zookeeper": "320m", "jobmanager": "1g", "taskmanager": "1280m"}
_VOLUME: Final = "/checkpoints"
_START_S: Final = 120.0
"""at most, until the task manager has its slots: three JVMs start beside those of the brokers"""
_EXIT_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class Flink:
    """The containers of one cell's Flink; implements mqtest.cluster.Processor."""

    client: docker.DockerClient
    containers: Mapping[str, str]
    """name -> id"""
    address: str
    image: str

    def kill(self, names: Sequence[str]) -> Evidence:
        """SIGKILL to PID 1 of those that run. Evidence: `exit_code` by name (137)."""
        hit = [name for name in names if self._state(name)["Running"]]
        with asking(f"killing {', '.join(hit)}"):
            together(lambda name: self.client.api.kill(self.containers[name], "SIGKILL"), hit)
        for name in hit:
            wait_until(lambda name=name: not self._state(name)["Running"], _EXIT_S, f"{name} to end")  # type: ignore[misc]
        return {"exit_code": {name: int(self._state(name)["ExitCode"]) for name in hit}} if hit else {}

    def start(self, names: Sequence[str]) -> None:
        """Start what does not run."""
        halted = [name for name in names if not self._state(name)["Running"]]
        with asking(f"starting {', '.join(halted)}"):
            together(lambda name: self.client.api.start(self.containers[name]), halted)

    def save_logs(self, folder: Path) -> None:
        """Write `<name>.log`: all that each said, over all its starts, with the engine's times."""
        for name, container in self.containers.items():
            with asking(f"reading the log of {name}"), (folder / f"{name}.log").open("wb") as file:
                for part in self.client.api.logs(container, stream=True, follow=False, timestamps=True):
                    file.write(part)

    def _state(self, name: str) -> dict[str, Any]:
        with asking(f"looking at {name}"):
            state: dict[str, Any] = self.client.api.inspect_container(self.containers[name])["State"]
            return state


def start(
    client: docker.DockerClient, project: Mapping[str, str], run: str, nodes: Sequence[Node], progress: Progress
) -> Flink:
    """Bring it up in the network of the compose project (`project`: the one label of all that is its), ready for two
    jobs. What is made carries that label. Raises EngineError, ImageError, ClusterError."""
    image = images.ensure_flink(progress)
    subnet = nodes[0].address.rpartition(".")[0]
    addresses = {name: f"{subnet}.{octet}" for name, octet in OCTETS.items()}
    ((label, value),) = project.items()
    progress(f"starting Flink: {', '.join(OCTETS)}")
    with asking("starting Flink"):
        (network,) = client.api.networks(filters={"label": f"{label}={value}"})
        own = {**labels(run), **project}
        volume = f"{value}-checkpoints"
        client.api.create_volume(volume, labels=own)
        made = {
            name: _container(client, image.id, name, addresses, own, f"{value}-{name}-1", network["Name"], volume)
            for name in OCTETS
        }
        for container in made.values():
            client.api.start(container)
    flink = Flink(client, made, f"{addresses['jobmanager']}:{PORT}", image.tag)
    rest = FlinkRest(flink.address)
    try:
        wait_until(lambda: rest.slots() >= JOBS, _START_S, "Flink to have a slot a job", swallow=(ClusterError,))
    except WaitTimeout as error:
        raise ClusterError(str(error)) from None
    return flink


def _container(
    client: docker.DockerClient,
    image: str,
    role: str,
    addresses: Mapping[str, str],
    own: Mapping[str, str],
    name: str,
    network: str,
    volume: str,
) -> str:
    """Make one; its id."""
    api = client.api
    made = api.create_container(
        image,
        command=["sh", "/opt/flink/start.sh", role],
        name=name,
        hostname=role,
        environment={f"MQTEST_{other.upper()}": address for other, address in addresses.items()},
        labels=dict(own),
        volumes=[_VOLUME],
        host_config=api.create_host_config(
            network_mode=network,
            binds=[f"{volume}:{_VOLUME}"],
            cap_drop=["ALL"],
            mem_limit=_MEMORY[role],
            extra_hosts=dict(addresses),  # a job manager looks names up by address, and waits 10 s for no answer
        ),
        networking_config=api.create_networking_config(
            {network: api.create_endpoint_config(ipv4_address=addresses[role])}  # type: ignore[arg-type]
        ),
    )
    return str(made["Id"])
