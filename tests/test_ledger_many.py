"""Rows written by ranges are the rows that are written one by one; random sequences of both against each other."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mqtest import columns, ledger
from mqtest.body import encode
from mqtest.clients import Block
from mqtest.model import RUNNER, Outcome
from mqtest.workload.consumer import FEW, record

RANGES = st.builds(
    lambda start, step, n: range(start, start + step * n, step),
    st.integers(0, 30),
    st.integers(1, 3),
    st.integers(0, 9),
)
SETTLED = st.sampled_from([o for o in Outcome if o is not Outcome.NONE])
STEPS = st.one_of(
    st.tuples(st.just("sent"), RANGES, st.booleans(), st.integers(-1, 3)),
    st.tuples(st.just("skip"), st.integers(0, 50)),
    st.tuples(st.just("settle"), RANGES, SETTLED, st.integers(-1, 9), st.integers(-1, 3)),
)


def by_ranges(writer: ledger.SendsWriter, step: tuple, at: int) -> int:  # type: ignore[type-arg]
    match step:
        case "sent", seqs, dues, place:
            writer.sent_many(seqs, np.arange(len(seqs)) + at if dues else 0, place, at, at)
        case "skip", seq:
            writer.skip(seq, at)
        case "settle", seqs, outcome, offset, place:
            return writer.settle_many(seqs, outcome, offset, place, at)
    return 0


def one_by_one(writer: ledger.SendsWriter, step: tuple, at: int) -> int:  # type: ignore[type-arg]
    match step:
        case "sent", seqs, dues, place:
            for nth, seq in enumerate(seqs):
                writer.sent(seq, at + nth if dues else 0, place, at, at)
        case "skip", seq:
            writer.skip(seq, at)
        case "settle", seqs, outcome, offset, place:
            return sum(
                writer.settle(seq, outcome, offset + nth if offset >= 0 else -1, place, at)
                for nth, seq in enumerate(seqs)
            )
    return 0


@given(st.lists(STEPS, max_size=12))
@settings(deadline=None, max_examples=60)
def test_sends_by_ranges_are_sends_one_by_one(steps: list[tuple]) -> None:  # type: ignore[type-arg]
    with tempfile.TemporaryDirectory() as folder:
        ways = by_ranges, one_by_one
        writers = [ledger.SendsWriter(Path(folder) / f"sends.{n}") for n in range(2)]
        for at, step in enumerate(steps, 100):
            said: list[int | str] = []
            for way, writer in zip(ways, writers, strict=True):
                try:
                    said.append(way(writer, step, at))
                except ValueError as error:
                    said.append(str(error))
            assert said[0] == said[1]
            assert writers[0].counts == writers[1].counts
            assert writers[0].next_seq == writers[1].next_seq
            assert writers[0].last_ack_ns == writers[1].last_ack_ns
        for writer in writers:
            writer.close()
        left, right = (ledger.load_sends(Path(folder) / f"sends.{n}") for n in range(2))
        for name in ledger.SENDS:
            assert np.array_equal(left[name], right[name]), name


def test_ranges_grow_past_a_step(tmp_path: Path) -> None:
    writer = ledger.SendsWriter(tmp_path / "sends.0")
    rows = range(columns.STEP_ROWS + 10)
    writer.sent_many(rows, 0, 0, 3, 5)
    assert writer.settle_many(rows, Outcome.ACKED, 7, -1, 9) == len(rows)
    assert writer.settle_many(rows, Outcome.UNKNOWN, -1, -1, 10) == 0
    with pytest.raises(ValueError, match="never sent"):
        writer.settle_many(range(5, len(rows) + 1), Outcome.ACKED, 7, -1, 9)
    writer.close()
    loaded = ledger.load_sends(tmp_path / "sends.0")
    assert np.array_equal(loaded["offset"], np.arange(7, 7 + len(rows)))
    assert set(loaded["settled_ns"]) == {9}


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), max_size=8))
@settings(deadline=None, max_examples=25)
def test_receipts_by_blocks_are_receipts_one_by_one(blocks: list[tuple[int, bool]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        left, right = (ledger.ReceiptsWriter(Path(folder) / f"receipts.{n}") for n in range(2))
        for at, (count, many) in enumerate(blocks, 50):
            rows = np.arange(count) + 10 * at
            producers, flags = rows % 3 + 2**32 - 3, rows % 5
            if many:
                left.append_many(at, producers, rows, at % 3, rows + 1, flags, at)
            else:
                for n in range(count):
                    left.append(at, int(producers[n]), int(rows[n]), at % 3, int(rows[n]) + 1, int(flags[n]), at)
            for n in range(count):
                right.append(at, int(producers[n]), int(rows[n]), at % 3, int(rows[n]) + 1, int(flags[n]), at)
            assert left.rows == right.rows
        left.close()
        right.close()
        one, other = (ledger.load_receipts(Path(folder) / f"receipts.{n}") for n in range(2))
        for name in ledger.RECEIPTS:
            assert np.array_equal(one[name], other[name]), name


def test_a_block_grows_the_receipts_past_a_step(tmp_path: Path) -> None:
    writer = ledger.ReceiptsWriter(tmp_path / "receipts.0")
    rows = np.arange(columns.STEP_ROWS + 5)
    writer.append_many(1, rows, rows, 0, rows, rows * 0, 0)
    assert writer.rows == len(rows)
    writer.close()
    assert len(ledger.load_receipts(tmp_path / "receipts.0")["seq"]) == len(rows)


@pytest.mark.parametrize("count", [1, FEW - 1, FEW, FEW + 1])
def test_a_block_is_recorded_as_its_deliveries_are(tmp_path: Path, count: int) -> None:
    texts = [encode((7, 8)[n % 5 == 4], (3, RUNNER)[n % 7 == 6], n, 0, 64) for n in range(count)]
    texts[-1] = texts[-1][:-1] + b"~"
    block = Block(2, np.arange(count) + 10, np.frombuffer(b"".join(texts), dtype=np.uint8).reshape(count, 64))
    told = []
    for name, arrived in (("one", [block]), ("other", block.deliveries)):
        writer, fences = ledger.ReceiptsWriter(tmp_path / name), dict[int, int]()
        own = record(writer, arrived, 7, 1, fences)
        writer.close()
        columns_of = ledger.load_receipts(tmp_path / name)
        told.append(
            (own, fences, {n: np.asarray(columns_of[n]).tolist() for n in ledger.RECEIPTS if n != "received_ns"})
        )
    assert told[0] == told[1]
