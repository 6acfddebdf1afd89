"""A user's own test → what the broker kept, and what the user's consumers did with it. Needs only the cell's files.

The broker is judged as in any cell. Of each acknowledged message that nobody processed (`processed.<n>`, see
user_ledger.py) this says what became of it:
    lost     the broker has it no more, and gave it to no consumer (of a log: has it no more)
    missed   the broker was told that it is done with: a log's group has committed a position beyond it, a queue gave it
             to a consumer and has it no more. No consumer will ever be given it again.
    left     the broker would still give it to a consumer
Where a broker keeps no positions of the group, a log's consumers came as far as their last processed message. While the
audit is not complete none of them is told (None).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mqtest import history as histories
from mqtest.fates import Fate
from mqtest.history import History, said_by_place
from mqtest.judge import judge
from mqtest.ledger import load_receipts, processed_folders
from mqtest.model import Finding, Flag, Kind, Outcome, Verdict
from mqtest.tables import Bools, Ints

_MOST = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """What came of a test. A figure is None where it cannot be told."""

    verdict: Verdict
    """on the broker, against the promise of its profile"""
    reason: str
    sent: int
    acked: int
    processed: int
    """messages, however often"""
    processed_again: int
    """those of them whose work was done more than once"""
    lost: int | None
    missed: int | None
    left: int | None
    redelivered: int
    """deliveries after the first of a message, with the broker's flag and without; of a queue, the audit's too"""
    examples: tuple[str, ...]
    """of missed ones"""
    findings: tuple[Finding, ...]
    row: Mapping[str, Any]
    """every figure, as in results.csv"""
    folder: Path
    """`mqtest check` takes it"""

    def __str__(self) -> str:
        """Some lines for a person."""
        known = {name: getattr(self, name) for name in ("lost", "missed", "left")}
        figures = [f"sent {self.sent}", f"acked {self.acked}", f"processed {self.processed}"]
        figures += [f"{name} {'unknown' if value is None else value}" for name, value in known.items()]
        figures += [f"processed again {self.processed_again}", f"redelivered {self.redelivered}"]
        lines = []
        if self.missed:
            lines.append(
                f"{self.missed} acknowledged messages were missed: a consumer told the broker that it is done with "
                "them, and nobody ever processed them. Does it commit (acknowledge) before its work is done?"
            )
            lines += [f"  {line}" for line in self.examples]
        lines += [f"the broker: {self.verdict} ({self.reason})", ", ".join(figures), f"ledger: {self.folder}"]
        return "\n".join(lines)

    def assert_kept(self) -> None:
        """Raises AssertionError unless the broker kept what it promises and lost nothing, and no consumer missed
        anything. A test that proves nothing (`unknown`, `invalid`) fails as well."""
        __tracebackhide__ = True
        if self.verdict is not Verdict.KEPT or self.missed or self.missed is None:
            raise AssertionError(str(self))


def judge_user(cell_dir: Path) -> Judged:
    """Judge the test in this folder; raises LedgerError for files that cannot be read."""
    judgement = judge(cell_dir)
    history = histories.load(cell_dir, closely=True)
    times = _times_processed(cell_dir, history)
    acked = history.sends.outcome == Outcome.ACKED
    complete = history.incomplete is None
    idle = acked & (times == 0)
    missed, examples = _missed(history, idle) if complete else (np.zeros(len(acked), dtype=np.bool_), ())
    row = judgement.row
    lost = history.fate == Fate.LOST
    return Judged(
        verdict=judgement.verdict,
        reason=judgement.reason,
        sent=len(acked),
        acked=int(acked.sum()),
        processed=int((times > 0).sum()),
        processed_again=int((times > 1).sum()),
        lost=int(lost.sum()) if complete else None,
        missed=int(missed.sum()) if complete else None,
        left=int((idle & ~missed & ~lost).sum()) if complete else None,
        redelivered=sum(row[name] or 0 for name in ("redelivered", "redelivered_unflagged")),
        examples=examples,
        findings=judgement.findings,
        row=row,
        folder=cell_dir,
    )


def _times_processed(cell_dir: Path, history: History) -> Ints:
    """How often each message was."""
    sends = history.sends
    rows = {(p, s): n for n, (p, s) in enumerate(zip(sends.producer.tolist(), sends.seq.tolist(), strict=True))}
    times = np.zeros(len(rows), dtype=np.int64)
    for folder in processed_folders(cell_dir).values():
        done = load_receipts(folder)
        own = (np.asarray(done["flags"]) & (Flag.CORRUPT | Flag.FOREIGN)) == 0
        for name in zip(done["producer"][own].tolist(), done["seq"][own].tolist(), strict=True):
            if name in rows:
                times[rows[name]] += 1
    return times


def _missed(history: History, idle: Bools) -> tuple[Bools, tuple[str, ...]]:
    """Which of the idle messages nobody will be given again, and a line for some of them."""
    audited = np.zeros(len(idle), dtype=np.bool_)
    audited[history.audit.message] = True
    missed = np.zeros(len(idle), dtype=np.bool_)
    if history.kind is Kind.QUEUE:
        missed[history.receipts.message] = True
        missed &= idle & ~audited
        return missed, _lines(f"{history.name(m)}, given to a consumer" for m in np.flatnonzero(missed))
    audit = history.audit
    reach = said_by_place(history.events, "places") or _read_up_to(history)
    for place, end in reach.items():
        missed[audit.message[(audit.place == place) & (audit.offset < end)]] = True
    missed &= idle
    at = {int(m): (int(p), int(o)) for m, p, o in zip(audit.message, audit.place, audit.offset, strict=True)}
    return missed, _lines(
        f"{history.name(m)} at place {at[int(m)][0]} offset {at[int(m)][1]}, the group is at {reach[at[int(m)][0]]}"
        for m in np.flatnonzero(missed)
    )


def _read_up_to(history: History) -> dict[int, int]:
    read = history.receipts
    return {int(p): int(read.offset[read.place == p].max()) + 1 for p in np.unique(read.place)}


def _lines(every: Any) -> tuple[str, ...]:
    found: Sequence[str] = list(every)
    more = [f"and {len(found) - _MOST} more"] if len(found) > _MOST else []
    return (*found[:_MOST], *more)
