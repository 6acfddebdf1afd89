"""Every check in both directions: what was planted is found exactly, and in a clean history nothing is."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mqtest import history
from mqtest.checks import CHECKS, divergence, duplicates, order, recovery, speed
from mqtest.checks.sightings import MOST_EXAMPLES
from mqtest.judge import COLUMNS
from mqtest.model import Finding, Flag, Kind, Outcome
from tests.histories import CORRUPT, FOREIGN, Got, Sent, Skipped, at, told, write_cell_folder

LOG, QUEUE = Kind.LOG, Kind.QUEUE
AGAIN = Flag.REDELIVERED
ORDER = ("reordered", "reordered_in_session", "reordered_unflagged")


def find(name: str, folder: Path) -> Finding:
    finding = told(CHECKS[name], folder)
    assert len(finding.examples) <= MOST_EXAMPLES
    assert all("\n" not in line for line in finding.examples)
    return finding


def numbers(finding: Finding, *names: str) -> tuple[Any, ...]:
    return tuple(finding.numbers[name] for name in names)


def acked(seqs: Iterable[int], **same: Any) -> list[Sent]:
    return [Sent(seq, **same) for seq in seqs]


def got(seqs: Iterable[int], **same: Any) -> list[Got]:
    return [Got(seq, **same) for seq in seqs]


VIOLATIONS = {
    "loss": ("lost", "lost_degraded"),
    "phantom": ("phantom",),
    "strangers": ("foreign", "corrupt"),
    "stored-twice": ("stored_twice",),
    "redelivered": ("redelivered", "redelivered_unflagged"),
    "reordered": ("reordered", "reordered_in_session", "reordered_unflagged"),
    "divergence": ("offset_divergence",),
}


@pytest.mark.parametrize("kind", list(Kind))
def test_a_clean_history_has_no_findings(tmp_path: Path, kind: Kind) -> None:
    sends: list[Sent | Skipped] = [*acked(range(50)), *acked(range(50), producer=1, offset=-1), Skipped(50)]
    receipts = got(range(25)) if kind is QUEUE else got(range(50))
    audit = [*got(range(25 if kind is QUEUE else 0, 50)), *(Got(s, 2**61 + s, producer=1) for s in range(50))]
    folder = write_cell_folder(tmp_path, kind=kind, sends=sends, receipts=receipts, audit=audit)
    only_log, only_queue = {"stored_twice", "offset_divergence"}, {"redelivered_unflagged"}
    for name, columns in VIOLATIONS.items():
        finding = find(name, folder)
        for column in columns:
            measured = column not in (only_log if kind is QUEUE else only_queue)
            assert finding.numbers[column] == (0 if measured else None), column
        assert finding.examples == ()


def test_every_column_has_one_source(tmp_path: Path) -> None:
    loaded = history.load(write_cell_folder(tmp_path, sends=acked(range(3))))
    named = [number for check in CHECKS.values() for number in check(loaded).numbers]
    assert len(named) == len(set(named))
    start, end = COLUMNS.index("sent"), COLUMNS.index("audit_complete")
    assert sorted(set(COLUMNS[start:end]) - set(named)) == []


def test_every_check_says_what_it_counts() -> None:
    assert all((check.__doc__ or "").partition("\n")[0].endswith((".", ";", ",")) for check in CHECKS.values())


class TestOutcomes:
    def test_each_is_counted(self, tmp_path: Path) -> None:
        said = [Outcome.ACKED, Outcome.ACKED, *list(Outcome)[2:]]
        sends = [Sent(i, outcome) for i, outcome in enumerate(said)]
        folder = write_cell_folder(tmp_path, sends=[*sends, Sent(6, settled=False), Skipped(7)])
        names = ("sent", "skipped", "acked", "degraded", "refused", "returned", "unknown")
        assert numbers(find("outcomes", folder), *names) == (7, 1, 2, 1, 1, 1, 2)

    def test_without_acknowledgements_nothing_is_acked(self, tmp_path: Path) -> None:
        folder = write_cell_folder(tmp_path, acknowledged=False, sends=[*acked(range(3)), Sent(3, Outcome.REFUSED)])
        names = ("sent", "acked", "degraded", "refused", "unknown")
        assert numbers(find("outcomes", folder), *names) == (4, None, None, 1, 3)


class TestLoss:
    def test_three_planted(self, tmp_path: Path) -> None:
        there = [s for s in range(10) if s not in (0, 4, 9)]
        folder = write_cell_folder(tmp_path, sends=acked(range(10)), audit=got(there))
        finding = find("loss", folder)
        assert finding.count == 3
        assert numbers(finding, "lost", "delivered", "lost_ppm") == (3, 7, 300_000.0)
        assert numbers(finding, "prefix", "middle", "suffix") == (1, 1, 1)
        assert finding.examples[1] == "producer 0 seq 4 acked at place 0 offset 4, where nothing is now"

    def test_of_each_producer_apart(self, tmp_path: Path) -> None:
        sends = [*acked(range(4)), *acked(range(4), producer=1), *acked(range(2), producer=2)]
        audit = [*got([2, 3]), *got([0, 1], producer=1)]
        finding = find("loss", write_cell_folder(tmp_path, sends=sends, audit=audit))
        assert numbers(finding, "lost", "prefix", "middle", "suffix") == (6, 2, 0, 4)

    def test_examples_end_at_twenty(self, tmp_path: Path) -> None:
        finding = find("loss", write_cell_folder(tmp_path, sends=acked(range(50))))
        assert (finding.count, len(finding.examples)) == (50, 20)

    def test_read_then_lost_and_reused_in_a_log(self, tmp_path: Path) -> None:
        sends = [*acked(range(4)), Sent(4, offset=2), Sent(5, offset=-1)]
        receipts = [*got([0, 2, 3]), Got(5, 9)]
        audit = [Got(0), Got(1), Got(4, 2)]
        finding = find("loss", write_cell_folder(tmp_path, sends=sends, receipts=receipts, audit=audit))
        assert numbers(finding, "lost", "read_then_lost", "offsets_reused") == (3, 3, 1)
        assert "was read" in finding.examples[0]

    def test_a_position_that_a_fence_took_is_reused(self, tmp_path: Path) -> None:
        folder = write_cell_folder(tmp_path, sends=[Sent(0, offset=2**62)], receipts=[Got(0, 5)])
        assert numbers(find("loss", folder), "lost", "offsets_reused") == (1, 1)

    def test_a_position_known_only_from_a_reader_is_reused(self, tmp_path: Path) -> None:
        sends = [Sent(0, offset=-1), Sent(1, offset=-1)]
        folder = write_cell_folder(tmp_path, sends=sends, receipts=[Got(0, 7)], audit=[Got(1, 7)])
        assert numbers(find("loss", folder), "lost", "offsets_reused") == (1, 1)

    def test_what_lies_in_files_of_the_nodes(self, tmp_path: Path) -> None:
        nodes = {"kafka-1": {"0": [[0, 2], [5, 6]]}, "kafka-2": {"1": [[0, 9]], "0": [[6, 6]]}, "kafka-3": {}}
        events = [{"t_ns": at(50), "event": "on disk", "nodes": nodes}]
        sends, audit = [*acked(range(9)), *acked(range(3), producer=1)], [*got([0, 4]), *got([0, 1], producer=1)]
        finding = find("loss", write_cell_folder(tmp_path, sends=sends, audit=audit, events=events))
        assert numbers(finding, "lost", "lost_on_disk") == (8, 5)
        assert finding.notes == ("4 of them still lie in files of kafka-1", "2 of them still lie in files of kafka-2")

    @pytest.mark.parametrize(
        ("nodes", "number", "notes"),
        [
            ({"kafka-1": {"0": [[0, 0]]}}, 0, ("none of them lies in a file of kafka-1 any more",)),
            ({"kafka-1": {}}, None, ()),
            ({}, None, ()),
        ],
    )
    def test_what_lies_in_no_file(
        self, tmp_path: Path, nodes: dict[str, Any], number: int | None, notes: tuple[str, ...]
    ) -> None:
        events = [{"t_ns": at(50), "event": "on disk", "nodes": nodes}]
        finding = find("loss", write_cell_folder(tmp_path, sends=acked(range(3)), audit=got([0]), events=events))
        assert (finding.numbers["lost_on_disk"], finding.notes) == (number, notes)

    def test_another_place_does_not_reuse(self, tmp_path: Path) -> None:
        sends = [Sent(0), Sent(1, place=1, offset=0)]
        folder = write_cell_folder(tmp_path, sends=sends, audit=[Got(1, 0, place=1)], places=2)
        assert numbers(find("loss", folder), "lost", "offsets_reused") == (1, 0)

    def test_in_a_queue_nothing_is_read_and_then_lost(self, tmp_path: Path) -> None:
        folder = write_cell_folder(tmp_path, kind=QUEUE, sends=acked(range(4)), receipts=got([0, 1]), audit=got([3]))
        finding = find("loss", folder)
        assert numbers(finding, "lost", "read_then_lost", "offsets_reused") == (1, None, None)

    def test_age_before_the_fault(self, tmp_path: Path) -> None:
        sends = [Sent(0, settled_s=4.0), Sent(1, settled_s=9.6), Sent(2, settled_s=12.1), Sent(3, settled_s=1.0)]
        folder = write_cell_folder(tmp_path, fault="kill:leader", sends=sends, audit=got([3]))
        assert numbers(find("loss", folder), "lost_age_s_max", "lost_age_s_min") == (6.1, -2.0)

    def test_degraded_apart(self, tmp_path: Path) -> None:
        folder = write_cell_folder(tmp_path, sends=[Sent(0, Outcome.DEGRADED), Sent(1)], audit=got([1]))
        assert numbers(find("loss", folder), "lost", "lost_degraded") == (0, 1)

    def test_not_told_while_the_audit_is_incomplete(self, tmp_path: Path) -> None:
        finding = find("loss", write_cell_folder(tmp_path, sends=acked(range(4)), complete=False))
        assert finding.count is None
        assert set(finding.numbers.values()) == {None}

    def test_not_told_without_acknowledgements(self, tmp_path: Path) -> None:
        folder = write_cell_folder(tmp_path, sends=acked(range(4)), audit=got([0]), acknowledged=False)
        assert find("loss", folder).count is None
        assert numbers(find("unconfirmed", folder), "recovered", "unresolved", "not_found") == (1, 3, 3)


def test_unconfirmed_messages_are_no_loss(tmp_path: Path) -> None:
    folder = write_cell_folder(tmp_path, sends=acked(range(4), outcome=Outcome.UNKNOWN), audit=got([0]))
    assert numbers(find("unconfirmed", folder), "recovered", "unresolved", "not_found") == (1, 3, None)
    assert find("loss", folder).count == 0


class TestNeverSent:
    def test_phantoms(self, tmp_path: Path) -> None:
        sends = [Sent(0, Outcome.REFUSED), Sent(1, Outcome.RETURNED), Sent(2, Outcome.REFUSED), Sent(3)]
        finding = find("phantom", write_cell_folder(tmp_path, sends=sends, receipts=got([0]), audit=got([1, 3])))
        assert finding.count == 2
        assert finding.examples == ("producer 0 seq 0 refused", "producer 0 seq 1 returned")

    def test_strangers(self, tmp_path: Path) -> None:
        folder = write_cell_folder(tmp_path, sends=[Sent(0)], receipts=[CORRUPT, FOREIGN], audit=[Got(0), Got(6)])
        finding = find("strangers", folder)
        assert numbers(finding, "foreign", "corrupt") == (2, 1)
        assert finding.examples[-1] == "audit: producer 0 seq 6, never sent at place 0 offset 6"


class TestStoredTwice:
    def test_in_the_audit(self, tmp_path: Path) -> None:
        audit = [*got(range(4)), Got(1, 2**62 - 1), Got(1, 2**62 - 2), Got(3, 5)]
        finding = find("stored-twice", write_cell_folder(tmp_path, sends=acked(range(4)), audit=audit))
        assert finding.count == 2
        assert finding.examples[-1] == "producer 0 seq 3 at place 0 offset 3 and place 0 offset 5"

    def test_across_places(self, tmp_path: Path) -> None:
        audit = [Got(0), Got(0, place=1)]
        assert find("stored-twice", write_cell_folder(tmp_path, sends=[Sent(0)], audit=audit, places=2)).count == 1

    def test_between_a_reader_and_the_audit(self, tmp_path: Path) -> None:
        folder = write_cell_folder(tmp_path, sends=[Sent(0, Outcome.UNKNOWN)], receipts=[Got(0, 5)], audit=[Got(0, 6)])
        assert find("stored-twice", folder).count == 1

    def test_one_position_read_often_is_stored_once(self, tmp_path: Path) -> None:
        audit = [Got(0), Got(0, actor=1)]
        other = {"event": "audit", "reader": 1, "complete": True}
        folder = write_cell_folder(tmp_path, sends=[Sent(0)], receipts=[Got(0), Got(0)], audit=audit, events=[other])
        assert find("stored-twice", folder).count == 0

    def test_a_receipt_without_a_position_is_no_second_one(self, tmp_path: Path) -> None:
        folder = write_cell_folder(
            tmp_path, sends=acked(range(2)), receipts=got(range(2), offset=-1), audit=got([0, 1])
        )
        assert find("stored-twice", folder).count == 0
        assert find("divergence", folder).count == 0

    def test_counts_what_was_seen_of_an_incomplete_audit(self, tmp_path: Path) -> None:
        twice = [Got(0), Got(0, 9)]
        seen = write_cell_folder(tmp_path / "a", sends=[Sent(0)], audit=twice, complete=False)
        none = write_cell_folder(tmp_path / "b", sends=[Sent(0)], audit=twice[:1], complete=False)
        assert (find("stored-twice", seen).count, find("stored-twice", none).count) == (1, None)


class TestRedelivered:
    def test_in_a_log_positions_read_again_by_consumers(self, tmp_path: Path) -> None:
        receipts = [*got(range(4)), *got([2, 3], actor=1), Got(3), Got(0, 9)]
        folder = write_cell_folder(
            tmp_path, sends=acked(range(4)), receipts=receipts, audit=[*got(range(4)), Got(0, 9)]
        )
        assert numbers(find("redelivered", folder), "redelivered", "redelivered_unflagged") == (3, None)

    def test_in_a_log_another_message_at_the_position_is_none(self, tmp_path: Path) -> None:
        folder = write_cell_folder(tmp_path, sends=acked(range(2)), receipts=[Got(0, 7), Got(1, 7)], audit=[Got(1, 7)])
        assert numbers(find("redelivered", folder), "redelivered") == (0,)

    def test_in_a_queue_by_the_flag(self, tmp_path: Path) -> None:
        receipts = [*got(range(4)), Got(1, flags=AGAIN), Got(1, flags=AGAIN), Got(2)]
        folder = write_cell_folder(
            tmp_path, kind=QUEUE, sends=acked(range(4)), receipts=receipts, audit=[Got(3, flags=AGAIN)]
        )
        finding = find("redelivered", folder)
        assert numbers(finding, "redelivered", "redelivered_unflagged") == (3, 1)
        assert finding.examples[0] == "producer 0 seq 2 again, without the flag"

    def test_in_a_queue_a_flag_on_the_first_delivery_is_none(self, tmp_path: Path) -> None:
        receipts = got(range(4), flags=AGAIN)
        folder = write_cell_folder(tmp_path, kind=QUEUE, sends=acked(range(4)), receipts=receipts)
        assert numbers(find("redelivered", folder), "redelivered", "redelivered_unflagged") == (0, 0)

    def test_in_a_queue_the_earlier_receipt_is_the_first(self, tmp_path: Path) -> None:
        receipts = [Got(0, flags=AGAIN, received_s=33.0), Got(0, received_s=32.0, actor=1)]
        folder = write_cell_folder(tmp_path, kind=QUEUE, sends=[Sent(0)], receipts=receipts)
        assert numbers(find("redelivered", folder), "redelivered", "redelivered_unflagged") == (1, 0)


class TestReordered:
    def test_in_a_log_by_offset(self, tmp_path: Path) -> None:
        audit = [Got(0, 0), Got(3, 1), Got(1, 2), Got(2, 3), Got(4, 4)]
        finding = find("reordered", write_cell_folder(tmp_path, sends=acked(range(5), offset=-1), audit=audit[::-1]))
        assert finding.count == 2
        assert finding.examples[0] == "producer 0 seq 1 after a later one in place 0"

    def test_in_a_log_a_second_copy_is_no_disorder(self, tmp_path: Path) -> None:
        folder = write_cell_folder(tmp_path, sends=acked(range(4)), audit=[*got(range(4)), Got(1, 9)])
        assert find("reordered", folder).count == 0

    def test_producers_and_places_have_their_own_order(self, tmp_path: Path) -> None:
        sends = [*acked([0, 2]), *acked([1, 3], place=1), *acked(range(2), producer=1)]
        audit = [Got(2, 1), Got(0, 0), Got(1, 0, place=1), Got(3, 1, place=1), *got(range(2), producer=1)]
        audit[-2:] = [Got(0, 2, producer=1), Got(1, 3, producer=1)]
        folder = write_cell_folder(tmp_path, sends=sends, audit=audit, places=2)
        assert find("reordered", folder).count == 0

    def test_the_second_group_is_not_held_to_the_first(self, tmp_path: Path) -> None:
        sends = [*acked(range(5)), *acked(range(3), producer=1, offset=-1)]
        audit = [*got(range(5)), Got(0, 12, producer=1), Got(2, 10, producer=1), Got(1, 11, producer=1)]
        assert find("reordered", write_cell_folder(tmp_path, sends=sends, audit=audit)).count == 2

    def test_in_a_queue_by_time_over_deliveries_and_drain(self, tmp_path: Path) -> None:
        folder = write_cell_folder(
            tmp_path, kind=QUEUE, sends=acked(range(5)), receipts=got([0, 2, 1, 4]), audit=got([3])
        )
        assert find("reordered", folder).count == 2

    def test_in_a_queue_receipts_of_one_instant_keep_the_order_of_the_ledger(self, tmp_path: Path) -> None:
        receipts = got([1, 0], received_s=32.0)
        folder = write_cell_folder(tmp_path, kind=QUEUE, sends=acked(range(2)), receipts=receipts)
        assert find("reordered", folder).count == 1

    def test_in_a_queue_a_redelivery_is_no_disorder(self, tmp_path: Path) -> None:
        folder = write_cell_folder(tmp_path, kind=QUEUE, sends=acked(range(3)), receipts=got([0, 1, 0, 2]))
        assert find("reordered", folder).count == 0

    def test_in_a_queue_what_was_requeued_is_told_apart(self, tmp_path: Path) -> None:
        receipts = [*got([0, 4]), Got(1, flags=AGAIN), Got(2), Got(3, flags=AGAIN), Got(3), Got(2, flags=AGAIN)]
        folder = write_cell_folder(tmp_path, kind=QUEUE, sends=acked(range(6)), receipts=receipts, audit=got([5]))
        assert numbers(find("reordered", folder), *ORDER) == (3, 3, 1)

    def test_in_a_queue_one_that_the_drain_finds_flagged_was_requeued(self, tmp_path: Path) -> None:
        audit = [Got(0, flags=AGAIN), Got(1)]
        folder = write_cell_folder(tmp_path, kind=QUEUE, sends=acked(range(3)), receipts=got([2]), audit=audit)
        assert numbers(find("reordered", folder), *ORDER) == (2, 2, 1)

    def test_in_a_log_a_flag_says_nothing(self, tmp_path: Path) -> None:
        audit = [Got(1, 0, flags=AGAIN), Got(0, 1, flags=AGAIN)]
        finding = find("reordered", write_cell_folder(tmp_path, sends=acked(range(2), offset=-1), audit=audit))
        assert numbers(finding, *ORDER) == (1, 1, 1)

    def test_what_was_on_its_way_of_a_connection_that_failed_may_come_late(self, tmp_path: Path) -> None:
        sends = [*acked(range(4)), *(s._replace(epoch=1) for s in acked(range(4, 8)))]
        receipts = got([0, 4, 1, 5, 3, 2, 7, 6])
        finding = find("reordered", write_cell_folder(tmp_path, kind=QUEUE, sends=sends, receipts=receipts))
        assert numbers(finding, *ORDER) == (4, 2, 2)
        late = "2 of them were on their way of a connection that failed, and came after those of the next"
        assert finding.notes[1] == late

    def test_in_a_queue_with_two_consumers_it_is_not_told(self, tmp_path: Path) -> None:
        receipts = [Got(1), Got(0, actor=1)]
        assert (
            find("reordered", write_cell_folder(tmp_path, kind=QUEUE, sends=acked(range(2)), receipts=receipts)).count
            is None
        )

    def test_in_a_queue_places_with_one_consumer_are_told(self, tmp_path: Path) -> None:
        sends = [*acked([0, 1]), *acked([2, 3], place=1)]
        receipts = [Got(1), Got(0, actor=1), Got(3, place=1), Got(2, place=1)]
        folder = write_cell_folder(tmp_path, kind=QUEUE, sends=sends, receipts=receipts, places=2)
        assert find("reordered", folder).count == 1


class TestDivergence:
    def test_two_messages_at_one_position_that_are_both_there(self, tmp_path: Path) -> None:
        sends = acked(range(3), outcome=Outcome.UNKNOWN)
        folder = write_cell_folder(tmp_path, sends=sends, audit=[Got(0, 5), Got(1, 5), Got(2, 2**62 - 5)])
        finding = find("divergence", folder)
        assert finding.count == 1
        assert finding.examples == ("place 0 offset 5 held producer 0 seq 0 and producer 0 seq 1",)

    def test_a_position_that_was_acked_and_read_and_holds_another_now(self, tmp_path: Path) -> None:
        sends = [Sent(0, offset=5), Sent(1, offset=5)]
        folder = write_cell_folder(tmp_path, sends=sends, receipts=[Got(0, 5)], audit=[Got(0, 1), Got(1, 5)])
        finding = find("divergence", folder)
        assert numbers(finding, "positions_with_two", "moved_from_ack") == (1, 1)

    @pytest.mark.parametrize("outcome", [Outcome.ACKED, Outcome.UNKNOWN])
    def test_a_copy_that_was_read_and_lost_and_sent_again_by_the_client_is_none(
        self, tmp_path: Path, outcome: Outcome
    ) -> None:
        """Kafka, power cut, live consumer: read at 5 before the ack came, truncated, stored again and acked at 1."""
        sends = [Sent(0, outcome, offset=1 if outcome is Outcome.ACKED else -1), Sent(1, offset=5)]
        receipts = [Got(0, 5), Got(0, 1), Got(1, 5)]
        folder = write_cell_folder(tmp_path, sends=sends, receipts=receipts, audit=[Got(0, 1), Got(1, 5)])
        assert (find("divergence", folder).count, find("stored-twice", folder).count) == (0, 1)

    def test_a_lost_message_whose_position_was_taken_is_none(self, tmp_path: Path) -> None:
        sends = [Sent(0, offset=5), Sent(1, offset=5)]
        folder = write_cell_folder(tmp_path, sends=sends, receipts=[Got(0, 5)], audit=[Got(1, 5)])
        assert find("divergence", folder).count == 0

    def test_a_message_elsewhere_than_its_ack_said(self, tmp_path: Path) -> None:
        sends = [Sent(0), Sent(1), Sent(2, Outcome.DEGRADED), Sent(3, Outcome.UNKNOWN), Sent(4, offset=-1)]
        audit = [Got(0, 0), Got(1, 11), Got(2, 12), Got(3, 13), Got(4, 14)]
        finding = find("divergence", write_cell_folder(tmp_path, sends=sends, audit=audit))
        assert numbers(finding, "offset_divergence", "moved_from_ack") == (2, 2)
        assert finding.examples[0] == "producer 0 seq 1, acked at place 0 offset 1, was audited elsewhere"

    def test_the_acked_position_and_a_copy_elsewhere_is_stored_twice_only(self, tmp_path: Path) -> None:
        folder = write_cell_folder(tmp_path, sends=[Sent(0)], audit=[Got(0), Got(0, 8)])
        assert (find("divergence", folder).count, find("stored-twice", folder).count) == (0, 1)

    def test_another_place_than_the_ack_said(self, tmp_path: Path) -> None:
        folder = write_cell_folder(tmp_path, sends=[Sent(0)], audit=[Got(0, place=1)], places=2)
        assert find("divergence", folder).count == 1


class TestUnavailability:
    def test_the_longest_gap_between_acks(self, tmp_path: Path) -> None:
        times = [0.5, 1.0, 4.5, 5.0, 6.5, 29.9]
        sends = [Sent(i, sent_s=t - 0.1, settled_s=t) for i, t in enumerate(times)]
        finding = find("unavailability", write_cell_folder(tmp_path, sends=sends))
        assert finding.count == 3
        assert numbers(finding, "ack_gap_s_max", "outage_s_total") == (23.4, 28.4)

    def test_the_time_to_the_end_of_the_load_counts_and_no_later(self, tmp_path: Path) -> None:
        sends = [Sent(0, sent_s=1, settled_s=1), Sent(1, sent_s=25, settled_s=25), Sent(2, sent_s=26, settled_s=70)]
        assert numbers(find("unavailability", write_cell_folder(tmp_path, sends=sends[:1])), "ack_gap_s_max") == (29.0,)
        later = write_cell_folder(tmp_path / "b", sends=sends)
        assert numbers(find("unavailability", later), "ack_gap_s_max") == (24.0,)

    def test_before_the_first_ack_nothing_counts(self, tmp_path: Path) -> None:
        sends = [Sent(i, sent_s=20 + i / 2, settled_s=20 + i / 2) for i in range(20)]
        assert numbers(find("unavailability", write_cell_folder(tmp_path, sends=sends)), "ack_gap_s_max") == (0.5,)

    def test_the_worst_place_and_degraded_is_no_ack(self, tmp_path: Path) -> None:
        steady = [Sent(i, sent_s=i / 2, settled_s=i / 2) for i in range(60)]
        silent = [Sent(i, outcome, producer=1, place=1, sent_s=i, settled_s=i) for i, outcome in
                  enumerate([Outcome.ACKED, Outcome.DEGRADED, Outcome.UNKNOWN, Outcome.ACKED])]  # fmt: skip
        folder = write_cell_folder(tmp_path, sends=[*steady, *silent], places=2)
        assert numbers(find("unavailability", folder), "ack_gap_s_max") == (27.0,)

    def test_a_place_without_an_ack_was_away_all_the_time(self, tmp_path: Path) -> None:
        sends = [Sent(0, sent_s=1), Sent(1, Outcome.UNKNOWN, place=1, sent_s=1)]
        folder = write_cell_folder(tmp_path, sends=sends, places=2)
        assert numbers(find("unavailability", folder), "ack_gap_s_max") == (30.0,)

    def test_first_ack_of_a_message_sent_after_the_fault(self, tmp_path: Path) -> None:
        sends = [
            Sent(0, sent_s=10.05, settled_s=10.2),  # sent before, acked after: proves nothing
            Sent(1, Outcome.UNKNOWN, sent_s=10.5, settled_s=10.6),
            Sent(2, sent_s=11.0, settled_s=14.6),
            Sent(3, sent_s=12.0, settled_s=15.0),
        ]
        folder = write_cell_folder(tmp_path, fault="kill:leader", sends=sends)
        assert numbers(find("unavailability", folder), "first_ack_after_fault_s", "recovery_s") == (4.5, 2.5)

    def test_first_ack_of_the_worst_place(self, tmp_path: Path) -> None:
        sends = [Sent(0, sent_s=11, settled_s=12.1), Sent(1, place=1, sent_s=11, settled_s=18.1)]
        folder = write_cell_folder(tmp_path, fault="kill:leader", sends=sends, places=2)
        assert numbers(find("unavailability", folder), "first_ack_after_fault_s") == (8.0,)

    def test_a_place_that_never_acked_again_is_not_hidden(self, tmp_path: Path) -> None:
        sends = [Sent(0, sent_s=11, settled_s=12.1), Sent(1, place=1, sent_s=1)]
        folder = write_cell_folder(tmp_path, fault="kill:leader", sends=sends, places=2)
        found = numbers(find("unavailability", folder), "first_ack_after_fault_s", "places_without_ack")
        assert found == (None, 1)

    def test_without_a_fault_or_acknowledgements_it_is_not_told(self, tmp_path: Path) -> None:
        names = ("ack_gap_s_max", "first_ack_after_fault_s", "recovery_s")
        quiet = write_cell_folder(tmp_path / "a", sends=[Sent(0, sent_s=1, settled_s=1)])
        assert numbers(find("unavailability", quiet), *names) == (29.0, None, None)
        silent = write_cell_folder(tmp_path / "b", sends=[Sent(0, sent_s=1)], acknowledged=False, fault="kill:leader")
        assert numbers(find("unavailability", silent), *names) == (None, None, 2.5)

    @pytest.mark.parametrize(("settled_s", "late_ms"), [(9.9, 0.0), (10.12, 120.0), (16.5, 0.0)])
    def test_acks_after_the_silence_of_all_nodes(self, tmp_path: Path, settled_s: float, late_ms: float) -> None:
        event = {"event": "fault", "t_ns": at(10.1), "action": "power-cut", "target": ["all"], "step": "injected",
                 "detail": {"silence_ns": at(10.0)}}  # fmt: skip
        sends = [Sent(0, sent_s=9, settled_s=settled_s)]
        folder = write_cell_folder(tmp_path, fault="power-cut:all", sends=sends, events=[event])
        assert numbers(find("unavailability", folder), "ack_after_silence_ms_max") == (late_ms,)

    def test_gaps_between_deliveries_of_a_live_cell(self, tmp_path: Path) -> None:
        receipts = [Got(i, received_s=t) for i, t in enumerate([1, 2, 12, 29])]
        live = write_cell_folder(tmp_path / "a", consume="live", sends=acked(range(4)), receipts=receipts)
        later = write_cell_folder(tmp_path / "b", sends=acked(range(4)), receipts=receipts)
        assert numbers(find("unavailability", live), "delivery_gap_s_max") == (17.0,)
        assert numbers(find("unavailability", later), "delivery_gap_s_max") == (None,)


class TestThroughput:
    sends = tuple(Sent(i, sent_s=i / 10, settled_s=i / 10 + 0.05) for i in range(200))

    def test_of_the_steady_phase(self, tmp_path: Path) -> None:
        receipts = [Got(i, received_s=i / 5) for i in range(100)]
        folder = write_cell_folder(tmp_path, fault="kill:leader", consume="live", sends=self.sends, receipts=receipts)
        assert numbers(find("throughput", folder), "ack_rate_per_s", "delivered_per_s") == (10.0, 5.0)

    def test_a_drain_is_no_steady_delivery(self, tmp_path: Path) -> None:
        receipts = [Got(i, received_s=31 + i / 100) for i in range(101)]
        folder = write_cell_folder(tmp_path, sends=self.sends, receipts=receipts)
        assert numbers(find("throughput", folder), "delivered_per_s", "drain_per_s") == (None, 101.0)

    def test_without_acknowledgements(self, tmp_path: Path) -> None:
        folder = write_cell_folder(tmp_path, sends=self.sends, acknowledged=False, fault="kill:leader")
        assert numbers(find("throughput", folder), "ack_rate_per_s", "sent_per_s") == (None, 10.0)


class TestLatency:
    def test_nearest_rank_from_the_due_time(self, tmp_path: Path) -> None:
        sends = [Sent(i, due_s=3 + i / 1000, sent_s=3.2, settled_s=3 + (2 * i + 1) / 1000) for i in range(1000)]
        folder = write_cell_folder(tmp_path, sends=sends)
        names = [f"latency_ms_{q}" for q in ("p50", "p95", "p99", "p999", "max")]
        assert numbers(find("latency", folder), *names) == (500.0, 950.0, 990.0, 999.0, 1000.0)

    def test_a_closed_loop_counts_from_the_send(self, tmp_path: Path) -> None:
        folder = write_cell_folder(tmp_path, sends=[Sent(0, sent_s=3, settled_s=3.2, closed_loop=True)])
        assert numbers(find("latency", folder), "latency_ms_max", "service_ms_p50") == (200.0, 200.0)

    def test_phases_apart_by_the_due_time(self, tmp_path: Path) -> None:
        sends = [
            Sent(0, due_s=1.9, settled_s=9.0),  # warm-up
            Sent(1, due_s=2.0, settled_s=2.1),
            Sent(2, due_s=9.9, settled_s=10.4),
            Sent(3, due_s=10.5, sent_s=18.0, settled_s=18.5),  # waited for the broker to come back
            Sent(4, due_s=16.5, settled_s=16.8),
        ]
        folder = write_cell_folder(tmp_path, fault="kill:leader", sends=sends)
        names = ("latency_ms_p50", "latency_ms_max", "fault_latency_ms_max", "recovery_latency_ms_max")
        assert numbers(find("latency", folder), *names) == (100.0, 500.0, 8000.0, 300.0)

    def test_what_was_never_acked_stands_beside_it(self, tmp_path: Path) -> None:
        sends: list[Sent | Skipped] = [
            Sent(0, due_s=3, settled_s=3.1),
            Sent(1, Outcome.UNKNOWN, due_s=3),
            Sent(2, settled=False, due_s=11),
            Skipped(3, due_s=12),
        ]
        finding = find("latency", write_cell_folder(tmp_path, fault="kill:leader", sends=sends))
        names = ("latency_unacked", "latency_skipped", "fault_latency_unacked", "fault_latency_skipped")
        assert numbers(finding, *names) == (1, 0, 1, 1)
        assert numbers(finding, "latency_ms_max", "fault_latency_ms_max") == (100.0, None)

    def test_delivery_of_live_cells(self, tmp_path: Path) -> None:
        receipts = [Got(0, received_s=3.4), Got(0, received_s=3.3, actor=1), Got(1, received_s=20)]
        sends = [Sent(0, due_s=3), Sent(1, due_s=1)]
        live = write_cell_folder(tmp_path / "a", consume="live", sends=sends, receipts=receipts)
        later = write_cell_folder(tmp_path / "b", sends=sends, receipts=receipts)
        names = ("delivery_latency_ms_p50", "delivery_latency_ms_p99")
        assert numbers(find("latency", live), *names) == (300.0, 300.0)
        assert numbers(find("latency", later), *names) == (None, None)


_GOT = st.builds(
    lambda seq, offset, place, flags, actor, at_s: Got(seq, offset, 0, place, flags, actor, at_s),
    st.integers(0, 5),
    st.integers(0, 6),
    st.integers(0, 1),
    st.sampled_from([Flag(0), AGAIN]),
    st.integers(0, 1),
    st.floats(31, 39),
)


def _naive(kind: Kind, receipts: list[Got], audit: list[Got]) -> Mapping[str, int | None]:
    """The same counts, one message at a time."""
    both = receipts + audit
    seqs = {r.seq for r in both}
    if kind is LOG:
        first: dict[tuple[int, int], int] = {}
        for r in audit:
            first[r.place, r.seq] = min(r.offset or 0, first.get((r.place, r.seq), 99))
        late = sum(
            any(p == place and other > seq and o < offset for (p, other), o in first.items())
            for (place, seq), offset in first.items()
        )
        there = {r.seq for r in audit}
        as_acked = [r for r in receipts if r.seq in there and (r.place, r.offset) == (0, r.seq)]
        holders: dict[tuple[int, int | None], set[int]] = {}
        for r in audit + as_acked:
            holders.setdefault((r.place, r.offset), set()).add(r.seq)
        moved = there - {r.seq for r in audit if (r.place, r.offset) == (0, r.seq)}
        return {
            "stored_twice": sum(len({(r.place, r.offset) for r in both if r.seq == s}) > 1 for s in seqs),
            "redelivered": len(receipts) - len({(r.seq, r.place, r.offset) for r in receipts}),
            "redelivered_unflagged": None,
            "reordered": late,
            "offset_divergence": sum(len(held) > 1 for held in holders.values()) + len(moved),
        }
    extra = [r for s in seqs for r in sorted((r for r in both if r.seq == s), key=lambda r: r.received_s or 0)[1:]]
    flagged = sum(bool(r.flags) for r in extra)
    return {
        "stored_twice": None,
        "redelivered": flagged,
        "redelivered_unflagged": len(extra) - flagged,
        "offset_divergence": None,
    }


@given(st.sampled_from(list(Kind)), st.lists(_GOT, max_size=9), st.lists(_GOT, max_size=9))
def test_duplicates_and_order_agree_with_a_naive_model(kind: Kind, receipts: list[Got], audit: list[Got]) -> None:
    # one position of an audit holds one message; times are all different, so that "first" means one receipt
    audit = list({(r.place, r.offset): r for r in audit}.values()) if kind is LOG else audit
    audit = [r._replace(actor=0, received_s=40.5 + i / 10) for i, r in enumerate(audit)]
    receipts = list({r.received_s: r for r in receipts}.values())
    sends = acked(range(6))  # each at the offset of its own number, in place 0
    with tempfile.TemporaryDirectory() as tmp:
        folder = write_cell_folder(Path(tmp), kind=kind, sends=sends, receipts=receipts, audit=audit, places=2)
        loaded = history.load(folder)
    found: dict[str, Any] = {}
    for check in (
        duplicates.stored_twice,
        duplicates.redelivered,
        order.reordered,
        divergence.divergence,
    ):
        found |= check(loaded).numbers
    expected = _naive(kind, receipts, audit)
    assert {name: found[name] for name in expected} == expected


def test_time_checks_survive_a_cell_without_phases(tmp_path: Path) -> None:
    folder = write_cell_folder(tmp_path, sends=acked(range(3)))
    path = folder / "ledger" / "events.jsonl"
    path.write_text("".join(x for x in path.read_text().splitlines(True) if '"phase"' not in x))
    loaded = history.load(folder)
    for check in (recovery.unavailability, speed.throughput, speed.latency):
        assert set(check(loaded).numbers.values()) == {None}
