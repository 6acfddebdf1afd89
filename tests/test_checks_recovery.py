"""Recovery in stages and the parts of a fault: each stage planted at a known time, each missing one None."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from mqtest.model import Finding, Outcome
from tests.histories import Got, Sent, at, write_cell_folder
from tests.test_checks import acked, find, numbers

FAULT: dict[str, Any] = {"fault": "kill:leader"}
"""injected at 10.1 s, healed at 17, recovered at 19.5; the load lasts from 0 to 30, steady from 2 to 10"""


def each(times: Iterable[float], *, first: int = 0, place: int = 0, **same: Any) -> list[Sent]:
    """A message sent and acked at each of these times."""
    return [Sent(first + i, sent_s=t, settled_s=t, place=place, **same) for i, t in enumerate(times)]


def every(step_s: float, begin_s: float, end_s: float) -> list[float]:
    return [round(begin_s + i * step_s, 3) for i in range(round((end_s - begin_s) / step_s))]


def stage(folder: Path, name: str) -> Any:
    return find("recovery", folder).numbers[name]


class TestDetected:
    steady = tuple(each(every(0.5, 0, 30)))

    @pytest.mark.parametrize("outcome", [Outcome.UNKNOWN, Outcome.REFUSED, Outcome.DEGRADED])
    def test_by_the_first_send_that_failed(self, tmp_path: Path, outcome: Outcome) -> None:
        failed = [Sent(i, outcome, producer=1, sent_s=9.0, settled_s=t) for i, t in enumerate([9.9, 10.6, 10.4])]
        assert stage(write_cell_folder(tmp_path, sends=[*self.steady, *failed], **FAULT), "detected_s") == 0.3

    def test_by_the_first_outage(self, tmp_path: Path) -> None:
        sends = each([*every(0.5, 0, 12), *every(0.5, 14, 30)])
        assert stage(write_cell_folder(tmp_path, sends=sends, **FAULT), "detected_s") == 1.4

    def test_an_outage_that_lasts_through_the_fault_was_seen_at_once(self, tmp_path: Path) -> None:
        sends = each([*every(0.5, 0, 10), *every(0.5, 14, 30)])
        assert stage(write_cell_folder(tmp_path, sends=sends, **FAULT), "detected_s") == 0.0

    def test_not_by_what_was_before_or_after_the_load(self, tmp_path: Path) -> None:
        other = [Sent(0, Outcome.UNKNOWN, producer=1, sent_s=9, settled_s=10.0),
                 Sent(1, Outcome.UNKNOWN, producer=1, sent_s=9, settled_s=30.0),
                 Sent(2, producer=1, sent_s=9, settled_s=12.0),
                 Sent(3, Outcome.RETURNED, producer=1, sent_s=11.0)]  # fmt: skip
        assert stage(write_cell_folder(tmp_path, sends=[*self.steady, *other], **FAULT), "detected_s") is None

    def test_without_acknowledgements_it_is_not_told(self, tmp_path: Path) -> None:
        sends = each([1.0, 20.0])
        assert stage(write_cell_folder(tmp_path, sends=sends, acknowledged=False, **FAULT), "detected_s") is None


class TestNewLeader:
    def seconds(self, tmp_path: Path, *events: dict[str, Any]) -> Any:
        leaders = [{"event": "leader", **event} for event in events]
        return stage(write_cell_folder(tmp_path, sends=acked(range(3)), events=leaders, **FAULT), "new_leader_s")

    def test_the_first_node_that_leads_after_the_fault(self, tmp_path: Path) -> None:
        assert self.seconds(
            tmp_path,
            {"t_ns": at(5), "place": 0, "node": "a"},
            {"t_ns": at(11), "place": 0, "node": None, "before": "a"},
            {"t_ns": at(12), "place": 1, "node": "c"},
            {"t_ns": at(13.1), "place": 0, "node": "b"},
            {"t_ns": at(15), "place": 0, "node": "c"},
        ) == 3.0  # fmt: skip

    def test_nobody_else_led(self, tmp_path: Path) -> None:
        assert self.seconds(tmp_path, {"t_ns": at(5), "place": 0, "node": "a"}) is None

    def test_the_summary_of_older_ledgers_has_no_time(self, tmp_path: Path) -> None:
        assert self.seconds(tmp_path, {"t_ns": at(20), "before": "a", "after": "b", "moved": True}) is None


class TestFirstDelivery:
    def test_of_a_message_sent_after_the_fault_in_the_worst_place(self, tmp_path: Path) -> None:
        sends = each([10.0, 11.0, 12.0]) + each([11.0, 12.0], first=3, place=1)
        receipts = [
            Got(0, received_s=11),
            Got(2, received_s=14.1),
            Got(1, received_s=15),
            Got(4, received_s=16.1, place=1),
        ]
        live = write_cell_folder(tmp_path / "a", sends=sends, receipts=receipts, consume="live", places=2, **FAULT)
        later = write_cell_folder(tmp_path / "b", sends=sends, receipts=receipts, places=2, **FAULT)
        short = write_cell_folder(tmp_path / "c", sends=sends, receipts=receipts[:3], consume="live", places=2, **FAULT)
        found = [stage(folder, "first_delivery_after_fault_s") for folder in (live, later, short)]
        assert found == [6.0, None, None]


class TestRateAgain:
    """Ten a second in the steady phase, so nine in a second are enough."""

    steady = tuple(every(0.1, 0, 10.1))

    def rate_90(self, tmp_path: Path, after: list[float], **record: Any) -> Any:
        return stage(write_cell_folder(tmp_path, sends=each([*self.steady, *after]), **FAULT | record), "rate_90_s")

    def test_from_the_first_second_that_has_it(self, tmp_path: Path) -> None:
        # 17.9, 18.1, 18.2, … 18.8 are nine in 0.9 s; the nine from 17.7 on take a whole second
        assert self.rate_90(tmp_path, [*every(0.2, 15.1, 18.1), *every(0.1, 18.1, 30)]) == 7.8

    def test_what_comes_before_the_outage_does_not_count(self, tmp_path: Path) -> None:
        assert self.rate_90(tmp_path, [*every(0.1, 10.1, 12), *every(0.1, 16.1, 30)]) == 6.0

    def test_without_an_outage_from_the_fault(self, tmp_path: Path) -> None:
        assert self.rate_90(tmp_path, every(0.1, 10.2, 30)) == 0.1

    def test_nine_in_a_second_are_enough_and_eight_are_not(self, tmp_path: Path) -> None:
        nine = [20 + i * 0.12 for i in range(9)]
        assert self.rate_90(tmp_path, nine) == 9.9
        assert self.rate_90(tmp_path / "b", nine[:8]) is None

    def test_nine_that_take_a_whole_second_are_not(self, tmp_path: Path) -> None:
        assert self.rate_90(tmp_path, [20 + i * 0.125 for i in range(9)]) is None

    def test_acks_after_the_load_do_not_count(self, tmp_path: Path) -> None:
        assert self.rate_90(tmp_path, every(0.1, 29.5, 40)) is None

    def test_not_told_without_a_steady_rate_or_acknowledgements(self, tmp_path: Path) -> None:
        idle = write_cell_folder(tmp_path / "a", sends=each(every(0.1, 11, 30)), **FAULT)
        assert stage(idle, "rate_90_s") is None
        assert self.rate_90(tmp_path / "b", every(0.1, 10.2, 30), acknowledged=False) is None


class TestDrained:
    """Each message is acked when it is sent; in the steady phase at most two of them wait for their delivery."""

    sends = tuple(each(every(0.5, 0, 20)))

    def drained(self, tmp_path: Path, delay_s: dict[int, float], **record: Any) -> Any:
        receipts = sorted((Got(s.seq, received_s=(s.sent_s or 0) + delay_s.get(s.seq, 0.6)) for s in self.sends),
                          key=lambda r: r.received_s or 0)  # fmt: skip
        folder = write_cell_folder(
            tmp_path, sends=self.sends, receipts=receipts, **FAULT | {"consume": "live"} | record
        )
        return stage(folder, "drained_s")

    def test_caught_up_after_an_outage_of_deliveries(self, tmp_path: Path) -> None:
        # 20 (sent at 10 s) to 27 (13.5 s) come together at 14.05 s: 28, just acked at 14 s, still waits
        assert self.drained(tmp_path, {20 + i: 4.05 - i / 2 for i in range(8)}) == 3.95

    def test_nothing_piled_up(self, tmp_path: Path) -> None:
        assert self.drained(tmp_path, {}) == 0.0  # 19, sent at 9.5 s, is delivered that moment

    def test_an_outage_after_all_was_in_sync_is_another_matter(self, tmp_path: Path) -> None:
        assert self.drained(tmp_path, {39: 5.0}) == 0.0

    def test_lost_messages_are_no_backlog(self, tmp_path: Path) -> None:
        receipts = [Got(s.seq, received_s=(s.sent_s or 0) + 0.6) for s in self.sends if s.seq not in (18, 19, 20, 21)]
        folder = write_cell_folder(tmp_path, sends=self.sends, receipts=receipts, consume="live", **FAULT)
        assert stage(folder, "drained_s") is not None

    def test_only_in_live_cells(self, tmp_path: Path) -> None:
        assert self.drained(tmp_path, {}, consume="after-heal") is None


class TestInSync:
    def test_the_last_recovered_after_the_first_injection(self, tmp_path: Path) -> None:
        sends, more = acked(range(3)), {"event": "recovered", "stage": "ready"}
        once = write_cell_folder(tmp_path / "a", sends=sends, **FAULT)
        again = write_cell_folder(tmp_path / "b", sends=sends, events=[{**more, "t_ns": at(25.1)}], **FAULT)
        assert (stage(once, "in_sync_s"), stage(again, "in_sync_s")) == (9.4, 15.0)

    def test_recovery_counts_from_the_last_heal(self, tmp_path: Path) -> None:
        more = [{"event": "recovered", "t_ns": at(25)},
                {"event": "fault", "t_ns": at(22), "step": "healed", "action": "kill", "target": ["b"]},
                {"event": "fault", "t_ns": at(20), "step": "healed", "action": "kill", "target": ["c"]}]  # fmt: skip
        folder = write_cell_folder(tmp_path, sends=acked(range(3)), events=more, **FAULT)
        assert numbers(find("unavailability", folder), "recovery_s", "recovery_s_ready") == (3.0, 3.0)


def test_without_a_fault_there_are_no_stages(tmp_path: Path) -> None:
    finding = find("recovery", write_cell_folder(tmp_path, sends=each(every(0.5, 0, 30))))
    assert finding.count is None
    assert set(finding.numbers.values()) == {None}


def test_outages_of_deliveries(tmp_path: Path) -> None:
    receipts = [Got(i, received_s=t) for i, t in enumerate([1, 1.5, 2.5, 3.4, 28, 29.1])]
    folder = write_cell_folder(tmp_path, consume="live", sends=acked(range(6)), receipts=receipts)
    found = numbers(find("unavailability", folder), "delivery_gap_s_max", "delivery_outage_s_total")
    assert found == (24.6, 26.7)


class TestIncidents:
    def parts(self, *times: tuple[float, float]) -> list[dict[str, Any]]:
        events: list[dict[str, Any]] = []
        for number, (injected_s, healed_s) in enumerate(times):
            says = {"event": "fault", "part": number, "action": "kill", "aim": "leader", "target": [f"n{number}"]}
            events += [
                {"t_ns": at(injected_s), **says, "step": "injected", "evidence": {"x": 1}},
                {"t_ns": at(healed_s + 1), "event": "recovered", "stage": "ready"},
                {"t_ns": at(healed_s), **says, "step": "healed", "evidence": {}},
            ]
        return events

    def find(self, tmp_path: Path, times: list[float], *parts: tuple[float, float], **rows: Any) -> Finding:
        # the fault that the folder brings itself lasts from 10.1 to 17 and is recovered at 19.5
        return find(
            "incidents", write_cell_folder(tmp_path, sends=each(times), events=self.parts(*parts), **FAULT | rows)
        )

    def test_one_line_a_part(self, tmp_path: Path) -> None:
        times = [*every(0.5, 0, 11), *every(0.5, 14, 22), *every(0.5, 23.5, 25)]
        there = [Got(i) for i in range(len(times)) if i not in (3, 25, 38)]  # acked at 1.5, 15.5, 23.5
        finding = self.find(tmp_path, times, (22.0, 23.0), audit=there)
        assert finding.examples == (
            "kill (leader) at 10.1 s of the load: no ack for 3.5 s, 2 lost",
            "kill:leader (n0) at 22.0 s of the load: no ack for 1.5 s, 1 lost",
        )
        assert (finding.count, finding.numbers["incident_gap_s_max"]) == (2, 3.5)

    def test_a_gap_that_was_there_before_counts_from_the_injection(self, tmp_path: Path) -> None:
        finding = self.find(tmp_path, [0, 8, 12.1, *every(0.5, 12.5, 30)])
        assert finding.numbers["incident_gap_s_max"] == 2.0

    def test_a_gap_that_begins_in_a_part_counts_whole(self, tmp_path: Path) -> None:
        finding = self.find(tmp_path, [*every(0.5, 0, 19.5), 24.0, *every(0.5, 24.5, 30)])
        assert finding.numbers["incident_gap_s_max"] == 5.0

    def test_a_gap_that_begins_when_the_part_has_ended_is_not_its_own(self, tmp_path: Path) -> None:
        finding = self.find(tmp_path, [*every(0.5, 0, 20), 24.0, *every(0.5, 24.5, 30)])
        assert finding.numbers["incident_gap_s_max"] == 0.5

    def test_a_part_that_never_recovered_lasts_to_the_end_of_the_load(self, tmp_path: Path) -> None:
        finding = self.find(tmp_path, every(0.5, 0, 26), (25.0, 29.5), audit=[Got(i) for i in range(50)])
        assert finding.examples[1] == "kill:leader (n0) at 25.0 s of the load: no ack for 4.5 s, 2 lost"

    def test_of_many_parts_the_worst_in_their_order(self, tmp_path: Path) -> None:
        times = [*every(0.1, 0, 20), *every(0.1, 20.5, 27.35), *every(0.1, 29, 30)]
        many = [(round(20 + i * 0.4, 1), round(20.1 + i * 0.4, 1)) for i in range(22)]
        finding = self.find(tmp_path, times, *many)
        assert (finding.count, len(finding.examples)) == (23, 20)
        assert finding.examples[-1].startswith("kill:leader (n21) at 28.4 s")
        assert not [line for line in finding.examples if "(n15)" in line or "(n16)" in line or "(n17)" in line]

    def test_what_was_lost_after_the_last_part_is_the_last_part_s(self, tmp_path: Path) -> None:
        finding = self.find(tmp_path, every(0.5, 0, 30), audit=[Got(i) for i in range(60) if i not in (50, 51)])
        assert finding.examples[0].endswith("2 lost")

    def test_each_turn_of_a_rolling_restart_is_a_line(self, tmp_path: Path) -> None:
        says = {"event": "fault", "part": 0, "action": "rolling-restart", "aim": "all", "target": ["a", "b"]}
        turns = {"a": [at(5), at(10)], "b": [at(10), at(40)]}
        events = [{"t_ns": at(5), **says, "step": "injected", "evidence": {"x": 1}, "detail": {"turns": turns}}]
        sends = each([*every(0.5, 0, 12), *every(0.5, 15, 30)])
        there = [Got(i) for i in range(len(sends)) if i not in (19, 26, 27)]  # acked at 9.5, 16, 16.5
        finding = find("incidents", write_cell_folder(tmp_path, sends=sends, audit=there, events=events))
        assert finding.examples == (
            "rolling-restart:all (a) at 5.0 s of the load: no ack for 0.5 s, 1 lost",
            "rolling-restart:all (b) at 10.0 s of the load: no ack for 3.5 s, 2 lost",
        )

    def test_what_cannot_be_told(self, tmp_path: Path) -> None:
        blind = self.find(tmp_path / "a", [1.0], acknowledged=False)
        cut = self.find(tmp_path / "b", [1.0, 29.0], complete=False)
        assert blind.examples == ("kill (leader) at 10.1 s of the load: acks not known, loss not known",)
        assert cut.examples == ("kill (leader) at 10.1 s of the load: no ack for 18.9 s, loss not known",)
        assert find("incidents", write_cell_folder(tmp_path / "c", sends=acked(range(3)))).count is None


def test_a_cluster_that_did_not_come_back_is_a_finding(tmp_path: Path) -> None:
    event = {"event": "dead", "t_ns": at(25), "nodes": ["a", "b"], "why": "exit 1:\nlast words"}
    dead = write_cell_folder(tmp_path / "a", sends=acked(range(3)), events=[event], **FAULT)
    whole = write_cell_folder(tmp_path / "b", sends=acked(range(3)), **FAULT)
    assert find("dead", dead).examples == ("a, b: exit 1: last words",)
    assert [find("dead", folder).count for folder in (dead, whole)] == [1, 0]
