"""TOML files → frozen dataclasses. A rejection is one line with file, key, and what is allowed.

Keys are checked here, recursively, because a misspelt key must never be ignored; types are converted by msgspec.
"""

from __future__ import annotations

import difflib
import json
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

import msgspec

from mqtest.errors import UsageError

T = TypeVar("T")


def read(path: Path) -> dict[str, Any]:
    """The tables of a TOML file; raises UsageError, with the line of a syntax error."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: {error}") from error


def convert(table: Mapping[str, Any], kind: type[T], path: Path, at: str = "") -> T:
    """`table` as the dataclass `kind`; `at` is where the table stands in the file ("" for its top level)."""
    _check_keys(table, kind, path, at)
    try:
        return msgspec.convert(table, kind)
    except msgspec.ValidationError as error:
        what, _, where = str(error).partition(" - at `$")
        key = re.sub(r"^\.", "", where.rstrip("`"))
        missing = re.match(r"Object missing required field `(\w+)`", what)
        if missing:
            raise UsageError(f"{path}: {_join(at, _join(key, missing[1]))} is missing") from error
        raise UsageError(f"{path}: {_join(at, key)}: {what[0].lower()}{what[1:].replace('`', '')}") from error


def value_of(text: str) -> Any:
    """A value by itself, as on a command line: read as TOML where it is some, else the text."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def text_of(value: Any) -> str:
    """What value_of() reads as this value: a text as it is where that will do, else as TOML."""
    if isinstance(value, str) and value_of(value) == value:
        return value
    return _as_toml(value)


def is_text(kind: Any, key: str) -> bool:
    """Whether the value of a dotted key of the dataclass `kind` can be nothing but text."""
    for name in key.split("."):
        tables = [table for table in _kinds(kind) if is_dataclass(table) or get_origin(table) is Mapping]
        if len(tables) != 1:
            return False
        kind = get_type_hints(tables[0]).get(name) if is_dataclass(tables[0]) else get_args(tables[0])[1]
    return all(isinstance(one, type) and issubclass(one, str) for one in _kinds(kind))


def _kinds(hint: Any) -> list[Any]:
    """The types that a value of this hint may have, but for being absent."""
    return [kind for kind in (get_args(hint) if isinstance(hint, UnionType) else (hint,)) if kind is not NoneType]


def _as_toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{', '.join(map(_as_toml, value))}]"
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{_as_toml(key)} = {_as_toml(inner)}' for key, inner in value.items())}}}"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else str(value)


def unknown(what: str, name: str, allowed: list[str]) -> str:
    """The text for a name that is not in a set: what it is close to, and what is allowed."""
    return f"{what} {name!r} is not known{near(name, allowed)}; allowed: {', '.join(allowed)}"


def near(name: str, allowed: Iterable[str]) -> str:
    """` (did you mean 'x'?)`, or nothing where none of them is close."""
    close = difflib.get_close_matches(name, list(allowed), 1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def _check_keys(table: Mapping[str, Any], kind: type, path: Path, at: str) -> None:
    allowed = [f.name for f in fields(kind)]
    hints = get_type_hints(kind)
    for key, value in table.items():
        if key not in allowed:
            raise UsageError(f"{path}: {unknown('key', _join(at, key), [_join(at, a) for a in allowed])}")
        _check_within(value, hints[key], path, _join(at, key))


def _check_within(value: Any, hint: Any, path: Path, at: str) -> None:
    """The keys of the tables in a value: itself, one that may be absent, or those of a list."""
    if isinstance(value, list):
        for number, entry in enumerate(value):
            for inner in get_args(hint):
                _check_within(entry, inner, path, f"{at}[{number}]")
    elif isinstance(value, Mapping):
        for kind in (hint, *get_args(hint)) if get_origin(hint) in (None, UnionType) else ():
            if is_dataclass(kind) and isinstance(kind, type):
                _check_keys(value, kind, path, at)


def _join(at: str, key: str) -> str:
    return f"{at}.{key}" if at and key else at or key
