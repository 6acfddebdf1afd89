"""A grid over two Ray nodes on this machine, on the memory broker: interrupted, resumed, and one node killed meanwhile.

One test, because its cluster takes seconds to start; nothing in it depends on how many.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from mqtest.clock import wait_until
from mqtest.cluster.locks import live_runs
from mqtest.ledger import read_cell
from mqtest.report.collect import collect
from tests.ray_nodes import ENVIRONMENT

pytestmark = [pytest.mark.ray, pytest.mark.timeout(280)]

ROOT = Path(__file__).resolve().parent.parent
EXPECTED = {
    "memory-log-safe-none-1": "kept",
    "memory-log-safe-kill-leader-1": "kept",
    "memory-log-lossy-none-1": "kept",
    "memory-log-lossy-kill-leader-1": "lost-as-documented",
}
"""the same as without Ray: test_self_test.py"""
ASKED = ["--only", "memory/log-*/none", "--only", "memory/log-*/kill:leader", "--set", "phases.steady_s=5"]
"""cells that last, so that the node is killed in the middle of one however late that comes"""


@pytest.fixture
def nodes() -> Iterator[subprocess.Popen[str]]:
    """See tests/ray_nodes.py."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.ray_nodes"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=os.environ | ENVIRONMENT,
        cwd=ROOT,
    )
    yield process
    process.communicate(timeout=60)


def start(words: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "mqtest", "run", "self-test", *ASKED, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | ENVIRONMENT,
    )


def heard(run: subprocess.Popen[str], pattern: str) -> str:
    """The next line of its stderr that has it."""
    assert run.stderr is not None
    seen = []
    for line in run.stderr:
        seen.append(line)
        if re.search(pattern, line):
            return line
    raise AssertionError(f"{pattern}: not among {''.join(seen)}")


def left(run_id: str) -> list[str]:
    """Locks and folders of a run's cells on their hosts."""
    folders = [path.name for path in Path(tempfile.gettempdir()).glob(f"mqtest-cell.{run_id}*")]
    return [*folders, *(name for name in live_runs() if name.startswith(run_id))]


def test_a_grid_is_interrupted_resumed_and_loses_a_node(nodes: subprocess.Popen[str], tmp_path: Path) -> None:
    assert nodes.stdin is not None
    assert nodes.stdout is not None
    address = nodes.stdout.readline().strip()

    run = start(["--ray", address, "--results", str(tmp_path)])  # mqtest run durability --ray HOST:6379
    heard(run, "^= .* (kept|lost-as-documented)")
    heard(run, r"\] .*: steady$")
    run.terminate()
    out, err = run.communicate(timeout=100)
    assert run.returncode == 130, err
    assert "planned cells (" in out
    assert f"--ray {address} --resume {tmp_path}/" in err
    (run_dir,) = tmp_path.glob("*-self-test")
    assert left(run_dir.name) == []
    assert not (run_dir / "arriving").exists()
    done = {path.name for path in run_dir.glob("cells/*")}
    assert done, "the cells that came back whole, and no other"
    assert all(read_cell(run_dir / "cells" / name)["finished"] is True for name in done)

    run = start(["--ray", address, "--resume", str(run_dir)])
    (cell,) = re.findall(r"\] (\S+): on b$", heard(run, r"\] .*: on b$"))
    heard(run, rf"{cell}: steady$")
    nodes.stdin.write("kill\n")
    nodes.stdin.flush()
    out, err = run.communicate(timeout=200)
    assert run.returncode == 0, err
    lost = set(re.findall(r"^(\S+): lost with b: .*; it runs again elsewhere$", err, re.M))
    assert lost
    assert not lost & done
    assert set(re.findall(r"^NOTE: (\S+): lost with its host, and run again: b: ", out, re.M)) == lost
    assert "(raylet)" not in out + err, "Ray's own words stay out of ours"
    judged = {judged.id[4:]: str(judged.verdict) for judged in collect([run_dir]).cells}
    assert judged == EXPECTED
    assert {path.name for path in run_dir.glob("cells/*") if "lost_hosts" in read_cell(path)} == lost
    wait_until(lambda: not [name for name in live_runs() if name.startswith(run_dir.name)], 30, "all locks to be free")
