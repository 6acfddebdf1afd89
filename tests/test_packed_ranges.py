"""Ranges of rows and packed chunks: what crosses from one to the other, and what is stored while a chunk is packed."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mqtest import ledger, packing
from mqtest.ledger import LATE_NS, SENDS, ReceiptsWriter, SendsWriter
from mqtest.model import Outcome
from tests.test_ledger_many import by_ranges, one_by_one
from tests.test_packing import (
    ACKED,
    CHUNK,
    NOW_NS,
    UNKNOWN,
    Meanwhile,
    _small_chunks,
    go_on,
    is_open,
    names,
    plain,
    settled,
    waiting,
    write_sends,
)

__all__ = ["_small_chunks"]


def write_unknown(folder: Path, rows: range, settled_ns: int, *, of: int = 60) -> SendsWriter:
    """Acked sends, but for those that were settled as unknown then."""
    return SendsWriter(write_sends(folder, of, but=dict.fromkeys(rows, settled(UNKNOWN, settled_ns))))


# --- written by ranges, then packed ---


@pytest.mark.parametrize("length", [CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK])
def test_rows_by_ranges_across_chunks_are_packed_as_rows_one_by_one(tmp_path: Path, length: int) -> None:
    sends, receipts = SendsWriter(tmp_path / "sends.0"), ReceiptsWriter(tmp_path / "receipts.0")
    for first in range(0, 75, length):
        seqs = range(first, min(first + length, 75))
        numbers = np.arange(seqs.start, seqs.stop)
        sends.sent_many(seqs, numbers + 10, 1, 2, 200)
        assert sends.settle_many(seqs, ACKED, 5 + first, -1, 300) == len(seqs)
        receipts.append_many(400, numbers % 2, numbers, 1, numbers + 5, numbers % 4, 3)
        go_on(tmp_path / "sends.0")
        go_on(tmp_path / "receipts.0")
    assert sends.counts.acked == receipts.rows == 75
    sends.close()
    receipts.close()
    rows = range(75)
    for again in range(2):
        assert plain(tmp_path / "sends.0") == {
            "due_ns": [10 + n for n in rows], "sent_ns": [200] * 75, "settled_ns": [300] * 75,
            "offset": [5 + n for n in rows], "place": [1] * 75, "outcome": [ACKED] * 75, "epoch": [2] * 75,
        }  # fmt: skip
        assert plain(tmp_path / "receipts.0") == {
            "received_ns": [400] * 75, "seq": list(rows), "offset": [5 + n for n in rows],
            "producer": [n % 2 for n in rows], "place": [1] * 75, "flags": [n % 4 for n in rows], "epoch": [3] * 75,
        }  # fmt: skip
        if not again:
            assert names(tmp_path / "sends.0") == names(tmp_path / "receipts.0") == ["000000", "000001", "000002"]


def test_a_chunk_waits_for_the_last_of_its_ranges(tmp_path: Path) -> None:
    folder = tmp_path / "sends.0"
    writer = SendsWriter(folder)
    writer.sent_many(range(60), 0, 0, 0, 1)
    go_on(folder)
    assert names(folder) == []
    writer.settle_many(range(1, 40), ACKED, 1, 0, 2)
    go_on(folder)
    assert names(folder) == ["000001"]
    writer.settle_many(range(1), ACKED, 0, 0, 2)
    go_on(folder)
    assert names(folder) == ["000000", "000001"]
    writer.close()


# --- settled by ranges, some of whose rows are packed ---


def test_a_range_out_of_a_packed_chunk_settles_only_what_was_open(tmp_path: Path) -> None:
    folder = write_sends(tmp_path / "sends.0", 60, but=dict.fromkeys(range(CHUNK, CHUNK + 5), is_open))
    writer = SendsWriter(folder)
    before, counts = plain(folder), writer.counts
    for times in (1, 2):  # packed; and given back
        go_on(folder, times)
        assert names(folder) == ["000000"]
    assert writer.settle_many(range(CHUNK - 5, CHUNK), ACKED, 700, 1, NOW_NS) == 0
    assert writer.settle_many(range(CHUNK - 5, CHUNK + 7), ACKED, 700, 1, NOW_NS) == 5
    assert writer.counts == counts._replace(acked=counts.acked + 5)
    writer.close()
    after = plain(folder)
    opened = slice(CHUNK, CHUNK + 5)
    assert after["offset"][opened] == list(range(705, 710))
    assert after["settled_ns"][opened] == [NOW_NS] * 5
    for name, rows in after.items():
        assert rows[:CHUNK] + rows[CHUNK + 5 :] == before[name][:CHUNK] + before[name][CHUNK + 5 :], name


@pytest.mark.parametrize("late_ns", [0, 1])
def test_late_answers_to_a_range_hold_its_chunk_until_it_is_too_late_for_them(tmp_path: Path, late_ns: int) -> None:
    unknown = range(CHUNK - 4, CHUNK + 4)
    folder = tmp_path / "sends.0"
    writer = write_unknown(folder, unknown, NOW_NS)
    one = packing.Packing(folder, SENDS)
    one.go_on(NOW_NS + LATE_NS)
    assert names(folder) == []
    assert writer.settle_many(unknown, ACKED, 700, 0, NOW_NS + LATE_NS + late_ns) == 0
    assert (writer.counts.unknown, writer.counts.acked) == ((0, 60) if not late_ns else (8, 52))
    one.go_on(NOW_NS + LATE_NS)
    assert names(folder) == (["000000", "000001"] if not late_ns else [])
    one.go_on(NOW_NS + LATE_NS + packing._MARGIN_NS + 1)
    assert names(folder) == ["000000", "000001"]
    writer.close()
    assert plain(folder)["outcome"][unknown.start : unknown.stop] == [ACKED if not late_ns else UNKNOWN] * 8


@pytest.mark.parametrize("rounds", [1, 3], ids=["packed", "given back"])
def test_a_range_of_which_a_part_is_too_late_takes_the_rest(tmp_path: Path, rounds: int) -> None:
    """Unknown and packed for good in one chunk, unknown of late in the next, open behind that."""
    stories: dict[int, Callable[[SendsWriter, int], Any]] = dict.fromkeys(range(10, CHUNK), settled(UNKNOWN, 5))
    stories |= dict.fromkeys(range(CHUNK, 20), settled(UNKNOWN, NOW_NS)) | dict.fromkeys(range(20, 23), is_open)
    folder = write_sends(tmp_path / "sends.0", 60, but=stories)
    go_on(folder, rounds)
    assert names(folder) == ["000000"]
    writer = SendsWriter(folder)
    counts = writer.counts
    assert writer.settle_many(range(10, 23), ACKED, 700, 0, NOW_NS + 1) == 3
    assert writer.counts == counts._replace(unknown=counts.unknown - 4, acked=counts.acked + 7)
    writer.close()
    after = plain(folder)
    assert after["outcome"][10:23] == [UNKNOWN] * 6 + [ACKED] * 7
    assert after["offset"][10:23] == [7] * 6 + list(range(706, 713))


def test_a_range_in_the_middle_of_giving_back_changes_nothing(tmp_path: Path) -> None:
    folder = write_sends(tmp_path / "sends.0", 40)
    before, real = plain(folder), packing._punch
    writer = SendsWriter(folder)
    counts = writer.counts
    heard: list[int] = []

    def punch(*args: int) -> None:
        real(*args)
        heard.append(writer.settle_many(range(3, 20), ACKED, 700, 0, NOW_NS))
        writer.skip(2, 99)

    with patch.object(packing, "_punch", punch):
        go_on(folder)
    assert heard == [0] * len(SENDS)
    assert writer.counts == counts
    writer.close()
    assert plain(folder) == before


def test_a_range_that_is_given_back_between_two_reads_is_not_taken_for_open(tmp_path: Path) -> None:
    folder = write_sends(tmp_path / "sends.0", 70)
    before = plain(folder)
    writer = SendsWriter(folder)
    counts = writer.counts
    seen = {name: Meanwhile(column, lambda: go_on(folder)) for name, column in writer._columns.items()}
    with patch.object(writer, "_columns", seen):
        assert writer.settle_many(range(3, 9), ACKED, 77, 0, NOW_NS) == 0
    assert len(names(folder)) == 3
    assert writer.counts == counts
    writer.close()
    assert plain(folder) == before


# --- stored while it is looked at ---


class Watched(dict[str, Any]):
    """Columns of one chunk; behind the first read of one of them the writer does something."""

    def __init__(self, folder: Path, name: str, then: Callable[[], Any]) -> None:
        super().__init__({name: column[:CHUNK] for name, column in ledger.load_columns(folder, SENDS).items()})
        self.name, self.then = name, then

    def __getitem__(self, name: str) -> Any:
        value = np.array(super().__getitem__(name))
        if name == self.name:
            self.name = ""
            self.then()
        return value


@pytest.mark.parametrize("outcome", [UNKNOWN, ACKED])
@pytest.mark.parametrize("name", ["outcome", "settled_ns", "sent_ns", "due_ns", "offset"])
def test_a_range_that_is_settled_while_its_chunk_is_looked_at(tmp_path: Path, name: str, outcome: Outcome) -> None:
    """Unknown it must not be packed, for an answer may come yet; acked it need not be."""
    folder = write_sends(tmp_path / "sends.0", 40, but=dict.fromkeys(range(4, 20), is_open))
    writer = SendsWriter(folder)
    rows = Watched(folder, name, lambda: writer.settle_many(range(4, 20), outcome, 0, 0, NOW_NS))
    final = packing.Packing(folder, SENDS)._is_final(rows, NOW_NS)
    assert not (final and outcome is UNKNOWN)
    assert packing.Packing(folder, SENDS)._is_final(Watched(folder, "", lambda: None), NOW_NS) is (outcome is ACKED)
    writer.close()


@pytest.mark.parametrize("stored", range(7))
def test_a_range_that_is_just_being_sent_is_not_final(tmp_path: Path, stored: int) -> None:
    """Behind it others were skipped, and it was all that the chunk waited for. A kill in it leaves the chunk for the
    end."""
    folder = write_sends(tmp_path / "sends.0", 60, but=dict.fromkeys(range(4, 12), waiting))
    writer = SendsWriter(folder)

    class Torn(dict[str, Any]):
        def __getitem__(self, name: str) -> Any:
            nonlocal stored
            if not stored:
                raise KeyboardInterrupt
            stored -= 1
            return super().__getitem__(name)

    with patch.object(writer, "_columns", Torn(writer._columns)), suppress(KeyboardInterrupt):
        writer.sent_many(range(4, 12), 50, 0, 0, 60)
    go_on(folder)
    assert "000000" not in names(folder)
    assert "000001" in names(folder)
    writer.close()
    before = plain(folder)
    packing.close(folder, SENDS)
    assert plain(folder) == before


def test_a_skipped_range_is_final_whether_it_was_handed_over_or_not(tmp_path: Path) -> None:
    folder = write_sends(tmp_path / "sends.0", 60, but=dict.fromkeys(range(4, 12), is_open))
    writer = SendsWriter(folder)
    go_on(folder)
    assert "000000" not in names(folder)
    for seq in range(4, 12):
        writer.skip(seq, 50)
    go_on(folder)
    assert "000000" in names(folder)
    counts = writer.counts
    for seq in range(CHUNK):
        writer.skip(seq, 50)
    assert writer.counts == counts
    writer.close()
    assert ledger.open_sends(folder) == 0


# --- at random ---

FOLLOWING = st.tuples(st.just("sent"), st.integers(1, 60), st.booleans(), st.integers(1, 3))
OUTCOMES = st.sampled_from([o for o in Outcome if o is not Outcome.NONE])
RANGES = st.tuples(st.integers(0, 60), st.sampled_from([1, 1, 2]), st.integers(1, 60))
SETTLED = st.tuples(st.just("settle"), RANGES, OUTCOMES, st.integers(-1, 9))
ALL_SETTLED = st.tuples(st.just("settle"), st.just((0, 1, 200)), OUTCOMES, st.integers(-1, 9))
SKIPPED = st.tuples(st.just("skip"), st.integers(0, 60))
PACKED = st.tuples(st.just("pack"))
STEPS = st.one_of(FOLLOWING, SETTLED, ALL_SETTLED, SKIPPED, PACKED)


def spelt(step: tuple[Any, ...], next_seq: int) -> list[tuple[Any, ...]]:
    """As steps of test_ledger_many.py: sends go on behind the last one, as a producer's do, one range a place."""
    match step:
        case "sent", count, dues, places:
            seqs = range(next_seq, next_seq + count)
            return [("sent", seqs[place::places], dues, place) for place in range(places)]
        case "settle", (first, by, n), outcome, offset:
            return [("settle", range(first, first + by * n, by), outcome, offset, -1)]
    return [step]


@given(st.lists(STEPS, max_size=25))
@settings(deadline=None, max_examples=60)
def test_ranges_in_a_ledger_that_is_packed_at_any_time_are_rows_one_by_one_in_one_that_never_is(
    steps: list[tuple[Any, ...]],
) -> None:
    late = 4
    with (
        tempfile.TemporaryDirectory() as made,
        patch.object(ledger, "LATE_NS", late),
        patch.object(packing, "LATE_NS", late),
        patch.object(packing, "_MARGIN_NS", 0),
    ):
        folders = [Path(made) / f"sends.{n}" for n in range(2)]
        writers = [SendsWriter(folder) for folder in folders]
        packer = packing.Packing(folders[0], SENDS)
        for at, step in enumerate(steps, 100):
            if step[0] == "pack":
                packer.go_on(at)  # and what was packed the last time is given back
                continue
            for one in spelt(step, writers[0].next_seq):
                said: list[int | str] = []
                for way, writer in zip((by_ranges, one_by_one), writers, strict=True):
                    try:
                        said.append(way(writer, one, at))
                    except ValueError as error:
                        said.append(str(error))
                assert said[0] == said[1]
            assert writers[0].counts == writers[1].counts
            assert writers[0].last_ack_ns == writers[1].last_ack_ns
        for writer in writers:
            writer.close()
        assert plain(folders[0]) == plain(folders[1])
        assert ledger.open_sends(folders[0]) == ledger.open_sends(folders[1])
