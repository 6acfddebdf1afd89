"""Messages as RocketMQ stores them, read out of the answer to a pull.

    message  │ u4 size │ u4 magic │ u4 body CRC │ u4 queue │ u4 flag │ u8 queue offset │ u8 commit-log offset
             │ u4 system flag │ u8 born │ 8 or 20 born host │ u8 stored │ 8 or 20 store host │ u4 reconsumed
             │ u8 prepared │ u4 length, body │ u1 (message version 2: u2) length, topic │ u2 length, properties

All numbers are big endian; the layout as in apache/rocketmq MessageDecoder.java. Rules:
- Many messages with the same system flag are read as arrays: only where each begins is found one by one, and not even
  that where all have one size, as those of one load mostly have. All else stands at a known distance from there.
- A few messages, compressed ones and what is no message are read one by one.
- A block has neighbours of one queue and one length. What follows the body is not read.
- The body's CRC is not checked: a body of ours has its own, and a corrupt one is to be told of, not to end the client.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from itertools import groupby, pairwise
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mqtest.bodies import Bodies, Ints
from mqtest.clients import Block
from mqtest.clients.rocketmq_codec import MalformedError

_FEW: Final = 32
"""messages of the first one's size that cost less one by one"""
_HEAD: Final = struct.Struct(">IIIIIqqI")
_HEADS: Final = np.dtype(
    [(name, ">u4") for name in ("size", "magic", "crc", "queue", "flag")]
    + [("offset", ">i8"), ("at", ">i8"), ("system", ">u4")]
)
"""the same"""
_MAGICS: Final = (0xDAA320A7, 0xDAA320AB)
_COMPRESSED, _BORN_V6, _STORE_V6 = 0x1, 0x10, 0x20
_size_at = struct.Struct(">I").unpack_from


class _Stored(NamedTuple):
    place: int
    offset: int
    body: bytes
    """as it was sent; a compressed one that cannot be unpacked is left as it is"""


def blocks(answer: bytes) -> list[Block]:
    """The messages in the body of a pull's answer, in order; raises MalformedError."""
    many = len(answer) > _HEAD.size and len(answer) >= _FEW * _size_at(answer)[0]
    found = _at_once(answer) if many else None
    return _one_by_one(answer) if found is None else found


# --- as arrays ---


def _at_once(answer: bytes) -> list[Block] | None:
    """None: these are to be read one by one."""
    starts = _starts(answer)
    if starts is None:
        return None
    heads = _cut(answer, starts, _HEAD.size).view(_HEADS)[:, 0]
    magics, system = heads["magic"], int(heads["system"][0])
    if system & _COMPRESSED or (heads["system"] != system).any():
        return None
    if not ((magics == _MAGICS[0]) | (magics == _MAGICS[1])).all():
        return None
    begins, ends = starts + _to_body(system), starts + heads["size"]
    if (begins > ends).any():
        return None
    lengths = _cut(answer, begins - 4, 4).view(">u4")[:, 0].astype(np.int64)
    if (begins + lengths > ends).any():
        return None
    queues, offsets = heads["queue"], heads["offset"].astype(np.int64)
    changes = np.flatnonzero((queues[1:] != queues[:-1]) | (lengths[1:] != lengths[:-1])) + 1
    return [
        Block(int(queues[first]), offsets[first:end], _cut(answer, begins[first:end], int(lengths[first])))
        for first, end in pairwise([0, *changes.tolist(), len(starts)])
    ]


def _starts(answer: bytes) -> Ints | None:
    """Where the messages begin, each with a whole head and more; None: not all of the answer is such messages."""
    end = len(answer)
    found, at = [], 0
    while end - at > _HEAD.size:
        (size,) = _size_at(answer, at)
        if size <= _HEAD.size:
            return None
        if not at and end % size == 0:
            sizes: NDArray[np.uint32] = np.ndarray((end // size,), ">u4", answer, strides=(size,))
            if (sizes == size).all():
                return np.arange(0, end, size)
        found.append(at)
        at += size
    return np.array(found, dtype=np.int64) if at == end else None


def _cut(data: bytes, begins: Ints, size: int) -> Bodies:
    """So many bytes from each of these places on, one row each."""
    if not size:
        return np.empty((len(begins), 0), dtype=np.uint8)
    windows: NDArray[np.void] = np.ndarray((len(data) - size + 1,), f"V{size}", data, strides=(1,))
    return windows[begins].view(np.uint8).reshape(len(begins), size)


# --- one by one ---


def _one_by_one(answer: bytes) -> list[Block]:
    found = []
    for (place, size), alike in groupby(_messages(answer), lambda one: (one.place, len(one.body))):
        rows = list(alike)
        offsets = np.array([one.offset for one in rows], dtype=np.int64)
        bodies = np.frombuffer(b"".join(one.body for one in rows), dtype=np.uint8)
        found.append(Block(place, offsets, bodies.reshape(len(rows), size)))
    return found


def _messages(answer: bytes) -> Iterator[_Stored]:
    at, end = 0, len(answer)
    try:
        while at < end:
            size, magic, _, place, _, offset, _, system = _HEAD.unpack_from(answer, at)
            if magic not in _MAGICS or not _HEAD.size < size <= end - at:
                raise MalformedError(f"no message at byte {at} of {end}: size {size}, magic {magic:#x}")
            begin = at + _to_body(system)
            (length,) = _size_at(answer, begin - 4)
            if begin + length > at + size:
                raise MalformedError(f"body of {length} bytes in a message of {size}")
            content = answer[begin : begin + length]
            yield _Stored(place, offset, _unpacked(content) if system & _COMPRESSED else content)
            at += size
    except struct.error as error:
        raise MalformedError(f"message cut short: {error}") from error


def _to_body(system: int) -> int:
    """Bytes from the start of a message with this system flag to its body; born, stored, reconsumed, prepared and the
    body's length make 32 beside the hosts."""
    return _HEAD.size + 32 + (20 if system & _BORN_V6 else 8) + (20 if system & _STORE_V6 else 8)


def _unpacked(content: bytes) -> bytes:
    # the C++ client compresses bodies above 4 KiB with zlib; nothing of ours uses another method
    try:
        return zlib.decompress(content)
    except zlib.error:
        return content
