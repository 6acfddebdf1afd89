"""A comparison → text, Markdown or JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping

from mqtest.report.blocks import bullets, code, cut, plain, section
from mqtest.report.compare import Comparison, Weight

_HEADINGS = {
    Weight.WORSE: "Worse",
    Weight.DIFFERS: "Versions and settings that differ",
    Weight.NOT_COMPARED: "Could not be compared",
    Weight.BETTER: "Better",
    Weight.NOTE: "Told, and no more",
}


def plain_text(comparison: Comparison) -> str:
    """A line for each change, the gravest first, and one that sums up."""
    width = max(len(weight) for weight in Weight)
    lines = [f"{change.weight.ljust(width)}  {' '.join(change.line.split())}" for change in comparison.changes]
    return "".join(f"{line}\n" for line in [*lines, summary(comparison)])


def markdown_text(comparison: Comparison) -> str:
    """For a job's summary: under 1 MB, each list cut where it gets long."""
    parts = [f"# {_HEADLINE[comparison.exit_code]}", plain(summary(comparison))]
    for weight, heading in _HEADINGS.items():
        lines = [
            f"{plain(change.line)}" + (f"; again: {code(change.replay)}" if change.replay else "")
            for change in comparison.of(weight)
        ]
        parts.append(section(f"## {heading}", bullets(lines)))
    return cut("\n\n".join(part for part in parts if part) + "\n", "what `mqtest compare` prints")


def json_text(comparison: Comparison) -> str:
    """For scripts."""
    record = {
        "old": comparison.old,
        "new": comparison.new,
        "exit_code": comparison.exit_code,
        "compared": comparison.compared,
        "changes": [
            {
                "weight": change.weight,
                "where": change.where,
                "what": change.what,
                "column": change.column,
                "cells": [{"run": row.get("run"), "cell": row.get("cell")} for row in change.rows],
                "replay": change.replay,
            }
            for change in comparison.changes
        ],
    }
    return json.dumps(record, indent=1, ensure_ascii=False) + "\n"


def summary(comparison: Comparison) -> str:
    """`63 groups compared: 2 worse, 1 better. OLD is …, NEW is …`."""
    counted = [(weight, len(comparison.of(weight))) for weight in Weight]
    said = ", ".join(f"{number} {weight}" for weight, number in counted if number) or "nothing to tell"
    groups = "1 group" if comparison.compared == 1 else f"{comparison.compared} groups"
    return f"{groups} compared: {said} (OLD {comparison.old}, NEW {comparison.new})"


FORMATS: Mapping[str, Callable[[Comparison], str]] = {
    "text": plain_text,
    "markdown": markdown_text,
    "json": json_text,
}
_HEADLINE = {0: "Nothing got worse", 1: "Something got worse, or differs", 2: "Not everything could be compared"}
