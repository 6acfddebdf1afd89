"""What falls due, in numbers, and in what order it waits."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mqtest.workload.backlog import Backlog, due_times

NEVER = 1 << 62


@given(
    st.integers(0, 10**15),
    st.floats(500, 1e7),
    st.integers(0, 10**6),
    st.integers(-(10**8), 10**8),
)
def test_due_times_are_those_of_a_loop(t0: int, interval: float, after: int, later: int) -> None:
    now = t0 + int(after * interval) + min(later, int(300 * interval))
    expected, nth = [], after
    while (due := t0 + int(nth * interval)) <= now:
        expected.append(due)
        nth += 1
    assert due_times(t0, interval, after, now).tolist() == expected


def test_nothing_is_due_at_rate_0() -> None:
    assert len(due_times(NEVER, 0.0, 5, 10**18)) == 0


def test_runs_come_out_in_order_and_in_pieces() -> None:
    backlog = Backlog()
    assert not backlog
    backlog.add(3, np.array([30, 40, 50]))
    backlog.add(9, np.array([90]))
    backlog.add(10, np.array([], dtype=np.int64))
    assert (len(backlog), list(backlog)) == (4, [(3, 30), (4, 40), (5, 50), (9, 90)])
    seqs, due_ns = backlog.head(2)
    assert (seqs, due_ns.tolist()) == (range(3, 5), [30, 40])
    backlog.drop(1)
    seqs, due_ns = backlog.head(10)
    assert (seqs, due_ns.tolist()) == (range(4, 6), [40, 50])
    backlog.drop(2)
    assert backlog.head(1)[0] == range(9, 10)
    backlog.drop(1)
    assert len(backlog) == 0
