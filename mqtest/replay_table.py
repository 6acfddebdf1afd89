"""The table `[replay]` of a scenario: what it refuses, and how long it takes."""

from __future__ import annotations

from dataclasses import replace as _with
from pathlib import Path

from mqtest.errors import UsageError
from mqtest.jobs import FLINK
from mqtest.model import Duplicates, Output, Profile, Promise, Replay, Wiring, Workload

ISOLATION = "isolation.level"
"""the setting of a consumer, under the same name in librdkafka and in Kafka's Java client"""
_AHEAD = 4.0
"""a new job reads so many times as fast as the load writes; for the plan's guess alone"""
_FLINK_UP_S = 25.0
"""until Flink is up on two cores; likewise"""


def check_replay(replay: Replay, load: Workload, path: Path) -> Replay:
    """The table as it is; raises UsageError."""
    at = f"{path}: replay"
    for key in ("history_s", "window_s", "catch_up_s"):
        if getattr(replay, key) <= 0:
            raise UsageError(f"{at}.{key}: must be above 0")
    if replay.history_per_s is not None and replay.history_per_s <= 0:
        raise UsageError(f"{at}.history_per_s: must be above 0")
    if not 1 <= replay.keys <= 65536:
        raise UsageError(f"{at}.keys: must be 1 to 65536")
    if not 0 <= replay.fault_at < 1:
        raise UsageError(f"{at}.fault_at: must be 0 to less than 1")
    if replay.beside_s < 0:
        raise UsageError(f"{at}.beside_s: must not be negative")
    if replay.output is Output.NONE and replay.runs_on != FLINK:
        raise UsageError(f"{at}.output: allowed: {Output.AT_LEAST_ONCE}, {Output.EXACTLY_ONCE}")
    if load.consumers or load.transformers:
        raise UsageError(f"{path}: workload: consumers, transformers: a replay has jobs in their place; allowed: 0")
    return replay


def of_job(wiring: Wiring, number: int, since_ms: int) -> Wiring:
    """The same for one job: its group and its output are its own."""
    return _with(wiring, job=f"-{number}", group=f"{wiring.group}-job-{number}", since_ms=since_ms)


def promised(profile: Profile, replay: Replay | None) -> Promise:
    """What the profile promises of the cell: where it promises outputs at least once, and stores nothing twice, jobs
    that pass over what they have written make that exactly once. Flink's jobs promise what their guarantee says;
    exactly once needs readers that see only what was committed."""
    promise = profile.promise
    if replay is not None and replay.runs_on == FLINK:
        return _with(promise, output=_of_flink(profile, replay.output))
    once = promise.output is Output.AT_LEAST_ONCE and promise.duplicates is not Duplicates.ANY
    if once and replay is not None and replay.output is Output.EXACTLY_ONCE:
        return _with(promise, output=Output.EXACTLY_ONCE)
    return promise


def _of_flink(profile: Profile, guarantee: Output) -> Output:
    committed = profile.settings.get("consumer", {}).get(ISOLATION) == "read_committed"
    return Output.AT_LEAST_ONCE if guarantee is Output.EXACTLY_ONCE and not committed else guarantee


def messages(replay: Replay, rate_per_s: float) -> float:
    """How long a history there is, in messages."""
    return replay.history_s * (replay.history_per_s or rate_per_s)


def expected_s(replay: Replay, rate_per_s: float) -> float:
    """A rough guess of what a replay adds to a cell: the history, its reading, and both jobs beside each other."""
    read_s = messages(replay, rate_per_s) / (rate_per_s * _AHEAD)
    up_s = _FLINK_UP_S if replay.runs_on == FLINK else 0.0
    return up_s + replay.history_s + min(read_s, replay.catch_up_s) + replay.beside_s
