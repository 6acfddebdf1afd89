"""compose/<broker>/profiles.toml → Profile: the settings and the promise of each profile of a broker.

`[image]` is the broker's own table (`version`: the one setting that changes it); each other top-level table is a
profile. `like = "other"` starts from a profile above it: its setting tables are overlaid, and its promise holds unless
one is given. Every rejection names the file and the key, and what is allowed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mqtest import paths, toml
from mqtest.errors import UsageError
from mqtest.model import Kind, Profile, Promise, Value

_IMAGE = "image"
SETTING_TABLES = ("broker", "topic", "producer", "consumer", "advanced")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Image:
    version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Profile:
    about: str
    client: str
    kind: Kind
    promise: Promise | None = None
    acknowledged: bool = True
    like: str | None = None
    broker: Mapping[str, Value] = field(default_factory=dict)
    topic: Mapping[str, Value] = field(default_factory=dict)
    producer: Mapping[str, Value] = field(default_factory=dict)
    consumer: Mapping[str, Value] = field(default_factory=dict)
    advanced: Mapping[str, Value] = field(default_factory=dict)


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
        like = profiles[asked.like] if asked.like else None
        base = like.settings if like else {}
        promise = asked.promise or (like.promise if like else None)
        if promise is None:
            raise UsageError(f"{path}: {name}.promise is missing")
        profiles[name] = Profile(
            broker=broker,
            name=name,
            about=asked.about,
            client=asked.client,
            kind=asked.kind,
            acknowledged=asked.acknowledged,
            promise=promise,
            settings={t: {**base.get(t, {}), **getattr(asked, t)} for t in SETTING_TABLES},
        )
    return profiles
