"""What there is to choose from: brokers, clients, profiles, faults, targets, checks and shipped scenarios.

Everything comes from the table that makes it so (BROKERS, CLIENTS, profiles.toml, FAULTS, TARGETS, CHECKS, the
scenarios' own files); nothing is named here. For `mqtest list`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from pathlib import Path

from mqtest import faults, paths, toml
from mqtest.brokers import BROKERS, broker_module
from mqtest.checks import CHECKS
from mqtest.clients import CLIENTS, client
from mqtest.errors import UsageError
from mqtest.profile import image_version, load_profiles
from mqtest.targets import TARGETS

_OF_SCENARIOS = {"schedule": "schedules", "vary": "varies"}
"""tables of a scenario whose names tell something, and what they are"""

Entry = tuple[str, str]
"""a name, and one line about it"""


def sections() -> Iterator[tuple[str, list[Entry]]]:
    """(what, entries), in the order of a first read; raises UsageError for a profiles.toml that is wrong."""
    yield "brokers", [(name, _about_broker(name)) for name in BROKERS]
    yield "clients", [(name, _about_client(name)) for name in CLIENTS]
    yield "profiles", [(p.path, p.about) for broker in BROKERS for p in load_profiles(broker).values()]
    yield "faults", [(name, _about_fault(action)) for name, action in faults.FAULTS.items()]
    yield "targets", [(name, _about_target(name)) for name in TARGETS]
    yield "checks", [(name, _about_check(check)) for name, check in CHECKS.items()]
    yield "scenarios", [(path.stem, _about_scenario(path)) for path in sorted(paths.scenarios().glob("*.toml"))]


def _about_broker(name: str) -> str:
    lacks = broker_module(name).NO_TARGETS
    return f"{image_version(name)}; no target {', '.join(lacks)}" if lacks else image_version(name)


def _about_client(name: str) -> str:
    users = [p.path for broker in BROKERS for p in load_profiles(broker).values() if p.client == name]
    used = f"used by {', '.join(users)}" if users else "used by no profile"
    try:
        client(name)
    except UsageError as error:
        return f"{used}; {error}"
    return used


def _about_fault(action: faults.Action) -> str:
    return f"{action.about}; on {', '.join(action.targets)}" if action.targets else action.about


def _about_target(name: str) -> str:
    hit_by = [fault for fault, action in faults.FAULTS.items() if name in action.targets]
    return f"of {', '.join(hit_by)}" if hit_by else "of no fault yet"


def _about_check(check: Callable[..., object]) -> str:
    return (inspect.getdoc(check) or "").partition("\n")[0]


def _about_scenario(path: Path) -> str:
    """Its question, with its schedules and what it varies."""
    table = toml.read(path)
    more = [f"{what}: {', '.join(table[key])}" for key, what in _OF_SCENARIOS.items() if key in table]
    return "; ".join([str(table.get("question", "")), *more])
