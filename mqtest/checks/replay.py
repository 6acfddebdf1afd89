"""The check of a replay: what the new job made of the history, against what is there and against the old job."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np

from mqtest.checks.sightings import examples
from mqtest.fates import AUDITED, there
from mqtest.history import History
from mqtest.jobs import NEW, OLD
from mqtest.model import Finding, Kind
from mqtest.pieces import find
from mqtest.replayed import Jobs, pieces, reach, times_there
from mqtest.tables import Bools, Ints, slices

_EACH = 10
_COLUMNS = ("replay_missing", "replay_doubled", "replay_reordered", "replay_differs", "replay_gone")


@dataclass(frozen=True, slots=True)
class _Counts:
    """Of each message."""

    inputs: Ints
    """at how many positions it is there"""
    old: Ints
    """outputs of the old job"""
    new: Ints


def replay(history: History) -> Finding:
    """What the new job of a replay left out, did twice, or got in another order than that of the log.

    Each position that holds an input (of a queue: each message that is there) is to become one output of the new job.
    replay_missing: outputs that are not there. replay_doubled: outputs beyond those. replay_reordered: inputs that the
    new job was handed, for the first time, behind a later one of the same place. replay_differs: messages that one of
    the two jobs has an output of and the other has not, among those up to where the old job stopped. replay_gone: of a
    log, messages that the old job had read and that the new one went past without being handed them, for the log had
    them no more: its head was deleted. None of it without a replay; while an audit is incomplete, only the last two
    that can be seen without it.
    """
    jobs = history.jobs
    if jobs is None or NEW not in jobs.handed:
        return Finding(check="replay", count=None, numbers=dict.fromkeys(_COLUMNS))
    is_log = history.kind is Kind.LOG
    late = _reordered(history, jobs) if is_log else None
    gone = _gone(history, jobs) if is_log else np.zeros(0, dtype=np.int64)
    numbers: dict[str, int | None] = dict.fromkeys(_COLUMNS)
    numbers |= {"replay_reordered": late, "replay_gone": len(gone) if is_log else None}
    lines = [(f"{name(history, m)}: deleted before the new job read it") for m in gone[:_EACH]]
    if history.incomplete is None and jobs.incomplete[NEW] is None:
        counts = _counts(history, jobs)
        missing = np.maximum(counts.inputs - counts.new, 0)
        doubled = np.maximum(counts.new - np.maximum(counts.inputs, 1), 0)
        numbers |= {"replay_missing": int(missing.sum()), "replay_doubled": int(doubled.sum())}
        if jobs.incomplete[OLD] is None:
            numbers["replay_differs"] = int(np.count_nonzero(_differs(history, jobs, counts)))
        left_out = (f"{name(history, m)}: not in the replay" for m in np.flatnonzero(missing))
        twice = (f"{name(history, m)}: {counts.new[m]} times in the replay" for m in np.flatnonzero(doubled))
        lines += [*islice(left_out, _EACH), *islice(twice, _EACH)]
    seen = [number for key, number in numbers.items() if key != "replay_differs" and number is not None]
    return Finding(check="replay", count=sum(seen) if seen else None, numbers=numbers, examples=examples(lines))


def name(history: History, message: int | np.integer[Any]) -> str:
    """`producer 0 seq 17`, of any message of the cell."""
    which = int(np.searchsorted(history.messages.starts[1:], message, side="right"))
    return f"producer {history.messages.producers[which]} seq {int(message) - int(history.messages.starts[which])}"


def inputs(history: History, jobs: Jobs) -> Ints:
    """How often each message is there for a job to read."""
    if history.kind is Kind.LOG:
        return times_there(history.messages, jobs.audited.values(), is_log=True)
    return there(history.kind)[history.messages.state].astype(np.int32)


def outputs(history: History, jobs: Jobs, job: int) -> Ints:
    """How many outputs of a job each message has. A queue's live reader takes what the audit then does not find."""
    is_log = history.kind is Kind.LOG
    tables = [jobs.written, jobs.shown] if not is_log else [jobs.written]
    return times_there(history.messages, [t[job] for t in tables if job in t], is_log=is_log)


def _counts(history: History, jobs: Jobs) -> _Counts:
    return _Counts(inputs(history, jobs), outputs(history, jobs, OLD), outputs(history, jobs, NEW))


def _differs(history: History, jobs: Jobs, counts: _Counts) -> Bools:
    """Which messages only one of the two has; those that only the new one has, if the old one could have had them."""
    only_new = (counts.new > 0) & (counts.old == 0)
    differs: Bools = (counts.old > 0) & (counts.new == 0)
    last = reach(jobs.handed.get(OLD))
    for piece in pieces(history.messages, jobs.handed[NEW]) if only_new.any() and history.kind is Kind.LOG else ():
        ids, offset = piece.messages(history.messages), jobs.handed[NEW]["offset"][piece.rows]
        differs[ids] |= only_new[ids] & (offset <= last.get(piece.place, -1))
    return differs


def _reordered(history: History, jobs: Jobs) -> int:
    """Messages handed for the first time at a position below the highest so far of their place and epoch. What is
    handed again (an aborted batch, a job that came back) is no disorder."""
    handed: Bools = np.zeros(len(history.messages), dtype=np.bool_)
    highest: dict[tuple[int, int], int] = {}
    late, table = 0, jobs.handed[NEW]
    for rows in slices(len(table["seq"])):
        ids = find(history.messages, table, rows)
        first = np.sort(np.unique(ids, return_index=True)[1])
        first = first[(ids[first] >= 0) & ~handed[ids[first]]]
        handed[ids[first]] = True
        place, epoch, offset = (table[column][rows][first] for column in ("place", "epoch", "offset"))
        for key in sorted(set(zip(place.tolist(), epoch.tolist(), strict=True))):
            mine = offset[(place == key[0]) & (epoch == key[1])]
            so_far = np.maximum.accumulate(np.concatenate([[highest.get(key, -1)], mine]))
            late += int(np.count_nonzero(mine < so_far[:-1]))
            highest[key] = int(so_far[-1])
    return late


def _gone(history: History, jobs: Jobs) -> Ints:
    """Messages that the old job was handed, that the new one went past, and that nobody finds any more."""
    messages = history.messages
    if OLD not in jobs.handed:
        return np.zeros(0, dtype=np.int64)
    had: Bools = (messages.state & AUDITED) != 0
    for piece in pieces(messages, jobs.handed[NEW]):
        had[piece.messages(messages)] = True
    last, found = reach(jobs.handed[NEW]), []
    for piece in pieces(messages, jobs.handed[OLD]):
        ids = piece.message_numbers(messages)
        passed = ~had[ids] & (jobs.handed[OLD]["offset"][piece.rows] < last.get(piece.place, -1))
        if passed.any():
            found.append(ids[passed])
    return np.unique(np.concatenate([np.zeros(0, dtype=np.int64), *found]))
