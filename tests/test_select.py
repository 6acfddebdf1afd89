"""Literal cells and needs to who qualifies, in which order, who fails and by how much, and what is not measured."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from mqtest.errors import UsageError
from mqtest.report.csv_table import rows_of
from mqtest.report.summary import Row
from mqtest.select import Evidence, Selection, parse, read, select
from mqtest.select.candidates import Candidate
from mqtest.select.judging import Judged, Result, judged, met_words, missed_words
from mqtest.select.ranking import PREFERENCES, compare
from mqtest.select.requirements import Requirements, asked, load, preset, presets
from mqtest.select.screen import screen
from mqtest.select.selection import Standing
from mqtest.select.texts import csv_text, json_text, markdown_text
from tests.run_dirs import make_cell, make_run
from tests.test_report import row

HEAD = "run,cell,broker,profile,fault,verdict"
ROOT = Path(__file__).resolve().parent.parent


def cells(*rows: Row) -> list[Row]:
    """With names of their own: run r, c1, c2, …"""
    return [
        {**r, "cell": r.get("cell") or f"c{number}", "run": r.get("run") or "r"} for number, r in enumerate(rows, 1)
    ]


def of(need: str, *rows: Row, wanted: int = 1) -> Judged:
    return judged(parse(need), Candidate(name="it", rows=tuple(cells(*rows))), wanted)


def chosen(needs: Sequence[str], *rows: Row, prefer: Sequence[str] = (), at_least: int | None = None) -> Selection:
    evidence = Evidence(rows=tuple(cells(*rows)), notes=())
    return select(asked(needs, prefer, at_least), evidence, ("kill", "pause"), ("all",))


def names(found: Sequence[object]) -> list[str]:
    return [one.name for one in found]  # type: ignore[attr-defined]


# --- a need against cells


@pytest.mark.parametrize(
    ("need", "row_", "result"),
    [
        ("lost == 0", row(lost=0), Result.MET),
        ("lost == 0", row(lost=3), Result.MISSED),
        ("lost == 0", row(lost=None), Result.NOT_MEASURED),
        ("no loss", row(lost=0), Result.MET),
        ("no loss", row(lost=3), Result.MISSED),
        ("lost < 4", row(lost=3), Result.MET),
        ("lost < 3", row(lost=3), Result.MISSED),
        ("lost <= 3", row(lost=3), Result.MET),
        ("acked >= 9", row(acked=9), Result.MET),
        ("acked > 9", row(acked=9), Result.MISSED),
        ("lost == 0 under kill:all", row(fault="kill:all", lost=0), Result.MET),
        ("lost == 0 under kill", row(fault="kill:all", lost=0), Result.MET),
        ("lost == 0 under kill:leader", row(fault="kill:all", lost=0), Result.NOT_MEASURED),
        ("lost == 0 under kill:leader", row(fault="kill:all", lost=9), Result.NOT_MEASURED),
        # what proves nothing
        ("lost == 0", row(verdict="unknown", lost=0), Result.NOT_MEASURED),
        ("lost == 0", row(verdict="invalid", lost=0), Result.NOT_MEASURED),
        ("lost == 0", row(verdict="invalid", lost=9), Result.NOT_MEASURED),
        ("lost == 0", row(verdict="lost-as-documented", lost=9), Result.MISSED),
        ("lost == 0", row(verdict="broken", lost=9), Result.MISSED),
        ("lost == 0 under kill", row(verdict="broken", lost=0, fault_bit=False), Result.NOT_MEASURED),
        ("lost == 0 under kill", row(verdict="broken", lost=9, fault_bit=False), Result.MISSED),
        ("lost == 0", row(verdict="broken", lost=0, fault_bit=False), Result.MET),
        # without acknowledgements
        ("lost == 0", row(not_found=0), Result.MISSED),
        ("no loss", row(not_found=0), Result.MISSED),
        ("lost_ppm < 1000000", row(not_found=5), Result.MISSED),
        ("ordered", row(not_found=0, reordered=0), Result.MET),
        # a cluster that stayed away
        ("lost == 0", row(verdict="dead", lost=0), Result.MISSED),
        ("lost == 0", row(verdict="dead", lost=None), Result.MISSED),
        ("ack_gap_s_max < 60", row(verdict="dead", ack_gap_s_max=3.0), Result.MISSED),
        ("recovery_s < 60", row(verdict="dead"), Result.MISSED),
        ("latency_ms_p99 < 60", row(verdict="dead", latency_ms_p99=3.0), Result.MET),
        ("comes back", row(verdict="dead"), Result.MISSED),
        ("comes back", row(verdict="broken"), Result.MET),
        # words
        ("ordered", row(reordered=0), Result.MET),
        ("ordered", row(reordered=1, reordered_in_session=0), Result.MISSED),
        ("ordered", row(reordered=None), Result.NOT_MEASURED),
        ("no duplicates", row(kind="log", stored_twice=0, redelivered=0), Result.MET),
        ("no duplicates", row(kind="log", stored_twice=0, redelivered=2), Result.MISSED),
        ("no duplicates", row(kind="log", stored_twice=None, redelivered=0), Result.NOT_MEASURED),
        ("no duplicates", row(kind="log", stored_twice=None, redelivered=2), Result.MISSED),
        ("no duplicates", row(kind="log", stored_twice=0, redelivered=0, output_doubled=1), Result.MISSED),
        ("no duplicates", row(kind="queue", redelivered=0, redelivered_unflagged=0), Result.MET),
        ("no duplicates", row(kind="queue", redelivered=0, redelivered_unflagged=1), Result.MISSED),
        ("no duplicates", row(kind="queue", redelivered=0), Result.NOT_MEASURED),
        ("replay", row(kind="log", audit_complete=True) | {"workload.consumers": "1"}, Result.MET),
        ("replay of 7 days", row(kind="log", audit_complete=True) | {"workload.consumers": "1"}, Result.MET),
        ("replay", row(kind="log", audit_complete=True) | {"workload.consumers": "0"}, Result.NOT_MEASURED),
        ("replay", row(kind="log", audit_complete=True), Result.NOT_MEASURED),
        ("replay", row(kind="log", audit_complete=False) | {"workload.consumers": "1"}, Result.NOT_MEASURED),
        ("replay", row(kind="queue", audit_complete=True) | {"workload.consumers": "1"}, Result.MISSED),
    ],
)  # fmt: skip
def test_one_cell(need: str, row_: Row, result: Result) -> None:
    assert of(need, row_).result is result


def at(asked_per_s: float | None, p99: float | None, acked_per_s: float | None = None, **more: object) -> Row:
    rate = asked_per_s if acked_per_s is None else acked_per_s
    return row(fault="none", rate_asked_per_s=asked_per_s, ack_rate_per_s=rate, latency_ms_p99=p99, **more)  # type: ignore[arg-type]


NOTHING = Result.NOT_MEASURED
SEARCHED = {
    "searched_per_s": 8000.0,
    "load_25_latency_ms_p99": 10.0,
    "load_50_latency_ms_p99": 40.0,
    "load_75_latency_ms_p99": 200.0,
}
"""loads at 2,000, 4,000 and 6,000 a second"""


@pytest.mark.parametrize(
    ("rows", "result"),
    [
        ([at(2000.0, 49.0)], Result.MET),
        ([at(3000.0, 49.0)], Result.MET),
        ([at(1000.0, 1.0)], Result.NOT_MEASURED),
        ([at(2000.0, 51.0)], Result.MISSED),
        ([at(1000.0, 51.0)], Result.MISSED),
        ([at(3000.0, 51.0)], Result.NOT_MEASURED),
        ([at(3000.0, 51.0), at(2000.0, 49.0)], Result.MET),
        ([at(2000.0, 49.0, acked_per_s=1900.0)], Result.MET),
        ([at(2000.0, 49.0, acked_per_s=1899.0)], Result.NOT_MEASURED),
        ([at(None, 1.0, acked_per_s=9000.0)], Result.NOT_MEASURED),
        ([at(2000.0, None)], Result.NOT_MEASURED),
        ([at(None, None, **SEARCHED)], Result.MET),
        ([at(None, None, **(SEARCHED | {"load_50_latency_ms_p99": None}))], Result.MET),
        ([at(None, None, **(SEARCHED | {"load_25_latency_ms_p99": 51.0}))], Result.MISSED),
        ([at(None, None, **(SEARCHED | {"searched_per_s": None}))], Result.NOT_MEASURED),
        ([at(None, None, **(SEARCHED | {"searched_per_s": 1000.0, "load_75_latency_ms_p99": 1.0}))], NOTHING),
    ],
)
def test_a_latency_at_a_rate(rows: list[Row], result: Result) -> None:
    assert of("latency_ms_p99 < 50 at 2000/s", *rows).result is result


def test_without_a_rate_any_rate_counts() -> None:
    assert of("latency_ms_p99 < 50", at(10.0, 49.0)).result is Result.MET
    assert of("latency_ms_p99 < 50", at(10.0, 51.0)).result is Result.MISSED


@pytest.mark.parametrize(
    ("need", "row_", "result"),
    [
        ("ack_rate_per_s >= 5000", row(rate_asked_per_s=1000.0, ack_rate_per_s=1000.0), Result.NOT_MEASURED),
        ("ack_rate_per_s >= 900", row(rate_asked_per_s=1000.0, ack_rate_per_s=1000.0), Result.MET),
        ("ack_rate_per_s >= 5000", row(rate_asked_per_s=9000.0, ack_rate_per_s=1000.0), Result.MISSED),
        ("ack_rate_per_s >= 5000", row(rate_asked_per_s=None, ack_rate_per_s=1000.0), Result.MISSED),
        ("ack_rate_per_s < 900", row(rate_asked_per_s=1000.0, ack_rate_per_s=1000.0), Result.MISSED),
        ("sustained_per_s > 5000", row(sustained_per_s=4000.0) | {"search.most_per_s": "4000.0"}, Result.NOT_MEASURED),
        ("sustained_per_s > 5000", row(sustained_per_s=4000.0) | {"search.most_per_s": "9000.0"}, Result.MISSED),
        ("sustained_per_s > 5000", row(sustained_per_s=6000.0) | {"search.most_per_s": "6000.0"}, Result.MET),
    ],
)
def test_a_rate_that_was_all_that_was_asked_for_is_no_upper_bound(need: str, row_: Row, result: Result) -> None:
    assert of(need, row_).result is result


def test_one_cell_that_misses_is_enough_and_the_worst_is_told() -> None:
    found = of("lost == 0", *(row(lost=n) for n in (0, 3, 8096, 0)))
    assert (found.result, found.by, found.bound) == (Result.MISSED, 8096, None)
    assert [reading.cell for reading in found.missing] == ["r/c3", "r/c2"]
    assert missed_words(found) == "missed by 8,096, in 2 of 4 cells"


def test_a_figure_stands_before_a_miss_without_one() -> None:
    found = of("lost == 0", row(verdict="dead"), row(lost=3))
    assert missed_words(found) == "missed by 3, in 2 of 2 cells"
    assert missed_words(of("lost == 0", row(verdict="dead"))) == (
        "missed, dead: the cluster did not come back by itself, in 1 of 1 cell"
    )


@pytest.mark.parametrize(
    ("need", "row_", "words"),
    [
        ("latency_ms_p99 < 50", row(latency_ms_p99=160.0), "missed by 110 (160), in 1 of 1 cell"),
        ("latency_ms_p99 < 50", row(latency_ms_p99=50.5), "missed by 0.5 (50.5), in 1 of 1 cell"),
        ("acked > 50", row(acked=20), "missed by 30 (20), in 1 of 1 cell"),
        ("ordered", row(reordered=1200), "missed, 1,200 messages out of order, in 1 of 1 cell"),
        ("replay", row(kind="queue"), "missed, it is a queue: what was read is gone, in 1 of 1 cell"),
        (
            "lost == 0",
            row(not_found=14350),
            "missed, without acknowledgements nothing is promised (14,350 not found), in 1 of 1 cell",
        ),
    ],
)
def test_by_how_much(need: str, row_: Row, words: str) -> None:
    assert missed_words(of(need, row_)) == words


@pytest.mark.parametrize(
    ("n", "bound", "words"),
    [
        (1, 1.0, "met in 1 of 1 cell (missed in at most 100 %)"),
        (3, 1.0, "met in 3 of 3 cells (missed in at most 100 %)"),
        (30, 0.1, "met in 30 of 30 cells (missed in at most 10 %)"),
    ],
)
def test_what_is_met_has_its_bound(n: int, bound: float, words: str) -> None:
    found = of("lost == 0", *[row(lost=0)] * n)
    assert (found.bound, met_words(found)) == (bound, words)


def test_what_says_nothing_is_not_among_the_n() -> None:
    found = of("latency_ms_p99 < 50", *(row(latency_ms_p99=ms) for ms in (2.0, None, 9.9)), row(verdict="unknown"))
    assert met_words(found) == "met, 2 to 9.9, in 2 of 2 cells (missed in at most 100 %), 2 more say nothing"


@pytest.mark.parametrize(
    ("need", "rows", "words"),
    [
        ("lost == 0 under pause:all", [row(lost=0)], "not measured: no cell under pause:all"),
        ("lost == 0", [row(verdict="invalid")], "not measured: 1 cell: invalid: it proves nothing"),
        ("lost == 0", [row(), row()], "not measured: 2 cells: lost was not measured"),
        (
            "latency_ms_p99 < 50 at 2000/s",
            [at(1000.0, 9.0)],
            "not measured: 1 cell: met at 1,000/s, and a lower rate proves nothing",
        ),
        (
            "latency_ms_p99 < 50 at 2000/s",
            [at(5000.0, 90.0)],
            "not measured: 1 cell: missed at 5,000/s, and a higher rate refutes nothing",
        ),
    ],
)
def test_why_it_is_not_measured(need: str, rows: list[Row], words: str) -> None:
    assert of(need, *rows).silence == words


def test_so_many_cells_as_are_wanted() -> None:
    assert of("lost == 0", row(lost=0), row(lost=0), wanted=2).result is Result.MET
    short = of("lost == 0", row(lost=0), row(lost=0), wanted=3)
    assert (short.result, short.silence) == (
        Result.NOT_MEASURED,
        "not measured enough: met in 2 cells, 3 are wanted",
    )
    assert of("lost == 0", row(lost=9), wanted=3).result is Result.MISSED


# --- candidates


def test_cells_of_other_sizes_of_cluster_or_versions_are_other_candidates() -> None:
    def found(*rows: Row) -> list[str]:
        return names(Evidence(rows=tuple(rows), notes=()).candidates)

    assert found(row(nodes=3), row(nodes=3)) == ["kafka/acks-all"]
    assert found(row(nodes=3), row(nodes=1)) == ["kafka/acks-all, on 3 nodes", "kafka/acks-all, on 1 node"]
    assert found(row(nodes=3, broker_version="4.3"), row(nodes=3, broker_version="4.4")) == [
        "kafka/acks-all, version 4.3",
        "kafka/acks-all, version 4.4",
    ]
    assert found(row(nodes=3), row("rabbitmq/quorum", nodes=1)) == ["kafka/acks-all", "rabbitmq/quorum"]
    assert found(row(varied="a=1"), row(varied="a=2")) == ["kafka/acks-all (a=1)", "kafka/acks-all (a=2)"]


def test_a_folder_is_read_from_its_table_or_judged_and_a_cell_counts_once(tmp_path: Path) -> None:
    run_dir = make_run(tmp_path, "one")
    make_cell(run_dir, "001", fault="kill:all", lost=2)
    make_cell(run_dir, "002")
    judged_now = read([run_dir])
    assert [(r["cell"], r["lost"], r["acked"], r["verdict"]) for r in judged_now.rows] == [
        ("001", 2, 10, "lost-as-documented"),
        ("002", 0, 10, "kept"),
    ]
    assert not (run_dir / "results.csv").exists()
    assert not (run_dir / "cells" / "001" / "verdict.json").exists()
    from mqtest.report import render

    render([run_dir], run_dir)
    assert read([run_dir]).rows == judged_now.rows
    assert read([run_dir / "results.csv", run_dir, run_dir]).rows == judged_now.rows
    other = make_run(tmp_path, "two")
    make_cell(other, "001")
    assert [r["run"] for r in read([run_dir, other]).rows] == ["one", "one", "two"]


def test_a_run_that_did_not_show_its_teeth_says_so(tmp_path: Path) -> None:
    run_dir = make_run(tmp_path, "one")
    make_cell(run_dir, "001", fault="kill:all")
    (note,) = read([run_dir]).notes
    assert note.startswith("This run does not prove that a loss under `kill:all` would have been seen")
    make_cell(run_dir, "002", profile="lossy", fault="kill:all", lost=2)
    assert read([run_dir]).notes == ()


def test_machines_of_several_kinds_are_told(tmp_path: Path) -> None:
    table = tmp_path / "results.csv"
    head = f"{HEAD},host.cpu\n"
    table.write_text(head + "r,1,kafka,a,none,kept,x\nr,2,kafka,a,none,kept,x\n", encoding="utf-8")
    assert read([table]).notes == ()
    table.write_text(head + "r,1,kafka,a,none,kept,x\nr,2,kafka,a,none,kept,y\n", encoding="utf-8")
    assert "2 kinds of machines" in read([table]).notes[0]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a,b\n1,2\n", "no results.csv of mqtest: it has no column run"),
        ("", "it has no column run"),
        (f"{HEAD}\nr,1,k,p,none,fine\n", "line 2: verdict: 'fine' is none; allowed: kept"),
        (f"{HEAD},lost\nr,1,k,p,none,kept,x\n", "line 2: lost: 'x' is no whole number"),
        (f"{HEAD},lost\nr,1,k,p,none,kept,nan\n", "line 2: lost: 'nan' is no whole number"),
        (f"{HEAD},fault_bit\nr,1,k,p,none,kept,x\n", "line 2: fault_bit: 'x' is no number"),
        (f"{HEAD}\nr,1,k\n", "line 2: not as many fields as columns"),
        (f"{HEAD}\nr,1,k,p,none,kept,9\n", "line 2: not as many fields as columns"),
        (f'{HEAD}\nr,1,k,p,none,"ke"pt\n', "',' expected after '\"'"),
    ],
)
def test_a_table_that_is_none_is_one_line(text: str, line: str, tmp_path: Path) -> None:
    (tmp_path / "results.csv").write_text(text, encoding="utf-8")
    with pytest.raises(UsageError, match=r"results\.csv") as raised:
        read([tmp_path / "results.csv"])
    assert line in str(raised.value)
    assert "\n" not in str(raised.value)


def test_paths_that_are_nothing(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="absent: no such folder or file"):
        read([tmp_path / "absent"])
    make_run(tmp_path, "one")
    with pytest.raises(UsageError, match="it holds runs, name one: one"):
        read([tmp_path])


def test_an_empty_field_is_not_measured_and_never_0() -> None:
    head = f"{HEAD},lost,latency_ms_p99,fault_bit,effective.acks\n"
    (found,) = rows_of(head + "r,1,kafka,p,none,kept,,0.5,true,1\n", "t")
    assert (found["lost"], found["latency_ms_p99"], found["fault_bit"]) == (None, 0.5, True)
    assert found["effective.acks"] == "1"


# --- who qualifies


def good(profile: str, **figures: object) -> Row:
    return row(profile, **({"lost": 0, "reordered": 0} | figures))  # type: ignore[arg-type]


def test_three_standings_and_the_exit_code() -> None:
    found = chosen(
        ["lost == 0", "ordered"],
        good("kafka/safe"),
        good("kafka/lossy", lost=5),
        good("kafka/both", lost=5, reordered=7),
        good("kafka/unseen", reordered=None),
    )
    assert names(found.qualifying) == ["kafka/safe"]
    assert names(found.failing) == ["kafka/lossy", "kafka/both"]
    assert [str(one.of(Result.MISSED)[0].need) for one in found.failing] == ["lost == 0", "lost == 0"]
    assert names(found.unmeasured) == ["kafka/unseen"]
    assert found.exit_code == 0


def test_exit_codes_without_a_winner() -> None:
    bad, unseen = good("kafka/lossy", lost=5), good("kafka/unseen", lost=None)
    assert chosen(["lost == 0"], bad).exit_code == 1
    assert chosen(["lost == 0"], bad, unseen).exit_code == 2
    assert chosen(["lost == 0"], unseen).exit_code == 2
    assert chosen(["lost == 0"]).exit_code == 2
    assert chosen(["lost == 0"], good("kafka/safe"), at_least=2).exit_code == 2


def test_no_need_is_refused() -> None:
    with pytest.raises(UsageError, match="no need is given"):
        chosen([], good("kafka/safe"))


def test_a_fault_that_nobody_knows_is_a_slip_and_one_that_no_cell_had_is_not_measured() -> None:
    assert chosen(["lost == 0 under pause:all"], good("kafka/safe")).exit_code == 2
    assert chosen(["lost == 0 under pause"], good("kafka/safe")).exit_code == 2
    assert chosen(["lost == 0 under p*:all"], good("kafka/safe")).exit_code == 2
    assert chosen(["lost == 0 under chaos"], good("kafka/safe", fault="chaos")).exit_code == 0
    slip = r"knows no action 'kil' \(did you mean 'kill:all'\?\); these cells have: kill:all"
    with pytest.raises(UsageError, match=slip):
        chosen(["lost == 0 under kil:all"], good("kafka/safe"))
    with pytest.raises(UsageError, match=r"knows no target 'al' \(did you mean"):
        chosen(["lost == 0 under pause:al"], good("kafka/safe"))
    with pytest.raises(UsageError, match="knows no action 'boom'"):
        chosen(["lost == 0 under kill:all+boom:all"], good("kafka/safe"))


def test_what_was_not_asked_and_was_seen_stands_beside_it() -> None:
    found = chosen(
        ["lost == 0 under kill:all"],
        good("kafka/x", acked=100),
        good("kafka/x", fault="pause:all", lost=7, acked=100, verdict="broken"),
        good("kafka/y", acked=100),
    )
    beware = {one.name: one.beware for one in found.qualifying}
    assert beware == {"kafka/x": ("under pause:all: broken, lost 7 of 100 acked",), "kafka/y": ()}


def test_a_profile_without_acknowledgements_is_never_safe() -> None:
    silent = row("kafka/acks-0", not_found=0, reordered=0)
    assert names(chosen(["lost == 0"], silent).failing) == ["kafka/acks-0"]
    (one,) = chosen(["ordered"], silent).qualifying
    assert one.beware == (
        "it has no acknowledgements: nothing tells whether a message arrived, and it is safe under no fault",
    )


# --- the order


def like(profile: str, **figures: object) -> Row:
    known = {"rate_asked_per_s": 1000.0, "ack_rate_per_s": 1000.0, "size_bytes": 512}
    return good(profile, **(known | figures))


def test_the_order_is_by_the_preference_then_by_cells_then_by_name() -> None:
    rows = [
        like("kafka/slow", latency_ms_p99=9.0),
        like("kafka/b", latency_ms_p99=2.0),
        like("kafka/a", latency_ms_p99=2.0),
        like("kafka/proven", latency_ms_p99=2.0),
        like("kafka/proven", latency_ms_p99=2.0),
    ]
    for shuffled in (rows, rows[::-1]):
        assert names(chosen(["lost == 0"], *shuffled, prefer=["latency"]).qualifying) == [
            "kafka/proven",
            "kafka/a",
            "kafka/b",
            "kafka/slow",
        ]
        assert names(chosen(["lost == 0"], *shuffled).qualifying)[0] == "kafka/proven"


def test_throughput_is_the_highest_and_a_second_preference_decides_between_equals() -> None:
    rows = [
        like("kafka/a", sustained_per_s=4000.0, latency_ms_p99=5.0),
        like("kafka/b", sustained_per_s=9000.0, latency_ms_p99=7.0),
        like("kafka/c", sustained_per_s=9000.0, latency_ms_p99=6.0),
    ]
    assert names(chosen(["lost == 0"], *rows, prefer=["throughput", "latency"]).qualifying) == [
        "kafka/c",
        "kafka/b",
        "kafka/a",
    ]


def test_only_what_was_measured_alike_is_compared() -> None:
    rows = [
        like("kafka/a", latency_ms_p99=5.0),
        like("kafka/a", latency_ms_p99=1.0, rate_asked_per_s=10.0),
        like("kafka/b", latency_ms_p99=4.0),
        like("kafka/other", latency_ms_p99=1.0, rate_asked_per_s=10.0, size_bytes=64),
        like("kafka/unknown", latency_ms_p99=1.0, verdict="invalid"),
        like("kafka/unknown"),
    ]
    found = chosen(["lost == 0"], *rows, prefer=["latency"])
    assert names(found.qualifying) == ["kafka/b", "kafka/a", "kafka/other", "kafka/unknown"]
    (under,) = found.compared
    assert under.values == {"kafka/a": 5.0, "kafka/b": 4.0}
    assert under.words("kafka/a") == "5.0 ms (rate_asked_per_s 1000, size_bytes 512)"
    assert under.words("kafka/other") == "not measured as the others were"
    assert "latency: who was not measured as the others were comes last, whatever it is worth" in found.notes


def test_a_preference_that_nobody_measured_ranks_nothing_and_says_so() -> None:
    found = chosen(["lost == 0"], like("kafka/b"), like("kafka/a"), prefer=["throughput"])
    assert names(found.qualifying) == ["kafka/a", "kafka/b"]
    assert found.compared[0].words("kafka/a") == "not measured"
    assert "throughput: not measured for any profile that qualifies, so it ranks nothing" in found.notes


def test_availability_is_the_worst_of_the_same_faults() -> None:
    def gap(profile: str, fault: str, seconds: float, **more: object) -> Row:
        return like(profile, fault=fault, ack_gap_s_max=seconds, **more)

    rows = [
        gap("kafka/a", "none", 99.0), gap("kafka/a", "kill:all", 5.0), gap("kafka/a", "pause:all", 9.0),
        gap("kafka/b", "kill:all", 8.0), gap("kafka/b", "pause:all", 7.0), gap("kafka/b", "stop:all", 60.0),
        gap("kafka/c", "kill:all", 1.0), gap("kafka/c", "pause:all", 1.0, verdict="dead"),
    ]  # fmt: skip
    candidates = Evidence(rows=tuple(cells(*rows)), notes=()).candidates
    assert compare("availability", candidates).values == {"kafka/a": 5.0, "kafka/b": 8.0, "kafka/c": 1.0}
    two = compare("availability", candidates[:2])
    assert two.values == {"kafka/a": 9.0, "kafka/b": 8.0}
    assert two.words("kafka/a") == "9.00 s (the worst of 2 by fault; rate_asked_per_s 1000, size_bytes 512)"
    one = compare("availability", candidates).words("kafka/a")
    assert one == "5.00 s (fault kill:all, rate_asked_per_s 1000, size_bytes 512)"


def test_what_the_figures_of_a_preference_have_in_common_is_said_once() -> None:
    rows = [like("kafka/a", latency_ms_p99=float(size), rate_asked_per_s=float(rate), size_bytes=size)
            for size in (100, 512) for rate in (10, 20)]  # fmt: skip
    candidates = Evidence(rows=tuple(cells(*rows)), notes=()).candidates
    words = compare("latency", candidates).words("kafka/a")
    assert words == "512 ms (the worst of 4 by rate_asked_per_s, size_bytes)"
    throughput = [like("kafka/a", sustained_per_s=float(size), size_bytes=size) for size in (100, 512)]
    candidates = Evidence(rows=tuple(cells(*throughput)), notes=()).candidates
    assert compare("throughput", candidates).words("kafka/a") == "100 a second (the worst of 2 by size_bytes)"


def test_simplicity_is_containers_then_settings() -> None:
    def ran(profile: str, containers: int, **settings: str) -> Row:
        return like(profile) | {f"usage.n-{n}.cpu_s": "1" for n in range(containers)} | settings

    rows = [
        ran("kafka/a", 4),
        ran("kafka/b", 3, **{"settings.broker.x": "1", "settings.topic.y": "1", "settings.producer.z": "1"}),
        ran("kafka/c", 3, **{"settings.broker.x": "1"}),
    ]
    found = chosen(["lost == 0"], *rows, prefer=["simplicity"])
    assert [(one.name, found.compared[0].words(one.name)) for one in found.qualifying] == [
        ("kafka/c", "3 containers, 1 settings"),
        ("kafka/b", "3 containers, 2 settings"),
        ("kafka/a", "4 containers, 0 settings"),
    ]


def test_every_preference_is_of_figures_that_a_row_has() -> None:
    empty = row()
    assert [name for name, preference in PREFERENCES.items() if preference.figure(empty) is not None] == []
    assert [column for preference in PREFERENCES.values() for column in preference.alike if column not in empty] == []


# --- requirements


def test_a_file_starts_from_a_preset_and_adds(tmp_path: Path) -> None:
    path = tmp_path / "requirements.toml"
    path.write_text('preset = "kappa"\nneeds = ["ordered", "comes back"]\ncells = 3\n', encoding="utf-8")
    found, base = load(path), preset("kappa")
    assert found.needs == (*base.needs, parse("comes back"))
    assert (found.prefer, found.cells) == (base.prefer, 3)
    mine = asked(["ordered"], ["cpu"], 2).over(found)
    assert (mine.needs, mine.prefer, mine.cells) == (found.needs, ("cpu",), 2)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('needs = ["losst == 0"]', "need 'losst == 0': 'losst' is no figure"),
        ('need = ["lost == 0"]', "key 'need' is not known (did you mean 'needs'?)"),
        ('prefer = ["speed"]', "preference 'speed' is not known; allowed: throughput, latency"),
        ('preset = "monney"', "preset 'monney' is not known (did you mean 'money'?)"),
        ("cells = 0", "cells: must be at least 1"),
        ("cells = true", "cells: expected int"),
        ("needs = 3", "needs: expected array"),
        ("needs = [", "Invalid value"),
    ],
)
def test_a_file_that_is_wrong_is_one_line_with_its_name(text: str, line: str, tmp_path: Path) -> None:
    path = tmp_path / "requirements.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UsageError) as raised:
        load(path)
    assert str(raised.value).startswith(f"{path}: ")
    assert line in str(raised.value)


def test_the_presets_that_ship() -> None:
    shipped = {name: (about, found) for name, about, found in presets()}
    assert list(shipped) == ["kappa", "money", "orders", "telemetry"]
    for name, (about, found) in shipped.items():
        assert about, name
        assert found == preset(name)
        assert found.needs, name
        assert set(found.prefer) <= set(PREFERENCES)


def test_money_and_kappa_want_every_cell_without_loss() -> None:
    for name in ("money", "kappa"):
        assert {parse("lost == 0"), parse("lost == 0 under power-cut:all")} <= set(preset(name).needs)
    assert parse("replay of 7 days") in preset("money").needs


# --- what is said


REFERENCE = ROOT / "results" / "reference"


def reference(name: str, **more: int) -> Selection:
    return select(Requirements(**more).over(preset(name)), read([REFERENCE]))  # type: ignore[arg-type]


def test_the_reference_run_under_the_presets() -> None:
    money = reference("money")
    assert money.exit_code == 1
    fails = {one.name: one.of(Result.MISSED) for one in money.failing}
    assert [str(found.need) for found in fails["kafka/acks-all-fsync"]] == ["latency_ms_p99 < 50 at 1000/s"]
    assert [str(found.need) for found in fails["rabbitmq/quorum"]] == ["replay of 7 days"]
    assert [str(found.need) for found in fails["rocketmq/sync-flush-all-ack"]] == ["lost == 0"]
    assert names(reference("kappa").qualifying) == ["kafka/acks-all-fsync"]
    assert names(reference("orders").qualifying) == [
        "rabbitmq/quorum", "rabbitmq/stream", "kafka/acks-all", "kafka/acks-all-fsync",
    ]  # fmt: skip
    assert reference("telemetry").exit_code == 2
    assert reference("orders", cells=2).exit_code == 2


SELECTION = (
    like("kafka/a", fault="kill:all", latency_ms_p99=5.0, acked=100),
    like("kafka/a", fault="none", latency_ms_p99=3.0, acked=100),
    like("kafka/b", fault="kill:all", latency_ms_p99=4.0, lost=3, acked=100),
    like("kafka/c", fault="none", latency_ms_p99=4.0, acked=100),
)
NEEDS = ("lost == 0 under kill:all", "latency_ms_p99 < 50")


def test_the_screen_exactly() -> None:
    text = screen(chosen(NEEDS, *SELECTION, prefer=["latency"]), 80).plain
    assert text.splitlines() == [
        "4 cells of r",
        "",
        "1 of 3 profiles qualifies, the best first by latency, then the most cells that",
        "  prove it",
        "1. kafka/a",
        "   lost == 0 under kill:all: met in 1 of 1 cell (missed in at most 100 %)",
        "     c1",
        "   latency_ms_p99 < 50: met, 3 to 5, in 2 of 2 cells (missed in at most 100 %)",
        "     c1, c2",
        "   latency: 4.0 ms (rate_asked_per_s 1000, size_bytes 512)",
        "",
        "1 of 3 profiles fails: the first need that each missed, and by how much",
        "kafka/b",
        "   lost == 0 under kill:all: missed by 3, in 1 of 1 cell",
        "     c3",
        "",
        "1 of 3 profiles could not be told: no need was missed, and not every one was",
        "  measured",
        "kafka/c",
        "   lost == 0 under kill:all: not measured: no cell under kill:all",
        "",
        "What this does not prove",
        "- lost: failures that no cell had, and longer or larger loads than those of the",
        "  cells",
        "- latency_ms_p99: other machines and loads than those of the cells, which stand",
        "  in results.csv",
        "- missed in at most: of such cells, with 95 % confidence, where none of n missed",
        "  (rule of three, 3/n); three cells or fewer bound nothing",
    ]


@pytest.mark.parametrize("format_", [lambda found: screen(found, 80).plain, markdown_text])
def test_the_rule_of_three_is_explained_where_a_line_uses_it(format_: Callable[[Selection], str]) -> None:
    assert format_(chosen(NEEDS, *SELECTION)).count("missed in at most") == 3
    nobody = format_(chosen(NEEDS, *SELECTION[2:]))
    assert "lost: failures that no cell had" in nobody
    assert "missed in at most" not in nobody
    assert "does not prove" not in format_(chosen(["acked > 900"], *SELECTION[:1])), "there is nothing to say"


@pytest.mark.parametrize("name", ["kappa", "money", "orders", "telemetry"])
def test_the_screen_fits_80_columns(name: str) -> None:
    lines = screen(reference(name), 80).plain.splitlines()
    assert max(map(len, lines)) <= 80
    assert all(line == line.rstrip() for line in lines)


def test_cells_of_one_name_are_told_apart_by_their_runs() -> None:
    one, two = good("kafka/a", cell="c", run="one"), good("kafka/a", cell="c", run="two")
    assert "one/c, two/c" in screen(chosen(["lost == 0"], one, two), 80).plain


def test_a_replay_of_some_time_says_what_is_not_proven() -> None:
    read_twice = good("kafka/a", kind="log", audit_complete=True) | {"workload.consumers": "1"}
    found = chosen(["replay of 7 days"], read_twice)
    assert found.exit_code == 0
    assert found.notes[0].startswith("replay of 7 days: how long messages stay: cells last minutes")
    assert "replay of 7 days: how long messages stay" in markdown_text(found)


def test_markdown_has_a_table_a_standing() -> None:
    text = markdown_text(chosen(NEEDS, *SELECTION, prefer=["latency"]))
    assert [line for line in text.splitlines() if line.startswith("#")] == [
        "# Which profiles meet these needs",
        "## Qualify",
        "## Fail",
        "## Could not be told",
        "## The order",
        "## What this does not prove",
    ]
    rows = [line for line in text.splitlines() if line.startswith("| ") and "kafka/" in line]
    assert rows == [
        "| 1. kafka/a | lost == 0 under kill:all | met in 1 of 1 cell (missed in at most 100 %) | c1 |",
        "| 1. kafka/a | latency_ms_p99 &lt; 50 | met, 3 to 5, in 2 of 2 cells (missed in at most 100 %) | c1, c2 |",
        "| kafka/b | lost == 0 under kill:all | missed by 3, in 1 of 1 cell | c3 |",
        "| kafka/c | lost == 0 under kill:all | not measured: no cell under kill:all | – |",
    ]
    assert "## Qualify\n\nNone." in markdown_text(chosen(NEEDS, *SELECTION[2:]))


def test_json_has_everything() -> None:
    found = json.loads(json_text(chosen(NEEDS, *SELECTION, prefer=["latency"])))
    assert (found["needs"], found["prefer"], found["exit_code"]) == (list(NEEDS), ["latency"], 0)
    by_name = {profile["profile"]: profile for profile in found["profiles"]}
    assert {name: (p["standing"], p["rank"]) for name, p in by_name.items()} == {
        "kafka/a": (Standing.QUALIFIES, 1),
        "kafka/b": (Standing.FAILS, None),
        "kafka/c": (Standing.NOT_MEASURED, None),
    }
    assert by_name["kafka/b"]["needs"][0] == {
        "need": "lost == 0 under kill:all", "result": "missed", "met": 0, "of": 1, "missed_at_most": None,
        "lowest": None, "highest": None, "worst": 3.0, "missed_by": 3.0, "why": "missed by 3, in 1 of 1 cell",
        "cells": ["r/c3"], "silent": {},
    }  # fmt: skip
    assert by_name["kafka/a"]["compared"] == {"latency": 4.0}
    assert [need["result"] for need in by_name["kafka/c"]["needs"]] == ["not measured", "met"]


def test_csv_has_a_row_a_profile_and_need() -> None:
    rows = list(csv.DictReader(io.StringIO(csv_text(chosen(NEEDS, *SELECTION)))))
    assert [(r["profile"], r["standing"], r["rank"], r["need"], r["result"], r["cells"]) for r in rows] == [
        ("kafka/a", "qualifies", "1", NEEDS[0], "met", "r/c1"),
        ("kafka/a", "qualifies", "1", NEEDS[1], "met", "r/c1 r/c2"),
        ("kafka/b", "fails", "", NEEDS[0], "missed", "r/c3"),
        ("kafka/b", "fails", "", NEEDS[1], "met", "r/c3"),
        ("kafka/c", "not measured", "", NEEDS[0], "not measured", ""),
        ("kafka/c", "not measured", "", NEEDS[1], "met", "r/c4"),
    ]
    assert (rows[2]["worst"], rows[2]["missed_by"], rows[4]["worst"]) == ("3.0", "3.0", "")


def test_every_cell_that_is_named_is_there() -> None:
    known = {f"{r['run']}/{r['cell']}" for r in read([REFERENCE]).rows}
    found = json.loads(json_text(reference("money")))
    named = {cell for profile in found["profiles"] for need in profile["needs"] for cell in need["cells"]}
    assert named
    assert named <= known
