"""The RabbitMQ driver: settings as RabbitMQ writes them, what it makes of the management API's answers, and, marked
`docker`, settings on a real node."""

from __future__ import annotations

import json
import os
import socket
import struct
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from mqtest.brokers import rabbitmq
from mqtest.brokers.rabbitmq_stream import stream_stats
from mqtest.clock import wait_until
from mqtest.cluster.compose import ComposeCluster, bring_up
from mqtest.cluster.images import ensure_image
from mqtest.cluster.leftovers import close_run
from mqtest.cluster.locks import RunLock
from mqtest.errors import ClusterError, SettingError, UsageError, WaitTimeout
from mqtest.last_words import said
from mqtest.model import Node, Profile, Value
from mqtest.profile import find_profile, image_version, load_profiles
from mqtest.verdict import covers

PREFIX = f"127.{os.getpid() >> 8 & 255}.{os.getpid() & 255}"
"""loopback, as the ports are fixed and other tests may run beside these"""


def profile(name: str = "quorum", /, **tables: Mapping[str, Value]) -> Profile:
    """A shipped profile with more settings."""
    shipped = find_profile(f"rabbitmq/{name}")
    merged = {table: {**shipped.settings[table], **tables.get(table, {})} for table in shipped.settings}
    return replace(shipped, settings=merged)


# --- settings ---


def test_environment_carries_every_setting() -> None:
    given = profile(
        broker={"heartbeat": 7, "raft.wal_max_batch_size": 64, "quorum_queue.compute_checksums": True},
        advanced={"ra.wal_sync_method": "none"},
    )
    assert rabbitmq.environment(given, 1) == {
        "MQTEST_NODES": "1",
        "MQTEST_SETTINGS": "heartbeat = 7\nraft.wal_max_batch_size = 64\nquorum_queue.compute_checksums = true",
        "MQTEST_ADVANCED": "[{rabbit,[{quorum_tick_interval,500}]},{ra,[{wal_sync_method,none}]}].",
    }


@pytest.mark.parametrize(
    ("tables", "named"),
    [
        ({"topic": {"x-delivery-limitt": 3}}, r"rabbitmq/quorum: topic\.x-delivery-limitt"),
        ({"topic": {"delivery-limit": 3}}, r"topic\.delivery-limit"),
        ({"advanced": {"ra.wal_sync_metod": "none"}}, r"rabbitmq/quorum: advanced\.ra\.wal_sync_metod"),
    ],
)
def test_setting_that_rabbitmq_would_take_and_ignore_is_refused(
    tables: Mapping[str, Mapping[str, Value]], named: str
) -> None:
    with pytest.raises(UsageError, match=named):
        rabbitmq.environment(profile(**tables), 3)


FAULTS = ("kill:leader", "kill:all", "kill:consumers", "power-cut:leader", "power-cut:all")


def test_shipped_profiles_are_sound() -> None:
    profiles = load_profiles("rabbitmq")
    for shipped in profiles.values():
        assert rabbitmq.environment(shipped, 3)["MQTEST_NODES"] == "3"
    survives = {name: {f for f in FAULTS if covers(p.promise, f, 3)} for name, p in profiles.items()}
    assert survives == {
        "classic": {"kill:leader", "kill:all", "kill:consumers"},
        "classic-volatile": {"kill:consumers"},
        "classic-blind": set(),
        "quorum": set(FAULTS),
        "quorum-no-fsync": {"kill:leader", "kill:all", "kill:consumers", "power-cut:leader"},
        "quorum-auto-ack": set(),
        "quorum-strict": set(FAULTS),
        "stream": {"kill:leader", "kill:all", "kill:consumers", "power-cut:leader"},
        "stream-short-retention": {"kill:leader", "kill:all", "kill:consumers", "power-cut:leader"},
        "stream-rstream": {"kill:leader", "kill:all", "kill:consumers", "power-cut:leader"},
        "classic-frames": {"kill:leader", "kill:all", "kill:consumers"},
        "quorum-frames": set(FAULTS),
        "stream-frames": {"kill:leader", "kill:all", "kill:consumers", "power-cut:leader"},
    }
    assert {name for name, p in profiles.items() if not p.acknowledged} == {"classic-blind"}


LOG = """\
2026-11-24 08:41:05.431111+00:00 [error] <0.144.0>   Did you mean one of these?
2026-11-24 08:41:05.469759+00:00 [error] <0.144.0>     heartbeat
2026-11-24 08:41:05.470004+00:00 [error] <0.144.0> Error preparing configuration in phase transform_datatypes:
2026-11-24 08:41:05.470059+00:00 [error] <0.144.0>   - Conf file attempted to set unknown variable: hartbeat
2026-11-24 08:41:05.471849+00:00 [error] <0.144.0>
2026-11-24 08:41:05.471849+00:00 [error] <0.144.0> BOOT FAILED
"""


def test_boot_error_names_the_setting_and_nothing_in_other_logs() -> None:
    assert str(rabbitmq.boot_error(LOG)).startswith("broker.hartbeat: RabbitMQ does not start with it")
    assert rabbitmq.boot_error(LOG.replace("unknown variable: hartbeat", "went to sleep")) is None
    assert rabbitmq.boot_error("") is None


STAMP = "2026-11-28 20:38:54.757749+00:00 [error] <0.209.0> "
EXCEPTION = ("BOOT FAILED", "===========", "Exception during startup:", "", "error:{case_clause,{ok,[]}}", "")


@pytest.mark.parametrize("stamp", ["", STAMP])
def test_boot_error_tells_the_exception_of_a_failed_boot(stamp: str) -> None:
    lines = (*EXCEPTION, "    rabbit_feature_flags:read/0, line 1218", "    rabbit:start/2, line 908")
    told = "BOOT FAILED: error:{case_clause,{ok,[]}} in rabbit_feature_flags:read/0"
    assert rabbitmq.boot_error("\n".join(stamp + line for line in lines)) == told


# --- answers of the management API ---

EFFECTIVE = """\
[{aten,
     [{detection_threshold,0.99},
      {poll_interval,5000}]},
 {kernel,[{net_ticktime,60}]},
 {ra,[{data_dir,"/var/lib/rabbitmq/quorum"},
      {wal_max_batch_size,4096},
      {wal_sync_method,none}]},
 {rabbit,
     [{disk_free_limit,"60MB"},
      {heartbeat,11},
      {quorum_compute_checksums,true},
      {vm_memory_high_watermark,{absolute,"900MiB"}}]},
 {rabbitmq_stream,
     [{heartbeat,60}]}].
"""


@dataclass
class Api:
    """One node's management API: path (without its query) -> answer."""

    node: Node
    answers: dict[str, Any] = field(default_factory=dict)
    asked: list[tuple[str, str, Any]] = field(default_factory=list)


@contextmanager
def api(address: str) -> Iterator[Api]:
    """Serves on `address`, an address of this host, at the management's port."""
    served = Api(Node(f"rabbitmq-{address[-1]}", address))

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.partition("?")[0].removeprefix("/api/")
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            served.asked.append((self.command, path, json.loads(body) if body else None))
            answer = served.answers.get(path, "" if self.command == "PUT" else None)
            text = answer if isinstance(answer, str) else json.dumps(answer)
            self.send_response(404 if answer is None else 200)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text.encode())

        do_PUT = do_GET  # noqa: N815

        def log_message(self, *_: object) -> None:
            """Print nothing."""

    server = ThreadingHTTPServer((address, rabbitmq.MANAGEMENT_PORT), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield served
    finally:
        server.shutdown()
        thread.join(5)
        server.server_close()


@pytest.fixture
def apis() -> Iterator[list[Api]]:
    with ExitStack() as stack:
        served = [stack.enter_context(api(f"{PREFIX}.1{n}")) for n in (1, 2, 3)]
        for one in served:
            one.answers = {
                "nodes": seen(1, 2, 3),
                "health/checks/ready-to-serve-clients": {"status": "ok"},
                "config/effective": EFFECTIVE,
                "queues/%2F/mqtest-0": queue(1),
            }
        yield served


def seen(*running: int) -> list[dict[str, Any]]:
    return [{"name": f"rabbit@rabbitmq-{n}", "running": n in running} for n in (1, 2, 3)]


def queue(leader: int, /, state: str = "running", arguments: Mapping[str, Value] | None = None) -> dict[str, Any]:
    given = {"x-queue-type": "quorum", "x-delivery-limit": -1, **(arguments or {})}
    return {"leader": f"rabbit@rabbitmq-{leader}", "state": state, "arguments": given, "durable": True}


def member(node: int, state: str, written: int) -> dict[str, Any]:
    return {"Node Name": f"rabbit@rabbitmq-{node}", "Raft State": state, "Last Written": written}


def driver(apis: list[Api], given: Profile | None = None) -> rabbitmq.RabbitmqBroker:
    return rabbitmq.connect(given or profile(), [one.node for one in apis], 1)


def test_leader_is_what_most_nodes_say_and_nobody_whom_they_do_not_see(apis: list[Api]) -> None:
    broker = driver(apis)
    assert broker.leader(0) == "rabbitmq-1"
    for one in apis[1:]:  # node 1 is cut off and goes on leading in its own eyes
        one.answers |= {"queues/%2F/mqtest-0": queue(2), "nodes": seen(2, 3)}
    apis[0].answers["nodes"] = seen(1)
    assert broker.leader(0) == "rabbitmq-2"
    for one in apis:
        one.answers |= {"queues/%2F/mqtest-0": queue(1), "nodes": seen(2, 3)}
    assert broker.leader(0) is None
    for one in apis:
        one.answers |= {"queues/%2F/mqtest-0": queue(2, state="down")}
    assert broker.leader(0) is None
    broker.close()


def test_counts_are_the_leaders_and_a_stream_has_none(apis: list[Api]) -> None:
    totals = {"messages_ready": 5, "messages_unacknowledged": 2}
    stats = {"message_stats": {"publish": 9, "deliver_get": 4}}
    apis[0].answers["queues/%2F/mqtest-0"] = {**queue(1), **totals, **stats}
    broker = driver(apis)
    assert broker.counts() == {"ready": 5, "unacked": 2, "published": 9, "delivered": 4}
    apis[0].answers["queues/%2F/mqtest-0"] = {**queue(1), **totals}
    assert broker.counts() == {"ready": 5, "unacked": 2, "published": 0, "delivered": 0}
    broker.close()
    stream = driver(apis, profile("stream"))
    assert stream.counts() == {}
    stream.close()


def test_wiring_begins_with_the_leader(apis: list[Api]) -> None:
    for one in apis:
        one.answers["queues/%2F/mqtest-0"] = queue(2)
    broker = driver(apis)
    assert broker.wiring().addresses == tuple(f"{PREFIX}.1{n}:5672" for n in (2, 1, 3))
    broker.close()


@pytest.mark.parametrize(
    ("members", "ready"),
    [
        ([member(1, "leader", 90), member(2, "follower", 90), member(3, "follower", 90)], True),
        ([member(1, "leader", 90), member(2, "follower", 91), member(3, "follower", 89)], False),
        ([member(1, "leader", 90), member(2, "follower", 90), member(3, "noproc", 90)], False),
        ([member(1, "follower", 90), member(2, "candidate", 90), member(3, "follower", 90)], False),
        ([member(1, "leader", 90), member(2, "leader", 90), member(3, "follower", 90)], False),
    ],
)
def test_quorum_queue_is_ready_when_every_member_has_what_the_leader_had(
    apis: list[Api], members: list[dict[str, Any]], ready: bool
) -> None:
    for one in apis:
        one.answers["queues/quorum/%2F/mqtest-0/status"] = members
    broker = driver(apis)
    if ready:
        broker.await_ready(1)
    else:
        with pytest.raises(WaitTimeout, match="in sync"):
            broker.await_ready(0.2)
    broker.close()


def test_nodes_are_awaited_until_each_sees_all(apis: list[Api]) -> None:
    broker = driver(apis)
    broker.await_nodes(1)
    apis[2].answers["nodes"] = seen(1, 3)
    with pytest.raises(WaitTimeout, match="3 RabbitMQ nodes"):
        broker.await_nodes(0.2)
    broker.close()


def test_places_are_declared_on_every_node(apis: list[Api]) -> None:
    broker = rabbitmq.connect(profile("stream"), [one.node for one in apis], 2)
    broker.create_places()
    arguments = {"x-queue-type": "stream", "x-initial-cluster-size": 3}
    assert [one.asked for one in apis] == [
        [("PUT", f"queues/%2F/mqtest-{place}", {"durable": True, "arguments": arguments})] for place in (0, 1)
    ] + [[]]
    broker.close()


def test_effective_reads_back_what_was_asked(apis: list[Api]) -> None:
    asked: dict[str, Value] = {
        "heartbeat": 11,
        "disk_free_limit.absolute": "60MB",
        "raft.wal_max_batch_size": 4096,
        "raft.adaptive_failure_detector.poll_interval": 5000,
        "quorum_queue.compute_checksums": True,
        "net_ticktime": 60,
    }
    broker = driver(apis, profile(broker=asked, advanced={"ra.wal_sync_method": "none"}))
    assert broker.effective() == {
        "broker.heartbeat": "11",
        "broker.disk_free_limit.absolute": "60MB",
        "broker.raft.wal_max_batch_size": "4096",
        "broker.raft.adaptive_failure_detector.poll_interval": "5000",
        "broker.quorum_queue.compute_checksums": "true",
        "broker.net_ticktime": "60",
        "advanced.ra.wal_sync_method": "none",
        "topic.x-queue-type": "quorum",
        "topic.x-delivery-limit": "-1",
        "topic.durable": "true",
    }
    broker.close()


@pytest.mark.parametrize(
    ("tables", "changed", "named"),
    [
        ({"broker": {"heartbeat": 12}}, {}, r"broker\.heartbeat: asked for 12, RabbitMQ says 11"),
        ({"broker": {"heartbeat": 60}}, {}, r"broker\.heartbeat: asked for 60, RabbitMQ says 11"),
        ({"broker": {"noSuchSetting": 1}}, {}, r"broker\.noSuchSetting: asked for 1, RabbitMQ says nothing"),
        (
            {"advanced": {"ra.wal_sync_method": "none"}},
            {"config/effective": EFFECTIVE.replace(",\n      {wal_sync_method,none}", "")},
            r"rabbitmq-3: advanced\.ra\.wal_sync_method",
        ),
        (
            {},
            {"queues/%2F/mqtest-0": queue(1, arguments={"x-delivery-limit": 20})},
            r"topic\.x-delivery-limit: asked for -1",
        ),
    ],
)
def test_setting_that_did_not_take_is_named(
    apis: list[Api], tables: Mapping[str, Mapping[str, Value]], changed: Mapping[str, Any], named: str
) -> None:
    apis[2].answers |= changed
    if any(path.startswith("queues/") for path in changed):
        apis[0].answers |= changed
    broker = driver(apis, profile(**tables))
    with pytest.raises(SettingError, match=named):
        broker.effective()
    broker.close()


# --- positions of a stream ---


def stream_node(answers: list[bytes]) -> tuple[socket.socket, threading.Thread]:
    """A node that answers the next frame with the next of `answers`."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with listener, listener.accept()[0] as connection:
            for answer in answers:
                (length,) = struct.unpack(">I", connection.recv(4, socket.MSG_WAITALL))
                connection.recv(length, socket.MSG_WAITALL)
                connection.sendall(answer)
            connection.shutdown(socket.SHUT_WR)  # a close with bytes unread would be a reset, now and then
            while connection.recv(4096):
                pass

    thread = threading.Thread(target=serve)
    thread.start()
    return listener, thread


def frame(key: int, body: bytes) -> bytes:
    return struct.pack(">IHH", len(body) + 4, key, 1) + body


def answer(key: int, correlation: int, code: int = 1, body: bytes = b"") -> bytes:
    return frame(0x8000 | key, struct.pack(">IH", correlation, code) + body)


HELLO = [
    answer(0x11, 1, body=struct.pack(">i", 0)),
    answer(0x12, 2, body=struct.pack(">ih", 1, 5) + b"PLAIN"),
    answer(0x13, 3) + frame(0x14, struct.pack(">II", 1048576, 60)),
    b"",  # our Tune is not answered
    answer(0x15, 4),
]
STATS = struct.pack(">ih", 2, 16) + b"committed_offset" + struct.pack(">qh", 999, 14) + b"first_chunk_id" + bytes(8)


def asked_stats(answers: list[bytes]) -> Mapping[str, int]:
    listener, thread = stream_node(answers)
    try:
        return stream_stats("127.0.0.1", listener.getsockname()[1], "guest", "guest", "mqtest-0", 2)
    finally:
        thread.join(5)


def test_stream_stats_are_read() -> None:
    assert asked_stats([*HELLO, answer(0x1C, 5, body=STATS)]) == {"committed_offset": 999, "first_chunk_id": 0}


@pytest.mark.parametrize(
    ("answers", "why"),
    [
        ([*HELLO, answer(0x1C, 5, code=6)], "statistics of mqtest-0: answer 0x801c, code 6"),
        ([*HELLO, answer(0x1C, 5, body=STATS[:20])], "no statistics of stream mqtest-0"),
        (HELLO[:2], "closed the connection"),
        ([*HELLO[:2], answer(0x13, 3, code=8)], "login: answer 0x8013, code 8"),
    ],
)
def test_stream_stats_that_are_not_there_are_a_cluster_error(answers: list[bytes], why: str) -> None:
    with pytest.raises(ClusterError, match=why):
        asked_stats(answers)


# --- a real node ---


@contextmanager
def one_node(given: Profile, tmp_path: Path) -> Iterator[ComposeCluster]:
    run = f"rabbitmq-test-{os.getpid()}-{tmp_path.name[-8:]}"
    with ExitStack() as undo:
        undo.enter_context(RunLock(run))
        undo.callback(close_run, run, print)
        cluster = bring_up(
            broker="rabbitmq",
            environment=rabbitmq.environment(given, 1),
            image=ensure_image("rabbitmq", image_version("rabbitmq"), print),
            nodes=1,
            run=run,
            cell="one",
            fs="ext4",
            disk_mb=512,
            timeout_s=120,
            progress=print,
        )
        undo.callback(cluster.down)
        yield cluster


@pytest.mark.docker
def test_settings_reach_a_node_and_are_read_back(tmp_path: Path) -> None:
    asked: dict[str, Value] = {
        "heartbeat": 11,
        "disk_free_limit.absolute": "60MB",
        "raft.adaptive_failure_detector.poll_interval": 4000,
    }
    given = profile(broker=asked, advanced={"ra.wal_sync_method": "none"})
    with one_node(given, tmp_path) as cluster:
        broker = rabbitmq.connect(given, cluster.nodes, 1)
        broker.await_nodes(60)
        broker.create_places()
        broker.await_ready(30)
        found = broker.effective()
        assert {key: found[f"broker.{key}"] for key in asked} == {key: str(value) for key, value in asked.items()}
        assert found["advanced.ra.wal_sync_method"] == "none"
        assert found["topic.x-quorum-initial-group-size"] == "1"
        broker.close()


@pytest.mark.docker
def test_misspelt_key_of_rabbitmq_conf_stops_the_boot_and_is_found_in_the_log(tmp_path: Path) -> None:
    with one_node(profile(broker={"hartbeat": 11}), tmp_path) as cluster:
        assert wait_until(cluster.exited, 60, "the node to give up") == {"rabbitmq-1": 1}
        cluster.save_logs(tmp_path)
    log = said(tmp_path / "rabbitmq-1.log")
    assert str(rabbitmq.boot_error(log)).startswith("broker.hartbeat: ")
