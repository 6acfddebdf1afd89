"""The pytest plugin: a cluster, its faults and a ledger as fixtures of a user's own tests.

    @pytest.mark.mqtest(broker="kafka", profile="acks-all")
    def test_nothing_is_forgotten(mq_cluster, mq_topic, mq_faults, mq_ledger): ...

mq_cluster   a fresh cluster: `bootstrap`, `addresses`, `producer_settings`, …   (testbed.UserCluster)
mq_topic     the topic, or the queues, of this test: `name`, `queues`, `group`, `await_drained()`   (testbed.Topic)
mq_faults    `with mq_faults("power-cut:leader"):` in force while the block runs, then healed, and proven
mq_ledger    what was sent, received and processed, and the judgement   (user_ledger.Ledger)

It costs nothing until a fixture is asked for: nothing else of mqtest, and no library, is imported before that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from mqtest.testbed import Bed, Topic, UserCluster
    from mqtest.user_ledger import Ledger

MARKER = "mqtest"
_KEYS = ("broker", "profile", "nodes", "places", "faults")


def pytest_configure(config: pytest.Config) -> None:
    """See pytest."""
    config.addinivalue_line(
        "markers",
        f"{MARKER}(broker, profile=a safe one, nodes=3, places=1, faults=()): the cluster of mq_cluster; `faults` "
        "names those that it has to be prepared for (bad links, clocks that jump)",
    )


@pytest.fixture
def _mqtest_bed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bed]:
    """The cluster that the test's marker asks for, for this test alone."""
    marker = request.node.get_closest_marker(MARKER)
    if marker is None:
        pytest.fail(f"mqtest: {request.node.name} needs a marker, such as @pytest.mark.mqtest(broker=\"kafka\")", False)
    wrong = [key for key in marker.kwargs if key not in _KEYS]
    if marker.args or wrong or "broker" not in marker.kwargs:
        pytest.fail(f"mqtest: the marker takes {', '.join(f'{key}=' for key in _KEYS)}, and needs broker=", False)
    from mqtest import testbed
    from mqtest.errors import MqtestError

    asked = testbed.Asked(**{**marker.kwargs, "faults": tuple(marker.kwargs.get("faults", ()))})
    with ExitStack() as stack:
        try:
            entered = testbed.bed(asked, tmp_path_factory.mktemp("mqtest") / "cell", lambda _note: None)
            bed = stack.enter_context(entered)
        except MqtestError as error:
            pytest.fail(f"mqtest: {error}", pytrace=False)
        yield bed


@pytest.fixture
def mq_cluster(_mqtest_bed: Bed) -> UserCluster:
    """A fresh cluster, as the marker `mqtest(broker=…, profile=…)` asks for it."""
    from mqtest.testbed import UserCluster

    return UserCluster(_mqtest_bed)


@pytest.fixture
def mq_topic(_mqtest_bed: Bed) -> Topic:
    """The topic, or the queues, that were made for this test."""
    from mqtest.testbed import topic

    return topic(_mqtest_bed)


@pytest.fixture
def mq_faults(_mqtest_bed: Bed) -> Callable[[str], AbstractContextManager[None]]:
    """`with mq_faults("kill:leader"):` the fault is in force while the block runs; `mqtest list` has all of them."""
    return _mqtest_bed.in_force


@pytest.fixture
def mq_ledger(_mqtest_bed: Bed) -> Ledger:
    """What the test's producers and consumers tell, and the judgement."""
    return _mqtest_bed.ledger
