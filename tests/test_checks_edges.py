"""The edges of the checks, found by changing one sign or number in them at a time: each test here fails for one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mqtest import ledger
from mqtest.model import Outcome, Verdict
from mqtest.verdict import felt, verdict
from tests.histories import Got, Sent, at, write_cell_folder
from tests.test_checks import acked, find, numbers
from tests.test_checks_recovery import FAULT, each, every, stage
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


def without_phase(folder: Path, name: str) -> Path:
    path = folder / "ledger" / "events.jsonl"
    path.write_text("".join(line for line in path.read_text().splitlines(True) if f'"name": "{name}"' not in line))
    return folder


class TestRecoveryAtItsEdges:
    @pytest.mark.parametrize("phase", ["warm-up", "steady", "drain"])
    def test_a_live_cell_without_a_phase_measures_what_is_left(self, tmp_path: Path, phase: str) -> None:
        receipts = [Got(s, received_s=s / 2 + 0.1) for s in range(58)]
        cell = write_cell_folder(tmp_path, sends=each(every(0.5, 0, 29)), receipts=receipts, consume="live", **FAULT)
        without_phase(cell, phase)
        assert (stage(cell, "rate_90_s"), stage(cell, "drained_s"), stage(cell, "in_sync_s")) == (None, None, 9.4)
        gaps = numbers(find("unavailability", cell), "ack_gap_s_max", "delivery_gap_s_max")
        assert gaps == ((1.5, 1.4) if phase == "steady" else (None, None))

    def test_no_delivery_at_all(self, tmp_path: Path) -> None:
        cell = write_cell_folder(tmp_path, sends=each(every(0.5, 0, 29)), consume="live", **FAULT)
        assert numbers(find("unavailability", cell), "delivery_gap_s_max", "delivery_outage_s_total") == (None, None)
        assert (stage(cell, "drained_s"), stage(cell, "first_delivery_after_fault_s")) == (None, None)

    def test_no_recovery_without_heal_or_recovered_event(self, tmp_path: Path) -> None:
        for step_name in ("healed", "recovered"):
            folder = write_cell_folder(tmp_path / step_name, sends=acked(range(3)), **FAULT)
            path = folder / "ledger" / "events.jsonl"
            path.write_text("".join(x for x in path.read_text().splitlines(True) if f'"{step_name}"' not in x))
            assert find("unavailability", folder).numbers["recovery_s"] is None

    def test_fault_events_of_a_cell_without_a_fault_are_no_fault(self, tmp_path: Path) -> None:
        folder = write_cell_folder(tmp_path, sends=each(every(0.5, 0, 30)), **FAULT)
        record = ledger.read_cell(folder)
        ledger.write_cell(folder, record | {"fault": "none"})
        assert numbers(find("unavailability", folder), "recovery_s", "first_ack_after_fault_s") == (None, None)
        assert find("recovery", folder).count is None

    def test_the_earlier_sign_of_a_fault_counts(self, tmp_path: Path) -> None:
        sends = each([*every(0.5, 0, 12), *every(0.5, 14, 30)])  # an outage from 11.5 s
        early = [*sends, Sent(0, Outcome.UNKNOWN, producer=1, sent_s=9, settled_s=10.1)]
        late = [*sends, Sent(0, Outcome.UNKNOWN, producer=1, sent_s=9, settled_s=13.0)]
        assert stage(write_cell_folder(tmp_path / "a", sends=early, **FAULT), "detected_s") == 0.0
        assert stage(write_cell_folder(tmp_path / "b", sends=late, **FAULT), "detected_s") == 1.4

    def test_a_message_sent_in_the_moment_of_the_fault_was_not_sent_after_it(self, tmp_path: Path) -> None:
        sends = [Sent(0, sent_s=10.1, settled_s=10.5), Sent(1, sent_s=10.2, settled_s=13.1)]
        receipts = [Got(0, received_s=10.6), Got(1, received_s=14.1)]
        folder = write_cell_folder(tmp_path, sends=sends, receipts=receipts, consume="live", **FAULT)
        assert find("unavailability", folder).numbers["first_ack_after_fault_s"] == 3.0
        assert stage(folder, "first_delivery_after_fault_s") == 4.0

    def test_an_ack_at_the_end_of_the_load_is_after_it(self, tmp_path: Path) -> None:
        sends = each([*every(0.1, 0, 10.1), *every(0.1, 29.2, 30.1)])
        assert stage(write_cell_folder(tmp_path, sends=sends, **FAULT), "rate_90_s") is None

    def test_a_rate_of_one_a_second(self, tmp_path: Path) -> None:
        sends = each([round(i * 0.999, 3) for i in range(30)])  # 11 x 0.999 = 10.989
        assert stage(write_cell_folder(tmp_path, sends=sends, **FAULT), "rate_90_s") == 0.889

    def test_the_ack_at_the_begin_of_the_steady_phase_is_in_it(self, tmp_path: Path) -> None:
        # nine acks in 8 s: 90 % are 1.01 a second, so it takes two in one second; of eight, one would do
        sends = each([*every(0.9, 2.0, 10.1), 20.0, 25.0, 25.5])
        assert stage(write_cell_folder(tmp_path, sends=sends, **FAULT), "rate_90_s") == 14.9

    def test_an_outage_that_begins_when_all_is_in_sync_is_another_matter(self, tmp_path: Path) -> None:
        sends = each([*every(0.1, 0, 19.6), *every(0.1, 22, 30)])
        assert stage(write_cell_folder(tmp_path, sends=sends, **FAULT), "rate_90_s") == 0.0

    def test_a_leader_in_the_moment_of_the_fault(self, tmp_path: Path) -> None:
        leader = {"event": "leader", "t_ns": at(10.1), "place": 0, "node": "b"}
        folder = write_cell_folder(tmp_path, sends=acked(range(3)), events=[leader], **FAULT)
        assert stage(folder, "new_leader_s") == 0.0

    def test_after_an_idle_steady_phase_everything_must_be_delivered(self, tmp_path: Path) -> None:
        receipts = [Got(i, received_s=t) for i, t in enumerate(every(0.5, 11.3, 30))]
        folder = write_cell_folder(
            tmp_path, sends=each(every(0.5, 11.0, 30)), receipts=receipts, consume="live", **FAULT
        )
        assert stage(folder, "drained_s") == 1.2

    def test_the_stages_that_were_reached_are_counted(self, tmp_path: Path) -> None:
        leader = {"event": "leader", "t_ns": at(12), "place": 0, "node": "b"}
        other = {"event": "members", "t_ns": at(11), "node": "c"}
        folder = write_cell_folder(tmp_path, sends=each(every(0.5, 0, 30)), events=[other, leader], **FAULT)
        assert find("recovery", folder).count == 3  # new leader, rate, in sync
        assert stage(folder, "new_leader_s") == 1.9

    def test_outages_are_those_of_the_worst_place(self, tmp_path: Path) -> None:
        worst = each([*every(0.5, 0, 10), *every(0.5, 14, 30)], first=100, place=1)
        sends = [
            Sent(i, offset=-1, sent_s=s.sent_s, settled_s=s.settled_s) for i, s in enumerate(each(every(0.5, 0, 30)))
        ]
        folder = write_cell_folder(tmp_path, sends=[*sends, *worst], places=2)
        assert numbers(find("unavailability", folder), "ack_gap_s_max", "outage_s_total") == (4.5, 4.5)

    def test_places_without_an_ack_are_counted(self, tmp_path: Path) -> None:
        sends = [Sent(0, sent_s=11), Sent(1, place=1, sent_s=1), Sent(2, place=2, sent_s=1)]
        folder = write_cell_folder(tmp_path, sends=sends, places=3, **FAULT)
        assert find("unavailability", folder).numbers["places_without_ack"] == 2

    def drained(self, tmp_path: Path, begin_s: float, again: tuple[Got, ...] = ()) -> Any:
        sends = each(every(0.5, begin_s, 30))
        receipts = [Got(s.seq, received_s=(s.sent_s or 0) + 0.3) for s in sends]
        folder = write_cell_folder(tmp_path, sends=sends, receipts=[*receipts, *again], consume="live", **FAULT)
        return stage(folder, "drained_s")

    def test_as_much_as_in_the_steady_phase_is_drained(self, tmp_path: Path) -> None:
        assert self.drained(tmp_path, 0.25) == 0.15  # sent at 10.25 s: one waits, as ever

    def test_only_the_first_delivery_ends_the_waiting(self, tmp_path: Path) -> None:
        again = tuple(Got(20, received_s=28 + i / 10) for i in range(3))
        assert self.drained(tmp_path, 0.0, again) == 0.2  # 20 is delivered at 10.3 s, for the first time

    def test_slowly_caught_up(self, tmp_path: Path) -> None:
        # 20 to 29 come from 14.05 s on, one every 0.1 s; behind 28, at 14.85 s, only 29 waits, as in the steady phase
        late_s = {20 + i: 14.05 + i / 10 for i in range(10)}
        sends = each(every(0.5, 0, 30))
        receipts = [Got(s.seq, received_s=late_s.get(s.seq, (s.sent_s or 0) + 0.3)) for s in sends]
        folder = write_cell_folder(tmp_path, sends=sends, receipts=receipts, consume="live", **FAULT)
        assert stage(folder, "drained_s") == 4.75

    def test_an_outage_that_outlasts_the_recovery(self, tmp_path: Path) -> None:
        sends = each([*every(0.1, 0, 15), *every(0.1, 22, 30)])
        assert stage(write_cell_folder(tmp_path, sends=sends, **FAULT), "rate_90_s") == 11.9

    def test_a_gap_of_just_a_second_is_an_outage(self, tmp_path: Path) -> None:
        finding = find("unavailability", write_cell_folder(tmp_path, sends=each([28.0, 29.0])))
        assert (finding.count, finding.numbers["outage_s_total"]) == (2, 2.0)

    def test_a_leader_of_no_place_in_particular_leads_all(self, tmp_path: Path) -> None:
        leader = {"event": "leader", "t_ns": at(12.1), "node": "b"}
        assert (
            stage(write_cell_folder(tmp_path, sends=acked(range(3)), events=[leader], **FAULT), "new_leader_s") == 2.0
        )

    def test_silence_without_a_heal(self, tmp_path: Path) -> None:
        cut = {"event": "fault", "t_ns": at(10.0), "action": "power-cut", "target": ["all"], "step": "injected",
               "detail": {"silence_ns": at(10.0)}}  # fmt: skip
        sends = [Sent(i, sent_s=9, settled_s=t) for i, t in enumerate([9.9, 18.0, 12.0])]
        folder = write_cell_folder(tmp_path, sends=sends, events=[cut], target="all")
        assert find("unavailability", folder).numbers["ack_after_silence_ms_max"] == 8000.0

    @pytest.mark.parametrize(("settled_s", "late_ms"), [(15.9, 5800.0), (16.0, 0.0)])
    def test_silence_begins_with_the_last_node_and_ends_with_the_heal(
        self, tmp_path: Path, settled_s: float, late_ms: float
    ) -> None:
        event = {"event": "fault", "t_ns": at(10.1), "action": "power-cut", "target": ["all"], "step": "injected",
                 "detail": {"silence_ns": {"a": at(10.0), "b": at(10.1), "c": at(9.9)}}}  # fmt: skip
        sends = [Sent(0, sent_s=9, settled_s=settled_s)]
        folder = write_cell_folder(tmp_path, fault="power-cut:all", sends=sends, events=[event])
        assert find("unavailability", folder).numbers["ack_after_silence_ms_max"] == late_ms
