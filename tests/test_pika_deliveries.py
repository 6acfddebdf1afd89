"""Deliveries out of the bytes of a connection: whole and in order however they are cut up, all other frames to pika."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pika
import pika.frame
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pika import spec
from pika.exceptions import InvalidFrameError

from mqtest.bodies import Bodies, Ints
from mqtest.clients.pika_deliveries import LEAST_ALIKE, RECEIVE_BYTES, stream_offset, take_deliveries

ACK = pika.frame.Method(1, spec.Basic.Ack(7, True)).marshal()
HEARTBEAT = pika.frame.Heartbeat().marshal()
RETURN = pika.frame.Method(1, spec.Basic.Return(312, "NO_ROUTE", "", "q")).marshal()


def header(size: int, headers: dict[str, Any] | None = None) -> bytes:
    """A header frame."""
    return bytes(pika.frame.Header(1, size, pika.BasicProperties(headers=headers, delivery_mode=2)).marshal())


def delivery(tag: int, *parts: bytes, redelivered: bool = False, headers: dict[str, Any] | None = None) -> bytes:
    """All frames of one message, its body in these parts."""
    method = pika.frame.Method(1, spec.Basic.Deliver("place-3", tag, redelivered, "", "queue")).marshal()
    bodies = b"".join(pika.frame.Body(1, part).marshal() for part in parts)
    return bytes(method + header(sum(map(len, parts)), headers) + bodies)


class Connection:
    """What take_deliveries touches of pika's; `passed` is what pika was given, `taken` what was delivered."""

    def __init__(self, waiting: bytes = b"") -> None:
        self.passed: list[bytes] = []
        self.taken: list[tuple[bytes, int, bool, bytes]] = []
        self.blocks: list[tuple[int, list[int] | None]] = []
        self.bytes_received = 0
        self._frame_buffer = waiting
        self._transport = SimpleNamespace(_MAX_RECV_BYTES=4096)
        self._on_data_available: Callable[[bytes], None] = self.passed.append
        take_deliveries(
            self, lambda name, tag, again, _header, body: self.taken.append((name, tag, again, body)), self.alike
        )

    def alike(self, name: bytes, tags: Ints, offsets: Ints | None, bodies: Bodies) -> None:
        """A block, noted as its messages; `blocks` has how many they were, and their positions."""
        self.blocks.append((len(tags), None if offsets is None else offsets.tolist()))
        self.taken += [(name, int(tag), False, row.tobytes()) for tag, row in zip(tags, bodies, strict=True)]

    def receive(self, *pieces: bytes) -> None:
        """The socket gives these, one after the other."""
        for piece in pieces:
            self._on_data_available(piece)


STREAM = [
    HEARTBEAT,
    delivery(1, b"one"),
    ACK,
    delivery(2, b"two ", b"in ", b"parts", redelivered=True),
    delivery(3),
    RETURN + header(4),
    delivery(4, b"\xce" * 40, headers={"x": "y"}),
    HEARTBEAT,
]
TAKEN = [
    (b"place-3", 1, False, b"one"),
    (b"place-3", 2, True, b"two in parts"),
    (b"place-3", 3, False, b""),
    (b"place-3", 4, False, b"\xce" * 40),
]


@given(st.sets(st.integers(1, sum(map(len, STREAM)) - 1)))
def test_however_the_bytes_are_cut_up(cuts: set[int]) -> None:
    whole, connection = b"".join(STREAM), Connection()
    edges = [0, *sorted(cuts), len(whole)]
    connection.receive(*(whole[a:b] for a, b in pairwise(edges)))
    assert connection.taken == TAKEN
    assert b"".join(connection.passed) == HEARTBEAT + ACK + RETURN + header(4) + HEARTBEAT
    assert connection.bytes_received == sum(len(STREAM[i]) for i in (1, 3, 4, 6))


def test_a_message_is_handed_on_when_its_last_byte_came_and_frames_keep_their_order() -> None:
    connection = Connection()
    connection.receive(delivery(1, b"one")[:-1])
    assert (connection.taken, connection.passed) == ([], [])
    connection.receive(delivery(1, b"one")[-1:] + ACK)
    assert [row[1] for row in connection.taken] == [1]
    assert connection.passed == [ACK]


def test_what_pika_had_begun_to_read_is_read_on_and_more_is_read_at_a_time() -> None:
    first = delivery(1, b"one")
    connection = Connection(waiting=first[:10])
    connection.receive(first[10:])
    assert connection.taken == TAKEN[:1]
    assert connection._frame_buffer == b""
    assert connection._transport._MAX_RECV_BYTES == RECEIVE_BYTES


def test_a_frame_without_its_end_is_an_error() -> None:
    with pytest.raises(InvalidFrameError):
        Connection().receive(delivery(1, b"one")[:-1] + b"\x00")


def test_messages_that_are_alike_are_taken_together() -> None:
    connection = Connection()
    count = 200
    many = [delivery(tag, b"%060d" % tag, headers={"x-stream-offset": 2**40 + tag}) for tag in range(count)]
    connection.receive(b"".join(many) + ACK)
    assert connection.blocks == [(count, [2**40 + tag for tag in range(count)])]
    assert connection.taken == [(b"place-3", tag, False, b"%060d" % tag) for tag in range(count)]
    assert (connection.passed, connection.bytes_received) == ([ACK], sum(map(len, many)))


def test_few_are_taken_one_by_one_and_a_queue_has_no_positions() -> None:
    for count in (LEAST_ALIKE - 1, LEAST_ALIKE):
        connection = Connection()
        connection.receive(b"".join(delivery(tag, b"x") for tag in range(count)))
        assert connection.blocks == ([(count, None)] if count == LEAST_ALIKE else [])
        assert len(connection.taken) == count


KINDS = {
    "alike": {"parts": (b"0123456789",)},
    "again": {"parts": (b"0123456789",), "redelivered": True},
    "longer": {"parts": (b"0123456789a",)},
    "header": {"parts": (b"0123456789",), "headers": {"x-stream-offset": 3}},
    "in parts": {"parts": (b"01234", b"56789")},
    "empty": {"parts": ()},
}


@given(
    st.lists(st.tuples(st.sampled_from([*KINDS]), st.integers(1, 90)), min_size=1, max_size=8),
    st.lists(st.integers(1, 20000), max_size=4),
)
def test_blocks_and_single_ones_are_what_was_sent_in_its_order(runs: list[tuple[str, int]], cuts: list[int]) -> None:
    sent: list[Any] = [KINDS[kind] for kind, count in runs for _ in range(count)]
    whole = b"".join(
        delivery(tag, *one["parts"], **{k: v for k, v in one.items() if k != "parts"}) for tag, one in enumerate(sent)
    )
    connection = Connection()
    edges = [0, *sorted({cut for cut in cuts if cut < len(whole)}), len(whole)]
    connection.receive(*(whole[a:b] for a, b in pairwise(edges)))
    assert connection.taken == [
        (b"place-3", tag, "redelivered" in one, b"".join(one["parts"])) for tag, one in enumerate(sent)
    ]
    assert (connection.passed, connection.bytes_received) == ([], len(whole))


@pytest.mark.parametrize(
    "headers",
    [
        {"x-stream-offset": 2**40},
        {"a": 1, "x-stream-offset": 2**40, "b": "c"},
        {"a": "\x0fx-stream-offsetl12345678", "x-stream-offset": 2**40},
    ],
)
def test_the_position_of_a_stream_stands_in_the_header(headers: dict[str, Any]) -> None:
    seen: list[bytes] = []
    connection = Connection()
    connection._on_data_available = connection.passed.append
    take_deliveries(
        connection, lambda _name, _tag, _again, properties, _body: seen.append(properties), connection.alike
    )
    connection.receive(delivery(1, b"one", headers=headers))
    assert stream_offset(seen[0]) == 2**40
