"""The proxies between clients and nodes on a real engine, with tiny nodes that speak HTTP: each action bites, by its
own evidence and for a client, and is gone once it is undone."""

from __future__ import annotations

import contextlib
import os
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest

from mqtest.brokers import Door
from mqtest.clock import wait_until
from mqtest.cluster import images, leftovers
from mqtest.cluster.compose import ComposeCluster, bring_up
from mqtest.cluster.locks import RunLock
from mqtest.faults import FAULTS
from mqtest.model import Value

pytestmark = pytest.mark.docker
RUN = f"test-links-{os.getpid()}"
DOOR = Door(8000, b"GET / HTTP/1.0\r\n\r\n")
NAMES = ["names-1", "node-1", "node-2"]


def quiet(line: str) -> None:
    pass


@pytest.fixture(scope="module")
def cluster() -> Iterator[ComposeCluster]:
    with RunLock(RUN):
        try:
            made = bring_up(
                broker="node",
                environment={},
                image=images.ensure_agent(quiet),
                nodes=2,
                run=RUN,
                cell="links",
                fs="ext4",
                disk_mb=400,
                timeout_s=60,
                progress=quiet,
                recipe=Path(__file__).with_name("cluster_recipe.yaml"),
                door=DOOR,
            )
            wait_until(lambda: all(took_s(made, name) is not None for name in NAMES[1:]), 20, "the nodes to serve")
            yield made
            made.down()
            with contextlib.closing(docker.from_env()) as client:
                assert (
                    client.api.containers(all=True, filters={"name": "toxiproxy", "label": f"mqtest.run={RUN}"}) == []
                )
        finally:
            leftovers.close_run(RUN, quiet)


def took_s(cluster: ComposeCluster, name: str) -> float | None:
    """How long a client waits for a page of the node; None: in vain."""
    via = next(node.via for node in cluster.nodes if node.name == name)
    began = time.monotonic()
    with contextlib.suppress(OSError), urllib.request.urlopen(f"http://{via}/", timeout=4) as page:
        page.read()
        return time.monotonic() - began
    return None


def settings(action: str, **changed: Value) -> dict[str, Value]:
    return {**FAULTS[action].settings, **changed}


def test_brokers_have_proxies_and_others_none(cluster: ComposeCluster) -> None:
    assert cluster.whole() is None
    assert {node.name: bool(node.via) for node in cluster.nodes} == {"names-1": False, "node-1": True, "node-2": True}


@pytest.mark.parametrize("stream", ["both", "upstream", "downstream"])
def test_latency_is_of_a_round_trip(cluster: ComposeCluster, stream: str) -> None:
    assert cluster.links is not None
    shown = cluster.links.impair("link-latency", NAMES, settings("link-latency", latency_ms=300, stream=stream), "7")
    try:
        assert {name: len(seen["after"]) for name, seen in shown["answer_ms"].items()} == {"node-1": 5, "node-2": 5}
        assert 300 <= min(shown["answer_ms"]["node-1"]["after"]) < 500
        assert (took_s(cluster, "node-1") or 0) > 0.3
    finally:
        undone = cluster.links.restore("7")
    assert undone["passed_bytes"] > 0
    assert (took_s(cluster, "node-1") or 9) < 0.3


@pytest.mark.parametrize(
    ("action", "changed"), [("link-reset", {}), ("link-timeout", {"timeout_ms": 300}), ("link-jitter", {})]
)
def test_what_a_probe_sees(cluster: ComposeCluster, action: str, changed: dict[str, Value]) -> None:
    assert cluster.links is not None
    shown = cluster.links.impair(action, ["node-1"], settings(action, **changed), "1")
    try:
        assert list(shown["answer_ms"]) == ["node-1"]
        assert (took_s(cluster, "node-1") is None) == (action != "link-jitter")
        assert took_s(cluster, "node-2") is not None
    finally:
        cluster.links.restore("1")
    assert took_s(cluster, "node-1") is not None


@pytest.mark.parametrize("action", ["link-bandwidth", "link-slicer"])
def test_what_shows_in_the_bytes_that_went_through(cluster: ComposeCluster, action: str) -> None:
    assert cluster.links is not None
    assert cluster.links.impair(action, ["node-2"], settings(action), "2")
    assert took_s(cluster, "node-2") is not None
    undone = cluster.links.restore("2")
    assert undone["listed"] == {"node-2": ["2-downstream", "2-upstream"]}
    assert undone["passed_bytes"] > 100
    assert cluster.links.restore("2") == {}


def test_two_at_once_are_undone_each_by_itself(cluster: ComposeCluster) -> None:
    assert cluster.links is not None
    cluster.links.impair("link-slicer", ["node-1"], settings("link-slicer"), "3")
    cluster.links.impair("link-latency", ["node-1"], settings("link-latency", latency_ms=200), "4")
    cluster.links.restore("3")
    assert (took_s(cluster, "node-1") or 0) > 0.2
    assert cluster.links.restore("4")["listed"] == {"node-1": ["4-downstream", "4-upstream"]}
