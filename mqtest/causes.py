"""What the settings of a cell allow: how long an acked message may wait for a flush, second copies, disorder.

Each answer names the setting that it comes from, in the broker's or the client's own words. The sources are the pages
and files of the brokers that the profiles name. What cannot be told from cell.json is None, or nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

_FOREVER_MS = 2**62
"""Kafka's default for a flush interval is 2^63 - 1: never"""


class FlushInterval(NamedTuple):
    """How long the broker may leave a written message unflushed, and the settings that say so."""

    seconds: float
    said_by: str


def flush_interval(cell: Mapping[str, Any]) -> FlushInterval | None:
    """None: the settings name none, so the operating system decides; 0 s: flushed before it is acked."""
    rule = _FLUSH.get(str(cell.get("broker")))
    return rule(_effective(cell)) if rule else None


def second_copies(cell: Mapping[str, Any]) -> tuple[str, ...]:
    """Settings and habits of the client that let it store one message twice."""
    if cell.get("client") == "confluent" and not _idempotent(cell):
        return ("enable.idempotence=false: the client sends again what it has no answer to, and the broker keeps both",)
    if cell.get("client") == "rocketmq-client-python":
        return ("the client sends again inside itself, and the broker keeps both",)
    return ()


def disorder(cell: Mapping[str, Any]) -> tuple[str, ...]:
    """Settings and habits that let messages of one producer overtake each other in one place."""
    producer = _table(cell, "producer")
    in_flight = producer.get("max.in.flight.requests.per.connection", producer.get("max.in.flight", _RDKAFKA_IN_FLIGHT))
    if cell.get("client") == "confluent" and not _idempotent(cell) and int(in_flight) > 1:
        return (f"enable.idempotence=false with max.in.flight={in_flight}: a batch sent again lands behind later ones",)
    if cell.get("client") == "rocketmq-client-python":
        return (f"threads={producer.get('threads', 'several')}: sends run side by side, and failed ones are repeated",)
    if cell.get("kind") == "queue":
        return ("a message that is requeued (its consumer or its connection ended) comes after later ones",)
    return ()


_RDKAFKA_IN_FLIGHT = 1_000_000
"""librdkafka's default of max.in.flight"""


def _idempotent(cell: Mapping[str, Any]) -> bool:
    producer = _table(cell, "producer")
    return producer.get("enable.idempotence") is True or "transactional.id" in producer


def _table(cell: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    tables = cell.get("settings") or {}
    return tables.get(name) or {}


def _effective(cell: Mapping[str, Any]) -> Mapping[str, str]:
    return cell.get("effective") or {}


def _number(effective: Mapping[str, str], *names: str) -> int | None:
    """The first of these settings that holds a number."""
    for name in names:
        value = str(effective.get(name, ""))
        if value.isdigit():
            return int(value)
    return None


def _kafka(effective: Mapping[str, str]) -> FlushInterval | None:
    if _number(effective, "topic.flush.messages", "broker.log.flush.interval.messages") == 1:
        return FlushInterval(0.0, "flush.messages=1")
    every = _number(effective, "topic.flush.ms", "broker.log.flush.interval.ms")
    looks = _number(effective, "broker.log.flush.scheduler.interval.ms")
    if every is None or looks is None or max(every, looks) > _FOREVER_MS:
        return None  # the flusher wakes only every scheduler interval: flush.ms alone does nothing
    return FlushInterval((every + looks) / 1000, f"flush.ms={every}, log.flush.scheduler.interval.ms={looks}")


def _rabbitmq(effective: Mapping[str, str]) -> FlushInterval | None:
    if effective.get("topic.x-queue-type") != "quorum" or effective.get("advanced.ra.wal_sync_method") == "none":
        return None
    return FlushInterval(0.0, "x-queue-type=quorum")


def _rocketmq(effective: Mapping[str, str]) -> FlushInterval | None:
    if effective.get("broker.flushDiskType") == "SYNC_FLUSH":
        return FlushInterval(0.0, "flushDiskType=SYNC_FLUSH")
    every = _number(effective, "broker.flushIntervalCommitLog")
    return None if every is None else FlushInterval(every / 1000, f"flushIntervalCommitLog={every}")


_FLUSH = {"kafka": _kafka, "rabbitmq": _rabbitmq, "rocketmq": _rocketmq}
