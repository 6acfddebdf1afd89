"""A tool in a container: what is heard of it, when it is ended, and that it is removed; on an engine that is played."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest

from mqtest.cluster import toolbox
from mqtest.cluster.containers import PROJECT_LABEL, ComposeCluster
from mqtest.cluster.engine import RUN_LABEL
from mqtest.cluster.images import Image
from mqtest.errors import ClusterError

IMAGE = Image("mqtest/tools:1", "sha256:1", "built")


class PlayedContainer:
    """Says its chunks, and ends by itself with `code`, or never."""

    id = "c1"

    def __init__(self, chunks: Sequence[bytes], code: int | None) -> None:
        self._chunks, self._code = chunks, code
        self.attrs: dict[str, Any] = {}
        self.done: list[str] = []

    def logs(self, *, stream: bool, follow: bool) -> Iterator[bytes]:
        assert stream
        assert follow
        return iter(self._chunks)

    def reload(self) -> None:
        self.attrs = {"State": {"Running": self._code is None, "ExitCode": self._code or 0}}

    def stop(self, timeout: int) -> None:
        assert timeout > 0
        self.done.append("stop")

    def remove(self, **_: bool) -> None:
        self.done.append("remove")


class PlayedEngine:
    """An engine with one network and one container, and a cluster on it."""

    def __init__(self, container: PlayedContainer) -> None:
        self.asked: dict[str, Any] = {}
        self._container = container
        api = SimpleNamespace(networks=self._networks, stats=self._stats)
        client = SimpleNamespace(api=api, containers=SimpleNamespace(run=self._run))
        self.cluster = cast("ComposeCluster", SimpleNamespace(agent=SimpleNamespace(client=client), project="p"))

    def _networks(self, filters: dict[str, str]) -> list[dict[str, str]]:
        assert filters == {"label": f"{PROJECT_LABEL}=p"}
        return [{"Name": "p_cell"}]

    def _run(self, tag: str, command: list[str], **options: Any) -> PlayedContainer:
        self.asked = {"tag": tag, "command": command, **options}
        return self._container

    def _stats(self, container: str, **_: bool) -> dict[str, Any]:
        assert container == "c1"
        return {"cpu_stats": {"cpu_usage": {"total_usage": 2_500_000_000}}}


def run(container: PlayedContainer, enough: int | None = None, **bounds: float) -> tuple[toolbox.Heard, PlayedEngine]:
    """Run it until it ends, or has said `enough` lines."""
    engine, heard = PlayedEngine(container), toolbox.Heard()
    over = (lambda: len(heard.lines) >= enough) if enough else (lambda: False)
    toolbox.run(
        engine.cluster, IMAGE, "run-1", ["tool", "-x"], heard, over, **{"timeout_s": 60, "quiet_s": 60, **bounds}
    )
    return heard, engine


def test_lines_are_put_together_from_what_arrives_and_stamped() -> None:
    heard, _ = run(PlayedContainer([b"on", b"e\ntw", b"o\r\nthree\n", b"torn"], 0), enough=3)
    assert heard.lines == ["one", "two", "three"]
    assert sorted(heard.lines_ns) == heard.lines_ns
    assert len(heard.lines_ns) == 3


def test_it_belongs_to_the_run_and_to_the_cluster_and_may_do_nothing() -> None:
    container = PlayedContainer([], 0)
    _, engine = run(container)
    assert (engine.asked["tag"], engine.asked["command"], engine.asked["network"]) == (
        IMAGE.tag,
        ["tool", "-x"],
        "p_cell",
    )
    assert engine.asked["labels"] == {"mqtest": "1", RUN_LABEL: "run-1", PROJECT_LABEL: "p"}
    assert engine.asked["cap_drop"] == ["ALL"]
    assert container.done == ["remove"]


def test_one_that_has_said_enough_is_ended() -> None:
    container = PlayedContainer([b"a\nb\n"], None)
    heard, _ = run(container, enough=2)
    assert heard.exit_code is None
    assert [cpu_s for _, cpu_s in heard.cpu][-1] == 2.5
    assert container.done == ["stop", "remove"]


@pytest.mark.parametrize("bound", ["timeout_s", "quiet_s"])
def test_one_that_says_nothing_or_does_not_end_is_ended(bound: str) -> None:
    container = PlayedContainer([], None)
    run(container, **{bound: 0})
    assert container.done == ["stop", "remove"]


def test_one_that_fails_is_an_error_that_tells_why_and_it_is_removed() -> None:
    container = PlayedContainer([b"java.net.ConnectException: refused\n\tat com.x.Y.z(Y.java:1)\ntest stopped\n"], 1)
    with pytest.raises(ClusterError, match=r"exit code 1: java.net.ConnectException: refused in com.x.Y.z"):
        run(container)
    assert container.done == ["remove"]


def test_one_that_fails_without_a_word_says_so() -> None:
    with pytest.raises(ClusterError, match="exit code 137: it said nothing"):
        run(PlayedContainer([], 137))
