"""A cluster that somebody else runs: the embedded broker, started by the test and not by the run."""

from __future__ import annotations

import csv
import json
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mqtest import attach, credentials
from mqtest.attach import Attachment, refuse_used
from mqtest.audit import eaten
from mqtest.brokers import memory
from mqtest.brokers.foreign import Asked, Held, foreign_module, host_ports
from mqtest.brokers.rabbitmq_foreign import _where
from mqtest.cli import main
from mqtest.cli.attach import first_interrupt_ends_the_load, seconds
from mqtest.clients.rocketmq_codec import Code, Request
from mqtest.cluster.memory import MemoryCluster
from mqtest.errors import ClusterError, UsageError
from mqtest.judge import Judgement, judge
from mqtest.ledger import read_cell
from mqtest.lookout import signs
from mqtest.model import Delivery, Phases, Verdict, Workload
from mqtest.profile import find_profile
from mqtest.watch import SilentWatch
from mqtest.workload.consumer import own
from tests import rocketmq_server
from tests.memory_rig import Producing

SECRET = "s3cr3t-t0ken-of-the-test"
QUICK = Phases(warm_up_s=0.2, steady_s=0.3, hold_s=1.2, recover_s=5, settle_s=5, drain_s=5, audit_s=10)


@pytest.fixture
def theirs(tmp_path: Path) -> Iterator[MemoryCluster]:
    """Somebody's cluster, up and without any place."""
    cluster = MemoryCluster(tmp_path / "theirs", memory.environment(find_profile("memory/log-safe"), 1), 1)
    memory.connect(find_profile("memory/log-safe"), cluster.nodes, 1).await_nodes(5)
    yield cluster
    cluster.down()


def attachment(at: MemoryCluster | str, profile: str = "log-safe", **options: Any) -> Attachment:
    access = credentials.Credentials({"token": SECRET})
    asked = Asked(
        profile=find_profile(f"memory/{profile}"),
        at=at if isinstance(at, str) else at.nodes[0].address,
        topic="t",
        group="g",
        access=access.access,
    )
    load = Workload(rate_per_s=1000, size_bytes=128)
    known = {"asked": asked, "credentials": access, "workload": load, "phases": QUICK, "for_s": 0.8}
    return Attachment(**known | options)


def run(asked: Attachment, results: Path, enough: Callable[[], bool] = lambda: False) -> tuple[Path, Judgement]:
    run_dir = attach.run(asked, results, SilentWatch(), enough)
    (cell,) = (run_dir / "cells").iterdir()
    return cell, judge(cell)


def commands(cluster: MemoryCluster) -> dict[str, str]:
    """Their way to freeze their node, and to wake it."""
    (pid,) = [p.parent.name for p in Path("/proc").glob("[0-9]*/cmdline") if _is(cluster, p)]
    return {"fault": f"kill -STOP {pid}; echo {SECRET}", "heal": f"kill -CONT {pid}"}


def _is(cluster: MemoryCluster, cmdline: Path) -> bool:
    try:
        return cluster.nodes[0].address.encode() in cmdline.read_bytes()
    except OSError:
        return False


def test_their_commands_are_fault_and_heal_and_no_secret_reaches_a_file(theirs: MemoryCluster, tmp_path: Path) -> None:
    results = tmp_path / "results"
    cell, judged = run(attachment(theirs, **commands(theirs), for_s=0.1), results)  # over before the fault is due
    assert (judged.verdict, judged.row["fault"], judged.row["fault_bit"]) == (Verdict.KEPT, "attached", True)
    assert judged.row["ack_gap_s_max"] > 1
    assert "attached" in read_cell(cell)["promise"]["survives"]
    files = [path for path in results.rglob("*") if path.is_file()]
    assert len(files) > 10
    assert [path for path in files if SECRET.encode() in path.read_bytes()] == []
    assert "kill -STOP" in (cell / "ledger" / "events.jsonl").read_text(encoding="utf-8")


def test_a_fault_command_that_fails_did_not_bite(theirs: MemoryCluster, tmp_path: Path) -> None:
    quick = attachment(theirs, fault="exit 3", phases=replace(QUICK, steady_s=0.2, hold_s=0.1), for_s=0.6)
    _, judged = run(quick, tmp_path)
    assert (judged.verdict, judged.row["fault_bit"]) == (Verdict.INVALID, False)


def test_what_others_wrote_is_not_judged_and_the_first_interrupt_ends_the_load(
    theirs: MemoryCluster, tmp_path: Path
) -> None:
    looks: list[None] = []

    def enough() -> bool:
        looks.append(None)
        return len(looks) > 5

    driver = memory.connect(find_profile("memory/log-safe"), theirs.nodes, 1, "t")
    driver.create_places()
    with closing(Producing(driver)) as producer:
        for seq in range(5):
            assert producer.inner.send(seq, 0, b"not ours")
        producer.await_settled(5)
    with pytest.raises(UsageError, match=r"t: holds 5 messages of others; --yes writes to it all the same"):
        run(attachment(theirs), tmp_path)
    calm = replace(QUICK, steady_s=60)
    asked = attachment(theirs, into_used=True, for_s=None, phases=calm, fault=f"touch {tmp_path}/not-any-more")
    _, judged = run(asked, tmp_path / "results", enough)
    assert judged.row["acked"] > 10
    assert not (tmp_path / "not-any-more").exists()
    assert (judged.verdict, judged.row["corrupt"], judged.row["foreign"]) == (Verdict.KEPT, 0, 0)


def test_a_cluster_that_does_not_answer_leaves_no_folder_and_no_secret(tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match=r"memory broker at @nobody-\*\*\*"):
        run(attachment(f"@nobody-{SECRET}"), tmp_path / "results")
    assert not (tmp_path / "results").exists()


def test_what_stood_there_before_is_not_ours_and_may_be_eaten() -> None:
    deliveries = [Delivery(place, offset, b"", False) for place, offset in ((0, 4), (0, 5), (1, 0))]
    assert own(deliveries, {0: 5}) == deliveries[1:]
    assert own(deliveries, {}) == deliveries
    assert eaten({0: 5, 1: 0}, {0: 5}) == []
    assert eaten({0: 6, 1: 1}, {0: 5}) == ["place 0 starts at 6", "place 1 starts at 1"]


@pytest.mark.parametrize(
    ("profile", "held", "refused"),
    [
        ("log-safe", None, ""),
        ("log-safe", Held(0, 7, 0), ""),
        ("log-safe", Held(1, 7, 0), "--yes"),
        ("queue-safe", Held(0, 0, 0), ""),
        ("queue-safe", Held(1, 0, 0), "a queue of others is not touched"),
        ("queue-safe", Held(0, 0, 1), "a queue of others is not touched"),
    ],
)
def test_a_place_that_is_used_is_refused(profile: str, held: Held | None, refused: str) -> None:
    asked = attachment("@x", profile)
    found = None if held is None else {0: held}
    if not refused:
        refuse_used(asked, found)
        return
    with pytest.raises(UsageError, match=f"^t: holds .*{refused}"):
        refuse_used(asked, found)


def test_replicas_of_a_topic_that_is_there_are_refused() -> None:
    with pytest.raises(UsageError, match=r"^t: is there already; --replicas is for a topic that is made$"):
        refuse_used(attachment("@x", replicas=3), {0: Held(0, 0, 0)})


def alive(*names: str) -> Mapping[str, Any]:
    return {"t_ns": 1, "event": "members", "alive": list(names)}


def leader(name: str | None) -> Mapping[str, Any]:
    return {"t_ns": 1, "event": "leader", "place": 0, "node": name}


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        ([], {}),
        ([alive("a", "b"), leader("a")], {}),
        ([alive("a", "b"), alive("a"), alive("a", "b")], {"went": ["b"]}),
        ([alive("a"), alive(), alive("a")], {"nobody_answered": 1}),
        ([leader("a"), leader(None), leader("a")], {}),
        ([leader("a"), leader(None), leader("b")], {"leader_moves": 1}),
        ([{"t_ns": 1, "event": "client", "state": "failed"}], {"clients_failed": 1}),
        ([{"t_ns": 1, "event": "client", "state": "opened"}], {}),
    ],
)
def test_signs_that_something_happened(events: Sequence[Mapping[str, Any]], expected: object) -> None:
    assert signs(events) == expected


# --- credentials


def test_credentials_come_from_the_file_and_the_environment_wins(tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    path.write_text('"sasl.username" = "somebody"\n"sasl.password" = "of the file"\n', encoding="utf-8")
    read = credentials.read("kafka", ("sasl.username", "sasl.password"), path, {"MQTEST_KAFKA_SASL_PASSWORD": "of env"})
    assert dict(read.access) == {"sasl.username": "somebody", "sasl.password": "of env"}
    assert read.mask("somebody: of env, of the file") == "somebody: ***, of the file"
    assert "of env" not in repr(read)


def test_a_key_that_is_none_of_the_client_is_refused_without_its_value(tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    path.write_text('"sasl.pasword" = "x1y2"\n', encoding="utf-8")
    with pytest.raises(UsageError, match=r"c\.toml: key 'sasl\.pasword' is not known \(did you mean") as raised:
        credentials.read("kafka", foreign_module("kafka").ACCESS, path, {})
    assert "x1y2" not in str(raised.value)


# --- the command


@pytest.fixture
def ever() -> Iterator[Callable[..., object]]:
    """How Ctrl-C is handled in a terminal; what starts in the background ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield signal.default_int_handler
    signal.signal(signal.SIGINT, before)


def test_the_first_interrupt_ends_the_load_and_the_second_is_one_as_ever(
    ever: Callable[..., object], capsys: pytest.CaptureFixture[str]
) -> None:
    with first_interrupt_ends_the_load() as enough:
        assert not enough.is_set()
        signal.raise_signal(signal.SIGINT)
        assert enough.is_set()
        assert "the load ends" in capsys.readouterr().err
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is ever


@pytest.mark.parametrize(("text", "expected"), [("90", 90), ("90s", 90), ("10m", 600), ("1.5h", 5400)])
def test_times(text: str, expected: float) -> None:
    assert seconds(text) == expected


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("nats --host a:1", "mqtest: broker 'nats' is not known: one of memory, kafka, rabbitmq, rocketmq"),
        (
            "kafka --bootstrap me:pw@a:1",
            "mqtest: an address is HOST:PORT, several with commas between; credentials come from a file",
        ),
        (
            "rabbitmq --url amqp://me:pw@a",
            "mqtest: a URL may not hold a login: give --credentials FILE, or variables of the environment",
        ),
        ("kafka --bootstrap a:1 --heal true", "mqtest: --heal without --fault has nothing to mend"),
        (
            "kafka --bootstrap a:1 --for soon",
            "mqtest: Invalid value for '--for': 'soon' is not a time such as 90s, 10m or 2h "
            "(see `mqtest attach --help`)",
        ),
        (
            "rabbitmq --url a:1 --profile stream",
            "mqtest: rabbitmq/stream: a stream cannot be attached to; take a profile of a queue",
        ),
    ],
)
def test_bad_usage_is_one_line(words: str, line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["attach", *words.split()]) == 64
    assert capsys.readouterr().err == line + "\n"


def test_the_whole_command_against_a_socket(
    theirs: MemoryCluster, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = f"memory --socket {theirs.nodes[0].address} --for 3s --after 0.5s --results {tmp_path} --plain"
    assert main(["attach", *words.split()]) == 0
    out = capsys.readouterr().out
    assert "memory/log-safe" in out
    assert "Of nobody it was seen that it went away or was broken.\n\nNo second without an acknowledgement.\n" in out
    (run_dir,) = [path for path in tmp_path.iterdir() if "attach-memory" in path.name]
    record = json.loads((run_dir / "run.json").read_text(encoding="utf-8"))
    assert (record["planned"], record["noise_floor"]) == (["001-attached-memory-log-safe"], None)
    cell = run_dir / "cells" / "001-attached-memory-log-safe"
    (row,) = csv.DictReader((run_dir / "results.csv").read_text(encoding="utf-8").splitlines())
    assert (row["verdict"], row["fault"], row["lost"]) == ("kept", "none", "0")
    assert float(row["delivered_per_s"]) > 0
    assert theirs.exited() == {}
    attached = read_cell(cell)["attached"]
    assert attached["at"] == theirs.nodes[0].address
    assert attached["topic"].startswith("mqtest-2")


@pytest.mark.parametrize(
    ("at", "addresses", "access"),
    [
        ("a:1, b:2", ("a:1", "b:2"), {}),
        ("amqp://a", ("a:5672",), {}),
        ("amqps://a/shop%2Feu", ("a:5671",), {"tls": True, "vhost": "shop/eu"}),
        ("amqps://a:7000/", ("a:7000",), {"tls": True}),
    ],
)
def test_where_a_rabbitmq_is(at: str, addresses: tuple[str, ...], access: Mapping[str, object]) -> None:
    assert _where(at) == (addresses, access)


@pytest.mark.parametrize("still_there", [False, True])
def test_a_topic_of_rocketmq_is_removed_when_no_broker_has_it_whatever_was_answered(still_there: bool) -> None:
    def script(asked: rocketmq_server.Asked) -> bytes | None:
        if asked.code == Request.DELETE_TOPIC_IN_BROKER:
            return rocketmq_server.answer(asked, code=1, remark="a null TimerMessageStore")
        if asked.code == Request.GET_ROUTE:
            brokers = [{"brokerName": "g", "brokerAddrs": {"0": server.address}}]
            return rocketmq_server.answer(asked, body=json.dumps({"brokerDatas": brokers, "queueDatas": []}).encode())
        if asked.code == Request.GET_TOPIC_CONFIG:
            return rocketmq_server.answer(asked, code=0 if still_there else Code.TOPIC_NOT_EXIST)
        return rocketmq_server.answer(asked)

    server = rocketmq_server.Server(script)
    profile = find_profile("rocketmq/sync-flush-all-ack")
    theirs = foreign_module("rocketmq").attach(Asked(profile=profile, at=server.address, topic="t", group="g"))
    try:
        if still_there:
            with pytest.raises(ClusterError, match=r"the topic t is still on .*a null TimerMessageStore"):
                theirs.remove()
        else:
            theirs.remove()
        assert len(server.of(Request.DELETE_TOPIC_IN_NAME_SERVER)) == 1
    finally:
        server.close()


@pytest.mark.parametrize("at", ["", ",", "a", "a:", ":1", "a:x", "u@a:1"])
def test_what_is_no_address_is_refused(at: str) -> None:
    with pytest.raises(UsageError):
        host_ports(at)
