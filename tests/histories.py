"""Literal cells: a few rows of each ledger, written by the real writers into a folder, ready to be judged.

    folder = write_cell_folder(tmp_path, sends=[Sent(0), Sent(1, Outcome.UNKNOWN)], audit=[Got(0)])

By default: a log with one place, no fault, a complete audit with its fence, a promise of everything. Times are in
seconds from 1000 s (`at(12.5)`), so that they read well; the load lasts from 0 to 30, the fence comes at 40.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from mqtest import ledger
from mqtest.event_log import EventsWriter, events_path
from mqtest.history import History, load
from mqtest.model import NOBODY, RUNNER, Flag, Kind, Outcome
from mqtest.pacing import PacingWriter, path_of

FENCE_OFFSET = 2**62
"""where the fences of a literal log stand: after everything, and sparse"""

PROMISE: Mapping[str, Any] = {"survives": ["none"], "duplicates": "none", "order": "place", "source": "a test"}


def at(seconds: float) -> int:
    """A time of the ledger, in ns."""
    return round((1000 + seconds) * 1_000_000_000)


T = TypeVar("T")


def told(tell: Callable[[History], T], folder: Path) -> T:
    """What a check or its like says of a cell; the same whether every message is looked at, or those sifted out."""
    said = tell(load(folder))
    assert said == tell(load(folder, closely=True))
    return said


class Sent(NamedTuple):
    """One send. By default acked at the offset of its seq, due and sent at seq/10 s, settled 10 ms later."""

    seq: int
    outcome: Outcome = Outcome.ACKED
    offset: int | None = None
    producer: int = 0
    place: int = 0
    due_s: float | None = None
    sent_s: float | None = None
    settled_s: float | None = None
    settled: bool = True
    closed_loop: bool = False
    epoch: int = 0


class Skipped(NamedTuple):
    """One message that fell due and was never sent."""

    seq: int
    producer: int = 0
    due_s: float = 1.0


class Got(NamedTuple):
    """One receipt. By default at the offset of its seq."""

    seq: int
    offset: int | None = None
    producer: int = 0
    place: int = 0
    flags: Flag = Flag(0)
    actor: int = 0
    received_s: float | None = None
    epoch: int = 0


CORRUPT = Got(-1, offset=77, producer=NOBODY, flags=Flag.CORRUPT)
FOREIGN = Got(0, offset=78, flags=Flag.FOREIGN)


def phases(*, fault: bool = False) -> list[dict[str, Any]]:
    """The phase events of a whole cell: warm-up 0, steady 2, fault 10, heal 16, recover 17, drain 30, audit 35."""
    names = {"warm-up": 0.0, "steady": 2.0, "drain": 30.0, "audit": 35.0}
    if fault:
        names |= {"fault": 10.0, "heal": 16.0, "recover": 17.0, "after": 20.0}
    ordered = sorted(names.items(), key=lambda item: item[1])
    return [{"t_ns": at(t), "event": "phase", "name": name} for name, t in ordered]


def fault_events(action: str = "kill", target: str = "leader", evidence: object = "exit 137") -> list[dict[str, Any]]:
    """Injected at 10.1 s, healed at 17 s, recovered at 19.5 s; evidence None or empty: it did not bite."""
    proof = {"seen": evidence} if evidence else {}
    common: dict[str, Any] = {"event": "fault", "action": action, "target": [target]}
    return [
        {"t_ns": at(10.0), **common, "step": "inject"},
        {"t_ns": at(10.1), **common, "step": "injected", "evidence": proof},
        {"t_ns": at(16.0), **common, "step": "heal"},
        {"t_ns": at(19.5), "event": "recovered", "stage": "ready"},
        {"t_ns": at(17.0), **common, "step": "healed", "evidence": {}},
    ]


def write_cell_folder(
    tmp_path: Path,
    *,
    sends: Iterable[Sent | Skipped] = (),
    receipts: Iterable[Got] = (),
    audit: Iterable[Got] = (),
    events: Sequence[Mapping[str, Any]] = (),
    kind: Kind = Kind.LOG,
    fault: str = "none",
    bit: bool = True,
    complete: bool = True,
    fences: bool = True,
    consume: str = "after-heal",
    places: int = 1,
    handed: Iterable[Got] = (),
    outputs: Iterable[Got] | None = None,
    output_readers: Sequence[bool] | None = None,
    shown: Iterable[Got] = (),
    lags: Iterable[tuple[float, int, float]] = (),
    **record: Any,
) -> Path:
    """Write one cell; `events` come on top of the phases, the fault and the audit; `record` overlays cell.json.
    With `outputs` (None: no transformers) the cell is a pipeline that was `handed` some inputs; `output_readers`: of
    each reader of the outputs, whether it is complete (None: one, as the audit is). In a replay (`replay=` in the
    record) the actors of these are the jobs, and live readers were `shown` outputs. `lags`: a due time, how many
    messages fell due from there on, 10 a second, and by how many ms our own load noticed each late."""
    folder = tmp_path / "cells" / "001-memory-kept-none-1"
    folder.mkdir(parents=True)
    audited = list(audit)
    _write_sends(folder, sends)
    _write_receipts(folder, "receipts", receipts, first_s=31.0)
    if fences:
        fence_sends = [Sent(p, place=p, producer=RUNNER, offset=FENCE_OFFSET, sent_s=40.0) for p in range(places)]
        _write_sends(folder, fence_sends)
        audited += [Got(p, offset=FENCE_OFFSET, producer=RUNNER, place=p, received_s=42.0) for p in range(places)]
    _write_lags(folder, lags)
    _write_receipts(folder, "audit", audited, first_s=41.0)
    action, _, target = fault.partition(":")
    happened = fault_events(action, target, "bit" if bit else None) if fault != "none" else []
    ended = {
        "t_ns": at(45),
        "event": "audit",
        "reader": 0,
        "complete": complete,
        "why": None if complete else "cut off",
    }
    writer = EventsWriter(events_path(folder))
    readers = [complete] if output_readers is None else output_readers
    numbered = enumerate(readers if outputs is not None else ())
    pipeline = [{**ended, "event": "output", "reader": number, "complete": c} for number, c in numbered]
    for event in [*phases(fault=fault != "none"), *happened, *events, ended, *pipeline]:
        writer.write(**event)
    writer.close()
    _write_receipts(folder, "transforms", handed, first_s=3.0)
    _write_receipts(folder, "output", outputs or (), first_s=46.0)
    _write_receipts(folder, "shown", shown, first_s=3.0)
    basis = _record(kind, fault, consume, places)
    basis["workload"]["transformers"] = 0 if outputs is None else 1
    ledger.write_cell(folder, basis | record)
    return folder


def in_order(folder: Path) -> Path:
    """The events of a literal cell, by their time."""
    path = folder / "ledger" / "events.jsonl"
    lines = path.read_text().splitlines()
    path.write_text("".join(line + "\n" for line in sorted(lines, key=lambda line: int(line.split()[1].rstrip(",")))))
    return folder


def _record(kind: Kind, fault: str, consume: str, places: int) -> dict[str, Any]:
    return {
        "run": "a-run",
        "id": "001-memory-kept-none-1",
        "broker": "memory",
        "profile": "kept",
        "client": "memory",
        "kind": kind,
        "acknowledged": True,
        "promise": dict(PROMISE),
        "fault": fault,
        "target": fault.partition(":")[2],
        "repeat": 1,
        "seed": 7,
        "nodes": 3,
        "floor": 1,
        "workload": {
            "producers": 1,
            "consumers": 1,
            "consume": consume,
            "rate_per_s": 10.0,
            "size_bytes": 512,
            "places": places,
        },
        "versions": {"broker": "1.0"},
        "settings": {},
        "effective": {},
        "image": {},
        "host": {},
    }


def _write_sends(folder: Path, sends: Iterable[Sent | Skipped]) -> None:
    writers: dict[int, ledger.SendsWriter] = {}
    for row in sends:
        if row.producer not in writers:
            writers[row.producer] = ledger.SendsWriter(folder / "ledger" / f"sends.{row.producer}")
        writer = writers[row.producer]
        if isinstance(row, Skipped):
            writer.skip(row.seq, at(row.due_s))
            continue
        sent_s = row.sent_s if row.sent_s is not None else row.due_s if row.due_s is not None else row.seq / 10
        due_s = row.due_s if row.due_s is not None else sent_s
        writer.sent(row.seq, 0 if row.closed_loop else at(due_s), row.place, row.epoch, at(sent_s))
        if row.settled:
            offset = row.seq if row.offset is None else row.offset
            settled_s = row.settled_s if row.settled_s is not None else sent_s + 0.01
            writer.settle(row.seq, row.outcome, offset, -1, at(settled_s))
    for writer in writers.values():
        writer.close()


def _write_lags(folder: Path, lags: Iterable[tuple[float, int, float]]) -> None:
    """One message a round of the loop."""
    rows = [(at(due_s + n / 10), late_ms) for due_s, messages, late_ms in lags for n in range(messages)]
    if rows:
        writer = PacingWriter(path_of(folder / "ledger", 0), 1e8)
        for due_ns, late_ms in rows:
            writer.noticed(due_ns + round(late_ms * 1e6), due_ns, 1, 0)
        writer.close(rows[-1][0] + 1)


def _write_receipts(folder: Path, name: str, receipts: Iterable[Got], *, first_s: float) -> None:
    writers: dict[int, ledger.ReceiptsWriter] = {}
    for number, row in enumerate(receipts):
        if row.actor not in writers:
            writers[row.actor] = ledger.ReceiptsWriter(folder / "ledger" / f"{name}.{row.actor}")
        received_ns = at(first_s) + number if row.received_s is None else at(row.received_s)
        offset = row.seq if row.offset is None else row.offset
        writers[row.actor].append(received_ns, row.producer, row.seq, row.place, offset, int(row.flags), row.epoch)
    for writer in writers.values():
        writer.close()
