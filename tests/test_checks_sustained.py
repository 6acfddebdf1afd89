"""The sustained rate and the latency at shares of it, from literal rows: what holds is found, what does not is not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from mqtest.checks.sustained import Part, part, why_not
from mqtest.history import load
from mqtest.judge import COLUMNS, judge
from mqtest.ledger import load_sends
from mqtest.model import Outcome, Search
from tests.histories import Sent, Skipped, at, in_order, write_cell_folder

GOOD = Part(
    lasted_ms=2000.0, lag_ms=1.0, asked=1000.0, due=1000, skipped=0, acked=1000, backlog_before=5.0, backlog_after=5.0
)


def trial(rate_per_s: float, began_s: float, ended_s: float) -> dict[str, Any]:
    times = {"t_ns": at(ended_s), "began_ns": at(began_s), "ended_ns": at(ended_s)}
    return {"event": "trial", "rate_per_s": rate_per_s, **times}


def phase(name: str, begin_s: float) -> dict[str, Any]:
    return {"event": "phase", "name": name, "t_ns": at(begin_s)}


def steady(first: int, begin_s: float, seconds: float, rate_per_s: float, latency_s: float = 0.1) -> list[Sent]:
    """Messages from `first` on, each acked so long after it was due."""
    count = round(seconds * rate_per_s)
    due = [begin_s + i / rate_per_s for i in range(count)]
    return [Sent(first + i, due_s=d, settled_s=d + latency_s) for i, d in enumerate(due)]


def slow(first: int, begin_s: float, seconds: float, rate_per_s: float, acks_per_s: float) -> list[Sent]:
    """The same at a broker that acks fewer a second: each ack a while after the one before."""
    count = round(seconds * rate_per_s)
    return [
        Sent(first + i, due_s=begin_s + i / rate_per_s, settled_s=begin_s + (i + 1) / acks_per_s) for i in range(count)
    ]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, None),
        ({"due": 950}, None),
        ({"due": 949}, "only 949 of 1,000 messages fell due"),
        ({"lag_ms": 100.0}, None),
        ({"lag_ms": 101.0}, "our own load was late by p99 101 ms in 2,000 ms"),
        ({"lag_ms": 101.0, "backlog_after": 500.0}, "our own load was late by p99 101 ms in 2,000 ms"),
        ({"lag_ms": None}, None),
        ({"skipped": 1}, "1 of 1,000 messages were skipped"),
        ({"acked": 990}, None),
        ({"acked": 989}, "only 989 of 1,000 messages were acknowledged"),
        ({"backlog_after": 15.0}, None),
        ({"backlog_after": 16.0}, "the backlog grew by 11 while 1,000 messages fell due"),
        ({"backlog_before": 500.0, "backlog_after": 505.0}, None),
        ({"backlog_before": 500.0, "backlog_after": 5.0}, None),
    ],
)
def test_the_rule(changes: Mapping[str, Any], words: str | None) -> None:
    assert why_not(Part(**{name: changes.get(name, getattr(GOOD, name)) for name in GOOD.__slots__})) == words


class TestThePart:
    """Of a trial from 0 to 9 s: what fell due from 3 s on."""

    def of(self, tmp_path: Path, sends: Sequence[Sent | Skipped], rate_per_s: float = 10.0) -> Part:
        folder = write_cell_folder(tmp_path, sends=sends)
        return part(load_sends(folder / "ledger" / "sends.0"), load(folder).pacing, rate_per_s, at(0), at(9))

    def test_a_broker_that_keeps_up(self, tmp_path: Path) -> None:
        assert self.of(tmp_path, steady(0, 0, 9, 10, 0.25)) == Part(
            lasted_ms=6000.0,
            lag_ms=None,
            asked=60.0,
            due=60,
            skipped=0,
            acked=60,
            backlog_before=3.0,
            backlog_after=3.0,
        )

    def test_one_that_does_not(self, tmp_path: Path) -> None:
        """It acks half: 30 are open after 6 s, 45 after 9 s; medians are those at 4.5 and 7.5 s."""
        found = self.of(tmp_path, slow(0, 0, 9, 10, 5))
        assert (found.due, found.acked) == (60, 60)
        assert found.backlog_before == pytest.approx(22.5, abs=1)
        assert found.backlog_after == pytest.approx(37.5, abs=1)
        assert why_not(found) == "the backlog grew by 15 while 60 messages fell due"

    def test_a_stall_that_is_made_good(self, tmp_path: Path) -> None:
        """Nothing is acked from 8 to 9 s, then all at once."""
        rows = [s._replace(settled_s=9.1) if 8 <= (s.settled_s or 0) < 9 else s for s in steady(0, 0, 9, 10)]
        assert why_not(self.of(tmp_path, rows)) is None

    def test_a_stall_that_lasts(self, tmp_path: Path) -> None:
        rows = [s._replace(settled_s=9.1) if 6 <= (s.settled_s or 0) < 9 else s for s in steady(0, 0, 9, 10)]
        assert "the backlog grew by" in (why_not(self.of(tmp_path, rows)) or "")

    def test_the_backlog_of_before_counts(self, tmp_path: Path) -> None:
        """It shrinks."""
        rows = [*(Sent(i, due_s=-5, settled_s=i / 2) for i in range(20)), *steady(20, 0, 9, 10)]
        found = self.of(tmp_path, rows)
        assert found.backlog_before > found.backlog_after > 0
        assert why_not(found) is None

    def test_what_was_not_acked_and_what_was_skipped(self, tmp_path: Path) -> None:
        rows: list[Sent | Skipped] = list(steady(0, 0, 9, 10))
        rows[0] = Skipped(0, due_s=0.0)  # before the part
        rows[40] = Skipped(40, due_s=4.0)
        rows[50] = Sent(50, Outcome.UNKNOWN, due_s=5.0, settled_s=5.1)
        rows[60] = Sent(60, due_s=6.0, settled=False)
        found = self.of(tmp_path, rows)
        assert (found.due, found.skipped, found.acked) == (60, 1, 57)

    def test_what_is_due_at_no_time_is_in_none(self, tmp_path: Path) -> None:
        found = self.of(tmp_path, [Sent(i, sent_s=i / 10, closed_loop=True) for i in range(90)])
        assert (found.due, found.acked, found.backlog_after) == (0, 0, 0)


class TestTheCheck:
    def cell(self, tmp_path: Path, sends: Sequence[Sent | Skipped], *events: Mapping[str, Any], **record: Any) -> Path:
        return write_cell_folder(tmp_path, sends=sends, events=events, **record)

    def test_the_highest_that_holds(self, tmp_path: Path) -> None:
        sends = [*steady(0, 2, 3, 10), *slow(30, 6, 3, 40, 20), *steady(150, 15, 3, 20)]
        folder = self.cell(tmp_path, sends, trial(10, 2, 5), trial(40, 6, 9), trial(20, 15, 18))
        judged = judge(folder)
        assert judged.row["sustained_per_s"] == 20.0
        (finding,) = [f for f in judged.findings if f.check == "sustained"]
        assert finding.numbers["trials"] == 3
        assert [line.partition(": ")[0] for line in finding.examples] == ["10 a second", "40 a second", "20 a second"]
        assert [line.endswith(": sustained") for line in finding.examples] == [True, False, True]

    @pytest.mark.parametrize("found", [40.0, None])
    def test_what_the_search_took_for_it_is_told_beside_it(self, tmp_path: Path, found: float | None) -> None:
        searched = {"event": "searched", "t_ns": at(9), "rate_per_s": found, "trials": 1}
        judged = judge(self.cell(tmp_path, steady(0, 2, 3, 10), trial(10, 2, 5), searched))
        assert (judged.row["sustained_per_s"], judged.row["searched_per_s"]) == (10.0, found)
        without = judge(self.cell(tmp_path / "without", steady(0, 2, 3, 10), trial(10, 2, 5)))
        assert (without.row["sustained_per_s"], without.row["searched_per_s"]) == (10.0, None)

    def test_what_the_runner_thought_does_not_count(self, tmp_path: Path) -> None:
        thought = {**trial(40, 2, 5), "sustained": True, "why": None}
        judged = judge(self.cell(tmp_path, slow(0, 2, 3, 40, 20), thought))
        assert judged.row["sustained_per_s"] is None

    def test_a_rate_at_which_our_own_load_was_late_is_not_sustained(self, tmp_path: Path) -> None:
        """The part is from 3 s on: what came before it does not count, 110 ms in it are more than 5 % of 2 s."""
        sends = [*steady(0, 2, 3, 10, 0.5), *steady(30, 6, 3, 20, 0.5)]
        lags = [(2.0, 8, 900.0), (3.0, 20, 90.0), (6.0, 8, 1.0), (7.0, 20, 110.0)]
        judged = judge(self.cell(tmp_path, sends, trial(10, 2, 5), trial(20, 6, 9), lags=lags))
        assert judged.row["sustained_per_s"] == 10.0
        (finding,) = [f for f in judged.findings if f.check == "sustained"]
        assert finding.examples[0] == "10 a second: sustained"
        assert finding.examples[1].startswith("20 a second: our own load was late by p99 110 ms in 2,000 ms")
        assert finding.numbers["not_sustained_per_s"] == 20.0

    def test_none_without_a_search(self, tmp_path: Path) -> None:
        judged = judge(self.cell(tmp_path, steady(0, 0, 9, 10)))
        assert judged.row["sustained_per_s"] is None
        assert all(judged.row[column] is None for column in COLUMNS if column.startswith("load_"))
        assert judged.row["rate_asked_per_s"] == 10.0

    def test_a_search_asked_for_many_rates(self, tmp_path: Path) -> None:
        assert judge(self.cell(tmp_path, [], search={"start_per_s": 10.0})).row["rate_asked_per_s"] is None

    def test_latency_of_each_load_counts_from_the_due_time(self, tmp_path: Path) -> None:
        sends = [
            *steady(0, 11, 4, 10, 0.1),
            *steady(40, 15, 4, 10, 0.2),
            Sent(80, due_s=19, sent_s=19.5, settled_s=19.6),
        ]
        phases = (phase("load-25", 11), phase("load-50", 15), phase("load-90", 19))
        folder = write_cell_folder(tmp_path, sends=sends, events=phases)
        events = sorted(load(folder).events, key=lambda event: int(event["t_ns"]))
        assert [e["name"] for e in events if e["event"] == "phase"][2:5] == ["load-25", "load-50", "load-90"]
        judged = judge(in_order(folder))
        names = [f"load_{n}_latency_ms_{q}" for n in (25, 50, 75) for q in ("p50", "p99", "p999", "max")]
        assert [judged.row[name] for name in names] == [100.0] * 4 + [200.0] * 4 + [None] * 4
        (finding,) = [f for f in judged.findings if f.check == "latency"]
        assert finding.numbers["load_90_latency_ms_p50"] == 600.0, "no column, but measured"


@pytest.mark.parametrize(
    ("phases", "gap_s"),
    [
        ((), 7.0),
        ((("search", 3),), None),
        ((("search", 3), ("load-25", 15), ("load-50", 18)), 4.0),
    ],
)
def test_the_pauses_of_a_search_are_no_outage(
    tmp_path: Path, phases: Sequence[tuple[str, float]], gap_s: float | None
) -> None:
    acked_s = [*range(3, 9), *range(15, 18), 19, 20, 24, 25, 26]
    sends = [Sent(i, sent_s=s - 0.01, settled_s=float(s)) for i, s in enumerate(acked_s)]
    folder = write_cell_folder(tmp_path, sends=sends, events=[phase(*p) for p in phases])
    assert judge(in_order(folder)).row["ack_gap_s_max"] == gap_s


def test_every_usual_load_is_a_column() -> None:
    for figure in ("latency_ms_p99", "pacing_lag_ms_p99"):
        wanted = [f"{name.replace('-', '_')}_{figure}" for name, _share in Search().loads]
        assert [column for column in COLUMNS if column.startswith("load_") and column.endswith(figure)] == wanted
