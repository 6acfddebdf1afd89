"""The named words of needs. A word is a figure of a cell that has to be 0; None: the cell does not speak about it.

To add one: a function of a row, and its line in the table at the foot.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from mqtest.model import Kind, Verdict
from mqtest.report.summary import Row, measured, verdict_of

_COPIES: Mapping[str, tuple[str, ...]] = {
    Kind.LOG: ("stored_twice", "redelivered"),
    Kind.QUEUE: ("redelivered", "redelivered_unflagged"),
}
"""kind → the columns in which a message that came twice stands"""
_OUTPUTS = "output_doubled"
"""only pipelines have it"""
_CONSUMERS = "workload.consumers"
"""they read everything before the audit does; without them nothing is read twice"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Word:
    """One word."""

    figure: Callable[[Row], float | None]
    about: str
    """one line: what it takes"""
    missed: str
    """what is said of a figure above 0, which stands for {}"""
    not_proven: str
    """what no cell proves of it"""
    of_loss: bool = False


def _lost(row: Row) -> float | None:
    return measured(row, "lost")


def _out_of_order(row: Row) -> float | None:
    return measured(row, "reordered")


def _twice(row: Row) -> float | None:
    found = [measured(row, column) for column in _COPIES.get(str(row.get("kind")), (_OUTPUTS,))]
    known = [number for number in found if number is not None]
    if any(known) or len(known) == len(found):
        return sum(known) + (measured(row, _OUTPUTS) or 0)
    return None


def _read_once(row: Row) -> float | None:
    if row.get("kind") == Kind.QUEUE:
        return 1.0
    read_before = str(row.get(_CONSUMERS) or "0") != "0"
    return 0.0 if row.get("kind") == Kind.LOG and row.get("audit_complete") is True and read_before else None


def _stayed_away(row: Row) -> float | None:
    return float(verdict_of(row) is Verdict.DEAD)


WORDS: Mapping[str, Word] = {
    "no loss": Word(
        figure=_lost,
        about="no acknowledged message was lost (lost == 0)",
        missed="{} acknowledged messages lost",
        not_proven="failures that no cell had, and longer or larger loads than those of the cells",
        of_loss=True,
    ),
    "ordered": Word(
        figure=_out_of_order,
        about="no message behind a later one of its producer in its place, not even after a reconnect (reordered == 0)",
        missed="{} messages out of order",
        not_proven="order across places, or across producers, which no broker has: keep an account in one place, "
        "written by one producer",
    ),
    "no duplicates": Word(
        figure=_twice,
        about="no message stored twice or delivered twice, flagged or not, and no output of a pipeline twice",
        missed="{} messages twice",
        not_proven="consumers that die or are slow, unless a cell has them (`mqtest run consumers`)",
    ),
    "replay": Word(
        figure=_read_once,
        about="reading does not remove: after the load was read, it was read again whole, from the first position",
        missed="it is a queue: what was read is gone",
        not_proven="how long messages stay: cells last minutes, and for how long a log is kept is a setting "
        "(retention.ms, x-max-age, fileReservedTime) that no cell waited for",
    ),
    "comes back": Word(
        figure=_stayed_away,
        about="after the heal the cluster became whole by itself (no cell is dead)",
        missed="the cluster did not come back by itself",
        not_proven="failures that no cell had",
    ),
}
