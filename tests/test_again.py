"""The commands that do a cell again, or finish a run, work from the directory in which that run was started."""

from __future__ import annotations

import html
import json
import os
import re
import shlex
from pathlib import Path

import pytest

from mqtest import paths, runner
from mqtest.cli import main
from mqtest.scenario import locate, named

BROKEN = """
title = "Mine"
question = "Does a liar come out?"
profiles = ["memory/log-lying"]
faults = ["kill:leader"]
nodes = 1
floor = 10
[workload]
rate_per_s = 1000
size_bytes = 100
[phases]
warm_up_s = 0.1
steady_s = 0.2
hold_s = 0.1
after_s = 0.1
"""


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A scenario below the current directory, as a person names it."""
    monkeypatch.chdir(tmp_path)
    path = Path("my own", "mine.toml")
    path.parent.mkdir()
    path.write_text(BROKEN)
    return str(path)


def test_a_scenario_of_ones_own_is_done_again_from_where_it_was_started(
    mine: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", mine, "--set", "title=4.10", "--plain"]) == 1
    (run_dir,) = Path("results").iterdir()
    (again,) = re.findall(r"^Again: `(.*)`$", (run_dir / "report.md").read_text(encoding="utf-8"), re.M)
    in_xml = {html.unescape(found) for found in re.findall("again: ([^<\n]*)", (run_dir / "junit.xml").read_text())}
    assert in_xml == {again}
    assert again.startswith("mqtest run 'my own/mine.toml' --only ")
    assert str(Path.cwd()) not in (run_dir / "run.json").read_text(encoding="utf-8")
    capsys.readouterr()
    assert main([*shlex.split(again)[1:], "--dry-run"]) == 0
    captured = capsys.readouterr()
    assert captured.err.startswith("4.10: ")
    assert captured.out == "001-memory-log-lying-kill-leader-1  memory/log-lying under kill:leader, repeat 1\n"


def test_a_stopped_run_of_a_scenario_of_ones_own_is_finished_from_where_it_was_started(
    mine: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(runner.Here, "run", stopped)
        assert main(["run", mine, "--set", "title=4.10", "--plain"]) == 130
    words = shlex.split(capsys.readouterr().err.rpartition("finish it with: mqtest ")[2])
    assert words[:2] == ["run", mine]
    assert main([*words, "--plain"]) == 1
    (run_dir,) = Path("results").iterdir()
    assert json.loads((run_dir / "cells" / "001-memory-log-lying-kill-leader-1" / "cell.json").read_text())["finished"]


def test_how_a_scenario_is_named_for_a_command(mine: str) -> None:
    assert named(locate("durability")) == named(locate("durability.toml")) == "durability"
    assert named(Path(os.path.relpath(paths.scenarios() / "durability.toml"))) == "durability"
    for given in (mine, "../elsewhere/x.toml"):
        assert named(Path(given)) == given
    assert named(Path.cwd() / mine) == mine
    assert named(Path.cwd().parent / "x.toml") == "../x.toml"


def test_a_file_of_ones_own_that_has_the_name_of_a_shipped_one(mine: str) -> None:
    for name in ("durability.toml", "durability"):
        Path(name).write_text(BROKEN)
        assert locate(named(locate(name))) == Path(name)
        assert named(Path(name)) == f"./{name}"
