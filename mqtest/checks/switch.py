"""The check of how a replay went by the clock: catching up with the live load, and the switch of the outputs."""

from __future__ import annotations

from typing import Any

import numpy as np

from mqtest.checks.speed import inside
from mqtest.clock import NS_PER_S
from mqtest.deliveries import Delivered, over
from mqtest.history import History
from mqtest.jobs import NEW, OLD
from mqtest.model import Finding, Kind, Outcome
from mqtest.replayed import Jobs
from mqtest.tables import slices

_COLUMNS = ("catch_up_s", "catch_up_per_s", "catch_up_live_per_s", "switch_s", "switch_gap_s", "switch_behind_s",
            "replay_at_fault")  # fmt: skip


def switch(history: History) -> Finding:
    """Seconds until the new job of a replay had caught up, its rate beside the live one, and the gap at the switch.

    catch_up_s: from the start of the new job until it was less than a second of load behind; catch_up_per_s: inputs
    that it was handed a second meanwhile, catch_up_live_per_s: what producers got acknowledged a second meanwhile.
    switch_s: from the switch until the old job had stopped. switch_gap_s: from the last output that readers saw of the
    old job before the switch to the first of the new job after it that is of a later message than any seen before: so
    long nobody saw anything fresh. `switch_behind_s`: how much older than the old job's the newest message was that the
    new job had shown by the switch. `replay_at_fault`: which share of what there was at its start the new job had been
    handed when the first fault was injected. None without a replay; a queue has nothing to catch up with.
    """
    numbers: dict[str, float | None] = dict.fromkeys(_COLUMNS)
    jobs = history.jobs
    if jobs is not None:
        started, caught_up = _job(history, NEW, "started"), _job(history, NEW, "caught up")
        if started is not None and caught_up is not None and history.kind is Kind.LOG:
            numbers |= _catching_up(history, jobs, (started, caught_up))
        numbers["replay_at_fault"] = _share(history, jobs)
        switched = next((e["t_ns"] for e in history.events if e["event"] == "switch"), None)
        stopped = _job(history, OLD, "stopped")
        if switched is not None:
            numbers["switch_s"] = None if stopped is None else _s(stopped - switched)
            numbers |= _gap(history, jobs, switched)
    return Finding(check="switch", count=None, numbers=numbers)


def _job(history: History, job: int, step: str) -> int | None:
    found = (e for e in history.events if e["event"] == "job" and (e.get("job"), e.get("step")) == (job, step))
    return next((int(e["t_ns"]) for e in found), None)


def _catching_up(history: History, jobs: Jobs, window: tuple[int, int]) -> dict[str, float | None]:
    lasted_s = (window[1] - window[0]) / NS_PER_S
    handed = _handed(jobs, window)
    acked = sum(history.over_sends(lambda s: inside(s.settled_ns[s.outcome == Outcome.ACKED], window)))
    return {
        "catch_up_s": round(lasted_s, 3),
        "catch_up_per_s": round(handed / lasted_s, 1),
        "catch_up_live_per_s": round(acked / lasted_s, 1) if history.acknowledged else None,
    }


def _handed(jobs: Jobs, window: tuple[int, int]) -> int:
    """Inputs that the new job was handed in that time."""
    if NEW not in jobs.handed:
        return 0
    received = jobs.handed[NEW]["received_ns"]
    return sum(inside(received[rows], window) for rows in slices(len(received)))


def _share(history: History, jobs: Jobs) -> float | None:
    started = next((e for e in history.events if e["event"] == "job" and e.get("step") == "started"), None)
    if started is None or not started.get("behind") or history.first_injected is None:
        return None
    return round(_handed(jobs, (0, history.first_injected)) / int(started["behind"]), 3)


def _gap(history: History, jobs: Jobs, switched: int) -> dict[str, float | None]:
    def before(read: Delivered) -> tuple[int, int]:
        """The newest due time shown, and when something was shown last."""
        mine = read.received_ns < switched
        return int(read.sent("due_ns")[mine].max(initial=0)), int(read.received_ns[mine].max(initial=0))

    shown = {job: _most(before, history, jobs, job) for job in (OLD, NEW)}
    newest, last = shown[OLD]
    if not last:
        return {}

    def fresh(read: Delivered) -> int:
        """When something newer was shown first."""
        mine = (read.received_ns >= switched) & (read.sent("due_ns") > newest)
        return int(read.received_ns[mine].min(initial=np.iinfo(np.int64).max))

    tables = {job: table for job, table in jobs.shown.items() if job == NEW}
    first = min(over(history.messages, tables, fresh), default=np.iinfo(np.int64).max)
    return {
        "switch_gap_s": _s(first - last) if first < np.iinfo(np.int64).max else None,
        "switch_behind_s": _s(max(0, newest - shown[NEW][0])) if shown[NEW][1] else None,
    }


def _most(measure: Any, history: History, jobs: Jobs, job: int) -> tuple[int, int]:
    tables = {number: table for number, table in jobs.shown.items() if number == job}
    found = list(over(history.messages, tables, measure))
    return max((due for due, _ in found), default=0), max((last for _, last in found), default=0)


def _s(span_ns: int) -> float:
    return round(span_ns / NS_PER_S, 3)
