"""The process that packs: it comes when a ledger is large, goes when the runner says so, and no small cell has one."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest

from mqtest import chunks, ledger, packer, packing
from mqtest.columns import STEP_ROWS
from mqtest.ledger import RECEIPTS, ReceiptsWriter, SendsWriter
from mqtest.model import Outcome
from mqtest.packer import Packer, pack_on

ROWS = 2 * chunks.CHUNK_ROWS + 70_000


def large(folder: Path) -> np.ndarray:
    """A table of receipts of more than two chunks, written as a consumer's is; returns their sequence."""
    folder.mkdir(parents=True)
    seq = np.arange(ROWS)
    for name, dtype in RECEIPTS.items():
        shape = (-(-ROWS // STEP_ROWS) * STEP_ROWS,)
        column = np.lib.format.open_memmap(folder / f"{name}.npy", mode="w+", dtype=dtype, shape=shape)
        if name in ("received_ns", "seq"):
            column[:ROWS] = seq + (name == "received_ns")
    return seq


@pytest.fixture
def notes() -> Iterator[list[str]]:
    """What a packer says, which should be nothing."""
    said: list[str] = []
    yield said
    assert said == []


def test_a_large_ledger_is_packed_while_it_grows_and_closed_in_the_end(tmp_path: Path, notes: list[str]) -> None:
    seq = large(tmp_path / "ledger" / "receipts.0")
    small = SendsWriter(tmp_path / "ledger" / "sends.0")
    small.sent(0, 0, 0, 0, 1)
    one = Packer(tmp_path, notes.append)
    with patch.object(packer, "START_ROWS", chunks.CHUNK_ROWS):
        one.look()
    deadline = time.monotonic() + 60
    while list(chunks.packed(tmp_path / "ledger" / "receipts.0")) != [0]:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    writer = ReceiptsWriter(tmp_path / "ledger" / "receipts.0")
    writer.append(ROWS + 1, 0, ROWS, 0, 0, 0, 0)
    writer.close()
    one.finish()
    one.finish()
    files = sorted(path.name for path in (tmp_path / "ledger" / "receipts.0").iterdir())
    assert files == ["000000.parquet", "000001.parquet", "last-000002.parquet"]
    loaded = ledger.load_receipts(tmp_path / "ledger" / "receipts.0")
    assert np.array_equal(loaded["seq"][:], [*seq, ROWS])
    small.settle(0, Outcome.ACKED, 0, 0, 2)
    assert {path.suffix for path in (tmp_path / "ledger" / "sends.0").iterdir()} == {".npy"}
    small.close()


def test_a_small_ledger_has_no_packer(tmp_path: Path, notes: list[str]) -> None:
    writer = SendsWriter(tmp_path / "ledger" / "sends.0")
    writer.sent(0, 0, 0, 0, 1)
    one = Packer(tmp_path, notes.append)
    with patch.object(packer.subprocess, "Popen", side_effect=AssertionError):
        one.look()
        one.finish()
    writer.close()


def test_a_packer_that_died_is_told_of(tmp_path: Path) -> None:
    large(tmp_path / "ledger" / "receipts.0")
    said: list[str] = []
    one = Packer(tmp_path, said.append)
    (tmp_path / "ledger" / "receipts.0" / "flags.npy").write_bytes(b"")
    with patch.object(packer, "START_ROWS", chunks.CHUNK_ROWS):
        one.look()
    one.finish()
    assert len(said) == 1
    assert "receipts.0/flags.npy" in said[0]


@pytest.mark.parametrize(("told", "closed"), [(b"finish\n", True), (b"", False)])
def test_only_who_is_told_to_finish_closes(tmp_path: Path, told: bytes, closed: bool) -> None:
    """The end of stdin alone says that the runner is gone; the workers may not be."""
    with patch.object(chunks, "CHUNK_ROWS", 16), patch.object(chunks, "GROUP_ROWS", 4):
        sends = SendsWriter(tmp_path / "ledger" / "sends.0")
        for seq in range(70):
            sends.sent(seq, 0, 0, 0, 1)
            sends.settle(seq, Outcome.ACKED, seq, 0, 2)
        sends.close()
        read, write = os.pipe()
        with os.fdopen(read) as stdin:
            packs = threading.Thread(target=pack_on, args=(tmp_path, stdin, 0.01))
            packs.start()
            deadline = time.monotonic() + 30
            while len(chunks.packed(tmp_path / "ledger" / "sends.0")) < 3:
                assert time.monotonic() < deadline
                time.sleep(0.01)
            os.write(write, told)
            os.close(write)
            packs.join(30)
        assert chunks.is_closed(chunks.packed(tmp_path / "ledger" / "sends.0")) is closed
        assert ledger.load_sends(tmp_path / "ledger" / "sends.0")["offset"][:].tolist() == list(range(70))


def test_a_full_disk_does_not_end_the_packer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with patch.object(chunks, "CHUNK_ROWS", 16), patch.object(chunks, "GROUP_ROWS", 4):
        receipts = ReceiptsWriter(tmp_path / "ledger" / "audit.0")
        for row in range(40):
            receipts.append(row + 1, 0, row, 0, row, 0, 0)
        receipts.close()
        one = packing.Packing(tmp_path / "ledger" / "audit.0", RECEIPTS)
        failures = iter([OSError(28, "No space left on device")])

        def fsync(_: int) -> None:
            for failure in failures:
                raise failure

        monkeypatch.setattr(os, "fsync", fsync)
        with patch.object(packer, "Packing", lambda *_: one):
            read, write = os.pipe()
            with os.fdopen(read) as stdin:
                packs = threading.Thread(target=pack_on, args=(tmp_path, stdin, 0.01))
                packs.start()
                deadline = time.monotonic() + 30
                while not chunks.packed(tmp_path / "ledger" / "audit.0"):
                    assert time.monotonic() < deadline
                    time.sleep(0.01)
                os.close(write)
                packs.join(30)
