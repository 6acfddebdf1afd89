"""Literal rows to exact tables, sentences and exit codes; real ledgers to the files of a report."""

from __future__ import annotations

import csv
import io
import json
import re
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from xml.etree import ElementTree

import pytest
from pyarrow import parquet

from mqtest.errors import MqtestError, UsageError
from mqtest.judge import COLUMNS
from mqtest.model import Finding, Verdict
from mqtest.neighbourhood import Neighbour, Neighbourhood
from mqtest.report import check, render
from mqtest.report.collect import Collected, JudgedCell
from mqtest.report.csv_table import csv_text, parquet_bytes, rows_of
from mqtest.report.junit import cases, junit_text
from mqtest.report.markdown import markdown_text
from mqtest.report.matrix import matrix_text
from mqtest.report.replays import replays_text
from mqtest.report.settings import settings_text
from mqtest.report.summary import (
    Row,
    at_most,
    cells_that_lost,
    cost,
    count,
    duplicates,
    exit_code,
    figures,
    groups,
    loss_words,
    spread,
    teeth,
)
from mqtest.report.surprises import replay, surprises
from mqtest.report.unavailable import timelines_text, unavailable_text
from mqtest.timeline import Clock, Counts, Outage, Stretch, Timeline
from tests.run_dirs import make_cell, make_run


def row(profile: str = "kafka/acks-all", fault: str = "kill:all", verdict: str = "kept", **figures: object) -> Row:
    broker, _, name = profile.partition("/")
    known = {"broker": broker, "profile": name, "fault": fault, "verdict": Verdict(verdict), "reason": ""}
    return dict.fromkeys(COLUMNS) | known | figures


def judged(cell_id: str, facts: dict[str, object] | None = None, *findings: Finding, **columns: object) -> JudgedCell:
    made = row(**columns)  # type: ignore[arg-type]
    return JudgedCell(
        folder=Path(cell_id),
        row=made,
        findings=findings,
        verdict=Verdict(str(made["verdict"])),
        reason=str(made["reason"]),
        facts=facts or {},
        stored=None,
    )


AROUND = Neighbourhood(
    since="fault",
    neighbours=(
        Neighbour(
            producer=0, seq=6, concerned=False, outcome="unknown", fate="unresolved", place=0, offset=-1, sent_s=-0.1,
            settled_s=None, received_s=None,
        ),
        Neighbour(
            producer=0, seq=7, concerned=True, outcome="acked", fate="lost", place=0, offset=41, sent_s=-0.05,
            settled_s=-0.048, received_s=-0.04,
        ),
    ),
    events=((0.0, "fault: step injected"),),
)  # fmt: skip


def collected(*cells: JudgedCell, must_lose: tuple[str, ...] = (), unfinished: tuple[str, ...] = ()) -> Collected:
    run = {"run": "r", "scenario": {"title": "T", "question": "Q?", "must_lose": list(must_lose)}}
    return Collected(runs=(run,), cells=cells, unfinished=unfinished)


# --- results.csv


def test_csv_has_the_fixed_columns_first_then_the_union_of_settings_in_a_stable_order() -> None:
    cells = [
        judged("1", {"effective": {"topic.b": "2"}, "host": {"cores": 2}, "settings": {"broker": {"x": True}}}),
        judged("2", {"effective": {"broker.a": "1"}, "versions": {"broker": "4.3.1"}}),
    ]
    expected = [
        *COLUMNS, "settings.broker.x", "effective.broker.a", "effective.topic.b", "versions.broker", "host.cores",
    ]  # fmt: skip
    assert next(csv.reader(io.StringIO(csv_text(cells)))) == expected
    assert next(csv.reader(io.StringIO(csv_text(cells[::-1])))) == expected


def test_csv_text_exactly() -> None:
    cell = judged(
        "1", run="r", cell="1", lost=0, acked=20000, ack_gap_s_max=1.25, audit_complete=True, reason='a "b", c'
    )
    at = {
        "run": "r", "cell": "1", "broker": "kafka", "profile": "acks-all", "fault": "kill:all", "acked": "20000",
        "lost": "0", "ack_gap_s_max": "1.25", "audit_complete": "true", "verdict": "kept", "reason": '"a ""b"", c"',
    }  # fmt: skip
    expected = ",".join(COLUMNS) + "\n" + ",".join(at.get(column, "") for column in COLUMNS) + "\n"
    assert csv_text([cell]) == expected


def test_csv_leaves_empty_what_was_not_measured_and_writes_zero_where_zero_was() -> None:
    fields = next(csv.DictReader(io.StringIO(csv_text([judged("1", lost=None, sent=0, latency_ms_p50=0.0)]))))
    assert (fields["lost"], fields["sent"], fields["latency_ms_p50"]) == ("", "0", "0.0")


# --- figures and words


def test_rule_of_three() -> None:
    assert (at_most(30), at_most(3), at_most(1)) == (0.1, 1.0, 1.0)


def test_repeats_say_how_many_lost_and_bound_what_none_lost() -> None:
    clean = groups([row(lost=0, acked=100)] * 30)[0]
    mixed = groups([row(lost=n, acked=100, verdict="lost-as-documented" if n else "kept") for n in (0, 4, 10)])[0]
    assert cells_that_lost(clean) == "0 of 30 (≤ 10 %)"
    assert cells_that_lost(mixed) == "2 of 3"
    assert loss_words(clean) == "lost 0 in 30 cells, of 3,000 acked together"
    assert loss_words(mixed) == "lost some in 2 of 3 cells, median 4, worst 10 of 100 acked"


def test_cells_that_prove_nothing_are_not_counted_among_those_that_did_not_lose() -> None:
    group = groups([row(lost=0), row(verdict="invalid", lost=0), row(verdict="unknown", lost=None)])[0]
    assert cells_that_lost(group) == "0 of 1 (≤ 100 %)"
    assert cells_that_lost(groups([row(verdict="unknown")])[0]) == "–"


def test_figures_of_one_cell() -> None:
    one = row(
        lost=12, acked=20000, verdict="lost-as-documented", read_then_lost=3, stored_twice=0, redelivered=2,
        reordered=0, ack_gap_s_max=3.214, first_ack_after_fault_s=8.0, ack_rate_per_s=1999.6, latency_ms_p50=1.23,
        latency_ms_p99=231.4, pacing_lag_ms_p99=0.41,
    )  # fmt: skip
    assert figures(groups([one])[0]) == (
        "kill:all", "kafka/acks-all", "lost-as-documented", "12 / 20,000", "1 of 1", "3", "2 redelivered", "0", "3.21",
        "8.00", "2,000", "1.2 / 231", "0.4",
    )  # fmt: skip


def test_figures_that_nobody_measured_are_dashes() -> None:
    assert figures(groups([row(verdict="unknown")])[0])[3:] == (
        "– / –", "–", "–", "–", "–", "–", "–", "–", "– / –", "–",
    )  # fmt: skip


def test_figures_of_a_pipeline() -> None:
    one = row(lost=0, acked=20, output_lost=3, output_doubled=40)
    assert figures(groups([one])[0])[3] == "0 / 20, 3 outputs"
    assert figures(groups([one])[0])[6] == "40 outputs doubled"
    assert figures(groups([row(lost=0, acked=20, output_lost=0, output_doubled=0)])[0])[3:7:3] == ("0 / 20", "0")


def test_figures_of_repeats_are_the_median_and_the_worst() -> None:
    assert spread([1, 2, 9], count) == "2 (9)"
    assert spread([3, 3], count) == "3"
    three = [row(lost=n, acked=100, ack_rate_per_s=r) for n, r in ((1, 10), (2, 30), (9, 20))]
    texts = figures(groups(three)[0])
    assert (texts[3], texts[10]) == ("2 (9) / 100", "20 (10)")


def test_a_profile_without_acknowledgements_has_not_found_instead_of_lost() -> None:
    group = groups([row(lost=None, acked=0, not_found=7, sent=500, verdict="lost-as-documented")])[0]
    assert loss_words(group) == "not found 7 of 500 sent"
    assert figures(group)[3] == "7 not found / 500 sent"
    assert group.losing == 1


def test_duplicates_by_cause() -> None:
    assert duplicates([row(stored_twice=3, redelivered=0, redelivered_unflagged=1)]) == "3 stored twice, 1 unflagged"
    assert duplicates([row(stored_twice=0)]) == "0"
    assert duplicates([row()]) == "–"


def test_cost_compares_with_the_fastest_profile_of_the_same_broker() -> None:
    rows = [
        row("kafka/acks-1", ack_rate_per_s=2000.0, rate_asked_per_s=2000.0, latency_ms_p99=2.0),
        row("kafka/fsync", ack_rate_per_s=1500.0, rate_asked_per_s=2000.0, latency_ms_p99=9.0),
        row("rabbitmq/quorum", ack_rate_per_s=5000.0, latency_ms_p99=4.0),
    ]
    assert cost(rows) == (
        "kafka/acks-1: 2,000 acked per s of 2,000 asked, p99 2.0 ms",
        "kafka/fsync: 1,500 acked per s of 2,000 asked, p99 9.0 ms, 4.5 times that of acks-1",
        "rabbitmq/quorum: 5,000 acked per s, as fast as it would go, p99 4.0 ms",
    )


@pytest.mark.parametrize(
    ("verdicts", "unfinished", "expected"),
    [
        (["kept", "lost-as-documented"], 0, 0),
        (["kept", "unknown"], 0, 2),
        (["kept", "invalid"], 0, 2),
        (["unknown", "broken"], 0, 1),
        (["kept", "dead"], 3, 1),
        (["kept"], 1, 2),
        ([], 0, 2),
    ],
)
def test_exit_code(verdicts: list[str], unfinished: int, expected: int) -> None:
    assert exit_code([row(verdict=v) for v in verdicts], unfinished) == expected


# --- teeth


def test_teeth_are_bare_when_a_profile_lost_under_the_fault() -> None:
    rows = [row("kafka/acks-1", lost=5, acked=9, verdict="lost-as-documented"), row("kafka/acks-all", lost=0, acked=9)]
    assert teeth(groups(rows), ["kill:all"]) == ()


def test_teeth_note_when_nobody_lost_under_the_fault() -> None:
    rows = [row("kafka/acks-1", lost=0, acked=9), row("kafka/acks-1", "stop:all", lost=5, verdict="lost-as-documented")]
    assert teeth(groups(rows), ["kill:all"]) == (
        "This run does not prove that a loss under `kill:all` would have been seen: the scenario says that some "
        "profile must lose under it, and none did (kafka/acks-1 lost 0 of 9 acked). Take no comfort from a `kept` "
        "under this fault.",
    )


def test_a_loss_in_a_cell_that_proves_nothing_is_no_tooth() -> None:
    notes = teeth(groups([row(lost=5, acked=9, verdict="invalid")]), ["kill:all"])
    assert len(notes) == 1
    assert teeth((), ["kill:all"]) == ()


def test_a_control_cell_that_broke_is_noted() -> None:
    assert teeth(groups([row(fault="none", lost=0)]), []) == ()
    (note,) = teeth(groups([row(fault="none", lost=1, verdict="broken")]), [])
    assert note.startswith("The control cell of kafka/acks-all, which has no fault, is `broken`")


# --- report.md


def test_latency_under_the_fault_stands_beside_that_of_the_steady_phase() -> None:
    figures = {
        "latency_ms_p50": 9.0,
        "latency_ms_p99": 20.0,
        "fault_latency_ms_p50": 60.0,
        "fault_latency_ms_p99": 84.0,
    }
    text = unavailable_text([judged("1", fault="link-latency:all", ack_gap_s_max=0.1, **figures)])
    assert "| p50, p99 of acks |" in text
    assert text.rstrip().endswith("| 60.0 (9.0), 84.0 (20.0) |")


def test_markdown_exactly_up_to_the_explanations() -> None:
    whole = markdown_text(
        collected(
            judged(
                "1",
                None,
                Finding(check="unavailability", count=1, numbers={"ack_gap_s_max": 3.25}),
                lost=0,
                acked=20000,
                ack_rate_per_s=2000.0,
                rate_asked_per_s=2000.0,
                latency_ms_p99=5.0,
                ack_gap_s_max=3.25,
            ),
            judged(
                "2", profile="rabbitmq/classic", lost=1234, acked=20000, read_then_lost=10, verdict="lost-as-documented"
            ),
            must_lose=("kill:all",),
        ),
        "0.1.0",
    )
    assert re.sub("(Seconds. A gap is).*", r"\1", whole.partition("\nHow to read it:")[0]) == (
        """\
# T

> Q?

2 cells: 1 kept, 1 lost-as-documented.

## Surprises

None: no promise was broken, and under each fault where some profile must lose, one did.

## The answer

Under `kill:all`:

- **Kept**: kafka/acks-all lost 0 of 20,000 acked.
- **Lost, as documented**: rabbitmq/classic lost 1,234 of 20,000 acked, of which up to 10 already read by a consumer.

### What it costs, in the steady phase

- kafka/acks-all: 2,000 acked per s of 2,000 asked, p99 5.0 ms

## Verdicts

| kafka | `kill:all` |
|---|---|
| acks-all | kept |

| rabbitmq | `kill:all` |
|---|---|
| classic | lost-as-documented: 1,234 |

A number is of messages lost, of repeats in the worst cell.

Controls:

| fault | some profile must lose | profiles that lost | the same ones without a fault |
|---|---|---|---|
| `kill:all` | yes, and one did | 1 of 2 | not among these cells |

## How long it was unavailable

Seconds. A gap is

| fault | profile | ack gap max |
|---|---|---:|
| kill:all | kafka/acks-all | 3.25 |

## The table

| fault | profile | verdict | lost / acked | cells that lost | read, then lost | duplicates | reordered \
| longest ack gap, s | first ack after fault, s | acked per s | p50 / p99, ms | pacing lag p99, ms |
|---|---|---|---|---|---|---|---|---|---|---|---|---|
| kill:all | kafka/acks-all | kept | 0 / 20,000 | 0 of 1 (≤ 100 %) | – | – | – | 3.25 | – | 2,000 | – / 5.0 | – |
| kill:all | rabbitmq/classic | lost-as-documented | 1,234 / 20,000 | 1 of 1 | 10 | – | – | – | – | – | – / – | – |
"""
    )


def test_markdown_has_the_teeth_note_before_the_answer_or_not_at_all() -> None:
    clean = judged("1", lost=0, acked=9)
    with_note = markdown_text(collected(clean, must_lose=("kill:all",)), "0")
    assert 0 < with_note.index("does not prove") < with_note.index("## The answer")
    assert "does not prove" not in markdown_text(collected(clean), "0")


def test_markdown_says_which_latency_was_refused_and_how_late_our_own_load_was() -> None:
    refused = Finding(check="latency", count=None, notes=("latency is refused: our own load was late",))
    text = markdown_text(collected(judged("001-x", None, refused, pacing_lag_ms_p99=31.5)), "0")
    assert "- `001-x`: latency is refused: our own load was late\n" in text
    assert "| – / – | 31.5 |" in text
    invalid = judged("001-x", None, refused, verdict="invalid", reason="latency is refused: our own load was late")
    assert markdown_text(collected(invalid), "0").count("- `001-x`") == 1, "said once"
    assert "refused" not in markdown_text(collected(judged("001-x")), "0").partition("How to read it")[0]


def test_markdown_names_what_was_not_proven() -> None:
    text = markdown_text(
        collected(judged("001-x", verdict="unknown", reason="no fence"), unfinished=("002-y",)), "0"
    ).partition("## What was not proven")[2]
    assert "- `001-x` is unknown: no fence\n" in text
    assert "- `002-y` was planned and did not finish\n" in text
    assert "- there is no control cell without a fault" in text


def test_markdown_has_a_matrix_and_controls_for_several_faults() -> None:
    text = markdown_text(
        collected(
            judged("1", lost=5, verdict="lost-as-documented"),
            judged("2", fault="none", lost=0),
            judged("3", profile="kafka/acks-1", lost=0),
            judged("4", profile="kafka/acks-1", fault="none", lost=0, verdict="invalid"),
            judged("5", profile="kafka/acks-1", fault="stop:one", lost=0),
            must_lose=("stop:one",),
        ),
        "0",
    )
    assert (
        "| kafka | `none` | `kill:all` | `stop:one` |\n|---|---|---|---|\n"
        "| acks-all | kept | lost-as-documented: 5 |  |\n| acks-1 | invalid | kept | kept |\n"
    ) in text
    assert (
        "| `kill:all` | – | 1 of 2 | 1 of 2 kept everything |\n"
        "| `stop:one` | yes, and **none did** | 0 of 1 | 0 of 1 kept everything |\n"
    ) in text


def test_the_matrix_over_repeats_says_how_many_lost_and_bounds_what_none_lost() -> None:
    rows = [row(lost=n, acked=9, verdict="lost-as-documented" if n else "kept") for n in (0, 4, 40)]
    rows += [row("kafka/x", lost=0, acked=9)] * 3 + [row("kafka/y", lost=7, acked=9, verdict="broken")]
    assert (
        "| acks-all | lost-as-documented ×2, kept ×1: lost in 2 of 3, worst 40 |\n"
        "| x | kept: lost in 0 of 3 (≤ 100 %) |\n| y | **broken**: 7 |\n"
    ) in matrix_text(groups(rows))


def test_what_was_varied_tells_groups_apart() -> None:
    rows = [row(varied="nodes=1", lost=1, acked=9), row(varied="nodes=3", lost=0, acked=9), row(lost=0, acked=9)]
    assert [group.profile for group in groups(rows)] == [
        "kafka/acks-all (nodes=1)", "kafka/acks-all (nodes=3)", "kafka/acks-all",
    ]  # fmt: skip


def test_a_broken_promise_is_at_the_top_with_its_sentence_its_messages_and_the_command() -> None:
    findings = (
        Finding(check="loss", count=2, numbers={"lost": 2}, notes=("a note",), examples=("producer 0 seq 7 | <b>",)),
        Finding(check="unconfirmed", count=9, numbers={"unresolved": 9}, examples=("not this one",)),
    )
    facts: dict[str, object] = {"promise": {"source": "the manual: it is <kept>"}}
    worst = judged("001-a-1", facts, *findings, verdict="broken", lost=2, reason="2 lost under kill:all", run="r")
    cells = [
        replace(worst, neighbourhoods={"loss": (AROUND,), "unconfirmed": (AROUND,)}),
        judged("002-a-2", facts, verdict="broken", lost=1, reason="1 lost under kill:all", run="r", repeat=2),
        judged("003-a-3", facts, lost=0, run="r", repeat=3),
    ]
    run = {"run": "r", "seed": 7, "scenario": {"title": "T", "path": "mine.toml", "asked": {"fs": "xfs"}}}
    text = markdown_text(Collected(runs=(run,), cells=tuple(cells), unfinished=()), "0")
    top = text.partition("## The answer")[0].partition("## Surprises\n\n")[2]
    assert top == (
        """\
### 1. kafka/acks-all under `kill:all`: a promise was broken (2 of 3 cells)

2 lost under kill:all

- cell `001-a-1`, its ledger is beside this report
- the promise rests on: the manual: it is &lt;kept>
- loss: 2
- a note
- producer 0 seq 7 | &lt;b>

loss, around one of these messages (seconds from the fault):

| producer/seq | the client said | it became | place/offset | sent, s | settled, s | delivered, s |
|---|---|---|---|---:|---:|---:|
| 0/6 | unknown | unresolved | – | -0.100 | – | – |
| **0/7** | acked | lost | 0/41 | -0.050 | -0.048 | -0.040 |

- 0.000 s: fault: step injected

Again: `mqtest run mine.toml --only '*-a-1' --seed 7 --set fs=xfs`

"""
    )
    assert "<b>" not in text


def test_a_cell_of_a_shipped_scenario_is_replayed_by_its_name_and_one_that_was_attached_not_at_all() -> None:
    cell = judged("007-kafka-x-3", run="r", repeat=3)
    shipped = {"run": "r", "seed": 1, "scenario": {"path": "durability.toml"}}
    assert replay(cell, [shipped]) == "mqtest run durability --only '*-kafka-x-3' --seed 1 --repeat 3"
    for path, named in {
        "durability": "durability",
        "./durability.toml": "./durability.toml",
        "my/durability.toml": "my/durability.toml",
        "it's mine.toml": "'it'\"'\"'s mine.toml'",
    }.items():
        found = replay(cell, [{"run": "r", "scenario": {"path": path}}])
        assert found == f"mqtest run {named} --only '*-kafka-x-3' --repeat 3"
    assert replay(cell, [{"run": "r", "seed": 1, "scenario": {"title": "Attached"}}]) is None
    assert replay(cell, [{**shipped, "run": "another"}]) is None


def test_a_loss_that_must_happen_and_did_not_is_a_surprise_and_so_is_a_cluster_that_stays_away() -> None:
    dead = judged("002-b-1", fault="stop:all", verdict="dead", reason="kafka-1 exit code 1: no space", repeat=1)
    found = surprises(collected(judged("001-a-1", lost=0, acked=9), dead, must_lose=("kill:all",)))
    assert [surprise.headline for surprise in found] == [
        "kafka/acks-all under `stop:all`: it did not come back",
        "`kill:all`: a loss that must happen did not",
    ]
    assert "a loss under `kill:all` would have been seen" in found[1].what
    lost = judged("001-a-1", lost=1, acked=9, verdict="lost-as-documented")
    assert surprises(collected(lost, must_lose=("kill:all",))) == ()


def test_a_timeline_has_what_happened_and_what_each_incident_cost() -> None:
    second = 1_000_000_000
    costs = Counts(lost=0, unknown=12, stored_twice=None, redelivered=1)
    none = Counts(lost=2, unknown=0, stored_twice=None, redelivered=0)
    line = Timeline(
        clock=Clock(load_ns=0, utc=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)),
        outages=(Outage(began_ns=10 * second, ended_ns=13 * second, places=1, counts=costs),),
        outside=none,
        stretches=(
            Stretch(what="a away", began_ns=9 * second, ended_ns=14 * second, gap_s=3.0),
            Stretch(what="b away", began_ns=70 * second, ended_ns=None, gap_s=None),
        ),
    )
    cell = replace(judged("001-x", {"attached": {"topic": "t", "at": "a:1"}}), timeline=line)
    assert timelines_text([cell]) == (
        """\
## Timelines

### `001-x`: t at a:1

What happened to the cluster:

| at, s | UTC | for, s | what | longest gap of acks in it, s |
|---|---|---|---|---|
| 9.0 | 2026-01-02 03:04:14 | 5.00 | a away | 3.00 |
| 70.0 | 2026-01-02 03:05:15 | – | b away | – |

Incidents, each a second or more without an acknowledgement:

| began, s | UTC | lasted, s | places | lost | unknown | stored twice | redelivered |
|---|---|---|---|---|---|---|---|
| 10.0 | 2026-01-02 03:04:15 | 3.00 | 1 | 0 | 12 | – | 1 |
| outside of these |  |  |  | 2 | 0 | – | 0 |"""
    )
    assert timelines_text([judged("002-y")]) == ""


def test_settings_that_differ_are_a_table_and_the_same_ones_a_line() -> None:
    same: dict[str, object] = {"producer": {"linger.ms": 5}}
    other: dict[str, object] = {"settings": {"broker": {"a": False}, **same}, "effective": {"broker.a": "true"}}
    cells = [
        judged("1", {"settings": {"broker": {"a": True}, **same}, "effective": {"broker.a": "true", "topic.b": "3"}}),
        judged("2", other, profile="kafka/x"),
    ]
    assert settings_text(cells) == (
        """\
| kafka | acks-all | x |
|---|---|---|
| broker.a | true | false → true |
| topic.b | 3 |  |

kafka, the same in all: `producer.linger.ms` 5."""
    )


def test_markdown_stays_under_a_megabyte() -> None:
    facts = {"settings": {"broker": {f"key-{n}": "語" * 900 for n in range(900)}}}
    cells = [judged(f"{n}", facts, profile=f"kafka/p{n}", verdict="unknown", reason="語" * 900) for n in range(900)]
    text = markdown_text(collected(*cells), "0")
    assert 100_000 < len(text.encode()) < 1_000_000
    assert text.endswith("(cut here: the rest is in results.csv)\n")


# --- junit.xml

PROMISED = ("lost", "foreign", "corrupt", "phantom", "stored_twice", "redelivered_unflagged", "reordered_in_session")
NOTHING = {"lost": 0, "foreign": 0, "corrupt": 0, "phantom": 0, "stored_twice": 0, "redelivered": 0}


def case_of(cell: JudgedCell, guarantee: str) -> tuple[str, str]:
    """What it came to, and what was said."""
    (case,) = [case for case in cases(cell) if case.guarantee == guarantee]
    return case.came_to, case.said


def promising(cell: JudgedCell, *columns: str) -> JudgedCell:
    return replace(cell, promised=columns)


def test_junit_has_a_case_a_cell_and_guarantee() -> None:
    one = promising(judged("001-a", **NOTHING, reordered_in_session=0), *PROMISED)
    suite = ElementTree.fromstring(junit_text("run", collected(one, unfinished=("002-b",))))
    assert dict(suite.attrib) == {"name": "run", "tests": "7", "failures": "0", "errors": "0", "skipped": "1"}
    assert [(case.get("classname"), case.get("name"), case[0].tag) for case in suite] == [
        ("kafka.acks-all", "001-a: loss", "system-out"),
        ("kafka.acks-all", "001-a: duplicates", "system-out"),
        ("kafka.acks-all", "001-a: order", "system-out"),
        ("kafka.acks-all", "001-a: integrity", "system-out"),
        ("kafka.acks-all", "001-a: recovery", "system-out"),
        ("kafka.acks-all", "001-a: proof", "system-out"),
        ("unfinished", "002-b", "skipped"),
    ]


def test_a_guarantee_is_broken_allowed_or_not_given() -> None:
    found = NOTHING | {"lost": 5, "stored_twice": 2, "redelivered": 7}
    broken = promising(judged("1", verdict="broken", reason="5 lost under kill:all", **found), *PROMISED)
    assert case_of(broken, "loss") == ("failure", "broken: 5 lost under kill:all")
    assert case_of(broken, "duplicates")[0] == "failure"
    assert case_of(broken, "integrity") == ("passed", "0 foreign, corrupt, phantom")
    assert case_of(broken, "order") == ("skipped", "promised, and not measured")
    assert [case.guarantee for case in cases(broken)].count("outputs") == 0
    weak = promising(judged("2", verdict="lost-as-documented", **found), "foreign", "corrupt", "phantom")
    assert case_of(weak, "loss") == ("skipped", "not promised under kill:all; 5 lost seen")
    assert case_of(weak, "duplicates") == ("skipped", "not promised under kill:all; 2 stored twice, 7 redelivered seen")
    assert case_of(weak, "recovery")[0] == case_of(weak, "proof")[0] == "passed"
    allowing = promising(judged("3", **NOTHING | {"redelivered": 7}), *PROMISED)
    assert case_of(allowing, "duplicates") == ("passed", "0 stored twice; 7 redelivered, which the promise allows")
    pipeline = promising(judged("4", output_lost=0, output_doubled=3, verdict="broken"), *PROMISED, "output_doubled")
    assert case_of(pipeline, "outputs")[0] == "failure"


def test_what_proves_nothing_is_an_error_everywhere_and_a_dead_cluster_did_not_come_back() -> None:
    blind = promising(judged("1", verdict="unknown", reason="no fence", foreign=1), *PROMISED)
    assert {case.guarantee: case.came_to for case in cases(blind)} == {
        "loss": "error", "duplicates": "error", "order": "error", "integrity": "failure", "recovery": "error",
        "proof": "error",
    }  # fmt: skip
    assert {case.came_to for case in cases(judged("2", verdict="unknown", reason="cell.json"))} == {"error"}
    dead = promising(judged("3", verdict="dead", reason="gone", **NOTHING), *PROMISED)
    assert case_of(dead, "recovery") == ("failure", "dead: gone")
    assert case_of(dead, "loss")[0] == "passed"


def test_junit_says_how_to_do_it_again_and_shows_what_was_found(tmp_path: Path) -> None:
    run_dir = make_run(tmp_path, "r", ["001-x-1"])
    make_cell(run_dir, "001-x-1", fault="kill:all", survives=["none", "kill:all"], lost=2)
    suite = ElementTree.fromstring((render([run_dir], run_dir).out_dir / "junit.xml").read_text(encoding="utf-8"))
    failures = {case.get("name"): case[0] for case in suite if case[0].tag == "failure"}
    assert list(failures) == ["001-x-1: loss"]
    assert failures["001-x-1: loss"].get("message") == "broken: 2 lost under kill:all"
    lines = (failures["001-x-1: loss"].text or "").splitlines()
    assert lines[0] == "again: mqtest run planted.toml --only '*-x-1' --seed 7"
    assert lines[1].startswith("producer 0 seq 8 acked at place 0")


def test_junit_carries_no_character_that_xml_cannot() -> None:
    cell = promising(judged("1", verdict="broken", reason="5 lost\x00", lost=5), *PROMISED)
    assert "5 lost�" in junit_text("run\x01", collected(cell))


# --- results.parquet


def test_parquet_has_the_rows_of_the_csv_with_types_that_do_not_depend_on_them() -> None:
    facts: dict[str, object] = {"settings": {"broker": {"x": 3}}}
    full = judged("1", facts, run="r", lost=3, ack_gap_s_max=2, audit_complete=True, reason="語")
    table = parquet.read_table(io.BytesIO(parquet_bytes([full, judged("2")])))
    assert table.column_names == [*COLUMNS, "settings.broker.x"]
    shown = ("run", "lost", "ack_gap_s_max", "audit_complete", "reason", "verdict", "settings.broker.x")
    assert [table.to_pylist()[0][name] for name in shown] == ["r", 3, 2.0, True, "語", "kept", "3"]
    assert [table.to_pylist()[1][name] for name in ("lost", "audit_complete", "settings.broker.x")] == [None] * 3
    empty = parquet.read_table(io.BytesIO(parquet_bytes([judged("2")])))
    for name in COLUMNS:
        assert empty.schema.field(name).type == table.schema.field(name).type


def test_every_figure_of_a_judged_cell_fits_into_both_tables_and_comes_back(tmp_path: Path) -> None:
    run_dir = make_run(tmp_path, "r")
    make_cell(run_dir, "001", profile="weak", fault="kill:all", lost=3)
    make_cell(run_dir, "002", complete=False)
    rows = render([run_dir], run_dir).rows
    again = rows_of((run_dir / "results.csv").read_text(encoding="utf-8"), "results.csv")
    stored = parquet.read_table(run_dir / "results.parquet").to_pylist()
    for row, read, kept in zip(rows, again, stored, strict=True):
        assert {name: read[name] for name in COLUMNS} == {name: kept[name] for name in COLUMNS}
        for name in COLUMNS:
            expected = None if row[name] == "" else row[name]
            assert read[name] == (pytest.approx(expected) if isinstance(expected, float) else expected), name


HEAD = "run,cell,broker,profile,fault,verdict"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("a,b\n1,2\n", "x.csv: no results.csv of mqtest: it has no column run"),
        (f"{HEAD}\nr,1,kafka,p,none,good\n", "x.csv, line 2: verdict: 'good' is none; allowed: "),
        (f"{HEAD},lost\nr,1,kafka,p,none,kept,many\n", "x.csv, line 2: lost: 'many' is no whole number"),
        (f"{HEAD},lost\nr,1,kafka,p,none,kept,1.5\n", "x.csv, line 2: lost: '1.5' is no whole number"),
        (f"{HEAD}\nr,1,kafka,p,none,kept,1\n", "x.csv, line 2: not as many fields as columns"),
    ],
)
def test_what_is_no_results_csv_is_refused(text: str, why: str) -> None:
    with pytest.raises(UsageError, match=f"^{re.escape(why)}"):
        rows_of(text, "x.csv")


# --- from ledgers to files


def test_render_of_a_run_writes_the_files_and_a_verdict_beside_each_cell(tmp_path: Path) -> None:
    run_dir = make_run(tmp_path, "r", ["001", "002", "003"])
    make_cell(run_dir, "001", profile="weak", fault="kill:all", lost=3)
    make_cell(run_dir, "002")
    make_cell(run_dir, "003", finished=False)
    report = render([run_dir], run_dir)
    assert (report.exit_code, report.unfinished, report.notes) == (2, ("003",), ())
    written = ["results.csv", "results.parquet", "report.md", "report.html", "matrix.svg", "frontier.svg", "junit.xml"]
    assert [path.name for path in report.files] == written
    assert [name for name in written if not (run_dir / name).is_file()] == []
    assert "](matrix.svg)" in (run_dir / "report.md").read_text(encoding="utf-8")
    rows = list(csv.DictReader(io.StringIO((run_dir / "results.csv").read_text(encoding="utf-8"))))
    assert [(r["cell"], r["verdict"], r["lost"], r["acked"], r["effective.broker.lose"]) for r in rows] == [
        ("001", "lost-as-documented", "3", "10", "3"),
        ("002", "kept", "0", "10", "0"),
    ]
    assert "np." not in (run_dir / "results.csv").read_text(encoding="utf-8")
    stored = json.loads((run_dir / "cells" / "001" / "verdict.json").read_text(encoding="utf-8"))
    assert (stored["verdict"], stored["row"]["lost"]) == ("lost-as-documented", 3)
    assert {finding["check"]: finding["count"] for finding in stored["findings"]}["loss"] == 3
    assert not (run_dir / "cells" / "003" / "verdict.json").exists()


def test_render_merges_shards_in_the_order_of_the_plan(tmp_path: Path) -> None:
    shards = [make_run(tmp_path, "one", ["001", "003"]), make_run(tmp_path, "two", ["002"])]
    make_cell(shards[0], "001")
    make_cell(shards[0], "003", profile="weak", fault="kill:all", lost=1)
    make_cell(shards[1], "002", fault="kill:all", survives=["none", "kill:all"])
    report = render([*shards, shards[0]], tmp_path / "merged")
    assert [(r["run"], r["cell"]) for r in report.rows] == [("one", "001"), ("two", "002"), ("one", "003")]
    assert report.exit_code == 0
    assert (tmp_path / "merged" / "report.md").is_file()


def test_a_damaged_cell_is_unknown_and_takes_no_other_along(tmp_path: Path) -> None:
    run_dir = make_run(tmp_path, "r")
    make_cell(run_dir, "001")
    (make_cell(run_dir, "002") / "cell.json").write_text("{ torn", encoding="utf-8")
    sends = make_cell(run_dir, "003") / "ledger" / "sends.0" / "outcome.npy"
    sends.write_bytes(sends.read_bytes()[:100])
    report = render([run_dir], run_dir)
    assert [r["verdict"] for r in report.rows] == ["kept", "unknown", "unknown"]
    assert "cell.json" in str(report.rows[1]["reason"])
    assert "outcome.npy" in str(report.rows[2]["reason"])
    assert "?/?" in (run_dir / "report.md").read_text(encoding="utf-8")


def test_check_tells_what_differs_from_the_stored_verdict_once(tmp_path: Path) -> None:
    run_dir = make_run(tmp_path, "r")
    folder = make_cell(run_dir, "001", profile="weak", fault="kill:all", lost=3)
    assert check([run_dir]).differences == ()
    stored = json.loads((folder / "verdict.json").read_text(encoding="utf-8"))
    stored["verdict"], stored["row"]["lost"] = "kept", 0
    (folder / "verdict.json").write_text(json.dumps(stored), encoding="utf-8")
    checked = check([folder])
    assert checked.differences == ("001: verdict: kept → lost-as-documented", "001: lost: 0 → 3")
    assert (checked.cells, checked.exit_code) == (1, 0)
    assert check([run_dir]).differences == ()


def test_what_is_no_run_is_refused_with_a_hint(tmp_path: Path) -> None:
    make_run(tmp_path, "20260102-x")
    with pytest.raises(UsageError, match=r"not the folder of a run .* it holds runs, name one: 20260102-x$"):
        render([tmp_path], tmp_path)
    with pytest.raises(UsageError, match="no such folder"):
        check([tmp_path / "absent"])


def test_a_report_that_cannot_be_written_names_the_file(tmp_path: Path) -> None:
    run_dir = make_run(tmp_path, "r")
    (tmp_path / "file").write_text("")
    with pytest.raises(MqtestError, match=r"results\.csv: "):
        render([run_dir], tmp_path / "file")


# --- replays


def replayed(cell_id: str, **columns: object) -> JudgedCell:
    return judged(cell_id, {"replay": {"keys": 3}}, profile="kafka/acks-all", fault="none", **columns)


def test_replays_have_a_section_with_a_row_a_profile_and_fault() -> None:
    figures_of = {
        "replay_missing": 0, "replay_doubled": 500, "replay_reordered": 0, "replay_differs": 0, "replay_gone": 0,
        "amount_lost": 0, "amount_doubled": 2_500_050, "table_lost": 0, "table_doubled": 1250,
        "catch_up_s": 4.5, "catch_up_per_s": 21000.0, "catch_up_live_per_s": 1000.0, "latency_ms_p99": 8.0,
        "replay_latency_ms_p99": 21.5, "switch_gap_s": 0.04,
    }  # fmt: skip
    other = figures_of | {"replay_doubled": 0, "amount_doubled": 0, "table_doubled": 0, "switch_gap_s": 0.08}
    third = figures_of | {"replay_doubled": 0, "amount_doubled": 0, "table_doubled": 0}
    text = replays_text([replayed("1", **figures_of), replayed("2", **other), replayed("3", **third)])
    assert text.startswith("## Replay of history\n")
    (line,) = [line for line in text.splitlines() if line.startswith("| none |")]
    assert line == (
        "| none | kafka/acks-all | kept | 0 | 0 (500) | 0 | 0 | 0 | 0 / 0 (25,000.50) | 0 / 0 (12.50) | 4.50 "
        "| 21,000 / 1,000 | 8.0 / 21.5 | 0.04 (0.08) |"
    )


def test_the_answer_says_what_is_not_in_the_replay() -> None:
    cell = replayed("1", lost=0, acked=20_000, replay_missing=19_000, audit_complete=True)
    text = markdown_text(collected(replace(cell, verdict=Verdict.LOST_AS_DOCUMENTED)), "0")
    assert "lost 0 of 20,000 acked, and up to 19,000 are not in the replay" in text


def test_what_a_replay_did_not_measure_is_a_dash_and_other_cells_are_in_no_section() -> None:
    (line,) = [line for line in replays_text([replayed("1")]).splitlines() if line.startswith("| none |")]
    assert line == "| none | kafka/acks-all | kept |" + " – |" * 11
    assert replays_text([judged("1")]) == ""
