"""The body codec: what is written is read back, and nothing else is taken for it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mqtest.body import HEADER_BYTES, Header, decode, encode, find


def test_literal_layout() -> None:
    text = encode(0xA1B2C3D4, 1, 77, 123456789, HEADER_BYTES)
    assert text[:44] == b"MQT1a1b2c3d4000000010000004d00000000075bcd15"
    assert text[52:] == b"-" * 12
    assert len(text) == 64


@given(
    st.integers(0, 2**32 - 1),
    st.integers(0, 2**32 - 1),
    st.integers(0, 2**32 - 1),
    st.integers(0, 2**63 - 1),
    st.integers(64, 5000),
)
def test_reads_back_what_was_written(run: int, producer: int, seq: int, due_ns: int, size: int) -> None:
    text = encode(run, producer, seq, due_ns, size)
    assert len(text) == size
    assert text.isascii()
    assert text.decode().isprintable()
    assert decode(text) == Header(run, producer, seq, due_ns)


@pytest.mark.parametrize("position", [0, 5, 20, 43, 44, 51, 52, 63, 64, 511])
def test_any_changed_byte_is_corrupt(position: int) -> None:
    text = bytearray(encode(1, 2, 3, 4, 512))
    text[position] ^= 0x01
    assert decode(bytes(text)) is None


@pytest.mark.parametrize("text", [b"", b"MQT1", b"x" * 64, b"MQT1" + b"z" * 60])
def test_foreign_bytes_are_not_ours(text: bytes) -> None:
    assert decode(text) is None


def test_a_cut_body_is_corrupt() -> None:
    assert decode(encode(1, 2, 3, 4, 512)[:-1]) is None


def test_bodies_larger_than_the_filler_block() -> None:
    text = encode(1, 2, 3, 4, 3_000_000)
    assert len(text) == 3_000_000
    assert decode(text) == Header(1, 2, 3, 4)


def test_whole_bodies_are_found_anywhere() -> None:
    whole, other_run, other_size = encode(7, 1, 5, 0, 100), encode(8, 1, 6, 0, 100), encode(7, 1, 7, 0, 90)
    data = b"xMQT1MQT1" + whole + other_run + b"\0" + other_size + whole[:50] + encode(7, 2, 9, 0, 100) + whole[:-1]
    assert [(found.producer, found.seq) for found in find(data, 7, 100)] == [(1, 5), (2, 9)]
    assert list(find(b"", 7, 100)) == []
