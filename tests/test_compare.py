"""Two sides of literal rows → what is worse, differs, cannot be compared, is better; each in both directions. And the
command, from folders and files to exit codes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from mqtest.cli import main
from mqtest.errors import UsageError
from mqtest.judge import COLUMNS
from mqtest.report import compare as comparing
from mqtest.report import render
from mqtest.report.compare import Comparison, Side, Weight, compare
from mqtest.report.compare_figures import FEWEST, apart, moves
from mqtest.report.compare_text import json_text, markdown_text, plain_text, summary
from mqtest.report.summary import Row
from tests.run_dirs import make_cell, make_run

HOST = {"host.cpu": "a", "host.cores": "2", "host.memory_gb": "24.7"}
CLEAN = {
    "acked": 100, "lost": 0, "stored_twice": 0, "redelivered": 0, "reordered_in_session": 0, "foreign": 0, "corrupt": 0,
    "phantom": 0, "offset_divergence": 0, "skipped_by_consumer": 0,
}  # fmt: skip
WORSE, DIFFERS, NOT_COMPARED, BETTER, NOTE = Weight


def row(verdict: str = "kept", profile: str = "acks-all", fault: str = "kill:all", **columns: object) -> Row:
    known = {"broker": "kafka", "profile": profile, "fault": fault, "verdict": verdict, "reason": "", "seed": 7}
    return dict.fromkeys(COLUMNS) | CLEAN | HOST | known | columns


def broken(column: str, value: int, **columns: object) -> Row:
    return row("broken", reason=f"{value} {column.replace('_', ' ')} under kill:all", **{column: value}, **columns)


def side(*rows: Row) -> Side:
    return Side(name="x", rows=rows)


def held(old: Sequence[Row], new: Sequence[Row], **how: bool) -> Comparison:
    return compare(side(*old), side(*new), **how)


def said(comparison: Comparison) -> list[tuple[Weight, str]]:
    return [(change.weight, change.line) for change in comparison.changes]


WHERE = "kafka/acks-all under kill:all: "

# --- verdicts and anomalies


def test_two_runs_alike_say_nothing() -> None:
    both = [row(), row("lost-as-documented", "acks-1", lost=5), broken("stored_twice", 2, profile="p")]
    assert said(held(both, both)) == []
    assert held(both, both).exit_code == 0
    assert held(both, both).compared == 3


@pytest.mark.parametrize(
    ("before", "after"),
    [("kept", "lost-as-documented"), ("kept", "dead"), ("lost-as-documented", "dead"), ("dead", "broken")],
)
def test_a_verdict_that_got_worse_and_one_that_got_better(before: str, after: str) -> None:
    worse = held([row(before)], [row(after, reason="why")])
    assert said(worse) == [(WORSE, f"{WHERE}verdict {before} → {after} (why)")]
    assert worse.exit_code == 1
    better = held([row(after)], [row(before, reason="why")])
    assert said(better) == [(BETTER, f"{WHERE}verdict {after} → {before} (why)")]
    assert better.exit_code == 0


def test_of_several_repeats_the_worst_counts() -> None:
    mixed, kept = [row(), row("dead"), row()], [row(), row(), row()]
    assert said(held(mixed, [*mixed, row("dead")])) == []
    assert said(held(kept, mixed)) == [
        (WORSE, f"{WHERE}verdict kept ×3 → dead ×1, kept ×2 (no reason given)")
    ]
    assert held(mixed, kept).exit_code == 0


def test_a_new_anomaly_that_breaks_the_promise_is_worse_even_where_the_verdict_was_bad_already() -> None:
    old, new = [broken("stored_twice", 2)] * 3, [broken("stored_twice", 2), broken("foreign", 1, stored_twice=3)]
    worse = held(old, new)
    assert said(worse) == [
        (WORSE, f"{WHERE}new anomaly: foreign in 1 of 2 cells (most 1), in none of 3 before; it breaks the promise")
    ]
    assert worse.exit_code == 1
    assert said(held(new, old)) == [
        (BETTER, f"{WHERE}foreign: in 1 of 2 cells before, in none of 3 now"),
    ]


def test_one_more_of_what_was_there_before_is_no_new_anomaly() -> None:
    assert said(held([broken("lost", 1)], [broken("lost", 9000)])) == []


def test_what_the_promise_allows_is_told_and_what_nobody_promised_is_worse() -> None:
    allowed = held([row()], [row(redelivered=4, reordered_in_session=1)])
    assert {change.weight for change in allowed.changes} == {NOTE}
    assert [change.column for change in allowed.changes] == ["redelivered", "reordered_in_session"]
    assert allowed.exit_code == 0
    for column in ("lost", "skipped_by_consumer"):
        worse = held([row()], [row(**{column: 3})])
        assert [(c.weight, c.column) for c in worse.changes] == [(WORSE, column)]
        assert worse.changes[0].what.endswith("in none of 1 before; nothing was promised about it")
    counted = held([row(lost_degraded=0, unaccounted=0)], [row(lost_degraded=2, unaccounted=-3)])
    assert [change.weight for change in counted.changes] == [NOTE, NOTE]
    assert "(most 3), in none of 1 before; no promise is about it" in counted.changes[1].what


def test_what_was_not_looked_for_before_is_told_and_is_worse_only_where_it_breaks_the_promise() -> None:
    unseen = row(skipped_by_consumer=None, stored_twice=None)
    told = held([unseen], [row(skipped_by_consumer=3)])
    assert [(c.weight, "not looked for before" in c.what) for c in told.changes] == [(NOTE, True)]
    worse = held([unseen], [broken("stored_twice", 3)])
    assert [c.column for c in worse.of(WORSE)] == ["verdict", "stored_twice"]


# --- what proves nothing, and what is missing


@pytest.mark.parametrize("blind", ["unknown", "invalid"])
def test_cells_that_prove_nothing_are_told_and_are_neither_worse_nor_better(blind: str) -> None:
    some = held([row(), row()], [row(), row(blind, reason="no fence")])
    assert said(some) == [(NOTE, f"{WHERE}1 of 2 cells prove nothing (no fence)")]
    assert some.exit_code == 0
    none = held([row("broken", reason="x")], [row(blind, reason="no fence")])
    assert said(none) == [(NOT_COMPARED, f"{WHERE}1 of 1 cells prove nothing (no fence)")]
    assert none.exit_code == 2


def test_an_anomaly_in_a_cell_that_proves_nothing_is_not_hidden() -> None:
    told = held([row(), row()], [row(), row("invalid", lost=2, reason="no bite")])
    assert (NOTE, f"{WHERE}new anomaly: lost in 1 of 2 cells (most 2), in none of 2 before; in a cell that proves "
            "nothing") in said(told)  # fmt: skip
    assert told.exit_code == 0


def test_a_baseline_that_proves_nothing_holds_nothing_against_a_run() -> None:
    blind = row("unknown", reason="no fence")
    fine = held([blind, row(profile="p")], [row(), row(profile="p")])
    assert said(fine) == [(NOTE, f"{WHERE}nothing was proven before: kept")]
    assert fine.exit_code == 0
    bad = held([blind, row(profile="p")], [broken("lost", 5), row(profile="p")])
    assert said(bad) == [(NOT_COMPARED, f"{WHERE}nothing was proven before: broken (5 lost under kill:all)")]
    assert bad.exit_code == 2


def test_what_was_proven_before_and_is_missing_now_cannot_be_compared() -> None:
    old = [row(), row(fault="none"), row(), row(profile="gone"), row("broken", "bad", reason="x"), row("unknown", "u")]
    some = held(old, [row()])
    assert said(some) == [
        (NOT_COMPARED, "kafka/gone under kill:all: only in OLD: kept"),
        (NOT_COMPARED, "kafka/bad under kill:all: only in OLD: broken"),
        (NOT_COMPARED, "kafka/acks-all without a fault: only in OLD: kept"),
        (NOTE, "only in OLD, and nothing was proven: kafka/u under kill:all"),
    ]
    assert some.exit_code == 2
    assert held(old, [row("dead")]).exit_code == 1, "what is worse outweighs it"
    assert held([row(), row("invalid", "u")], [row()]).exit_code == 0, "nobody misses what proved nothing"
    assert held(old, old).exit_code == 0
    assert "kafka/p under kill:all: only in OLD: kept ×2" in plain_text(held([row(), *[row(profile="p")] * 2], [row()]))


def test_what_is_only_in_the_new_one_is_told() -> None:
    only = held([row()], [row(), row(profile="new"), row("unknown", "blind")])
    assert said(only) == [(NOTE, "only in NEW: kafka/new under kill:all, kafka/blind under kill:all")]
    assert only.exit_code == 0
    bad = held([row()], [row(), broken("lost", 1, profile="new")])
    assert said(bad)[0] == (NOT_COMPARED, "kafka/new under kill:all: only in NEW: broken (1 lost under kill:all)")
    assert bad.exit_code == 2


def test_nothing_in_common_and_a_cell_that_did_not_finish_cannot_be_compared() -> None:
    apart = held([row()], [row(profile="other")])
    assert (NOT_COMPARED, "the two have no profile and fault in common") in said(apart)
    assert apart.exit_code == 2
    unfinished = compare(side(row()), Side(name="y", rows=(row(),), unfinished=("007-x",)))
    assert said(unfinished) == [(NOT_COMPARED, "007-x was planned, and did not finish")]
    assert unfinished.exit_code == 2
    assert held([row("invalid")], [row("invalid")]).exit_code == 2, "nothing proves anything"


def test_worse_outweighs_what_could_not_be_compared() -> None:
    both = held([row(), row(profile="p")], [row("dead"), row("unknown", "p")])
    assert [change.weight for change in both.changes] == [WORSE, NOT_COMPARED]
    assert both.exit_code == 1


# --- a part on purpose


def cell_of(number: int, profile: str, fault: str, repeat: int) -> Row:
    name = f"{number:03d}-kafka-{profile}-{fault.replace(':', '-')}-{repeat}"
    return row(profile=profile, fault=fault, cell=name)


WHOLE = [cell_of(1, "a", "none", 1), cell_of(2, "a", "kill:all", 1), cell_of(3, "b", "none", 1)]


@pytest.mark.parametrize(
    ("globs", "left"),
    [
        (["kafka/a"], WHOLE[:2]),
        (["*/none"], [WHOLE[0], WHOLE[2]]),
        (["kafka/a/kill:*", "kafka/b/*"], WHOLE[1:]),
        (["*-kafka-b-none-1"], WHOLE[2:]),
        (["*"], WHOLE),
    ],
)
def test_only_takes_the_cells_of_both_that_a_run_would_take(globs: Sequence[str], left: Sequence[Row]) -> None:
    for old, new in ((WHOLE, left), (left, WHOLE), (WHOLE, WHOLE)):
        sides = comparing.narrowed(side(*old), side(*new), globs)
        assert [list(one.rows) for one in sides] == [left, left]
        assert compare(*sides).exit_code == 0
    if left != WHOLE:
        assert compare(side(*WHOLE), side(*left)).exit_code == 2


def test_only_hides_nothing_of_what_it_takes() -> None:
    missing = compare(*comparing.narrowed(side(*WHOLE), side(WHOLE[0]), ["kafka/a"]))
    assert said(missing) == [(NOT_COMPARED, "kafka/a under kill:all: only in OLD: kept")]
    with pytest.raises(UsageError, match=r"--only kafka/c \*/stop:all: no cell of OLD or NEW matches"):
        comparing.narrowed(side(*WHOLE), side(*WHOLE), ["kafka/c", "*/stop:all"])


def test_only_takes_unfinished_cells_and_leaves_those_that_are_known_to_be_others() -> None:
    """They have an id and no more; a repeat of them that finished, on either side, tells whose they are."""
    ids = ("007-kafka-a-none-2", "008-kafka-b-none-2", "009-nobody-knows-1")
    new = Side(name="y", rows=(WHOLE[0],), unfinished=ids)
    left = {
        glob: comparing.narrowed(side(*WHOLE), new, [glob])[1].unfinished
        for glob in ("kafka/a", "kafka/b", "*-none-2", "*-none-1")
    }
    assert left == {
        "kafka/a": (ids[0], ids[2]),
        "kafka/b": (ids[1], ids[2]),
        "*-none-2": ids,
        "*-none-1": (ids[2],),
    }


# --- versions and settings


def test_versions_and_settings_that_differ_are_a_line_each_and_exit_1() -> None:
    old = {"versions.broker": "4.3.1", "settings.producer.acks": "1", "effective.topic.x": "1", "image.tag": "k:1"}
    new = {"versions.broker": "4.4.0", "effective.topic.x": "1", "image.tag": "k:2", "effective.topic.new": "9"}
    differing = held([row(**old), row(profile="p", **old)], [row(**new), row(profile="p", **new)])
    assert said(differing) == [
        (DIFFERS, "kafka/acks-all, kafka/p: versions.broker: 4.3.1 → 4.4.0"),
        (DIFFERS, "kafka/acks-all, kafka/p: settings.producer.acks: 1 → (nothing)"),
        (NOTE, "kafka/acks-all, kafka/p: image.tag: k:1 → k:2"),
    ]
    assert differing.exit_code == 1
    allowed = held([row(**old)], [row(**new)], allow_differences=True)
    assert {change.weight for change in allowed.changes} == {NOTE}
    assert allowed.exit_code == 0


def test_another_load_is_another_setting() -> None:
    differing = held([row(rate_asked_per_s=1000.0, nodes=3)], [row(rate_asked_per_s=500.0, nodes=3)])
    assert said(differing) == [(DIFFERS, "kafka/acks-all: rate_asked_per_s: 1000.0 → 500.0")]


# --- figures


def gaps(*seconds: float, **columns: object) -> list[Row]:
    return [row(ack_gap_s_max=s, **columns) for s in seconds]


def test_a_gap_beyond_the_noise_of_the_repeats_is_worse_or_better() -> None:
    short, long = gaps(4.8, 5.0, 5.3), gaps(11.9, 12.1, 12.5)
    words = "longest time without an acknowledgement, s: "
    worse = held(short, long)
    assert said(worse) == [
        (WORSE, f"{WHERE}{words}5.00 (4.80 to 5.30, n = 3) → 12.10 (11.90 to 12.50, n = 3)")
    ]
    assert worse.exit_code == 1
    assert said(held(long, short)) == [
        (BETTER, f"{WHERE}{words}12.10 (11.90 to 12.50, n = 3) → 5.00 (4.80 to 5.30, n = 3)")
    ]


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ((4.0, 5.0, 9.0), (9.5, 10.0, 11.0), "one lies near the other's worst"),
        ((4.0, 5.0, 6.0), (7.0, 8.0, 9.5), "no further apart than one of them is spread"),
        ((0.3, 0.3, 7.2), (7.2, 7.2, 7.2), "it was so once before"),
        ((10.0, 10.0, 10.0), (11.5, 11.5, 11.5), "less than a quarter"),
        ((0.1, 0.1, 0.1), (0.9, 0.9, 0.9), "less than a second"),
    ],
)
def test_a_gap_within_the_noise_is_none(old: Sequence[float], new: Sequence[float], why: str) -> None:
    assert said(held(gaps(*old), gaps(*new))) == [], why
    assert said(held(gaps(*new), gaps(*old))) == [], why


@pytest.mark.parametrize(("before", "after"), [(1, 1), (1, 3), (3, 1), (2, 2), (2, 5), (5, 2)])
def test_one_or_two_repeats_are_never_called_worse_but_a_large_move_is_told(before: int, after: int) -> None:
    large = held(gaps(*[5.0] * before), gaps(*[50.0] * after))
    assert [c.weight for c in large.changes] == [NOTE]
    assert large.changes[0].what.endswith("(may be noise: 3 repeats on both sides would tell)")
    assert large.exit_code == 0
    assert said(held(gaps(*[5.0] * before), gaps(*[7.0] * after))) == []


def test_p99_of_every_latency_but_that_of_the_fault_is_compared() -> None:
    names = ("latency_ms_p99", "delivery_latency_ms_p99", "load_50_latency_ms_p99", "fault_latency_ms_p99")
    old, new = ([row(**dict.fromkeys(names, ms)) for _ in range(3)] for ms in (4.0, 8.0))
    worse = held(old, new)
    assert [change.column for change in worse.of(WORSE)] == [name for name in COLUMNS if name in names[:3]]
    assert "p99 of the load 50 latency, ms: 4.0" in "".join(change.what for change in worse.changes)
    assert said(held(old, [row(**dict.fromkeys(names, 4.9)) for _ in range(3)])) == []


def test_figures_of_unlike_machines_and_of_other_drawn_faults_are_told() -> None:
    other = gaps(50, 50, 50, **{"host.cpu": "b"})
    told = held(gaps(5, 5, 5), other)
    assert [(c.weight, c.column) for c in told.changes] == [(NOTE, "ack_gap_s_max"), (NOTE, "host.cpu")]
    assert told.changes[0].what.endswith("(the machines are not alike)")
    assert held(gaps(5, 5, 5), gaps(50, 50, 50, **{"host.memory_gb": "24.6"})).exit_code == 1
    chaos, another = gaps(5, 5, 5, fault="chaos"), gaps(50, 50, 50, fault="chaos", seed=8)
    assert held(chaos, another).changes[0].what.endswith("(the schedules had other seeds)")
    assert held(chaos, gaps(50, 50, 50, fault="chaos")).exit_code == 1
    assert held(gaps(5, 5, 5), gaps(50, 50, 50, seed=8)).exit_code == 1, "kill:all is kill:all with any seed"


def test_cells_that_prove_nothing_are_in_no_figure() -> None:
    unmoved = held(gaps(5, 5, 5), [*gaps(5, 5, 5), row("invalid", ack_gap_s_max=500.0)])
    assert said(unmoved) == [(NOTE, f"{WHERE}1 of 4 cells prove nothing (no reason given)")]
    few = held(gaps(5, 5, 5), [*gaps(50, 50), row("invalid", ack_gap_s_max=50.0)])
    assert not few.of(WORSE)


@pytest.mark.parametrize("sigma", [0.05, 0.1, 0.3, 0.6, 1.0])
def test_how_often_noise_alone_is_called_a_move(sigma: float) -> None:
    """The module promises 4 in 1,000; of three repeats, so that it is a promise about the fewest."""
    draws = np.random.default_rng(5)

    def noise() -> list[Row]:
        return gaps(*10 * np.exp(sigma * draws.standard_normal(FEWEST)))

    called = sum(move.worse for _ in range(3000) for move in moves(noise(), noise(), by_name=False))
    assert called <= 18  # 12 are promised, and they scatter


def test_a_move_of_three_times_is_found_where_repeats_agree_to_a_tenth() -> None:
    draws = np.random.default_rng(5)
    pairs = [(10 * np.exp(0.1 * draws.standard_normal(3)), 30 * np.exp(0.1 * draws.standard_normal(3)))
             for _ in range(1000)]  # fmt: skip
    assert sum(apart(list(a), list(b)) for a, b in pairs) > 950


# --- the formats


def test_text_markdown_and_json() -> None:
    compared = held([row(), row(profile="p")], [row("dead", reason="<gone>"), row("unknown", "p", reason="x")])
    assert plain_text(compared) == (
        "worse         kafka/acks-all under kill:all: verdict kept → dead (<gone>)\n"
        "not compared  kafka/p under kill:all: 1 of 1 cells prove nothing (x)\n"
        "1 group compared: 1 worse, 1 not compared (OLD x, NEW x)\n"
    )
    assert markdown_text(compared) == (
        "# Something got worse, or differs\n\n1 group compared: 1 worse, 1 not compared (OLD x, NEW x)\n\n"
        "## Worse\n\n- kafka/acks-all under kill:all: verdict kept → dead (&lt;gone>)\n\n"
        "## Could not be compared\n\n- kafka/p under kill:all: 1 of 1 cells prove nothing (x)\n"
    )
    record = json.loads(json_text(compared))
    assert (record["exit_code"], record["compared"]) == (1, 1)
    assert [change["weight"] for change in record["changes"]] == ["worse", "not compared"]
    assert summary(held([row()], [row()])) == "1 group compared: nothing to tell (OLD x, NEW x)"


def test_markdown_stays_under_a_megabyte() -> None:
    old = [row(profile=f"p{n}") for n in range(900)]
    new = [row("dead", f"p{n}", reason="語" * 3000) for n in range(900)]
    text = markdown_text(held(old, new))
    assert 100_000 < len(text.encode()) < 1_000_000
    assert plain_text(held(old, new)).count("\nworse") == 899


# --- from folders and files


def run_of(results: Path, name: str, lost: int = 0, cells: Sequence[str] = ("001-a-1",)) -> Path:
    run_dir = make_run(results, name, cells)
    for cell in cells:
        make_cell(run_dir, cell, fault="kill:all", survives=["none", "kill:all"], lost=lost)
    return run_dir


def test_a_run_its_table_and_the_folder_of_its_table_are_the_same_side(tmp_path: Path) -> None:
    run_dir = run_of(tmp_path, "r", lost=2)
    render([run_dir], tmp_path / "apart")
    sides = [comparing.read([path]) for path in (run_dir, tmp_path / "apart", tmp_path / "apart" / "results.csv")]
    assert sides[0].rows == sides[1].rows == sides[2].rows
    assert sides[0].rows[0]["lost"] == 2
    assert [len(one.cells) for one in sides] == [1, 1, 0]
    assert said(compare(sides[1], sides[0])) == []
    with pytest.raises(UsageError, match="no such folder"):
        comparing.read([tmp_path / "absent"])
    with pytest.raises(UsageError, match=r"no results\.csv of mqtest"):
        comparing.read([run_dir / "run.json"])


def test_shards_are_one_side(tmp_path: Path) -> None:
    shards = [run_of(tmp_path, "one"), run_of(tmp_path, "two", cells=("002-a-2",))]
    assert [row["cell"] for row in comparing.read(shards).rows] == ["001-a-1", "002-a-2"]


def test_the_command_says_what_is_worse_how_to_do_it_again_and_keeps_its_ledger(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old, same, worse = run_of(tmp_path, "old"), run_of(tmp_path, "same"), run_of(tmp_path, "worse", lost=3)
    kept, summary_md = tmp_path / "kept", tmp_path / "out" / "summary.md"
    # mqtest compare results/OLD results/NEW
    assert main(["compare", str(old), str(same), "--ledgers", str(kept)]) == 0
    assert capsys.readouterr().out == f"1 group compared: nothing to tell (OLD {old}, NEW {same})\n"
    assert not kept.exists()

    words = ["compare", str(old), str(worse), "--format", "markdown", "--output", str(summary_md)]
    assert main([*words, "--ledgers", str(kept), "--allow-differences"]) == 1
    captured = capsys.readouterr()
    assert captured.out.startswith(
        "worse         memory/safe under kill:all: verdict kept → broken (3 lost under kill:all)\n"
    )
    assert "again: `mqtest run planted.toml --only '*-a-1' --seed 7`" in summary_md.read_text(encoding="utf-8")
    assert captured.err == f"{kept / 'worse' / '001-a-1'}\n"
    assert (kept / "worse" / "001-a-1" / "ledger" / "sends.0" / "outcome.npy").is_file()


def test_the_command_that_cannot_compare_exits_2_and_bad_usage_is_64(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old, new = run_of(tmp_path, "old"), make_run(tmp_path, "new", ["001-a-1"])
    assert main(["compare", str(old), str(new)]) == 2
    assert "001-a-1 was planned, and did not finish" in capsys.readouterr().out
    assert main(["compare", str(old), str(tmp_path / "absent")]) == 64
    assert main(["compare", str(old)]) == 64


def test_the_command_compares_a_part_on_purpose(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old, new = run_of(tmp_path, "old"), run_of(tmp_path, "new")
    make_cell(old, "002-b-1", profile="gone")
    make_cell(new, "003-c-1", profile="worse", fault="kill:all", survives=["kill:all"], lost=3)
    assert main(["compare", str(old), str(new)]) == 2
    assert "not compared  memory/gone without a fault: only in OLD: kept\n" in capsys.readouterr().out
    ledgers = ["--ledgers", str(tmp_path / "kept")]
    assert main(["compare", str(old), str(new), "--only", "*/kill:all", "--only", "memory/safe", *ledgers]) == 2
    assert main(["compare", str(old), str(new), "--only", "memory/safe", "--ledgers", str(tmp_path / "none")]) == 0
    assert capsys.readouterr().out.endswith(f"1 group compared: nothing to tell (OLD {old}, NEW {new})\n")
    assert [path.name for path in tmp_path.glob("[kn]*/new/*")] == ["003-c-1"]
    assert main(["compare", str(old), str(new), "--only", "kafka"]) == 64


def test_the_committed_reference_can_be_compared_with() -> None:
    reference = Path(__file__).resolve().parent.parent / "results" / "reference"
    again = compare(comparing.read([reference]), comparing.read([reference / "results.csv"]))
    assert (again.compared, again.changes, again.exit_code) == (63, (), 0)
