"""Stored messages of RocketMQ: literal bytes, and all mixtures against a plain parser that shares nothing with ours."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mqtest.clients import rocketmq_messages
from mqtest.clients.rocketmq_codec import MalformedError
from mqtest.clients.rocketmq_messages import blocks
from tests.rocketmq_server import read_stored, stored

LITERAL = (
    b"\0\0\0\x61\xda\xa3\x20\xa7\x36\x10\xa6\x86\0\0\0\x02\0\0\0\0"  # size 97, magic, CRC, queue 2, flag
    b"\0\0\0\0\0\0\0\x05\0\0\0\0\0\0\0\x63\0\0\0\0"  # queue offset 5, commit-log offset 99, system flag
    b"\0\0\0\0\0\0\0\0\x7f\0\0\1\0\0\0\0"  # born, host
    b"\0\0\0\0\0\0\0\0\x7f\0\0\1\0\0\0\0"  # stored, host
    b"\0\0\0\0\0\0\0\0\0\0\0\0"  # reconsumed, prepared
    b"\0\0\0\x05hello\x01t\0\0"
)


@pytest.fixture(params=["one by one", "at once"], autouse=True, scope="module")
def _way(request: pytest.FixtureRequest) -> Iterator[None]:
    """Every test goes both ways; what the array way does not take comes back to the other."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(rocketmq_messages, "_FEW", 0 if request.param == "at once" else 1 << 20)
        yield


def each(answer: bytes) -> list[tuple[int, int, bytes]]:
    """Queue, offset and body, one by one."""
    return [(one.place, one.offset, one.body) for block in blocks(answer) for one in block.deliveries]


def test_messages_of_literal_bytes() -> None:
    two = LITERAL.replace(b"\0\0\0\x05\0", b"\0\0\0\x06\0", 1).replace(b"hello", b"world")
    (block,) = blocks(LITERAL + two)
    assert block.place == 2
    assert block.offsets.tolist() == [5, 6]
    assert block.bodies.tobytes() == b"helloworld"
    assert (block.bodies.shape, block.bodies.flags.c_contiguous) == ((2, 5), True)


def test_a_body_that_does_not_match_its_crc_is_handed_on() -> None:
    """It is told as corrupt by its own CRC (body.py), not taken for the end of the log."""
    assert each(LITERAL.replace(b"hello", b"hullo")) == [(2, 5, b"hullo")]


def test_an_answer_without_messages() -> None:
    assert blocks(b"") == []


@pytest.mark.parametrize("count", [1, 2, 1024])
def test_messages_of_one_load_are_one_block(count: int) -> None:
    (block,) = blocks(b"".join(stored(3, 7 + n, b"%05d" % n) for n in range(count)))
    assert (block.place, block.offsets.tolist()) == (3, list(range(7, 7 + count)))
    assert block.bodies.tobytes() == b"".join(b"%05d" % n for n in range(count))


def test_properties_that_grow_by_a_digit_leave_one_block() -> None:
    answer = b"".join(stored(0, n, b"%05d" % n, properties=b"KEYS\x01%d\x02" % n) for n in range(8, 1032))
    (block,) = blocks(answer)
    assert block.offsets.tolist() == list(range(8, 1032))
    assert block.bodies.tobytes() == b"".join(b"%05d" % n for n in range(8, 1032))


def test_many_are_read_as_arrays_and_others_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rocketmq_messages, "_FEW", 32)
    slow: list[bytes] = []
    monkeypatch.setattr(rocketmq_messages, "_one_by_one", slow.append)
    many = [stored(0, n, b"%05d" % n, flag=0x10, properties=b"%d" % n) for n in range(5, 40)]
    assert len(blocks(b"".join(many))) == 1
    assert slow == []
    others = [many[:20], [*many, stored(0, 1, zlib.compress(b"x"), flag=1)], [*many, many[0][:50]]]
    for other in others:
        blocks(b"".join(other))
    assert slow == [b"".join(other) for other in others]


def test_a_message_within_a_body_is_none() -> None:
    """Where a message of one size would begin stands another, within the body of one of twice that size."""
    inner = stored(0, 9, b"a" * 20)
    outer = stored(0, 1, b"-" * (len(inner) - 88) + inner[:-4])
    assert (len(outer), outer[len(inner) :]) == (2 * len(inner), inner)
    assert [offset for _, offset, _ in each(inner + outer)] == [9, 1]


def test_another_length_or_queue_begins_a_block() -> None:
    rows = [(0, b"a"), (0, b"b"), (0, b"cc"), (0, b""), (0, b""), (1, b""), (0, b"d")]
    found = blocks(b"".join(stored(place, nth, text) for nth, (place, text) in enumerate(rows)))
    assert [(block.place, block.bodies.shape) for block in found] == [
        (0, (2, 1)),
        (0, (1, 2)),
        (0, (2, 0)),
        (1, (1, 0)),
        (0, (1, 1)),
    ]


def test_long_hosts_and_compressed_bodies() -> None:
    answer = stored(0, 1, zlib.compress(b"long"), flag=0x31) + stored(1, 2, b"not compressed", flag=1)
    assert each(answer) == [(0, 1, b"long"), (1, 2, b"not compressed")]


MESSAGE = st.builds(
    stored,
    st.integers(0, 2),
    st.integers(0, 1 << 40),
    st.one_of(st.binary(max_size=3), st.just(zlib.compress(b"x" * 50))),
    flag=st.sampled_from([0, 0, 0, 0x1, 0x10, 0x20, 0x30, 0x31, 0x100]),
    properties=st.sampled_from([b"", b"K\x017\x02", b"K\x0110\x02"]),
    topic=st.sampled_from(["t", "topic"]),
    long=st.booleans(),
)
DAMAGE = st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=2)
"""how far into the answer, and the byte that stands there then"""


@given(st.lists(st.tuples(MESSAGE, st.integers(1, 3)), max_size=6), DAMAGE, st.sampled_from([0, 0, 1, 30, 80]))
@settings(deadline=None, max_examples=300)
def test_whatever_an_answer_holds_is_what_a_plain_parser_reads(
    runs: list[tuple[bytes, int]], damage: list[tuple[float, int]], cut: int
) -> None:
    whole = bytearray(b"".join(message * count for message, count in runs))
    for share, byte in damage if whole else ():
        whole[int(share * len(whole))] = byte
    answer = bytes(whole[: max(0, len(whole) - cut)])
    try:
        expected = read_stored(answer)
    except (ValueError, struct.error):
        with pytest.raises(MalformedError):
            blocks(answer)
    else:
        assert each(answer) == expected


ONE = stored(0, 0, b"x")


@pytest.mark.parametrize("before", [b"", ONE, ONE + stored(0, 1, b"longer")])
@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (ONE[:-1], "no message at byte"),
        (ONE[:20], "message cut short"),
        (ONE[:2], "message cut short"),
        (b"\0\0\0\x10" + ONE[4:], "size 16"),
        (b"\0\0\0\0" + ONE[4:], "size 0"),
        (b"\0\0\0\x50" + ONE[4:80], "cut short|body of"),
        (b"\0\0\0\x29" + ONE[4:41], "body of|cut short"),
        (ONE.replace(b"\xda\xa3", b"\xda\xa4"), "magic 0xdaa420a7"),
        (ONE.replace(b"\0\0\0\x01x", b"\0\0\xff\x01x"), "body of"),
        (ONE.replace(b"\0\0\0\x01x", b"\xff\xff\xff\xffx"), "body of"),
    ],
)
def test_bytes_that_are_no_message(before: bytes, bad: bytes, said: str) -> None:
    with pytest.raises(MalformedError, match=said):
        blocks(before + bad)
