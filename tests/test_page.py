"""report.html and its pictures: literal rows to exact words, in both directions; real ledgers to pictures."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from xml.etree import ElementTree

import pytest

from mqtest.curves import PARTS, Band, Curves, Latency, Mark, Run
from mqtest.errors import UsageError
from mqtest.model import Finding
from mqtest.report import render
from mqtest.report.collect import Collected, JudgedCell
from mqtest.report.page import cell_view, matrix_words, page, stills
from mqtest.report.page.answer import answer
from mqtest.report.page.cells import MOST, percentiles_spec, runs_spec, timeline_spec
from mqtest.report.page.colours import COLOURS
from mqtest.report.page.frontier import NONE_OF_THESE, Point, best, frontier
from mqtest.report.page.matrix import square
from mqtest.report.page.svg import inlined
from mqtest.report.summary import Row, groups
from tests.histories import Got, Sent, write_cell_folder
from tests.pages import Page
from tests.run_dirs import make_cell, make_run
from tests.test_report import collected, judged, row

CURVES = Curves(
    step_s=1.0,
    length_s=30.0,
    acks=(1000,) * 10 + (0,) * 10 + (1000,) * 10,
    deliveries=(1000,) * 30,
    unknown=(0,) * 10 + (3,) + (0,) * 19,
    unseen=(0,) * 12 + (7,) * 18,
    gone=(0,) * 9 + (40,) + (0,) * 20,
    latencies=tuple(Latency(float(n), 1.0, 2.0 + n, 9.0 + n) for n in range(30)),
    percentiles={"warm-up": (9.0,) * 8, "steady": (1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 60.0)},
    bands=(Band(what="kill:leader (kafka-1)", began_s=10.0, healed_s=16.0, recovered_s=18.0),),
    marks=(Mark(what="kafka-2 leads instead of kafka-1", at_s=12.5),),
    runs=(Run(producer=0, messages=20_000, gone=(0,) * 60 + (40,) + (0,) * (PARTS - 61)),),
)


def shown(*cells: JudgedCell, **more: object) -> Page:
    return Page(page(collected(*cells, **more), {}, "0"))  # type: ignore[arg-type]


def cells_of(*verdicts: tuple[str, str, str, dict[str, object]]) -> list[JudgedCell]:
    """Profile, fault, verdict and figures of each."""
    return [
        judged(f"{n:03}", profile=profile, fault=fault, verdict=verdict, cell=f"{n:03}", **figures)
        for n, (profile, fault, verdict, figures) in enumerate(verdicts, 1)
    ]


EVERY = cells_of(
    ("kafka/acks-1", "none", "kept", {"lost": 0, "acked": 9}),
    ("kafka/acks-1", "kill:all", "lost-as-documented", {"lost": 8096, "acked": 9000}),
    ("kafka/acks-all", "none", "invalid", {"lost": 0, "acked": 9}),
    ("kafka/acks-all", "kill:all", "unknown", {"reason": "the audit is not complete"}),
    ("kafka/fsync", "none", "dead", {}),
    ("kafka/fsync", "kill:all", "broken", {"lost": 2998, "acked": 9000, "reason": "2998 lost under kill:all"}),
    ("kafka/fsync", "stop:all", "kept", {"lost": 0, "acked": 9}),
)


# --- the matrix


def test_every_square_has_a_word_and_one_that_nobody_measured_says_so() -> None:
    assert shown(*EVERY).squares == {
        ("acks-1", "none"): "kept",
        ("acks-1", "kill:all"): "lost 8,096",
        ("acks-1", "stop:all"): "not measured",
        ("acks-all", "none"): "invalid",
        ("acks-all", "kill:all"): "unknown",
        ("acks-all", "stop:all"): "not measured",
        ("fsync", "none"): "dead",
        ("fsync", "kill:all"): "broken 2,998",
        ("fsync", "stop:all"): "kept",
    }


def test_the_longer_side_goes_down_and_the_control_comes_first() -> None:
    faults = ("kill:all", "none", "stop:all")
    two = cells_of(*((f"kafka/{name}", fault, "kept", {"lost": 0}) for name in "ab" for fault in faults))
    assert list(shown(*two).squares)[:3] == [("none", "a"), ("none", "b"), ("kill:all", "a")]
    three = cells_of(*((f"kafka/{name}", fault, "kept", {"lost": 0}) for name in "abc" for fault in faults[:2]))
    assert list(shown(*three).squares)[:2] == [("a", "none"), ("a", "kill:all")]


def test_a_square_leads_to_the_cell_that_decided_and_its_colour_is_that_of_its_word() -> None:
    text = page(collected(*EVERY), {}, "0")
    found = re.search(r'<td class="tone-(\w+)"[^>]*>\s*<a href="#(\d+)"><b>(\w+)</b> <span>2,998', text)
    assert found is not None
    assert found.groups() == ("broken", "006", "broken")
    assert [a["id"] for a, _ in Page(text).elements("details")] == [cell.id for cell in EVERY]
    assert [a["id"] for a, _ in Page(text).elements("details") if "open" in a] == ["005", "006"]


def test_a_square_over_repeats() -> None:
    def said(*cells: Row) -> tuple[str, str]:
        found = square(groups(cells)[0])
        return found.word, found.detail

    assert said(row(lost=0), row(lost=0), row(lost=0)) == ("kept", "0 of 3 (≤ 100 %)")
    assert said(row(lost=0), row(lost=40, verdict="lost-as-documented")) == ("lost", "1 of 2, worst 40")
    assert said(row(verdict="unknown")) == ("unknown", "")
    assert said(row(lost=None, not_found=7, verdict="lost-as-documented")) == ("lost", "7")


def test_the_legend_names_the_words_that_are_there_and_no_others() -> None:
    words = [text for a, text in shown(*EVERY[:2]).elements("dt") if "chip" in a.get("class", "")]
    assert words == [["kept"], ["lost"]]


def test_texts_from_files_are_escaped() -> None:
    evil = "</script><script>alert(1)</script>\"'<b>&"
    text = page(
        Collected(
            runs=({"run": evil, "scenario": {"title": evil, "question": evil, "must_lose": ["kill:all"]}},),
            cells=(judged("1", profile=f"kafka/{evil}", lost=0, acked=9, reason=evil, cell='1"><b>'),),
            unfinished=(evil,),
        ),
        {Path("1"): CURVES},
        "0",
    )
    assert evil not in text
    assert "alert(1)</script>" not in text
    assert evil in Page(text).all("title")[0]
    assert len(Page(text).elements("script")) == 1


# --- the answer


@pytest.mark.parametrize(
    ("rows", "first", "second"),
    [
        ([], "No cell finished, so there is no answer.", "Nor is there a price."),
        (
            [row("a/x", "none", lost=0), row("a/x", "kill:all", lost=0)],
            "a/x kept every message that was acknowledged under kill:all.",
            "What that costs was not measured by these cells.",
        ),
        (
            [
                row("a/x", "kill:all", lost=0, latency_ms_p99=9.0),
                row("a/x", "stop:all", lost=0, latency_ms_p99=11.0),
                row("a/y", "kill:all", "lost-as-documented", lost=1234, latency_ms_p99=2.0),
                row("a/y", "stop:all", lost=0),
            ],
            "a/x kept every message that was acknowledged under both faults; a/y lost 1,234 under kill:all.",
            "The fastest that kept everything, a/x, answered within 10.0 ms (p99, steady phase); the fastest of all, "
            "a/y, answered within 2.0 ms (p99, steady phase).",
        ),
        (
            [
                row("a/x", "kill:all", "lost-as-documented", lost=5, sustained_per_s=900.0, latency_ms_p99=1.0),
                row("a/y", "kill:all", "lost-as-documented", lost=7),
                row("a/z", "kill:all", "broken", lost=9),
                row("a/z", "stop:all", "broken", lost=9),
                row("a/v", "kill:all", "dead"),
                row("a/u", "none", "invalid"),
                row("a/u", "kill:all", "unknown"),
            ],
            "No profile kept every message that was acknowledged under both faults; 2 profiles lost some, a/y most "
            "(7 under kill:all); a/z broke a promise under kill:all and stop:all; a/v did not come back under "
            "kill:all; 2 of 7 combinations prove nothing.",
            "The fastest, a/x, sustained 900 messages a second; what safety costs cannot be told, as none that kept "
            "everything was measured.",
        ),
        (
            [row("a/x", "none", lost=0, sustained_per_s=5000.0), row("a/y", "none", lost=0, sustained_per_s=400.0)],
            "a/x and a/y kept every message that was acknowledged without any fault.",
            "The fastest that kept everything, a/x, sustained 5,000 messages a second.",
        ),
        (
            [row("a/x", "none", "broken", lost=1), row("a/y", "none", lost=0)],
            "a/y kept every message that was acknowledged without any fault; a/x broke a promise even without a fault.",
            "What that costs was not measured by these cells.",
        ),
    ],
)
def test_the_answer_is_two_sentences(rows: list[Row], first: str, second: str) -> None:
    assert answer(rows) == (first, second)


# --- the frontier


def test_the_strongest_failure_survived_against_throughput_and_p99() -> None:
    rows = [
        row("kafka/acks-1", "none", lost=0, sustained_per_s=9000.0, load_50_latency_ms_p99=3.0, latency_ms_p99=1.0),
        row("kafka/acks-1", "kill:all", lost=0),
        row("kafka/acks-1", "power-cut:all", "lost-as-documented", lost=5),
        row("kafka/fsync", "none", lost=0, sustained_per_s=2000.0, load_50_latency_ms_p99=8.0),
        row("kafka/fsync", "power-cut:all", lost=0),
        row("kafka/fsync", "pause:leader", "dead"),
        row("kafka/none", "kill:all", "lost-as-documented", lost=5),
        row("kafka/unproven", "kill:all", "unknown"),
    ]
    found = frontier(rows)
    assert [(p.profile, p.survived, p.lost_under, p.per_s, p.p99_ms, p.whole) for p in found.points] == [
        ("kafka/acks-1", "kill:all", ("power-cut:all",), 9000.0, 3.0, True),
        ("kafka/fsync", "power-cut:all", ("pause:leader",), 2000.0, 8.0, False),
        ("kafka/none", NONE_OF_THESE, ("kill:all",), None, None, True),
    ]
    assert (found.searched, found.tried) == (True, ("power-cut:all", "kill:all"))


def test_without_a_search_the_p99_is_that_of_the_steady_phase_over_all_cells() -> None:
    figures = (("none", 4.0), ("kill:all", 9.0), ("pause:leader", 5.0))
    rows = [row("kafka/x", fault, lost=0, latency_ms_p99=ms) for fault, ms in figures]
    (point,) = frontier(rows).points
    assert (point.per_s, point.p99_ms, frontier(rows).searched) == (None, 5.0, False)


def test_on_the_frontier_are_those_that_none_beats_in_both() -> None:
    def point(name: str, survived: str, ms: float | None, *lost: str) -> Point:
        return Point(profile=name, survived=survived, lost_under=lost, per_s=ms and 1000 / ms, p99_ms=ms)

    points = [
        point("safe-slow", "power-cut:all", 9.0),
        point("safe-slower", "power-cut:all", 10.0),
        point("weak-fast", "kill:all", 2.0, "power-cut:all"),
        point("weak-slow", "kill:all", 9.0, "power-cut:all"),
        point("holes", "power-cut:all", 1.0, "kill:leader"),
        point("elsewhere", "power-cut:all", 1.0, "partition:leader"),
        point("nothing", NONE_OF_THESE, 0.1, "kill:leader"),
        point("not measured", "power-cut:all", None),
    ]
    assert best(points, "p99_ms") == {"safe-slow", "weak-fast"}
    assert best(points, "per_s") == {"safe-slow", "weak-fast"}


def test_the_page_says_why_a_picture_is_not_there() -> None:
    no_search = shown(*cells_of(*(("kafka/x", fault, "kept", {"lost": 0, "latency_ms_p99": 4.0}) for fault in FAULTS)))
    assert len(no_search.elements("svg")) == 1
    assert "so there is no picture of throughput" in " ".join(no_search.all("p"))
    neither = shown(*cells_of(("kafka/x", "pause:leader", "kept", {"lost": 0})))
    assert len(neither.elements("svg")) == 0
    assert any(text.startswith("No picture: it takes cells under power-cut:all") for text in neither.all("p"))


FAULTS = ("none", "kill:all")


# --- the pictures of a cell


def words(spec: object) -> str:
    """All that is written in a picture, and its size beside it."""
    assert isinstance(spec, dict)
    root = ElementTree.fromstring(inlined(spec, "a picture"))
    return " | ".join(text.text or "" for text in root.iter("{http://www.w3.org/2000/svg}text"))


def test_a_timeline_shows_what_there_was_and_nothing_else() -> None:
    whole = words(timeline_spec(CURVES, 18.2))
    for title in ("acknowledged per second, and sends in doubt (solid)", "delivered per second", "unseen messages"):
        assert title in whole
    assert "lost, by the second of the ack" in whole
    assert "fault" in whole
    calm = words(
        timeline_spec(
            replace(CURVES, bands=(), marks=(), gone=(0,) * 30, unknown=(0,) * 30, deliveries=(0,) * 30), None
        )
    )
    for title in ("in doubt", "delivered", "unseen", "lost", "fault"):
        assert title not in calm
    blind = words(timeline_spec(replace(CURVES, acks=None), None))
    assert "sent per second (nobody acknowledges)" in blind
    assert "not found, by the second of the sending" in blind


def test_first_ack_and_moves_of_the_leader_are_marked() -> None:
    def symbols(spec: object) -> int:
        assert isinstance(spec, dict)
        return sum("symbol" in str(layer) or "shape" in layer["encoding"] for layer in spec["vconcat"][0]["layer"])

    assert symbols(timeline_spec(CURVES, 18.2)) == 1
    assert symbols(timeline_spec(replace(CURVES, marks=()), None)) == 0
    assert len(inlined(timeline_spec(CURVES, 18.2), "")) > len(inlined(timeline_spec(CURVES, None), ""))


def test_a_long_cell_is_drawn_in_few_steps_and_an_outage_of_a_second_still_shows() -> None:
    length = 36_000
    acks = [1000] * length
    acks[20_000] = 0
    long = replace(
        CURVES, length_s=float(length), acks=tuple(acks), deliveries=(1,) * length, unknown=(0,) * length,
        unseen=(0,) * length, gone=(0,) * length,
        latencies=tuple(Latency(float(n), 1.0, 500.0 if n == 9000 else 2.0, 9.0) for n in range(length)),
    )  # fmt: skip
    spec = timeline_spec(long, None)
    steps = spec["vconcat"][0]["layer"][-3]["data"]["values"]
    assert len(steps) == MOST + 1
    assert [step["n"] for step in steps].count(0) == 1
    (latency,) = (c["layer"] for c in spec["vconcat"] if c["title"].startswith("latency"))
    points = next(layer["data"]["values"] for layer in latency if "layer" in layer)
    assert len(points) <= MOST
    assert [point["p99"] for point in points].count(500.0) == 1
    assert len(inlined(spec, "")) < 120_000


def test_a_second_without_an_acked_message_breaks_the_line_of_latencies() -> None:
    gap = replace(CURVES, latencies=tuple(x for x in CURVES.latencies if not 10 <= x.at_s < 20))
    (layers,) = (c["layer"] for c in timeline_spec(gap, None)["vconcat"] if c["title"].startswith("latency"))
    points = next(layer["data"]["values"] for layer in layers if "layer" in layer)
    assert [point["s"] for point in points if point["p50"] is None] == [19.5]


def test_percentiles_have_a_line_a_phase_under_load() -> None:
    spec = percentiles_spec(CURVES)
    assert spec is not None
    assert {value["phase"] for value in spec["data"]["values"]} == {"steady"}
    assert [value["ms"] for value in spec["data"]["values"]] == [1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 60.0]
    assert percentiles_spec(replace(CURVES, percentiles={})) is None


def test_where_the_lost_ones_lay() -> None:
    assert "producer 0: 40 of 20,000 lost; % of each 167 messages" in words(runs_spec(CURVES))
    assert runs_spec(replace(CURVES, runs=())) is None


def test_a_cell_tells_what_it_shows_in_words_too() -> None:
    loss = Finding(
        check="loss",
        count=40,
        numbers={"lost": 40, "suffix": 0, "middle": 40, "lost_cut_off": 38, "lost_beyond_end": 2, "lost_in_hole": 0},
        notes=("all lost messages were acked after the fault",),
    )
    cell = judged(
        "1", None, loss, fault="kill:leader", lost=40, read_then_lost=15, acked=20_000, ack_gap_s_max=8.0,
        first_ack_after_fault_s=8.2, verdict="broken",
    )  # fmt: skip
    found = Page(page(collected(cell), {Path("1"): CURVES}, "0"))
    assert found.all("li") == [
        "kill:leader (kafka-1): from 10.0 s, healed 16.0, recovered 18.0",
        "▼ 18.2 s: first ack of a message sent after the fault",
        "◆ 12.5 s: kafka-2 leads instead of kafka-1",
        "7 messages were unseen when the audit began, 25 were never seen, 15 were read and then lost",
    ]
    assert found.all("figcaption") == [
        "Timeline",
        "Latency percentiles, from due to acknowledged",
        "Where the lost ones lay, in the order of sending",
    ]
    small = found.all("p", class_="small")
    assert "In the order of sending: 40 between survivors." in small
    assert "In the log: 38 where another message is now, 2 beyond its end." in small
    assert "All lost messages were acked after the fault." in small
    labels = [a["aria-label"] for a, _ in found.elements("svg")]
    assert labels[0] == (
        "kafka/acks-all under kill:leader: 30 seconds of load, kill:leader (kafka-1) from 10.0 s; 40 lost, "
        "longest gap 8.00 s"
    )
    assert all(a["role"] == "img" for a, _ in found.elements("svg"))


def test_a_cell_that_kept_everything_has_no_picture_of_lost_ones() -> None:
    kept = replace(CURVES, gone=(0,) * 30, runs=())
    found = Page(page(collected(judged("1", lost=0, acked=9)), {Path("1"): kept}, "0"))
    assert found.all("figcaption") == ["Timeline", "Latency percentiles, from due to acknowledged"]
    assert "0 were never seen" in found.all("li")[-1]


def test_of_very_many_cells_those_that_kept_everything_go_without_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cell_view, "_MOST_PICTURED", 2)
    plain = replace(CURVES, latencies=(), percentiles={}, runs=(), gone=None, deliveries=(0,) * 30)
    cells = [judged(f"00{n}", profile=f"kafka/p{n}", lost=0, acked=9) for n in range(3)]
    cells.append(judged("999", profile="kafka/last", lost=5, acked=9, verdict="lost-as-documented"))
    found = Page(page(collected(*cells), {cell.folder: plain for cell in cells}, "0"))
    assert len(found.elements("svg")) == 2
    without = [a["id"] for a, text in found.elements("details") if "only 2 cells have pictures" in "".join(text)]
    assert without == ["001", "002"]


# --- colours


def luminance(colour: str) -> float:
    channels = (int(colour[n : n + 2], 16) / 255 for n in (1, 3, 5))
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_what_is_written_can_be_read(scheme: int) -> None:
    assert contrast("#ffffff", "#000000") == pytest.approx(21)
    pairs = [(f"{name}-text", name) for name in COLOURS if f"{name}-text" in COLOURS]
    pairs += [(text, paper) for text in ("ink", "soft", "link") for paper in ("paper", "card")]
    weak = {pair: round(contrast(*(COLOURS[name][scheme] for name in pair)), 2) for pair in pairs}
    assert {pair: ratio for pair, ratio in weak.items() if ratio < 4.5} == {}
    drawn = ("kafka", "rabbitmq", "rocketmq", "other", "acks", "deliveries", "doubt", "gone", "middle", "tail")
    paper = COLOURS["paper"][scheme]
    assert [name for name in drawn if contrast(COLOURS[name][scheme], paper) < 3] == []


def test_no_two_names_share_a_light_colour() -> None:
    assert [pair for pair in combinations(COLOURS, 2) if COLOURS[pair[0]][0] == COLOURS[pair[1]][0]] == []


# --- pictures that stand alone


def test_the_stills_are_files_of_their_own() -> None:
    rows = [
        ("kafka/x", "none", "kept", {"lost": 0, "latency_ms_p99": 4.0}),
        ("kafka/x", "kill:all", "lost-as-documented", {"lost": 8096, "acked": 9000}),
    ]
    drawn = stills(collected(*cells_of(*rows)))
    assert set(drawn) == {"matrix.svg", "frontier.svg"}
    for text in drawn.values():
        root = ElementTree.fromstring(text)
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        assert "var(" not in text
        assert "prefers-color-scheme:dark" in text
        assert {"width", "height", "viewBox"} <= set(root.attrib)
    told = [text.text for text in ElementTree.fromstring(drawn["matrix.svg"]).iter("{http://www.w3.org/2000/svg}text")]
    assert {"kept", "lost", "8,096", "kafka/x", "none", "kill:all"} == set(told)
    assert "kafka/x under kill:all: lost" in drawn["matrix.svg"]


def test_there_is_no_still_of_nothing() -> None:
    assert stills(collected()) == {}
    assert set(stills(collected(*cells_of(("kafka/x", "none", "kept", {"lost": 0}))))) == {"matrix.svg"}
    assert matrix_words(collected(*EVERY[:1])) == "Verdicts of 1 combinations of a profile and a fault: 1 kept."
    assert "No cell finished" in page(collected(unfinished=("1",)), {}, "0")


# --- from files to files


def test_a_ledger_becomes_pictures(tmp_path: Path) -> None:
    sends = [Sent(n) for n in range(300)]
    kept = [n for n in range(300) if n not in (50, 51, 52)]
    got = [Got(n, received_s=31.0 + n / 1000) for n in kept]
    write_cell_folder(tmp_path, sends=sends, receipts=got, audit=[Got(n) for n in kept], fault="kill:leader")
    render([tmp_path], tmp_path)
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    found = Page(text)
    assert found.all("figcaption")[-1] == "Where the lost ones lay, in the order of sending"
    assert "producer 0: 3 of 300 lost; % of each 2 messages" in text
    assert "0 messages were unseen" not in text
    assert "3 messages were unseen when the audit began, 3 were never seen" in found.all("li")
    assert len(text) < 100_000
    outside = re.findall(r'(?:src|href)="(?!#|data:,)[^"]*"|url\([^)]*\)|@import', text)
    assert outside == []
    ids = [a["id"] for _tag, a, _text in found.found if "id" in a]
    assert sorted(set(ids)) == sorted(ids)


def test_a_cell_whose_ledger_cannot_be_read_says_so(tmp_path: Path) -> None:
    run_dir = make_run(tmp_path, "r")
    sends = make_cell(run_dir, "001") / "ledger" / "sends.0" / "outcome.npy"
    sends.write_bytes(sends.read_bytes()[:100])
    render([run_dir], run_dir)
    assert "its ledger cannot be read" in (run_dir / "report.html").read_text(encoding="utf-8")


HEADER = "run,cell,broker,profile,fault,verdict,reason,lost,acked,latency_ms_p99,audit_complete,settings.x\n"


def bare(folder: Path, *lines: str) -> Path:
    folder.mkdir(parents=True)
    (folder / "results.csv").write_text(HEADER + "".join(f"{line}\n" for line in lines), encoding="utf-8")
    return folder


TABLE = (
    '20260102T030405Z-durability,001,kafka,1,none,kept,,0,9,4.5,true,"a,b"',
    "20260102T030405Z-durability,002,kafka,1,kill:all,lost-as-documented,all of them,8096,9000,,true,",
    "20260102T030405Z-durability,003,kafka,all,kill:all,unknown,cut off,,,,false,",
)


def test_a_table_alone_still_gives_matrix_and_frontier_and_is_left_alone(tmp_path: Path) -> None:
    folder = bare(tmp_path / "old", *TABLE)
    (folder / "report.md").write_text("as it was", encoding="utf-8")
    report = render([folder], folder)
    assert [path.name for path in report.files] == ["report.html", "matrix.svg", "frontier.svg"]
    there = sorted(path.name for path in folder.iterdir())
    assert there == ["frontier.svg", "matrix.svg", "report.html", "report.md", "results.csv"]
    assert (folder / "results.csv").read_text(encoding="utf-8") == HEADER + "".join(f"{line}\n" for line in TABLE)
    assert (folder / "report.md").read_text(encoding="utf-8") == "as it was"
    assert (report.exit_code, len(report.rows)) == (2, 3)
    found = Page((folder / "report.html").read_text(encoding="utf-8"))
    assert found.all("h1") == ["durability"]
    assert found.squares == {
        ("1", "none"): "kept", ("1", "kill:all"): "lost 8,096",
        ("all", "none"): "not measured", ("all", "kill:all"): "unknown",
    }  # fmt: skip
    assert found.all("p", class_="note") == [
        "Of this run only results.csv is left. The pictures of a cell (timeline, latency percentiles, unseen messages, "
        "where the lost ones lay) need its ledger."
    ]
    assert "0 / 9" in found.all("dd")
    assert len(found.elements("svg")) == 1, "the frontier"


def test_a_run_with_ledgers_has_no_word_of_missing_ones(tmp_path: Path) -> None:
    run_dir = make_run(tmp_path, "r")
    make_cell(run_dir, "001")
    render([run_dir], run_dir)
    assert "only results.csv is left" not in (run_dir / "report.html").read_text(encoding="utf-8")


def test_a_table_and_a_run_with_ledgers_are_one_report(tmp_path: Path) -> None:
    """Of the cell of the table stands what its row says, settings and host too; it is written again as it was."""
    run_dir = make_run(tmp_path, "r")
    make_cell(run_dir, "001")
    render([run_dir], run_dir)
    old = tmp_path / "old"
    old.mkdir()
    for name in ("results.csv", "run.json"):
        (old / name).write_text((run_dir / name).read_text(encoding="utf-8").replace("001", "002"), encoding="utf-8")
    out = tmp_path / "out"
    for _again in range(2):
        report = render([old, run_dir], out)
    assert [path.name for path in report.files] == [
        "results.csv", "results.parquet", "report.md", "report.html", "matrix.svg",
    ]  # fmt: skip
    header, first, second = (out / "results.csv").read_text(encoding="utf-8").splitlines()
    assert [header, first] == (run_dir / "results.csv").read_text(encoding="utf-8").splitlines()
    assert second == (old / "results.csv").read_text(encoding="utf-8").splitlines()[1]
    found = Page((out / "report.html").read_text(encoding="utf-8"))
    assert found.all("p", class_="note")[0].startswith("Of some of these cells only results.csv is left.")
    alone = (run_dir / "report.md").read_text(encoding="utf-8")
    both = (out / "report.md").read_text(encoding="utf-8")
    for said in ("acks", "versions", "host"):
        lines = [line for line in alone.splitlines() if said in line]
        assert [line for line in lines if line not in both.splitlines()] == [], "said once, as of one cell"


def test_a_table_has_to_be_one_of_ours(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"results\.csv, line 2: not as many fields as columns"):
        render([bare(tmp_path / "other", "a,b,c")], tmp_path / "out")


def test_what_a_table_lacks_of_its_plan_did_not_finish(tmp_path: Path) -> None:
    folder = bare(tmp_path / "old", *TABLE)
    (folder / "run.json").write_text(json.dumps({"run": "x", "planned": ["001", "002", "003", "004"]}), "utf-8")
    assert render([folder], tmp_path / "out").unfinished == ("004",)


def test_the_reference_run_can_be_drawn() -> None:
    reference = Path(__file__).parent.parent / "results" / "reference"
    assert "rocketmq/sync-flush-all-ack under partition:leader: broken" in (reference / "matrix.svg").read_text(
        encoding="utf-8"
    )
    assert "rabbitmq/quorum survived power-cut:all" in (reference / "frontier.svg").read_text(encoding="utf-8")
