"""The check of amounts: the table that the new job of a replay came to, against what the ledger of sends says."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from mqtest.checks.replay import inputs, outputs
from mqtest.checks.sightings import examples
from mqtest.columns import Columns
from mqtest.history import History
from mqtest.jobs import NEW, keys_and_amounts, window_ns
from mqtest.model import Finding, Kind
from mqtest.replayed import Jobs
from mqtest.tables import Ints

_COLUMNS = ("amount_lost", "amount_doubled", "totals_wrong")
Totals = dict[tuple[int, int, int], tuple[int, int]]
"""(place, key, window) -> (messages, amount)"""


def amounts(history: History) -> Finding:
    """Amounts that are missing in the result of a replay, or there twice, by place, key and time window.

    A message has a key, an amount and a window by its name and due time (jobs.py). What a place, key and window should
    come to is the sum over the positions that hold such messages. What it came to is the last row that the new job's
    output has of it; of a queue, whose outputs are in no order, the sum over those messages that have an output.
    amount_lost: what the rows that are too low lack, amount_doubled: what those that are too high have beyond, both in
    hundredths. totals_wrong: rows whose amount or number of messages is wrong. None without a replay, and while an
    audit is incomplete.
    """
    jobs = history.jobs
    is_log = history.kind is Kind.LOG
    known = jobs is not None and (NEW in jobs.totals if is_log else NEW in jobs.handed)
    if jobs is None or not known or history.incomplete is not None or jobs.incomplete[NEW] is not None:
        return Finding(check="amounts", count=None, numbers=dict.fromkeys(_COLUMNS))
    due = totals_of(history, jobs, inputs(history, jobs))
    found = read(jobs.totals[NEW]) if is_log else totals_of(history, jobs, outputs(history, jobs, NEW))
    wrong, lost, doubled = difference(due, found)
    return Finding(
        check="amounts",
        count=len(wrong),
        numbers={
            "amount_lost": lost,
            "amount_doubled": doubled,
            "totals_wrong": len(wrong),
            "totals": len(due),
            "amount_due": sum(amount for _, amount in due.values()),
        },
        examples=examples(lines_of(wrong, due, found)),
    )


def difference(due: Totals, found: Totals) -> tuple[list[tuple[int, int, int]], int, int]:
    """The rows that are wrong, what those that are too low lack, and what those that are too high have beyond."""
    wrong = [row for row in sorted(due.keys() | found.keys()) if due.get(row, (0, 0)) != found.get(row, (0, 0))]
    beyond = [found.get(row, (0, 0))[1] - due.get(row, (0, 0))[1] for row in wrong]
    return wrong, -sum(amount for amount in beyond if amount < 0), sum(amount for amount in beyond if amount > 0)


def lines_of(wrong: list[tuple[int, int, int]], due: Totals, found: Totals) -> Iterator[str]:
    """Each of these rows in words."""
    for place, key, window in wrong:
        (messages, amount), (other, sum_found) = (table.get((place, key, window), (0, 0)) for table in (due, found))
        yield (
            f"place {place} key {key} window {window}: {sum_found / 100:.2f} of {other} messages, "
            f"not {amount / 100:.2f} of {messages}"
        )


def totals_of(history: History, jobs: Jobs, times: Ints) -> Totals:
    """What comes of it when each message counts so many times."""
    messages, length_ns, found = history.messages, window_ns(jobs.window_s), Totals()
    starts = dict(zip(messages.producers.tolist(), messages.starts.tolist(), strict=False))
    for sends in messages.over(lambda part: part):
        if not len(sends.seq):
            continue
        first = starts[int(sends.producer[0])] + int(sends.seq[0])
        counts = times[first : first + len(sends.seq)]
        mine = np.flatnonzero(counts)
        key, amount = keys_and_amounts(int(sends.producer[0]), sends.seq[mine], jobs.keys)
        packed = (sends.place[mine].astype(np.int64) << 48) | (key << 32) | sends.due_ns[mine] // length_ns
        names, which = np.unique(packed, return_inverse=True)
        number = np.bincount(which, weights=counts[mine], minlength=len(names))
        total = np.bincount(which, weights=counts[mine] * amount, minlength=len(names))
        for name, n, t in zip(names.tolist(), number.tolist(), total.tolist(), strict=True):
            row = name >> 48, name >> 32 & 0xFFFF, name & 0xFFFFFFFF
            before = found.get(row, (0, 0))
            found[row] = before[0] + round(n), before[1] + round(t)
    return found


def read(table: Columns) -> Totals:
    """Of job_ledger.py."""
    columns = (table[name][:].tolist() for name in ("place", "key", "window", "messages", "amount"))
    return {(place, key, window): (n, amount) for place, key, window, n, amount in zip(*columns, strict=True)}
