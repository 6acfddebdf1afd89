"""Record batches against a plain parser and a plain writer, which share nothing with them."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mqtest.bodies import Bodies
from mqtest.clients import kafka_batches
from mqtest.clients.kafka_codec import MalformedError
from tests.kafka_server import crc32c, read_batch, written_batch

RNG = np.random.default_rng(1)


def values(count: int, size: int) -> Bodies:
    return RNG.integers(0, 256, (count, size), dtype=np.uint8)


def bodies_of(found: kafka_batches.Read) -> list[tuple[int, bytes]]:
    return [(int(o), v.tobytes()) for offsets, rows in found.blocks for o, v in zip(offsets, rows, strict=True)]


def with_crc(batch: bytes) -> bytes:
    return batch[:17] + struct.pack(">I", crc32c(batch[21:])) + batch[21:]


def test_the_plain_parser_knows_its_crc() -> None:
    assert crc32c(b"123456789") == 0xE3069283  # RFC 3720, B.4 lists others; this is the usual check value


@pytest.mark.parametrize("count", [1, 2, 63, 64, 65, 8191, 8192, 8193, 16385, 20000])
@pytest.mark.parametrize("size", [0, 1, 54, 64, 100])
def test_a_made_batch_is_what_a_plain_parser_reads(count: int, size: int) -> None:
    rows = values(count, size)
    batch = bytes(kafka_batches.make([rows], 123456, (9, 2, 77)))
    read = read_batch(batch)
    assert (read.base, read.attributes, read.first_time) == (0, 0, 123456)
    assert (read.producer, read.epoch, read.sequence) == (9, 2, 77)
    assert [(key, value) for _, key, value in read.records] == [(None, row.tobytes()) for row in rows]
    assert len(batch) == 61 + kafka_batches.records_bytes(count, size)


@pytest.mark.parametrize("size", [8100, 70000])
def test_long_values_have_longer_lengths(size: int) -> None:
    rows = values(70, size)
    read = read_batch(bytes(kafka_batches.make([rows[:30], rows[30:]], 1)))
    assert [value for _, _, value in read.records] == [row.tobytes() for row in rows]
    assert (read.producer, read.epoch, read.sequence) == (-1, -1, -1)


def test_a_batch_byte_by_byte() -> None:
    """Two records as the documentation lays them out, written down by hand."""
    one = bytes(kafka_batches.make([np.frombuffer(b"abXY", np.uint8).reshape(2, 2)], 0x0102030405, (1, 0, 5)))
    records = bytes.fromhex("10 00 00 00 01 04 6162 00  10 00 00 02 01 04 5859 00")
    covered = (
        bytes.fromhex("0000 00000001 0000000102030405 0000000102030405 0000000000000001 0000 00000005 00000002")
        + records
    )
    assert one == struct.pack(">qiibI", 0, 9 + len(covered), -1, 2, crc32c(covered)) + covered


@given(st.integers(64, 3000), st.integers(61, 5000))
def test_as_many_fit_as_are_told(size: int, most: int) -> None:
    count = kafka_batches.fitting(size, most)
    assert count == 1 or 61 + kafka_batches.records_bytes(count, size) <= most


HABITS = st.sampled_from([{}, {"key": b"k"}, {"gap": 3}, {"times": True}, {"attributes": 0x20}, {"attributes": 0x10}])
"""0x20: a control batch; 0x10: of a transaction"""


@given(
    st.lists(st.tuples(st.lists(st.binary(max_size=4), min_size=1, max_size=6), HABITS), max_size=5),
    st.integers(0, 30),
    st.integers(0, 60),
)
@settings(deadline=None, max_examples=150)
def test_batches_of_other_clients_are_read_record_by_record(
    batches: list[tuple[list[bytes], dict[str, int]]], position: int, cut: int
) -> None:
    whole = b"".join(written_batch(0, texts, **how) for texts, how in batches)  # type: ignore[arg-type]
    data, base = b"", 0
    expected, after = [], position
    for texts, how in batches:
        gap = how.get("gap", 1)
        data += written_batch(base, texts, **how)  # type: ignore[arg-type]
        if len(data) <= len(whole) - cut:
            offsets = [base + nth * gap for nth in range(len(texts))]
            read = zip(offsets, texts, strict=True) if how.get("attributes") != 0x20 else ()
            expected += [(offset, text) for offset, text in read if offset >= position]
            after = max(after, offsets[-1] + 1)
        base += (len(texts) - 1) * gap + 1
    found = kafka_batches.read(memoryview(data[: max(0, len(data) - cut)]), position)
    assert bodies_of(found) == expected
    assert found.position == after


@pytest.mark.parametrize("count", [1, 64, 9000])
def test_our_own_batches_come_as_one_block(count: int) -> None:
    rows = values(count, 100)
    batches = b"".join(
        struct.pack(">q", base) + bytes(kafka_batches.make([rows], 1))[8:] for base in (500, 500 + count)
    )
    found = kafka_batches.read(memoryview(batches + batches[:77]), 500)
    assert found.position == 500 + 2 * count
    ((offsets, bodies),) = found.blocks
    assert offsets.tolist() == list(range(500, 500 + 2 * count))
    assert bodies.tobytes() == rows.tobytes() * 2
    assert [o for o, _ in bodies_of(kafka_batches.read(memoryview(batches), 500 + count + count // 2))] == list(
        range(500 + count + count // 2, 500 + 2 * count)
    )


def test_sizes_that_change_make_blocks_of_their_own() -> None:
    data = written_batch(0, [b"aa", b"bb", b"ccc", b"", b"dd"]) + written_batch(5, [b"ee"])
    found = kafka_batches.read(memoryview(data), 0)
    assert [rows.shape for _, rows in found.blocks] == [(2, 2), (1, 3), (1, 0), (2, 2)]


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda b: b[:70] + bytes([b[70] ^ 1]) + b[71:], "does not match its CRC"),
        (lambda b: with_crc(b[:21] + struct.pack(">h", 2) + b[23:]), "is compressed"),
        (lambda b: b[:16] + b"\1" + b[17:], "format 1"),
        (lambda b: with_crc(b[:61] + b"\xff" * (len(b) - 61)), "are no records"),
        (lambda b: with_crc(b[:57] + struct.pack(">i", 9) + b[61:]), "are no records"),
        (lambda b: b[:8] + struct.pack(">i", 3) + b[12:], "a batch of 3 bytes"),
    ],
)
def test_what_is_no_batch_of_format_2_is_refused(damage: object, said: str) -> None:
    whole = bytes(kafka_batches.make([values(3, 100)], 1))
    with pytest.raises(MalformedError, match=said):
        kafka_batches.read(memoryview(damage(whole)), 0)  # type: ignore[operator]
