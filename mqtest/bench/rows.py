"""benchmarks/rows.toml → Row: what is measured on one cluster. Every rejection names the file and the key.

A row is a table; its name is what the command line takes. `set` lays other settings over the profile's, in the keys of
`--set`; `tool` has what only the broker's tool can be told.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from mqtest import axes, paths, toml
from mqtest.bench.tools import TOOLS, Tool
from mqtest.errors import UsageError
from mqtest.model import Profile, Value
from mqtest.profile import find_profile


@dataclass(frozen=True, slots=True, kw_only=True)
class _Row:
    """A table of the file."""

    about: str
    profile: str
    size_bytes: int
    window: int
    set: Mapping[str, Value] = field(default_factory=dict)
    tool: Mapping[str, Value] = field(default_factory=dict)
    nodes: int = 3
    disk_mb: int = 8192
    produce_at_least: float | None = None
    consume_at_least: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One comparison."""

    name: str
    about: str
    profile: Profile
    """with the row's own settings; what it promises without a fault, it promises with them too"""
    size_bytes: int
    window: int
    options: Mapping[str, Value]
    """the tool's, all of them"""
    nodes: int
    disk_mb: int
    """of each node; topics that are done with are removed where that frees disk"""
    targets: Mapping[str, float]
    """`produce`, `consume` → the ratio that is wanted, where one is"""

    @property
    def tool(self) -> Tool:
        """What stands beside it."""
        return TOOLS[self.profile.broker]


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """How the rows are to be measured."""

    runs: int = 5
    """of each side"""
    seconds: float = 20.0
    warm_up_s: float = 5.0
    keep_ledgers: bool = False


def shipped() -> Path:
    """The file that mqtest ships."""
    return paths.benchmarks() / "rows.toml"


def load(path: Path) -> Mapping[str, Row]:
    """All rows of a file by name, in its order; raises UsageError."""
    rows = {}
    for name, table in toml.read(path).items():
        if not isinstance(table, Mapping):
            raise UsageError(f"{path}: {name}: expected a table, a row")
        rows[name] = _row(name, table, path)
    if not rows:
        raise UsageError(f"{path}: no row")
    return rows


def chosen(rows: Mapping[str, Row], globs: Sequence[str]) -> list[Row]:
    """Those whose name matches one of the globs, all without any; raises UsageError for one that matches none."""
    for glob in globs:
        if not any(fnmatchcase(name, glob) for name in rows):
            raise UsageError(toml.unknown("row", glob, list(rows)))
    return [row for name, row in rows.items() if not globs or any(fnmatchcase(name, glob) for glob in globs)]


def _row(name: str, table: Mapping[str, Any], path: Path) -> Row:
    asked = toml.convert(table, _Row, path, name)
    try:
        profile = find_profile(asked.profile)
    except UsageError as error:
        raise UsageError(f"{path}: {name}.profile: {error}") from None
    if profile.broker not in TOOLS:
        raise UsageError(f"{path}: {name}.profile: {profile.broker} has no perf tool; allowed: {', '.join(TOOLS)}")
    if not profile.acknowledged:
        raise UsageError(f"{path}: {name}.profile: {asked.profile} has no acknowledgements to measure")
    for key in axes.of_scenario(asked.set):
        raise UsageError(f"{path}: {name}.set.{key}: no setting of a profile, such as producer.acks")
    options = TOOLS[profile.broker].options
    for key in asked.tool:
        if key not in options:
            raise UsageError(f"{path}: {name}.tool: {toml.unknown('key', key, list(options))}")
    _check_numbers(asked, path, name)
    targets = {"produce": asked.produce_at_least, "consume": asked.consume_at_least}
    return Row(
        name=name,
        about=asked.about,
        profile=replace(axes.with_settings([profile], asked.set, path)[0], promise=profile.promise),
        size_bytes=asked.size_bytes,
        window=asked.window,
        options={**options, **asked.tool},
        nodes=asked.nodes,
        disk_mb=asked.disk_mb,
        targets={work: at_least for work, at_least in targets.items() if at_least is not None},
    )


def _check_numbers(asked: _Row, path: Path, name: str) -> None:
    if not 64 <= asked.size_bytes <= 1 << 20:
        raise UsageError(f"{path}: {name}.size_bytes: must be 64 to 1048576")
    for key, least in (("window", 1), ("nodes", 1), ("disk_mb", 512)):
        if getattr(asked, key) < least:
            raise UsageError(f"{path}: {name}.{key}: must be at least {least}")
    for key in ("produce_at_least", "consume_at_least"):
        if (ratio := getattr(asked, key)) is not None and ratio <= 0:
            raise UsageError(f"{path}: {name}.{key}: must be above 0")
