"""The bench: what tools print, which figures come of it, the table, the file of rows; and the whole way."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mqtest import prune
from mqtest.bench import alternation, ours, rows, table, tools
from mqtest.bench.figures import (
    Cpu,
    CpuSample,
    Figure,
    Interval,
    Spread,
    cpu_between,
    from_intervals,
    from_times,
    measured,
    ratio,
    spread,
)
from mqtest.bench.rows import Asked, Row
from mqtest.bench.table import OURS, THEIRS, Compared, Run
from mqtest.bench.theirs import rewind
from mqtest.brokers import TOPIC, broker_module
from mqtest.cli import main
from mqtest.cluster import images, toolbox
from mqtest.cluster.locks import live_runs
from mqtest.errors import ClusterError, EngineError, UsageError
from mqtest.judge import Judgement
from mqtest.model import Kind, Node, Verdict, Wiring
from mqtest.profile import find_profile
from mqtest.watch import SilentWatch
from tests import rocketmq_server

S = 1_000_000_000

# --- what the tools print ---

KAFKA_PRODUCED = """\
1234 records sent, 1232.8 records/sec (0.12 MB/sec), 310.4 ms avg latency, 900.0 ms max latency.
100000 records sent, 50000.0 records/sec (4.77 MB/sec), 6.1 ms avg latency, 40.0 ms max latency.
60000 records sent, 60000.0 records/sec (5.72 MB/sec), 5.8 ms avg latency, 22.0 ms max latency.
161234 records sent, 53744.6 records/sec (5.13 MB/sec), 6.8 ms avg latency, 900.0 ms max latency, 5 ms 50th, 9 ms 95th, 40 ms 99th, 80 ms 99.9th.
""".splitlines()  # noqa: E501
KAFKA_CONSUMED = """\
time, threadId, data.consumed.in.MB, MB.sec, data.consumed.in.nMsg, nMsg.sec, rebalance.time.ms, fetch.time.ms, fetch.MB.sec, fetch.nMsg.sec
2026-11-29 02:00:01:500, 0, 4.7684, 3.1789, 50000, 33333.3333, 1000, 500, 9.5367, 100000.0000
2026-11-29 02:00:02:500, 0, 23.8419, 19.0735, 250000, 200000.0000, 0, 1000, 19.0735, 200000.0000
2026-11-29 02:00:03:500, 0, 42.9153, 19.0735, 450000, 200000.0000, 0, 1000, 19.0735, 200000.0000
""".splitlines()  # noqa: E501
PERF_TEST_PRODUCED = """\
id: test-020000-123, starting producer #0
id: test-020000-123, time 1.000 s, sent: 4011 msg/s, returned: 0 msg/s, confirmed: 2011 msg/s, nacked: 0 msg/s, min/median/75th/95th/99th confirm latency: 1/2/3/4/5 µs
id: test-020000-123, time 2.001 s, sent: 41000 msg/s, returned: 0 msg/s, confirmed: 40000 msg/s, nacked: 0 msg/s, min/median/75th/95th/99th confirm latency: 1/2/3/4/5 µs
id: test-020000-123, time 3.001 s, sent: 30000 msg/s, returned: 0 msg/s, confirmed: 30500 msg/s, nacked: 7 msg/s, min/median/75th/95th/99th confirm latency: 1/2/3/4/5 µs
id: test-020000-123, sending rate avg: 25003 msg/s
""".splitlines()  # noqa: E501
PERF_TEST_CONSUMED = """\
id: test-020100-456, starting consumer #0, channel #0
id: test-020100-456, time 1.000 s, received: 9.5 msg/s, min/median/75th/95th/99th consumer latency: 1/2/3/4/5 µs
id: test-020100-456, time 2.000 s, received: 21000 msg/s, min/median/75th/95th/99th consumer latency: 1/2/3/4/5 µs
id: test-020100-456, time 3.000 s, received: 7 msg/s, min/median/75th/95th/99th consumer latency: 1/2/3/4/5 µs
test stopped (Consumer reached message limit)
id: test-020100-456, receiving rate avg: 7000 msg/s
""".splitlines()
ROCKETMQ_PRODUCED = """\
topic: t, threadCount: 64, messageSize: 1024, keyEnable: false, propertySize: 0, tagCount: 0, traceEnable: false
Current Time: 2026-11-29 02:00:18,001 | Send TPS: 8000 | Max RT(ms): 90 | Average RT(ms):   7.900 | Send Failed: 0 | Response Failed: 0
Current Time: 2026-11-29 02:00:27,001 | Send TPS: 9000 | Max RT(ms): 20 | Average RT(ms):   7.100 | Send Failed: 0 | Response Failed: 0
[Complete] Send Total: 99 | Send TPS: 7000 | Max RT(ms): 20 | Average RT(ms):   7.100 | Send Failed: 0 | Response Failed: 0
""".splitlines()  # noqa: E501


def rocketmq_consumed(*rates: int) -> list[str]:
    """What the Consumer prints, one line a second."""
    told = "Current Time: 17958 | Consume TPS: {} | AVG(B2C) RT(ms):     NaN | AVG(S2C) RT(ms):     NaN"
    return ["Consumer Started.", *(told.format(rate) for rate in rates)]


def test_kafkas_producer_tells_windows_and_its_summary_is_none() -> None:
    found = tools.kafka_produced(KAFKA_PRODUCED)
    assert [(one.line, one.messages) for one in found] == [(0, 1234), (1, 100000), (2, 60000)]
    assert [round(one.seconds, 2) for one in found] == [1.0, 2.0, 1.0]
    assert [round(one.begin_s, 2) for one in found] == [0.0, 1.0, 3.0]
    assert tools.kafka_produced(["[2026-11-29] WARN 3 records sent, nonsense"]) == []


def test_kafkas_consumer_counts_up_and_its_group_takes_no_time() -> None:
    assert tools.kafka_consumed(KAFKA_CONSUMED, 450000) == [
        Interval(1, 0.0, 0.5, 50000),
        Interval(2, 0.5, 1.0, 200000),
        Interval(3, 1.5, 1.0, 200000),
    ]
    assert tools.kafka_consumed(["WARNING: Exiting before consuming, a, b, c, d, e, f, g, h, i"], 1) == []


def test_perf_test_tells_confirms_not_sends() -> None:
    found = tools.rabbitmq_produced(PERF_TEST_PRODUCED)
    assert [(one.line, one.messages) for one in found] == [(1, 2011), (2, 40040), (3, 30500)]
    assert [round(one.seconds, 3) for one in found] == [1.0, 1.001, 1.0]


def test_perf_tests_last_report_of_consuming_is_left_out() -> None:
    assert tools.rabbitmq_consumed(PERF_TEST_CONSUMED, 21016) == [
        Interval(1, 0.0, 1.0, 10),
        Interval(2, 1.0, 1.0, 21000),
    ]
    assert tools.rabbitmq_produced(PERF_TEST_CONSUMED) == []


def test_rocketmqs_producer_tells_nine_seconds_each_time_and_its_summary_is_none() -> None:
    assert tools.rocketmq_produced(ROCKETMQ_PRODUCED) == [Interval(1, 9.0, 9.0, 72000), Interval(2, 18.0, 9.0, 81000)]


def test_of_rocketmqs_consumer_the_best_nine_seconds_count() -> None:
    told = rocketmq_consumed(50000, 61000, 60000, 20000, 0)
    assert tools.rocketmq_consumed(told, 700000) == [Interval(2, 2.0, 9.0, 549000)]


def test_nine_seconds_that_hold_all_messages_are_no_measure() -> None:
    assert tools.rocketmq_consumed(rocketmq_consumed(50000, 61000, 0), 549000) == []
    assert tools.rocketmq_consumed(rocketmq_consumed(0, 0), 549000) == []


@pytest.mark.parametrize(
    ("rates", "over"), [((), False), ((0, 0), False), ((0, 5, 3), False), ((0, 5, 0), True), ((5, 0, 2), False)]
)
def test_rocketmqs_consumer_is_over_when_nothing_comes_after_something(rates: Sequence[int], over: bool) -> None:
    assert tools.rocketmq_over(rocketmq_consumed(*rates)) is over


# --- how they are called ---


def job(broker: str, kind: Kind = Kind.LOG, **producer: str | int | bool) -> tools.Job:
    """A job on a topic `t` of two nodes."""
    wiring = Wiring(
        broker=broker,
        client="",
        kind=kind,
        acknowledged=True,
        addresses=("192.0.2.1:1", "192.0.2.2:2"),
        topic="t",
        places=1,
        group="mqtest",
        producer=producer,
        consumer={"prefetch": 300},
    )
    return tools.Job(wiring=wiring, size_bytes=100, window=64, options=tools.TOOLS[broker].options, messages=500)


def test_kafkas_tools_get_our_settings_and_only_those_that_they_have() -> None:
    asked = job("kafka", **{"acks": "all", "enable.idempotence": True, "linger.ms": 5, "socket.timeout.ms": 1})
    command = tools.kafka_produce(asked)
    properties = command[command.index("--command-property") + 1 :]
    assert properties == [
        "acks=all",
        "enable.idempotence=true",
        "linger.ms=5",
        "batch.size=16384",
        "buffer.memory=33554432",
    ]
    assert command[command.index("--record-size") + 1] == "100"
    assert "192.0.2.1:1,192.0.2.2:2" in command
    consume = tools.kafka_consume(asked)
    assert consume[consume.index("--num-records") + 1] == "500"


def test_perf_test_publishes_as_we_do() -> None:
    command = tools.rabbitmq_produce(job("rabbitmq", Kind.QUEUE, delivery_mode=2, mandatory=True))
    assert command[command.index("--exchange") + 1 :][:3] == ["amq.default", "--routing-key", "t-0"]
    assert command[command.index("--confirm") + 1] == "64"
    assert [command[i + 1] for i, word in enumerate(command) if word == "--flag"] == ["persistent", "mandatory"]
    assert "--flag" not in tools.rabbitmq_produce(job("rabbitmq", Kind.QUEUE, delivery_mode=1, mandatory=False))


def test_perf_test_reads_a_stream_from_its_beginning_and_a_queue_as_it_is() -> None:
    command = tools.rabbitmq_consume(job("rabbitmq", Kind.QUEUE))
    assert command[command.index("--cmessages") + 1] == "500"
    assert "x-stream-offset=first" in tools.rabbitmq_consume(job("rabbitmq", Kind.LOG))
    assert "x-stream-offset=first" not in tools.rabbitmq_consume(job("rabbitmq", Kind.QUEUE))


def test_rocketmqs_producer_has_a_thread_for_each_send_in_flight() -> None:
    command = tools.rocketmq_produce(job("rocketmq"))
    assert command[command.index("-w") + 1] == "64"
    assert command[command.index("-n") + 1] == "192.0.2.1:1;192.0.2.2:2"
    consume = tools.rocketmq_consume(job("rocketmq"))
    assert consume[consume.index("-g") + 1] == "t-tool"


def test_the_group_of_rocketmqs_consumer_is_made_and_set_to_the_first_message() -> None:
    server = rocketmq_server.Server(lambda asked: rocketmq_server.answer(asked) if asked.code == 200 else None)
    try:
        rewind(replace(job("rocketmq").wiring, addresses=(server.address,)))
        asked = [one for one in server.asked if one.code in (200, 15)]
        assert [one.code for one in asked] == [200, 15]
        assert json.loads(asked[0].body) == {"groupName": "t-tool"}
        assert asked[1].fields | {} == {"consumerGroup": "t-tool", "topic": "t", "queueId": "0", "commitOffset": "0"}
    finally:
        server.close()


def test_a_broker_that_refuses_the_group_is_one_line() -> None:
    server = rocketmq_server.Server(
        lambda asked: rocketmq_server.answer(asked, code=1, remark="no") if asked.code == 200 else None
    )
    try:
        with pytest.raises(ClusterError, match=r"the group of the tool cannot be set to the first message: .* no"):
            rewind(replace(job("rocketmq").wiring, addresses=(server.address,)))
    finally:
        server.close()


@pytest.mark.parametrize("name", ["kafka/acks-all", "rabbitmq/stream", "rocketmq/async-flush"])
def test_a_driver_can_be_had_for_another_topic(name: str) -> None:
    profile = find_profile(name)
    nodes = [Node(f"{profile.broker}-1", "127.0.0.1")]
    module = broker_module(profile.broker)
    assert module.connect(profile, nodes, 1, "other")._topic == "other"  # type: ignore[attr-defined]
    assert module.connect(profile, nodes, 1)._topic == TOPIC  # type: ignore[attr-defined]


# --- figures ---


def test_the_warm_up_is_left_out_and_no_more_is_taken_than_asked() -> None:
    told = [Interval(i, float(i), 1.0, 100 * i) for i in range(10)]
    assert [one.line for one in measured(told, 2.0, 3.0)] == [2, 3, 4]
    assert [one.line for one in measured(told, 2.0, 30.0)] == [2, 3, 4, 5, 6, 7, 8, 9]
    assert measured(told, 10.0, 3.0) == []


def test_acknowledgements_count_from_the_first_to_the_last_within_the_seconds() -> None:
    times = np.array([9, 10, 11, 12, 13, 14, 15]) * S
    figure = from_times([times[2:], times[:2]], 10 * S, 4.0, Cpu([CpuSample(9 * S, 1.0), CpuSample(19 * S, 3.0)], []))
    assert figure is not None
    assert (figure.messages, figure.seconds) == (3, 3.0)
    assert figure.cpu_s == pytest.approx(0.6)
    assert figure.cpu_us == pytest.approx(200_000)
    assert from_times([times], 15 * S, 4.0, []) is None


def test_cpu_is_interpolated_and_unknown_where_nobody_looked() -> None:
    samples = [CpuSample(0, 1.0), CpuSample(10 * S, 2.0), CpuSample(20 * S, 4.0)]
    assert cpu_between(samples, 5 * S, 15 * S) == pytest.approx(1.5)
    assert cpu_between(samples, 5 * S, 22 * S) is None
    assert cpu_between(samples[1:], 5 * S, 15 * S) is None
    assert cpu_between([], 0, 1) is None


def test_a_tools_figure_has_the_cpu_of_its_intervals() -> None:
    told = [Interval(1, 1.0, 1.0, 300), Interval(2, 2.0, 1.0, 500)]
    samples = [CpuSample(100 * S, 10.0), CpuSample(110 * S, 20.0)]
    nodes = [CpuSample(100 * S, 0.0), CpuSample(110 * S, 40.0)]
    figure = from_intervals(told, [101 * S, 102 * S, 103 * S], Cpu(samples, nodes))
    assert figure == Figure(messages=800, seconds=2.0, cpu_s=pytest.approx(2.0), nodes_cpu_s=pytest.approx(8.0))
    assert figure.nodes_us == pytest.approx(10_000)
    assert from_intervals([], [101 * S], samples) is None


def figure(rate: float, cpu_us: float | None = None) -> Figure:
    """Two seconds at that rate."""
    cpu_s = None if cpu_us is None else cpu_us * rate * 2 / 1e6
    return Figure(messages=rate * 2, seconds=2.0, cpu_s=cpu_s, nodes_cpu_s=None if cpu_s is None else 10 * cpu_s)


def test_the_ratio_is_median_by_median_of_what_was_measured() -> None:
    mine = spread([figure(300, 1.0), None, figure(100), figure(200, 3.0)])
    theirs = spread([figure(100), figure(400)])
    assert mine == Spread(rates_per_s=(300.0, 100.0, 200.0), cpu_us=pytest.approx(2.0), nodes_us=pytest.approx(20.0))
    assert mine is not None
    assert mine.median == 200
    assert ratio(mine, theirs) == pytest.approx(0.8)
    assert ratio(mine, None) is None
    assert spread([None]) is None


# --- the table ---


def row(**changes: object) -> Row:
    """One of the shipped rows."""
    return replace(rows.load(rows.shipped())["kafka-acks-all-1k"], **changes)  # type: ignore[arg-type]


def compared() -> Compared:
    """Two pairs: the tool's second consumer was too short, our second run does not count."""
    return Compared(
        row=row(),
        facts={"versions": {"broker": "4.3.1"}},
        commands={"produce": ["java", "-cp", "/opt/tools/kafka/*", "X"]},
        runs=[
            Run(number=1, side=OURS, produce=figure(90_000, 3.5), consume=figure(100_000, 2.0), why=None),
            Run(number=1, side=THEIRS, produce=figure(100_000, 8.0), consume=figure(100_000), why=None),
            Run(number=2, side=OURS, produce=None, consume=None, why="broken: 3 lost under none"),
            Run(number=2, side=THEIRS, produce=figure(120_000, 9.0), consume=None, why=None),
        ],
    )


RECORD = {
    "asked": {"runs": 2, "seconds": 20.0, "warm_up_s": 5.0},
    "host": {"cores": 2, "cpu": "X", "memory_gb": 24.0, "os": "Debian", "kernel": "6", "python": "3.11"},
    "mqtest_version": "0",
    "clients": {"pika": "1"},
    "tools": {"kafka": "4.3.1"},
    "started_utc": "2026-11-29T00:00:00Z",
}


def test_the_table_has_medians_ratio_target_cpu_and_how_many_runs_count() -> None:
    text = table.markdown([compared()], RECORD)
    assert (
        "| kafka-acks-all-1k | produce | 90,000 (90,000 to 90,000) | 110,000 (100,000 to 120,000) | 0.82 "
        "| ≥ 1, missed | 3.50 + 35.00 µs | 8.50 + 85.00 µs | 1, 2 |"
    ) in text
    assert "| consume | 100,000 (100,000 to 100,000) | 100,000 (100,000 to 100,000) | 1.00 | ≥ 0.8, met |" in text
    assert "| 2.00 + 20.00 µs | – | 1, 1 |" in text


def test_the_table_says_what_each_side_checked_what_does_not_count_and_how_it_was_run() -> None:
    text = table.markdown([compared()], RECORD)
    assert "The tools check nothing" in text
    assert "- kafka-acks-all-1k, run 2 of mqtest: broken: 3 lost under none" in text
    assert "- kafka-acks-all-1k, run 2 of tool: too short to measure: consume" in text
    assert "- the tool's produce: `java -cp '/opt/tools/kafka/*' X`" in text
    assert "linger.ms = 5" in text
    assert not table.whole([compared()])


def test_a_bench_in_which_all_counts_says_nothing_of_what_does_not() -> None:
    one = compared()
    one.runs = one.runs[:2]
    assert "do not count" not in table.markdown([one], RECORD)
    assert table.whole([one])
    one.failed = "no cluster"
    assert "- kafka-acks-all-1k: no cluster" in table.markdown([one], RECORD)
    assert not table.whole([one])


def test_the_csv_has_every_run_and_then_the_medians() -> None:
    found = list(csv.DictReader(table.csv_text([compared()]).splitlines()))
    assert len(found) == 4 * 2 + 4
    assert found[0] | {"why_not": ""} == {
        "row": "kafka-acks-all-1k", "work": "produce", "side": "mqtest", "run": "1", "messages": "180000",
        "seconds": "2.0", "rate_per_s": "90000.0", "cpu_us": "3.5", "nodes_us": "35.0", "ratio": "", "wanted": "",
        "why_not": "",
    }  # fmt: skip
    medians = {(one["work"], one["side"]): one for one in found if one["run"] == "median"}
    assert medians["produce", "mqtest"]["ratio"] == "0.818"
    assert medians["produce", "tool"]["rate_per_s"] == "110000.0"
    assert medians["consume", "mqtest"]["wanted"] == "0.8"


# --- the file of rows ---

GOOD = {"about": '"x"', "profile": '"kafka/acks-all"', "size_bytes": "100", "window": "10"}


def written(path: Path, **keys: str) -> Path:
    """A file with one row, `r`; a key without a value is left out."""
    told = {key: value for key, value in {**GOOD, **keys}.items() if value}
    path.write_text("[r]\n" + "\n".join(f"{key} = {value}" for key, value in told.items()))
    return path


def test_a_row_has_the_profile_with_its_settings_and_promise_and_the_tools_options(tmp_path: Path) -> None:
    file = written(tmp_path / "r.toml", set='{ "producer.linger.ms" = 50 }', tool='{ "batch.size" = 7 }')
    found = rows.load(file)["r"]
    assert found.profile.settings["producer"]["linger.ms"] == 50
    assert found.profile.promise == find_profile("kafka/acks-all").promise
    assert found.options == {"batch.size": 7, "buffer.memory": 33554432}
    assert (found.nodes, found.targets) == (3, {})


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"window": ""}, "r.window is missing"),
        ({"windows": "1"}, "key 'r.windows' is not known .did you mean 'r.window'"),
        ({"profile": '"kafka/acks-al"'}, "r.profile: profile 'kafka/acks-al' is not known"),
        ({"profile": '"memory/log-safe"'}, "r.profile: memory has no perf tool; allowed: kafka, rabbitmq, rocketmq"),
        ({"profile": '"kafka/acks-0"'}, "r.profile: kafka/acks-0 has no acknowledgements to measure"),
        ({"size_bytes": "63"}, "r.size_bytes: must be 64 to 1048576"),
        ({"window": "0"}, "r.window: must be at least 1"),
        ({"nodes": "0"}, "r.nodes: must be at least 1"),
        ({"produce_at_least": "0"}, "r.produce_at_least: must be above 0"),
        ({"consume_at_least": '"much"'}, "r.consume_at_least: expected"),
        ({"set": "{ fs = 'xfs' }"}, "r.set.fs: no setting of a profile"),
        ({"tool": "{ threads = 3 }"}, "r.tool: key 'threads' is not known; allowed: batch.size, buffer.memory"),
    ],
)
def test_a_wrong_row_is_one_line_with_file_and_key(tmp_path: Path, keys: dict[str, str], said: str) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        rows.load(written(tmp_path / "r.toml", **keys))
    assert str(caught.value).startswith(str(tmp_path / "r.toml"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("text", "said"), [("", "no row"), ("r = 1", "r: expected a table, a row")])
def test_a_file_without_rows_is_refused(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "r.toml").write_text(text)
    with pytest.raises(UsageError, match=said):
        rows.load(tmp_path / "r.toml")


def test_rows_are_chosen_by_name_or_glob() -> None:
    there = rows.load(rows.shipped())
    assert [one.name for one in rows.chosen(there, ["kafka-*-1k"])] == ["kafka-acks-all-1k"]
    assert rows.chosen(there, []) == list(there.values())
    with pytest.raises(UsageError, match=r"row 'kafka-acks-all-10' is not known .did you mean 'kafka-acks-all-100'"):
        rows.chosen(there, ["kafka-acks-all-1k", "kafka-acks-all-10"])


def test_what_is_wanted_of_the_shipped_rows() -> None:
    wanted = {"kafka": (1.0, 0.8), "rabbitmq": (1.2, 0.8), "rocketmq": (2.0, 2.0)}
    for one in rows.load(rows.shipped()).values():
        if one.profile.client == "rstream":
            assert one.targets == {}
        else:
            assert (one.targets["produce"], one.targets["consume"]) == wanted[one.profile.broker], one.name


def test_the_command_lists_its_rows(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--list", "rocketmq-*"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == [
        "rocketmq-async-flush-1k",
        "rocketmq-sync-flush-all-ack-1k",
    ]
    assert main(["bench", "nothing-such"]) == 64


# --- whether a run of ours counts ---


@pytest.mark.parametrize(
    ("verdict", "lost", "complete", "said"),
    [
        (Verdict.KEPT, 0, True, None),
        (Verdict.BROKEN, 3, True, "broken: why"),
        (Verdict.UNKNOWN, None, False, "unknown: why"),
        (Verdict.KEPT, 3, True, "kept: why"),
        (Verdict.KEPT, None, True, "kept: why"),
    ],
)
def test_a_run_counts_only_when_every_message_was_judged(
    verdict: Verdict, lost: int | None, complete: bool, said: str | None
) -> None:
    judged = Judgement(row={"lost": lost, "audit_complete": complete}, findings=(), verdict=verdict, reason="why")
    assert ours.why_not(judged) == said


def test_the_cpu_of_a_process_grows_and_ends_with_it() -> None:
    before = ours.cpu_s(os.getpid())
    assert before is not None
    while ours.cpu_s(os.getpid()) == before:
        sum(range(10_000))
    assert (ours.cpu_s(os.getpid()) or 0) > before
    assert ours.cpu_s(2**22 + 1) is None


# --- the whole way, on the embedded broker beside a tool that is played ---


def played(lines: Sequence[str]) -> Callable[..., None]:
    """A tool that says these lines, a second apart, and uses half a core."""

    def run(_cluster: object, _image: object, _run: str, command: Sequence[str], heard: toolbox.Heard, *_: object,
            **__: object) -> None:  # fmt: skip
        if command == ["fail"]:
            raise ClusterError("the tool ended with exit code 1: no route")
        heard.lines += lines
        heard.lines_ns += [(1 + number) * S for number in range(len(lines))]
        heard.cpu += [(0, 0.0), (100 * S, 50.0)]

    return run


@pytest.fixture
def embedded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Row:
    """A row of the memory broker, beside a tool that says what PerfTest says."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "runtime"))
    perf_test = tools.TOOLS["rabbitmq"]
    tool = replace(
        perf_test,
        produce=lambda _job: ["produce"],
        consume=lambda job: ["consume"] if job.messages == 0 else ["fail"],
        consumed=lambda lines, _messages: perf_test.produced(lines),
    )
    monkeypatch.setitem(tools.TOOLS, "memory", tool)
    monkeypatch.setattr(images, "ensure_tools", lambda _progress: None)
    monkeypatch.setattr(toolbox, "run", played(PERF_TEST_PRODUCED))
    return row(
        name="embedded", profile=find_profile("memory/queue-safe"), nodes=1, window=50, size_bytes=100, options={}
    )


def test_a_run_of_ours_is_judged_and_stands_beside_the_tools(embedded: Row, tmp_path: Path) -> None:
    asked = Asked(runs=1, seconds=2.0, warm_up_s=0.5)
    run_dir, found = alternation.run([embedded], asked, tmp_path, SilentWatch())
    mine, theirs = found[0].runs
    assert mine.why is None
    assert mine.produce is not None
    assert 0 < mine.produce.seconds <= 2.0
    assert theirs.produce == Figure(
        messages=70540, seconds=pytest.approx(2.001), cpu_s=pytest.approx(1.0, abs=0.01), nodes_cpu_s=None
    )
    told = json.loads((run_dir / "bench.json").read_text())
    assert told["rows"][0]["runs"][0]["produce"]["messages"] == mine.produce.messages
    assert told["rows"][0]["versions"]["broker"]
    cell = json.loads((run_dir / "runs" / "embedded-1" / "cell.json").read_text())
    assert cell["finished"] is True
    assert list((run_dir / "runs" / "embedded-1" / "ledger").glob("*/*.npy")) == []
    assert "confirmed: 40000 msg/s" in (run_dir / "tools" / "embedded-1-produce.log").read_text()
    assert "| embedded | produce |" in (run_dir / "bench.md").read_text()
    assert live_runs() == set()
    assert [old.folder for old in prune.runs(tmp_path, ())] == [run_dir]


def test_a_tool_that_fails_is_told_and_ours_still_counts(
    embedded: Row, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(tools.TOOLS, "memory", replace(tools.TOOLS["memory"], produce=lambda _job: ["fail"]))
    asked = Asked(runs=1, seconds=1.0, warm_up_s=0.1, keep_ledgers=True)
    run_dir, found = alternation.run([embedded], asked, tmp_path, SilentWatch())
    assert [(run.side, run.why) for run in found[0].runs] == [
        (OURS, None),
        (THEIRS, "the tool ended with exit code 1: no route"),
    ]
    assert list((run_dir / "runs" / "embedded-1" / "ledger").glob("*/*.npy"))
    assert (run_dir / "tools" / "embedded-1-produce.log").read_text().startswith("$ fail")
    assert not table.whole(found)


def test_an_interrupted_bench_leaves_its_table_and_nothing_that_runs(
    embedded: Row, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(toolbox, "run", interrupt)
    with pytest.raises(KeyboardInterrupt):
        alternation.run([embedded], Asked(runs=2, seconds=1.0, warm_up_s=0.1), tmp_path, SilentWatch())
    (run_dir,) = tmp_path.glob("*-bench*")
    told = json.loads((run_dir / "bench.json").read_text())
    assert [run["side"] for run in told["rows"][0]["runs"]] == [OURS]
    assert live_runs() == set()


def test_without_an_engine_it_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none_answers(_cells: object) -> None:
        raise EngineError("no Docker engine answers")

    monkeypatch.setattr(alternation, "require_engine", none_answers)
    with pytest.raises(EngineError):
        alternation.run([row()], Asked(), tmp_path, SilentWatch())
    assert list(tmp_path.iterdir()) == []
