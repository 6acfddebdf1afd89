"""Many bodies at once are, byte for byte and row for row, what body.py makes and reads of each."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mqtest import body
from mqtest.bodies import Bodies, Ints, decode_many, encode_many

SIZES = st.one_of(st.integers(64, 300), st.sampled_from([1024, 65536, body.BLOCK_BYTES + 63]))
LARGE = [body.BLOCK_BYTES + 64, body.BLOCK_BYTES + 65, 2 * body.BLOCK_BYTES + 100]
WORDS = st.integers(0, 2**32 - 1)
DUE = st.integers(0, 2**63 - 1)


def ints(numbers: list[int]) -> Ints:
    return np.array(numbers, dtype=np.int64)


def block(bodies: list[bytes]) -> Bodies:
    """One row a body, all of the same size."""
    return np.frombuffer(b"".join(bodies), dtype=np.uint8).reshape(len(bodies), -1)


def same_as_one_by_one(bodies: list[bytes]) -> None:
    found = decode_many(block(bodies))
    for row, text in enumerate(bodies):
        header = body.decode(text)
        assert bool(found.valid[row]) == (header is not None)
        if header is not None:
            assert tuple(int(column[row]) for column in found[:4]) == header


@given(WORDS, WORDS, st.lists(st.tuples(WORDS, DUE), min_size=1, max_size=5), SIZES)
@settings(deadline=None, max_examples=150)
def test_encodes_byte_for_byte_as_one_by_one(run: int, producer: int, rows: list[tuple[int, int]], size: int) -> None:
    made = encode_many(run, producer, ints([s for s, _ in rows]), ints([d for _, d in rows]), size)
    assert made.shape == (len(rows), size)
    assert [row.tobytes() for row in made] == [body.encode(run, producer, *row, size) for row in rows]


@pytest.mark.parametrize("size", LARGE)
def test_a_body_may_be_longer_than_the_block(size: int) -> None:
    made = encode_many(7, 8, ints([0, 9, 2**32 - 1]), ints([1, 2, 3]), size)
    bodies = [body.encode(7, 8, seq, due, size) for seq, due in ((0, 1), (9, 2), (2**32 - 1, 3))]
    assert [row.tobytes() for row in made] == bodies
    same_as_one_by_one(bodies)


def test_without_due_times_and_without_messages() -> None:
    assert encode_many(1, 2, ints([5]), 0, 100).tobytes() == body.encode(1, 2, 5, 0, 100)
    assert encode_many(1, 2, ints([]), 0, 100).shape == (0, 100)
    assert len(decode_many(np.zeros((0, 100), dtype=np.uint8)).valid) == 0


def test_what_cannot_be_written_is_refused() -> None:
    with pytest.raises(ValueError, match="32 bits"):
        encode_many(1, 2, ints([2**32]), 0, 100)
    with pytest.raises(ValueError, match="64 bytes"):
        encode_many(1, 2, ints([0]), 0, 63)


@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 12), WORDS, DUE), min_size=1, max_size=40),
    st.integers(64, 130),
    st.lists(st.tuples(st.integers(0, 39), st.integers(0, 129), st.integers(0, 255)), max_size=6),
)
@settings(deadline=None, max_examples=200)
def test_decodes_as_one_by_one(
    rows: list[tuple[int, int, int, int]], size: int, damage: list[tuple[int, int, int]]
) -> None:
    bodies = [bytearray(body.encode(*row, size)) for row in rows]
    for row, at, value in damage:
        bodies[row % len(bodies)][at % size] = value
    same_as_one_by_one([bytes(text) for text in bodies])


@given(
    st.integers(1000, 2**31),
    st.integers(-20, 20),
    st.integers(1, 40),
    st.one_of(st.just(None), DUE),
    st.lists(st.tuples(st.integers(0, 39), st.integers(0, 129), st.integers(0, 255)), max_size=2),
    st.lists(st.tuples(st.integers(0, 39), st.integers(0, 2), st.integers(0, 3000)), max_size=1),
)
@settings(deadline=None, max_examples=200)
def test_a_guess_from_the_ends_is_only_taken_where_it_holds(
    first: int,
    step: int,
    count: int,
    due_ns: int | None,
    damage: list[tuple[int, int, int]],
    others: list[tuple[int, int, int]],
) -> None:
    """Even steps with one due time or many, some rows damaged, and some of another producer or number."""
    rows = [(7, 1, first + step * n, n * 1000 if due_ns is None else due_ns) for n in range(count)]
    for row, producer, seq in others:
        rows[row % count] = (7, producer, seq, 5)
    bodies = [bytearray(body.encode(*row, 130)) for row in rows]
    for row, at, value in damage:
        bodies[row % count][at] = value
    same_as_one_by_one([bytes(text) for text in bodies])


def test_other_bytes_with_a_good_crc_are_taken_as_body_takes_them() -> None:
    from zlib import crc32

    odd = []
    for head in (b"MQT1%08X%08x%08x%016x" % (0xAB, 1, 2, 3), b"MQT1%08x%08x%08x%016x" % (1, 1, 0xABCD, 2**64 - 1)):
        tail = b"=" * 60
        odd.append(head + b"%08x" % crc32(tail, crc32(head)) + tail)
    found = decode_many(block([*odd, b"\0" * 112, b"MQT1" + b"z" * 108, body.encode(1, 2, 3, 4, 112)]))
    assert list(found.valid) == [True, True, False, False, True]
    assert [int(found.seq[row]) for row in (0, 1, 4)] == [2, 0xABCD, 3]


def test_too_short_for_a_header() -> None:
    assert not decode_many(np.zeros((3, 63), dtype=np.uint8)).valid.any()
    assert not decode_many(np.zeros((3, 0), dtype=np.uint8)).valid.any()


def test_rows_that_are_apart_in_memory() -> None:
    wide = np.zeros((4, 120), dtype=np.uint8)
    wide[:, 9:109] = encode_many(1, 2, ints([3, 4, 5, 6]), 0, 100)
    assert list(decode_many(wide[:, 9:109]).seq) == [3, 4, 5, 6]
