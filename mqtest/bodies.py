"""Bodies of one size by the thousand: what body.py does with one, for whole arrays, at a twentieth of the cost.

A block of bodies is a C-contiguous uint8 array [messages, size]. Rules:
- `encode_many` makes byte for byte what `body.encode` makes.
- `decode_many` says of every row what `body.decode` says: it reads the header, makes the body that this header has,
  and compares all bytes, which is stricter than a CRC. A row that differs goes through `body.decode` itself.
- What one client sent at once mostly has sequence numbers at even steps: they are guessed from the first and the last
  row, and the comparison proves the guess. Only where it fails are the numbers read out of every row.
- CRC-32 is linear: the CRC of a header is that of a header of zeros, xor one table entry for every 16 bits of its
  numbers (four hexadecimal digits); that of a slice of the filler comes from the CRCs of its two prefixes; and a CRC is
  shifted over further bytes by tables too.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Final, NamedTuple
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from mqtest import body

Bodies = NDArray[np.uint8]
"""[messages, size]"""
Ints = NDArray[np.int64]

_U4 = np.dtype("<u4")
_CRC_AT: Final = 44
_FIRST_DIGITS: Final = {"seq": (20, 24), "due": (28, 32, 36, 40)}
"""where the pieces of four digits stand, the most significant first"""
_NAMED: Final = 20
"""bytes that say whose it is: magic, run, producer"""
_OTHERS: Final = 8
"""producers and runs that are told apart in one block before the rest is decoded one by one"""

_NUMBERS = np.arange(1 << 16, dtype=np.uint32)
_DIGITS: Final = np.frombuffer(b"".join(b"%04x" % n for n in range(1 << 16)), dtype=_U4)
"""16 bits -> their four digits"""


class Headers(NamedTuple):
    """Columns, one row a body; `valid` false: no body of ours, and the other columns mean nothing."""

    run: Ints
    producer: Ints
    seq: Ints
    due_ns: Ints
    valid: NDArray[np.bool_]


def prepare(size: int) -> None:
    """Make the tables for bodies of this size now (some 50 ms), not with the first block."""
    if size >= body.HEADER_BYTES:
        _layout(size)
        _prefixes()
        _values()


def encode_many(run: int, producer: int, seqs: Ints, due_ns: Ints | int, size: int) -> Bodies:
    """The bodies of these messages, all of `size` bytes (at least HEADER_BYTES); `due_ns`: one each, or 0 for all."""
    if len(seqs) and (int(seqs.min()) < 0 or int(seqs.max()) >= 1 << 32):
        raise ValueError("a sequence number has 32 bits")
    layout = _layout(size)
    same_due_ns = due_ns if isinstance(due_ns, int) else 0
    head = body.encode(run, producer, 0, same_due_ns, body.HEADER_BYTES)
    made = np.empty((len(seqs), size), dtype=np.uint8)
    made[:, : body.HEADER_BYTES] = np.frombuffer(head, dtype=np.uint8)
    fields = made.view(layout.fields)[:, 0]
    crc = _shift_one(crc32(head[:_CRC_AT]), layout.tail) ^ layout.zero_tail_crc
    crcs = np.full(len(seqs), crc, dtype=np.uint32)
    pieces = {"seq": seqs, "due": due_ns}
    for name, places in _FIRST_DIGITS.items():
        numbers = pieces[name]
        if isinstance(numbers, int):
            continue
        for nth, at in enumerate(places):
            piece = (numbers >> 16 * (len(places) - 1 - nth)) & 0xFFFF
            fields[f"at{at}"] = _DIGITS[piece]
            crcs ^= layout.crcs[at][piece]
    _fill(fields, crcs, seqs, layout)
    fields["crc0"] = _DIGITS[crcs >> 16]
    fields["crc1"] = _DIGITS[crcs & 0xFFFF]
    return made


def decode_many(bodies: Bodies) -> Headers:
    """The header of every row, and whether it is a body of ours that matches its CRC."""
    rows, size = bodies.shape
    bodies = np.ascontiguousarray(bodies)
    run, producer, seq, due_ns = np.zeros((4, rows), dtype=np.int64)
    found = Headers(run, producer, seq, due_ns, np.zeros(rows, dtype=np.bool_))
    if size < body.HEADER_BYTES or not rows or _decode_guessed(bodies, found):
        return found
    left: Ints = np.arange(rows)
    for _ in range(_OTHERS):
        left = _decode_alike(bodies, left, found)
        if not len(left):
            break
    for row in left:
        _decode_one(bodies, int(row), found)
    return found


def _decode_guessed(bodies: Bodies, found: Headers) -> bool:
    """Decode all rows, if they are what the first and the last one let expect of those between."""
    first, last = (body.decode(bodies[row].tobytes()) for row in (0, -1))
    if first is None or last is None or first[:2] != last[:2] or max(first.due_ns, last.due_ns) >= 1 << 63:
        return False
    step, uneven = divmod(last.seq - first.seq, max(1, len(bodies) - 1))
    if uneven:
        return False
    seqs = first.seq + step * np.arange(len(bodies))
    due_ns = first.due_ns if first.due_ns == last.due_ns else _number(bodies, "due")
    if not np.array_equal(encode_many(first.run, first.producer, seqs, due_ns, bodies.shape[1]), bodies):
        return False
    found.run[:], found.producer[:], found.seq[:], found.due_ns[:], found.valid[:] = (*first[:2], seqs, due_ns, True)
    return True


def _decode_alike(bodies: Bodies, rows: Ints, found: Headers) -> Ints:
    """Decode those of these rows that name the run and producer of the first one; returns the others."""
    whole = len(rows) == len(bodies)
    block = bodies if whole else bodies[rows]
    same = (_words(block, 0, _NAMED) == _words(block[:1], 0, _NAMED)).all(axis=1)
    others: Ints = rows[~same]
    if len(others):
        rows, block = rows[same], block[same]
    first = block[0].tobytes()
    try:
        run, producer = int(first[4:12], 16), int(first[12:20], 16)
    except ValueError:
        run = -1
    if run < 0 or producer < 0 or first[:4] != body.MAGIC:
        for row in rows:
            _decode_one(bodies, int(row), found)
        return others
    seqs, due_ns = _number(block, "seq"), _number(block, "due")
    expected = encode_many(run, producer, seqs, due_ns, block.shape[1])
    found.run[rows], found.producer[rows], found.seq[rows], found.due_ns[rows] = run, producer, seqs, due_ns
    found.valid[rows] = True
    if not np.array_equal(expected, block):
        for row in rows[(expected != block).any(axis=1)]:
            _decode_one(bodies, int(row), found)
    return others


def _decode_one(bodies: Bodies, row: int, found: Headers) -> None:
    header = body.decode(bodies[row].tobytes())
    found.valid[row] = header is not None
    if header is not None:
        found.run[row], found.producer[row], found.seq[row] = header[:3]
        found.due_ns[row] = np.uint64(header.due_ns).astype(np.int64)  # a foreign one may have all 64 bits


def _words(bodies: Bodies, at: int, end: int) -> NDArray[Any]:
    """These bytes of every row, in words of four; [messages, words]."""
    return np.ascontiguousarray(bodies[:, at:end]).view(_U4)


def _number(bodies: Bodies, name: str) -> Ints:
    """The number of this name in every row; whatever where it is not written in our digits."""
    places = _FIRST_DIGITS[name]
    pairs = np.ascontiguousarray(bodies[:, places[0] : places[-1] + 4]).view("<u2")
    values = _values()[pairs]
    number = np.zeros(len(bodies), dtype=np.int64)
    for nth in range(values.shape[1]):
        number <<= 8
        number |= values[:, nth]
    return number


@lru_cache(maxsize=1)
def _values() -> NDArray[np.uint8]:
    """Two digits as they stand in memory -> their number; 0 for what are no digits."""
    table = np.zeros(1 << 16, dtype=np.uint8)
    for number in range(256):
        table[int.from_bytes(b"%02x" % number, "little")] = number
    return table


# --- CRCs ---


class _Layout(NamedTuple):
    """What bodies of one size have in common."""

    fields: np.dtype[np.void]
    tail: int
    """bytes after the CRC: dashes and filler"""
    crcs: dict[int, NDArray[np.uint32]]
    """position of four digits -> 16 bits -> what they change in the CRC of the whole, against four zeros"""
    starts: int
    """positions in the block at which filler may start; 0: it is longer than the block, and always the same"""
    filler: bytes
    zero_tail_crc: int
    """the tail's own CRC without its filler's, where that is to come; the whole tail's where it is always the same"""
    shift: NDArray[np.uint32]


@lru_cache(maxsize=8)
def _layout(size: int) -> _Layout:
    if size < body.HEADER_BYTES:
        raise ValueError(f"a body has {body.HEADER_BYTES} bytes at least")
    rest, tail = size - body.HEADER_BYTES, size - _CRC_AT - 8
    digits = [at for places in _FIRST_DIGITS.values() for at in places]
    names = [f"at{at}" for at in digits] + ["crc0", "crc1", "filler"]
    offsets = [*digits, _CRC_AT, _CRC_AT + 4, body.HEADER_BYTES]
    formats = ["<u4"] * (len(digits) + 2) + [f"V{rest}"]
    if not rest:
        names, offsets, formats = names[:-1], offsets[:-1], formats[:-1]
    fields = np.dtype({"names": names, "formats": formats, "offsets": offsets, "itemsize": size})
    shift_tail = _shift(tail)
    starts = body.BLOCK_BYTES - rest if 0 < rest < body.BLOCK_BYTES else 0
    dashes = body.encode(0, 0, 0, 0, body.HEADER_BYTES)[_CRC_AT + 8 :]
    if starts:
        filler, tail_crc = body.FILLER, _shift_one(crc32(dashes), rest)
    else:
        filler = body.encode(0, 0, 0, 0, size)[body.HEADER_BYTES :]
        tail_crc = crc32(dashes + filler)
    crcs = {at: _shifted(_digit_crcs(at), shift_tail) for at in digits}
    return _Layout(fields, tail, crcs, starts, filler, tail_crc, _shift(rest))


def _fill(fields: NDArray[np.void], crcs: NDArray[np.uint32], seqs: Ints, layout: _Layout) -> None:
    """Write the filler of every message, and put its CRC into `crcs`."""
    if not layout.starts:
        if layout.filler:
            fields["filler"] = np.frombuffer(layout.filler, dtype=f"V{len(layout.filler)}")
        return
    rest = body.BLOCK_BYTES - layout.starts
    windows: NDArray[np.void] = np.ndarray(
        shape=(layout.starts + 1,), dtype=f"V{rest}", buffer=layout.filler, strides=(1,)
    )
    begin = seqs * body.FILLER_STEP % layout.starts
    fields["filler"] = windows[begin]
    prefixes = _prefixes()
    crcs ^= prefixes[begin + rest]
    crcs ^= _shifted(prefixes[begin], layout.shift)


def _digit_crcs(at: int) -> NDArray[np.uint32]:
    """16 bits, as four digits at this position of the 44 bytes before the CRC -> what they change in the CRC of those
    bytes, against four zeros."""
    zeros = b"0" * _CRC_AT
    whole = np.zeros(1 << 16, dtype=np.uint32)
    for nth in range(4):
        spot = at + nth
        one = [crc32(zeros[:spot] + b"%x" % d + zeros[spot + 1 :]) ^ crc32(zeros) for d in range(16)]
        whole ^= np.array(one, dtype=np.uint32)[(_NUMBERS >> 4 * (3 - nth)) & 15]
    return whole


@lru_cache(maxsize=1)
def _bytewise() -> NDArray[np.uint32]:
    """The classic table: what one byte does to a register of zeros."""
    return np.array([crc32(bytes([n])) ^ crc32(b"\0") for n in range(256)], dtype=np.uint32)


@lru_cache(maxsize=1)
def _prefixes() -> NDArray[np.uint32]:
    """CRC of the first n bytes of the block, for n from 0 to its length; takes 20 ms. 1,024 rows go on in step, each
    from where the row before it ends."""
    width = 1 << 10
    rows = np.frombuffer(body.FILLER, dtype=np.uint8).reshape(-1, width)
    found = np.empty((len(rows), width), dtype=np.uint32)
    crc, begins = 0, []
    for row in rows:
        begins.append(crc)
        crc = crc32(row.tobytes(), crc)
    table = _bytewise()
    register = ~np.array(begins, dtype=np.uint32)
    for column in range(width):
        found[:, column] = ~register
        register = table[(register ^ rows[:, column]) & 0xFF] ^ (register >> 8)
    return np.append(found.ravel(), np.uint32(crc))


@lru_cache(maxsize=32)
def _shift(count: int) -> NDArray[np.uint32]:
    """Two tables of 2^16: the lower and the upper half of a CRC -> the same, moved over `count` bytes. So that
    crc32(a + b) = moved(crc32(a)) ^ crc32(b), b having `count` bytes (zlib's crc32_combine)."""
    step = [int(_bytewise()[1 << bit]) if bit < 8 else 1 << bit - 8 for bit in range(32)]  # over one byte
    columns = [1 << bit for bit in range(32)]
    while count:
        if count & 1:
            columns = [_times(step, column) for column in columns]
        step = [_times(step, column) for column in step]
        count >>= 1
    tables = np.zeros((2, 1 << 16), dtype=np.uint32)
    for bit, column in enumerate(columns):
        tables[bit // 16] ^= np.where((_NUMBERS >> bit % 16) & 1, np.uint32(column), np.uint32(0))
    return tables


def _times(matrix: list[int], vector: int) -> int:
    """Over GF(2); a column of the matrix for every bit of the vector."""
    product = 0
    for bit, column in enumerate(matrix):
        if vector >> bit & 1:
            product ^= column
    return product


def _shifted(crcs: NDArray[np.uint32], tables: NDArray[np.uint32]) -> NDArray[np.uint32]:
    moved: NDArray[np.uint32] = tables[0][crcs & 0xFFFF] ^ tables[1][crcs >> 16]
    return moved


def _shift_one(crc: int, count: int) -> int:
    tables = _shift(count)
    return int(tables[0][crc & 0xFFFF] ^ tables[1][crc >> 16])
