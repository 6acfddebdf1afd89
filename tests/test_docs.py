"""docs/ against the code: the tables of keys, faults and promises are what scenario files and profiles say.

Where a table is wrong the test shows the right one: copy it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest

from mqtest.brokers import BROKERS
from mqtest.faults import FAULTS, Action
from mqtest.profile import load_profiles
from mqtest.schema import scenario_schema
from mqtest.targets import PROCESSORS, TARGETS, WORKERS
from mqtest.verdict import covers
from tests.pages_of_docs import ROOT

DOCS = ROOT / "docs"
KEYS = ("key", "default", "meaning")
TABLES = ("workload", "phases", "search", "replay")
"""of a scenario; each has a heading of its own"""
TOLD = ("kill:leader", "kill:all", "pause:leader", "partition:leader", "power-cut:leader", "power-cut:all")
"""faults in the tables of promises"""
WITH_PAGES = [broker for broker in BROKERS if broker != "memory"]

Row = Sequence[str]


def table(headers: Row, rows: Iterable[Row]) -> str:
    """As Markdown."""
    lines = [headers, ["---"] * len(headers), *rows]
    return "\n".join(f"| {' | '.join(cells)} |".replace("| --- ", "|---").replace("--- |", "---|") for cells in lines)


def under(page: Path, heading: str) -> str:
    """The first table below a heading."""
    text = page.read_text(encoding="utf-8")
    _, found, rest = text.partition(f"\n{heading}\n")
    assert found, f"{page.name} has no heading {heading!r}"
    below = re.search(r"^\|.*?(?=\n(?!\|))", rest, re.M | re.S)
    assert below, f"no table below {heading!r}"
    return below[0]


def keys_of(schema: dict[str, Any], leave_out: Sequence[str] = ()) -> str:
    """A table of the schema; other tables in it stand elsewhere."""
    needed = schema.get("required", ())
    rows = [
        (f"`{name}`", "needed" if name in needed else default(key), meaning(key))
        for name, key in schema["properties"].items()
        if name not in leave_out
    ]
    return table(KEYS, rows)


def default(key: dict[str, Any]) -> str:
    """As it stands in TOML."""
    value = key.get("default")
    return "–" if value is None or value == {} else f"`{as_toml(value)}`"


def as_toml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(as_toml, value))}]"
    return f'"{value}"' if isinstance(value, str) else f"{value:g}" if isinstance(value, float) else str(value)


def meaning(key: dict[str, Any]) -> str:
    """What the schema says of it, with the values that it may have."""
    text = str(key["description"])
    choices = [f"`{value}`" for value in key.get("enum", ())]
    return text if len(choices) > 9 or all(choice in text for choice in choices) else f"{text}: {', '.join(choices)}"


def targets_of(action: Action) -> str:
    nodes = [target for target in TARGETS if target not in (*WORKERS, *PROCESSORS)]
    missing = [f"`{target}`" for target in nodes if target not in action.targets]
    hit = "any node" + (f" but {', '.join(missing)}" if missing else "")
    more = ((WORKERS, ", and our workers"), (PROCESSORS, ", and parts of Flink"))
    return hit + "".join(words for names, words in more if set(names) & set(action.targets))


def settings_of(action: Action) -> str:
    return ", ".join(f"`{name} = {as_toml(value)}`" for name, value in action.settings.items()) or "–"


def promises_of(broker: str) -> str:
    """Under which of the faults that are told each profile keeps what it acknowledged, by its promise."""
    rows = []
    for profile in load_profiles(broker).values():
        promise = profile.promise
        held = ["yes" if covers(promise, fault, 3) else "–" for fault in TOLD]
        rows.append((f"`{profile.name}`", *held, promise.duplicates, promise.order))
    return table(("profile", *(f"`{fault}`" for fault in TOLD), "duplicates", "order"), rows)


def test_the_keys_of_a_scenario() -> None:
    page, schema = DOCS / "scenarios.md", scenario_schema()
    keys = schema["properties"]
    schedule = keys["schedule"]["additionalProperties"]
    assert under(page, "## All keys") == keys_of(schema, [*TABLES, "schedule", "settings"])
    for name in TABLES:
        assert under(page, f"### `[{name}]`") == keys_of(keys[name])
    assert under(page, "### `[schedule.NAME]`") == keys_of(schedule)
    assert under(page, "#### An entry of `steps`") == keys_of(schedule["properties"]["steps"]["items"])


def test_the_faults() -> None:
    rows = [(f"`{name}`", row.about, targets_of(row), settings_of(row)) for name, row in FAULTS.items()]
    headers = ("action", "what it does", "targets", "its numbers")
    assert under(DOCS / "scenarios.md", "## Faults") == table(headers, rows)


def test_every_target_is_told() -> None:
    told = re.findall(r"^\| `(\w+)` \|", under(DOCS / "scenarios.md", "## Targets"), re.M)
    assert set(told) == set(TARGETS)


@pytest.mark.parametrize("broker", WITH_PAGES)
def test_what_each_profile_promises(broker: str) -> None:
    assert under(DOCS / f"{broker}.md", "## What each profile promises") == promises_of(broker)


@pytest.mark.parametrize("broker", WITH_PAGES)
def test_the_rule_behind_every_profile_is_told(broker: str) -> None:
    told = re.findall(r"^\| `([\w-]+)` \|", under(DOCS / f"{broker}.md", "## By which rule"), re.M)
    assert set(told) == set(load_profiles(broker))
