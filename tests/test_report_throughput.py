"""The sections Throughput and Cost of safety: literal cells to exact rows."""

from __future__ import annotations

import pytest

from mqtest.model import Finding
from mqtest.report.collect import Collected, JudgedCell
from mqtest.report.markdown import markdown_text
from mqtest.report.safety import safety_text, survival
from mqtest.report.summary import Group, Row
from mqtest.report.throughput import throughput_text
from tests.test_report import judged, row

SEARCH = {"most_per_s": 100_000.0}


def searched(profile: str, per_s: float | None, p99: float = 9.0, **more: float | None) -> JudgedCell:
    """A cell with a search: 512 bytes a message, measured at 25 and 50 %."""
    latency = {f"load_{n}_latency_ms_{q}": p99 * n / 50 for n in (25, 50) for q in ("p50", "p99", "p999", "max")}
    latency |= {"load_75_latency_ms_p50": None, "load_25_latency_unacked": 0, "load_25_latency_skipped": 0}
    found = [
        Finding(check="latency", count=None, numbers=latency | more),
        Finding(
            check="sustained",
            count=None,
            numbers={"sustained_per_s": per_s, "not_sustained_per_s": None if per_s is None else per_s * 1.1},
            examples=("2,000 a second: 5 of 10 messages were skipped",),
        ),
    ]
    return judged(profile, {"search": SEARCH}, *found, profile=profile, fault="none", size_bytes=512)


def rows_of(text: str) -> list[list[str]]:
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    return [[field.strip() for field in line.strip("|").split(" | ")] for line in lines]


class TestThroughput:
    def test_nothing_without_a_search(self) -> None:
        assert throughput_text([judged("a", profile="kafka/acks-1", fault="none")]) == ""

    def test_a_row_a_profile(self) -> None:
        text = throughput_text([searched("kafka/acks-1", 50_000.0), searched("rabbitmq/quorum", 4000.0, 150.0)])
        assert rows_of(text) == [
            ["profile", "sustained per s", "MB/s", "not at", "at 25 %", "at 50 %", "limit"],
            ["kafka/acks-1", "50,000", "25.6", "55,000", "4.5 / 4.5 / 4.5 / 4.5", "9.0 / 9.0 / 9.0 / 9.0", "–"],
            ["rabbitmq/quorum", "4,000", "2.0", "4,400", "75.0 / 75.0 / 75.0 / 75.0", "150 / 150 / 150 / 150", "–"],
        ]

    def test_over_repeats_the_median_and_the_worst(self) -> None:
        cells = [searched("kafka/acks-1", rate, p99) for rate, p99 in ((1000.0, 1.0), (3000.0, 2.0), (4000.0, 9.0))]
        (_, found) = rows_of(throughput_text(cells))
        assert found[1:5] == ["3,000 (1,000)", "1.5 (0.5)", "3,300 (1,100)", "1.0 / 1.0 / 1.0 / 1.0"]

    def test_what_was_not_acknowledged_stands_beside_the_latency(self) -> None:
        cell = searched("kafka/acks-1", 1000.0, load_25_latency_unacked=3, load_25_latency_skipped=2)
        assert rows_of(throughput_text([cell]))[1][4] == "4.5 / 4.5 / 4.5 / 4.5 (5 not acknowledged)"

    def test_the_limit_where_it_is_known(self) -> None:
        cells = [searched("kafka/acks-1", 100_000.0), searched("kafka/acks-all", None)]
        assert [found[-1] for found in rows_of(throughput_text(cells))[1:]] == [
            "the search: nothing above 100,000 was tried",
            "nothing was sustained; 2,000 a second: 5 of 10 messages were skipped",
        ]


class TestCostOfSafety:
    def test_nothing_without_both_kinds_of_cells(self) -> None:
        assert safety_text([searched("kafka/acks-1", 1000.0)]) == ""
        assert safety_text([judged("a", profile="kafka/acks-1", fault="kill:all", lost=0)]) == ""
        other = judged("a", profile="kafka/acks-1", fault="pause:leader", lost=0)
        assert safety_text([searched("kafka/acks-1", 1000.0), other]) == ""

    def test_rows(self) -> None:
        cells = [
            searched("kafka/acks-1", 50_000.0, 4.0),
            searched("kafka/acks-all", 25_000.0, 8.0),
            searched("rabbitmq/quorum", 5000.0, 200.0),
            *(judged(fault, profile="kafka/acks-all", fault=fault, lost=0) for fault in ("power-cut:all", "kill:all")),
            judged("a", profile="kafka/acks-1", fault="power-cut:all", lost=5, verdict="lost-as-documented"),
            judged("b", profile="kafka/acks-1", fault="kill:leader", lost=0),
        ]
        assert rows_of(safety_text(cells)) == [
            ["profile", "strongest survived", "lost under", "sustained per s", "of the fastest", "p99 at half, ms"],
            ["kafka/acks-1", "`kill:leader` (1 of 1)", "`power-cut:all` (0 of 1)", "50,000", "the fastest", "4.0"],
            ["kafka/acks-all", "`power-cut:all` (1 of 1)", "none", "25,000", "50 % of acks-1", "8.0"],
            ["rabbitmq/quorum", "–", "–", "5,000", "the fastest", "200"],
        ]

    @pytest.mark.parametrize(
        ("under", "expected"),
        [
            ({}, ("–", "–")),
            ({"kill:all": [0, 0, 0]}, ("`kill:all` (3 of 3)", "none")),
            ({"kill:all": [0, 7, 0]}, ("none of these", "`kill:all` (2 of 3)")),
            ({"kill:all": [0], "kill:leader": [7]}, ("`kill:all` (1 of 1)", "`kill:leader` (0 of 1)")),
            ({"kill:leader": [0], "power-cut:leader": [0]}, ("`power-cut:leader` (1 of 1)", "none")),
            ({"kill:all": [0, "unknown"]}, ("`kill:all` (1 of 1)", "none")),
            ({"kill:all": ["unknown"]}, ("–", "–")),
            ({"kill:all": ["dead", 0]}, ("none of these", "`kill:all` (1 of 2)")),
        ],
    )
    def test_survival(self, under: dict[str, list[int | str]], expected: tuple[str, str]) -> None:
        def cell(fault: str, came: int | str) -> Row:
            if isinstance(came, str):
                return row(fault=fault, verdict=came, lost=0 if came == "dead" else None)
            return row(fault=fault, verdict="lost-as-documented" if came else "kept", lost=came)

        found = {
            fault: Group(profile="kafka/acks-all", fault=fault, rows=tuple(cell(fault, came) for came in outcomes))
            for fault, outcomes in under.items()
        }
        assert survival(found) == expected


def test_both_stand_in_the_report_before_the_table() -> None:
    cells = (
        searched("kafka/acks-1", 1000.0),
        judged("002", profile="kafka/acks-1", fault="kill:all", lost=0, cell="002"),
    )
    text = markdown_text(Collected(runs=(), cells=cells, unfinished=()), "0")
    places = [text.index(f"\n## {title}\n") for title in ("Verdicts", "Throughput", "Cost of safety", "The table")]
    assert places == sorted(places)
