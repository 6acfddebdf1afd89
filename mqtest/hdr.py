"""HDR histograms of times in nanoseconds, and logs of them by interval that the tools of that family read.

Any two of these histograms can be added, whoever wrote them: all count from 1 µs to 24 h to three digits (what is
longer counts as 24 h). A log is text: a header, then a line an interval, each with its tag, begin, length (seconds),
highest value (milliseconds), and the histogram in the V2 encoding (`Histogram log format version 1.3`).
Times come from numpy arrays, whole columns at a time; the buckets are those of `HdrHistogram.record_value`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from hdrh.histogram import HdrHistogram
from numpy.typing import NDArray

from mqtest.errors import LedgerError

Ints = NDArray[Any]

LOWEST_NS = 1_000
HIGHEST_NS = 24 * 3600 * 1_000_000_000
DIGITS = 3
_NS_PER_MS = 1_000_000

_LINE = re.compile(r"(?:Tag=([^,\s]+),)?(\d+\.\d+),(\d+\.\d+),\d+\.\d+,([A-Za-z0-9+/=]+)")
_LEGEND = '"StartTimestamp","Interval_Length","Interval_Max","Interval_Compressed_Histogram"'


@dataclass(frozen=True, slots=True)
class Interval:
    """One line of a log."""

    tag: str
    """empty: none"""
    begin_s: float
    length_s: float
    encoded: str

    @property
    def end_s(self) -> float:
        """One past it."""
        return self.begin_s + self.length_s


def empty() -> HdrHistogram:
    """A histogram without values."""
    return HdrHistogram(LOWEST_NS, HIGHEST_NS, DIGITS)


def record(histogram: HdrHistogram, values_ns: Ints) -> None:
    """Count every value, of any number of them at once; one below 0 counts as 0, one above 24 h as 24 h."""
    if len(values_ns):
        values = _clipped(values_ns)
        _count(histogram, np.bincount(buckets(values)), int(values.min()), int(values.max()))


def _clipped(values_ns: Ints) -> Ints:
    clipped: Ints = np.clip(values_ns, 0, HIGHEST_NS).astype(np.int64)
    return clipped


def _count(histogram: HdrHistogram, by_bucket: Ints, least_ns: int, most_ns: int) -> None:
    counts = np.frombuffer(histogram.counts, dtype=np.uint64)
    counts[: len(by_bucket)] += by_bucket.astype(np.uint64)
    histogram.total_count += int(by_bucket.sum())
    histogram.min_value = min(histogram.min_value, least_ns)
    histogram.max_value = max(histogram.max_value, most_ns)


_SHAPE = empty()
BUCKETS = len(_SHAPE.counts)
"""of each of these histograms"""


def buckets(values_ns: Ints) -> Ints:
    """Which bucket each value counts in, from 0, below BUCKETS: as HdrHistogram._counts_index_for, for whole arrays.
    Below 2^53 a float has every bit of a value, so its exponent is the number of bits."""
    values = _clipped(values_ns)
    magnitude, half = _SHAPE.unit_magnitude, _SHAPE.sub_bucket_half_count_magnitude
    bits = np.frexp((values | _SHAPE.sub_bucket_mask).astype(np.float64))[1].astype(np.int64)
    bucket = bits - magnitude - (half + 1)
    index: Ints = ((bucket + 1) << half) + (values >> (bucket + magnitude)) - _SHAPE.sub_bucket_half_count
    return index


def of(values_ns: Ints) -> HdrHistogram:
    """The histogram of these values."""
    histogram = empty()
    record(histogram, values_ns)
    return histogram


def counted(places: Ints, counts: Ints) -> HdrHistogram:
    """The histogram with so many values in each of these buckets, one at least, which are in order; its least and its
    highest value are known by their buckets only."""
    histogram = empty()
    by_bucket = np.zeros(BUCKETS, dtype=np.int64)
    by_bucket[places] = counts
    least, most = (histogram.get_value_from_index(int(places[end])) for end in (0, -1))
    _count(histogram, by_bucket, least, most)
    return histogram


def quantile_ns(histogram: HdrHistogram, thousandths: int) -> int | None:
    """The nearest-rank quantile (500: the median, 1000: the highest), as the highest value of its bucket; None of no
    values."""
    if not histogram.total_count:
        return None
    rank = max(1, -(-histogram.total_count * thousandths // 1000))
    index = int(np.searchsorted(np.cumsum(np.frombuffer(histogram.counts, dtype=np.uint64)), rank))
    return int(histogram.get_highest_equivalent_value(histogram.get_value_from_index(index)))


def header(begin: datetime | None, *about: str) -> Iterator[str]:
    """The first lines of a log; `begin` is what its times count from, None where that is not known in UTC."""
    yield from (f"#[{text}]" for text in about)
    yield "#[Histogram log format version 1.3]"
    if begin is not None:
        at = begin.timestamp()
        yield f"#[StartTime: {at:.3f} (seconds since epoch), {begin.isoformat(timespec='seconds')}]"
        yield f"#[BaseTime: {at:.3f} (seconds since epoch)]"
    yield _LEGEND


def line(begin_ns: int, length_ns: int, histogram: HdrHistogram, tag: str = "") -> str:
    """One interval."""
    name = f"Tag={tag}," if tag else ""
    highest_ms = histogram.get_max_value() / _NS_PER_MS
    return f"{name}{begin_ns / 1e9:.6f},{length_ns / 1e9:.6f},{highest_ms:.3f},{histogram.encode().decode()}"


def read(path: Path) -> list[Interval]:
    """The intervals of a log in order. A last line that a kill tore is dropped; LedgerError for any other line that is
    none, or a file that is not there."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    except OSError as error:
        raise LedgerError(f"{path}: {error.strerror}") from error
    try:
        return list(intervals(lines[:-1]))
    except ValueError as error:
        raise LedgerError(f"{path}: {error}") from error


def intervals(lines: Iterable[str]) -> Iterator[Interval]:
    """The intervals in the lines of a log; raises ValueError for a line that is none."""
    for number, text in enumerate(lines, 1):
        if text.startswith(("#", '"')) or not text:
            continue
        match = _LINE.fullmatch(text)
        if match is None:
            raise ValueError(f"line {number} is no interval of a histogram log")
        yield Interval(match[1] or "", float(match[2]), float(match[3]), match[4])


def merged(parts: Iterable[Interval]) -> HdrHistogram:
    """All of them as one histogram."""
    whole = empty()
    for interval in parts:
        whole.decode_and_add(interval.encoded)
    return whole
