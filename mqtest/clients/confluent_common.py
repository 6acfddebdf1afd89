"""What the modules of the confluent client share: opening librdkafka clients, fetching, and closing within a time."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Final

from confluent_kafka import Consumer as RdConsumer
from confluent_kafka import KafkaError, KafkaException

from mqtest.clients import OPEN_TIMEOUT_S, ClientError
from mqtest.model import Delivery, Wiring

BATCH: Final = 5000
"""most messages that one poll of a reader returns"""
GROUP_BATCH: Final = 500
"""most that one poll of a group's consumer returns, as max.poll.records of Kafka's own client"""

CONSUMER: Final[Mapping[str, Any]] = {
    "auto.offset.reset": "earliest",
    "enable.auto.commit": False,
    "enable.auto.offset.store": False,
    "isolation.level": "read_uncommitted",
}
"""Of every consumer, unless the profile says otherwise; the library's own defaults are the opposite of each."""

log = logging.getLogger("mqtest.librdkafka")
log.addHandler(logging.NullHandler())


class LeaderLog:
    """The log of one client: what it says goes into `log`. `lost`: librdkafka was told that a partition has no leader,
    and took no notice."""

    def __init__(self) -> None:
        self.lost = False

    def log(self, level: int, text: str, *said: object) -> None:
        """Called by the library, as a logger's; `said`: its code for what happened, the client, the words."""
        log.log(level, text, *said)
        if said and said[0] == "METADATAUPDATE" and "new leader-1 not found" in str(said[-1]):
            self.lost = True


def common(wiring: Wiring, name: str) -> dict[str, Any]:
    return {**wiring.access, "bootstrap.servers": ",".join(wiring.addresses), "client.id": name, "logger": log}


def connected(kind: Any, settings: Mapping[str, Any], topic: str) -> Any:
    """A client that has the topic's metadata; raises ClientError."""
    try:
        client = kind(dict(settings))
    except KafkaException as error:
        raise ClientError(f"the Kafka client refuses its settings: {error.args[0].str()}") from error
    try:
        client.list_topics(topic, timeout=OPEN_TIMEOUT_S)
    except KafkaException as error:
        bounded(client.close, 1.0)
        raise ClientError(f"no Kafka node answers: {error.args[0].str()}") from error
    return client


def fetch(
    client: RdConsumer,
    timeout_s: float,
    on_error: Callable[[KafkaError], None],
    ends: dict[int, int],
    most: int = BATCH,
) -> tuple[list[Delivery], str | None]:
    """Everything that is there (`consume` alone would wait until its batch is full), and what the library raised.

    `ends` gets place -> last position before the end, where the client asks to be told (`enable.partition.eof`): a
    transaction leaves records behind that are never handed over.
    """
    deliveries: list[Delivery] = []
    try:
        first = client.poll(timeout_s)
        if first is None:
            return deliveries, None
        for message in (first, *client.consume(most - 1, 0)):
            if (error := message.error()) is not None:
                if error.code() == KafkaError._PARTITION_EOF:
                    ends[message.partition()] = message.offset() - 1  # type: ignore[index,operator]
                else:
                    on_error(error)
            else:
                # the three are never None in a message without error, which the library's types do not know
                deliveries.append(Delivery(message.partition(), message.offset(), message.value() or b"", False))  # type: ignore[arg-type]
    except KafkaException as raised:
        return deliveries, f"fatal: {raised.args[0].str()}"
    return deliveries, None


def bounded(close: Callable[[], object], timeout_s: float) -> None:
    """Call `close`, which may wait for brokers that are gone, but not for longer than timeout_s; what is left of it
    ends with the process, and what it complains of is of no use to anybody."""

    def run() -> None:
        with suppress(Exception):  # the library warns from C, which surfaces as a SystemError where warnings are errors
            close()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(timeout_s)
