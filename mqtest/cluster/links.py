"""The links between clients and brokers: one Toxiproxy of ours in the network of a cell, one proxy a broker.

    client ── 198.19.x.30:2000N ──> Toxiproxy ──> broker N, at its door (brokers.Door)

Rules:
- Only a cell whose fault needs it has one. Its address is known before the brokers start (`via`), so that Kafka can
  tell it to its clients; brokers and mqtest itself talk to each other directly.
- It carries the labels of the cluster, goes with it, has no capability and nothing on the host's ports.
- Evidence is what the runner measures through the proxy, before and after, on a connection of its own: how long the
  broker's first answer takes, or that none comes. Where one connection cannot show it (bandwidth, slicer): the toxic is
  listed, and so many bytes went through the proxies until it was taken away.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import docker

from mqtest.brokers import Door
from mqtest.clock import now_ns, wait_until
from mqtest.cluster import Evidence, images
from mqtest.cluster.engine import asking, labels, together
from mqtest.cluster.toxics import Toxiproxy, toxics
from mqtest.errors import ClusterError, WaitTimeout
from mqtest.model import Node, Value

Progress = Callable[[str], None]

LAST_OCTET: Final = 30
"""of the proxies' address; nodes have 10 to 13"""
_PORTS: Final = "2000"
"""how the port of a proxy begins; the number of its node follows"""
_PROBES: Final = 5
_JITTER_PROBES: Final = 16
"""the spread of a few delays drawn at random can be small by chance"""
_ANSWER_S: Final = 5.0
_START_S: Final = 20.0


def via(subnet: str) -> str:
    """How the addresses of the proxies begin, in the /24 `subnet` (its first three numbers): append a node's number."""
    return f"{subnet}.{LAST_OCTET}:{_PORTS}"


@dataclass(frozen=True, slots=True)
class Links:
    """The proxies of one cell. Names without a proxy (coordinators) are left out of what is done."""

    client: docker.DockerClient
    container: str
    proxies: Mapping[str, str]
    """node → host:port of its proxy"""
    door: Door
    _in_force: dict[str, list[tuple[str, str]]] = field(default_factory=dict)
    """tag → (proxy, name of a toxic)"""
    _passed: dict[str, int] = field(default_factory=dict)
    """tag → bytes that had gone through when the probes were done"""

    def impair(self, action: str, names: Sequence[str], settings: Mapping[str, Value], tag: str) -> Evidence:
        """Put the toxics of an action on these nodes' links. Evidence: by node what probes saw `before` and `after` (ms
        until the broker's first answer; None: closed, or no answer) and `begun_ns`, since when the links are bad; empty
        when the probes do not show the action."""
        hit = [name for name in names if name in self.proxies]
        count = _JITTER_PROBES if action == "link-jitter" else _PROBES
        before = self._probed(hit, count)
        wanted = {f"{tag}-{toxic.stream}": toxic for toxic in toxics(action, settings)}
        for proxy in hit:
            for name, toxic in wanted.items():
                self._in_force.setdefault(tag, []).append((proxy, name))
                self._server().add(proxy, name, toxic)
        begun_ns = now_ns()
        after = self._probed(hit, count)
        self._passed[tag] = self._bytes()
        if not hit or not all(_shows(action, settings, before[name], after[name]) for name in hit):
            return {}
        seen = {name: {"before": before[name], "after": after[name]} for name in hit}
        return {
            "begun_ns": begun_ns,
            "answer_ms": seen,
            "toxics": {name: toxic._asdict() for name, toxic in wanted.items()},
        }

    def restore(self, tag: str) -> Evidence:
        """Take the toxics of a tag away. Evidence: which were `listed` until then, how many bytes of clients, not of
        probes, went through meanwhile; empty when one was not listed, or nothing went through."""
        ours = self._in_force.get(tag, [])
        server = self._server()
        listed = {proxy: sorted(server.listed(proxy)) for proxy in dict.fromkeys(proxy for proxy, _ in ours)}
        passed_bytes = self._bytes() - self._passed.pop(tag, 0)
        for proxy, name in ours:
            server.remove(proxy, name)
        self._in_force.pop(tag, None)
        if not ours or passed_bytes <= 0 or any(name not in listed[proxy] for proxy, name in ours):
            return {}
        return {"listed": listed, "passed_bytes": passed_bytes}

    def wrong(self) -> str | None:
        """See mqtest.cluster.Links."""
        with asking("looking at Toxiproxy"):
            state: Any = self.client.api.inspect_container(self.container)["State"]
        return None if state["Running"] else f"Toxiproxy ended with exit code {state['ExitCode']}"

    def _server(self) -> Toxiproxy:
        return Toxiproxy(next(iter(self.proxies.values())).partition(":")[0])

    def _probed(self, names: Sequence[str], count: int) -> dict[str, list[float | None]]:
        seen = together(lambda name: probe(self.proxies[name], self.door.greeting, count), names)
        return dict(zip(names, seen, strict=True))

    def _bytes(self) -> int:
        """That the container has received since it started: clients' and brokers' alike, once each."""
        with asking("measuring the proxies"):
            seen: Any = self.client.api.stats(self.container, stream=False, one_shot=True)
        return sum(int(one["rx_bytes"]) for one in seen.get("networks", {}).values())


def probe(address: str, greeting: bytes, count: int) -> list[float | None]:
    """For each of `count` new connections: ms from the greeting to the first byte of the answer, None where there was
    none. A first None ends it: what does not answer is not waited for again."""
    host, _, port = address.partition(":")
    seen: list[float | None] = []
    while len(seen) < count:
        try:
            with socket.create_connection((host, int(port)), _ANSWER_S) as connection:
                began = time.monotonic()
                connection.sendall(greeting)
                answered = bool(connection.recv(1))
                seen.append(round((time.monotonic() - began) * 1000, 1) if answered else None)
        except OSError:
            seen.append(None)
        if seen[-1] is None:
            break
    return seen


def _shows(
    action: str, settings: Mapping[str, Value], before: Sequence[float | None], after: Sequence[float | None]
) -> bool:
    """Whether the probes show the action. The quickest answer counts, which noise does not move; for jitter the spread
    from the quickest to the slowest."""
    was, now = [x for x in before if x is not None], [x for x in after if x is not None]
    if action in ("link-reset", "link-timeout"):
        return len(was) == len(before) and len(now) < len(after)
    if len(now) < len(after) or not was or not now:
        return False
    if action == "link-latency":
        return min(now) - min(was) >= float(settings["latency_ms"]) / 2
    if action == "link-jitter":
        return max(now) - min(now) >= float(settings["jitter_ms"]) / 2
    return True


def start(
    client: docker.DockerClient,
    project: Mapping[str, str],
    run: str,
    nodes: Sequence[Node],
    door: Door,
    progress: Progress,
) -> tuple[Links, tuple[Node, ...]]:
    """Toxiproxy in the network of the compose project (`project`: the one label of all that is its), with a proxy for
    each broker. Returns it, and the nodes as clients are to see them. Raises EngineError, ImageError, ClusterError."""
    image = images.ensure_toxiproxy(progress)
    brokers = {node.name: node for node in nodes if node.role == "broker"}
    subnet = nodes[0].address.rpartition(".")[0]
    host = f"{subnet}.{LAST_OCTET}"
    progress(f"starting Toxiproxy at {host}")
    with asking("starting Toxiproxy"):
        ((label, value),) = project.items()
        (network,) = client.api.networks(filters={"label": f"{label}={value}"})
        api = client.api
        made = api.create_container(
            image.id,
            command=[f"-host={host}"],
            name=f"{value}-toxiproxy",
            labels={**labels(run), **project},
            host_config=api.create_host_config(
                network_mode=network["Name"], cap_drop=["ALL"], read_only=True, mem_limit="256m"
            ),
            networking_config=api.create_networking_config(
                {network["Name"]: api.create_endpoint_config(ipv4_address=host)}  # type: ignore[arg-type]
            ),
        )
        api.start(made["Id"])
    server = Toxiproxy(host)
    try:
        wait_until(server.version, _START_S, "Toxiproxy to answer", swallow=(ClusterError,))
    except WaitTimeout as error:
        raise ClusterError(str(error)) from None
    proxies = {name: f"{via(subnet)}{name.rpartition('-')[2]}" for name in brokers}
    for name, listen in proxies.items():
        server.create(name, listen, f"{brokers[name].address}:{door.port}")
    seen = tuple(Node(node.name, node.address, node.role, proxies.get(node.name, "")) for node in nodes)
    return Links(client, made["Id"], proxies, door), seen
