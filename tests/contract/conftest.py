"""Brings each subject of the contract suite up once, where no cluster like it stands, and empties queues before each
test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from mqtest.clock import wait_until
from mqtest.model import Kind
from tests.contract.rig import Rig, Standing, Subject, brought_up


@pytest.fixture(scope="module")
def standing() -> Iterator[Standing]:
    found = Standing()
    yield found
    found.close()


@pytest.fixture(scope="module")
def subject_rig(
    request: pytest.FixtureRequest, standing: Standing, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Rig]:
    subject: Subject = request.param
    with brought_up(subject, standing, tmp_path_factory.mktemp("cluster")) as rig:
        yield rig


@pytest.fixture
def rig(subject_rig: Rig) -> Rig:
    """The subject's rig; a queue holds nothing."""
    if subject_rig.profile.kind is Kind.QUEUE and subject_rig.broker.remaining({}):
        consumer = subject_rig.client.open_consumer(subject_rig.wiring(), 0, 0, 1)

        def empty() -> bool:
            while consumer.poll(0.1):
                consumer.ack()
            return subject_rig.broker.remaining({}) == 0

        wait_until(empty, 20, "the queue to be emptied")
        consumer.close(5)
    return subject_rig
