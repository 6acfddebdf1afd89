"""One command of the tools image, in the network of a cluster: what it says, when, and the CPU that it uses.

The container carries the labels of the run and of the cluster, so it goes with either, and has no capability. Lines are
stamped when they arrive; CPU comes from the engine, which reads the container's cgroup.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import docker.errors
from docker.models.containers import Container

from mqtest.clock import now_ns
from mqtest.cluster.containers import PROJECT_LABEL, ComposeCluster
from mqtest.cluster.engine import asking, labels
from mqtest.cluster.images import Image
from mqtest.errors import ClusterError
from mqtest.last_words import telling

_LOOK_S: Final = 0.25
_END_S: Final = 10
"""from SIGTERM to SIGKILL"""


@dataclass(slots=True)
class Heard:
    """What a tool said, and the CPU that it used. `lines` and `lines_ns` grow together while it runs."""

    lines: list[str] = field(default_factory=list)
    lines_ns: list[int] = field(default_factory=list)
    cpu: list[tuple[int, float]] = field(default_factory=list)
    """(time in ns, CPU seconds so far)"""
    exit_code: int | None = None
    """None: it was ended by us"""


def run(
    cluster: ComposeCluster,
    image: Image,
    run_id: str,
    command: Sequence[str],
    heard: Heard,
    enough: Callable[[], bool],
    *,
    timeout_s: float,
    quiet_s: float,
) -> None:
    """Run it until it ends, or `enough()`; at most for `timeout_s`, and until it has said nothing for `quiet_s`.

    Raises ClusterError with the line that tells why when it ended with an error, and EngineError.
    """
    with _container(cluster, image, run_id, command) as container:
        listener = threading.Thread(target=_listen, args=(container, heard), daemon=True)
        listener.start()
        begun_ns = now_ns()
        while not enough():
            _sample(cluster, container, heard)
            said_ns = heard.lines_ns[-1] if heard.lines_ns else begun_ns
            now = now_ns()
            if (code := _exit_code(container)) is not None:
                heard.exit_code = code
                break
            if now - said_ns > quiet_s * 1e9 or now - begun_ns > timeout_s * 1e9:
                break
            time.sleep(_LOOK_S)
        _sample(cluster, container, heard)
        if heard.exit_code is None:
            with asking("ending the tool"):
                container.stop(timeout=_END_S)
        listener.join(_END_S)
    if heard.exit_code:
        said = telling("\n".join(heard.lines)) if heard.lines else "it said nothing"
        raise ClusterError(f"the tool ended with exit code {heard.exit_code}: {said}")


@contextlib.contextmanager
def _container(cluster: ComposeCluster, image: Image, run_id: str, command: Sequence[str]) -> Iterator[Container]:
    client, project = cluster.agent.client, {PROJECT_LABEL: cluster.project}
    with asking("starting the tool"):
        (network,) = client.api.networks(filters={"label": f"{PROJECT_LABEL}={cluster.project}"})
        container: Container = client.containers.run(
            image.tag,
            list(command),
            detach=True,
            network=network["Name"],
            labels={**labels(run_id), **project},
            cap_drop=["ALL"],
        )
    try:
        yield container
    finally:
        with asking("removing the tool"), contextlib.suppress(docker.errors.NotFound):
            container.remove(force=True, v=True)


def _listen(container: Container, heard: Heard) -> None:
    """Every line with the time at which it came, until the container ends."""
    rest = b""
    with contextlib.suppress(Exception):  # the engine's end of the stream; the main thread sees what is wrong with it
        for part in container.logs(stream=True, follow=True):
            *whole, rest = (rest + part).split(b"\n")
            for line in whole:
                heard.lines_ns.append(now_ns())
                heard.lines.append(line.decode(errors="replace").rstrip())


def _sample(cluster: ComposeCluster, container: Container, heard: Heard) -> None:
    with asking("measuring the tool"):
        seen: Any = cluster.agent.client.api.stats(str(container.id), stream=False, one_shot=True)
    used = seen.get("cpu_stats", {}).get("cpu_usage", {}).get("total_usage", 0)
    if used:  # nothing once it has ended
        heard.cpu.append((now_ns(), used / 1e9))


def _exit_code(container: Container) -> int | None:
    with asking("looking at the tool"):
        container.reload()
    state = container.attrs["State"]
    return None if state["Running"] else int(state["ExitCode"])
