"""A selection as Markdown, JSON and CSV, one function each. JSON and CSV have every need of every profile, Markdown
those that decided it; all of them have all cells that prove it."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from mqtest.report.blocks import bullets, code, plain, section, table
from mqtest.report.summary import NOT_MEASURED
from mqtest.select.judging import Judged, Result
from mqtest.select.screen import cells_text, notes, proof
from mqtest.select.selection import Selection, Standing, Weighed

_COLUMNS = (
    "profile", "standing", "rank", "need", "result", "met", "of", "missed_at_most", "lowest", "highest", "worst",
    "missed_by", "why", "cells",
)  # fmt: skip
_HEADINGS = {
    Standing.QUALIFIES: "Qualify",
    Standing.FAILS: "Fail",
    Standing.NOT_MEASURED: "Could not be told",
}

_DECIDES = {
    Standing.QUALIFIES: Result.MET,
    Standing.FAILS: Result.MISSED,
    Standing.NOT_MEASURED: Result.NOT_MEASURED,
}
"""the result of the needs that make the standing"""


def markdown_text(selection: Selection) -> str:
    """The needs, a table for each standing, and what is not proven."""
    ranked = list(_ranked(selection))
    parts = [
        "# Which profiles meet these needs",
        bullets([str(need) for need in selection.requirements.needs]),
        f"{selection.cells} cells of {', '.join(map(code, selection.runs)) or 'no run'}.",
        *(
            section(f"## {heading}", _table([(r, one) for r, one in ranked if one.standing is standing], selection))
            or (f"## {heading}\n\nNone." if standing is Standing.QUALIFIES else "")
            for standing, heading in _HEADINGS.items()
        ),
        section("## The order", bullets(list(_order(selection)))),
        section("## Beware", bullets([f"{one.name}: {line}" for _, one in ranked for line in _beware(one)])),
        section("## What this does not prove", bullets(notes(selection))),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def json_text(selection: Selection) -> str:
    """One object."""
    return json.dumps(record(selection), indent=1, ensure_ascii=False) + "\n"


def csv_text(selection: Selection) -> str:
    """A row a profile and need; an empty field means not measured, or not there."""
    out = io.StringIO()
    writer = csv.DictWriter(out, _COLUMNS, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    for profile in record(selection)["profiles"]:
        for need in profile["needs"]:
            writer.writerow({**profile, **need, "cells": " ".join(need["cells"])})
    return out.getvalue()


def record(selection: Selection) -> dict[str, Any]:
    """Everything, as plain values."""
    asked = selection.requirements
    return {
        "needs": [str(need) for need in asked.needs],
        "prefer": list(asked.prefer),
        "cells_wanted": asked.cells or 1,
        "runs": list(selection.runs),
        "cells": selection.cells,
        "exit_code": selection.exit_code,
        "profiles": [_profile(rank, one, selection) for rank, one in _ranked(selection)],
        "not_proven": list(selection.notes),
    }


def _profile(rank: int | None, one: Weighed, selection: Selection) -> dict[str, Any]:
    return {
        "profile": one.name,
        "standing": one.standing,
        "rank": rank,
        "compared": {under.preference: under.values.get(one.name) for under in selection.compared if rank},
        "beware": list(one.beware),
        "needs": [_need(found) for found in one.needs],
    }


def _need(found: Judged) -> dict[str, Any]:
    """`cells` are those that prove the result; `silent` those that it is about and that say nothing, with why."""
    words, readings = proof(found)
    low, high = found.range or (None, None)
    return {
        "need": str(found.need),
        "result": found.result,
        "met": len(found.meeting),
        "of": found.speaking,
        "missed_at_most": found.bound,
        "lowest": low,
        "highest": high,
        "worst": found.missing[0].value if found.missing else None,
        "missed_by": found.by,
        "why": words,
        "cells": [reading.cell for reading in readings],
        "silent": {reading.cell: reading.why for reading in found.readings if reading.met is None},
    }


def _ranked(selection: Selection) -> Iterator[tuple[int | None, Weighed]]:
    """All of them, the best first, with the rank of those that qualify."""
    yield from enumerate(selection.qualifying, 1)
    for one in (*selection.failing, *selection.unmeasured):
        yield None, one


def _table(ranked: list[tuple[int | None, Weighed]], selection: Selection) -> str:
    rows = []
    for rank, one in ranked:
        for found in one.of(_DECIDES[one.standing]):
            words, readings = proof(found)
            name = one.name if rank is None else f"{rank}. {one.name}"
            which = cells_text(readings, selection, most=len(readings)) or NOT_MEASURED
            rows.append((name, str(found.need), words, which))
    return table(("profile", "need", "what was measured", "cells"), rows) if rows else ""


def _order(selection: Selection) -> Iterator[str]:
    for under in selection.compared:
        for one in selection.qualifying:
            yield f"{under.preference}, {one.name}: {under.words(one.name)}"


def _beware(one: Weighed) -> tuple[str, ...]:
    return tuple(map(plain, one.beware)) if one.standing is Standing.QUALIFIES else ()


FORMATS: Mapping[str, Callable[[Selection], str]] = {"markdown": markdown_text, "json": json_text, "csv": csv_text}
