"""Whole arrays into HDR histograms, as the library itself would count them; logs that its own reader takes."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from hdrh.histogram import HdrHistogram
from hdrh.log import HistogramLogReader
from hypothesis import given
from hypothesis import strategies as st

from mqtest import hdr
from mqtest.errors import LedgerError

EDGES = sorted({max(0, 2**k + d) for k in range(47) for d in (-1, 0, 1, 511, 512)} | {hdr.HIGHEST_NS})
BEGIN = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def counted_one_by_one(values: list[int]) -> HdrHistogram:
    histogram = hdr.empty()
    for value in values:
        assert histogram.record_value(value)
    return histogram


def same(one: HdrHistogram, other: HdrHistogram) -> bool:
    return (
        list(one.counts) == list(other.counts)
        and one.total_count == other.total_count
        and one.get_max_value() == other.get_max_value()
        and one.get_min_value() == other.get_min_value()
        and one.encode() == other.encode()
    )


def test_the_edges_of_all_buckets_are_counted_as_the_library_does() -> None:
    assert same(hdr.of(np.array(EDGES)), counted_one_by_one(EDGES))


@given(st.lists(st.integers(0, hdr.HIGHEST_NS), max_size=50), st.lists(st.integers(0, 10**9), max_size=50))
def test_any_values_are_counted_as_the_library_does_and_two_parts_are_the_whole(a: list[int], b: list[int]) -> None:
    whole = hdr.of(np.array(a, dtype=np.int64))
    hdr.record(whole, np.array(b, dtype=np.int64))
    assert same(whole, counted_one_by_one(a + b))


@given(st.lists(st.integers(hdr.LOWEST_NS, hdr.HIGHEST_NS), min_size=1, max_size=50))
def test_counts_of_buckets_are_the_histogram_of_the_values(values: list[int]) -> None:
    places, counts = np.unique(hdr.buckets(np.array(values, dtype=np.int64)), return_counts=True)
    assert same(hdr.counted(places, counts), counted_one_by_one(values))


def test_what_is_out_of_range_counts_as_its_end() -> None:
    assert same(hdr.of(np.array([-5, 2**62])), counted_one_by_one([0, hdr.HIGHEST_NS]))


def test_quantiles_are_nearest_rank_to_three_digits() -> None:
    times = hdr.of(np.arange(1, 1001) * 1_000_000)  # 1 ms to 1 s
    found = [hdr.quantile_ns(times, q) for q in (500, 990, 999, 1000)]
    assert found == [pytest.approx(ms * 1e6, rel=1e-3) for ms in (500, 990, 999, 1000)]
    assert hdr.quantile_ns(times, 1) == pytest.approx(1e6, rel=1e-3)
    assert hdr.quantile_ns(hdr.empty(), 500) is None


def test_a_log_is_read_by_the_librarys_own_reader(tmp_path: Path) -> None:
    seconds = [hdr.of(np.array([1_000_000, 2_000_000])), hdr.of(np.array([3_000_000_000]))]
    path = tmp_path / "x.hlog"
    lines = [
        *hdr.header(BEGIN, "a test"),
        hdr.line(0, 10**9, seconds[0], "steady"),
        hdr.line(10**9, 5 * 10**8, seconds[1]),
    ]
    path.write_text("\n".join(lines) + "\n")
    reader = HistogramLogReader(str(path), hdr.empty())
    first, second = reader.get_next_interval_histogram(), reader.get_next_interval_histogram()
    assert (first.get_tag(), second.get_tag()) == ("steady", None)
    assert first.get_start_time_stamp() == BEGIN.timestamp() * 1000
    assert second.get_end_time_stamp() == BEGIN.timestamp() * 1000 + 1500
    assert [list(h.counts) for h in (first, second)] == [list(h.counts) for h in seconds]
    assert reader.get_next_interval_histogram() is None
    reader.close()


def test_a_log_is_read_back_and_merged_but_for_a_line_that_a_kill_tore(tmp_path: Path) -> None:
    path = tmp_path / "x.hlog"
    lines = [*hdr.header(None), *(hdr.line(n * 10**9, 10**9, hdr.of(np.array([n * 10**6])), "t") for n in range(3))]
    path.write_text("\n".join(lines)[:-9])
    intervals = hdr.read(path)
    assert [(i.tag, i.begin_s, i.length_s, i.end_s) for i in intervals] == [("t", 0.0, 1.0, 1.0), ("t", 1.0, 1.0, 2.0)]
    assert list(hdr.merged(intervals).counts) == list(hdr.of(np.array([0, 10**6])).counts)
    path.write_text("nonsense\n")
    with pytest.raises(LedgerError, match=r"x\.hlog: line 1 is no interval of a histogram log"):
        hdr.read(path)
    with pytest.raises(LedgerError, match=r"gone\.hlog: No such file"):
        hdr.read(tmp_path / "gone.hlog")
