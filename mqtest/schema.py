"""The JSON Schema of a scenario file, for editors that complete and check TOML. `mqtest schema` prints it.

Everything comes from where the file is read: the keys, types and defaults from the dataclasses that it is converted to
(scenario.File and those inside it), what a key means from the docstring below it, names from the tables that make them
so (profiles.toml, FAULTS, BROKERS). Numbers have no bounds here: scenario.load() has those, and what two keys have to
do with each other.

The form is Draft 4, without references: what taplo, which most editors use for TOML, reads.
"""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import msgspec

from mqtest.brokers import BROKERS
from mqtest.faults import FAULTS, Action
from mqtest.model import NO_FAULT, Phases, Replay, Search, Workload
from mqtest.profile import load_profiles
from mqtest.scenario import FILESYSTEMS, File
from mqtest.schedule import ScheduleTable, StepTable

Schema = dict[str, Any]

_KINDS = (File, Workload, Phases, Search, Replay, ScheduleTable, StepTable)


def scenario_schema() -> Schema:
    """Of a scenario file; raises UsageError for a profiles.toml that is wrong."""
    _, parts = msgspec.json.schema_components(_KINDS)
    described = {kind.__name__: _described(parts[kind.__name__], descriptions(kind)) for kind in _KINDS}
    whole: Schema = _plain(described["File"], {**parts, **described})
    keys = whole["properties"]
    steps = [f"{action}:{target}" for action, row in FAULTS.items() for target in row.targets]
    schedule = _plain(described["ScheduleTable"], {**parts, **described})
    schedule["properties"]["steps"]["items"]["properties"]["do"]["enum"] = steps
    schedule["properties"]["draw"]["items"] = {"type": "string", "enum": steps}
    keys["profiles"]["items"]["enum"] = [p.path for broker in BROKERS for p in load_profiles(broker).values()]
    keys["faults"]["items"] = keys["must_lose"]["items"] = _fault(steps)
    keys["fs"]["enum"] = list(FILESYSTEMS)
    keys["version"] |= _table({broker: {"type": "string"} for broker in BROKERS})
    keys["schedule"]["additionalProperties"] = schedule
    keys["settings"] |= _table({action: _settings(row) for action, row in FAULTS.items() if row.settings})
    head = {"$schema": "http://json-schema.org/draft-04/schema#", "title": "a scenario of mqtest"}
    return head | whole


def descriptions(kind: type) -> Mapping[str, str]:
    """Field → the docstring below it, in one line, of a dataclass."""
    (tree,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    body = tree.body if isinstance(tree, ast.ClassDef) else []
    found = {}
    for field, below in pairwise(body):
        text = isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant) and below.value.value
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(text, str):
            found[field.target.id] = " ".join(text.split())
    return found


def _described(schema: Schema, texts: Mapping[str, str]) -> Schema:
    """A table that has no other keys than these, each with what it means."""
    keys = {name: {**value, "description": texts[name]} for name, value in schema["properties"].items()}
    required = {"required": schema["required"]} if schema["required"] else {}
    return {**_table(keys), **required}


def _table(keys: Schema) -> Schema:
    return {"type": "object", "properties": keys, "additionalProperties": False}


def _plain(schema: Schema, parts: Mapping[str, Schema]) -> Schema:
    """The schema with everything in place of its name, and without null, which TOML has not."""
    if "$ref" in schema:
        within = _plain(parts[schema["$ref"].rpartition("/")[2]], parts)
        return {key: value for key, value in within.items() if key not in ("title", "description")} | {
            key: value for key, value in schema.items() if key != "$ref"
        }
    if "anyOf" in schema:
        kinds = [_plain(kind, parts) for kind in schema["anyOf"] if kind != {"type": "null"}]
        rest = {key: value for key, value in schema.items() if key != "anyOf" and value is not None}
        return rest | (kinds[0] if len(kinds) == 1 else {"anyOf": kinds}) | rest
    plain = dict(schema)
    if "properties" in plain:
        plain["properties"] = {name: _plain(value, parts) for name, value in plain["properties"].items()}
    for inner in ("items", "additionalProperties"):
        if isinstance(plain.get(inner), Mapping):
            plain[inner] = _plain(plain[inner], parts)
    return plain


def _fault(steps: list[str]) -> Schema:
    """One by name; or several joined by `+`; or a schedule's name, which has neither `:` nor `+`."""
    one = f"({'|'.join(map(re.escape, steps))})"
    return {
        "anyOf": [
            {"type": "string", "enum": [str(NO_FAULT), *steps]},
            {"type": "string", "pattern": rf"^{one}(\+{one})+$"},
            {"type": "string", "pattern": "^[^:+]+$"},
        ]
    }


def _settings(action: Action) -> Schema:
    """The numbers of an action, with their defaults and, of those that are none, what they may be."""
    keys = {}
    for name, value in action.settings.items():
        choices = {"enum": list(action.choices[name])} if name in action.choices else {}
        keys[name] = {"type": "string" if isinstance(value, str) else "number", **choices, "default": value}
    return {**_table(keys), "description": action.about}
