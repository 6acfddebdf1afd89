"""The edges of the checks, found by changing one sign or number in them at a time: each test here fails for one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mqtest.model import Verdict
from mqtest.verdict import felt, verdict
from tests.histories import Got, Sent, at, write_cell_folder
from tests.test_checks import find, numbers
from tests.test_verdict import BIT, KEPT, step, with_found


class TestLossAtItsEdges:
    names = ("lost_cut_off", "lost_beyond_end", "lost_in_hole", "lost_unplaced")

    def where(self, tmp_path: Path, *sends: Sent, receipts: Any = (), audit: Any = ()) -> tuple[Any, ...]:
        return numbers(
            find("loss", write_cell_folder(tmp_path, sends=sends, receipts=receipts, audit=audit)), *self.names
        )

    def test_the_acked_position_goes_before_that_of_a_reader(self, tmp_path: Path) -> None:
        sends = [Sent(0, offset=5), Sent(1, offset=5)]
        assert self.where(tmp_path, *sends, receipts=[Got(0, 9)], audit=[Got(1, 5)]) == (1, 0, 0, 0)

    def test_so_does_the_first_position_of_all(self, tmp_path: Path) -> None:
        sends = [Sent(0, offset=0), Sent(1, offset=0)]
        assert self.where(tmp_path, *sends, receipts=[Got(0, 9)], audit=[Got(1, 0)]) == (1, 0, 0, 0)

    def test_a_reader_may_name_the_first_position(self, tmp_path: Path) -> None:
        sends = [Sent(0, offset=-1), Sent(1, offset=0)]
        assert self.where(tmp_path, *sends, receipts=[Got(0, 0)], audit=[Got(1, 0)]) == (1, 0, 0, 0)

    def test_a_position_in_no_place_is_none(self, tmp_path: Path) -> None:
        assert self.where(tmp_path, Sent(0, place=-1, offset=3)) == (0, 0, 0, 1)

    def test_the_first_position_can_be_reused(self, tmp_path: Path) -> None:
        sends = [Sent(0, offset=0), Sent(1, offset=0)]
        by_ack = write_cell_folder(tmp_path / "a", sends=sends, audit=[Got(1, 0)])
        sends = [Sent(0, offset=-1), Sent(1, offset=0)]
        by_reader = write_cell_folder(tmp_path / "b", sends=sends, receipts=[Got(0, 0)], audit=[Got(1, 0)])
        assert [find("loss", folder).numbers["offsets_reused"] for folder in (by_ack, by_reader)] == [1, 1]


def test_a_group_that_committed_nothing_skipped_nothing(tmp_path: Path) -> None:
    event = {"event": "committed", "t_ns": at(34), "places": {"0": 1, "1": 0}}
    sends = [Sent(0), Sent(1, place=1, offset=0)]
    audit = [Got(0), Got(1, 0, place=1)]
    folder = write_cell_folder(tmp_path, sends=sends, receipts=[Got(0)], audit=audit, places=2, events=[event])
    assert find("skipped-by-consumer", folder).count == 0


class TestVerdictAtItsEdges:
    def test_loss_is_named_first(self) -> None:
        assert verdict(with_found(KEPT, lost=5, phantom=1))[1] == "5 lost, 1 phantom under kill:leader"

    def test_nothing_acked_is_below_a_floor_of_one(self) -> None:
        assert verdict(with_found(replace(KEPT, floor=1), acked=0))[0] is Verdict.INVALID
        assert verdict(with_found(replace(KEPT, floor=1), acked=None))[0] is Verdict.INVALID

    @pytest.mark.parametrize(
        ("sent", "refused", "returned", "decided"),
        [
            (100, None, None, Verdict.KEPT),
            (99, 0, 0, Verdict.INVALID),
            (110, 0, 10, Verdict.KEPT),
            (110, 0, 11, Verdict.INVALID),
            (110, 5, 6, Verdict.INVALID),
        ],
    )
    def test_the_floor_without_acknowledgements(
        self, sent: int, refused: int | None, returned: int | None, decided: Verdict
    ) -> None:
        quiet = with_found(replace(KEPT, acknowledged=False), sent=sent, refused=refused, returned=returned)
        assert verdict(quiet)[0] is decided

    def test_nothing_sent_is_below_a_floor_of_one(self) -> None:
        quiet = with_found(replace(KEPT, acknowledged=False, floor=1), sent=None, refused=0)
        assert verdict(quiet)[0] is Verdict.INVALID

    def test_an_older_part_is_felt_once(self) -> None:
        events = [step("injected", BIT), step("injected", {}, target="b")]
        assert felt([["kill:leader", "kill:one"]], events) == [["kill:leader"]]
