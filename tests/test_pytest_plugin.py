"""The pytest plugin in tests of its own, on the embedded broker: an honest consumer passes, a careless one does not,
the fault is real, and what is asked for wrongly is one line. And it costs nothing until it is used."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from mqtest.pytest_plugin import MARKER

pytest_plugins = ("pytester",)
ROOT = Path(__file__).resolve().parent.parent

APP = '''
import pytest
from mqtest.clients import client
from mqtest.model import Outcome


def send(cluster, ledger, count):
    def settle(seq, outcome, offset, place):
        (ledger.acked if outcome is Outcome.ACKED else ledger.unknown)(bodies.pop(seq))

    bodies = {seq: ledger.next_body(f"order {seq}") for seq in range(count)}
    producer = client("memory").open_producer(cluster.wiring, settle, 0, 0)
    for seq, body in list(bodies.items()):
        producer.send(seq, 0, body)
    while bodies:
        producer.poll(1.0)
    producer.close(1.0)


def consume(cluster, topic, ledger, *, commits_first, dies_after=None):
    consumer = client("memory").open_consumer(cluster.wiring, 0, 0, 1)
    done = 0
    while topic.remaining():
        batch = consumer.poll(0.2)
        for d in batch:
            ledger.received(d.body, place=d.place, offset=d.offset, redelivered=d.redelivered)
        if commits_first:
            consumer.ack()
        for d in batch:
            if done == dies_after:
                consumer.close(1.0)
                return
            ledger.processed(d.body)
            done += 1
        consumer.ack()
        consumer._connection.pump(0)
    consumer.close(1.0)
'''


def run(pytester: pytest.Pytester, test: str, *options: str) -> pytest.RunResult:
    """One test file, in a process of its own."""
    pytester.makepyfile(app=APP)
    pytester.makepyfile(test_it=f"import pytest\nfrom app import *\n\n{test}")
    return pytester.runpytest_subprocess("-p", "mqtest.pytest_plugin", "-p", "no:cacheprovider", *options)


@pytest.mark.parametrize("profile", ["log-safe", "queue-safe"])
def test_an_honest_consumer_passes_and_one_that_commits_before_it_processes_does_not(
    pytester: pytest.Pytester, profile: str
) -> None:
    result = run(
        pytester,
        f"""
pytestmark = pytest.mark.mqtest(broker="memory", profile="{profile}")

@pytest.mark.parametrize("commits_first", [False, True], ids=["honest", "careless"])
def test_orders(commits_first, mq_cluster, mq_topic, mq_faults, mq_ledger):
    send(mq_cluster, mq_ledger, 60)
    consume(mq_cluster, mq_topic, mq_ledger, commits_first=commits_first, dies_after=25)
    with mq_faults("power-cut:all"):
        pass
    consume(mq_cluster, mq_topic, mq_ledger, commits_first=commits_first)
    judged = mq_ledger.judge()
    assert (judged.acked, judged.lost, judged.left) == (60, 0, 0)
    judged.assert_kept()
    assert (judged.processed, judged.processed_again) == (60, 25)
""",
    )
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(
        [
            "*_ test_orders?careless? _*",
            "E * AssertionError: 35 acknowledged messages were missed: a consumer told the broker that it is done *",
            "E * producer 0 seq 25*",
            "E * the broker: kept (0 of 60 acked messages lost under power-cut:all)",
            "E * sent 60, acked 60, processed 25, lost 0, missed 35, left 0, *",
            "E * ledger: *",
            "FAILED *test_orders?careless?*",
        ]
    )


def test_a_broker_that_loses_what_it_acknowledged_is_found_out(pytester: pytest.Pytester) -> None:
    result = run(
        pytester,
        """
@pytest.mark.mqtest(broker="memory", profile="log-lying")
def test_lies(mq_cluster, mq_faults, mq_ledger):
    send(mq_cluster, mq_ledger, 60)
    with mq_faults("kill:all"):
        pass
    judged = mq_ledger.judge()
    assert judged.lost == 60
    judged.assert_kept()

@pytest.mark.mqtest(broker="memory")
def test_no_fault(mq_cluster, mq_topic, mq_ledger):
    assert mq_cluster.profile.path == "memory/log-safe"
    assert (mq_topic.places, mq_cluster.nodes) == (1, ("memory-1",))
    send(mq_cluster, mq_ledger, 5)
    assert mq_topic.remaining() == 5
    judged = mq_ledger.judge()
    judged.assert_kept()
    assert judged.left == 5
""",
    )
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["E * the broker: broken (60 lost under kill:all)"])


def test_several_faults_are_each_in_the_record_and_one_that_does_not_bite_proves_nothing(
    pytester: pytest.Pytester,
) -> None:
    result = run(
        pytester,
        """
from mqtest import faults
from mqtest.ledger import read_cell

@pytest.mark.mqtest(broker="memory")
def test_several(mq_cluster, mq_faults, mq_ledger):
    for fault in ("kill:all", "pause:leader"):
        with mq_faults(fault):
            pass
        send(mq_cluster, mq_ledger, 5)
    judged = mq_ledger.judge()
    judged.assert_kept()
    record = read_cell(judged.folder)
    assert (record["fault"], record["groups"]) == ("several", [["kill:all"], ["pause:leader"]])
    assert record["finished"] and record["versions"]["broker"]

@pytest.mark.mqtest(broker="memory")
def test_toothless(mq_cluster, mq_faults, mq_ledger, monkeypatch):
    monkeypatch.setattr("mqtest.cluster.memory.MemoryCluster.kill", lambda *_: {})
    send(mq_cluster, mq_ledger, 5)
    with mq_faults("kill:all"):
        pass
    with pytest.raises(AssertionError, match=r"the broker: invalid .the fault kill:all did not bite"):
        mq_ledger.judge().assert_kept()

@pytest.mark.mqtest(broker="memory")
def test_healed_when_the_block_raises(mq_cluster, mq_faults, mq_ledger):
    with pytest.raises(ZeroDivisionError), mq_faults("pause:all"):
        1 / 0
    send(mq_cluster, mq_ledger, 5)
""",
    )
    result.assert_outcomes(passed=3)


def test_what_is_asked_for_wrongly_is_one_line(pytester: pytest.Pytester) -> None:
    result = run(
        pytester,
        """
from mqtest.errors import UsageError

def test_unmarked(mq_cluster): ...

@pytest.mark.mqtest(broker="memory", profil="x")
def test_misspelt(mq_cluster): ...

@pytest.mark.mqtest(broker="memory", profile="log-saef")
def test_no_such(mq_cluster): ...

@pytest.mark.mqtest(broker="memory", nodes=3)
def test_too_many(mq_cluster): ...

@pytest.mark.mqtest(broker="memory")
def test_faults(mq_faults):
    for fault, why in (
        ("none", "there is nothing to do"),
        ("kill:consumers", "your own processes are yours to kill"),
        ("link-latency:all", r"name it in the marker, faults=.'link-latency:all',."),
        ("explode:all", "explode"),
    ):
        with pytest.raises(UsageError, match=why), mq_faults(fault):
            pass
""",
    )
    result.assert_outcomes(passed=1, errors=4)
    result.stdout.fnmatch_lines_random(
        [
            "mqtest: test_unmarked needs a marker, such as @pytest.mark.mqtest(broker=\"kafka\")",
            "mqtest: the marker takes broker=, profile=, nodes=, places=, faults=, and needs broker=",
            "mqtest: *log-saef*",
            "mqtest: nodes: the memory broker has one node, not 3",
        ]
    )


def test_the_marker_and_the_fixtures_are_documented(pytester: pytest.Pytester) -> None:
    assert "@pytest.mark.mqtest(broker, profile" in run(pytester, "", "--markers").stdout.str()
    shown = run(pytester, "", "--fixtures").stdout.str()
    for name in ("mq_cluster", "mq_topic", "mq_faults", "mq_ledger"):
        assert f"\n{name} -- " in shown
    assert f"@pytest.mark.{MARKER}" in (ROOT / "mqtest" / "pytest_plugin.py").read_text(encoding="utf-8")


# --- no cost until used

USED = """
import sys

def test_unused():
    ours = sorted(name for name in sys.modules if name.split(".")[0] == "mqtest")
    assert ours == ["mqtest", "mqtest.pytest_plugin"], ours
    heavy = {"numpy", "docker", "confluent_kafka", "pika", "pyarrow", "click", "rich", "msgspec"} & set(sys.modules)
    assert not heavy, heavy
"""


def test_it_imports_nothing_until_a_fixture_is_asked_for(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(USED)
    options = ("-p", "mqtest.pytest_plugin", "-p", "no:cacheprovider", "-p", "no:hypothesispytest")
    pytester.runpytest_subprocess(*options).assert_outcomes(passed=1)


def test_the_check_above_sees_what_is_imported(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("import mqtest.history\n" + USED)
    options = ("-p", "mqtest.pytest_plugin", "-p", "no:cacheprovider", "-p", "no:hypothesispytest")
    pytester.runpytest_subprocess(*options).assert_outcomes(failed=1)


def test_the_entry_point_is_the_module_under_its_own_name() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["entry-points"]["pytest11"] == {"mqtest.pytest_plugin": "mqtest.pytest_plugin"}
    script = "import sys, mqtest.pytest_plugin; print(sorted(n for n in sys.modules if n.startswith('mqtest')))"
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert said.stdout == "['mqtest', 'mqtest.pytest_plugin']\n"
