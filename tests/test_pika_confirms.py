"""Delivery tags: every message is taken once, by whatever answers name it, in runs."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mqtest.clients.pika_confirms import Confirms, Run


def test_runs_are_cut_by_what_is_named() -> None:
    confirms = Confirms()
    confirms.sent(range(10, 20, 2), 0)
    confirms.sent(range(11, 20, 2), 1)
    assert confirms.take(*confirms.named(3, False)) == [Run(3, range(14, 16, 2), 0)]
    assert confirms.take(*confirms.named(7, True)) == [
        Run(1, range(10, 14, 2), 0),
        Run(4, range(16, 20, 2), 0),
        Run(6, range(11, 15, 2), 1),
    ]
    assert confirms.take(*confirms.named(7, True)) == []
    assert confirms.take(*confirms.named(0, True)) == [Run(8, range(15, 21, 2), 1)]
    assert confirms.take(*confirms.named(99, False)) == []


def test_what_came_back_is_left_out_once() -> None:
    confirms = Confirms()
    confirms.sent(range(5), 0)
    confirms.returned.update((0, 3))
    assert confirms.take(1, 5) == [Run(2, range(1, 3), 0), Run(5, range(4, 5), 0)]
    assert confirms.returned == set()


SENT = st.tuples(st.just("sent"), st.integers(1, 9), st.booleans())
ANSWER = st.tuples(st.just("answer"), st.integers(0, 60), st.booleans())


@given(st.lists(st.one_of(SENT, ANSWER), max_size=40), st.sets(st.integers(0, 60), max_size=5))
def test_as_a_table_of_single_tags_would(steps: list[tuple[str, int, bool]], returned: set[int]) -> None:
    confirms, table, seq = Confirms(), dict[int, int](), 0
    confirms.returned.update(returned)
    for what, number, multiple in steps:
        if what == "sent":
            confirms.sent(range(seq, seq + number), 0)
            table.update({s + 1: s for s in range(seq, seq + number)})
            seq += number
            continue
        through = number or seq
        if not number and not multiple:
            continue
        named = [tag for tag in sorted(table) if tag == through or (multiple and tag < through)]
        expected = [(tag, s) for tag in named if (s := table.pop(tag)) not in returned]
        got = confirms.take(*confirms.named(number, multiple))
        assert [(run.tag + n, s) for run in got for n, s in enumerate(run.seqs)] == expected
