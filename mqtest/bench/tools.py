"""The brokers' own perf tools: how each is called, and what its output says. The table TOOLS is at the foot.

Everything here is a pure function: wiring → command, lines → intervals. Output formats as printed by kafka-tools 4.3.1,
PerfTest 2.22.1 and rocketmq-example 5.5.0. A tool gets the same settings as our client where it has them; what it has
beyond them is the row's `tool` table. Rules, from the tools' sources:
- ProducerPerformance counts a record when its acknowledgement came. It has no duration, so it is ended by a signal.
- ConsumerPerformance leaves the time to join its group out (`fetch.time.ms`), and does not tell of the last part of a
  second. PerfTest's last report may be cut short by the end, and is left out.
- RocketMQ's Producer and Consumer print the mean of the last nine seconds. So the producer reports every nine seconds,
  and of the consumer, which reports every second, the best nine seconds count; none when all fell into one report.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

from mqtest.bench.figures import Interval
from mqtest.clients.pika_link import PASSWORD, USER
from mqtest.model import Kind, Value, Wiring

_SHARED_KAFKA: Final = ("acks", "enable.idempotence", "linger.ms")
"""settings of a profile's producer that Kafka's Java client has under the same name"""
_ROCKETMQ_S: Final = 9.0
_FILLED: Final = 0.98
"""a report that holds more than this share of all messages may not have been busy all the time"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What a tool is to do, as our client does it."""

    wiring: Wiring
    size_bytes: int
    window: int
    options: Mapping[str, Value]
    messages: int = 0
    """consumer: how many there are"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """One broker's perf tool."""

    name: str
    options: Mapping[str, Value]
    """what a row's `tool` table may set, with defaults"""
    produce: Callable[[Job], list[str]]
    consume: Callable[[Job], list[str]]
    produced: Callable[[Sequence[str]], list[Interval]]
    consumed: Callable[[Sequence[str], int], list[Interval]]
    """of lines, and how many messages there were"""
    over: Callable[[Sequence[str]], bool] = lambda _lines: False
    """whether a consumer that does not end by itself has taken everything"""
    reads_ours: bool = False
    """its consumer reads what our run of the same number wrote: its own producer writes too little to be measured by"""
    produce_is: str
    consume_is: str
    """how its rates are defined, for the table"""


# --- Kafka ---


def kafka_produce(job: Job) -> list[str]:
    """ProducerPerformance, without an end."""
    shared = {key: job.wiring.producer[key] for key in _SHARED_KAFKA if key in job.wiring.producer}
    properties = [f"{key}={_text(value)}" for key, value in {**shared, **job.options}.items()]
    return [
        *_java("kafka", "-Xms512m", "-Xmx512m"),
        *("org.apache.kafka.tools.ProducerPerformance", "--bootstrap-server", ",".join(job.wiring.addresses)),
        *("--topic", job.wiring.topic, "--num-records", "2000000000", "--throughput", "-1"),
        *("--record-size", str(job.size_bytes), "--reporting-interval", "1000", "--command-property", *properties),
    ]


def kafka_consume(job: Job) -> list[str]:
    """ConsumerPerformance, until it has all messages."""
    return [
        *_java("kafka", "-Xms512m", "-Xmx512m"),
        *("org.apache.kafka.tools.ConsumerPerformance", "--bootstrap-server", ",".join(job.wiring.addresses)),
        *("--topic", job.wiring.topic, "--group", f"{job.wiring.topic}-tool", "--num-records", str(job.messages)),
        *("--show-detailed-stats", "--reporting-interval", "1000", "--timeout", "20000"),
    ]


def kafka_produced(lines: Sequence[str]) -> list[Interval]:
    """`101234 records sent, 101132.9 records/sec (9.64 MB/sec), …`; the summary at the end has percentiles."""
    found: list[Interval] = []
    begin_s = 0.0
    for number, line in enumerate(lines):
        told = re.match(r"(\d+) records sent, ([\d.]+) records/sec", line)
        if told and "99.9th" not in line and float(told[2]) > 0:
            seconds = int(told[1]) / float(told[2])
            found.append(Interval(number, begin_s, seconds, int(told[1])))
            begin_s += seconds
    return found


def kafka_consumed(lines: Sequence[str], _messages: int) -> list[Interval]:
    """`time, threadId, MB, MB.sec, messages so far, nMsg.sec, rebalance.time.ms, fetch.time.ms, …`."""
    found: list[Interval] = []
    begin_s, before = 0.0, 0
    for number, line in enumerate(lines):
        cells = line.split(", ")
        if len(cells) != 10 or not cells[4].isdecimal():
            continue
        seconds = max(0, int(cells[7])) / 1000
        found.append(Interval(number, begin_s, seconds, int(cells[4]) - before))
        begin_s, before = begin_s + seconds, int(cells[4])
    return found


# --- RabbitMQ ---


def rabbitmq_produce(job: Job) -> list[str]:
    """PerfTest with one publisher, to the queue that is there, over the default exchange as ours."""
    producer = job.wiring.producer
    flags = [("persistent", producer.get("delivery_mode") == 2), ("mandatory", bool(producer.get("mandatory")))]
    return [
        *_perf_test(job, producers=1, consumers=0),
        *("--exchange", "amq.default", "--routing-key", _queue(job)),
        *("--size", str(job.size_bytes), "--confirm", str(job.window)),
        *(word for flag, wanted in flags if wanted for word in ("--flag", flag)),
    ]


def rabbitmq_consume(job: Job) -> list[str]:
    """PerfTest with one consumer, until it has all messages."""
    stream = ("--consumer-args", "x-stream-offset=first") if job.wiring.kind is Kind.LOG else ()
    prefetch, every = job.wiring.consumer["prefetch"], job.options["multi-ack-every"]
    return [
        *_perf_test(job, producers=0, consumers=1),
        *("--qos", str(prefetch), "--multi-ack-every", str(every), *stream, "--cmessages", str(job.messages)),
    ]


def rabbitmq_produced(lines: Sequence[str]) -> list[Interval]:
    """`id: …, time 3.000 s, sent: 9 msg/s, …, confirmed: 41234 msg/s, …`."""
    return _perf_test_told(lines, "confirmed")


def rabbitmq_consumed(lines: Sequence[str], _messages: int) -> list[Interval]:
    """`id: …, time 3.000 s, received: 41234 msg/s, …`."""
    return _perf_test_told(lines, "received")[:-1]


def _perf_test(job: Job, *, producers: int, consumers: int) -> list[str]:
    login = f"{quote(USER)}:{quote(PASSWORD)}"
    return [
        *_java("rabbitmq"),
        *("com.rabbitmq.perf.PerfTest", "--uri", f"amqp://{login}@{job.wiring.addresses[0]}", "--predeclared"),
        *("--queue", _queue(job), "--producers", str(producers), "--consumers", str(consumers), "--interval", "1"),
    ]


def _queue(job: Job) -> str:
    return f"{job.wiring.topic}-0"


def _perf_test_told(lines: Sequence[str], what: str) -> list[Interval]:
    found: list[Interval] = []
    begin_s = 0.0
    for number, line in enumerate(lines):
        told = re.search(rf"time ([\d.]+) s.*, {what}: ([\d.]+) msg/s", line)
        if told:
            seconds = float(told[1]) - begin_s
            found.append(Interval(number, begin_s, seconds, round(float(told[2]) * seconds)))
            begin_s = float(told[1])
    return found


# --- RocketMQ ---


def rocketmq_produce(job: Job) -> list[str]:
    """The benchmark's Producer: a thread for each send in flight."""
    return [
        *_java("rocketmq", "-Xms1g", "-Xmx1g"),
        *("org.apache.rocketmq.example.benchmark.Producer", "-n", ";".join(job.wiring.addresses)),
        *("-t", job.wiring.topic, "-s", str(job.size_bytes), "-w", str(job.options["produce-threads"])),
        *("-ri", f"{_ROCKETMQ_S * 1000:.0f}"),
    ]


def rocketmq_consume(job: Job) -> list[str]:
    """The benchmark's Consumer, which does not end."""
    return [
        *_java("rocketmq", "-Xms1g", "-Xmx1g"),
        *("org.apache.rocketmq.example.benchmark.Consumer", "-n", ";".join(job.wiring.addresses)),
        *("-t", job.wiring.topic, "-g", rocketmq_group(job.wiring), "-p", "false"),
        *("-w", str(job.options["consume-threads"]), "-ri", "1000"),
    ]


def rocketmq_group(wiring: Wiring) -> str:
    """The consumer group of the tool."""
    return f"{wiring.topic}-tool"


def rocketmq_produced(lines: Sequence[str]) -> list[Interval]:
    """`Current Time: … | Send TPS: 8400 | Max RT(ms): …`, the first one after 18 s, of the last nine."""
    told = _told(lines, "Send TPS")
    return [
        Interval(line, _ROCKETMQ_S * number, _ROCKETMQ_S, rate * _ROCKETMQ_S)
        for number, (line, rate) in enumerate(told, 1)
    ]


def rocketmq_consumed(lines: Sequence[str], messages: int) -> list[Interval]:
    """`Current Time: … | Consume TPS: 61234 | …`, one a second: the best one."""
    told = [(line, rate, number) for number, (line, rate) in enumerate(_told(lines, "Consume TPS"), 1)]
    line, rate, number = max(told, key=lambda one: one[1], default=(0, 0, 0))
    if not rate or rate * _ROCKETMQ_S > messages * _FILLED:
        return []
    return [Interval(line, float(number), _ROCKETMQ_S, rate * _ROCKETMQ_S)]


def rocketmq_over(lines: Sequence[str]) -> bool:
    """Nothing for nine seconds, after something."""
    rates = [rate for _, rate in _told(lines, "Consume TPS")]
    return any(rates) and rates[-1] == 0


def _told(lines: Sequence[str], what: str) -> list[tuple[int, int]]:
    """(line, a second) of each report but the summary."""
    found = ((number, re.search(rf"^Current Time: .*\| {what}: (\d+) ", line)) for number, line in enumerate(lines))
    return [(number, int(told[1])) for number, told in found if told]


# --- all ---


def _java(tool: str, *heap: str) -> list[str]:
    return ["java", *heap, "-cp", f"/opt/tools/{tool}/*"]


def _text(value: Value) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


TOOLS: Final[dict[str, Tool]] = {
    "kafka": Tool(
        name="ProducerPerformance, ConsumerPerformance",
        options={"batch.size": 16384, "buffer.memory": 33554432},
        produce=kafka_produce,
        consume=kafka_consume,
        produced=kafka_produced,
        consumed=kafka_consumed,
        produce_is="acknowledged records, as its reports of every second tell",
        consume_is="records, as its reports of every second tell, without the time to join the group",
    ),
    "rabbitmq": Tool(
        name="PerfTest",
        options={"multi-ack-every": 100},
        produce=rabbitmq_produce,
        consume=rabbitmq_consume,
        produced=rabbitmq_produced,
        consumed=rabbitmq_consumed,
        produce_is="confirms, as its reports of every second tell",
        consume_is="deliveries, as its reports of every second tell, without the last one",
    ),
    "rocketmq": Tool(
        name="benchmark Producer, Consumer",
        options={"produce-threads": 64, "consume-threads": 20},
        produce=rocketmq_produce,
        consume=rocketmq_consume,
        produced=rocketmq_produced,
        consumed=rocketmq_consumed,
        over=rocketmq_over,
        reads_ours=True,
        produce_is="answered sends, whatever the status, as its reports of every nine seconds tell, but for the first",
        consume_is="its best nine seconds, on the topic that the run of mqtest before it wrote",
    ),
}
"""by broker"""
