"""The state of a job and the pipeline under it, on the memory broker: what a failure leaves, and what it does not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from mqtest import body, jobs
from mqtest.brokers import memory
from mqtest.clients import client
from mqtest.clients import memory as client_memory
from mqtest.clients.pipeline import Pipeline
from mqtest.clock import NS_PER_S, wait_until
from mqtest.model import RUNNER, Delivery, Kind, Outcome, Output, Replay, Value, Wiring, Workload
from mqtest.replay_table import of_job
from mqtest.workload import Role, WorkerPlan
from mqtest.workload.job import Input, Job
from tests.memory_rig import Rig, profile, running

RUN = 7
REPLAY = Replay(keys=3, window_s=1)
DUE_NS = 5 * NS_PER_S


@contextmanager
def ready(folder: Path, kind: Kind = Kind.LOG, **dials: Value) -> Iterator[tuple[Rig, Wiring]]:
    """A memory broker with a topic and the output of job 0, and the wiring of that job."""
    asked = profile(dials, kind)
    with running(folder, asked) as rig:
        wiring = of_job(rig.broker.wiring(), 0, 0)
        memory.connect(asked, rig.cluster.nodes, 1, wiring.output.topic).create_places()
        yield rig, wiring


def job_of(wiring: Wiring, folder: Path, output: Output = Output.AT_LEAST_ONCE) -> Job:
    plan = WorkerPlan(
        role=Role.TRANSFORMER,
        number=0,
        run_number=RUN,
        wiring=wiring,
        workload=Workload(),
        folder=str(folder / "transforms.0"),
        log=str(folder / "log"),
        settle_s=5,
        replay=replace(REPLAY, output=output),
    )
    return Job(plan, client("memory"))


def inputs(seqs: Sequence[int]) -> list[Input]:
    """Each at the position of its number."""
    return [Input(0, seq, b"", body.Header(RUN, 0, seq, DUE_NS)) for seq in seqs]


def expected(seqs: Sequence[int]) -> dict[tuple[int, int, int], tuple[int, int]]:
    rows: dict[tuple[int, int, int], tuple[int, int]] = {}
    for seq in seqs:
        key, amount = jobs.key_and_amount(0, seq, REPLAY.keys)
        before = rows.get((0, key, 5), (0, 0))
        rows[0, key, 5] = before[0] + 1, before[1] + amount
    return rows


def told(outputs: Sequence[tuple[int, bytes]]) -> dict[tuple[int, int, int], tuple[int, int]]:
    table = jobs.Table(RUN)
    for _place, text in outputs:
        table.take(text)
    return table.rows


def write(pipeline: Pipeline, outputs: Sequence[tuple[int, bytes]]) -> None:
    assert pipeline.write(outputs) is Outcome.ACKED


def opened(wiring: Wiring, epoch: int = 0) -> Pipeline:
    return client_memory.open_transformer(wiring, 0, epoch, 1)


def batch(pipeline: Pipeline) -> Sequence[Delivery]:
    return wait_until(lambda: pipeline.poll(0.05), 5, "a batch", poll_s=0)


def test_an_output_is_the_row_that_its_input_changed(tmp_path: Path) -> None:
    with ready(tmp_path) as (_rig, wiring):
        job = job_of(wiring, tmp_path)
        outputs = job.outputs(inputs(range(20)))
    assert [body.decode(text) for _, text in outputs] == [(RUN, 0, seq, 0) for seq in range(20)]
    assert [jobs.decode(text).offset for _, text in outputs] == list(range(20))
    assert told(outputs) == expected(range(20))


def test_a_batch_that_was_not_written_never_was(tmp_path: Path) -> None:
    with ready(tmp_path) as (_rig, wiring):
        job = job_of(wiring, tmp_path)
        for outcome in (Outcome.REFUSED, Outcome.UNKNOWN, Outcome.ACKED):
            outputs = job.outputs(inputs([0, 1, 2]))
            assert told(outputs) == expected([0, 1, 2])
            job.settle(outcome)
        assert told(job.outputs(inputs([3]))).items() <= expected([0, 1, 2, 3]).items()


@pytest.mark.parametrize(
    ("output", "again"),
    [(Output.AT_LEAST_ONCE, [0, 1, 2, 3, 2, 3, 4]), (Output.EXACTLY_ONCE, [0, 1, 2, 3, 4])],
)
def test_a_job_that_comes_back_has_its_state_from_its_output(
    tmp_path: Path, output: Output, again: Sequence[int]
) -> None:
    """It had written what it read up to position 3, and committed only position 1."""
    with ready(tmp_path) as (_rig, wiring):
        first, pipeline = job_of(wiring, tmp_path, output), opened(wiring)
        assert first.restore() == 0
        write(pipeline, first.outputs(inputs(range(4))))
        pipeline.close(1)
        second, pipeline = job_of(wiring, tmp_path, output), opened(wiring, 1)
        assert second.restore() == 4
        outputs = second.outputs(inputs([2, 3, 4]))
        write(pipeline, outputs)
        second.settle(Outcome.ACKED)
        pipeline.close(1)
        last = job_of(wiring, tmp_path, output)
        assert last.restore() == len(again)
        everything = last.outputs(inputs([5, 6, 7, 8, 9]))  # every key is among them
    assert told(everything) == expected([*again, 5, 6, 7, 8, 9])


def test_within_a_batch_too_an_input_counts_once(tmp_path: Path) -> None:
    with ready(tmp_path) as (_rig, wiring):
        job = job_of(wiring, tmp_path, Output.EXACTLY_ONCE)
        assert told(job.outputs(inputs([0, 1, 1, 0, 2]))) == expected([0, 1, 2])


def test_on_a_queue_there_is_nothing_to_come_back_to_and_tags_are_no_positions(tmp_path: Path) -> None:
    with ready(tmp_path, Kind.QUEUE) as (_rig, wiring):
        job = job_of(wiring, tmp_path, Output.EXACTLY_ONCE)
        assert job.restore() == 0
        job.outputs(inputs([5]))
        job.settle(Outcome.ACKED)
        assert len(job.outputs(inputs([3]))) == 1


# --- the pipeline


def test_positions_are_committed_when_the_outputs_are_acknowledged(tmp_path: Path) -> None:
    with ready(tmp_path) as (rig, wiring):
        rig.send(range(10))
        pipeline = opened(wiring)
        taken = batch(pipeline)
        assert [d.offset for d in taken] == list(range(10))
        assert dict(pipeline.positions) == {}
        write(pipeline, [(0, body.encode(RUN, 0, d.offset, 0, 64)) for d in taken])
        assert dict(pipeline.positions) == {0: 9}
        pipeline.close(1)
        rig.send([10])
        after = opened(wiring, 1)
        assert [d.offset for d in batch(after)] == [10]
        after.close(1)


def test_an_output_that_is_not_acknowledged_ends_it_and_its_inputs_come_again(tmp_path: Path) -> None:
    with ready(tmp_path, refuse_every=13) as (rig, wiring):
        rig.send(range(10))
        pipeline = opened(wiring)
        outputs = [(0, body.encode(RUN, 0, d.offset, 0, 64)) for d in batch(pipeline)]
        assert pipeline.write(outputs) is Outcome.UNKNOWN  # the third of them is the 13th message of all
        assert pipeline.failed == "an output is refused"
        assert dict(pipeline.positions) == {}
        pipeline.close(1)
        after = opened(wiring, 1)
        assert [d.offset for d in batch(after)] == list(range(10))
        after.close(1)


def test_a_broker_that_dies_ends_it(tmp_path: Path) -> None:
    with ready(tmp_path) as (rig, wiring):
        rig.send(range(3))
        pipeline = opened(wiring)
        outputs = [(0, body.encode(RUN, 0, d.offset, 0, 64)) for d in batch(pipeline)]
        rig.cluster.kill(["memory-1"])
        assert pipeline.write(outputs) is Outcome.UNKNOWN
        assert pipeline.failed
        pipeline.close(0.1)


def test_two_jobs_read_the_same_and_write_apart(tmp_path: Path) -> None:
    with ready(tmp_path) as (rig, wiring):
        rig.send(range(5))
        other = of_job(rig.broker.wiring(), 1, 0)
        assert other.output.topic != wiring.output.topic
        for own in (wiring, other):
            memory.connect(profile({}), rig.cluster.nodes, 1, own.output.topic).create_places()
            pipeline = opened(own)
            assert [d.offset for d in batch(pipeline)] == list(range(5))
            write(pipeline, [(0, body.encode(RUN, RUNNER, 0, 0, 64))])
            pipeline.close(1)
        for own in (wiring, other):
            assert memory.connect(profile({}), rig.cluster.nodes, 1, own.output.topic).remaining({}) == 1
