"""scenarios/x.toml → Scenario, typed and frozen. Every rejection of a scenario happens here, before a container starts.

A rejection is a UsageError of one line: file, key, and what is allowed. One experiment a file; no code in it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from mqtest import axes, paths, toml
from mqtest.brokers import broker_module
from mqtest.clients import CLIENTS, DIRECT, NO_PIPELINES
from mqtest.errors import UsageError
from mqtest.faults import FAULTS
from mqtest.jobs import FLINK, JOBS
from mqtest.model import NO_FAULT, Consume, Fault, Kind, Phases, Profile, Replay, Search, Value, Workload
from mqtest.profile import find_profile, image_version
from mqtest.replay_table import check_replay
from mqtest.schedule import ScheduleTable, parse_fault, parse_schedule
from mqtest.targets import PROCESSORS, TARGETS, WORKERS

FILESYSTEMS = ("ext4", "xfs")


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """The keys of a scenario file, with their defaults. What stands below each is what `mqtest schema` says of it."""

    title: str
    """a few words: the heading of the report"""
    question: str
    """what the run shall answer, in one sentence; the report begins with it"""
    profiles: Sequence[str]
    """what is run: `broker/profile`, as `mqtest list` shows them"""
    faults: Sequence[str]
    """what happens to each of them: `none`, `action:target`, several at one moment joined by `+`, or the name of a
    `[schedule.<name>]`"""
    must_lose: Sequence[str] = ()
    """faults of this scenario under which some profile has to lose; where none did, the report says so at its top"""
    skip: Sequence[str] = ()
    """globs of `broker/profile/fault` that are not run"""
    nodes: int = 3
    """brokers of each cluster"""
    repeats: int = 1
    """so many cells of each profile and fault; `--repeat` on the command line comes before it"""
    seed: int = 1
    """whatever is drawn comes from it; `--seed` on the command line comes before it"""
    floor: int = 1000
    """fewer acknowledged messages than this: the cell is `invalid`, for they were too few to tell"""
    fs: str = "ext4"
    """filesystem of the nodes' disks"""
    disk_mb: int | None = None
    """size of each node's disk; without it from the rate, the size and the phases, so that half of it stays empty"""
    closed_loop: bool = False
    """no rate: each producer keeps `workload.window` sends in flight; no message has a time at which it is due"""
    latency: bool = False
    """the scenario is there to measure latency: a cell whose own load was too late for that is `invalid`"""
    hasty: bool = False
    """the load comes right after the first start: the cluster is not settled first, nor are its disks flushed"""
    max_cells: int = 120
    """a scenario that makes more cells than this is refused, unless `--repeat` asks for them"""
    version: Mapping[str, str] = field(default_factory=dict)
    """broker → the version to run, in place of the one in its profiles.toml"""
    vary: Mapping[str, Sequence[Value]] = field(default_factory=dict)
    """key → values: the scenario is run with every combination. A key is one of this file (`workload.size_bytes`), or a
    setting of the profiles in the broker's own name (`producer.acks`)"""
    schedule: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """name → a fault of several steps, or one that is drawn"""
    search: Search | None = None
    """cells without a fault look for the highest rate that they sustain, and measure latency at shares of it"""
    replay: Replay | None = None
    """a stateful job runs live, and a new one starts beside it on the whole history, catches up and takes over"""
    settings: Mapping[str, Mapping[str, Value]] = field(default_factory=dict)
    """action → its numbers, in place of their defaults"""
    workload: Workload = field(default_factory=Workload)
    """what producers and consumers do"""
    phases: Phases = field(default_factory=Phases)
    """how long each part of a cell lasts, and how long it may last"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """One combination of the values in `[vary]`: what the scenario is with them."""

    varied: Mapping[str, Value]
    """key → value; nothing without `[vary]`"""
    profiles: tuple[Profile, ...]
    nodes: int
    fs: str
    workload: Workload
    phases: Phases
    search: Search | None
    """for the cells without a fault"""
    replay: Replay | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """One experiment: arms x profiles x faults x repeats."""

    path: Path
    text: str
    """the file as it was, kept with the results"""
    asked: Mapping[str, Value]
    """what `--set` put in place of it"""
    title: str
    question: str
    arms: tuple[Arm, ...]
    faults: tuple[Fault, ...]
    must_lose: tuple[Fault, ...]
    """faults under which some profile must lose, or the run proves nothing about them"""
    skip: tuple[str, ...]
    """globs of `broker/profile/fault` that are not run"""
    repeats: int
    seed: int
    floor: int
    disk_mb: int | None
    """of each node; None: from the plan"""
    latency: bool
    """it measures latency: a cell whose own load was too late for that is `invalid` (verdict.py)"""
    hasty: bool
    max_cells: int
    versions: Mapping[str, str]
    """broker → version, for every broker in the scenario"""
    settings: Mapping[str, Mapping[str, Value]]
    """action → its numbers"""

    @property
    def profiles(self) -> tuple[Profile, ...]:
        """As the file names them."""
        return self.arms[0].profiles

    def skips(self, profile: Profile, fault: Fault) -> bool:
        """Whether the scenario leaves this pair out."""
        return any(fnmatch(f"{profile.path}/{fault}", glob) for glob in self.skip)


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


def named(path: Path) -> str:
    """What locate() finds that file by, from this directory: a shipped one by its bare name, any other by its path,
    which is never absolute. One that has the name of a shipped one gets a `./`, or it would be taken for that."""
    shipped = paths.scenarios() / f"{path.stem}.toml"
    if path.is_file() and shipped.is_file() and path.samefile(shipped):
        return path.stem
    relative = os.path.relpath(path) if path.is_absolute() else str(path)
    return f"./{relative}" if shipped.is_file() and "/" not in relative else relative


def assigned(texts: Sequence[str]) -> dict[str, Value]:
    """What `--set KEY=VALUE` asks for, by key; raises UsageError."""
    return dict(axes.parse(text, lambda key: toml.is_text(File, key)) for text in texts)


def load(path: Path, asked: Mapping[str, Value] | None = None) -> Scenario:
    """Read and check a scenario, with the values that were `asked` in place of its own; raises UsageError."""
    table = axes.overlaid(toml.read(path), asked or {}, path)
    file = toml.convert(table, File, path)
    arms = tuple(_arm(table, values, path) for values in axes.combinations(file.vary, path))
    _check_numbers(file, path)
    schedules = {
        name: parse_schedule(
            name, toml.convert(keys, ScheduleTable, path, f"schedule.{name}"), f"{path}: schedule.{name}"
        )
        for name, keys in file.schedule.items()
    }
    faults = tuple(parse_fault(text, f"{path}: faults", schedules) for text in _some(file.faults, "faults", path))
    must_lose = tuple(parse_fault(text, f"{path}: must_lose", schedules) for text in file.must_lose)
    for fault in must_lose:
        if fault not in faults:
            raise UsageError(f"{path}: must_lose: {fault} is not among the scenario's faults")
    brokers = dict.fromkeys(p.broker for p in arms[0].profiles)
    for broker in file.version:
        if broker not in brokers:
            raise UsageError(f"{path}: version.{broker}: no profile of that broker is in this scenario")
    _check_settings(file.settings, path)
    scenario = Scenario(
        path=path,
        text=path.read_text(encoding="utf-8"),
        asked=dict(asked or {}),
        title=file.title,
        question=file.question,
        arms=arms,
        faults=faults,
        must_lose=must_lose,
        skip=tuple(file.skip),
        repeats=file.repeats,
        seed=file.seed,
        floor=file.floor,
        disk_mb=file.disk_mb,
        latency=file.latency,
        hasty=file.hasty,
        max_cells=file.max_cells,
        versions={broker: file.version.get(broker) or image_version(broker) for broker in brokers},
        settings=file.settings,
    )
    _check_pairs(scenario)
    _check_search(scenario)
    return scenario


def _arm(table: Mapping[str, Any], values: Mapping[str, Value], path: Path) -> Arm:
    file = toml.convert(axes.overlaid(table, axes.of_scenario(values), path), File, path)
    _check_phases(file.phases, path)
    if file.fs not in FILESYSTEMS:
        raise UsageError(f"{path}: fs: {toml.unknown('filesystem', file.fs, list(FILESYSTEMS))}")
    if file.latency and file.closed_loop:
        raise UsageError(f"{path}: latency: a closed loop has no due times to count from; drop closed_loop")
    if file.nodes < 1:
        raise UsageError(f"{path}: nodes: must be at least 1")
    profiles = tuple(_profile(name, f"{path}: profiles") for name in _some(file.profiles, "profiles", path))
    return Arm(
        varied=values,
        profiles=axes.with_settings(profiles, values, path),
        nodes=file.nodes,
        fs=file.fs,
        workload=_workload(file, path),
        phases=file.phases,
        search=None if file.search is None else _search(file.search, file, profiles, path),
        replay=None if file.replay is None else check_replay(file.replay, file.workload, path),
    )


def _check_numbers(file: File, path: Path) -> None:
    for key, least in (("repeats", 1), ("floor", 1), ("max_cells", 1)):
        if getattr(file, key) < least:
            raise UsageError(f"{path}: {key}: must be at least {least}")
    if file.disk_mb is not None and file.disk_mb < 300:
        raise UsageError(f"{path}: disk_mb: must be at least 300")


def _check_settings(settings: Mapping[str, Mapping[str, Value]], path: Path) -> None:
    for action, numbers in settings.items():
        at = f"{path}: settings.{action}"
        if action not in FAULTS:
            raise UsageError(f"{at}: {toml.unknown('fault', action, [a for a in FAULTS if FAULTS[a].settings])}")
        known = FAULTS[action].settings
        for key, value in numbers.items():
            if key not in known:
                raise UsageError(f"{at}: {toml.unknown('key', key, list(known))}")
            if isinstance(known[key], str) != isinstance(value, str):
                raise UsageError(f"{at}.{key}: {value!r} is not of the kind of {known[key]!r}")
            choices = FAULTS[action].choices.get(key)
            if choices and value not in choices:
                raise UsageError(f"{at}.{key}: {toml.unknown(key, str(value), list(choices))}")
            if not isinstance(value, str) and value < 0:
                raise UsageError(f"{at}.{key}: must not be negative")


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


def _workload(file: File, path: Path) -> Workload:
    load = file.workload
    for key in ("producers", "window", "places"):
        if getattr(load, key) < 1:
            raise UsageError(f"{path}: workload.{key}: must be at least 1")
    for key in ("consumers", "transformers"):
        if getattr(load, key) < 0:
            raise UsageError(f"{path}: workload.{key}: must be at least 0")
    if not 0 <= load.process_ms <= 1000:
        raise UsageError(f"{path}: workload.process_ms: must be 0 to 1000")
    if load.rate_per_s is None or load.rate_per_s <= 0:
        raise UsageError(f"{path}: workload.rate_per_s: must be above 0 (closed_loop = true sends without a rate)")
    if not 64 <= load.size_bytes <= 1 << 20:
        raise UsageError(f"{path}: workload.size_bytes: must be 64 to 1048576")
    if file.replay is not None:
        if file.closed_loop or file.search is not None:
            raise UsageError(f"{path}: replay: a message needs the time at which it is due; drop closed_loop, search")
        return replace(load, transformers=JOBS)
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


def _search(search: Search, file: File, profiles: Sequence[Profile], path: Path) -> Search:
    at = f"{path}: search"
    for key in ("start_per_s", "step_s", "settle_s", "at_s"):
        if getattr(search, key) <= 0:
            raise UsageError(f"{at}.{key}: must be above 0")
    if search.most_per_s < search.start_per_s:
        raise UsageError(f"{at}.most_per_s: must be at least start_per_s, {search.start_per_s:g}")
    if search.trials < 1:
        raise UsageError(f"{at}.trials: must be at least 1")
    if len({name for name, share in search.loads if 0.01 <= share <= 1}) < len(search.at):
        raise UsageError(f"{at}.at: different shares from 0.01 to 1 are wanted")
    if file.closed_loop:
        raise UsageError(f"{at}: it asks for rates, and closed_loop = true has none")
    silent = [profile.path for profile in profiles if not profile.acknowledged]
    if silent:
        raise UsageError(f"{at}: {silent[0]} has no acknowledgements to go by")
    return search


def _check_pairs(scenario: Scenario) -> None:
    for arm in scenario.arms:
        for profile in arm.profiles:
            for fault in scenario.faults:
                if not scenario.skips(profile, fault):
                    _check_pair(profile, fault, arm, scenario.path)


def _check_search(scenario: Scenario) -> None:
    """It is for the cells without a fault, so there has to be one."""
    searching = [arm for arm in scenario.arms if arm.search is not None]
    without = [profile for arm in searching for profile in arm.profiles if not scenario.skips(profile, NO_FAULT)]
    if searching and (NO_FAULT not in scenario.faults or not without):
        raise UsageError(f"{scenario.path}: search: it is for cells without a fault, and there are none: faults, skip")


def _check_pair(profile: Profile, fault: Fault, arm: Arm, path: Path) -> None:
    module = broker_module(profile.broker)
    what = "replay" if arm.replay else "workload.transformers"
    if arm.workload.transformers and profile.client in NO_PIPELINES:
        raise UsageError(f"{path}: {what}: {profile.path}: {profile.client} has no transformers")
    if arm.workload.transformers and not arm.replay and profile.kind is Kind.QUEUE:
        raise UsageError(f"{path}: {what}: {profile.path} is a queue, whose inputs nobody can read again; allowed: 0")
    flink = arm.replay is not None and arm.replay.runs_on == FLINK
    if flink and profile.broker != "kafka":
        raise UsageError(f"{path}: replay.runs_on: {profile.path}: Flink's jobs are for kafka")
    known, refused = getattr(module, "FAULTS", FAULTS), getattr(module, "NO_FAULTS", ())
    allowed = [action for action in FAULTS if action in known and action not in refused]
    targets = [target for target in TARGETS if target not in module.NO_TARGETS]
    for step in fault.steps:
        if step.action not in allowed:
            raise UsageError(
                f"{path}: faults: {profile.broker} cannot have {step.action!r}; allowed: "
                f"{', '.join([str(NO_FAULT), *allowed])}"
            )
        if step.target not in targets:
            raise UsageError(
                f"{path}: faults: {profile.broker} has no target {step.target!r}; allowed: {', '.join(targets)}"
            )
        if FAULTS[step.action].on_links and profile.client in DIRECT:
            raise UsageError(f"{path}: faults: {fault}: {profile.client} goes to the brokers past any proxy")
        if step.target in PROCESSORS and not flink:
            raise UsageError(f"{path}: faults: {fault}: only where replay.runs_on is 'flink' is there a {step.target}")
        if step.target == "transformers" and flink:
            raise UsageError(f"{path}: faults: {fault}: Flink runs the jobs; allowed: {', '.join(PROCESSORS)}")
        if step.target in WORKERS and not _has_workers(step.target, arm.workload):
            raise UsageError(f"{path}: faults: {fault}: while the fault lasts this workload has no {step.target}")


def _has_workers(target: str, workload: Workload) -> bool:
    if target == "consumers":
        return workload.consumers > 0 and workload.consume is Consume.LIVE
    return int(getattr(workload, target)) > 0
