"""scenarios/x.toml → Scenario, typed and frozen. Every rejection of a scenario happens here, before a container starts.

A rejection is a UsageError of one line: file, key, and what is allowed. One experiment a file; no code in it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mqtest import paths, toml
from mqtest.brokers import broker_module
from mqtest.clients import CLIENTS
from mqtest.errors import UsageError
from mqtest.faults import parse_fault
from mqtest.model import Fault, Phases, Profile, Workload
from mqtest.profile import find_profile, image_version

_FILESYSTEMS = ("ext4", "xfs")


@dataclass(frozen=True, slots=True, kw_only=True)
class _File:
    """The keys of a scenario file, with their defaults."""

    title: str
    question: str
    profiles: Sequence[str]
    faults: Sequence[str]
    must_lose: Sequence[str] = ()
    nodes: int = 3
    repeats: int = 1
    seed: int = 1
    floor: int = 1000
    fs: str = "ext4"
    disk_mb: int | None = None
    closed_loop: bool = False
    version: Mapping[str, str] = field(default_factory=dict)
    workload: Workload = field(default_factory=Workload)
    phases: Phases = field(default_factory=Phases)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """One experiment: profiles x faults x repeats under one workload."""

    path: Path
    text: str
    """the file as it was, kept with the results"""
    title: str
    question: str
    profiles: tuple[Profile, ...]
    faults: tuple[Fault, ...]
    must_lose: tuple[Fault, ...]
    """faults under which some profile must lose, or the run proves nothing about them"""
    nodes: int
    repeats: int
    seed: int
    floor: int
    fs: str
    disk_mb: int | None
    """of each node; None: from the plan"""
    versions: Mapping[str, str]
    """broker → version, for every broker in the scenario"""
    workload: Workload
    phases: Phases


def locate(name: str) -> Path:
    """The file that a command line means: a path, or the name of a shipped scenario; raises UsageError."""
    path = Path(name)
    if path.is_file():
        return path
    shipped = paths.scenarios() / f"{path.stem}.toml"
    if path.parent == Path() and shipped.is_file():
        return shipped
    known = sorted(p.stem for p in paths.scenarios().glob("*.toml"))
    raise UsageError(f"{name}: no such scenario file; shipped ones: {', '.join(known)}")


def load(path: Path) -> Scenario:
    """Read and check a scenario; raises UsageError."""
    file = toml.convert(toml.read(path), _File, path)
    workload = _workload(file, path)
    _check_phases(file.phases, path)
    for key, least in (("nodes", 1), ("repeats", 1), ("floor", 1)):
        if getattr(file, key) < least:
            raise UsageError(f"{path}: {key}: must be at least {least}")
    if file.fs not in _FILESYSTEMS:
        raise UsageError(f"{path}: fs: {toml.unknown('filesystem', file.fs, list(_FILESYSTEMS))}")
    if file.disk_mb is not None and file.disk_mb < 300:
        raise UsageError(f"{path}: disk_mb: must be at least 300")
    profiles = tuple(_profile(name, f"{path}: profiles") for name in _some(file.profiles, "profiles", path))
    faults = tuple(parse_fault(text, f"{path}: faults") for text in _some(file.faults, "faults", path))
    must_lose = tuple(parse_fault(text, f"{path}: must_lose") for text in file.must_lose)
    for fault in must_lose:
        if fault not in faults:
            raise UsageError(f"{path}: must_lose: {fault} is not among the scenario's faults")
    for profile in profiles:
        for fault in faults:
            _check_pair(profile, fault, path)
    brokers = dict.fromkeys(p.broker for p in profiles)
    for broker in file.version:
        if broker not in brokers:
            raise UsageError(f"{path}: version.{broker}: no profile of that broker is in this scenario")
    return Scenario(
        path=path,
        text=path.read_text(encoding="utf-8"),
        title=file.title,
        question=file.question,
        profiles=profiles,
        faults=faults,
        must_lose=must_lose,
        nodes=file.nodes,
        repeats=file.repeats,
        seed=file.seed,
        floor=file.floor,
        fs=file.fs,
        disk_mb=file.disk_mb,
        versions={broker: file.version.get(broker) or image_version(broker) for broker in brokers},
        workload=workload,
        phases=file.phases,
    )


def _profile(name: str, where: str) -> Profile:
    try:
        profile = find_profile(name)
    except UsageError as error:
        raise UsageError(f"{where}: {error}") from error
    if profile.client not in CLIENTS:
        raise UsageError(f"{where}: {name}: {toml.unknown('client', profile.client, list(CLIENTS))}")
    return profile


def _some(values: Sequence[str], key: str, path: Path) -> Sequence[str]:
    if not values:
        raise UsageError(f"{path}: {key}: must not be empty")
    doubled = sorted({v for v in values if list(values).count(v) > 1})
    if doubled:
        raise UsageError(f"{path}: {key}: {doubled[0]} stands twice")
    return values


def _workload(file: _File, path: Path) -> Workload:
    from dataclasses import replace

    load = file.workload
    for key in ("producers", "window", "places"):
        if getattr(load, key) < 1:
            raise UsageError(f"{path}: workload.{key}: must be at least 1")
    if load.consumers < 0:
        raise UsageError(f"{path}: workload.consumers: must be at least 0")
    if load.rate_per_s is None or load.rate_per_s <= 0:
        raise UsageError(f"{path}: workload.rate_per_s: must be above 0 (closed_loop = true sends without a rate)")
    if not 64 <= load.size_bytes <= 1 << 20:
        raise UsageError(f"{path}: workload.size_bytes: must be 64 to 1048576")
    return replace(load, rate_per_s=None) if file.closed_loop else load


def _check_phases(phases: Phases, path: Path) -> None:
    for key in ("steady_s", "recover_s", "settle_s", "audit_s", "up_s"):
        if getattr(phases, key) <= 0:
            raise UsageError(f"{path}: phases.{key}: must be above 0")
    for key in ("warm_up_s", "hold_s", "after_s", "drain_s"):
        if getattr(phases, key) < 0:
            raise UsageError(f"{path}: phases.{key}: must not be negative")
    sync = phases.sync_before_fault_s
    if sync is not None and not 0 < sync <= phases.steady_s:
        raise UsageError(f"{path}: phases.sync_before_fault_s: must be above 0 and at most steady_s")


def _check_pair(profile: Profile, fault: Fault, path: Path) -> None:
    module = broker_module(profile.broker)
    allowed = getattr(module, "FAULTS", None)
    if allowed is not None and fault.action not in allowed:
        raise UsageError(
            f"{path}: faults: {profile.broker} cannot have {fault.action!r}; allowed: {', '.join(allowed)}"
        )
    if fault.target and fault.target not in module.TARGETS:
        raise UsageError(
            f"{path}: faults: {profile.broker} has no target {fault.target!r}; allowed: {', '.join(module.TARGETS)}"
        )
