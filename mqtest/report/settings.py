"""The settings of a run's profiles: one table a broker with those in which its profiles differ, and a line with those
that are the same in all. What was read back from the broker stands for what was asked; both where they differ."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from mqtest.report.blocks import plain, table
from mqtest.report.collect import JudgedCell
from mqtest.report.summary import profile_of

_NONE = ""


def settings_text(cells: Sequence[JudgedCell]) -> str:
    """Every broker's; nothing where no cell has any."""
    brokers = dict.fromkeys(str(cell.row.get("broker")) for cell in cells)
    return "\n\n".join(
        part for broker in brokers for part in _broker([c for c in cells if c.row.get("broker") == broker], broker)
    )


def in_force(cell: JudgedCell) -> Mapping[str, str]:
    """`table.key` → what the broker said, else what was asked (of the client, which says nothing)."""
    asked = {
        f"{name}.{key}": _text(value)
        for name, keys in (cell.facts.get("settings") or {}).items()
        if isinstance(keys, Mapping)
        for key, value in keys.items()
    }
    said = {name: _text(value) for name, value in (cell.facts.get("effective") or {}).items()}
    odd = {name: f"{asked[name]} → {said[name]}" for name in asked if name in said and asked[name] != said[name]}
    return asked | said | odd


def _broker(cells: Sequence[JudgedCell], broker: str) -> Iterator[str]:
    by_profile: dict[str, dict[str, str]] = {}
    for cell in cells:
        by_profile.setdefault(profile_of(cell.row), {}).update(in_force(cell))
    names = list(dict.fromkeys(name for settings in by_profile.values() for name in settings))
    rows = [(name, *(settings.get(name, _NONE) for settings in by_profile.values())) for name in names]
    differ = [row for row in rows if len(set(row[1:])) > 1]
    if differ:
        headers = [broker, *(profile.partition("/")[2] for profile in by_profile)]
        yield table(headers, differ)
    same = [f"`{row[0]}` {row[1]}" for row in rows if len(set(row[1:])) == 1]
    if same:
        yield plain(
            f"{broker}, {'the same in all' if len(by_profile) > 1 else next(iter(by_profile))}: {', '.join(same)}."
        )


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
