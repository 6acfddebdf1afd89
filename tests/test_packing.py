"""Packed rows are the same rows: whatever was packed, whatever killed the packing, and whoever writes meanwhile."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mqtest import chunks, columns, ledger, packing, parcel, sift, tables
from mqtest.errors import LedgerError
from mqtest.history import load
from mqtest.ledger import LATE_NS, RECEIPTS, SENDS, ReceiptsWriter, SendsWriter
from mqtest.model import NOBODY, RUNNER, Flag, Outcome
from tests import test_sift
from tests.histories import told

REAL_CHUNK, REAL_GROUP = chunks.CHUNK_ROWS, chunks.GROUP_ROWS
CHUNK, GROUP = 16, 4
NOW_NS = 10 * LATE_NS
ACKED, UNKNOWN = Outcome.ACKED, Outcome.UNKNOWN
SENT_NS, SETTLED_NS, RECEIVED_NS = 2, 3, 4


@pytest.fixture(autouse=True)
def _small_chunks() -> Iterator[None]:
    with ExitStack() as stack:
        stack.enter_context(patch.object(chunks, "CHUNK_ROWS", CHUNK))
        stack.enter_context(patch.object(chunks, "GROUP_ROWS", GROUP))
        stack.enter_context(patch.object(packing, "HOLE_AFTER_S", -1.0))
        stack.enter_context(patch.object(packing, "_LATER_S", 0.0))
        stack.enter_context(patch.object(os, "fsync"))
        stack.enter_context(patch.object(columns, "STEP_ROWS", 128))
        yield


def plain(folder: Path) -> dict[str, Any]:
    loaded = ledger.load_sends(folder) if folder.name.startswith("sends") else ledger.load_receipts(folder)
    return {name: column[:].tolist() for name, column in loaded.items()}


def names(folder: Path) -> list[str]:
    return sorted(path.stem for path in folder.glob("*.parquet"))


def write_sends(folder: Path, rows: int, *, but: dict[int, Callable[[SendsWriter, int], Any]] | None = None) -> Path:
    """Acked sends, but for those rows with a story of their own."""
    writer = SendsWriter(folder)
    for seq in range(rows):
        if but and seq in but:
            but[seq](writer, seq)
        else:
            writer.sent(seq, 10 + seq, seq % 3, seq // 20, 20 + seq)
            writer.settle(seq, ACKED, 2**61 + seq * 3, -1, 40 + seq)
    writer.close()
    return folder


def write_receipts(folder: Path, rows: int) -> Path:
    writer = ReceiptsWriter(folder)
    for row in range(rows):
        writer.append(100 + row, row % 2, row, row % 3, row * 5, row % 2, row // 20)
    writer.close()
    return folder


def settled(outcome: Outcome, settled_ns: int = 1) -> Callable[[SendsWriter, int], Any]:
    def act(writer: SendsWriter, seq: int) -> None:
        writer.sent(seq, 1, 0, 0, 1)
        writer.settle(seq, outcome, 7, 0, settled_ns)

    return act


def is_open(writer: SendsWriter, seq: int) -> None:
    writer.sent(seq, 1, 0, 0, 1)


def skipped(writer: SendsWriter, seq: int) -> None:
    writer.skip(seq, 5)


def waiting(writer: SendsWriter, seq: int) -> None:
    """Neither sent nor skipped yet."""


def go_on(folder: Path, times: int = 3) -> None:
    one = packing.Packing(folder, SENDS if folder.name.startswith("sends") else RECEIPTS)
    for _ in range(times):
        one.go_on(NOW_NS)


@pytest.mark.parametrize("write", [write_sends, write_receipts])
@pytest.mark.parametrize("rows", [15, 16, 31, 32, 33, 48, 75])
def test_packed_rows_are_the_same_rows(tmp_path: Path, write: Callable[[Path, int], Path], rows: int) -> None:
    folder = write(tmp_path / ("sends.0" if write is write_sends else "audit.0"), rows)
    before = plain(folder)
    go_on(folder)
    assert names(folder) == [f"{n:06}" for n in range(max(0, rows // CHUNK - 1))]
    assert plain(folder) == before
    packing.close(folder, SENDS if write is write_sends else RECEIPTS)
    assert plain(folder) == before
    whole = rows // CHUNK
    assert names(folder) == ([f"{n:06}" for n in range(whole)] + [f"last-{whole:06}"] if whole else [])
    assert bool(list(folder.glob("*.npy"))) == (not whole)


def test_extreme_values_are_kept(tmp_path: Path) -> None:
    folder = tmp_path / "audit.0"
    writer = ReceiptsWriter(folder)
    for row in range(40):
        odd = row % 2
        writer.append(
            2**63 - 1 - row, NOBODY if odd else 0, -1 if odd else 2**63 - 1, -1, -1 if odd else 2**62, 7, 65535
        )
    writer.close()
    before = plain(folder)
    packing.close(folder, RECEIPTS)
    assert plain(folder) == before
    loaded = ledger.load_receipts(folder)
    assert {name: column.dtype.str for name, column in loaded.items()} == dict(RECEIPTS)
    assert {name: column[:].dtype.str for name, column in loaded.items()} == dict(RECEIPTS)


def test_any_part_of_a_column_can_be_read(tmp_path: Path) -> None:
    folder = write_receipts(tmp_path / "receipts.0", 75)
    want = np.array(plain(folder)["offset"])
    for packs in (lambda: go_on(folder), lambda: packing.close(folder, RECEIPTS)):
        packs()
        column = ledger.load_receipts(folder)["offset"]
        assert len(column) == 75
        for first in range(0, 76, 3):
            for end in (first - 1, first, first + 1, first + 5, first + 30, 80):
                for step in (1, 3):
                    assert column[slice(first, end, step)].tolist() == want[first:end:step].tolist()
        rows = np.random.default_rng(1).integers(0, 75, 200)
        assert column[rows].tolist() == want[rows].tolist()
        assert column[rows[:0]].tolist() == []
        with pytest.raises(ValueError, match="read-only"):
            column[0:2][0] = 1


_STORIES = {
    "acked": (settled(ACKED), True),
    "refused": (settled(Outcome.REFUSED), True),
    "skipped": (skipped, True),
    "unknown long ago": (settled(UNKNOWN), True),
    "unknown of late": (settled(UNKNOWN, NOW_NS - LATE_NS), False),
    "open": (is_open, False),
    "waiting": (waiting, False),
}


@pytest.mark.parametrize("at", [0, 7, 15])
@pytest.mark.parametrize(("act", "final"), _STORIES.values(), ids=_STORIES)
def test_only_what_cannot_change_is_packed_while_the_writer_lives(
    tmp_path: Path, act: Callable[[SendsWriter, int], Any], final: bool, at: int
) -> None:
    folder = write_sends(tmp_path / "sends.0", 70, but={CHUNK + at: act})
    before = plain(folder)
    go_on(folder)
    assert names(folder) == (["000000", "000001", "000002"] if final else ["000000", "000002"])
    assert plain(folder) == before
    packing.close(folder, SENDS)
    assert plain(folder) == before


def test_a_late_answer_keeps_its_row_from_being_packed_until_it_is_too_late_for_one(tmp_path: Path) -> None:
    folder = write_sends(tmp_path / "sends.0", 40, but={3: settled(UNKNOWN, NOW_NS)})
    one = packing.Packing(folder, SENDS)
    one.go_on(NOW_NS + LATE_NS)
    writer = SendsWriter(folder)
    assert not writer.settle(3, ACKED, 77, 0, NOW_NS + LATE_NS + 1)
    assert writer.counts.unknown == 1
    one.go_on(NOW_NS + LATE_NS)
    assert names(folder) == []
    assert not writer.settle(3, ACKED, 77, 0, NOW_NS + LATE_NS)
    assert (writer.counts.unknown, writer.counts.acked) == (0, 40)
    one.go_on(NOW_NS + LATE_NS)
    assert names(folder) == ["000000"]
    assert plain(folder)["outcome"][3] == ACKED
    writer.close()


def test_an_answer_for_a_packed_row_changes_nothing(tmp_path: Path) -> None:
    folder = write_sends(tmp_path / "sends.0", 40, but={3: settled(UNKNOWN)})
    before = plain(folder)
    writer = SendsWriter(folder)
    counts = writer.counts
    for _ in range(3):
        go_on(folder, 1)
        assert not writer.settle(3, ACKED, 77, 0, NOW_NS)
        assert not writer.settle(4, ACKED, 77, 0, NOW_NS)
        assert not writer.settle(5, UNKNOWN, 77, 0, NOW_NS)
    assert names(folder) == ["000000"]
    assert writer.counts == counts
    with pytest.raises(ValueError, match="never sent"):
        writer.settle(40, ACKED, 0, 0, 1)
    writer.close()
    assert plain(folder) == before


def test_a_writer_that_comes_back_knows_what_is_packed(tmp_path: Path) -> None:
    stories = {3: settled(UNKNOWN), 4: skipped, 5: settled(Outcome.RETURNED), 20: is_open, 50: waiting, 66: is_open}
    known: list[Any] = []
    folders = [write_sends(tmp_path / "sends.0", 70, but=stories), write_receipts(tmp_path / "receipts.0", 70)]
    strange = ReceiptsWriter(folders[1])
    strange.append(900, NOBODY, -1, 9, 2**62, Flag.CORRUPT, 12)
    strange.append(900, RUNNER, 0, 1, -1, 0, 12)
    strange.close()
    for _ in range(2):
        sends, receipts = (
            writer(folder) for writer, folder in zip((SendsWriter, ReceiptsWriter), folders, strict=True)
        )
        known.append(
            {
                "sends": (sends.next_seq, sends.counts, sends.last_ack_ns, sends.next_epoch),
                "receipts": (receipts.rows, receipts.own, receipts.positions, receipts.next_epoch),
            }
        )
        sends.close()
        receipts.close()
        for folder in folders:
            go_on(folder)
    assert known[0] == known[1]
    assert names(folders[0]) == ["000000", "000002"]
    assert ledger.open_sends(folders[0]) == 2
    assert ledger.last_receipt_ns(folders[1]) == 900


def test_a_writer_goes_on_behind_packed_rows(tmp_path: Path) -> None:
    folder = write_sends(tmp_path / "sends.0", 40)
    go_on(folder)
    before = plain(folder)
    writer = SendsWriter(folder)
    seq = writer.next_seq
    writer.sent(seq, 0, 0, 9, 99)
    writer.sent(1000, 0, 0, 9, 99)  # it grows, and the holes stay holes
    writer.close()
    after = plain(folder)
    assert {name: rows[:40] for name, rows in after.items()} == before
    assert (len(after["sent_ns"]), after["epoch"][40]) == (1001, 9)


def test_an_answer_in_the_middle_of_giving_back_changes_nothing(tmp_path: Path) -> None:
    folder = write_sends(tmp_path / "sends.0", 40)
    before, real = plain(folder), packing._punch
    writer = SendsWriter(folder)
    heard: list[bool] = []

    def punch(*args: int) -> None:
        real(*args)
        heard.append(writer.settle(3, ACKED, 77, 0, NOW_NS))

    with patch.object(packing, "_punch", punch):
        go_on(folder)
    writer.close()
    assert heard == [False] * len(SENDS)
    assert plain(folder) == before


class Meanwhile:
    """A column; once it has been read, something happens in another process."""

    def __init__(self, column: Any, then: Callable[[], Any]) -> None:
        self.column, self.then = column, then

    def __getitem__(self, rows: Any) -> Any:
        value = self.column[rows]
        value = np.array(value) if isinstance(rows, slice) else value
        self.then()
        return value

    def __setitem__(self, row: int, value: int) -> None:
        self.column[row] = value

    def __len__(self) -> int:
        return len(self.column)


def test_rows_that_are_given_back_between_two_reads_are_not_taken_for_open_sends(tmp_path: Path) -> None:
    folder = write_sends(tmp_path / "sends.0", 70, but={60: is_open})
    before = plain(folder)
    writer = SendsWriter(folder)
    for name in ("_settled_ns", "_sent_ns"):
        setattr(writer, name, Meanwhile(getattr(writer, name), lambda: go_on(folder)))
    counts = writer.counts
    assert not writer.settle(3, ACKED, 77, 0, NOW_NS)
    assert writer.counts == counts
    writer.close()
    assert plain(folder) == before


def test_sends_are_counted_as_open_once_while_rows_are_given_back(tmp_path: Path) -> None:
    folder = write_sends(tmp_path / "sends.0", 70, but={60: is_open})
    real = columns.load_columns

    def moving(*args: Any) -> dict[str, Any]:
        return {name: Meanwhile(column, lambda: go_on(folder)) for name, column in real(*args).items()}

    with patch.object(ledger, "load_columns", moving):
        assert ledger.open_sends(folder) == 1
    assert len(names(folder)) == 3


def test_a_send_whose_late_answer_is_just_being_written_is_not_final(tmp_path: Path) -> None:
    folder = write_sends(tmp_path / "sends.0", 70, but={3: settled(UNKNOWN, NOW_NS)})
    rows = {name: np.array(column[:CHUNK]) for name, column in ledger.load_sends(folder).items()}

    def half() -> None:
        rows["settled_ns"][3], rows["outcome"][3] = 0, ACKED

    watched = {name: Meanwhile(column, half) for name, column in rows.items()}

    class Rows(dict[str, Any]):
        def __getitem__(self, name: str) -> Any:
            return watched[name][0:CHUNK]

    assert not packing.Packing(folder, SENDS)._is_final(Rows(), NOW_NS)


class Killed(BaseException):
    """Nobody handles it."""


_ACTS = [(os, "fsync"), (Path, "rename"), (packing, "_punch"), (Path, "unlink"), (packing, "give_back")]


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("write", [write_sends, write_receipts])
def test_a_kill_at_any_moment_loses_and_doubles_nothing(
    tmp_path: Path, write: Callable[[Path, int], Path], after: bool
) -> None:
    made = write(tmp_path / "made" / ("sends.0" if write is write_sends else "receipts.0"), 70)
    before = plain(made)
    acts, killed = 0, True
    while killed:
        folder = tmp_path / str(acts) / made.name
        shutil.copytree(made, folder)
        killed = _killed_at(folder, acts, after=after)
        assert plain(folder) == before, f"killed at act {acts}"
        for _ in range(2):
            packing.close(folder, SENDS if write is write_sends else RECEIPTS)
            assert plain(folder) == before, f"closed after a kill at act {acts}"
            assert len(names(folder)) == 5
        acts += 1
    assert acts > 30


def _killed_at(folder: Path, act: int, *, after: bool) -> bool:
    left = [act]

    def hooked(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            left[0] -= 1
            if left[0] == -1 and not after:
                raise Killed
            done = real(*args, **kwargs)
            if left[0] <= -1 and after:
                raise Killed
            return done

        return call

    with ExitStack() as stack:
        stack.enter_context(suppress(Killed))
        for where, name in _ACTS:
            stack.enter_context(patch.object(where, name, hooked(getattr(where, name))))
        go_on(folder, 2)
        packing.close(folder, SENDS if folder.name.startswith("sends") else RECEIPTS)
        return False
    return True


def test_the_disk_is_given_back(tmp_path: Path) -> None:
    with patch.object(chunks, "CHUNK_ROWS", 1 << 14), patch.object(chunks, "GROUP_ROWS", 1 << 12):
        folder = write_sends(tmp_path / "sends.0", 50_000)
        before, taken = plain(folder), _on_disk(folder)
        one = packing.Packing(folder, SENDS)
        one.go_on(NOW_NS)
        assert names(folder) == ["000000", "000001"]
        assert _on_disk(folder) > taken
        one.go_on(NOW_NS)
        given = 2 * (1 << 14) * sum(np.dtype(dtype).itemsize for dtype in SENDS.values())
        assert _on_disk(folder) < taken - 0.75 * given
        assert np.load(folder / "sent_ns.npy", mmap_mode="r")[: 1 << 15].max() == 0
        assert plain(folder) == before
        packing.close(folder, SENDS)
        assert _on_disk(folder) < taken / 4
        assert plain(folder) == before


def _on_disk(folder: Path) -> int:
    return sum(path.stat().st_blocks * 512 for path in folder.iterdir())


def test_who_opened_the_folder_before_still_reads_the_rows(tmp_path: Path) -> None:
    folder = write_sends(tmp_path / "sends.0", 70)
    loaded, before = ledger.load_sends(folder), plain(folder)
    with patch.object(packing, "HOLE_AFTER_S", 60.0):
        go_on(folder)
    assert {name: column[:].tolist() for name, column in loaded.items()} == before
    assert len(names(folder)) == 3


def test_a_full_disk_leaves_everything_as_it_was(tmp_path: Path) -> None:
    folder = write_sends(tmp_path / "sends.0", 70)
    before = plain(folder)
    with patch.object(os, "fsync", side_effect=OSError(28, "No space left on device")):
        with pytest.raises(LedgerError, match=r"sends\.0/000000\.parquet: No space left"):
            go_on(folder)
        with pytest.raises(LedgerError, match="No space left"):
            packing.close(folder, SENDS)
    assert {path.suffix for path in folder.iterdir()} == {".npy"}
    assert plain(folder) == before


@pytest.mark.parametrize(("damage", "said"), [("missing", "is missing"), ("cut", "is damaged"), ("bits", "is damaged")])
def test_a_damaged_chunk_is_named(tmp_path: Path, damage: str, said: str) -> None:
    folder = write_receipts(tmp_path / "audit.0", 70)
    packing.close(folder, RECEIPTS)
    path = folder / "000002.parquet"
    if damage == "missing":
        path.unlink()
    elif damage == "cut":
        os.truncate(path, path.stat().st_size // 2)
    else:
        data = bytearray(path.read_bytes())
        data[40:60] = bytes(20)
        path.write_bytes(data)
    with pytest.raises(LedgerError, match=rf"audit\.0/000002\.parquet {said}"):
        plain(folder)


def test_a_closed_folder_travels_in_a_parcel(tmp_path: Path) -> None:
    folder = write_sends(tmp_path / "cell" / "sends.0", 70)
    before = plain(folder)
    packing.close(folder, SENDS)
    archive = tmp_path / "arrived"
    archive.write_bytes(b"".join(parcel.packed(tmp_path / "cell", tmp_path / "archive")))
    parcel.unpack(archive, tmp_path / "unpacked")
    assert plain(tmp_path / "unpacked" / "sends.0") == before


def test_a_judge_reads_slices_that_are_row_groups() -> None:
    assert tables.SLICE_ROWS == REAL_GROUP
    assert REAL_CHUNK % REAL_GROUP == 0


@settings(max_examples=15)
@given(st.integers(0, 2**32), st.sampled_from(["going on", "closed", "some closed"]))
def test_a_judge_finds_the_same_in_packed_ledgers(seed: int, how: str) -> None:
    with ExitStack() as stack:
        stack.enter_context(patch.object(tables, "SLICE_ROWS", 9))
        stack.enter_context(patch.object(sift, "_RANGE", 8))
        stack.enter_context(patch.object(chunks, "CHUNK_ROWS", 8))
        cell = test_sift.make(Path(stack.enter_context(tempfile.TemporaryDirectory())), seed)
        before = told(test_sift.everything, cell)
        looked_at = load(cell).looked_at.tolist()
        for number, (folder, names) in enumerate(ledger.actor_folders(cell).items()):
            one = packing.Packing(folder, names)
            for _ in range(2):
                one.go_on(2**62)
            if how == "closed" or (how == "some closed" and number % 2):
                packing.close(folder, names)
        assert repr(told(test_sift.everything, cell)) == repr(before)
        assert load(cell).looked_at.tolist() == looked_at


_PACKER = """
import sys
from pathlib import Path
from mqtest import chunks, packing
from mqtest.clock import now_ns
from mqtest.ledger import RECEIPTS, SENDS
chunks.CHUNK_ROWS, chunks.GROUP_ROWS = 4096, 1024
packing.HOLE_AFTER_S, packing._LATER_S = -1.0, 0.0
ledger = Path(sys.argv[1])
folders = [packing.Packing(ledger / "sends.0", SENDS), packing.Packing(ledger / "audit.0", RECEIPTS)]
while True:
    for folder in folders:
        folder.go_on(now_ns())
"""


@pytest.mark.parametrize(("seed", "many"), [(1, 1), (2, 1), (3, 1), (4, 250)])
def test_a_packer_that_is_killed_while_others_write_loses_and_doubles_nothing(
    tmp_path: Path, seed: int, many: int
) -> None:
    """The writer settles out of order, and hears answers again that it had: of open, settled and packed sends. It
    writes by ranges of `many`."""
    draw, rows = random.Random(seed), 60_000
    sends, receipts = SendsWriter(tmp_path / "sends.0"), ReceiptsWriter(tmp_path / "audit.0")
    with patch.object(chunks, "CHUNK_ROWS", 4096), patch.object(chunks, "GROUP_ROWS", 1024):
        packer, kills, killed_at = None, 0, 0
        for seq in range(many - 1, rows, many):
            if packer is None:
                packer = subprocess.Popen([sys.executable, "-c", _PACKER, str(tmp_path)])
            _write(sends, receipts, range(seq + 1 - many, seq + 1))
            late = seq - draw.randrange(50 * many)
            for known in (late, draw.randrange(seq + 1)) if late >= many else ():
                _settle(sends, range(known - many + 1, known + 1) if known >= many else range(known, known + 1))
            if seq % 5000 == 4999:
                if seq >= 10_000:
                    _await(tmp_path, len(names(tmp_path / "audit.0")) + 1, most=seq // 4096 - 1)
                for last in range(seq - 5000 + many, seq + 1, many):
                    _settle(sends, range(last + 1 - many, last + 1))
                if seq - killed_at > 15_000:
                    packer.kill()
                    packer.wait()
                    packer, kills, killed_at = None, kills + 1, seq
        if packer is not None:
            packer.kill()
            packer.wait()
        assert kills >= 2
        assert len(names(tmp_path / "sends.0")) > 2
        whole = np.arange(rows)
        for again in range(2):
            loaded, read = ledger.load_sends(tmp_path / "sends.0"), ledger.load_receipts(tmp_path / "audit.0")
            assert (loaded["sent_ns"][:] == SENT_NS).all()
            assert (loaded["settled_ns"][:] == SETTLED_NS).all()
            assert np.array_equal(loaded["due_ns"][:], whole + 1)
            assert np.array_equal(loaded["offset"][:], whole + 7)
            assert (loaded["outcome"][:] == ACKED).all()
            assert np.array_equal(read["offset"][:], whole * 3)
            assert sends.counts.acked == rows
            if not again:
                sends.close()
                receipts.close()
                packing.close(tmp_path / "sends.0", SENDS)
                packing.close(tmp_path / "audit.0", RECEIPTS)


def _write(sends: SendsWriter, receipts: ReceiptsWriter, seqs: range) -> None:
    if len(seqs) == 1:
        (seq,) = seqs
        sends.sent(seq, seq + 1, 0, 1, SENT_NS)
        receipts.append(RECEIVED_NS, 0, seq, 0, seq * 3, 0, 1)
        return
    numbers = np.arange(seqs.start, seqs.stop)
    sends.sent_many(seqs, numbers + 1, 0, 1, SENT_NS)
    receipts.append_many(RECEIVED_NS, numbers * 0, numbers, 0, numbers * 3, numbers * 0, 1)


def _settle(sends: SendsWriter, seqs: range) -> None:
    if len(seqs) == 1:
        sends.settle(seqs[0], ACKED, seqs[0] + 7, 0, SETTLED_NS)
    else:
        sends.settle_many(seqs, ACKED, seqs[0] + 7, 0, SETTLED_NS)


def _await(folder: Path, packed: int, most: int) -> None:
    """Until the packer has gone on."""
    deadline = time.monotonic() + 30
    while len(names(folder / "audit.0")) < min(packed, most):
        assert time.monotonic() < deadline, "nothing is packed"
        time.sleep(0.01)
