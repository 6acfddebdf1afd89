"""results.csv: one row a cell, for spreadsheets and scripts.

First the columns that judge.COLUMNS fixes, in that order; then whatever else some row has; then what the cell was
run with, flattened: asked and effective settings, workload, phases, search, disks, versions, image, host, usage. The
columns are the union over all cells, in an order that depends on their names alone. An empty field means not measured,
or not there; never 0.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mqtest.judge import COLUMNS
from mqtest.report.collect import JudgedCell

_FACTS = (
    "settings",
    "effective",
    "workload",
    "phases",
    "search",
    "floor",
    "fs",
    "disk_mb",
    "versions",
    "image",
    "host",
    "usage",
)
"""what of cell.json goes into the table, in this order"""


def csv_text(cells: Sequence[JudgedCell]) -> str:
    """The whole file; lines end in a newline."""
    full = [{**cell.row, **_facts(cell.facts)} for cell in cells]
    columns = _columns(full)
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([_field(row.get(column)) for column in columns] for row in full)
    return out.getvalue()


def _columns(rows: Iterable[Mapping[str, object]]) -> list[str]:
    names = {name for row in rows for name in row}
    extra = sorted(names - set(COLUMNS), key=lambda name: (_rank(name), name))
    return [*COLUMNS, *extra]


def _rank(name: str) -> int:
    """Columns that judge added beyond COLUMNS come first (-1), then the facts in the order of _FACTS."""
    table = name.partition(".")[0]
    return _FACTS.index(table) if table in _FACTS else -1


def _facts(facts: Mapping[str, Any]) -> dict[str, object]:
    flat: dict[str, object] = {}
    for table in _FACTS:
        value = facts.get(table)
        if value is not None:
            _flatten(table, value, flat)
    return flat


def _flatten(name: str, value: object, into: dict[str, object]) -> None:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            _flatten(f"{name}.{key}", inner, into)
    else:
        into[name] = value


def _field(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return repr(round(value, 6))
    if isinstance(value, list | tuple):
        return json.dumps(value)
    return str(value)
