"""What the jobs of a replay read and wrote, as it lies in the ledger; and how often each message is in it.

The old job is number OLD, the new one NEW (jobs.py). Everything is read in slices; what is kept of each message is a
small number, so that the memory of a judge stays bounded.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mqtest import ledger
from mqtest.columns import Columns
from mqtest.job_ledger import load_totals
from mqtest.jobs import JOBS, NEW, OLD
from mqtest.model import Flag
from mqtest.pieces import Piece, take_apart
from mqtest.tables import Bools, Ints, Messages, slices

Tables = Mapping[int, Columns]


@dataclass(frozen=True, slots=True, kw_only=True)
class Jobs:
    """By the number of the job, where there is one."""

    keys: int
    window_s: float
    handed: Tables
    """inputs, in the order in which the job got them"""
    written: Tables
    """the audit of its output"""
    shown: Tables
    """what a live reader of its output saw, and when"""
    totals: Tables
    """what the output comes to (job_ledger.py); not of a queue"""
    tables: Tables
    """what a dashboard's table, fed from its output, answers (dashboard.py)"""
    audited: Tables
    """of the topic that jobs read, by the number of the reader"""
    incomplete: Mapping[int, str | None]
    """why nothing can be said of what its output lacks, or None: the audit of it is not complete, or the new job had
    not read everything when the time for that was over"""
    stopped: bool
    """whether the old job was stopped, after the switch"""

    @property
    def unread(self) -> str | None:
        """Why the outputs cannot be judged whole, or None."""
        names = {OLD: "the old job", NEW: "the new job"}
        return next((f"{names[n]}: {why}" for n, why in self.incomplete.items() if why), None)


def load_jobs(cell_dir: Path, cell: Mapping[str, Any], events: Sequence[Mapping[str, Any]]) -> Jobs:
    """Raises LedgerError naming a file that is missing or damaged."""
    said: Mapping[str, Any] = cell["replay"]
    tables = {
        name: {n: ledger.load_receipts(folder) for n, folder in ledger.folders(cell_dir, name).items()}
        for name in ("transforms", "output", "shown", "audit")
    }
    ends = {n: [e for e in events if e["event"] == "output" and e.get("reader") == n] for n in range(JOBS)}
    incomplete = {n: cut_off(found) for n, found in ends.items()}
    late = [str(e.get("why")) for e in events if e["event"] == "transformed" and e.get("complete") is False]
    incomplete[NEW] = incomplete[NEW] or (late[-1] if late else None)
    return Jobs(
        keys=int(said["keys"]),
        window_s=float(said["window_s"]),
        handed=tables["transforms"],
        written=tables["output"],
        shown=tables["shown"],
        totals=_totals(cell_dir, "totals"),
        tables=_totals(cell_dir, "table"),
        audited=tables["audit"],
        incomplete=incomplete,
        stopped=any(e["event"] == "job" and e.get("job") == OLD and e.get("step") == "stopped" for e in events),
    )


def _totals(cell_dir: Path, name: str) -> Tables:
    return {n: load_totals(folder) for n, folder in ledger.folders(cell_dir, name).items()}


def cut_off(readers: Iterable[Mapping[str, Any]]) -> str | None:
    """Why these readers of outputs, by the events of their ends, have not read everything, or None."""
    ended = list(readers)
    why = [str(e.get("why") or "not complete") for e in ended if e.get("complete") is not True]
    return None if ended and not why else "; ".join(why) or "no reader of the output ended"


def times_there(messages: Messages, tables: Iterable[Columns], *, is_log: bool) -> Ints:
    """How often each message is in what was read: at how many positions of a log; of a queue, how often it was
    delivered without the flag of a redelivery. What a reader read that began anew (a later epoch) counts once."""
    found: Ints = np.zeros(len(messages), dtype=np.int32)
    for table in tables:
        for piece, mine in _once(messages, table) if is_log else _unflagged(messages, table):
            numbers = piece.message_numbers(messages)
            if piece.rising:  # and so none of them stands there twice
                found[numbers[mine]] += 1
            else:
                np.add.at(found, numbers[mine], 1)
    return found


def pieces(messages: Messages, table: Columns) -> Iterator[Piece]:
    """A table of receipts, by message."""
    for rows in slices(len(table["seq"])):
        yield from take_apart(messages, table, rows).pieces


def reach(table: Columns | None) -> dict[int, int]:
    """Place -> the highest position in it."""
    found: dict[int, int] = {}
    for rows in slices(0 if table is None else len(table["seq"])):
        assert table is not None
        place, offset = table["place"][rows], table["offset"][rows]
        for number in np.unique(place).tolist():
            found[number] = max(found.get(number, -1), int(offset[place == number].max()))
    return found


def _once(messages: Messages, table: Columns) -> Iterator[tuple[Piece, Bools]]:
    """Pieces, and which of their rows are of positions that no earlier epoch had."""
    had = _had_before(table)
    for piece in pieces(messages, table):
        offset, epochs = table["offset"][piece.rows], table["epoch"][piece.rows]
        mine: Bools = np.ones(len(offset), dtype=np.bool_)
        for (epoch, place), last in had.items():
            if place == piece.place:
                mine &= (epochs != epoch) | (offset > last)
        yield piece, mine


def _had_before(table: Columns) -> dict[tuple[int, int], int]:
    """(epoch, place) -> the highest position of the place that earlier epochs had; only where there was one."""
    highest: dict[tuple[int, int], int] = {}
    for rows in slices(len(table["seq"])):
        epochs, place, offset = table["epoch"][rows], table["place"][rows], table["offset"][rows]
        for number in np.unique(epochs).tolist():
            for where in np.unique(place[epochs == number]).tolist():
                key = int(number), int(where)
                top = int(offset[(epochs == number) & (place == where)].max())
                highest[key] = max(top, highest.get(key, -1))
    found = {}
    for key in highest:
        earlier = [last for (epoch, place), last in highest.items() if place == key[1] and epoch < key[0]]
        if earlier:
            found[key] = max(earlier)
    return found


def _unflagged(messages: Messages, table: Columns) -> Iterator[tuple[Piece, Bools]]:
    for piece in pieces(messages, table):
        yield piece, (table["flags"][piece.rows] & Flag.REDELIVERED) == 0
