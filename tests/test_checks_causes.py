"""Findings with causes: where a loss went, how a duplicate came about, what allows disorder, what a consumer missed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mqtest.causes import FlushInterval, disorder, flush_interval, second_copies
from mqtest.model import Flag, Kind, Outcome
from tests.histories import Got, Sent, at, write_cell_folder
from tests.test_checks import acked, find, got, numbers

LOG, QUEUE = Kind.LOG, Kind.QUEUE
AGAIN = Flag.REDELIVERED
NEVER = str(2**63 - 1)


class TestWhereALossWent:
    names = ("lost_cut_off", "lost_beyond_end", "lost_in_hole", "lost_unplaced")

    def test_each_way(self, tmp_path: Path) -> None:
        sends = [*acked(range(3)), Sent(3, offset=-1), Sent(4, offset=0), Sent(5, offset=7), Sent(6, offset=2**62 + 1)]
        finding = find("loss", write_cell_folder(tmp_path, sends=sends, audit=[Got(4, 0), Got(2, 2)]))
        assert numbers(finding, "lost", *self.names) == (5, 1, 1, 2, 1)
        assert [line.partition(", ")[2] for line in finding.examples] == [
            "where another one is now",  # 0
            "where nothing is now",  # 1
            "",  # 3: no position
            "where nothing is now",  # 5
            "beyond the end of the log",
        ]

    def test_the_end_itself_is_held_and_one_more_is_beyond(self, tmp_path: Path) -> None:
        sends = [Sent(0, offset=2**62), Sent(1, offset=2**62 + 1)]  # the fence stands at 2^62
        finding = find("loss", write_cell_folder(tmp_path, sends=sends))
        assert numbers(finding, *self.names) == (1, 1, 0, 0)

    def test_a_reader_names_the_position_where_the_ack_does_not(self, tmp_path: Path) -> None:
        sends = [Sent(0, offset=-1), Sent(1, offset=7), Sent(2, offset=5)]
        folder = write_cell_folder(tmp_path, sends=sends, receipts=[Got(0, 7), Got(2, 9)], audit=[Got(1, 7)])
        assert numbers(find("loss", folder), "lost", *self.names) == (2, 1, 0, 1, 0)

    def test_another_place_holds_nothing_for_it(self, tmp_path: Path) -> None:
        sends = [Sent(0), Sent(1, place=1, offset=0)]
        folder = write_cell_folder(tmp_path, sends=sends, audit=[Got(1, 0, place=1)], places=2)
        assert numbers(find("loss", folder), *self.names) == (0, 0, 1, 0)

    def test_a_queue_has_no_positions(self, tmp_path: Path) -> None:
        finding = find("loss", write_cell_folder(tmp_path, kind=QUEUE, sends=acked(range(2))))
        assert finding.count == 2
        assert not set(self.names) & set(finding.numbers)

    def test_nothing_lost_went_nowhere(self, tmp_path: Path) -> None:
        finding = find("loss", write_cell_folder(tmp_path, sends=acked(range(2)), audit=got(range(2))))
        assert numbers(finding, *self.names) == (0, 0, 0, 0)
        assert finding.notes == ()


ROCKETMQ: dict[str, Any] = {"broker": "rocketmq", "effective": {"broker.flushIntervalCommitLog": "500"}}


class TestAgeOfALoss:
    def note(self, tmp_path: Path, settled_s: float, **record: Any) -> str:
        folder = write_cell_folder(
            tmp_path, fault="power-cut:all", sends=[Sent(0, sent_s=1.0, settled_s=settled_s)], **record
        )
        (note,) = find("loss", folder).notes
        return note

    def test_within_the_flush_interval(self, tmp_path: Path) -> None:
        note = self.note(tmp_path, 9.6, **ROCKETMQ)
        assert note == (
            "the oldest lost message was acked 0.5 s before the fault, within the flush interval of 0.5 s "
            "(flushIntervalCommitLog=500)"
        )

    def test_longer_than_the_flush_interval(self, tmp_path: Path) -> None:
        assert "0.501 s before the fault, longer than the flush" in self.note(tmp_path, 9.599, **ROCKETMQ)

    def test_no_flush_interval(self, tmp_path: Path) -> None:
        assert "the settings name no flush interval" in self.note(tmp_path, 9.0)

    @pytest.mark.parametrize(("settled_s", "after"), [(10.1, "0"), (12.1, "2")])
    def test_acked_after_the_fault(self, tmp_path: Path, settled_s: float, after: str) -> None:
        note = self.note(tmp_path, settled_s, **ROCKETMQ)
        assert note == f"all lost messages were acked after the fault, the first {after} s after it"

    def test_without_a_fault_there_is_no_age(self, tmp_path: Path) -> None:
        finding = find("loss", write_cell_folder(tmp_path, sends=acked(range(2)), **ROCKETMQ))
        assert (finding.count, finding.notes) == (2, ())
        assert numbers(finding, "lost_age_s_max", "flush_interval_s") == (None, 0.5)

    def test_of_several_faults_the_next_one_counts(self, tmp_path: Path) -> None:
        second = {"event": "fault", "t_ns": at(20.0), "step": "injected", "action": "kill", "target": ["b"]}
        sends = [Sent(0, settled_s=9.0), Sent(1, settled_s=17.0), Sent(2, settled_s=22.0)]
        folder = write_cell_folder(tmp_path, fault="power-cut:all", sends=sends, events=[second])
        assert numbers(find("loss", folder), "lost_age_s_max", "lost_age_s_min") == (3.0, -2.0)


_FLUSH: list[tuple[str, dict[str, str], FlushInterval | None]] = [
    ("kafka", {"broker.log.flush.interval.messages": "1"}, FlushInterval(0.0, "flush.messages=1")),
    ("kafka", {"broker.log.flush.interval.messages": NEVER, "topic.flush.messages": "1"},
     FlushInterval(0.0, "flush.messages=1")),
    ("kafka", {"broker.log.flush.interval.messages": "1", "topic.flush.messages": "2"}, None),
    ("kafka", {"broker.log.flush.interval.messages": NEVER, "broker.log.flush.interval.ms": ""}, None),
    ("kafka", {"broker.log.flush.interval.ms": "1000"}, None),
    ("kafka", {"broker.log.flush.scheduler.interval.ms": "1000"}, None),
    ("kafka", {"broker.log.flush.interval.ms": "1000", "broker.log.flush.scheduler.interval.ms": NEVER}, None),
    ("kafka", {"topic.flush.ms": NEVER, "broker.log.flush.scheduler.interval.ms": "1000"}, None),
    ("kafka", {"broker.log.flush.interval.ms": "1000", "broker.log.flush.scheduler.interval.ms": "500"},
     FlushInterval(1.5, "flush.ms=1000, log.flush.scheduler.interval.ms=500")),
    ("rabbitmq", {"topic.x-queue-type": "quorum"}, FlushInterval(0.0, "x-queue-type=quorum")),
    ("rabbitmq", {"topic.x-queue-type": "quorum", "advanced.ra.wal_sync_method": "none"}, None),
    ("rabbitmq", {"topic.x-queue-type": "classic"}, None),
    ("rocketmq", {"broker.flushDiskType": "SYNC_FLUSH", "broker.flushIntervalCommitLog": "500"},
     FlushInterval(0.0, "flushDiskType=SYNC_FLUSH")),
    ("rocketmq", {"broker.flushDiskType": "ASYNC_FLUSH", "broker.flushIntervalCommitLog": "500"},
     FlushInterval(0.5, "flushIntervalCommitLog=500")),
    ("rocketmq", {"broker.flushDiskType": "ASYNC_FLUSH"}, None),
    ("memory", {"broker.flushIntervalCommitLog": "500"}, None),
]  # fmt: skip


@pytest.mark.parametrize(("broker", "effective", "interval"), _FLUSH)
def test_flush_intervals(broker: str, effective: dict[str, str], interval: FlushInterval | None) -> None:
    assert flush_interval({"broker": broker, "effective": effective}) == interval


def test_a_cell_without_settings_says_nothing() -> None:
    assert (flush_interval({}), second_copies({}), disorder({})) == (None, (), ())


def producer(client: str, **settings: Any) -> dict[str, Any]:
    keys = {key.replace("__", "."): value for key, value in settings.items()}
    return {"client": client, "kind": "log", "settings": {"producer": keys}}


_CLIENTS = [
    (producer("confluent"), True, "max.in.flight=1000000"),
    (producer("confluent", enable__idempotence=False), True, "max.in.flight=1000000"),
    (producer("confluent", enable__idempotence=False, max__in__flight=5), True, "max.in.flight=5"),
    (producer("confluent", max__in__flight__requests__per__connection=2), True, "max.in.flight=2"),
    (producer("confluent", enable__idempotence=False, max__in__flight=1), True, None),
    (producer("confluent", enable__idempotence=True), False, None),
    (producer("confluent", transactional__id="a"), False, None),
    (producer("rocketmq-client-python", threads=8), True, "threads=8"),
    (producer("rocketmq-wire"), False, None),
    (producer("pika"), False, None),
    (producer("pika") | {"kind": "queue"}, False, "requeued"),
]


@pytest.mark.parametrize(("cell", "copies", "order"), _CLIENTS)
def test_what_the_settings_allow(cell: dict[str, Any], copies: bool, order: str | None) -> None:
    assert bool(second_copies(cell)) is copies
    assert [order in line for line in disorder(cell)] == ([True] if order else []) if order else disorder(cell) == ()


class TestStoredTwiceByCause:
    names = ("twice_read_copy_gone", "twice_after_doubt", "twice_after_ack")

    def test_each_cause(self, tmp_path: Path) -> None:
        sends = [*acked(range(4)), Sent(4, Outcome.UNKNOWN), Sent(5, Outcome.UNKNOWN)]
        audit = [*got(range(6)), Got(1, 11), Got(2, 12), Got(4, 14)]
        receipts = [Got(3, 23), Got(5, 25), Got(1, 31), Got(0)]
        folder = write_cell_folder(tmp_path, sends=sends, receipts=receipts, audit=audit)
        finding = find("stored-twice", folder)
        assert numbers(finding, "stored_twice", *self.names) == (5, 2, 1, 2)

    def test_the_setting_that_allows_it_is_named(self, tmp_path: Path) -> None:
        sends, audit = [Sent(0)], [Got(0), Got(0, 9)]
        by_retry = write_cell_folder(tmp_path / "a", sends=sends, audit=audit, client="confluent")
        idempotent = {"producer": {"enable.idempotence": True}}
        never = write_cell_folder(tmp_path / "b", sends=sends, audit=audit, client="confluent", settings=idempotent)
        none = write_cell_folder(tmp_path / "c", sends=sends, audit=audit[:1], client="confluent")
        assert find("stored-twice", by_retry).notes[0].startswith("enable.idempotence=false: ")
        assert find("stored-twice", never).notes == ("no setting of this client is known to allow it",)
        assert find("stored-twice", none).notes == ()


class TestRedeliveredByCause:
    names = ("again_after_reconnect", "again_in_same_session")

    def test_in_a_log(self, tmp_path: Path) -> None:
        receipts = [*got(range(4)), Got(0), Got(1, epoch=1), Got(2, actor=1), Got(2, actor=1)]
        folder = write_cell_folder(tmp_path, sends=acked(range(4)), receipts=receipts, audit=got(range(4)))
        finding = find("redelivered", folder)
        assert numbers(finding, "redelivered", *self.names) == (4, 2, 2)
        assert "again_in_audit" not in finding.numbers
        assert sorted(finding.examples)[:2] == [
            "producer 0 seq 0 again",
            "producer 0 seq 1 again after a reconnect or a rebalance",
        ]

    def test_the_receipt_before_it_in_time_decides(self, tmp_path: Path) -> None:
        receipts = [Got(0, received_s=31), Got(0, received_s=33), Got(0, actor=1, epoch=1, received_s=32)]
        folder = write_cell_folder(tmp_path, sends=[Sent(0)], receipts=receipts, audit=[Got(0)])
        assert numbers(find("redelivered", folder), *self.names) == (2, 0)

    def test_in_a_queue(self, tmp_path: Path) -> None:
        receipts = [*got(range(4)), Got(0, flags=AGAIN), Got(1, epoch=1, flags=AGAIN), Got(2, epoch=1)]
        audit = [Got(3, flags=AGAIN)]
        folder = write_cell_folder(tmp_path, kind=QUEUE, sends=acked(range(4)), receipts=receipts, audit=audit)
        finding = find("redelivered", folder)
        assert numbers(finding, "redelivered", "redelivered_unflagged") == (3, 1)
        assert numbers(finding, "again_in_audit", *self.names) == (1, 2, 1)
        assert finding.examples[0] == "producer 0 seq 2 again after a reconnect or a rebalance, without the flag"


class TestOrderByCause:
    def test_producers_places_and_settings_are_named(self, tmp_path: Path) -> None:
        sends = [*acked(range(6), offset=-1), *acked(range(3), producer=1, place=1, offset=-1)]
        audit = [
            *(Got(seq, i) for i, seq in enumerate([0, 5, 1, 2, 3, 4])),
            *(Got(seq, i, producer=1, place=1) for i, seq in enumerate([1, 0, 2])),
        ]
        folder = write_cell_folder(tmp_path, sends=sends, audit=audit, places=2, client="confluent")
        finding = find("reordered", folder)
        assert numbers(finding, "reordered", "reordered_by_max") == (5, 4)
        assert finding.notes[:2] == ("producer 0 in place 0: 4 out of order", "producer 1 in place 1: 1 out of order")
        assert finding.notes[2].startswith("enable.idempotence=false with max.in.flight=1000000")

    def test_where_nothing_allows_it_that_is_said(self, tmp_path: Path) -> None:
        folder = write_cell_folder(tmp_path, sends=acked(range(2), offset=-1), audit=[Got(1, 0), Got(0, 1)])
        assert find("reordered", folder).notes[1] == "no setting of this client is known to allow it"

    def test_in_order_nothing_is_said(self, tmp_path: Path) -> None:
        finding = find("reordered", write_cell_folder(tmp_path, sends=acked(range(2)), audit=got(range(2))))
        assert (finding.notes, finding.numbers["reordered_by_max"]) == ((), 0)


def said(event: str, **fields: Any) -> dict[str, Any]:
    return {"event": event, "t_ns": at(34), **fields}


class TestSkippedByConsumer:
    def test_three_planted(self, tmp_path: Path) -> None:
        receipts = [Got(s) for s in (0, 2, 5, 6)]
        finding = find(
            "skipped-by-consumer",
            write_cell_folder(tmp_path, sends=acked(range(9)), receipts=receipts, audit=got(range(9))),
        )
        assert finding.count == 3  # 1, 3, 4; 7 and 8 are ahead of the group
        assert finding.examples[0] == "producer 0 seq 1 at place 0 offset 1, the group went on to 7"

    def test_none_planted(self, tmp_path: Path) -> None:
        folder = write_cell_folder(tmp_path, sends=acked(range(9)), receipts=got(range(7)), audit=got(range(9)))
        assert find("skipped-by-consumer", folder).count == 0

    @pytest.mark.parametrize(("committed", "skipped"), [(3, 0), (4, 1), (2, 0)])
    def test_the_committed_offset_is_how_far_the_group_came(self, tmp_path: Path, committed: int, skipped: int) -> None:
        folder = write_cell_folder(
            tmp_path,
            sends=acked(range(6)),
            receipts=got(range(3)),
            audit=got(range(6)),
            events=[said("committed", places={"0": 99}), said("committed", places={"0": committed, "1": None})],
        )
        assert find("skipped-by-consumer", folder).count == skipped

    def test_unknown_ones_lost_ones_and_copies_are_not_skipped(self, tmp_path: Path) -> None:
        sends = [Sent(0, Outcome.UNKNOWN), Sent(1), Sent(2), Sent(3)]
        folder = write_cell_folder(tmp_path, sends=sends, receipts=[Got(2, 7), Got(3)], audit=[Got(0), Got(2), Got(3)])
        assert find("skipped-by-consumer", folder).count == 0

    def test_a_reader_of_the_lost_tail_skips_what_took_its_place(self, tmp_path: Path) -> None:
        sends = [Sent(0), Sent(1), Sent(2, offset=1)]
        folder = write_cell_folder(tmp_path, sends=sends, receipts=got([0, 1]), audit=[Got(0), Got(2, 1)])
        assert find("skipped-by-consumer", folder).count == 1

    def test_places_are_told_apart(self, tmp_path: Path) -> None:
        sends = [Sent(0), Sent(1, place=1, offset=0), Sent(2, place=1, offset=1)]
        audit = [Got(0), Got(1, 0, place=1), Got(2, 1, place=1)]
        folder = write_cell_folder(tmp_path, sends=sends, receipts=[Got(0, 0)], audit=audit, places=2)
        assert find("skipped-by-consumer", folder).count == 0

    def test_not_told_for_a_queue_without_receipts_or_without_acks(self, tmp_path: Path) -> None:
        rows: dict[str, Any] = {"sends": acked(range(3)), "audit": got(range(3))}
        queue = write_cell_folder(tmp_path / "a", kind=QUEUE, receipts=got([2]), **rows)
        unread = write_cell_folder(tmp_path / "b", **rows)
        blind = write_cell_folder(tmp_path / "c", receipts=got([2]), acknowledged=False, **rows)
        incomplete = write_cell_folder(tmp_path / "d", receipts=got([0, 1]), complete=False, **rows)
        seen = write_cell_folder(tmp_path / "e", receipts=got([0, 2]), complete=False, **rows)
        counts = [find("skipped-by-consumer", folder).count for folder in (queue, unread, blind, incomplete, seen)]
        assert counts == [None, None, None, None, 1]


class TestCommitted:
    @pytest.mark.parametrize(("offset", "beyond"), [(50, 0), (51, 1)])
    def test_held_against_the_end_that_the_broker_named(self, tmp_path: Path, offset: int, beyond: int) -> None:
        event = said("committed", places={"0": offset}, ends={"0": 50})
        finding = find("committed", write_cell_folder(tmp_path, sends=[Sent(0)], audit=[Got(0)], events=[event]))
        assert (finding.count, finding.numbers["committed_beyond_end"]) == (beyond, beyond)
        assert finding.examples == (("place 0: committed 51, the log ends at 50",) if beyond else ())

    @pytest.mark.parametrize(("offset", "beyond"), [(2**62 + 1, 0), (2**62 + 2, 1)])
    def test_else_against_the_end_of_the_audit(self, tmp_path: Path, offset: int, beyond: int) -> None:
        event = said("committed", places={"0": offset})
        folder = write_cell_folder(tmp_path, sends=[Sent(0)], audit=[Got(0)], events=[event])
        assert find("committed", folder).count == beyond

    def test_not_told_without_an_event_an_end_or_a_log(self, tmp_path: Path) -> None:
        event = said("committed", places={"0": 2**62 + 2})
        rows: dict[str, Any] = {"sends": [Sent(0)], "audit": [Got(0)]}
        silent = write_cell_folder(tmp_path / "a", **rows)
        endless = write_cell_folder(tmp_path / "b", complete=False, events=[event], **rows)
        queue = write_cell_folder(tmp_path / "c", kind=QUEUE, events=[event], **rows)
        assert [find("committed", folder).count for folder in (silent, endless, queue)] == [None, None, None]


class TestConservation:
    sends = (*acked(range(6)), Sent(6, Outcome.UNKNOWN), Sent(7, Outcome.UNKNOWN), Sent(8, Outcome.REFUSED))
    # 0 to 2 consumed; 3 consumed and back in the queue; 4 and the unknown 6 still there; 5 lost; 7 never arrived
    receipts = tuple(got(range(4)))
    audit = (Got(3, flags=AGAIN), Got(4), Got(6))

    def unaccounted(self, tmp_path: Path, **totals: int) -> Any:
        folder = write_cell_folder(
            tmp_path,
            kind=QUEUE,
            sends=self.sends,
            receipts=self.receipts,
            audit=self.audit,
            events=[
                said("counts", when="drained", totals={"ready": 77, "unacked": 0}),
                said("counts", when="drained", totals=totals),
                said("counts", when="steady", totals={"ready": 77, "unacked": 0}),
            ],
        )
        return find("conservation", folder).numbers["unaccounted"]

    def test_what_is_short_is_the_lost_one(self, tmp_path: Path) -> None:
        assert self.unaccounted(tmp_path / "a", ready=3, unacked=0) == 1
        assert self.unaccounted(tmp_path / "b", ready=1, unacked=2) == 1

    def test_a_dead_lettered_one_is_accounted_for(self, tmp_path: Path) -> None:
        assert self.unaccounted(tmp_path, ready=3, unacked=0, dead_lettered=1) == 0

    def test_below_zero_the_broker_holds_copies(self, tmp_path: Path) -> None:
        assert self.unaccounted(tmp_path, ready=5, unacked=0) == -1

    @pytest.mark.parametrize(("received_s", "unaccounted"), [(34.0, 0), (34.1, 1)])
    def test_what_was_consumed_after_the_counts_was_among_them(
        self, tmp_path: Path, received_s: float, unaccounted: int
    ) -> None:
        event = said("counts", when="drained", totals={"ready": 0, "unacked": 0})
        folder = write_cell_folder(
            tmp_path, kind=QUEUE, sends=[Sent(0)], receipts=[Got(0, received_s=received_s)], events=[event]
        )
        finding = find("conservation", folder)
        assert (finding.count, finding.numbers["unaccounted"]) == (unaccounted, unaccounted)

    def test_not_told_where_the_broker_did_not_say(self, tmp_path: Path) -> None:
        assert self.unaccounted(tmp_path / "a", ready=3) is None
        assert self.unaccounted(tmp_path / "b", unacked=3) is None
        assert self.unaccounted(tmp_path / "c") is None

    def test_not_told_without_counts_for_a_log_or_an_incomplete_audit(self, tmp_path: Path) -> None:
        event = said("counts", when="drained", totals={"ready": 1, "unacked": 0})
        sends = [Sent(0)]
        silent = write_cell_folder(tmp_path / "a", kind=QUEUE, sends=sends)
        log = write_cell_folder(tmp_path / "b", sends=sends, events=[event])
        cut = write_cell_folder(tmp_path / "c", kind=QUEUE, sends=sends, events=[event], complete=False)
        assert [find("conservation", folder).count for folder in (silent, log, cut)] == [None, None, None]
