"""Worker processes that are killed on purpose, and come back, on the memory broker."""

from __future__ import annotations

import logging
import os
import re
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mqtest import ledger
from mqtest.body import encode
from mqtest.clock import wait_until
from mqtest.errors import ClusterError
from mqtest.model import Consume, Kind, Wiring, Workload
from mqtest.workload import Role, WorkerPlan, priority
from mqtest.workload.__main__ import log_handler
from mqtest.workload.processes import Workers
from mqtest.workload.producer import retimed
from tests.amqp_server import amqp_server
from tests.memory_rig import Rig, profile, running

LOAD = Workload(rate_per_s=500, consume=Consume.LIVE)
FOLDERS = {Role.PRODUCER: "sends", Role.CONSUMER: "receipts"}


def plan(rig: Rig, folder: Path, role: Role, number: int = 0, load: Workload = LOAD) -> WorkerPlan:
    return WorkerPlan(
        role=role,
        number=number,
        run_number=7,
        wiring=rig.broker.wiring(),
        workload=load,
        folder=str(folder / f"{FOLDERS[role]}.{number}"),
        log=str(folder / f"{role}-{number}.log"),
        settle_s=5,
    )


@contextmanager
def workers(
    folder: Path, *roles: Role, held: Role | None = None, delay_ms: float = 0, process_ms: float = 0
) -> Iterator[tuple[Workers, list[dict[str, Any]]]]:
    """One worker of each role at work on a memory broker, but for the one `held` back; and the events that they say."""
    events: list[dict[str, Any]] = []
    with running(folder, profile({"delay_ms": delay_ms})) as rig:
        group = Workers("test", events.append)
        try:
            load = replace(LOAD, process_ms=process_ms)
            group.start([plan(rig, folder, role, load=load) for role in roles])
            for role in roles:
                if role is not held:
                    group.go(role)
            yield group, events
        finally:
            group.close()


def test_a_producer_that_is_killed_comes_back_and_goes_on_after_its_last_row(tmp_path: Path) -> None:
    with workers(tmp_path, Role.PRODUCER, delay_ms=20) as (group, events):
        wait_until(lambda: group.total("acked") > 20, 10, "some acks", poll_s=0.01)
        evidence = group.crash(Role.PRODUCER)
        rows = len(ledger.load_sends(tmp_path / "sends.0")["sent_ns"])
        assert evidence["exit_code"] == {"producer 0": -signal.SIGKILL}
        assert evidence["open_sends"]["producer 0"] > 0
        group.check()  # it was meant to die
        assert group.revive(Role.PRODUCER) == {"revived": ["producer 0"]}
        wait_until(lambda: group.total("sent") > rows + 10, 10, "it to go on", poll_s=0.01)
        group.stop(Role.PRODUCER)
        group.wait_done(Role.PRODUCER, 10)
    sends = ledger.load_sends(tmp_path / "sends.0")
    assert sends["epoch"][:rows].tolist() == [0] * rows
    assert set(sends["epoch"][rows:].tolist()) == {1}
    assert (sends["settled_ns"][:rows] == 0).sum() == evidence["open_sends"]["producer 0"]
    assert (sends["settled_ns"][rows:] != 0).all()
    assert [e["epoch"] for e in events if e.get("state") == "opened"] == [0, 1]


def test_a_producer_of_an_open_loop_comes_first_and_that_of_a_closed_loop_does_not(tmp_path: Path) -> None:
    events: list[dict[str, Any]] = []
    with running(tmp_path, profile({})) as rig:
        group = Workers("test", events.append)
        try:
            closed = plan(rig, tmp_path, Role.PRODUCER, 1, replace(LOAD, rate_per_s=None))
            group.start([plan(rig, tmp_path, Role.PRODUCER), closed])
            first, second = (os.getpriority(os.PRIO_PROCESS, pid) for pid in group.pids(Role.PRODUCER))
        finally:
            group.close()
    ours = os.getpriority(os.PRIO_PROCESS, 0)
    assert second == ours
    free = os.geteuid() == 0 and ours == 0 and os.sched_getscheduler(0) == os.SCHED_OTHER
    assert first == (priority.NICE if free else ours)
    assert [(e["producer"], e["nice"]) for e in events if e["event"] == "priority"] == [(0, first)]


def test_a_run_that_was_given_a_priority_keeps_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "setpriority", lambda *_: pytest.fail("another one"))
    monkeypatch.setattr(os, "getpriority", lambda *_: 5)
    assert priority.come_first() == 5
    monkeypatch.setattr(os, "getpriority", lambda *_: 0)
    monkeypatch.setattr(os, "sched_getscheduler", lambda _pid: os.SCHED_IDLE)
    assert priority.come_first() == 0


def test_where_no_process_may_come_first_the_load_goes_on_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(_which: int, _who: int, _nice: int) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "setpriority", refused)
    monkeypatch.setattr(os, "sched_getscheduler", lambda _pid: os.SCHED_OTHER)
    monkeypatch.setattr(os, "setsid", lambda: pytest.fail("a session of its own, for nothing"))
    assert priority.come_first() == os.getpriority(os.PRIO_PROCESS, 0)


def test_a_consumer_that_is_killed_comes_back_and_goes_on(tmp_path: Path) -> None:
    with workers(tmp_path, Role.PRODUCER, Role.CONSUMER) as (group, _events):
        wait_until(lambda: group.total("delivered") > 20, 10, "deliveries", poll_s=0.01)
        assert group.crash(Role.CONSUMER) == {"exit_code": {"consumer 0": -signal.SIGKILL}}
        before = ledger.load_receipts(tmp_path / "receipts.0")
        assert group.crash(Role.CONSUMER) == {}, "there is none left to kill"
        group.revive(Role.CONSUMER)
        wait_until(lambda: group.total("delivered") > len(before["seq"]) + 20, 10, "more", poll_s=0.01)
        assert group.positions()[0] >= before["offset"].max()
        for role in (Role.PRODUCER, Role.CONSUMER):
            group.stop(role)
            group.wait_done(role, 10)
    receipts = ledger.load_receipts(tmp_path / "receipts.0")
    assert np.array_equal(receipts["seq"][: len(before["seq"])], before["seq"])
    assert set(receipts["epoch"].tolist()) == {0, 1}


def test_a_receipt_is_written_when_the_message_is_processed_and_the_rest_at_the_end(tmp_path: Path) -> None:
    with workers(tmp_path, Role.PRODUCER, Role.CONSUMER, held=Role.CONSUMER, process_ms=100) as (group, _events):
        wait_until(lambda: group.total("acked") > 200, 10, "acks", poll_s=0.01)
        group.go(Role.CONSUMER)  # now: its first fetch brings more than it can process before the end
        wait_until(lambda: group.total("delivered") >= 3, 10, "some deliveries", poll_s=0.01)
        group.stop(Role.PRODUCER)
        group.wait_done(Role.PRODUCER, 10)
        group.stop(Role.CONSUMER)
        group.wait_done(Role.CONSUMER, 10)
    received = ledger.load_receipts(tmp_path / "receipts.0")["received_ns"]
    assert (np.diff(received[:3]) >= 99e6).all()
    assert len(received) > 10, "what was in hand"


def test_what_came_while_an_automatic_consumer_left_is_in_its_ledger(tmp_path: Path) -> None:
    with amqp_server() as server:
        wiring = Wiring(
            broker="rabbitmq",
            client="pika",
            kind=Kind.QUEUE,
            acknowledged=True,
            addresses=(server.address,),
            topic="t",
            places=1,
            group="g",
            producer={},
            consumer={"auto_ack": True},
        )
        folder = str(tmp_path / "receipts.0")
        one = WorkerPlan(
            role=Role.CONSUMER,
            number=0,
            run_number=7,
            wiring=wiring,
            workload=LOAD,
            folder=folder,
            settle_s=5,
            log=str(tmp_path / "consumer-0.log"),
        )
        group = Workers("test", lambda _event: None)
        group.start([one])
        group.go(Role.CONSUMER)
        wait_until(lambda: server.no_ack, 10, "a consumer")
        server.deliver(1, encode(7, 0, 0, 0, 64))
        wait_until(lambda: group.total("delivered") == 1, 10, "a receipt")
        server.on_the_way = [(2, encode(7, 0, 1, 0, 64)), (3, encode(7, 0, 2, 0, 64))]
        group.stop(Role.CONSUMER)
        group.wait_done(Role.CONSUMER, 10)
        group.close()
    assert list(ledger.load_receipts(tmp_path / "receipts.0")["seq"]) == [0, 1, 2]


def test_a_crashed_worker_that_stays_down_is_done_and_told_later_what_it_missed(tmp_path: Path) -> None:
    with workers(tmp_path, Role.PRODUCER) as (group, _events):
        assert group.crash(Role.PRODUCER, [1]) == {}, "there is no producer 1"
        assert group.revive(Role.PRODUCER) == {}
        group.crash(Role.PRODUCER, [0])
        group.stop(Role.PRODUCER)
        group.wait_done(Role.PRODUCER, 1)
        group.revive(Role.PRODUCER)
        group.wait_done(Role.PRODUCER, 10)


def test_a_worker_that_dies_by_itself_is_an_error(tmp_path: Path) -> None:
    with workers(tmp_path, Role.PRODUCER) as (group, _events):
        group._workers[0].process.kill()
        with pytest.raises(ClusterError, match="producer 0 ended with exit code -9"):
            wait_until(lambda: group.check(), 5, "the error", poll_s=0.01)  # type: ignore[func-returns-value]


def test_what_a_client_library_warns_of_is_kept(tmp_path: Path) -> None:
    log = tmp_path / "logs" / "producer-0.log"
    wiring = Wiring(
        broker="kafka",
        client="confluent",
        kind=Kind.LOG,
        acknowledged=True,
        addresses=("127.0.0.1:1",),  # nobody listens there
        topic="t",
        places=1,
        group="g",
        producer={},
        consumer={},
    )
    one = WorkerPlan(
        role=Role.PRODUCER,
        number=0,
        run_number=7,
        wiring=wiring,
        workload=LOAD,
        folder=str(tmp_path / "sends.0"),
        log=str(log),
        settle_s=5,
    )
    group = Workers("test", lambda _event: None)
    try:
        group.start([one])
        wait_until(lambda: log.exists() and log.stat().st_size, 10, "a warning")
    finally:
        group.close()
    assert re.search(r"^\d{4}-\d\d-\d\dT[\d:.]+Z mqtest\.librdkafka .*refused", log.read_text(), re.M)


def test_what_a_client_library_says_is_kept_without_secrets(tmp_path: Path) -> None:
    handler = log_handler(tmp_path / "client.log", {"sasl.password": "x1y2z3", "sasl.username": "somebody"})
    try:
        raise ValueError("x1y2z3 again")
    except ValueError:
        handler.emit(logging.makeLogRecord({"name": "lib", "msg": "somebody with x1y2z3", "exc_info": sys.exc_info()}))
    handler.close()
    text = (tmp_path / "client.log").read_text()
    assert "lib somebody with ***" in text
    assert "ValueError: *** again" in text
    assert "x1y2z3" not in text


@pytest.mark.parametrize(
    ("rate_per_s", "share", "producers", "last_due_ns", "expected"),
    [
        (10.0, 0.0, 1, 0, (5_000_000_000, 1e8)),
        (10.0, 0.5, 2, 0, (5_100_000_000, 2e8)),
        (10.0, 0.0, 1, 4_990_000_000, (5_090_000_000, 1e8)),  # one new interval after the last one that was due
        (10.0, 0.0, 1, 1_000_000_000, (5_000_000_000, 1e8)),  # that is past: now, and nothing to catch up with
        (0.0, 0.0, 1, 4_990_000_000, (1 << 62, 0.0)),
    ],
)
def test_a_new_rate_begins_where_the_old_one_ended(
    rate_per_s: float, share: float, producers: int, last_due_ns: int, expected: tuple[int, float]
) -> None:
    assert retimed(rate_per_s, share, producers, last_due_ns, 5_000_000_000) == expected


def test_a_producer_takes_new_rates_while_it_runs(tmp_path: Path) -> None:
    with workers(tmp_path, Role.PRODUCER) as (group, events):

        def taken(rate_per_s: float, more: int) -> dict[str, Any]:
            """Wait for the change, and for some messages after it."""
            wait_until(lambda: events[-1].get("rate_per_s") == rate_per_s, 10, "the rate", poll_s=0.01)
            wanted = int(events[-1]["seq"]) + more
            wait_until(lambda: group.total("sent") >= wanted, 10, "messages", poll_s=0.01)
            return events[-1]

        wait_until(lambda: group.total("sent") > 20, 10, "the first rate", poll_s=0.01)
        group.pace(1000)
        faster = taken(1000, 200)
        group.pace(0)
        paused = taken(0, 0)
        wait_until(lambda: group.total("paused") == 1, 10, "the pause", poll_s=0.01)
        group.pace(100)
        slower = taken(100, 10)
        group.stop(Role.PRODUCER)
        group.wait_done(Role.PRODUCER, 10)
    due = ledger.load_sends(tmp_path / "sends.0")["due_ns"]
    assert (due > 0).all(), "every row has its time: nothing was forgotten"
    ends = [0, faster["seq"], paused["seq"], len(due)]
    for begin, end, interval_ns in zip(ends, ends[1:], (2e6, 1e6, 1e7), strict=False):
        assert np.abs(np.diff(due[begin:end]) - interval_ns).max() <= 1
    assert paused["seq"] == slower["seq"], "nothing fell due in the pause"
    assert due[slower["seq"]] == slower["next_due_ns"] > paused["t_ns"]


def test_a_producer_that_comes_back_has_the_last_rate(tmp_path: Path) -> None:
    with workers(tmp_path, Role.PRODUCER) as (group, events):
        group.pace(1000)
        wait_until(lambda: events[-1].get("rate_per_s") == 1000, 10, "the rate", poll_s=0.01)
        group.crash(Role.PRODUCER)
        group.revive(Role.PRODUCER)
        wait_until(lambda: [e.get("rate_per_s") for e in events].count(1000) == 2, 10, "it again", poll_s=0.01)
