"""The body of a message: a fixed header in hexadecimal, then filler, printable ASCII throughout; or, in a test of a
user's own, what they send (`wrap`).

    0      4          12         20         28         44         52       64
    │ MQT1 │ run      │ producer │ seq      │ due_ns   │ crc32    │ dashes │ filler …

The CRC covers everything but itself. Printable, because one client hands bodies on as C strings. The filler is a
slice of one precomputed block, so that a message costs no randomness. Nothing else knows this format but
bodies.py, which does the same for many at once.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import NamedTuple
from zlib import crc32

MAGIC = b"MQT1"
HEADER_BYTES = 64
FILLER_STEP = 127
"""how much later in the block the filler of the next message begins"""
_DASHES = b"-" * 12
BLOCK_BYTES = 1 << 20
_ALPHABET = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+-"
FILLER = random.Random(1).randbytes(BLOCK_BYTES).translate(_ALPHABET * 4)  # every worker makes it: a few ms


class Header(NamedTuple):
    """Who sent a message, and when it was due (ns; 0 in a closed loop)."""

    run: int
    producer: int
    seq: int
    due_ns: int


def encode(run: int, producer: int, seq: int, due_ns: int, size: int) -> bytes:
    """The body of one message of `size` bytes (at least HEADER_BYTES)."""
    head = b"MQT1%08x%08x%08x%016x" % (run, producer, seq, due_ns)
    rest = size - HEADER_BYTES
    start = (seq * FILLER_STEP) % (BLOCK_BYTES - rest) if rest < BLOCK_BYTES else 0
    filler = FILLER[start : start + rest] if rest < BLOCK_BYTES else (FILLER * (rest // BLOCK_BYTES + 1))[:rest]
    tail = _DASHES + filler
    return b"%b%08x%b" % (head, crc32(tail, crc32(head)), tail)


def wrap(run: int, producer: int, seq: int, payload: bytes) -> bytes:
    """The body of one message that carries a payload of somebody else's in place of the filler."""
    head = b"MQT1%08x%08x%08x%016x" % (run, producer, seq, 0)
    tail = _DASHES + payload
    return b"%b%08x%b" % (head, crc32(tail, crc32(head)), tail)


def payload(body: bytes) -> bytes:
    """What `wrap` wrapped."""
    return body[HEADER_BYTES:]


def decode(body: bytes) -> Header | None:
    """The header of a body, or None when it is not ours or does not match its CRC."""
    if len(body) < HEADER_BYTES or body[:4] != MAGIC:
        return None
    try:
        crc = int(body[44:52], 16)
        if crc != crc32(body[52:], crc32(body[:44])):
            return None
        return Header(int(body[4:12], 16), int(body[12:20], 16), int(body[20:28], 16), int(body[28:44], 16))
    except ValueError:
        return None


def find(data: bytes, run: int, size: int) -> Iterator[Header]:
    """The headers of all whole bodies of that run and size that lie anywhere in these bytes."""
    mark = b"%b%08x" % (MAGIC, run)
    at = data.find(mark)
    while at >= 0:
        header = decode(data[at : at + size])
        if header is not None:
            yield header
        at = data.find(mark, at + 1)
