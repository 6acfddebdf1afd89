"""The files: what was written is read back, whatever killed the writer; what is damaged is named."""

from __future__ import annotations

import errno
import os
import select
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mqtest import columns, ledger
from mqtest.errors import LedgerError
from mqtest.event_log import EventsWriter, load_events
from mqtest.model import NOBODY, RUNNER, Flag, Outcome
from mqtest.totals import SendCounts


def _listed(loaded: columns.Columns) -> dict[str, list[int]]:
    return {name: column.tolist() for name, column in loaded.items()}


def test_sends_are_read_back(tmp_path: Path) -> None:
    writer = ledger.SendsWriter(tmp_path / "sends.0")
    writer.sent(0, 10, 3, 7, 11)
    writer.settle(0, Outcome.ACKED, 2**62, 4, 12)
    writer.skip(1, 20)
    writer.sent(2, 30, 3, 8, 31)
    assert _listed(ledger.load_sends(tmp_path / "sends.0")) == {
        "due_ns": [10, 20, 30],
        "sent_ns": [11, 0, 31],
        "settled_ns": [12, 0, 0],
        "offset": [2**62, 0, -1],
        "place": [4, 0, 3],
        "outcome": [1, 0, 0],
        "epoch": [7, 0, 8],
    }
    assert writer.next_seq == 3
    assert writer.counts == SendCounts(2, 1, 1, 0, 0, 0, 0)
    assert writer.last_ack_ns == 12
    writer.close()


def test_receipts_are_read_back(tmp_path: Path) -> None:
    writer = ledger.ReceiptsWriter(tmp_path / "audit.1")
    writer.append(5, 2**32 - 1, -1, 2, 2**63 - 1, 6, 9)
    assert writer.rows == 1
    writer.close()
    assert _listed(ledger.load_receipts(tmp_path / "audit.1")) == {
        "received_ns": [5],
        "seq": [-1],
        "offset": [2**63 - 1],
        "producer": [2**32 - 1],
        "place": [2],
        "flags": [6],
        "epoch": [9],
    }


def test_plain_numpy_reads_the_columns_while_they_are_written(tmp_path: Path) -> None:
    writer = ledger.SendsWriter(tmp_path / "sends.0")
    writer.sent(0, 0, 0, 0, 99)
    column = np.load(tmp_path / "sends.0" / "sent_ns.npy", mmap_mode="r")
    assert (column.dtype, column[0], column[1:].max()) == (np.dtype("<i8"), 99, 0)
    writer.close()


_SETTLEMENTS = [
    ([Outcome.ACKED], Outcome.ACKED),
    ([Outcome.UNKNOWN, Outcome.ACKED], Outcome.ACKED),
    ([Outcome.UNKNOWN, Outcome.DEGRADED], Outcome.DEGRADED),
    ([Outcome.UNKNOWN, Outcome.REFUSED], Outcome.UNKNOWN),
    ([Outcome.ACKED, Outcome.UNKNOWN], Outcome.ACKED),
    ([Outcome.RETURNED, Outcome.ACKED], Outcome.RETURNED),
    ([Outcome.REFUSED, Outcome.ACKED], Outcome.REFUSED),
    ([Outcome.DEGRADED, Outcome.ACKED], Outcome.DEGRADED),
]


@pytest.mark.parametrize(("said", "stays"), _SETTLEMENTS)
def test_a_late_answer_turns_only_unknown(tmp_path: Path, said: list[Outcome], stays: Outcome) -> None:
    writer = ledger.SendsWriter(tmp_path / "sends.0")
    writer.sent(0, 0, 0, 0, 1)
    was_open = [writer.settle(0, outcome, 40 + i, -1, 50 + i) for i, outcome in enumerate(said)]
    assert was_open == [True, *[False] * (len(said) - 1)]
    took = said.index(stays)
    loaded = ledger.load_sends(tmp_path / "sends.0")
    assert (loaded["outcome"][0], loaded["offset"][0], loaded["settled_ns"][0]) == (stays, 40 + took, 50 + took)
    counts = writer.counts
    assert sum(counts[2:]) == 1
    assert getattr(counts, stays.name.lower()) == 1
    writer.close()


def test_a_message_that_was_never_sent_cannot_be_settled(tmp_path: Path) -> None:
    writer = ledger.SendsWriter(tmp_path / "sends.0")
    writer.skip(0, 5)
    for seq in (0, 1, -1):
        with pytest.raises(ValueError, match="never sent"):
            writer.settle(seq, Outcome.ACKED, 0, 0, 1)
    writer.close()


def test_a_handover_that_did_not_leave_is_one_send_and_can_be_skipped(tmp_path: Path) -> None:
    writer = ledger.SendsWriter(tmp_path / "sends.0")
    writer.sent(0, 10, 0, 0, 11)
    writer.sent(0, 10, 0, 1, 12)
    assert writer.counts.sent == 1
    writer.skip(0, 10)
    assert (writer.counts.sent, writer.counts.skipped) == (0, 1)
    assert ledger.load_sends(tmp_path / "sends.0")["sent_ns"].tolist() == [0]
    writer.close()


def test_a_writer_that_comes_back_goes_on_after_its_last_row(tmp_path: Path) -> None:
    first = ledger.SendsWriter(tmp_path / "sends.0")
    first.sent(0, 1, 0, 0, 2)
    first.settle(0, Outcome.ACKED, 5, 0, 3)
    first.skip(4, 9)  # the rows between were waiting when the writer died
    first.close()
    again = ledger.SendsWriter(tmp_path / "sends.0")
    assert (again.next_seq, again.last_ack_ns) == (5, 3)
    assert again.counts == SendCounts(1, 1, 1, 0, 0, 0, 0)
    again.close()
    receipts = ledger.ReceiptsWriter(tmp_path / "receipts.0")
    receipts.append(1, 0, 0, 0, 0, 0, 0)
    receipts.close()
    more = ledger.ReceiptsWriter(tmp_path / "receipts.0")
    more.append(2, 0, 1, 0, 1, 0, 0)
    more.close()
    assert ledger.load_receipts(tmp_path / "receipts.0")["received_ns"].tolist() == [1, 2]


def test_a_writer_that_comes_back_knows_what_it_had(tmp_path: Path) -> None:
    sends, receipts = ledger.SendsWriter(tmp_path / "sends.0"), ledger.ReceiptsWriter(tmp_path / "receipts.0")
    assert (sends.next_epoch, receipts.next_epoch, receipts.own, receipts.positions) == (0, 0, 0, {})
    for seq, epoch in enumerate([0, 0, 2]):
        sends.sent(seq, 0, 0, epoch, 1 + seq)
    sends.settle(1, Outcome.UNKNOWN, -1, 0, 9)
    assert ledger.open_sends(tmp_path / "sends.0") == 2
    for producer, seq, place, offset, flags in [
        (0, 0, 0, 5, 0),
        (0, 1, 1, 3, Flag.REDELIVERED),
        (0, 2, 1, 2, Flag.FOREIGN),
        (NOBODY, -1, 0, 7, Flag.CORRUPT),
        (RUNNER, 0, 0, 6, 0),
    ]:
        receipts.append(1, producer, seq, place, offset, flags, 4)
    sends.close()
    receipts.close()
    sends, receipts = ledger.SendsWriter(tmp_path / "sends.0"), ledger.ReceiptsWriter(tmp_path / "receipts.0")
    assert (sends.next_epoch, receipts.next_epoch, receipts.own) == (3, 5, 2)
    assert receipts.positions == {0: 7, 1: 3}
    sends.close()
    receipts.close()


def test_columns_grow_past_a_step(tmp_path: Path) -> None:
    sends, receipts = ledger.SendsWriter(tmp_path / "sends.0"), ledger.ReceiptsWriter(tmp_path / "audit.0")
    rows = columns.STEP_ROWS + 10
    for seq in range(rows):
        sends.sent(seq, 0, 0, 0, seq + 1)
        receipts.append(seq + 1, 0, seq, 0, seq, 0, 0)
    sends.settle(rows - 1, Outcome.ACKED, 7, 0, 8)
    sends.close()
    receipts.close()
    loaded = ledger.load_sends(tmp_path / "sends.0")
    assert np.array_equal(loaded["sent_ns"], np.arange(1, rows + 1))
    assert loaded["offset"][-1] == 7
    assert np.array_equal(ledger.load_receipts(tmp_path / "audit.0")["seq"], np.arange(rows))


def test_growing_that_a_kill_interrupted_is_finished_by_the_next_writer(tmp_path: Path) -> None:
    writer = ledger.SendsWriter(tmp_path / "sends.0")
    writer.sent(0, 1, 0, 0, 2)
    writer.close()
    path = tmp_path / "sends.0" / "due_ns.npy"
    with path.open("r+b") as file:  # the first of the columns had grown
        columns._extend(file.fileno(), "<i8", columns.STEP_ROWS, 2 * columns.STEP_ROWS)
    assert ledger.load_sends(tmp_path / "sends.0")["sent_ns"].tolist() == [2]
    again = ledger.SendsWriter(tmp_path / "sends.0")
    again.sent(columns.STEP_ROWS, 1, 0, 0, 3)
    again.close()
    lengths = {len(np.load(f, mmap_mode="r")) for f in (tmp_path / "sends.0").iterdir()}
    assert lengths == {2 * columns.STEP_ROWS}
    assert ledger.load_sends(tmp_path / "sends.0")["sent_ns"][-1] == 3


_VICTIM = """
import itertools, sys
from pathlib import Path
from mqtest.ledger import ReceiptsWriter, SendsWriter
from mqtest.model import NOBODY, RUNNER, Flag, Outcome
sends = SendsWriter(Path(sys.argv[1]) / "sends.0")
receipts = ReceiptsWriter(Path(sys.argv[1]) / "receipts.0")
for seq in itertools.count():
    sends.sent(seq, seq + 1, 0, 1, seq + 2)
    sends.settle(seq, Outcome.ACKED, seq * 3, 0, seq + 3)
    receipts.append(seq + 4, 0, seq, 0, seq * 3, 0, 1)
    if seq % 1000 == 0:
        print(seq, flush=True)
"""


def _last_number(child: subprocess.Popen[bytes], at_least: int) -> int:
    """What the child last said that it had written, read until it is at least that."""
    assert child.stdout is not None
    heard, number = b"", -1
    while number < at_least:
        ready, _, _ = select.select([child.stdout], [], [], 30)
        assert ready, "the child says nothing"
        heard += os.read(child.stdout.fileno(), 1 << 16)
        number = int(heard.rsplit(b"\n", 2)[-2]) if heard.count(b"\n") else -1
    return number


@pytest.mark.parametrize("at_least", [5_000, 70_000])
def test_sigkill_of_the_writer_keeps_every_row(tmp_path: Path, at_least: int) -> None:
    child = subprocess.Popen([sys.executable, "-c", _VICTIM, str(tmp_path)], stdout=subprocess.PIPE)
    with child:
        said = _last_number(child, at_least)
        child.send_signal(signal.SIGKILL)
        assert child.wait(30) == -signal.SIGKILL
    sends, receipts = ledger.load_sends(tmp_path / "sends.0"), ledger.load_receipts(tmp_path / "receipts.0")
    n = len(sends["sent_ns"])
    assert n > said
    assert len(receipts["seq"]) in (n - 1, n)
    whole = np.arange(n - 1)
    assert np.array_equal(sends["sent_ns"][:-1], whole + 2)
    assert np.array_equal(sends["settled_ns"][:-1], whole + 3)
    assert np.array_equal(sends["offset"][:-1], whole * 3)
    assert (sends["outcome"][:-1] == Outcome.ACKED).all()
    assert np.array_equal(receipts["offset"][: n - 1], whole * 3)
    again = ledger.SendsWriter(tmp_path / "sends.0")
    assert again.next_seq == n
    again.close()


_LIMITED = """
import resource, sys
from pathlib import Path
from mqtest.errors import LedgerError
from mqtest.ledger import ReceiptsWriter
writer = ReceiptsWriter(Path(sys.argv[1]) / "receipts.0")
resource.setrlimit(resource.RLIMIT_FSIZE, (600_000, 600_000))
try:
    for row in range(1_000_000):
        writer.append(row + 1, 0, row, 0, row, 0, 0)
except LedgerError as error:
    print(row, error)
"""


def test_files_that_cannot_grow_are_one_clear_error_and_keep_their_rows(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", _LIMITED, str(tmp_path)], capture_output=True, timeout=60, text=True)
    assert done.returncode == 0, done.stderr
    row, _, said = done.stdout.strip().partition(" ")
    assert int(row) == columns.STEP_ROWS
    assert "receipts.0/received_ns.npy cannot grow: File too large" in said
    assert len(ledger.load_receipts(tmp_path / "receipts.0")["seq"]) == columns.STEP_ROWS


def test_a_full_disk_is_a_ledger_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(LedgerError, match=r"sends\.0: No space left on device"):
        ledger.SendsWriter(tmp_path / "sends.0")
    assert not (tmp_path / "sends.0").exists()


@pytest.mark.parametrize("damage", ["missing", "truncated", "header", "short", "dtype"])
def test_a_damaged_column_is_named(tmp_path: Path, damage: str) -> None:
    writer = ledger.SendsWriter(tmp_path / "sends.0")
    writer.sent(5, 1, 0, 0, 2)
    writer.close()
    path = tmp_path / "sends.0" / "offset.npy"
    if damage == "missing":
        path.unlink()
    elif damage == "truncated":
        os.truncate(path, 1000)
    elif damage == "header":
        os.truncate(path, 40)
    elif damage == "short":
        np.save(path, np.zeros(5, dtype="<i8"))
    else:
        np.save(path, np.zeros(70_000, dtype="<i4"))
    with pytest.raises(LedgerError, match=r"sends\.0/offset\.npy"):
        ledger.load_sends(tmp_path / "sends.0")


def test_events_are_read_back_with_their_time_first(tmp_path: Path) -> None:
    path = tmp_path / "ledger" / "events.jsonl"
    writer = EventsWriter(path)
    writer.write("phase", name="steady", t_ns=17)
    writer.write("dead", nodes=["a"], why="é")
    writer.close()
    first, second = load_events(path)
    assert first == {"t_ns": 17, "event": "phase", "name": "steady"}
    assert (second["event"], second["nodes"], second["why"]) == ("dead", ["a"], "é")
    assert path.read_text().startswith('{"t_ns": 17, "event": "phase"')


def test_a_torn_last_event_is_dropped_and_cut_off_by_the_next_writer(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_text('{"t_ns": 1, "event": "a"}\n{"t_ns": 2, "ev')
    assert [e["event"] for e in load_events(path)] == ["a"]
    writer = EventsWriter(path)
    writer.write("b")
    writer.close()
    assert [e["event"] for e in load_events(path)] == ["a", "b"]


@pytest.mark.parametrize("line", ['{"t_ns": 1, "ev', "[]", '{"event": "no time"}'])
def test_a_line_torn_elsewhere_is_an_error(tmp_path: Path, line: str) -> None:
    path = tmp_path / "events.jsonl"
    path.write_text(f'{line}\n{{"t_ns": 2, "event": "b"}}\n')
    with pytest.raises(LedgerError, match=r"events\.jsonl: line 1"):
        load_events(path)


def test_no_events_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match=r"events\.jsonl: No such file"):
        load_events(tmp_path / "events.jsonl")


def test_cell_record_is_written_whole(tmp_path: Path) -> None:
    ledger.write_cell(tmp_path, {"id": "x", "path": tmp_path})
    ledger.write_cell(tmp_path, {"id": "y"})
    assert ledger.read_cell(tmp_path) == {"id": "y"}
    assert [p.name for p in tmp_path.iterdir()] == ["cell.json"]


@pytest.mark.parametrize(("text", "said"), [(None, "No such file"), ("{", "not JSON"), ("[]", "expected one JSON")])
def test_a_cell_record_that_cannot_be_read_is_named(tmp_path: Path, text: str | None, said: str) -> None:
    if text is not None:
        (tmp_path / "cell.json").write_text(text)
    with pytest.raises(LedgerError, match=rf"cell\.json: {said}"):
        ledger.read_cell(tmp_path)


def test_folders_are_found_by_number(tmp_path: Path) -> None:
    for name in ("sends.10", "sends.2", "receipts.0", "audit.1", "sends.3.part", "other.1"):
        (tmp_path / "ledger" / name).mkdir(parents=True)
    assert list(ledger.sends_folders(tmp_path)) == [2, 10]
    assert list(ledger.receipts_folders(tmp_path)) == [0]
    assert ledger.audit_folders(tmp_path) == {1: tmp_path / "ledger" / "audit.1"}
