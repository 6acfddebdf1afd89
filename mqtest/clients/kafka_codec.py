"""Kafka's requests and answers as bytes, as far as the wire client needs them.

Versions are the newest without compact fields, but for the last two, which only brokers/kafka_wire.py asks, and makes
and reads by itself. Kafka 4.3 takes them all (KIP-896 ended only Produce below 3, Fetch below 4, ListOffsets below 1,
OffsetCommit below 2 and OffsetFetch below 1). Formats: kafka.apache.org/protocol and
clients/src/main/resources/common/message in apache/kafka. All numbers are big-endian.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import IntEnum
from typing import Final, NamedTuple, TypeVar

T = TypeVar("T")


class Api(IntEnum):
    """Requests by their key."""

    PRODUCE = 0
    FETCH = 1
    LIST_OFFSETS = 2
    METADATA = 3
    OFFSET_COMMIT = 8
    OFFSET_FETCH = 9
    FIND_COORDINATOR = 10
    INIT_PRODUCER_ID = 22
    API_VERSIONS = 18
    DESCRIBE_QUORUM = 55


VERSIONS: Final[Mapping[Api, int]] = {
    Api.PRODUCE: 8,
    Api.FETCH: 11,
    Api.LIST_OFFSETS: 5,
    Api.METADATA: 8,
    Api.OFFSET_COMMIT: 7,
    Api.OFFSET_FETCH: 5,
    Api.FIND_COORDINATOR: 2,
    Api.INIT_PRODUCER_ID: 1,
    Api.API_VERSIONS: 3,
    Api.DESCRIBE_QUORUM: 0,
}


class Error(IntEnum):
    """Error codes that mean something to us; the others are known by their number."""

    NONE = 0
    OFFSET_OUT_OF_RANGE = 1
    CORRUPT_MESSAGE = 2
    UNKNOWN_TOPIC_OR_PARTITION = 3
    LEADER_NOT_AVAILABLE = 5
    NOT_LEADER_OR_FOLLOWER = 6
    REQUEST_TIMED_OUT = 7
    MESSAGE_TOO_LARGE = 10
    COORDINATOR_LOAD_IN_PROGRESS = 14
    COORDINATOR_NOT_AVAILABLE = 15
    NOT_COORDINATOR = 16
    RECORD_LIST_TOO_LARGE = 18
    NOT_ENOUGH_REPLICAS = 19
    NOT_ENOUGH_REPLICAS_AFTER_APPEND = 20
    TOPIC_AUTHORIZATION_FAILED = 29
    INVALID_TIMESTAMP = 32
    OUT_OF_ORDER_SEQUENCE_NUMBER = 45
    KAFKA_STORAGE_ERROR = 56
    INVALID_RECORD = 87


def named(code: int) -> str:
    """An error code with its name, where we have one."""
    known = code in Error.__members__.values()
    return f"{Error(code).name} ({code})" if known else f"error {code}"


class MalformedError(ValueError):
    """Bytes that are no answer of Kafka's."""


class Cursor:
    """Reads one answer from front to back; raises struct.error and IndexError where it ends too early."""

    def __init__(self, data: bytes | memoryview) -> None:
        self.data, self.at = data, 0

    def number(self, code: str) -> int:
        """One number; `code` as in struct."""
        (value,) = struct.unpack_from(f">{code}", self.data, self.at)
        self.at += struct.calcsize(code)
        return int(value)

    def raw(self, size: int) -> bytes | memoryview:
        """So many bytes, of the same kind as the whole."""
        if size > len(self.data) - self.at:
            raise IndexError("a field runs over the end")
        self.at += size
        return self.data[self.at - size : self.at]

    def text(self) -> str:
        """A string with a length of 2 bytes; null reads as empty."""
        return bytes(self.raw(max(self.number("h"), 0))).decode()

    def numbers(self) -> tuple[int, ...]:
        """An array of int32."""
        return tuple(self.number("i") for _ in range(self.number("i")))

    def varint(self) -> int:
        """An unsigned varint; compact lengths are one more than what follows."""
        value = shift = 0
        while True:
            byte = self.number("B")
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7

    def zigzag(self) -> int:
        """A signed varint, as records have it."""
        value = self.varint()
        return (value >> 1) ^ -(value & 1)


def parsed(cursor: Cursor, read: Callable[[Cursor], T]) -> T:
    """What `read` makes of an answer; raises MalformedError."""
    try:
        return read(cursor)
    except (struct.error, UnicodeDecodeError, IndexError) as error:
        raise MalformedError(f"not a Kafka response: {error}") from error


def head(api: Api, correlation: int, client_id: str, body_bytes: int) -> bytes:
    """Size and header of a request whose body has so many bytes."""
    name = text(client_id)
    return struct.pack(">ihhi", 8 + len(name) + body_bytes, api, VERSIONS[api], correlation) + name


def text(value: str | None) -> bytes:
    """A string with a length of 2 bytes; None: null."""
    if value is None:
        return b"\xff\xff"
    data = value.encode()
    return struct.pack(">h", len(data)) + data


def of_topic(topic: str, partitions: Sequence[bytes]) -> bytes:
    """An array of one topic with these partitions."""
    return struct.pack(">i", 1) + text(topic) + struct.pack(">i", len(partitions)) + b"".join(partitions)


# --- requests ---


def produce(topic: str, place: int, acks: int, timeout_ms: int, batch_bytes: int) -> bytes:
    """Without the batch, which is to follow; acks -1: every in-sync replica."""
    one = struct.pack(">ii", place, batch_bytes)
    return text(None) + struct.pack(">hi", acks, timeout_ms) + of_topic(topic, [one])


def fetch(topic: str, positions: Mapping[int, int], wait_ms: int, most_bytes: int) -> bytes:
    """Place -> where to go on; at most so many bytes in all and of each place, but always one batch."""
    places = [struct.pack(">iiqqi", p, -1, at, -1, most_bytes) for p, at in positions.items()]
    begin = struct.pack(">iiiibii", -1, wait_ms, 1, most_bytes, 0, 0, -1)  # no replica, uncommitted too, no session
    return begin + of_topic(topic, places) + struct.pack(">i", 0) + text("")


def metadata(topic: str | None) -> bytes:
    """Of one topic, not to be created; None: of all."""
    return (struct.pack(">i", -1) if topic is None else struct.pack(">i", 1) + text(topic)) + b"\0\0\0"


EARLIEST: Final = -2
LATEST: Final = -1


def list_offsets(topic: str, places: Sequence[int], which: int) -> bytes:
    """EARLIEST or LATEST (the high watermark)."""
    return struct.pack(">ib", -1, 0) + of_topic(topic, [struct.pack(">iiq", place, -1, which) for place in places])


def find_coordinator(group: str) -> bytes:
    """Of a consumer group."""
    return text(group) + b"\0"


def offset_commit(group: str, topic: str, positions: Mapping[int, int]) -> bytes:
    """Place -> where to go on, by somebody who is no member of the group."""
    places = [struct.pack(">iqi", p, at, -1) + text(None) for p, at in positions.items()]
    return text(group) + struct.pack(">i", -1) + text("") + text(None) + of_topic(topic, places)


def offset_fetch(group: str, topic: str, places: Sequence[int]) -> bytes:
    """Where the group goes on in these places."""
    return text(group) + of_topic(topic, [struct.pack(">i", place) for place in places])


def init_producer_id() -> bytes:
    """For an idempotent producer without transactions."""
    return text(None) + struct.pack(">i", 0x7FFFFFFF)


# --- answers ---


class Partition(NamedTuple):
    """One partition as one node sees it. `leader` -1: none."""

    leader: int
    epoch: int
    replicas: tuple[int, ...]
    in_sync: tuple[int, ...]


class View(NamedTuple):
    """What one node knows: the nodes that are alive (id -> host:port), and every partition of the topics that it was
    asked for; the cluster's own topics are among all."""

    nodes: Mapping[int, str]
    partitions: Mapping[tuple[str, int], Partition]


class Stored(NamedTuple):
    """What became of a batch; `offset`: of its first record, -1: nothing was appended (or it is not told)."""

    place: int
    error: int
    offset: int


class Fetched(NamedTuple):
    """Of one place; `records`: whole batches, the last one maybe cut off."""

    place: int
    error: int
    records: memoryview


def _partitions(cursor: Cursor) -> Iterator[None]:
    """Once for every partition of every topic of an answer, with the cursor at its first field."""
    for _ in range(cursor.number("i")):
        cursor.text()
        for _ in range(cursor.number("i")):
            yield


def read_produce(cursor: Cursor) -> list[Stored]:
    found = []
    for _ in _partitions(cursor):
        found.append(Stored(cursor.number("i"), cursor.number("h"), cursor.number("q")))
        cursor.raw(16)  # time of the append, start of the log
        for _ in range(cursor.number("i")):  # records that were at fault
            cursor.number("i")
            cursor.text()
        cursor.text()
    return found


def read_fetch(cursor: Cursor) -> tuple[int, list[Fetched]]:
    """The error of the whole, and every place that there is."""
    cursor.number("i")  # throttle
    error = cursor.number("h")
    cursor.number("i")  # session
    found = []
    for _ in _partitions(cursor):
        place, code = cursor.number("i"), cursor.number("h")
        cursor.raw(24)  # high watermark, last stable position, start of the log
        cursor.raw(16 * max(0, cursor.number("i")))  # aborted transactions
        cursor.number("i")  # another replica to read from
        records = memoryview(cursor.raw(max(0, cursor.number("i"))))
        found.append(Fetched(place, code, records))
    return error, found


def read_metadata(cursor: Cursor) -> View:
    cursor.number("i")  # throttle
    nodes = {}
    for _ in range(cursor.number("i")):
        node, host, port = cursor.number("i"), cursor.text(), cursor.number("i")
        nodes[node] = f"{host}:{port}"
        cursor.text()  # rack
    cursor.text()  # cluster id
    cursor.number("i")  # "controller": any broker, in KRaft
    partitions = {}
    for _ in range(cursor.number("i")):
        cursor.number("h")  # error: a partition without a leader says so by its leader
        topic = cursor.text()
        cursor.number("?")  # internal
        for _ in range(cursor.number("i")):
            _error, place, leader, epoch = (cursor.number(kind) for kind in "hiii")
            partitions[topic, place] = Partition(leader, epoch, cursor.numbers(), cursor.numbers())
            cursor.numbers()  # offline replicas
        cursor.number("i")  # authorized operations
    return View(nodes, partitions)


def read_list_offsets(cursor: Cursor) -> Mapping[int, tuple[int, int]]:
    """Place -> error, offset."""
    cursor.number("i")
    found = {}
    for _ in _partitions(cursor):
        place, error, _time, offset, _epoch = (cursor.number(kind) for kind in "ihqqi")
        found[place] = (error, offset)
    return found


def read_coordinator(cursor: Cursor) -> tuple[int, str]:
    """Error, host:port."""
    cursor.number("i")
    error = cursor.number("h")
    cursor.text()
    cursor.number("i")
    return error, f"{cursor.text()}:{cursor.number('i')}"


def read_offset_commit(cursor: Cursor) -> int:
    """The first error of any place, 0 where there is none."""
    cursor.number("i")
    errors = [(cursor.number("i"), cursor.number("h"))[1] for _ in _partitions(cursor)]
    return next((error for error in errors if error), 0)


def read_offset_fetch(cursor: Cursor) -> tuple[int, Mapping[int, int]]:
    """The first error; place -> where the group goes on, -1: nothing committed."""
    cursor.number("i")
    found, errors = {}, []
    for _ in _partitions(cursor):
        place, offset, _epoch = (cursor.number(kind) for kind in "iqi")
        cursor.text()
        found[place] = offset
        errors.append(cursor.number("h"))
    return next((e for e in [*errors, cursor.number("h")] if e), 0), found


def read_producer_id(cursor: Cursor) -> tuple[int, int, int]:
    """Error, producer id, its epoch."""
    cursor.number("i")
    return cursor.number("h"), cursor.number("q"), cursor.number("h")
