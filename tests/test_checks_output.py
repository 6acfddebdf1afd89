"""The check of pipelines, on literal rows: each finding planted and counted, and none where none is."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from mqtest.checks.output import output
from mqtest.judge import judge
from mqtest.model import Outcome, Output, Verdict
from tests.histories import CORRUPT, FOREIGN, PROMISE, Got, Sent, told, write_cell_folder

SENDS = [Sent(0), Sent(1), Sent(2), Sent(3, Outcome.UNKNOWN), Sent(4, Outcome.REFUSED), Sent(5, Outcome.UNKNOWN)]
AUDIT = [Got(0), Got(1), Got(2), Got(3)]
ONCE = [Got(0, offset=10), Got(1, offset=11), Got(2, offset=12), Got(3, offset=13)]


def numbers(tmp_path: Path, **cell: Any) -> Mapping[str, Any]:
    folder = write_cell_folder(tmp_path, **{"sends": SENDS, "audit": AUDIT, "handed": AUDIT, **cell})
    return told(output, folder).numbers


def counted(lost: int | None = 0, doubled: int | None = 0, phantom: int = 0, unread: int = 0, of_lost: int = 0) -> Any:
    found = {"output_lost": lost, "output_doubled": doubled, "output_phantom": phantom}
    return found if lost is None else found | {"output_unread": unread, "output_of_lost": of_lost}


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        ({"outputs": ONCE}, counted()),
        ({"outputs": [*ONCE, ONCE[0]]}, counted()),  # one position, read twice
        ({"outputs": ONCE[1:]}, counted(lost=1)),
        ({"outputs": ONCE[:1], "handed": AUDIT[:2]}, counted(lost=3, unread=2)),
        ({"outputs": [*ONCE, Got(1, offset=20), Got(1, offset=21), Got(2, offset=22)]}, counted(doubled=3)),
        # stored twice in the log: two inputs, two outputs
        ({"audit": [*AUDIT, Got(1, offset=9)], "outputs": [*ONCE, Got(1, offset=20)]}, counted()),
        ({"audit": [*AUDIT, Got(1, offset=9)], "outputs": ONCE}, counted(lost=1)),
        # gone from the log, and yet somebody acted on it, once or twice
        ({"audit": AUDIT[1:], "outputs": ONCE}, counted(of_lost=1)),
        ({"audit": AUDIT[1:], "outputs": [*ONCE, Got(0, offset=20)]}, counted(of_lost=1, doubled=1)),
        ({"outputs": [*ONCE, Got(5, offset=20)]}, counted(of_lost=1)),
        # refused (aborted), and yet somebody read it
        ({"outputs": [*ONCE, Got(4, offset=20), Got(4, offset=21)]}, counted(phantom=2)),
        ({"outputs": [*ONCE, CORRUPT, FOREIGN, Got(77)]}, counted(phantom=3)),
        ({"outputs": [], "complete": False}, counted(lost=None, doubled=None)),
        ({"outputs": [Got(4)], "complete": False}, counted(lost=None, doubled=None, phantom=1)),
        ({"outputs": ONCE, "output_readers": [True, True]}, counted()),
        ({"outputs": ONCE, "output_readers": [True, False]}, counted(lost=None, doubled=None)),
        ({"outputs": ONCE, "output_readers": []}, counted(lost=None, doubled=None)),
    ],
)
def test_what_transformers_wrote(tmp_path: Path, cell: Mapping[str, Any], expected: Any) -> None:
    assert numbers(tmp_path, **cell) == expected


def test_without_transformers_nothing_is_measured(tmp_path: Path) -> None:
    assert set(numbers(tmp_path).values()) == {None}


def test_the_runners_own_messages_are_in_no_figure(tmp_path: Path) -> None:
    assert numbers(tmp_path, outputs=[*ONCE, Got(0, producer=2**32 - 2, offset=99)]) == counted()


@pytest.mark.parametrize(
    ("promised", "outputs", "expected"),
    [
        (Output.EXACTLY_ONCE, ONCE, Verdict.KEPT),
        (Output.EXACTLY_ONCE, ONCE[1:], Verdict.BROKEN),
        (Output.EXACTLY_ONCE, [*ONCE, Got(1, offset=20)], Verdict.BROKEN),
        (Output.AT_LEAST_ONCE, ONCE[1:], Verdict.BROKEN),
        (Output.AT_LEAST_ONCE, [*ONCE, Got(1, offset=20)], Verdict.KEPT),
        (Output.NONE, ONCE[1:], Verdict.LOST_AS_DOCUMENTED),
        (Output.NONE, [*ONCE, Got(1, offset=20)], Verdict.KEPT),
        (Output.NONE, [*ONCE, Got(4, offset=20)], Verdict.BROKEN),
    ],
)
def test_the_verdict_of_a_pipeline(tmp_path: Path, promised: Output, outputs: list[Got], expected: Verdict) -> None:
    folder = write_cell_folder(
        tmp_path, sends=SENDS, audit=AUDIT, handed=AUDIT, outputs=outputs, promise={**PROMISE, "output": promised}
    )
    assert judge(folder).verdict is expected


def test_a_fault_that_the_promise_does_not_cover_excuses_outputs(tmp_path: Path) -> None:
    promise = {**PROMISE, "output": Output.EXACTLY_ONCE}
    folder = write_cell_folder(
        tmp_path, sends=SENDS, audit=AUDIT, outputs=ONCE[1:], promise=promise, fault="power-cut:all"
    )
    judged = judge(folder)
    assert (judged.verdict, judged.row["output_lost"]) == (Verdict.LOST_AS_DOCUMENTED, 1)
