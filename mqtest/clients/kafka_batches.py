"""Record batches of Kafka (format 2), made and read by the thousand.

    61 bytes of header, whose CRC-32C covers everything behind itself; then the records:
    │ length │ attributes 0 │ time 0 │ number in the batch │ no key │ length of the value │ value │ no headers │

Lengths and numbers are signed varints. Records whose values have one size differ only in their number, which takes 1
byte up to 63, 2 up to 8191, 3 up to 1048575: so each of these runs is an array with rows of one length. Rules:
- Made: values of one size, no key, no headers, all with the time of the batch, never compressed.
- Read: a batch that is exactly as we make them costs nothing a record; any other is read record by record, and gives
  blocks of consecutive values of one size. A wrong CRC, an older format or compression is a MalformedError.
- Control batches (the ends of transactions) take positions, and give nothing.
Source: kafka.apache.org/documentation, message format; DefaultRecordBatch and DefaultRecord in apache/kafka.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import groupby
from typing import Final, NamedTuple

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from mqtest.bodies import Bodies, Ints
from mqtest.clients.kafka_codec import Cursor, MalformedError

HEADER: Final = struct.Struct(">qiibIhiqqqhii")
"""first offset, bytes after the length, leader epoch, format, CRC, attributes, last offset (from the first one), first
and last time (ms), producer id, its epoch, first sequence, records"""
NOT_IDEMPOTENT: Final = (-1, -1, -1)
"""producer id, epoch and first sequence of a producer that is not idempotent"""
_BEFORE_LENGTH: Final = 12
_CRC_AT: Final = 17
_COVERED_FROM: Final = 21
_FORMAT: Final = 2
_COMPRESSION, _CONTROL = 0x07, 0x20
_RUN_ENDS: Final = (64, 8192, 1 << 20, 1 << 27)
_ROWS: Final = 8192
"""heads are made for so many records at a time, and kept"""


def make(pieces: Sequence[Bodies], time_ms: int, producer: tuple[int, int, int] = NOT_IDEMPOTENT) -> memoryview:
    """One batch of all these values, which have one size; `producer`: its id, epoch and the first sequence."""
    count, size = sum(len(piece) for piece in pieces), pieces[0].shape[1]
    values = pieces[0] if len(pieces) == 1 else np.concatenate(pieces)
    made = np.empty(HEADER.size + records_bytes(count, size), dtype=np.uint8)
    at = HEADER.size
    for first, end in _runs(count):
        heads = _heads(size, first, end)
        rows = made[at : at + (end - first) * (heads.shape[1] + size + 1)].reshape(end - first, -1)
        rows[:, : heads.shape[1]] = heads
        rows[:, heads.shape[1] : -1] = values[first:end]
        rows[:, -1] = 0
        at += rows.size
    length, last = len(made) - _BEFORE_LENGTH, count - 1
    HEADER.pack_into(
        made.data, 0, 0, length, -1, _FORMAT, 0, 0, last, time_ms, time_ms, producer[0], producer[1], producer[2], count
    )
    struct.pack_into(">I", made.data, _CRC_AT, google_crc32c.value(made[_COVERED_FROM:].tobytes()))
    return made.data


def records_bytes(count: int, size: int) -> int:
    """What so many records with values of `size` bytes take."""
    return sum((end - first) * (len(_head(size, first)) + size + 1) for first, end in _runs(count))


def fitting(size: int, most_bytes: int) -> int:
    """How many values of this size go into a batch of at most so many bytes; one at least, whatever it takes."""
    return max(1, (most_bytes - HEADER.size) // (len(_head(size, _RUN_ENDS[1])) + size + 1))


class Read(NamedTuple):
    """What a fetch brought: blocks of (offsets, values), and where to go on."""

    blocks: list[tuple[Ints, Bodies]]
    position: int


def read(data: memoryview, position: int) -> Read:
    """The records from `position` on, of whole batches, the last of which may be cut off; raises MalformedError."""
    blocks: list[tuple[Ints, Bodies]] = []
    at = 0
    while at + HEADER.size <= len(data):
        base, length, _, form, crc, attributes, last, _, _, _, _, _, count = HEADER.unpack_from(data, at)
        if form != _FORMAT:
            raise MalformedError(f"a batch of format {form} at offset {base}; only {_FORMAT} is read")
        end = at + _BEFORE_LENGTH + length
        if end > len(data):
            break
        if end < at + HEADER.size or last < 0 or count < 0:
            raise MalformedError(f"a batch of {length} bytes at offset {base}")
        if google_crc32c.value(data[at + _COVERED_FROM : end].tobytes()) != crc:
            raise MalformedError(f"the batch at offset {base} does not match its CRC")
        if attributes & _COMPRESSION:
            raise MalformedError(f"the batch at offset {base} is compressed: kafka-wire reads none such")
        if not attributes & _CONTROL and base + last >= position:
            records = np.frombuffer(data, dtype=np.uint8, count=end - at - HEADER.size, offset=at + HEADER.size)
            blocks += _from(_records(records, base, last, count), position)
        position = max(position, base + last + 1)
        at = end
    return Read(_joined(blocks), position)


def _joined(blocks: list[tuple[Ints, Bodies]]) -> list[tuple[Ints, Bodies]]:
    """Neighbours of one size as one block."""
    sizes = [values.shape[1] for _, values in blocks]
    joined, at = [], 0
    for _size, alike in groupby(sizes):
        end = at + len(list(alike))
        offsets = np.concatenate([offsets for offsets, _ in blocks[at:end]])
        joined.append((offsets, np.concatenate([values for _, values in blocks[at:end]])))
        at = end
    return joined


def _from(blocks: list[tuple[Ints, Bodies]], position: int) -> Iterator[tuple[Ints, Bodies]]:
    """Without what lies before the position: a batch comes whole, whatever was asked for."""
    for offsets, values in blocks:
        if offsets[0] >= position:
            yield offsets, values
        elif (wanted := offsets >= position).any():
            yield offsets[wanted], values[wanted]


def _records(records: Bodies, base: int, last: int, count: int) -> list[tuple[Ints, Bodies]]:
    try:
        alike = _alike(records, base, count) if count == last + 1 else None
        return _one_by_one(records, base, count) if alike is None else alike
    except (struct.error, IndexError) as error:
        raise MalformedError(f"the records at offset {base} are no records: {error}") from error


def _alike(records: Bodies, base: int, count: int) -> list[tuple[Ints, Bodies]] | None:
    """The records of a batch as we make them; None: it is another."""
    first_one = Cursor(records[:64].tobytes())
    try:
        first_one.zigzag()
        first_one.raw(2)
        if first_one.zigzag() or first_one.zigzag() != -1:
            return None
        size = first_one.zigzag()
    except (struct.error, IndexError):
        return None
    if size < 0 or records_bytes(count, size) != len(records):
        return None
    found: list[tuple[Ints, Bodies]] = []
    at = 0
    for first, end in _runs(count):
        heads = _heads(size, first, end)
        rows = records[at : at + (end - first) * (heads.shape[1] + size + 1)].reshape(end - first, -1)
        if not np.array_equal(rows[:, : heads.shape[1]], heads) or rows[:, -1].any():
            return None
        found.append((np.arange(base + first, base + end), rows[:, heads.shape[1] : -1]))
        at += rows.size
    return found


def _one_by_one(records: Bodies, base: int, count: int) -> list[tuple[Ints, Bodies]]:
    cursor = Cursor(records.tobytes())
    found: list[tuple[list[int], list[bytes]]] = []
    for _ in range(count):
        length = cursor.zigzag()
        end = cursor.at + length
        if length < 0 or end > len(records):
            raise IndexError("a record runs over the end")
        cursor.raw(1)
        cursor.zigzag()
        offset = base + cursor.zigzag()
        cursor.raw(max(0, cursor.zigzag()))
        value = bytes(cursor.raw(max(0, cursor.zigzag())))
        if cursor.at > end:
            raise IndexError("a value runs over its record")
        cursor.at = end  # over the headers
        if not found or len(found[-1][1][-1]) != len(value):
            found.append(([], []))
        found[-1][0].append(offset)
        found[-1][1].append(value)
    return [
        (
            np.array(offsets, dtype=np.int64),
            np.frombuffer(b"".join(values), np.uint8).reshape(len(values), len(values[0])),
        )
        for offsets, values in found
    ]


def _runs(count: int) -> Iterator[tuple[int, int]]:
    """First record and end of each run whose numbers take the same bytes, cut where heads are cut."""
    first = 0
    while first < count:
        end = next(e for e in _RUN_ENDS if first < e)
        end = min(end, (first // _ROWS + 1) * _ROWS, count)
        yield first, end
        first = end


def _heads(size: int, first: int, end: int) -> NDArray[np.uint8]:
    """What stands before the values of these records of one run; one row a record."""
    return _kept_heads(size, first)[: end - first]


@lru_cache(maxsize=64)
def _kept_heads(size: int, first: int) -> NDArray[np.uint8]:
    end = min(next(e for e in _RUN_ENDS if first < e), (first // _ROWS + 1) * _ROWS)
    rows = b"".join(_head(size, number) for number in range(first, end))
    return np.frombuffer(rows, dtype=np.uint8).reshape(end - first, -1)


def _head(size: int, number: int) -> bytes:
    """Length, attributes, time, number, no key, length of the value."""
    rest = b"\0\0" + _zigzag(number) + b"\x01" + _zigzag(size)
    return _zigzag(len(rest) + size + 1) + rest


def _zigzag(number: int) -> bytes:
    """A number that is not negative, as a signed varint."""
    value, made = number << 1, bytearray()
    while value >= 0x80:
        made.append(value & 0x7F | 0x80)
        value >>= 7
    made.append(value)
    return bytes(made)
