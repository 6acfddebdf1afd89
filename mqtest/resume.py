"""`mqtest run --resume`: what a stopped run was, and the command that finishes it.

A run is finished only as it was begun: the same scenario text and the same cells; its seed is taken over. Which cells
are finished is the runner's to say.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mqtest.errors import UsageError
from mqtest.report.collect import read_run
from mqtest.scenario import Scenario


def seed_of(run_dir: Path) -> int:
    """The seed of a stopped run; raises UsageError where the folder is none."""
    return int(_facts(run_dir)["seed"])


def refuse_another_plan(run_dir: Path, scenario: Scenario, cells: Sequence[str]) -> None:
    """Raises UsageError unless the run was of this scenario and planned exactly these cells (ids)."""
    facts = _facts(run_dir)
    before = facts.get("scenario", {})
    if before.get("asked", {}) != scenario.asked:
        raise UsageError(f"{run_dir}: that run was begun with other values of --set: give the same ones")
    if before.get("text") != scenario.text:
        raise UsageError(f"{run_dir}: that run was of another scenario, or the file was changed since")
    planned = set(facts["planned"])
    if set(cells) != planned:
        raise UsageError(
            f"{run_dir}: that run has {len(planned)} cells, {len(planned & set(cells))} of them among the {len(cells)} "
            "asked for: resume it with its own --only, --repeat and --shard"
        )


def command(asked: Mapping[str, Any], run_dir: Path) -> str:
    """The command that finishes this run: what was asked for (the parameters of `mqtest run`), with --resume."""
    words = ["mqtest", "run", asked["scenario"]]
    words += [word for glob in asked["only"] for word in ("--only", glob)]
    words += [word for pair in asked["assign"] for word in ("--set", pair)]
    words += [word for key in ("repeat", "seed") if asked[key] is not None for word in (f"--{key}", str(asked[key]))]
    words += ["--shard", "/".join(map(str, asked["shard"]))] if asked["shard"] else []
    words += ["--ray", asked["ray"]] if asked["ray"] else []
    return shlex.join([*words, "--resume", str(run_dir)])


def _facts(run_dir: Path) -> Mapping[str, Any]:
    facts = read_run(run_dir)
    for key in ("seed", "planned"):
        if key not in facts:
            raise UsageError(f"{run_dir}/run.json: {key} is missing")
    return facts
