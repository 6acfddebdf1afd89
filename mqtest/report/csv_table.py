"""results.csv: one row a cell, for spreadsheets and scripts; and read again, where only that is left of a run.

First the columns that judge.COLUMNS fixes, in that order; then whatever else some row has; then what the cell was run
with, flattened: asked and effective settings, workload, phases, search, replay, disks, versions, image, host and usage.
The columns are the union over all cells, in an order that depends on their names alone. An empty field means not
measured, or not there; never 0. `rows_of` reads it back: what is left out there is None. results.parquet has the same
rows: text where there is text (so of all that the cell was run with), whole numbers of what is counted, and floating
ones of what has a unit of time or is a rate.
"""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mqtest.errors import UsageError
from mqtest.judge import COLUMNS
from mqtest.model import Verdict
from mqtest.report.collect import JudgedCell

TABLE = "results.csv"
_FACTS = (
    "settings",
    "effective",
    "workload",
    "phases",
    "search",
    "replay",
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
_TEXT = ("run", "cell", "broker", "broker_version", "client", "profile", "varied", "kind", "fault", "target", "verdict",
         "reason")  # fmt: skip
_YES_OR_NO = ("audit_complete", "fault_bit")
_WITH_UNIT = re.compile(r"_(s|ms|us|ppm|cores|per)(_|$)")
"""names of COLUMNS that are no whole numbers"""


def csv_text(cells: Sequence[JudgedCell]) -> str:
    """The whole file; lines end in a newline."""
    columns, full = _table(cells)
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([_field(row.get(column)) for column in columns] for row in full)
    return out.getvalue()


def parquet_bytes(cells: Sequence[JudgedCell]) -> bytes:
    """The same table as a Parquet file; the types of its columns depend on their names alone."""
    import pyarrow
    from pyarrow import parquet

    kinds = {"text": pyarrow.string(), "flag": pyarrow.bool_(), "whole": pyarrow.int64(), "real": pyarrow.float64()}
    columns, full = _table(cells)
    arrays = []
    for column in columns:
        kind = _kind(column)
        values: list[object] = [row.get(column) for row in full]
        if kind == "text":
            values = [_field(value) or None for value in values]
        arrays.append(pyarrow.array(values, kinds[kind]))
    out = io.BytesIO()
    parquet.write_table(pyarrow.table(arrays, names=columns), out)
    return out.getvalue()


def is_bare(path: Path) -> bool:
    """Whether the folder has a table and no cells."""
    return (path / TABLE).is_file() and not (path / "cells").is_dir()


def facts_of(row: Mapping[str, object]) -> dict[str, Any]:
    """What a row says that the cell was run with, by table as in cell.json; every value as the table's text."""
    facts: dict[str, Any] = {}
    for column, value in row.items():
        table, _, key = column.partition(".")
        if value is None or table not in _FACTS:
            continue
        into, parts = facts, [table, *_keys(table, key)]
        for part in parts[:-1]:
            into = into.setdefault(part, {})
        into[parts[-1]] = value
    return facts


def read_table(path: Path) -> list[dict[str, object]]:
    """The rows of a results.csv; raises UsageError where it cannot be read, or is none of ours."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: {getattr(error, 'strerror', None) or error}") from error
    return rows_of(text, str(path))


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
    kind = _kind(column)
    if column == "verdict":
        if field not in list(Verdict):
            raise UsageError(f"{where}: verdict: {field!r} is none; allowed: {', '.join(Verdict)}")
        return Verdict(field)
    if field == "" or kind == "text":
        return field or None
    if kind == "flag" and field in ("true", "false"):
        return field == "true"
    try:
        number = int(field) if kind == "whole" else float(field)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise UsageError(f"{where}: {column}: {field!r} is no {'whole number' if kind == 'whole' else 'number'}")
    return number


def _table(cells: Sequence[JudgedCell]) -> tuple[list[str], list[dict[str, object]]]:
    """Columns and rows."""
    full = [{**cell.row, **_facts(cell.facts)} for cell in cells]
    return _columns(full), full


def _kind(column: str) -> str:
    if column not in COLUMNS or column in _TEXT:
        return "text"
    if column in _YES_OR_NO:
        return "flag"
    return "real" if _WITH_UNIT.search(column) else "whole"


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


def _keys(table: str, key: str) -> list[str]:
    """The keys that `_flatten` joined: settings are by file, and the names of both kinds of settings have dots."""
    if not key:
        return []
    if table == "effective":
        return [key]
    return key.split(".", 1) if table == "settings" else key.split(".")


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
