"""The files of one cell: what every producer, consumer and audit reader saw, on disk, written before it acted.

    cell.json · ledger/{sends,receipts,audit}.<n>/<column>.npy · ledger/events.jsonl (event_log.py)
    of a large cell: ledger/{sends,receipts,audit}.<n>/<chunk>.parquet, packed rows (chunks.py, packing.py)
    of a user's own test: ledger/processed.<n>, what a consumer of theirs has done its work for (user_ledger.py)
    with transformers: ledger/transforms.<n>, the inputs that they were handed; ledger/output.<n>, the audit of what
    they wrote; ledger/output-fences, the runner's own messages there. In a replay these numbers are those of the jobs;
    ledger/shown.<n>, what a live reader of job n's output saw; ledger/{totals,table}.<n>, its sums (job_ledger.py)
    open loop: ledger/pacing.<n>.hlog, how late producer n was (pacing.py)

Rules:
- Nobody else opens these files. One writer a folder, so no locks. Columns are memory-mapped little-endian `.npy`
  files: a SIGKILL of the writer keeps every row that it wrote, and `numpy.load(mmap_mode="r")` reads them at any time.
- A row exists when its commit column (`sent_ns`, `received_ns`) is not 0; it is stored last. Likewise `settled_ns`
  after `outcome` and `offset`. `due_ns` without `sent_ns`: skipped. Unused rows are zero.
- Columns grow in steps, each taken with posix_fallocate before the header admits it: a full disk is a LedgerError,
  never a SIGBUS, and the rows before it stay. A worker that comes back goes on after its last row.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from mqtest import chunks
from mqtest.clock import NS_PER_S
from mqtest.columns import Columns, Table, load_columns, trim, used_rows
from mqtest.errors import LedgerError
from mqtest.model import Outcome
from mqtest.totals import ReceiptTotals, SendCounts, SendTotals

SENDS: Mapping[str, str] = {
    "due_ns": "<i8",
    "sent_ns": "<i8",
    "settled_ns": "<i8",
    "offset": "<i8",
    "place": "<i4",
    "outcome": "|u1",
    "epoch": "<u2",
}
"""columns of a sends folder; the row number is the sequence number"""
RECEIPTS: Mapping[str, str] = {
    "received_ns": "<i8",
    "seq": "<i8",
    "offset": "<i8",
    "producer": "<u4",
    "place": "<i4",
    "flags": "|u1",
    "epoch": "<u2",
}
"""columns of a receipts, audit, transforms, output or shown folder, one row a delivery in order of delivery"""

LATE_NS = 600 * NS_PER_S
"""an answer that comes so long after its send was settled as unknown changes nothing any more: the row may be packed"""
_LATE = (Outcome.ACKED, Outcome.DEGRADED)
T = TypeVar("T", SendTotals, ReceiptTotals)


class SendsWriter:
    """The sends of one producer. Raises LedgerError when the folder is damaged or the disk is full."""

    def __init__(self, folder: Path) -> None:
        """Create the folder, or go on after its last row."""
        self._folder = folder
        self._table = Table(folder, SENDS)
        self.next_seq, so_far = _so_far(folder, SENDS, ("due_ns", "sent_ns"), SendTotals())
        """one past the last row that has `due_ns` or `sent_ns`"""
        self.last_ack_ns = so_far.last_ack_ns
        """when the newest ack was settled; 0: none yet"""
        self.next_epoch = so_far.next_epoch
        """one past the last epoch that sent anything: what a producer that comes back begins with"""
        self._sent, self._skipped, self._settled = so_far.sent, so_far.skipped, so_far.settled
        self._bind()

    def _bind(self) -> None:
        views = self._table.views
        self._due_ns, self._sent_ns, self._settled_ns = views["due_ns"], views["sent_ns"], views["settled_ns"]
        self._offset, self._place = views["offset"], views["place"]
        self._outcome, self._epoch = views["outcome"], views["epoch"]
        self._columns = self._table.columns()
        self._capacity = self._table.capacity

    @property
    def counts(self) -> SendCounts:
        """Totals of this folder, earlier lives of the producer included."""
        n = self._settled
        return SendCounts(self._sent, self._skipped, n[1], n[2], n[3], n[5], n[4])

    def sent(self, seq: int, due_ns: int, place: int, epoch: int, sent_ns: int) -> None:
        """Record one send, before the client call; again for one seq only when nothing had left the process."""
        if seq >= self._capacity:
            self._grow(seq)
        if self._sent_ns[seq] == 0:
            self._sent += 1
            self._offset[seq] = -1
        self._due_ns[seq] = due_ns
        self._place[seq] = place
        self._epoch[seq] = epoch
        self._sent_ns[seq] = sent_ns
        if seq >= self.next_seq:
            self.next_seq = seq + 1

    def skip(self, seq: int, due_ns: int) -> None:
        """Record that a message fell due and will not be sent. One that `sent` named and that provably did not leave
        the process becomes skipped; one that is settled stays as it is."""
        if seq >= self._capacity:
            self._grow(seq)
        if self._settled_ns[seq] or (seq < self.next_seq and chunks.is_packed(self._folder, seq)):
            return
        if self._sent_ns[seq]:
            self._sent_ns[seq] = self._offset[seq] = 0
            self._sent -= 1
            self._skipped += 1
        elif not self._due_ns[seq]:
            self._skipped += 1
        self._due_ns[seq] = due_ns
        if seq >= self.next_seq:
            self.next_seq = seq + 1

    def settle(self, seq: int, outcome: Outcome, offset: int, place: int, settled_ns: int) -> bool:
        """Record what became of a send; offset -1: not named, place -1: as sent. True: it was open until now.

        UNKNOWN may become ACKED or DEGRADED, for LATE_NS; nothing else changes once it is settled, so RETURNED wins
        over the ack that follows. Raises ValueError for a message that was never sent.
        """
        if not 0 <= seq < self.next_seq:
            raise _never_sent(seq)
        before_ns = self._settled_ns[seq]  # before `sent_ns`, whose rows packing gives back first
        if not self._sent_ns[seq]:
            if chunks.is_packed(self._folder, seq):  # and so it was settled for good
                return False
            raise _never_sent(seq)
        if before_ns:
            if self._outcome[seq] != Outcome.UNKNOWN or outcome not in _LATE or settled_ns - before_ns > LATE_NS:
                return False
            self._settled_ns[seq] = 0  # a kill right here leaves it unsettled, which is unknown still
            self._settled[Outcome.UNKNOWN] -= 1
        self._outcome[seq] = outcome
        self._offset[seq] = offset
        if place >= 0:
            self._place[seq] = place
        self._settled_ns[seq] = settled_ns
        self._settled[outcome] += 1
        if outcome == Outcome.ACKED:
            self.last_ack_ns = settled_ns
        return not before_ns

    def sent_many(self, seqs: range, due_ns: NDArray[np.int64] | int, place: int, epoch: int, sent_ns: int) -> None:
        """Record the sends of these messages to one place, as `sent` does each; `due_ns`: one each, or one for all."""
        if not seqs:
            return
        if seqs[-1] >= self._capacity:
            self._grow(seqs[-1])
        rows, columns = slice(seqs.start, seqs[-1] + 1, seqs.step), self._columns
        new = columns["sent_ns"][rows] == 0
        self._sent += int(np.count_nonzero(new))
        columns["offset"][rows][new] = -1
        columns["due_ns"][rows] = due_ns
        columns["place"][rows] = place
        columns["epoch"][rows] = epoch
        columns["sent_ns"][rows] = sent_ns
        self.next_seq = max(self.next_seq, seqs[-1] + 1)

    def settle_many(self, seqs: range, outcome: Outcome, offset: int, place: int, settled_ns: int) -> int:
        """Record what became of these sends, as `settle` does of each; `offset`: of the first one, the others follow it
        one by one; -1: not named. Returns how many were open until now."""
        if not seqs:
            return 0
        rows, columns = slice(seqs.start, seqs[-1] + 1, seqs.step), self._columns
        if (
            not 0 <= seqs[0] <= seqs[-1] < self.next_seq
            or columns["settled_ns"][rows].any()  # before `sent_ns`, as in `settle`
            or not columns["sent_ns"][rows].all()
        ):
            return sum(
                self.settle(seq, outcome, offset if offset < 0 else offset + nth, place, settled_ns)
                for nth, seq in enumerate(seqs)
            )
        columns["outcome"][rows] = outcome
        columns["offset"][rows] = offset if offset < 0 else np.arange(offset, offset + len(seqs))
        if place >= 0:
            columns["place"][rows] = place
        columns["settled_ns"][rows] = settled_ns
        self._settled[outcome] += len(seqs)
        if outcome == Outcome.ACKED:
            self.last_ack_ns = settled_ns
        return len(seqs)

    def close(self) -> None:
        """Unmap; the files stay."""
        self._columns = {}
        del self._due_ns, self._sent_ns, self._settled_ns, self._offset, self._place, self._outcome, self._epoch
        self._table.close()

    def _grow(self, seq: int) -> None:
        self._table.grow(seq + 1)
        self._bind()


class ReceiptsWriter:
    """The receipts of one consumer or audit reader. Raises LedgerError as SendsWriter does."""

    def __init__(self, folder: Path) -> None:
        """Create the folder, or go on after its last row."""
        self._table = Table(folder, RECEIPTS)
        self.rows, so_far = _so_far(folder, RECEIPTS, ("received_ns",), ReceiptTotals())
        """receipts so far"""
        self.next_epoch = so_far.next_epoch
        """one past the last epoch that received anything"""
        self.own = so_far.own
        """receipts of the workload's own messages, when the folder was opened"""
        self.positions = dict(so_far.positions)
        """place -> highest offset, when the folder was opened"""
        self._bind()

    def _bind(self) -> None:
        views = self._table.views
        self._received_ns, self._producer, self._seq = views["received_ns"], views["producer"], views["seq"]
        self._place, self._offset = views["place"], views["offset"]
        self._flags, self._epoch = views["flags"], views["epoch"]
        self._columns = self._table.columns()
        self._capacity = self._table.capacity

    def append(
        self, received_ns: int, producer: int, seq: int, place: int, offset: int, flags: int, epoch: int
    ) -> None:
        """Record one delivery, before it is acknowledged to the broker."""
        row = self.rows
        if row >= self._capacity:
            self._table.grow(row + 1)
            self._bind()
        self._producer[row] = producer
        self._seq[row] = seq
        self._place[row] = place
        self._offset[row] = offset
        self._flags[row] = flags
        self._epoch[row] = epoch
        self._received_ns[row] = received_ns
        self.rows = row + 1

    def append_many(
        self,
        received_ns: int,
        producers: NDArray[np.int64],
        seqs: NDArray[np.int64],
        place: int,
        offsets: NDArray[np.int64],
        flags: NDArray[np.int64],
        epoch: int,
    ) -> None:
        """Record the deliveries of one place that came together, as `append` does each; arrays of one length."""
        first, end = self.rows, self.rows + len(seqs)
        if end > self._capacity:
            self._table.grow(end)
            self._bind()
        rows, columns = slice(first, end), self._columns
        columns["producer"][rows] = producers
        columns["seq"][rows] = seqs
        columns["place"][rows] = place
        columns["offset"][rows] = offsets
        columns["flags"][rows] = flags
        columns["epoch"][rows] = epoch
        columns["received_ns"][rows] = received_ns
        self.rows = end

    def close(self) -> None:
        """Unmap; the files stay."""
        self._columns = {}
        del self._received_ns, self._producer, self._seq, self._place, self._offset, self._flags, self._epoch
        self._table.close()


def load_sends(folder: Path) -> Columns:
    """Columns of a sends folder, trimmed to its rows. Raises LedgerError naming a missing or truncated file."""
    return _load(folder, SENDS, ("due_ns", "sent_ns"))


def load_receipts(folder: Path) -> Columns:
    """Columns of a receipts or audit folder, trimmed to its rows. Raises LedgerError as load_sends."""
    return _load(folder, RECEIPTS, ("received_ns",))


def _load(folder: Path, columns: Mapping[str, str], commits: Sequence[str]) -> Columns:
    if any(folder.glob("*.parquet")):
        return chunks.load(folder, columns, commits)
    maps = load_columns(folder, columns)
    return trim(folder, maps, used_rows(*(maps[name] for name in commits)))


def open_sends(folder: Path) -> int:
    """Sends that nothing has settled; may be asked while the producer runs, stands still, or is dead."""
    columns = load_columns(folder, SENDS)  # none is open in a packed chunk
    parts = chunks.unpacked(min(len(column) for column in columns.values()), chunks.packed(folder))
    unsettled = ((columns["settled_ns"][rows] == 0, rows) for rows in parts)
    return sum(int(np.count_nonzero(found & (columns["sent_ns"][rows] != 0))) for found, rows in unsettled)


def last_receipt_ns(folder: Path) -> int:
    """When the newest receipt was written, 0 when there is none; may be asked at any time, as open_sends."""
    received = load_columns(folder, RECEIPTS)["received_ns"]
    rows = used_rows(received)
    return int(received[rows - 1]) if rows else 0


def write_cell(cell_dir: Path, record: Mapping[str, object]) -> None:
    """Write cell.json, whole or not at all. Raises LedgerError when the disk is full."""
    path = cell_dir / "cell.json"
    part = path.with_suffix(".json.part")
    try:
        with part.open("w", encoding="utf-8") as file:
            json.dump(record, file, indent=1, default=str)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        raise LedgerError(f"{path}: {error.strerror}") from error


def read_cell(cell_dir: Path) -> dict[str, Any]:
    """The record in cell.json. Raises LedgerError when there is none, or it is no JSON object."""
    return read_record(cell_dir / "cell.json")


def read_record(path: Path) -> dict[str, Any]:
    """A file of one JSON object. Raises LedgerError when it is not there, or something else."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise LedgerError(f"{path}: {error.strerror}") from error
    except ValueError as error:
        raise LedgerError(f"{path}: not JSON: {error}") from error
    if not isinstance(record, dict):
        raise LedgerError(f"{path}: expected one JSON object")
    return record


def sends_folders(cell_dir: Path) -> dict[int, Path]:
    """Producer number -> folder, the runner's own included."""
    return folders(cell_dir, "sends")


def receipts_folders(cell_dir: Path) -> dict[int, Path]:
    """Consumer number -> folder."""
    return folders(cell_dir, "receipts")


def audit_folders(cell_dir: Path) -> dict[int, Path]:
    """Audit reader number -> folder."""
    return folders(cell_dir, "audit")


def transforms_folders(cell_dir: Path) -> dict[int, Path]:
    """Transformer number -> folder of the inputs that it was handed."""
    return folders(cell_dir, "transforms")


def processed_folders(cell_dir: Path) -> dict[int, Path]:
    """Consumer number -> folder of what it has done its work for, in a user's own test."""
    return folders(cell_dir, "processed")


def output_folders(cell_dir: Path) -> dict[int, Path]:
    """Number -> folder of a reader of what transformers wrote."""
    return folders(cell_dir, "output")


def actor_folders(cell_dir: Path) -> dict[Path, Mapping[str, str]]:
    """Every folder of sends or receipts, of the workers and of the audit, and its columns."""
    receipts = ("receipts", "audit", "transforms", "output", "shown")
    sends = dict.fromkeys(sends_folders(cell_dir).values(), SENDS)
    return sends | {folder: RECEIPTS for name in receipts for folder in folders(cell_dir, name).values()}


def _never_sent(seq: int) -> ValueError:
    return ValueError(f"settle of message {seq}, which was never sent")


def _so_far(folder: Path, columns: Mapping[str, str], commits: Sequence[str], nothing: T) -> tuple[int, T]:
    """One past the last row of a folder, and what all its rows come to."""
    loaded, packed = _load(folder, columns, commits), chunks.packed(folder)
    total, rows = nothing, len(loaded[commits[0]])
    for part in chunks.unpacked(rows, packed):
        total = total + type(nothing).of({name: column[part] for name, column in loaded.items()})
    for path in packed.values():
        total = total + type(nothing)(**chunks.totals(path))
    return rows, total


def folders(cell_dir: Path, name: str) -> dict[int, Path]:
    """Number -> folder `<name>.<number>`."""
    named = ((path.name.partition(".")[2], path) for path in (cell_dir / "ledger").glob(f"{name}.*"))
    return dict(sorted((int(number), path) for number, path in named if number.isdigit()))
