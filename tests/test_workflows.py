"""The workflows: they parse, what they call exists, and the nightly's own shell does what its head says, on folders of
runs made by hand. That the actions do what they are for only a CI can show."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from mqtest import paths
from mqtest.cli import cli
from tests.run_dirs import make_cell, make_run

ROOT = Path(__file__).resolve().parent.parent
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
NIGHTLY = ROOT / ".github" / "workflows" / "nightly.yml"


def load(path: Path) -> dict[str, Any]:
    loaded = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert isinstance(loaded, dict)
    return loaded


def steps(workflow: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for job in workflow["jobs"].values():
        yield from job["steps"]


def words_of(script: str, program: str) -> Iterator[list[str]]:
    """The words of each call of a program in a shell script, expressions and substitutions taken as one word."""
    plain = re.sub(r"\$\{\{.*?\}\}|\$\([^)]*\)", "X", script.replace("\\\n", " "))
    for line in plain.splitlines():
        words = shlex.split(line, comments=True)
        for start, word in enumerate(words):
            if word == program:
                rest = words[start + 1 :]
                ends = [n for n, w in enumerate(rest) if w in ("||", "&&", "|", ";") or w.endswith(";")]
                yield rest[: ends[0]] if ends else rest


def complaints(words: list[str]) -> list[str]:
    """What the command line would not take of these words."""
    if words[0] not in cli.commands:
        return [f"no command {words[0]}"]
    options = [param for param in cli.commands[words[0]].params if isinstance(param, click.Option)]
    known = {name for option in options for name in option.opts}
    return [f"{words[0]} has no {word}" for word in words[1:] if word.startswith("--") and word not in known]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_what_a_workflow_calls_exists(path: Path) -> None:
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)
    workflow = load(path)
    called = 0
    for step in steps(workflow):
        assert ("run" in step) != ("uses" in step)
        assert re.fullmatch(r"[\w-]+/[\w/-]+@v\d+", step.get("uses", "a/b@v1")), "an action has a version"
        for words in words_of(step.get("run", ""), ".venv/bin/mqtest"):
            assert complaints(words) == []
            called += 1
        for words in words_of(step.get("run", ""), "make"):
            assert words[0] in targets
            called += 1
    assert called


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_what_a_workflow_refers_to_is_there(path: Path) -> None:
    workflow = load(path)
    for job in workflow["jobs"].values():
        text = yaml.safe_dump(job)
        needs = [job["needs"]] if isinstance(job.get("needs"), str) else job.get("needs", [])
        assert set(needs) <= set(workflow["jobs"])
        assert set(re.findall(r"\bneeds\.(\w+)", text)) <= set(needs)
        assert set(re.findall(r"\bsteps\.(\w+)", text)) <= {step.get("id") for step in job["steps"]}
        matrix = job.get("strategy", {}).get("matrix", {})
        for used in re.findall(r"\bmatrix\.(\w+)", text):
            assert used in matrix or all(used in entry for entry in matrix["include"])
        assert job["timeout-minutes"], "no job runs without an end"


def test_the_checks_above_see_what_is_wrong() -> None:
    script = "a || b\n.venv/bin/mqtest run $(x --y) --only \\\n  ${{ z }} || [ $? -le 2 ]"
    assert list(words_of(script, ".venv/bin/mqtest")) == [["run", "X", "--only", "X"]]
    assert complaints(["run", "x", "--onyl", "y"]) == ["run has no --onyl"]
    assert complaints(["comprae"]) == ["no command comprae"]
    assert complaints(["run", "x", "--only", "y"]) == []


def test_every_shard_of_a_scenario_that_ships_runs_once() -> None:
    found: dict[str, list[str]] = {}
    for entry in load(NIGHTLY)["jobs"]["run"]["strategy"]["matrix"]["include"]:
        found.setdefault(entry["scenario"], []).append(entry["shard"])
    assert set(found) == {"durability", "chaos"}
    for scenario, shards in found.items():
        assert (paths.scenarios() / f"{scenario}.toml").is_file()
        assert shards == [f"{number}/{len(shards)}" for number in range(1, len(shards) + 1)]


# --- the nightly's own shell


class Night:
    """What a runner of the report job has before it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.nights = 0
        (folder / ".venv" / "bin").mkdir(parents=True)
        mqtest = folder / ".venv" / "bin" / "mqtest"
        mqtest.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m mqtest "$@"\n', encoding="utf-8")
        mqtest.chmod(0o755)
        (folder / "results").mkdir()
        shutil.copytree(ROOT / "results" / "reference", folder / "results" / "reference")

    def report(self, *, accept: bool = False, shards: str = "success", **lost: int) -> int:
        """A night whose cells lost so much: the job's two scripts; returns the exit code of the second."""
        self.nights += 1
        for made in ("shards", "failures", "results/nightly"):
            shutil.rmtree(self.folder / made, ignore_errors=True)
        for number, (name, messages) in enumerate(lost.items(), 1):
            cell = f"{number:03}-{name}"
            run_dir = make_run(self.folder / "shards" / f"results-durability-{number}", f"night-{self.nights}", [cell])
            survives = ["none", "kill:all"] if name.startswith("safe") else ["none"]
            make_cell(run_dir, cell, profile=name, fault="kill:all", survives=survives, lost=messages)
        summary = str(self.folder / "summary.md")
        given = {"ACCEPT": str(accept).lower(), "SHARDS": shards, "GITHUB_STEP_SUMMARY": summary}
        scripts = [step for step in load(NIGHTLY)["jobs"]["report"]["steps"] if "mqtest" in step.get("run", "")]
        first, second = scripts
        assert self._bash(first["run"], given) == 0
        assert set(second["env"]) == {"ACCEPT", "SHARDS"}
        return self._bash(second["run"], given)

    def _bash(self, script: str, given: dict[str, str]) -> int:
        environment = {**os.environ, "PYTHONPATH": str(ROOT), **given}
        done = subprocess.run(["bash", "-e", "-c", script], cwd=self.folder, env=environment, check=False, timeout=120)
        return done.returncode

    @property
    def last_good(self) -> str:
        path = self.folder / "last-good" / "results.csv"
        return path.read_text(encoding="utf-8") if path.is_file() else ""


def test_a_good_night_is_held_against_the_next_and_a_bad_one_is_not(tmp_path: Path) -> None:
    night = Night(tmp_path)
    assert night.report(safe=0, weak=3) == 0, "the first night is good, whatever it shows"
    first = night.last_good
    assert first.count("lost-as-documented") == 1
    assert not (tmp_path / "failures").exists()

    assert night.report(safe=0, weak=3) == 0, "known losses are no news"
    assert "night-2" in (second := night.last_good)
    assert first.replace("night-1", "night-2") == second

    assert night.report(safe=2, weak=3) == 1
    assert night.last_good == second, "a night that got worse is not the next good one"
    assert [path.name for path in (tmp_path / "failures").glob("*/*")] == ["001-safe"]
    assert (tmp_path / "failures" / "night-3" / "001-safe" / "ledger" / "sends.0").is_dir()
    summary = (tmp_path / "summary.md").read_text(encoding="utf-8")
    assert "memory/safe under kill:all: verdict kept → broken" in summary
    assert "# Planted" in summary, "the report itself"

    assert night.report(safe=0, weak=3, shards="failure") == 1, "a night without all of its shards is no good one"
    assert night.last_good == second
    assert night.report(safe=2, weak=3, accept=True) == 0, "unless a person says so"
    assert "broken" in night.last_good


def test_a_night_that_lacks_what_the_last_one_proved_is_no_good_one(tmp_path: Path) -> None:
    night = Night(tmp_path)
    assert night.report(safe=0, weak=3) == 0
    first = night.last_good
    assert night.report(safe=0) == 2
    assert night.last_good == first
    assert night.report(safe=0, accept=True) == 0, "a profile that was dropped on purpose"
    assert night.report(safe=0) == 0


def test_without_a_last_good_night_the_reference_stands_beside_it(tmp_path: Path) -> None:
    night = Night(tmp_path)
    assert night.report(safe=2) == 0
    assert "kafka/acks-1 without a fault: only in OLD: kept" in (tmp_path / "summary.md").read_text(encoding="utf-8")
    assert [path.name for path in (tmp_path / "failures").glob("*/*")] == ["001-safe"], "ledgers are kept all the same"
