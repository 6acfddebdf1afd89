"""compose/<broker>/profiles.toml → Profile: the settings and the promise of each profile of a broker.

`[image]` is the broker's own table (`version`: the one setting that changes it); each other top-level table is a
profile. `like = "other"` starts from a profile above it: its client, kind, setting tables and promise hold, and what is
given is laid over them. Every rejection names the file and the key, and what is allowed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from mqtest import paths, toml
from mqtest.errors import UsageError
from mqtest.model import Kind, Profile, Promise, Value

_IMAGE = "image"
SETTING_TABLES = ("broker", "topic", "producer", "consumer", "advanced", "feature")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Image:
    version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Profile:
    about: str
    client: str | None = None
    kind: Kind | None = None
    promise: Mapping[str, Any] = field(default_factory=dict)
    acknowledged: bool = True
    like: str | None = None
    broker: Mapping[str, Value] = field(default_factory=dict)
    topic: Mapping[str, Value] = field(default_factory=dict)
    producer: Mapping[str, Value] = field(default_factory=dict)
    consumer: Mapping[str, Value] = field(default_factory=dict)
    advanced: Mapping[str, Value] = field(default_factory=dict)
    feature: Mapping[str, Value] = field(default_factory=dict)


def profiles_file(broker: str) -> Path:
    """Where the profiles of a broker stand."""
    return paths.recipes() / broker / "profiles.toml"


def load_profiles(broker: str) -> Mapping[str, Profile]:
    """All profiles of a broker by name, in the file's order; raises UsageError."""
    return read_profiles(profiles_file(broker), broker)


def find_profile(path: str) -> Profile:
    """The profile named `broker/name`; raises UsageError that lists what there is."""
    from mqtest.brokers import BROKERS

    broker, _, name = path.partition("/")
    if broker not in BROKERS:
        raise UsageError(toml.unknown("broker", broker, list(BROKERS)))
    profiles = load_profiles(broker)
    if name not in profiles:
        raise UsageError(toml.unknown("profile", path, [p.path for p in profiles.values()]))
    return profiles[name]


def image_version(broker: str) -> str:
    """The broker version that `[image]` asks for; `embedded` for a broker without an image."""
    path = profiles_file(broker)
    tables = toml.read(path)
    if _IMAGE not in tables:
        return "embedded"
    return toml.convert(tables[_IMAGE], _Image, path, _IMAGE).version


def read_profiles(path: Path, broker: str) -> Mapping[str, Profile]:
    """The profiles in one file; raises UsageError."""
    profiles: dict[str, Profile] = {}
    for name, table in toml.read(path).items():
        if name == _IMAGE:
            continue
        if not isinstance(table, Mapping):
            raise UsageError(f"{path}: {name}: expected a table, a profile")
        asked = toml.convert(table, _Profile, path, name)
        if asked.like is not None and asked.like not in profiles:
            raise UsageError(f"{path}: {name}.like: {toml.unknown('profile', asked.like, list(profiles))}")
        profiles[name] = _overlaid(asked, profiles[asked.like] if asked.like else None, broker, name, path)
    return profiles


def _overlaid(asked: _Profile, like: Profile | None, broker: str, name: str, path: Path) -> Profile:
    """What the file says of a profile, over the profile that it is `like`; raises UsageError."""
    client, kind = asked.client or (like.client if like else ""), asked.kind or (like.kind if like else None)
    for key, value in (("client", client), ("kind", kind), ("promise", asked.promise or like)):
        if not value:
            raise UsageError(f"{path}: {name}.{key} is missing")
    assert kind is not None
    promise = {**(asdict(like.promise) if like else {}), **asked.promise}
    base = like.settings if like else {}
    return Profile(
        broker=broker,
        name=name,
        about=asked.about,
        client=client,
        kind=kind,
        acknowledged=asked.acknowledged,
        promise=toml.convert(promise, Promise, path, f"{name}.promise"),
        settings={t: {**base.get(t, {}), **getattr(asked, t)} for t in SETTING_TABLES},
    )
