"""The bench on a real broker, short: it measures both sides, and leaves nothing behind. And the tools' image."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from pathlib import Path

import docker
import pytest

from mqtest.bench.tools import TOOLS, Job
from mqtest.cluster import images
from mqtest.cluster.leftovers import remaining
from mqtest.model import Kind, Wiring

pytestmark = [pytest.mark.docker, pytest.mark.timeout(1800)]


def quiet(_line: str) -> None:
    """Progress that nobody reads."""


def test_a_row_is_measured_on_both_sides_and_nothing_is_left(tmp_path: Path) -> None:
    words = ["bench", "rabbitmq-classic-100", "--runs", "2", "--seconds", "3", "--warm-up", "1"]  # mqtest bench
    done = subprocess.run(
        [sys.executable, "-m", "mqtest", *words], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=900
    )
    (run_dir,) = (tmp_path / "results").glob("*-bench")
    (row,) = json.loads((run_dir / "bench.json").read_text(encoding="utf-8"))["rows"]
    assert row["failed"] is None
    assert [(run["side"], run["number"], run["why"]) for run in row["runs"]] == [
        ("mqtest", 1, None),
        ("tool", 1, None),
        ("mqtest", 2, None),
        ("tool", 2, None),
    ]
    for run in row["runs"]:
        assert run["produce"]["messages"] > 100, run
        assert 0 < run["produce"]["seconds"] < 6, run
        assert run["produce"]["cpu_s"] > 0, run
    assert "rabbitmq-classic-100" in done.stdout, done.stderr
    assert done.returncode in (0, 2), done.stderr  # a queue can be empty before the second that does not count is over
    assert "starting consumer #0" in (run_dir / "tools" / "rabbitmq-classic-100-1-consume.log").read_text()
    assert remaining(run_dir.name) == []


@pytest.mark.parametrize("broker", TOOLS)
def test_the_image_carries_each_tool_with_all_its_classes(broker: str) -> None:
    """Nobody answers at the address, so each comes as far as its client library goes."""
    image = images.ensure_tools(quiet)
    wiring = Wiring(
        broker=broker,
        client="",
        kind=Kind.LOG,
        acknowledged=True,
        addresses=("127.0.0.1:1",),
        topic="t",
        places=1,
        group="g",
        producer={"acks": "all", "delivery_mode": 2, "mandatory": True},
        consumer={"prefetch": 1},
    )
    job = Job(wiring=wiring, size_bytes=100, window=1, options=TOOLS[broker].options, messages=1)
    with contextlib.closing(docker.from_env(timeout=120)) as client:
        for command in (TOOLS[broker].produce(job), TOOLS[broker].consume(job)):
            said = client.containers.run(
                image.tag, ["sh", "-c", 'timeout 8 "$@" 2>&1; true', "sh", *command], remove=True
            ).decode()
            assert "NoClassDefFound" not in said
            assert "ClassNotFound" not in said
            for word in ("recognized", "usage:"):
                assert word not in said, said
