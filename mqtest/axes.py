"""What a scenario varies, and what a command line sets: values in place of those in the file.

A key is one of
    workload.<key>, phases.<key>, schedule.<name>.<key>, nodes, fs, …    as it stands in a scenario file
    broker.<key>, topic.<key>, producer.<key>, consumer.<key>            a setting of every profile, in the broker's own
                                                                         name, which may have dots itself
`[vary]` takes a list for each key, and the scenario is run with every combination; `--set KEY=VALUE` takes one value.

A profile whose settings were changed promises nothing but what holds without a fault: its promise was for the settings
that it had. A loss under it is no surprise, whatever the new settings are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

from mqtest import toml
from mqtest.errors import UsageError
from mqtest.model import NO_FAULT, Duplicates, Order, Profile, Promise, Value
from mqtest.profile import SETTING_TABLES

_VARY = "vary"


def combinations(vary: Mapping[str, Sequence[Value]], path: Path) -> list[Mapping[str, Value]]:
    """Every combination of the values, one empty one when nothing varies; raises UsageError for a list without any."""
    for key, values in vary.items():
        if not values or len(set(map(str, values))) < len(values):
            raise UsageError(f"{path}: vary.{key}: a list of different values is wanted, at least one")
    return [dict(zip(vary, values, strict=True)) for values in product(*vary.values())]


def of_scenario(values: Mapping[str, Value]) -> dict[str, Value]:
    """Those that stand in a scenario file, and not in a profile."""
    return {key: value for key, value in values.items() if not _is_setting(key)}


def overlaid(table: Mapping[str, Any], values: Mapping[str, Value], path: Path) -> dict[str, Any]:
    """A scenario's tables with these values in place; a setting of profiles becomes an axis with one value."""
    result = {key: dict(value) if isinstance(value, Mapping) else value for key, value in table.items()}
    for key, value in values.items():
        if _is_setting(key):
            result.setdefault(_VARY, {})[key] = [value]
            continue
        *tables, last = key.split(".")
        at = result
        for name in tables:
            inner = at.get(name, {})
            if not isinstance(inner, Mapping):
                raise UsageError(f"{path}: {key}: {name} is no table")
            at[name] = dict(inner)
            at = at[name]
        at[last] = value
    return result


def with_settings(profiles: Sequence[Profile], values: Mapping[str, Value], path: Path) -> tuple[Profile, ...]:
    """The profiles with those of the values that are settings; raises UsageError for profiles of several brokers."""
    chosen = {key: value for key, value in values.items() if _is_setting(key)}
    brokers = dict.fromkeys(profile.broker for profile in profiles)
    if chosen and len(brokers) > 1:
        raise UsageError(
            f"{path}: vary.{next(iter(chosen))}: a setting has its name from one broker, and these profiles are of "
            f"{', '.join(brokers)}"
        )
    return tuple(_with_settings(profile, chosen) if chosen else profile for profile in profiles)


def parse(text: str, is_text: Callable[[str], bool]) -> tuple[str, Value]:
    """`KEY=VALUE` of a command line; a value is read as TOML where it is some, else as text. Where only text `is_text`
    of the key, a value without quotes stays as it was written (`4.10` is a version). Raises UsageError."""
    key, equals, value = text.partition("=")
    key = key.strip()
    if not equals or not key:
        raise UsageError(f"--set {text}: KEY=VALUE is wanted, such as workload.rate_per_s=500")
    read = toml.value_of(value)
    return key, value if is_text(key) and not isinstance(read, str) else read


def _is_setting(key: str) -> bool:
    table, dot, _ = key.partition(".")
    return bool(dot) and table in SETTING_TABLES


def _with_settings(profile: Profile, values: Mapping[str, Value]) -> Profile:
    settings = {table: dict(keys) for table, keys in profile.settings.items()}
    for key, value in values.items():
        table, _, name = key.partition(".")
        settings.setdefault(table, {})[name] = value
    changed = ", ".join(f"{key}={value}" for key, value in values.items())
    promise = Promise(
        survives=(str(NO_FAULT),),
        duplicates=Duplicates.ANY,
        order=Order.NONE,
        source=f"{profile.name} with {changed}: nobody's promise",
    )
    return replace(profile, name=f"{profile.name}[{changed}]", settings=settings, promise=promise)
