"""Times without acks: what was planted is found exactly, and an undisturbed cell has none."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mqtest.model import Kind, Outcome
from mqtest.timeline import Clock, Counts, Timeline, timeline
from tests.histories import Got, Sent, at, fault_events, told, write_cell_folder

GAP = [*range(100), *range(130, 200), *range(225, 300)]
"""sequence numbers that are acked, ten a second: nothing from 9.91 to 13.01 s, and from 19.91 to 22.51 s"""


def found(folder: Path) -> Timeline:
    seen = told(timeline, folder)
    assert seen is not None
    return seen


def acked(seqs: list[int] | range, **same: Any) -> list[Sent]:
    return [Sent(seq, **same) for seq in seqs]


def cell(tmp_path: Path, sends: list[Sent], audit: list[Got] | None = None, **more: Any) -> Path:
    kept = [Got(s.seq, producer=s.producer) for s in sends if s.outcome is Outcome.ACKED]
    return write_cell_folder(tmp_path, sends=sends, audit=kept if audit is None else audit, **more)


def times(seen: Timeline) -> list[tuple[float, float, int]]:
    clock = seen.clock
    return [(round(clock.seconds(i.began_ns), 2), round(clock.seconds(i.ended_ns), 2), i.places) for i in seen.outages]


def test_a_load_that_is_acked_all_the_time_has_no_outage(tmp_path: Path) -> None:
    seen = found(cell(tmp_path, acked(range(300))))
    assert (seen.outages, seen.stretches) == ((), ())
    assert seen.outside == Counts(lost=0, unknown=0, stored_twice=0, redelivered=0)


def test_each_gap_of_a_second_is_an_outage_with_what_was_sent_in_it(tmp_path: Path) -> None:
    doubt = [Sent(seq, Outcome.UNKNOWN) for seq in (*range(100, 130), *range(200, 225))]
    kept = [Got(seq) for seq in GAP if seq not in (95, 150)]
    seen = found(cell(tmp_path, [*acked(GAP), *doubt], audit=[*kept, Got(210, offset=500), Got(210, offset=501)]))
    assert times(seen) == [(9.91, 13.01, 1), (19.91, 22.51, 1)]
    assert [round(i.length_s, 2) for i in seen.outages] == [3.1, 2.6]
    assert [i.counts for i in seen.outages] == [
        Counts(lost=1, unknown=30, stored_twice=0, redelivered=0),
        Counts(lost=0, unknown=25, stored_twice=1, redelivered=0),
    ]
    assert seen.outside == Counts(lost=1, unknown=0, stored_twice=0, redelivered=0)


def test_a_gap_of_less_than_a_second_is_none(tmp_path: Path) -> None:
    assert found(cell(tmp_path, acked([*range(100), *range(108, 300)]))).outages == ()
    assert len(found(cell(tmp_path / "longer", acked([*range(100), *range(109, 300)]))).outages) == 1


def test_gaps_of_two_places_that_overlap_are_one_outage(tmp_path: Path) -> None:
    one = acked([*range(100), *range(130, 300)])
    other = acked([*range(110), *range(150, 300)], producer=1, place=1, offset=-1)
    audit = [*(Got(s.seq) for s in one), *(Got(s.seq, producer=1, place=1) for s in other)]
    assert times(found(cell(tmp_path, [*one, *other], audit=audit, places=2))) == [(9.91, 15.01, 2)]


def test_a_gap_within_that_of_another_place_does_not_end_it(tmp_path: Path) -> None:
    one = acked([*range(100), *range(150, 300)])
    other = acked([*range(110), *range(130, 300)], producer=1, place=1, offset=-1)
    audit = [*(Got(s.seq) for s in one), *(Got(s.seq, producer=1, place=1) for s in other)]
    assert times(found(cell(tmp_path, [*one, *other], audit=audit, places=2))) == [(9.91, 15.01, 2)]


def test_a_redelivery_is_of_the_last_outage_that_began_before_it(tmp_path: Path) -> None:
    read = [Got(1, received_s=5), Got(1, received_s=6), Got(2, received_s=7), Got(2, received_s=9.91)]
    seen = found(cell(tmp_path, acked(GAP), receipts=[*read, Got(2, received_s=25)], consume="live"))
    assert [i.counts.redelivered for i in seen.outages] == [1, 1]
    assert seen.outside.redelivered == 1


def test_a_queue_has_nothing_stored_twice_and_an_incomplete_audit_no_loss(tmp_path: Path) -> None:
    seen = found(cell(tmp_path, acked(GAP), kind=Kind.QUEUE, complete=False))
    assert [(i.counts.lost, i.counts.stored_twice) for i in seen.outages] == [(None, None)] * 2


def test_a_part_of_a_fault_has_the_longest_gap_that_touches_it(tmp_path: Path) -> None:
    seen = found(cell(tmp_path, acked(GAP), fault="kill:leader"))
    (part,) = seen.stretches
    assert part.what == "kill (leader)"
    assert (seen.clock.seconds(part.began_ns), part.ended_ns and seen.clock.seconds(part.ended_ns)) == (10.1, 17.0)
    assert part.gap_s is not None
    assert round(part.gap_s, 2) == 3.1


def test_parts_are_told_apart_by_their_number_and_one_without_a_heal_has_no_end(tmp_path: Path) -> None:
    parts = [{**event, "part": number} for number in (0, 1) for event in fault_events("pause", "a")]
    parts = [e for e in parts if not (e["part"] == 1 and e.get("step") == "healed") and e["event"] == "fault"]
    seen = found(cell(tmp_path, acked(range(300)), events=parts))
    assert [(s.what, s.ended_ns is None) for s in seen.stretches] == [("pause (a)", False), ("pause (a)", True)]


def test_each_turn_of_a_rolling_restart_has_its_own_gap(tmp_path: Path) -> None:
    says = {"t_ns": at(6), "event": "fault", "part": 0, "action": "rolling-restart", "aim": "all", "target": ["a", "b"]}
    turns = {"a": [at(6), at(9)], "b": [at(9), at(19)]}
    events = [{**says, "step": "injected", "evidence": {"exit_code": {"a": 0}}, "detail": {"turns": turns}}]
    seen = found(cell(tmp_path, acked(GAP), events=events))
    assert [(s.what, s.gap_s and round(s.gap_s, 1)) for s in seen.stretches] == [
        ("rolling-restart of a", 0.1),
        ("rolling-restart of b", 3.1),
    ]


def test_a_member_that_was_away(tmp_path: Path) -> None:
    def alive(seconds: float, *names: str) -> dict[str, Any]:
        return {"t_ns": at(seconds), "event": "members", "alive": list(names), "since_ns": at(seconds - 1)}

    events = [alive(1, "a", "b"), alive(4, "a"), alive(5, "a", "b")]
    events += [alive(11, "b"), alive(14, "a", "b"), alive(20.5, "a")]
    seen = found(cell(tmp_path, acked(GAP), events=events))
    told = [
        (s.what, seen.clock.seconds(s.began_ns), s.ended_ns and seen.clock.seconds(s.ended_ns), round(s.gap_s or 0, 1))
        for s in seen.stretches
    ]
    assert told == [("b away", 3, 5, 0.1), ("a away", 10, 14, 3.1), ("b away", 19.5, None, 2.6)]


def test_a_time_in_which_nobody_answered_tells_nothing_of_each(tmp_path: Path) -> None:
    def alive(seconds: float, *names: str) -> dict[str, Any]:
        return {"t_ns": at(seconds), "event": "members", "alive": list(names)}

    seen = found(cell(tmp_path, acked(GAP), events=[alive(1, "a", "b"), alive(5), alive(8, "a"), alive(9)]))
    assert [(s.what, s.began_ns, s.ended_ns) for s in seen.stretches] == [
        ("nobody answered", at(5), at(8)),
        ("b away", at(8), None),
        ("nobody answered", at(9), None),
    ]


def test_a_leader_that_moved_and_one_that_came_back(tmp_path: Path) -> None:
    def leads(seconds: float, name: str | None) -> dict[str, Any]:
        return {"t_ns": at(seconds), "event": "leader", "place": 0, "node": name}

    events = [leads(1, "a"), leads(5, None), leads(6, "a"), leads(10, None), {**leads(12, "b"), "since_ns": at(11)}]
    seen = found(cell(tmp_path, acked(GAP), events=events))
    told = [
        (s.what, seen.clock.seconds(s.began_ns), s.ended_ns and seen.clock.seconds(s.ended_ns)) for s in seen.stretches
    ]
    assert told == [("b leads instead of a", 11, 12)]


def test_times_are_told_in_utc_where_the_ledger_has_a_clock(tmp_path: Path) -> None:
    clock = {"t_ns": at(-5), "event": "clock", "utc": "2026-01-02T03:04:05.250+00:00"}
    seen = found(cell(tmp_path, acked(range(300)), events=[clock])).clock
    assert seen.at(at(10)) == datetime(2026, 1, 2, 3, 4, 20, 250_000, UTC)
    assert Clock(load_ns=0, utc=None).at(7) is None


def test_without_acknowledgements_nothing_is_measured(tmp_path: Path) -> None:
    assert told(timeline, cell(tmp_path, acked(GAP), acknowledged=False)) is None
