"""A cell's ledger, read back and joined: every attempted message with its fate, every receipt with its message.

Fates (design, section 5). There means: log: in the audit; queue, and a refused or returned message everywhere: in a
delivery or in the audit.
                      there                 not there
    acked             DELIVERED             LOST
    degraded          DELIVERED             LOST_DEGRADED
    unknown           RECOVERED             UNRESOLVED
    refused, returned PHANTOM (violation)   REFUSED
Rules:
- Never settled, or an outcome without `settled_ns` (torn by a kill): unknown. Without acknowledgements: acked and
  degraded are unknown too, for the client's word proves nothing there.
- While the audit is incomplete, no fate but PHANTOM is given. Complete: every reader said so, and every place has an
  acked fence, sent after the last heal and after the last message, that the audit holds.
- A corrupt receipt proves nothing. Foreign: flagged so, or of a message that was never sent. The runner's own messages
  are in no figure. Positions are sorted and compared, never used as indices: they may be sparse up to 2^63.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mqtest import ledger, pacing
from mqtest.columns import Columns
from mqtest.errors import LedgerError
from mqtest.fault_log import NO_FAULT
from mqtest.hdr import Interval
from mqtest.model import RUNNER, Flag, Kind, Outcome

Ints = NDArray[Any]
Bools = NDArray[np.bool_]


class Fate(IntEnum):
    """What became of one message."""

    OPEN = 0
    """not attempted, or not to be told because the audit is incomplete"""
    DELIVERED = 1
    LOST = 2
    LOST_DEGRADED = 3
    RECOVERED = 4
    UNRESOLVED = 5
    PHANTOM = 6
    REFUSED = 7


_ALL = 2**63 - 1
"""whatever the runner sent into the second topic is its own"""
_FATES: Mapping[Outcome, tuple[Fate, Fate]] = {
    Outcome.ACKED: (Fate.DELIVERED, Fate.LOST),
    Outcome.DEGRADED: (Fate.DELIVERED, Fate.LOST_DEGRADED),
    Outcome.UNKNOWN: (Fate.RECOVERED, Fate.UNRESOLVED),
    Outcome.REFUSED: (Fate.PHANTOM, Fate.REFUSED),
    Outcome.RETURNED: (Fate.PHANTOM, Fate.REFUSED),
}
"""outcome -> fate when there, fate when not"""


@dataclass(frozen=True, slots=True)
class Sends:
    """Columns over all producers of the workload, one row a sequence number, skipped ones too."""

    producer: Ints
    seq: Ints
    due_ns: Ints
    sent_ns: Ints
    """0: never sent"""
    settled_ns: Ints
    offset: Ints
    place: Ints
    outcome: Ints
    """by the rules above: an attempted message has one of ACKED, DEGRADED, REFUSED, UNKNOWN, RETURNED, others NONE"""
    epoch: Ints

    @property
    def attempted(self) -> Bools:
        """Messages that were sent."""
        attempted: Bools = self.sent_ns != 0
        return attempted

    @property
    def start_ns(self) -> Ints:
        """When a message was due (open loop), else sent: what a response time counts from."""
        return np.where(self.due_ns != 0, self.due_ns, self.sent_ns)


@dataclass(frozen=True, slots=True)
class Receipts:
    """Columns over all consumers, or all audit readers: receipts of messages of this cell's workload."""

    actor: Ints
    """number of the consumer or reader"""
    received_ns: Ints
    message: Ints
    """row in Sends"""
    place: Ints
    offset: Ints
    flags: Ints
    epoch: Ints
    """number of the consumer's connection or assignment"""

    def __len__(self) -> int:
        return len(self.message)


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """What transformers read and wrote; the messages are those of Sends, for an output has its source's name."""

    handed: Receipts
    """inputs that transformers were handed"""
    written: Receipts
    """the audit of the second topic"""
    strange: int
    """outputs that are corrupt, or of no message of this cell"""
    lines: tuple[str, ...]
    """up to 20 of these"""
    incomplete: str | None
    """why its audit is not complete, or None"""


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """One cell, ready to be checked."""

    cell: Mapping[str, Any]
    kind: Kind
    acknowledged: bool
    sends: Sends
    receipts: Receipts
    audit: Receipts
    held_place: Ints
    held_offset: Ints
    """every position that the audit holds, whoever's message is there"""
    there: Bools
    """one per row of Sends; a lower bound while the audit is incomplete"""
    fate: Ints
    foreign: int
    corrupt: int
    strangers: tuple[str, ...]
    """up to 20 foreign or corrupt receipts, one line each"""
    incomplete: str | None
    """why the audit is not complete, or None"""
    events: Sequence[Mapping[str, Any]]
    output: Output | None = None
    """None: the cell had no transformers"""
    pacing: Sequence[Interval] = ()
    """how late the producers were (pacing.py)"""

    def time_of(self, name: str) -> int | None:
        """When the phase began for the first time, or None."""
        return next((e["t_ns"] for e in self.events if e["event"] == "phase" and e.get("name") == name), None)

    def window(self, name: str) -> tuple[int, int] | None:
        """Begin of the phase and begin of the next one, or None when either is missing."""
        phases = [e for e in self.events if e["event"] == "phase"]
        for phase, following in pairwise(phases):
            if phase.get("name") == name:
                return phase["t_ns"], following["t_ns"]
        return None

    def fault_times(self, step: str) -> list[int]:
        """Times of the fault events of that step, in order."""
        return [e["t_ns"] for e in self.events if e["event"] == "fault" and e.get("step") == step]

    @property
    def first_injected(self) -> int | None:
        """When the first part of the fault was injected; None without a fault."""
        times = self.fault_times("injected")
        return times[0] if times and self.cell.get("fault", NO_FAULT) != NO_FAULT else None

    def count(self, fate: Fate) -> int | None:
        """Messages with that fate; None where it cannot be told (never so for PHANTOM)."""
        if self.incomplete is not None and fate is not Fate.PHANTOM:
            return None
        return int(np.count_nonzero(self.fate == fate))

    def name(self, message: int | np.integer[Any]) -> str:
        """`producer 0 seq 17`."""
        return f"producer {self.sends.producer[message]} seq {self.sends.seq[message]}"


def load(cell_dir: Path) -> History:
    """Read a cell's folder. Raises LedgerError naming the file that is missing or damaged."""
    cell = ledger.read_cell(cell_dir)
    kind, acknowledged = _kind(cell, cell_dir), bool(cell.get("acknowledged", True))
    events = ledger.load_events(ledger.events_path(cell_dir))
    folders = ledger.sends_folders(cell_dir)
    runner = ledger.load_sends(folders.pop(RUNNER)) if RUNNER in folders else None
    sends = _sends(folders, acknowledged)
    raw_receipts = _receipts(ledger.receipts_folders(cell_dir))
    raw_audit = _receipts(ledger.audit_folders(cell_dir))
    runner_rows = len(runner["sent_ns"]) if runner is not None else 0
    receipts, strange = _match(raw_receipts, sends, runner_rows, "delivery")
    audit, strange_audit = _match(raw_audit, sends, runner_rows, "audit")

    incomplete = _incomplete(cell, sends, runner, raw_audit, events)
    there, fate = _fates(sends, kind, receipts, audit, complete=incomplete is None)
    return History(
        cell=cell,
        kind=kind,
        acknowledged=acknowledged,
        sends=sends,
        receipts=receipts,
        audit=audit,
        held_place=raw_audit["place"],
        held_offset=raw_audit["offset"],
        there=there,
        fate=fate,
        foreign=strange.foreign + strange_audit.foreign,
        corrupt=strange.corrupt + strange_audit.corrupt,
        strangers=(strange.lines + strange_audit.lines)[:20],
        incomplete=incomplete,
        events=events,
        output=_output(cell, cell_dir, sends, events),
        pacing=pacing.load(cell_dir),
    )


def groups(*keys: Ints, by: int) -> tuple[Ints, Bools]:
    """Order by the keys, the first one most significant, equal rows in their old order; and, of the ordered rows, which
    begin a new combination of the first `by` keys."""
    order = np.lexsort(keys[::-1])
    new = np.zeros(len(order), dtype=np.bool_)
    new[:1] = True
    for key in keys[:by]:
        ordered = key[order]
        new[1:] |= ordered[1:] != ordered[:-1]
    return order, new


def _kind(cell: Mapping[str, Any], cell_dir: Path) -> Kind:
    try:
        return Kind(cell.get("kind", ""))
    except ValueError:
        raise LedgerError(
            f"{cell_dir / 'cell.json'}: kind: expected log or queue, found {cell.get('kind')!r}"
        ) from None


def _sends(folders: Mapping[int, Path], acknowledged: bool) -> Sends:
    loaded = {number: ledger.load_sends(folder) for number, folder in folders.items()}
    counts = [len(columns["sent_ns"]) for columns in loaded.values()]
    column = {name: _joined([c[name] for c in loaded.values()], dtype) for name, dtype in ledger.SENDS.items()}
    outcome = column["outcome"].copy()
    outcome[(column["settled_ns"] == 0) | (outcome == Outcome.NONE)] = Outcome.UNKNOWN
    if not acknowledged:
        outcome[(outcome == Outcome.ACKED) | (outcome == Outcome.DEGRADED)] = Outcome.UNKNOWN
    outcome[column["sent_ns"] == 0] = Outcome.NONE
    column["outcome"] = outcome
    return Sends(
        producer=np.repeat(np.array(list(loaded), dtype=np.int64), counts),
        seq=_joined([np.arange(n) for n in counts], "<i8"),
        **column,
    )


def _receipts(folders: Mapping[int, Path]) -> dict[str, Ints]:
    loaded = {number: ledger.load_receipts(folder) for number, folder in folders.items()}
    columns = {name: _joined([c[name] for c in loaded.values()], dtype) for name, dtype in ledger.RECEIPTS.items()}
    columns["actor"] = np.repeat(np.array(list(loaded), dtype=np.int64), [len(c["seq"]) for c in loaded.values()])
    return columns


def _joined(parts: Sequence[Ints], dtype: str) -> Ints:
    return np.concatenate(parts) if parts else np.zeros(0, dtype=dtype)


def _output(
    cell: Mapping[str, Any], cell_dir: Path, sends: Sends, events: Sequence[Mapping[str, Any]]
) -> Output | None:
    if not (cell.get("workload") or {}).get("transformers"):
        return None
    handed, _ = _match(_receipts(ledger.transforms_folders(cell_dir)), sends, _ALL, "input")
    written, strange = _match(_receipts(ledger.output_folders(cell_dir)), sends, _ALL, "output")
    readers = [e for e in events if e["event"] == "output"]
    cut_off = [str(e.get("why") or "not complete") for e in readers if e.get("complete") is not True]
    return Output(
        handed=handed,
        written=written,
        strange=strange.foreign + strange.corrupt,
        lines=strange.lines,
        incomplete=None if readers and not cut_off else "; ".join(cut_off) or "no reader of the output ended",
    )


@dataclass(frozen=True, slots=True)
class _Strange:
    foreign: int
    corrupt: int
    lines: tuple[str, ...]


def _match(raw: Mapping[str, Ints], sends: Sends, runner_rows: int, what: str) -> tuple[Receipts, _Strange]:
    """Receipts joined with their messages, without the runner's; and those that belong to no message."""
    corrupt = (raw["flags"] & Flag.CORRUPT) != 0
    flagged = (raw["flags"] & Flag.FOREIGN) != 0
    seq, producer = raw["seq"], raw["producer"].astype(np.int64)
    runners = ~corrupt & ~flagged & (producer == RUNNER) & (seq >= 0) & (seq < runner_rows)
    message = np.full(len(seq), -1, dtype=np.int64)
    if len(sends.seq):
        # rows of one producer lie together, in the order of their seq, so its first row + seq is the message
        starts = np.flatnonzero(sends.seq == 0)
        numbers, sizes = sends.producer[starts], np.diff(starts, append=len(sends.seq))
        which = np.minimum(np.searchsorted(numbers, producer), len(numbers) - 1)
        known = (numbers[which] == producer) & (seq >= 0) & (seq < sizes[which]) & ~corrupt & ~flagged
        message[known] = starts[which[known]] + seq[known]
        message[known] = np.where(sends.sent_ns[message[known]] != 0, message[known], -1)
    foreign = ~corrupt & ~runners & (message < 0)
    lines = [
        f"{what}: {'corrupt' if corrupt[i] else f'producer {producer[i]} seq {seq[i]}, never sent'}"
        f" at place {raw['place'][i]} offset {raw['offset'][i]}"
        for i in np.flatnonzero(foreign | corrupt)[:20]
    ]
    known = message >= 0
    receipts = Receipts(
        message=message[known],
        **{name: raw[name][known] for name in ("actor", "received_ns", "place", "offset", "flags", "epoch")},
    )
    return receipts, _Strange(int(foreign.sum()), int(corrupt.sum()), tuple(lines))


def _incomplete(
    cell: Mapping[str, Any],
    sends: Sends,
    runner: Columns | None,
    audit: Mapping[str, Ints],
    events: Sequence[Mapping[str, Any]],
) -> str | None:
    """Why the audit is not complete, or None."""
    readers = [e for e in events if e["event"] == "audit"]
    if not readers:
        return "no reader of the audit ended"
    for event in readers:
        if event.get("complete") is not True:
            return f"audit reader {event.get('reader')}: {event.get('why') or 'not complete'}"
    if len({str(e.get("reader")) for e in readers}) < len(np.unique(audit["actor"])):
        return "an audit reader did not end"
    places = set(range(int((cell.get("workload") or {}).get("places") or 1)))
    places |= {int(p) for p in np.unique(sends.place[sends.attempted]) if p >= 0}
    healed = [e["t_ns"] for e in events if e["event"] == "fault" and e.get("step") == "healed"]
    after = max([int(sends.sent_ns.max(initial=0)), *healed])
    for place in sorted(places):
        reason = _fence_missing(place, after, runner, audit)
        if reason:
            return reason
    return None


def _fence_missing(place: int, after_ns: int, runner: Columns | None, audit: Mapping[str, Ints]) -> str | None:
    """The fence of a place: the newest message of the runner that was acked there."""
    fences: Ints = np.zeros(0, dtype=np.int64)
    if runner is not None:
        acked = (runner["outcome"] == Outcome.ACKED) & (runner["settled_ns"] != 0)
        fences = np.flatnonzero(acked & (runner["place"] == place) & (runner["sent_ns"] > after_ns))
    if not len(fences):
        return f"place {place} has no acknowledged fence after the load and the heal"
    held = (audit["producer"] == RUNNER) & (audit["seq"] == fences[-1]) & (audit["place"] == place)
    held &= (audit["flags"] & (Flag.CORRUPT | Flag.FOREIGN)) == 0
    return None if held.any() else f"the audit does not hold the fence of place {place}"


def _fates(sends: Sends, kind: Kind, receipts: Receipts, audit: Receipts, *, complete: bool) -> tuple[Bools, Ints]:
    in_audit = np.zeros(len(sends.seq), dtype=np.bool_)
    in_audit[audit.message] = True
    anywhere = in_audit.copy()
    anywhere[receipts.message] = True
    there = in_audit if kind is Kind.LOG else anywhere
    fate = np.full(len(sends.seq), Fate.OPEN, dtype=np.uint8)
    for outcome, (when_there, when_not) in _FATES.items():
        mine = sends.outcome == outcome
        seen = anywhere if when_there is Fate.PHANTOM else there
        fate[mine] = np.where(seen[mine], when_there, when_not)
    assert np.array_equal(fate != Fate.OPEN, sends.attempted), "every attempted message has exactly one fate"
    if not complete:
        fate[fate != Fate.PHANTOM] = Fate.OPEN
    return there, fate
