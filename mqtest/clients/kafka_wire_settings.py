"""The settings of the client `kafka-wire`, by librdkafka's names, so that one profile serves both clients.

What only says how librdkafka retries has no meaning here and is passed over; anything else that we do not do is a
ClientError, for a setting that is silently not in force is worse than none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from mqtest.clients import ClientError
from mqtest.clock import NS_PER_MS
from mqtest.model import Value

_ACKS: Final[Mapping[str, int]] = {"all": -1, "-1": -1, "1": 1, "0": 0}
_IDEMPOTENT_IN_FLIGHT: Final = 5
"""ProducerStateEntry.NUM_BATCHES_TO_RETAIN: the broker remembers so many"""
_PASSED_OVER: Final = frozenset(
    {
        "message.timeout.ms",
        "reconnect.backoff.max.ms",
        "topic.metadata.refresh.interval.ms",
        "socket.connection.setup.timeout.ms",
        "session.timeout.ms",
        "heartbeat.interval.ms",
        "fetch.error.backoff.ms",
    }
)
_PRODUCER: Final[Mapping[str, Value]] = {
    "acks": "all",
    "enable.idempotence": False,
    "linger.ms": 5,
    "batch.size": 1_000_000,
    "max.in.flight.requests.per.connection": _IDEMPOTENT_IN_FLIGHT,
    "request.timeout.ms": 30_000,
    "socket.timeout.ms": 60_000,
}
_CONSUMER: Final[Mapping[str, Value]] = {
    "fetch.wait.max.ms": 500,
    "fetch.message.max.bytes": 2 << 20,
    "socket.timeout.ms": 60_000,
    "auto.offset.reset": "earliest",
    "enable.auto.commit": False,
    "enable.auto.offset.store": False,
    "isolation.level": "read_uncommitted",
}
"""settings with their defaults: librdkafka's, but for the size of a fetch and what its client here sets itself"""
_ONLY: Final = ("auto.offset.reset", "enable.auto.commit", "enable.auto.offset.store", "isolation.level")


@dataclass(frozen=True, slots=True, kw_only=True)
class ProducerSettings:
    """acks -1: every in-sync replica; `timeout_ms`: how long the broker waits for them."""

    acks: int
    idempotent: bool
    linger_ns: int
    batch_bytes: int
    in_flight: int
    timeout_ms: int
    silent_ns: int
    """a leader that says nothing for so long is gone"""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsumerSettings:
    """How much to fetch, and how long to wait for it."""

    wait_ms: int
    most_bytes: int
    silent_ns: int


def producer_settings(asked: Mapping[str, Value]) -> ProducerSettings:
    """Raises ClientError for what we do not do."""
    given = _over("producer", asked, _PRODUCER)
    if str(given["acks"]) not in _ACKS:
        raise ClientError(f"kafka-wire: producer.acks: {given['acks']!r} is none of {', '.join(_ACKS)}")
    acks, idempotent = _ACKS[str(given["acks"])], _is(given["enable.idempotence"])
    in_flight = int(given["max.in.flight.requests.per.connection"])
    if idempotent and (acks != -1 or in_flight > _IDEMPOTENT_IN_FLIGHT):
        raise ClientError(
            f"kafka-wire: producer.enable.idempotence takes acks = all and at most {_IDEMPOTENT_IN_FLIGHT} in flight"
        )
    return ProducerSettings(
        acks=acks,
        idempotent=idempotent,
        linger_ns=int(float(given["linger.ms"]) * NS_PER_MS),
        batch_bytes=int(given["batch.size"]),
        in_flight=max(1, in_flight),
        timeout_ms=int(given["request.timeout.ms"]),
        silent_ns=int(given["socket.timeout.ms"]) * NS_PER_MS,
    )


def consumer_settings(asked: Mapping[str, Value]) -> ConsumerSettings:
    """Raises ClientError for what we do not do."""
    given = _over("consumer", asked, _CONSUMER)
    for key in _ONLY:
        if str(given[key]).lower() != str(_CONSUMER[key]).lower():
            raise ClientError(f"kafka-wire: consumer.{key}: only {str(_CONSUMER[key]).lower()} is done")
    return ConsumerSettings(
        wait_ms=int(given["fetch.wait.max.ms"]),
        most_bytes=int(given["fetch.message.max.bytes"]),
        silent_ns=int(given["socket.timeout.ms"]) * NS_PER_MS,
    )


def _over(table: str, asked: Mapping[str, Value], defaults: Mapping[str, Value]) -> Mapping[str, Value]:
    for key in asked:
        if key not in defaults and key not in _PASSED_OVER:
            raise ClientError(f"kafka-wire: {table}.{key}: no such setting here; allowed: {', '.join(defaults)}")
    return {key: asked.get(key, default) for key, default in defaults.items()}


def _is(value: Value) -> bool:
    return value in (True, "true", "1")
