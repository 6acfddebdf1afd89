"""Pipelines of the confluent client against the mock cluster inside librdkafka, and the loop around them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import KafkaException, TopicPartition

from mqtest import body, jobs, ledger
from mqtest.clients import confluent
from mqtest.clients.confluent_transformer import Transformer
from mqtest.clock import wait_until
from mqtest.model import RUNNER, Delivery, Outcome, Replay, Value, Wiring, Workload
from mqtest.replay_table import of_job
from mqtest.workload import Role, WorkerPlan
from mqtest.workload.processes import Workers
from tests.test_confluent import drive, mock_cluster, producer_of, read, wiring_to

TRANSACTIONAL: dict[str, Value] = {"mqtest.transaction.messages": 20, "transaction.timeout.ms": 5000}
_numbers = itertools.count()


@pytest.fixture(scope="module")
def wiring() -> Iterator[Wiring]:
    mock, address = mock_cluster()
    yield wiring_to(address)
    mock.close()


def with_inputs(wiring: Wiring, count: int, more: dict[str, Value], consumer: dict[str, Value]) -> Wiring:
    """A topic of the test's own with so many inputs in place 0, and the settings."""
    topic = f"pipeline-{next(_numbers)}"
    plain = replace(wiring, topic=topic, group=topic)
    producer, settled = producer_of(plain)
    for seq in range(count):
        assert producer.send(seq, 0, body.encode(7, 0, seq, 0, 64))
    assert producer.send(count, 0, body.encode(7, RUNNER, 0, 0, 64))
    drive(producer, lambda: len(settled) == count + 1, "the inputs")
    producer.close(5)
    return replace(plain, producer={**plain.producer, **more}, consumer={**plain.consumer, **consumer})


def batch(transformer: Transformer) -> Sequence[Delivery]:
    return wait_until(lambda: transformer.poll(0.1), 20, "a batch", poll_s=0.0)


def outputs(wiring: Wiring, count: int) -> list[int | None]:
    reader = confluent.open_reader(wiring.output, [0])
    found = [body.decode(d.body) for d in read(reader, count)]
    reader.close(5)
    return [head and head.seq for head in found]


def test_a_batch_that_is_aborted_comes_again_and_moves_no_position(wiring: Wiring) -> None:
    wiring = with_inputs(wiring, 30, TRANSACTIONAL, {})
    transformer = confluent.open_transformer(wiring, 0, 0, 1)
    first = batch(transformer)
    transformer._produce = lambda *_: False  # type: ignore[method-assign]
    assert transformer.write([(0, b"x")]) is Outcome.REFUSED
    del transformer._produce
    assert (transformer.positions.get(0), transformer.failed) == (None, None)
    again = batch(transformer)
    assert [d.offset for d in again][:1] == [d.offset for d in first][:1] == [0]
    assert transformer.write([(0, d.body) for d in again]) is Outcome.ACKED
    assert transformer.positions[0] == again[-1].offset
    transformer.close(5)
    assert outputs(wiring, len(again)) == list(range(len(again)))


@pytest.mark.parametrize(
    ("consumer", "expected", "failed"),
    [({}, Outcome.UNKNOWN, "not every output is acknowledged"), ({"enable.auto.commit": True}, Outcome.ACKED, "None")],
    ids=["manual", "automatic"],
)
def test_an_output_that_is_not_written(
    wiring: Wiring, consumer: dict[str, Value], expected: Outcome, failed: str
) -> None:
    transformer = confluent.open_transformer(with_inputs(wiring, 0, {}, consumer), 0, 0, 1)
    transformer._produce = lambda *_: False  # type: ignore[method-assign]
    assert transformer.write([(0, b"x")]) is expected
    assert str(transformer.failed).startswith(failed)
    transformer.close(5)


@pytest.mark.parametrize("raised", [None, KafkaException("thrown out")], ids=["committed", "refused"])
def test_positions_are_committed_after_the_outputs(
    wiring: Wiring, raised: KafkaException | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    transformer = confluent.open_transformer(with_inputs(wiring, 0, {}, {}), 0, 0, 1)
    asked: list[int] = []

    class Group:
        """The consumer's place in its group."""

        def commit(self, *, offsets: Sequence[TopicPartition], asynchronous: bool) -> None:
            assert not asynchronous
            asked.extend(o.offset for o in offsets)
            assert transformer._open == 0, "an output is still without an answer"
            if raised is not None:
                raise raised

        def close(self) -> None:
            """Leave."""

    monkeypatch.setattr(transformer, "_consumer", Group())
    transformer._next = {0: 9}
    outcome = transformer.write([(0, b"x"), (0, b"y")])
    assert (outcome, asked) == (Outcome.ACKED if raised is None else Outcome.UNKNOWN, [9])
    assert (transformer.positions, transformer.failed is None) == (({0: 8}, True) if raised is None else ({}, False))
    transformer.close(1)


def test_the_loop_passes_on_each_message_of_the_load_once(wiring: Wiring, tmp_path: Path) -> None:
    wiring = with_inputs(wiring, 300, TRANSACTIONAL, {"session.timeout.ms": 6000})
    events: list[dict[str, Any]] = []
    workers = Workers("test", events.append)
    plan = WorkerPlan(
        role=Role.TRANSFORMER,
        number=0,
        run_number=7,
        wiring=wiring,
        workload=Workload(transformers=1),
        folder=str(tmp_path / "transforms.0"),
        log=str(tmp_path / "transformer-0.log"),
        settle_s=5,
    )
    try:
        workers.start([plan])
        workers.go(Role.TRANSFORMER)
        wait_until(lambda: workers.positions(Role.TRANSFORMER).get(0) == 300, 20, "all", poll_s=0.02)
        workers.stop(Role.TRANSFORMER)
        workers.wait_done(Role.TRANSFORMER, 10)
    finally:
        workers.close()
    assert outputs(wiring, 300) == list(range(300))  # the runner's is not passed on
    assert ledger.load_receipts(tmp_path / "transforms.0")["seq"][:300].tolist() == list(range(300))


def test_a_job_that_is_killed_and_comes_back_has_counted_each_message_once(wiring: Wiring, tmp_path: Path) -> None:
    wiring = with_inputs(wiring, 200, TRANSACTIONAL, {"session.timeout.ms": 6000, "isolation.level": "read_committed"})
    own = of_job(wiring, 1, 0)
    events: list[dict[str, Any]] = []
    workers = Workers("test", events.append)
    plan = WorkerPlan(
        role=Role.TRANSFORMER,
        number=1,
        run_number=7,
        wiring=own,
        workload=Workload(transformers=2),
        folder=str(tmp_path / "transforms.1"),
        log=str(tmp_path / "transformer-1.log"),
        settle_s=5,
        replay=Replay(keys=3),
    )
    try:
        workers.start([plan])
        workers.go(Role.TRANSFORMER)
        wait_until(lambda: workers.positions(Role.TRANSFORMER).get(0) == 200, 20, "all", poll_s=0.02)
        workers.crash(Role.TRANSFORMER)
        workers.revive(Role.TRANSFORMER)
        wait_until(lambda: [e for e in events if e.get("outputs") == 200], 20, "its state", poll_s=0.02)
    finally:
        workers.close()
    table = jobs.Table(run=7)
    reader = confluent.open_reader(own.output, [0])
    for delivery in read(reader, 200):
        table.take(delivery.body)
    reader.close(5)
    amounts = [jobs.key_and_amount(0, seq, 3) for seq in range(200)]
    expected = {(0, k, 0): (len(mine), sum(mine)) for k in range(3) if (mine := [a for key, a in amounts if key == k])}
    assert (table.rows, table.seen) == (expected, {0: 199})
