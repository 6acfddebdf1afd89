"""Ids of this process' idempotent producers: Kafka gives one, and each new client of the producer raises its epoch.

Rules:
- A broker gets ids from the controller, a thousand at a time. One that has none answers COORDINATOR_LOAD_IN_PROGRESS
  until it has some, so it is asked again.
- An id is asked for once. After a kill of leader and controller in one, the next leader had none for 7 s: it went on
  connecting to the dead controller. The Java client raises the epoch by itself, too
  (TransactionManager.bumpIdempotentProducerEpoch, KIP-360): a new epoch begins with sequence 0, and a batch of an older
  one that arrives late is refused.
"""

from __future__ import annotations

import time
from typing import Final

from mqtest.clients import ClientError
from mqtest.clients.kafka_codec import Api, Error, MalformedError, init_producer_id, named, parsed, read_producer_id
from mqtest.clients.kafka_link import TRY_S, Link
from mqtest.model import Wiring

_LAST_EPOCH: Final = 0x7FFF
_SOON: Final = (Error.COORDINATOR_LOAD_IN_PROGRESS, Error.COORDINATOR_NOT_AVAILABLE, Error.NOT_COORDINATOR)
_PAUSE_S: Final = 0.05

_given: dict[tuple[tuple[str, ...], str, int], tuple[int, int]] = {}
"""cluster, topic and number of a producer -> its id, and the epoch of its newest client"""


def producer_id(link: Link, wiring: Wiring, number: int) -> tuple[int, int]:
    """Id and epoch for a new client of producer `number`; raises ClientError."""
    key = wiring.addresses, wiring.topic, number
    producer, epoch = _given.get(key, (-1, _LAST_EPOCH))
    _given[key] = _asked(link) if epoch == _LAST_EPOCH else (producer, epoch + 1)
    return _given[key]


def _asked(link: Link) -> tuple[int, int]:
    deadline = time.monotonic() + TRY_S
    while True:
        try:
            answer = link.call(Api.INIT_PRODUCER_ID, init_producer_id(), TRY_S)
            error, producer, epoch = parsed(answer, read_producer_id)
        except MalformedError as malformed:
            raise ClientError(f"{link.address}: {malformed}") from malformed
        if not error:
            return producer, epoch
        if error not in _SOON or time.monotonic() > deadline:
            raise ClientError(f"{link.address} gives no producer id: {named(error)}")
        time.sleep(_PAUSE_S)
