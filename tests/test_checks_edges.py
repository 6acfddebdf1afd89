"""The edges of the checks, found by changing one sign or number in them at a time: each test here fails for one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mqtest import ledger
from mqtest.model import Flag, Kind, Outcome, Verdict
from mqtest.verdict import felt, verdict
from tests.histories import CORRUPT, FOREIGN, Got, Sent, at, write_cell_folder
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
        silent = write_cell_folder(tmp_path / "b", sends=each(every(0.5, 0, 30)), **FAULT)
        assert find("recovery", silent).count == 2
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

    def test_an_ack_when_the_load_begins_is_in_it(self, tmp_path: Path) -> None:
        finding = find("unavailability", write_cell_folder(tmp_path, sends=each([0.0, 29.0])))
        assert finding.numbers["ack_gap_s_max"] == 29.0

    def test_a_gap_of_just_a_second_is_a_sign_of_the_fault(self, tmp_path: Path) -> None:
        sends = each([*every(0.5, 0, 12), *every(0.5, 12.5, 30)])
        assert stage(write_cell_folder(tmp_path, sends=sends, **FAULT), "detected_s") == 1.4

    def test_a_gap_that_ends_with_the_fault_is_no_sign_of_it(self, tmp_path: Path) -> None:
        sends = each([*every(0.5, 0, 9), *every(0.5, 10.1, 30)])
        assert stage(write_cell_folder(tmp_path, sends=sends, **FAULT), "detected_s") is None

    def test_a_part_that_was_recovered_when_it_was_healed(self, tmp_path: Path) -> None:
        says = {"event": "fault", "part": 0, "action": "kill", "aim": "leader", "target": ["a"]}
        events = [{"t_ns": at(20), **says, "step": "injected"}, {"t_ns": at(21), **says, "step": "healed"},
                  {"t_ns": at(21), "event": "recovered"}]  # fmt: skip
        sends = each([*every(0.5, 0, 22), *every(0.5, 25, 30)])
        finding = find("incidents", write_cell_folder(tmp_path, sends=sends, events=events, **FAULT))
        assert finding.numbers["incident_gap_s_max"] == 0.5

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


class TestRedeliveredAtItsEdges:
    def count(self, tmp_path: Path, kind: Kind, receipts: list[Got], **rows: Any) -> int | None:
        folder = write_cell_folder(tmp_path, kind=kind, sends=acked(range(3)), receipts=receipts, **rows)
        return find("redelivered", folder).count

    def test_the_count_is_of_all_of_them(self, tmp_path: Path) -> None:
        again = [Got(0), Got(0, flags=Flag.REDELIVERED), Got(0), Got(1)]
        assert self.count(tmp_path / "a", Kind.QUEUE, again) == 2
        assert self.count(tmp_path / "b", Kind.LOG, again, audit=[Got(0), Got(1)]) == 2
        assert self.count(tmp_path / "c", Kind.QUEUE, again[-1:]) == 0

    def test_while_the_audit_is_incomplete_what_was_seen(self, tmp_path: Path) -> None:
        again = [Got(0), Got(0, flags=Flag.REDELIVERED), Got(1)]
        assert self.count(tmp_path / "a", Kind.QUEUE, again, complete=False) == 1
        assert self.count(tmp_path / "b", Kind.QUEUE, [Got(0), Got(0)], complete=False) == 1
        assert self.count(tmp_path / "c", Kind.QUEUE, again[-1:], complete=False) is None

    def test_the_messages_named_are_the_unflagged_ones_where_there_are_some(self, tmp_path: Path) -> None:
        rows: dict[str, Any] = {"kind": Kind.QUEUE, "sends": acked(range(5))}
        flagged = [Got(0), Got(0, flags=Flag.REDELIVERED)]
        both = write_cell_folder(tmp_path / "a", receipts=[*flagged, Got(3), Got(3)], **rows)
        only = write_cell_folder(tmp_path / "b", receipts=flagged, **rows)
        assert [find("redelivered", folder).messages for folder in (both, only)] == [((0, 3),), ((0, 0),)]


def test_messages_concerned_are_named(tmp_path: Path) -> None:
    sends = [*acked(range(6), offset=-1), Sent(6, Outcome.REFUSED)]
    audit = [Got(1, 0), Got(0, 1), Got(2, 2), Got(2, 3), Got(3, 4), Got(4, 4), Got(6, 6)]
    folder = write_cell_folder(tmp_path, sends=sends, receipts=[Got(3, 4)], audit=audit)
    named = {
        name: find(name, folder).messages for name in ("loss", "phantom", "stored-twice", "reordered", "divergence")
    }
    assert named == {"loss": ((0, 5),), "phantom": ((0, 6),), "stored-twice": ((0, 2),), "reordered": ((0, 0),),
                     "divergence": ((0, 4),)}  # fmt: skip


def test_strangers_of_both_kinds_are_counted(tmp_path: Path) -> None:
    folder = write_cell_folder(tmp_path, sends=[Sent(0)], receipts=[CORRUPT, FOREIGN, FOREIGN], audit=[Got(0)])
    assert find("strangers", folder).count == 3


def test_each_outcome_has_its_own_count(tmp_path: Path) -> None:
    times = {Outcome.ACKED: 1, Outcome.DEGRADED: 2, Outcome.REFUSED: 3, Outcome.RETURNED: 4, Outcome.UNKNOWN: 5}
    said = [outcome for outcome, n in times.items() for _ in range(n)]
    sends = [Sent(2 * i, outcome) for i, outcome in enumerate(said)]  # every other number was never due
    found = find("outcomes", write_cell_folder(tmp_path, sends=sends)).numbers
    assert {name: found[name] for name in ("skipped", "sent")} == {"skipped": 0, "sent": 15}
    assert {outcome: found[outcome.name.lower()] for outcome in times} == times


def test_the_unconfirmed_are_those_there_and_those_not_there(tmp_path: Path) -> None:
    sends = acked(range(4), outcome=Outcome.UNKNOWN)
    whole = write_cell_folder(tmp_path / "a", sends=sends, audit=[Got(0)])
    cut = write_cell_folder(tmp_path / "b", sends=sends, audit=[Got(0)], complete=False)
    assert [find("unconfirmed", folder).count for folder in (whole, cut)] == [4, None]


class TestDivergenceAtItsEdges:
    def twice(self, tmp_path: Path, *sends: Sent, receipts: list[Got], audit: list[Got]) -> Any:
        folder = write_cell_folder(tmp_path, sends=sends, receipts=receipts, audit=audit, places=2)
        return find("divergence", folder).numbers["positions_with_two"]

    @pytest.mark.parametrize(
        ("outcome", "twice"), [(Outcome.ACKED, 1), (Outcome.DEGRADED, 1), (Outcome.UNKNOWN, 0), (Outcome.REFUSED, 0)]
    )
    def test_what_was_said_to_be_there_counts(self, tmp_path: Path, outcome: Outcome, twice: int) -> None:
        sends = [Sent(0, outcome, offset=5), Sent(1, offset=5)]
        assert self.twice(tmp_path, *sends, receipts=[Got(0, 5)], audit=[Got(0, 1), Got(1, 5)]) == twice

    @pytest.mark.parametrize(("place", "twice"), [(0, 0), (1, 1), (-1, 1)])
    def test_in_the_place_that_was_said_or_in_any_where_none_was(self, tmp_path: Path, place: int, twice: int) -> None:
        sends = [Sent(0, place=place, offset=5), Sent(1, place=1, offset=5)]
        audit = [Got(0, 7), Got(1, 5, place=1)]
        assert self.twice(tmp_path, *sends, receipts=[Got(0, 5, place=1)], audit=audit) == twice


class TestTimeAtItsEdges:
    def test_a_drain_needs_time_and_a_cell_that_was_not_live(self, tmp_path: Path) -> None:
        apart, together = [Got(i, received_s=31.0 + i) for i in range(2)], [Got(i, received_s=31.0) for i in range(2)]
        rates = [
            find("throughput", write_cell_folder(tmp_path / consume / name, sends=acked(range(2)), receipts=receipts,
                                                 consume=consume)).numbers["drain_per_s"]
            for consume in ("after-heal", "live") for name, receipts in (("a", apart), ("b", together))
        ]  # fmt: skip
        assert rates == [2.0, None, None, None]

    @pytest.mark.parametrize("phase", ["heal", "drain"])
    def test_latency_after_the_heal_needs_both_phases(self, tmp_path: Path, phase: str) -> None:
        cell = write_cell_folder(tmp_path, sends=[Sent(0, due_s=18.0)], **FAULT)
        assert find("latency", cell).numbers["recovery_latency_ms_max"] == 10.0
        assert find("latency", without_phase(cell, phase)).numbers["recovery_latency_ms_max"] is None

    def test_without_a_fault_there_is_no_latency_after_its_heal(self, tmp_path: Path) -> None:
        heal = {"event": "phase", "name": "heal", "t_ns": at(16)}
        cell = write_cell_folder(tmp_path, sends=[Sent(0, due_s=18.0)], events=[heal])
        assert find("latency", cell).numbers["recovery_latency_ms_max"] is None

    def test_what_is_due_when_a_phase_begins_is_in_that_one_alone(self, tmp_path: Path) -> None:
        sends = [Sent(0, due_s=10.0, settled_s=10.4), Sent(1, due_s=2.0, settled_s=2.1)]
        found = find("latency", write_cell_folder(tmp_path, sends=sends, **FAULT))
        assert numbers(found, "latency_ms_max", "fault_latency_ms_max") == (100.0, 400.0)
        assert numbers(found, "latency_ms_p50", "fault_latency_ms_p50") == (100.0, 400.0)

    def test_service_time_is_of_the_acked_of_the_steady_phase(self, tmp_path: Path) -> None:
        sends = [
            Sent(0, due_s=3.0, sent_s=3.1, settled_s=3.2),
            Sent(1, Outcome.UNKNOWN, due_s=4.0, settled_s=5.0),
            Sent(2, due_s=12.0, settled_s=14.0),
        ]
        found = find("latency", write_cell_folder(tmp_path, sends=sends, **FAULT))
        assert numbers(found, "service_ms_p50", "service_ms_p99") == (100.0, 100.0)

    def test_the_longest_of_many_is_among_them(self, tmp_path: Path) -> None:
        sends = [Sent(i, due_s=3.0, settled_s=3.0 + (i + 1) / 1000) for i in range(2002)]
        assert find("latency", write_cell_folder(tmp_path, sends=sends)).numbers["latency_ms_max"] == 2002.0
