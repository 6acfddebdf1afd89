"""The schema of a scenario file: what ships is valid, what mqtest refuses by its keys and names is not."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft4Validator

from mqtest import paths
from mqtest.cli import main
from mqtest.errors import UsageError
from mqtest.scenario import load
from mqtest.schema import descriptions, scenario_schema

SCHEMA = scenario_schema()
GOOD = """
title = "t"
question = "q?"
profiles = ["memory/log-safe"]
faults = ["none", "kill:leader", "kill:one+pause:all", "s", "d"]
fs = "xfs"
[workload]
rate_per_s = 100
consume = "live"
[phases]
steady_s = 1
[schedule.s]
steps = [{ do = "pause:one", for_s = 3 }, { do = "kill:same", at_s = 1.5 }]
[schedule.d]
draw = ["kill:leader"]
every_s = 5
[settings.clock-jump]
seconds = 60
[vary]
"broker.fsync" = [true, false]
"""


def wrong(text: str) -> list[str]:
    """What the schema has against a scenario: where, and why."""
    found = Draft4Validator(SCHEMA).iter_errors(tomllib.loads(text))
    return [f"{'.'.join(map(str, error.path))}: {error.message}" for error in found]


def tables(schema: dict[str, Any], at: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every key of the schema by its path, `schedule.*.steps[].do` among them."""
    for name, value in schema.get("properties", {}).items():
        yield f"{at}{name}", value
        yield from tables(value, f"{at}{name}.")
    for inner, mark in (("items", "[]"), ("additionalProperties", "*")):
        if isinstance(schema.get(inner), dict):
            yield from tables(schema[inner], f"{at.removesuffix('.')}{mark}." if mark == "[]" else f"{at}{mark}.")


def test_it_is_a_schema() -> None:
    Draft4Validator.check_schema(SCHEMA)
    assert "$ref" not in json.dumps(SCHEMA)


@pytest.mark.parametrize("path", sorted(paths.scenarios().glob("*.toml")), ids=lambda path: path.stem)
def test_every_scenario_that_ships_is_valid(path: Path) -> None:
    assert wrong(path.read_text(encoding="utf-8")) == []


def test_a_good_one_is_valid_and_loads(tmp_path: Path) -> None:
    assert wrong(GOOD) == []
    (tmp_path / "x.toml").write_text(GOOD)
    load(tmp_path / "x.toml")


@pytest.mark.parametrize(
    ("before", "after", "where"),
    [
        ("question", "qestion", ""),
        ('title = "t"', "", ""),
        ('title = "t"', "title = 1", "title"),
        ('"memory/log-safe"', '"memory/log-saef"', "profiles.0"),
        ('"none"', '"kil:leader"', "faults.0"),
        ('"none"', '"kill:leadr"', "faults.0"),
        ('"kill:one+pause:all"', '"kill:one+pause"', "faults.2"),
        ('fs = "xfs"', 'fs = "ntfs"', "fs"),
        ("rate_per_s", "rate_s", "workload"),
        ("= 100", '= "fast"', "workload.rate_per_s"),
        ('"live"', '"never"', "workload.consume"),
        ("steady_s", "staedy_s", "phases"),
        ("for_s", "fro_s", "schedule.s.steps.0"),
        ("kill:same", "kill:sam", "schedule.s.steps.1.do"),
        ("every_s", "evrey_s", "schedule.d"),
        ("seconds = 60", "minutes = 1", "settings.clock-jump"),
        ("[settings.clock-jump]", "[settings.clock]", "settings"),
    ],
)
def test_what_is_wrong_is_found_where_mqtest_finds_it(tmp_path: Path, before: str, after: str, where: str) -> None:
    assert before in GOOD
    text = GOOD.replace(before, after, 1)
    assert [line.partition(": ")[0] for line in wrong(text)] in ([where], [where, where])
    (tmp_path / "x.toml").write_text(text)
    with pytest.raises(UsageError):
        load(tmp_path / "x.toml")


def test_every_key_says_what_it_means() -> None:
    settings_and_versions = ("settings.", "version.")
    keys = {path: value for path, value in tables(SCHEMA) if not path.startswith(settings_and_versions)}
    assert {"title", "workload.rate_per_s", "schedule.*.steps[].do", "search.at", "phases.hold_s"} <= keys.keys()
    assert [path for path, value in keys.items() if not value.get("description")] == []
    assert keys["phases.hold_s"]["default"] == 6.0
    assert keys["workload.rate_per_s"]["type"] == "number"


def test_a_description_is_the_docstring_below_its_field() -> None:
    assert descriptions(_Example) == {"one": "what it is, over two lines"}


class _Example:
    """Not of a field."""

    one: int = 1
    """what it is,
    over two lines"""
    two: int = 2


def test_the_command_prints_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads(json.dumps(SCHEMA))
