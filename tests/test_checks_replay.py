"""The checks of a replay, on literal rows: each finding planted and counted, and none where none is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mqtest import jobs
from mqtest.checks.amounts import amounts
from mqtest.checks.dashboard import dashboard
from mqtest.checks.output import output
from mqtest.checks.replay import replay
from mqtest.checks.speed import latency
from mqtest.checks.switch import switch
from mqtest.job_ledger import write_totals
from mqtest.jobs import NEW, OLD
from mqtest.judge import judge
from mqtest.model import Flag, Kind, Outcome, Output, Verdict
from tests.histories import PROMISE, Got, Sent, at, told, write_cell_folder

SENDS = [Sent(0), Sent(1), Sent(2), Sent(3, Outcome.UNKNOWN), Sent(4, Outcome.REFUSED), Sent(5, Outcome.UNKNOWN)]
AUDIT = [Got(n) for n in range(4)]
REPLAY = {"keys": 3, "window_s": 0.2}
STOPPED = {"t_ns": at(25), "event": "job", "job": OLD, "step": "stopped"}


def of(job: int, seqs: Iterable[int], first: int = 0, **more: Any) -> list[Got]:
    """Rows of that job, at one position after the other."""
    return [Got(seq, offset=first + n, actor=job, **more) for n, seq in enumerate(seqs)]


def read(job: int, seqs: Iterable[int], **more: Any) -> list[Got]:
    """Inputs that a job was handed, each at the position of its number."""
    return [Got(seq, actor=job, **more) for seq in seqs]


HANDED = [*read(OLD, range(4)), *read(NEW, range(4))]
OUTPUTS = [*of(OLD, range(4)), *of(NEW, range(4))]


def cell(tmp_path: Path, **more: Any) -> Path:
    given: dict[str, Any] = {
        "sends": SENDS,
        "audit": AUDIT,
        "handed": HANDED,
        "outputs": OUTPUTS,
        "events": [STOPPED],
    } | more
    return write_cell_folder(tmp_path, **{"output_readers": [True, True], "replay": REPLAY, **given})


def found(
    missing: int | None = 0, doubled: int | None = 0, late: int = 0, differs: int | None = 0, gone: int = 0
) -> Any:
    names = ("replay_missing", "replay_doubled", "replay_reordered", "replay_differs", "replay_gone")
    return dict(zip(names, (missing, doubled, late, differs, gone), strict=True))


OLDS, NEWS = of(OLD, range(4)), of(NEW, range(4))


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({}, found()),
        ({"outputs": [*OLDS, *of(NEW, [0, 2, 3])]}, found(missing=1, differs=1)),
        ({"outputs": [*OLDS, *of(NEW, [])], "handed": [*read(OLD, range(4)), *read(NEW, [0])]}, found(4, differs=4)),
        ({"outputs": [*OLDS, *of(NEW, [0, 1, 2, 3, 2, 3])]}, found(doubled=2)),
        # the reader of the output began anew: the same positions are the same outputs, others are not
        ({"outputs": [*OLDS, *NEWS, *of(NEW, range(4), epoch=1)]}, found()),
        ({"outputs": [*OLDS, *NEWS[:2], *of(NEW, [0, 1, 2, 3, 3], epoch=1)]}, found(doubled=1)),
        # stored twice in the log: two inputs, two outputs
        ({"audit": [*AUDIT, Got(1, offset=9)]}, found(missing=1)),
        ({"audit": [*AUDIT, Got(1, offset=9)], "outputs": [*OLDS, *of(NEW, [0, 1, 2, 3, 1])]}, found()),
        # in another order than the log's; handed again is no disorder, whether in one life or in the next
        ({"handed": [*read(OLD, range(4)), *read(NEW, [0, 2, 3, 1])]}, found(late=1)),
        ({"handed": [*read(OLD, range(4)), *read(NEW, [0, 1, 0, 1, 2, 3])]}, found()),
        ({"handed": [*read(OLD, range(4)), *read(NEW, [0, 1, 2]), *read(NEW, [1, 2, 3], epoch=1)]}, found()),
        # the old job had it, or could have had it, and not the new one
        ({"outputs": [*of(OLD, [0, 1, 3]), *NEWS]}, found(differs=1)),
        ({"outputs": [*of(OLD, [0, 1]), *NEWS], "handed": [*read(OLD, [0, 1]), *read(NEW, range(4))]}, found()),
        # the head of the log was deleted under the reader
        ({"audit": AUDIT[2:], "handed": [*read(OLD, range(4)), *read(NEW, [2, 3])]}, found(gone=2)),
        ({"audit": AUDIT[2:], "handed": [*read(OLD, [2, 3]), *read(NEW, [2, 3])]}, found()),
        ({"complete": False, "audit": [], "handed": [*read(OLD, range(4)), *read(NEW, [3])]},
         found(None, None, 0, None, 3)),
        ({"output_readers": [True, False]}, found(None, None, 0, None)),
        ({"output_readers": [False, True]}, found(0, 0, 0, None)),
        ({"output_readers": [True]}, found(None, None, 0, None)),
    ],
)  # fmt: skip
def test_what_the_new_job_made_of_the_history(tmp_path: Path, more: Mapping[str, Any], expected: Any) -> None:
    folder = cell(tmp_path, **more)
    assert told(replay, folder).numbers == expected


@pytest.mark.parametrize(("new", "missing", "doubled"), [([0, 1, 2, 3], 0, 0), ([3], 3, 0), ([3, 3], 3, 1), ([], 4, 0)])
def test_a_queue_gives_the_new_job_what_nobody_has_consumed(
    tmp_path: Path, new: Sequence[int], missing: int, doubled: int
) -> None:
    handed = [*read(OLD, range(4)), *read(NEW, new)]
    shown = [*of(OLD, range(4)), *of(NEW, new)]
    folder = cell(tmp_path, kind=Kind.QUEUE, audit=[], handed=handed or [], outputs=[], shown=shown)
    numbers = told(replay, folder).numbers
    if new:
        assert (numbers["replay_missing"], numbers["replay_doubled"]) == (missing, doubled)
        assert (numbers["replay_reordered"], numbers["replay_gone"]) == (None, None)
    else:
        assert set(numbers.values()) == {None}, "there was no new job"
    assert told(output, folder).numbers["output_lost"] is None
    assert judge(folder).row["lost"] == 0


def test_a_flagged_redelivery_is_no_second_output(tmp_path: Path) -> None:
    shown = [*of(OLD, range(4)), *of(NEW, range(4)), *of(NEW, [2], 9, flags=Flag.REDELIVERED)]
    folder = cell(tmp_path, kind=Kind.QUEUE, audit=[], outputs=[], shown=shown)
    assert told(replay, folder).numbers["replay_doubled"] == 0


def test_without_a_replay_nothing_is_measured(tmp_path: Path) -> None:
    folder = write_cell_folder(tmp_path, sends=SENDS, audit=AUDIT, outputs=AUDIT)
    for check in (replay, amounts, switch):
        assert set(told(check, folder).numbers.values()) == {None}


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({}, (0, 0)),
        ({"outputs": [*of(OLD, [0, 2, 3]), *NEWS]}, (1, 0)),
        ({"outputs": [*of(OLD, [0, 1, 1, 2, 3]), *NEWS]}, (0, 1)),
        # what came after it had stopped is none of its inputs; nor are outputs of the other job its own
        ({"outputs": [*of(OLD, [0, 1]), *NEWS], "handed": [*read(OLD, [0, 1]), *read(NEW, range(4))]}, (0, 0)),
        ({"outputs": [*of(OLD, [0, 1]), *NEWS], "events": []}, (2, 0)),
    ],
)
def test_the_outputs_of_the_old_job_are_judged_up_to_where_it_stopped(
    tmp_path: Path, more: Mapping[str, Any], expected: Any
) -> None:
    numbers = told(output, cell(tmp_path, **more)).numbers
    assert (numbers["output_lost"], numbers["output_doubled"]) == expected


# --- amounts


def due(seqs: Iterable[int]) -> dict[tuple[int, int, int], tuple[int, int]]:
    """What these messages come to: due at seq/10 s, in windows of 0.2 s."""
    rows: dict[tuple[int, int, int], tuple[int, int]] = {}
    for seq in seqs:
        key, amount = jobs.key_and_amount(0, seq, REPLAY["keys"])  # type: ignore[arg-type]
        name = 0, key, at(seq / 10) // jobs.window_ns(REPLAY["window_s"])
        before = rows.get(name, (0, 0))
        rows[name] = before[0] + 1, before[1] + amount
    return rows


def numbers_of(tmp_path: Path, rows: Mapping[tuple[int, int, int], tuple[int, int]], **more: Any) -> Mapping[str, Any]:
    folder = cell(tmp_path, **more)
    write_totals(folder / "ledger" / f"totals.{NEW}", rows)
    return told(amounts, folder).numbers


def amount(seq: int) -> int:
    return jobs.key_and_amount(0, seq, 3)[1]


@pytest.mark.parametrize(
    ("counted", "expected"),
    [
        ([0, 1, 2, 3], (0, 0, 0)),
        ([0, 1, 3], (amount(2), 0, 1)),
        ([0, 1, 2, 3, 3], (0, amount(3), 1)),
        ([0, 2, 2, 3], (amount(1), amount(2), 2)),
        ([0, 1, 2, 3, 5], (0, amount(5), 1)),
        ([], (sum(map(amount, range(4))), 0, len(due(range(4))))),
    ],
)
def test_amounts_by_key_and_window(tmp_path: Path, counted: Sequence[int], expected: Any) -> None:
    numbers = numbers_of(tmp_path, due(counted))
    assert (numbers["amount_lost"], numbers["amount_doubled"], numbers["totals_wrong"]) == expected
    assert numbers["amount_due"] == sum(map(amount, range(4)))


@pytest.mark.parametrize(
    ("counted", "expected"),
    [
        ([0, 1, 2, 3], (0, 0, 0)),
        ([0, 1, 3], (amount(2), 0, 1)),
        ([0, 1, 2, 3, 3], (0, amount(3), 1)),
        ([0, 2, 2, 3], (amount(1), amount(2), 2)),
    ],
)
def test_what_a_dashboard_shows(tmp_path: Path, counted: Sequence[int], expected: Any) -> None:
    """The job's own totals are right; what counts is what the table answers."""
    folder = cell(tmp_path)
    write_totals(folder / "ledger" / f"totals.{NEW}", due(range(4)))
    write_totals(folder / "ledger" / f"table.{NEW}", due(counted))
    names = ("table_lost", "table_doubled", "table_wrong")
    assert told(dashboard, folder).numbers == dict(zip(names, expected, strict=True))
    assert told(amounts, folder).numbers["totals_wrong"] == 0


@pytest.mark.parametrize("more", [{"complete": False}, {"output_readers": [True, False]}])
def test_a_dashboard_without_a_whole_read_shows_nothing(tmp_path: Path, more: Mapping[str, Any]) -> None:
    folder = cell(tmp_path, **more)
    write_totals(folder / "ledger" / f"table.{NEW}", due(range(4)))
    assert set(told(dashboard, folder).numbers.values()) == {None}


def test_without_a_table_there_is_no_dashboard(tmp_path: Path) -> None:
    assert set(told(dashboard, cell(tmp_path)).numbers.values()) == {None}


def test_a_right_amount_of_the_wrong_number_of_messages_is_wrong(tmp_path: Path) -> None:
    rows = due(range(4))
    name = next(iter(rows))
    numbers = numbers_of(tmp_path, rows | {name: (rows[name][0] + 1, rows[name][1])})
    assert (numbers["amount_lost"], numbers["amount_doubled"], numbers["totals_wrong"]) == (0, 0, 1)


@pytest.mark.parametrize("more", [{"complete": False}, {"output_readers": [True, False]}])
def test_what_was_not_read_whole_comes_to_nothing(tmp_path: Path, more: Mapping[str, Any]) -> None:
    assert set(numbers_of(tmp_path, due(range(4)), **more).values()) == {None}


def test_a_message_that_is_there_twice_counts_twice(tmp_path: Path) -> None:
    assert numbers_of(tmp_path, due([0, 1, 1, 2, 3]), audit=[*AUDIT, Got(1, offset=9)])["totals_wrong"] == 0


def test_of_a_queue_the_messages_with_an_output_are_summed(tmp_path: Path) -> None:
    handed = [*read(OLD, range(4)), *read(NEW, [3])]
    shown = [*of(OLD, range(4)), *of(NEW, [3])]
    folder = cell(tmp_path, kind=Kind.QUEUE, audit=[], handed=handed, outputs=[], shown=shown)
    assert told(amounts, folder).numbers["amount_lost"] == sum(map(amount, range(3)))


def test_one_by_one_and_by_array_a_message_has_the_same_key_and_amount() -> None:
    seqs = np.array([0, 1, 7, 10**7, 2**32 - 1])
    for producer in (0, 3):
        key, value = jobs.keys_and_amounts(producer, seqs, 100)
        one_by_one = [jobs.key_and_amount(producer, int(seq), 100) for seq in seqs]
        assert list(zip(key.tolist(), value.tolist(), strict=True)) == one_by_one
    assert {jobs.key_and_amount(0, seq, 5)[0] for seq in range(200)} == set(range(5))


def test_an_output_says_its_row_and_a_table_keeps_the_last() -> None:
    rows = [jobs.Row(1, 2, 3, 4, 500, 60), jobs.Row(1, 2, 3, 5, 700, 61), jobs.Row(0, 2, 3, 1, 9, 5)]
    table = jobs.Table(run=7)
    for seq, row in enumerate(rows):
        text = jobs.encode(7, 0, seq, row)
        assert jobs.decode(text) == row
        assert table.take(text) is not None
    assert table.take(jobs.encode(8, 0, 9, rows[0])) is None, "of another run"
    assert table.rows == {(1, 2, 3): (5, 700), (0, 2, 3): (1, 9)}
    assert table.seen == {1: 61, 0: 5}


# --- by the clock


def job(step: str, at_s: float, number: int = NEW) -> Mapping[str, Any]:
    return {"t_ns": at(at_s), "event": "job", "job": number, "step": step}


SWITCHED = [
    job("started", 10),
    job("caught up", 14),
    {"t_ns": at(20), "event": "switch", "old": OLD, "new": NEW},
    job("stopped", 20.5, OLD),
]
SHOWN = [
    *(Got(seq, actor=OLD, received_s=19 + seq / 10) for seq in range(3)),
    *(Got(seq, actor=NEW, received_s=19.5 + seq / 10) for seq in range(2)),
]


def test_catching_up_and_the_switch(tmp_path: Path) -> None:
    handed = [*read(OLD, range(4)), *(Got(seq, actor=NEW, received_s=10.5 + seq) for seq in range(4))]
    sends = [Sent(seq, settled_s=9 + seq) for seq in range(4)]
    shown = [*SHOWN, Got(2, actor=NEW, received_s=20.3), Got(3, actor=NEW, received_s=20.7)]
    folder = cell(tmp_path, sends=sends, handed=handed, events=SWITCHED, shown=shown)
    assert told(switch, folder).numbers == {
        "catch_up_s": 4.0,
        "catch_up_per_s": 1.0,
        "catch_up_live_per_s": 0.8,
        "switch_s": 0.5,
        "switch_gap_s": 1.5,  # message 2 was shown at 19.2 by the old one: nothing is newer before message 3
        "switch_behind_s": 0.1,
        "replay_at_fault": None,
    }


def test_how_much_had_been_replayed_when_the_fault_came(tmp_path: Path) -> None:
    handed = [*read(OLD, range(4)), *(Got(seq, actor=NEW, received_s=8.5 + seq) for seq in range(4))]
    started = {**job("started", 8), "behind": 4}
    folder = cell(tmp_path, handed=handed, events=[started], fault="kill:leader")  # injected at 10.1
    assert told(switch, folder).numbers["replay_at_fault"] == 0.5


def test_without_anything_fresh_after_the_switch_there_is_no_end_of_the_gap(tmp_path: Path) -> None:
    shown = [*SHOWN, Got(2, actor=NEW, received_s=20.3)]
    assert told(switch, cell(tmp_path, events=SWITCHED, shown=shown)).numbers["switch_gap_s"] is None


def test_a_new_job_that_stays_behind_has_no_switch(tmp_path: Path) -> None:
    numbers = told(switch, cell(tmp_path, events=[job("started", 10), job("behind", 20)], shown=SHOWN)).numbers
    assert set(numbers.values()) == {None}


def test_latency_beside_the_replay_has_a_phase_of_its_own(tmp_path: Path) -> None:
    sends = [Sent(n, due_s=3 + n / 100, settled_s=3 + n / 100 + 0.01) for n in range(100)]
    sends += [Sent(100 + n, due_s=11 + n / 100, settled_s=11 + n / 100 + 0.05) for n in range(100)]
    events = [
        {"t_ns": at(10.5), "event": "phase", "name": "replay"},
        {"t_ns": at(13), "event": "phase", "name": "beside"},
    ]
    folder = cell(tmp_path, sends=sends, audit=[Got(n) for n in range(200)], outputs=[], handed=[], events=events)
    lines = (folder / "ledger" / "events.jsonl").read_text().splitlines()
    lines.sort(key=lambda line: int(line.split()[1].rstrip(",")))
    (folder / "ledger" / "events.jsonl").write_text("".join(line + "\n" for line in lines))
    numbers = told(latency, folder).numbers
    assert (numbers["latency_ms_p99"], numbers["replay_latency_ms_p99"]) == (10.0, 50.0)


# --- the verdict


@pytest.mark.parametrize(
    ("promised", "new", "expected"),
    [
        (Output.EXACTLY_ONCE, range(4), Verdict.KEPT),
        (Output.EXACTLY_ONCE, [0, 2, 3], Verdict.BROKEN),
        (Output.EXACTLY_ONCE, [0, 1, 1, 2, 3], Verdict.BROKEN),
        (Output.AT_LEAST_ONCE, [0, 2, 3], Verdict.BROKEN),
        (Output.AT_LEAST_ONCE, [0, 1, 1, 2, 3], Verdict.KEPT),
        (Output.NONE, [0, 2, 3], Verdict.LOST_AS_DOCUMENTED),
        (Output.NONE, [0, 1, 1, 2, 3], Verdict.KEPT),
    ],
)
def test_the_verdict_of_a_replay(tmp_path: Path, promised: Output, new: Sequence[int], expected: Verdict) -> None:
    folder = cell(tmp_path, outputs=[*OLDS, *of(NEW, new)], promise={**PROMISE, "output": promised})
    write_totals(folder / "ledger" / f"totals.{NEW}", due(range(4)))
    assert judge(folder).verdict is expected


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"output_readers": [True, False]}, "the new job: not complete"),
        ({"output_readers": [False, True]}, "the old job: not complete"),
        (
            {"events": [{"t_ns": at(34), "event": "transformed", "complete": False, "why": "waited 60 s"}]},
            "the new job: waited 60 s",
        ),
    ],
)
def test_a_result_that_is_not_whole_is_unknown_and_not_broken(
    tmp_path: Path, more: Mapping[str, Any], why: str
) -> None:
    judged = judge(cell(tmp_path, promise={**PROMISE, "output": Output.AT_LEAST_ONCE}, **more))
    assert (judged.verdict, judged.reason) == (Verdict.UNKNOWN, f"the audit is not complete: {why}")
    assert judged.row["audit_complete"] is True, "that of the history is"


@pytest.mark.parametrize(
    ("promised", "counted", "expected"),
    [
        (Output.EXACTLY_ONCE, [0, 1, 2, 3, 3], Verdict.BROKEN),
        (Output.AT_LEAST_ONCE, [0, 1, 2, 3, 3], Verdict.KEPT),
        (Output.AT_LEAST_ONCE, [0, 1, 2], Verdict.BROKEN),
    ],
)
def test_the_verdict_on_amounts(tmp_path: Path, promised: Output, counted: Sequence[int], expected: Verdict) -> None:
    folder = cell(tmp_path, promise={**PROMISE, "output": promised})
    write_totals(folder / "ledger" / f"totals.{NEW}", due(counted))
    assert judge(folder).verdict is expected


def test_a_replay_out_of_order_breaks_a_promise_of_order(tmp_path: Path) -> None:
    folder = cell(tmp_path, handed=[*read(OLD, range(4)), *read(NEW, [0, 2, 1, 3])])
    write_totals(folder / "ledger" / f"totals.{NEW}", due(range(4)))
    judged = judge(folder)
    assert (judged.verdict, judged.reason) == (Verdict.BROKEN, "1 replay reordered under none")
