"""Times and durations that are kept in bounded memory, against the plain arithmetic."""

from __future__ import annotations

from itertools import chain, pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mqtest.durations import SHORT_US, Durations, spread
from mqtest.series import joined, series
from mqtest.tables import Ints, ahead, distinct

_MS = 1 << 20
_TIMES = st.lists(st.integers(0, 50 * _MS), max_size=60)


def ints(values: list[int]) -> Ints:
    return np.array(values, dtype=np.int64)


@given(st.lists(_TIMES, max_size=4))
def test_exact_series_have_every_time(parts: list[list[int]]) -> None:
    whole = joined([series(ints(part), exact=True) for part in parts], exact=True)
    assert whole.times.tolist() == sorted(chain.from_iterable(parts))
    assert whole.counts.tolist() == [1] * len(whole.times)


@given(st.lists(_TIMES, min_size=1, max_size=4))
def test_thinned_series_count_all_and_keep_every_gap_of_a_millisecond(parts: list[list[int]]) -> None:
    every = sorted(chain.from_iterable(parts))
    thin = joined([series(ints(part), exact=False) for part in parts], exact=False)
    assert thin.counts.sum() == len(every)
    assert set(thin.times.tolist()) <= set(every)
    gaps = {(a, b) for a, b in pairwise(every) if b - a >= _MS}
    kept = thin.times.tolist()
    assert gaps <= set(pairwise(kept))
    assert len(kept) <= 2 * 51
    assert thin.between(0, 51 * _MS) == len(every)


def test_a_part_alone_is_thinned_too() -> None:
    assert len(joined([series(np.arange(1000), exact=False)], exact=False).times) == 2


def test_between_leaves_out_the_end() -> None:
    some = series(ints([1, 2, 2, 5]), exact=True)
    assert (some.between(2, 5), some.between(2, 6), some.between(6, 9)) == (2, 3, 0)


_NS = st.one_of(st.integers(-5000, 5000), st.integers(0, 10**7), st.integers(0, 3 * SHORT_US * 1000))


@given(st.lists(st.lists(_NS, max_size=20), min_size=1, max_size=4).filter(any))
def test_ranks_are_nearest_ranks_to_the_microsecond(parts: list[list[int]]) -> None:
    durations = Durations(spread(ints(part)) for part in parts)
    every = sorted((ns + 500) // 1000 for ns in chain.from_iterable(parts))
    assert durations.number == len(every)
    wanted = [500, 950, 990, 999, 1000]
    assert durations.ranks(wanted) == [every[-(-len(every) * part // 1000) - 1] for part in wanted]


def test_results_come_in_the_order_of_the_pieces() -> None:
    assert list(ahead(lambda n: n * n, range(50))) == [n * n for n in range(50)]


def test_an_error_of_a_piece_is_raised() -> None:
    with pytest.raises(ZeroDivisionError):
        list(ahead(lambda n: 1 // n, [1, 0, 1]))


@given(st.lists(st.integers(-5, 5)) | st.lists(st.integers(-(2**40), 2**40)))
def test_distinct(values: list[int]) -> None:
    assert distinct(ints(values)) == set(values)
