"""results.csv: one row a cell, for spreadsheets and scripts.

First the columns that judge.COLUMNS fixes, in that order; then whatever else some row has; then what the cell was
run with, flattened: asked and effective settings, workload, phases, search, disks, versions, image, host, usage. The
columns are the union over all cells, in an order that depends on their names alone. An empty field means not measured,
or not there; never 0. `rows_of` reads it back: what is left out there is None.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mqtest.errors import UsageError
from mqtest.judge import COLUMNS
from mqtest.model import Verdict
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
_NEEDED = ("run", "cell", "broker", "profile", "fault", "verdict")
"""a table without these columns is none of ours"""
_TEXTS = ("run", "cell", "broker", "broker_version", "client", "profile", "varied", "kind", "fault", "target", "reason")
_BOOLS = ("audit_complete", "fault_bit")


def csv_text(cells: Sequence[JudgedCell]) -> str:
    """The whole file; lines end in a newline."""
    full = [{**cell.row, **_facts(cell.facts)} for cell in cells]
    columns = _columns(full)
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([_field(row.get(column)) for column in columns] for row in full)
    return out.getvalue()


def rows_of(text: str, name: str) -> list[dict[str, object]]:
    """The rows of such a text, with figures as numbers; what cell.json said stays text. `name` is of the file, for the
    UsageError that a text which is no such table raises."""
    try:
        reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
        missing = [column for column in _NEEDED if column not in (reader.fieldnames or ())]
        if missing:
            raise UsageError(f"{name}: no results.csv of mqtest: it has no column {missing[0]}")
        return [_typed(fields, f"{name}, line {reader.line_num}") for fields in reader]
    except csv.Error as error:
        raise UsageError(f"{name}: {error}") from error


def _typed(fields: Mapping[str | Any, str | Any], where: str) -> dict[str, object]:
    if None in fields or None in fields.values():
        raise UsageError(f"{where}: not as many fields as columns")
    return {column: _value(column, field, where) for column, field in fields.items()}


def _value(column: str, field: str, where: str) -> object:
    if column == "verdict":
        if field not in list(Verdict):
            raise UsageError(f"{where}: verdict: {field!r} is none; allowed: {', '.join(Verdict)}")
        return Verdict(field)
    if field == "" or column in _TEXTS or column not in COLUMNS:
        return field or None
    if column in _BOOLS and field in ("true", "false"):
        return field == "true"
    try:
        number = int(field) if field.lstrip("-").isdecimal() else float(field)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise UsageError(f"{where}: {column}: {field!r} is no number")
    return number


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
