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

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from mqtest import ledger, pacing
from mqtest.columns import Columns
from mqtest.deliveries import Delivered, ack_times, delivery_times, over
from mqtest.errors import LedgerError
from mqtest.event_log import events_path, load_events
from mqtest.fates import AUDITED, ODD, RECEIVED, WRITTEN, Fate, fates, there
from mqtest.fault_log import NO_FAULT
from mqtest.hdr import Interval
from mqtest.jobs import OLD
from mqtest.model import LOAD_PHASE, RUNNER, Flag, Kind, Outcome
from mqtest.pieces import find
from mqtest.replayed import Jobs, cut_off, load_jobs, reach
from mqtest.series import EXACT, Series
from mqtest.sift import Picked, Rows, Sift, Tables
from mqtest.tables import Bools, Ints, Messages, Receipts, Sends, groups, slices

T = TypeVar("T")
_MOST_LINES = 20


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
    reach: Mapping[int, int] | None = None
    """of a job that stopped: place -> position of the last input that it was handed; None: of one that had them all"""


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """One cell, ready to be checked.

    `sends`, and the receipts of them, are the messages that have to be looked at (sift.py). What is to be known of all
    messages is in `tally`, in the times, and in what `over_sends` and its like come to.
    """

    cell: Mapping[str, Any]
    kind: Kind
    acknowledged: bool
    messages: Messages
    """all of them"""
    tally: Ints
    """of all of them: how many there are of each state (fates.py)"""
    consumed: Tables
    looked_at: Ints
    """which messages `sends` are"""
    sends: Sends
    receipts: Receipts
    audit: Receipts
    held_place: Ints
    held_offset: Ints
    """positions that the audit holds, whoever's message is there: the highest of each place, and all that a row of
    `sends` or `receipts` has, among others"""
    there: Bools
    """one per row of Sends; a lower bound while the audit is incomplete"""
    fate: Ints
    ack_times: Mapping[int, Series]
    """of all acked messages, by place; an empty one where something was sent and nothing acked"""
    delivery_times: Mapping[int, Series]
    """of all receipts, by place"""
    foreign: int
    corrupt: int
    strangers: tuple[str, ...]
    """up to 20 foreign or corrupt receipts, one line each"""
    incomplete: str | None
    """why the audit is not complete, or None"""
    events: Sequence[Mapping[str, Any]]
    output: Output | None = None
    """None: the cell had no transformers, or was a replay of a queue; in a replay, of the old job"""
    jobs: Jobs | None = None
    """None: the cell was no replay"""
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

    @property
    def loads(self) -> list[str]:
        """The phases at a share of what a search found, in order."""
        names = [str(e.get("name")) for e in self.events if e["event"] == "phase"]
        return [name for name in names if name.startswith(LOAD_PHASE)]

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
        return self.total(fates(self.kind, complete=self.incomplete is None) == fate)

    def total(self, states: Bools) -> int:
        """How many of all messages are in one of these states."""
        return int(self.tally[states].sum())

    def over_sends(self, measure: Callable[[Sends], T]) -> Iterator[T]:
        """What the function comes to for each slice of all messages, in their order."""
        return self.messages.over(measure)

    def over_receipts(self, measure: Callable[[Delivered], T]) -> Iterator[T]:
        """Likewise for each slice of all receipts."""
        return over(self.messages, self.consumed, measure)

    def over_first_receipts(self, measure: Callable[[Delivered], T]) -> Iterator[T]:
        """Likewise of the first receipt of each message."""
        read = self.receipts
        order, new = groups(read.message, read.received_ns, by=1)
        first = order[new]
        own = Delivered(read.place[first], read.received_ns[first], self.messages, self.looked_at[read.message[first]])
        yield measure(own)
        yield from over(self.messages, self.consumed, measure, leave_out=ODD)

    def name(self, message: int | np.integer[Any]) -> str:
        """`producer 0 seq 17`."""
        return f"producer {self.sends.producer[message]} seq {self.sends.seq[message]}"


def load(cell_dir: Path, *, closely: bool = False) -> History:
    """Read a cell's folder; `closely`: every message is looked at, whatever it takes. Raises LedgerError naming the
    file that is missing or damaged."""
    cell = ledger.read_cell(cell_dir)
    kind, acknowledged = _kind(cell, cell_dir), bool(cell.get("acknowledged", True))
    events = load_events(events_path(cell_dir))
    folders = ledger.sends_folders(cell_dir)
    runner = ledger.load_sends(folders.pop(RUNNER)) if RUNNER in folders else None
    messages = Messages({n: ledger.load_sends(f) for n, f in folders.items()}, acknowledged=acknowledged)
    jobs = load_jobs(cell_dir, cell, events) if cell.get("replay") else None
    consumed, audited, handed, written = _sides(cell_dir, kind, jobs)
    sift = Sift(messages, kind)
    sift.read(RECEIVED, consumed, _counted_ns(events))
    strange = sift.read(AUDITED, audited)
    pipeline = bool((cell.get("workload") or {}).get("transformers")) and (jobs is None or kind is Kind.LOG)
    if pipeline:
        sift.read(WRITTEN, written)
    readers = sum(len(table["seq"]) > 0 for table in audited.values())
    incomplete = _incomplete(cell, messages, runner, _raw(audited, strange), readers, events)
    picked = sift.pick(
        complete=incomplete is None,
        acknowledged=acknowledged,
        committed=said_by_place(events, "places"),
        handed=handed if pipeline else {},
        closely=closely,
    )
    runner_rows = len(runner["sent_ns"]) if runner is not None else 0
    raw_audit = _raw(audited, picked.audit)
    match = _Match(messages, picked.messages, runner_rows)
    receipts, audit = match(_raw(consumed, picked.receipts), "delivery"), match(raw_audit, "audit")
    state = messages.state[picked.messages]
    exact = len(messages) <= EXACT
    return History(
        cell=cell,
        kind=kind,
        acknowledged=acknowledged,
        messages=messages,
        tally=sum((np.bincount(messages.state[s], minlength=256) for s in slices(len(messages))), np.zeros(256, int)),
        consumed=consumed,
        looked_at=picked.messages,
        sends=messages.of(picked.messages),
        receipts=receipts.receipts,
        audit=audit.receipts,
        held_place=raw_audit["place"],
        held_offset=raw_audit["offset"],
        there=there(kind)[state],
        fate=fates(kind, complete=incomplete is None)[state],
        ack_times=ack_times(messages, exact),
        delivery_times=delivery_times(messages, consumed, exact),
        foreign=receipts.foreign + audit.foreign,
        corrupt=receipts.corrupt + audit.corrupt,
        strangers=(receipts.lines + audit.lines)[:_MOST_LINES],
        incomplete=incomplete,
        events=events,
        output=_output(match, handed, written, picked, events, jobs) if pipeline else None,
        jobs=jobs,
        pacing=pacing.load(cell_dir),
    )


def _sides(cell_dir: Path, kind: Kind, jobs: Jobs | None) -> tuple[Tables, Tables, Tables, Tables]:
    """What consumers received and the audit read; what transformers were handed and wrote, in a replay the old job's.
    The jobs are the consumers of a queue."""
    consumed, audited, handed, written = (
        {number: ledger.load_receipts(folder) for number, folder in named(cell_dir).items()}
        for named in (ledger.receipts_folders, ledger.audit_folders, ledger.transforms_folders, ledger.output_folders)
    )
    if jobs is None:
        return consumed, audited, handed, written
    old_handed, old_written = ({n: t for n, t in side.items() if n == OLD} for side in (handed, written))
    return handed if kind is Kind.QUEUE else consumed, audited, old_handed, old_written


def said_by_place(events: Sequence[Mapping[str, Any]], key: str) -> dict[int, int]:
    """What the last `committed` event says of each place, under `places` or `ends`."""
    said: Mapping[str, Any] = {}
    for event in events:
        if event["event"] == "committed":
            said = event.get(key) or {}
    return {int(place): int(offset) for place, offset in said.items() if offset is not None}


def counted(events: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """The last event with what the broker counted after the drain; None when it did not say."""
    found = [e for e in events if e["event"] == "counts" and e.get("when") == "drained"]
    said = found[-1].get("totals") or {} if found else {}
    return found[-1] if "ready" in said and "unacked" in said else None


def _counted_ns(events: Sequence[Mapping[str, Any]]) -> int:
    event = counted(events)
    return event["t_ns"] if event else 0


def _kind(cell: Mapping[str, Any], cell_dir: Path) -> Kind:
    try:
        return Kind(cell.get("kind", ""))
    except ValueError:
        raise LedgerError(
            f"{cell_dir / 'cell.json'}: kind: expected log or queue, found {cell.get('kind')!r}"
        ) from None


def _raw(tables: Tables, rows: Rows) -> dict[str, Ints]:
    """Those rows of all tables of a side, as one; `actor` says whose each was."""
    picked = {number: rows.get(number, _NONE) for number in tables}
    columns = {
        name: np.concatenate([np.zeros(0, dtype), *(tables[n][name][mine] for n, mine in picked.items())])
        for name, dtype in ledger.RECEIPTS.items()
    }
    return columns | {"actor": np.repeat(np.array(list(picked), dtype=np.int64), [len(r) for r in picked.values()])}


_NONE = np.zeros(0, dtype=np.int64)


def _output(
    match: _Match,
    handed: Tables,
    written: Tables,
    picked: Picked,
    events: Sequence[Mapping[str, Any]],
    jobs: Jobs | None,
) -> Output:
    match = replace(match, runner_rows=_ALL)
    outputs = match(_raw(written, picked.written), "output")
    return Output(
        handed=match(_raw(handed, picked.handed), "input").receipts,
        written=outputs.receipts,
        strange=outputs.foreign + outputs.corrupt,
        lines=outputs.lines,
        incomplete=jobs.incomplete[OLD] if jobs else cut_off(e for e in events if e["event"] == "output"),
        reach=reach(jobs.handed.get(OLD)) if jobs and jobs.stopped else None,
    )


_ALL = 2**63 - 1
"""whatever the runner sent into the second topic is its own"""


@dataclass(frozen=True, slots=True)
class _Matched:
    receipts: Receipts
    foreign: int
    corrupt: int
    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Match:
    """Joins receipts with the messages that are looked at."""

    messages: Messages
    looked_at: Ints
    runner_rows: int
    """how many messages the runner sent"""

    def __call__(self, raw: Mapping[str, Ints], what: str) -> _Matched:
        """The receipts of messages, without the runner's; and those that belong to no message."""
        corrupt = (raw["flags"] & Flag.CORRUPT) != 0
        flagged = (raw["flags"] & Flag.FOREIGN) != 0
        seq, producer = raw["seq"], raw["producer"].astype(np.int64)
        runners = ~corrupt & ~flagged & (producer == RUNNER) & (seq >= 0) & (seq < self.runner_rows)
        ids = find(self.messages, raw, slice(None))
        known = ids >= 0
        foreign = ~corrupt & ~runners & ~known
        lines = (
            f"{what}: {'corrupt' if corrupt[i] else f'producer {producer[i]} seq {seq[i]}, never sent'}"
            f" at place {raw['place'][i]} offset {raw['offset'][i]}"
            for i in np.flatnonzero(foreign | corrupt)[:_MOST_LINES]
        )
        receipts = Receipts(
            message=np.searchsorted(self.looked_at, ids[known]),
            **{name: raw[name][known] for name in ("actor", "received_ns", "place", "offset", "flags", "epoch")},
        )
        return _Matched(receipts, int(foreign.sum()), int(corrupt.sum()), tuple(lines))


def _incomplete(
    cell: Mapping[str, Any],
    messages: Messages,
    runner: Columns | None,
    strange: Mapping[str, Ints],
    readers_seen: int,
    events: Sequence[Mapping[str, Any]],
) -> str | None:
    """Why the audit is not complete, or None. `strange`: rows of the audit that are of no message of the workload."""
    readers = [e for e in events if e["event"] == "audit"]
    if not readers:
        return "no reader of the audit ended"
    for event in readers:
        if event.get("complete") is not True:
            return f"audit reader {event.get('reader')}: {event.get('why') or 'not complete'}"
    if len({str(e.get("reader")) for e in readers}) < readers_seen:
        return "an audit reader did not end"
    places = set(range(int((cell.get("workload") or {}).get("places") or 1)))
    places |= {int(p) for p in messages.places if p >= 0}
    healed = [e["t_ns"] for e in events if e["event"] == "fault" and e.get("step") == "healed"]
    after = max([messages.last_sent_ns, *healed])
    for place in sorted(places):
        reason = _fence_missing(place, after, runner, strange)
        if reason:
            return reason
    return None


def _fence_missing(place: int, after_ns: int, runner: Columns | None, strange: Mapping[str, Ints]) -> str | None:
    """The fence of a place: the newest message of the runner that was acked there."""
    fences: Ints = np.zeros(0, dtype=np.int64)
    if runner is not None:
        acked = (runner["outcome"][:] == Outcome.ACKED) & (runner["settled_ns"][:] != 0)
        fences = np.flatnonzero(acked & (runner["place"][:] == place) & (runner["sent_ns"][:] > after_ns))
    if not len(fences):
        return f"place {place} has no acknowledged fence after the load and the heal"
    held = (strange["producer"] == RUNNER) & (strange["seq"] == fences[-1]) & (strange["place"] == place)
    held &= (strange["flags"] & (Flag.CORRUPT | Flag.FOREIGN)) == 0
    return None if held.any() else f"the audit does not hold the fence of place {place}"
