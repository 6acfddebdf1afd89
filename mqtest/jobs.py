"""What a job of a replay counts, and the form of what it writes. Pure: workers and judge go by the same functions.

Every message has a key and an amount, which follow from its name, and a time window, which follows from its due time.
A job keeps count and sum of the amounts for each place, key and window. Each input becomes one output, named by its
source as any pipeline's output is (body.py), whose payload is the row that the input changed, and the input's position:

    0     4       8        16         32       48       64
    │ key │ place │ window │ messages │ amount │ offset │     hexadecimal

So the output alone says what the state is (the last row of each), and how far the job has read.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import numpy as np

from mqtest import body
from mqtest.model import RUNNER
from mqtest.tables import Ints

JOBS = 2
"""the old one and the new one"""
OLD, NEW = range(JOBS)
"""their numbers, as transformers"""
FLINK = "flink"
"""of Replay.runs_on"""
MOST_AMOUNT = 10_000
"""amounts are 1 to this, in hundredths: 0.01 to 100.00"""
SIZE_BYTES = body.HEADER_BYTES + 64
_MASK = (1 << 64) - 1
_SEQ, _PRODUCER = 0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F
"""odd numbers: neighbours in the sequence come far apart"""


class Row(NamedTuple):
    """One row of a job's table, as an output carries it."""

    place: int
    key: int
    window: int
    messages: int
    amount: int
    """their sum, in hundredths"""
    offset: int
    """of the input that made it so"""


def key_and_amount(producer: int, seq: int, keys: int) -> tuple[int, int]:
    """Of one message."""
    mixed = (seq * _SEQ + (producer + 1) * _PRODUCER) & _MASK
    return (mixed >> 40) % keys, 1 + (mixed >> 20 & 0xFFFFF) % MOST_AMOUNT


def keys_and_amounts(producer: int, seqs: Ints, keys: int) -> tuple[Ints, Ints]:
    """The same of many."""
    mixed = seqs.astype(np.uint64) * np.uint64(_SEQ) + np.uint64((producer + 1) * _PRODUCER & _MASK)
    key = (mixed >> np.uint64(40)) % np.uint64(keys)
    amount = np.uint64(1) + (mixed >> np.uint64(20) & np.uint64(0xFFFFF)) % np.uint64(MOST_AMOUNT)
    return key.astype(np.int64), amount.astype(np.int64)


def window_ns(window_s: float) -> int:
    """Length of a window."""
    return round(window_s * 1e9)


class Table:
    """What outputs come to, read in their order."""

    def __init__(self, run: int) -> None:
        self._run = run
        self.rows: dict[tuple[int, int, int], tuple[int, int]] = {}
        """(place, key, window) -> (messages, amount), by the last output of each"""
        self.seen: dict[int, int] = {}
        """place -> highest position of an input that has an output"""

    def take(self, output: bytes) -> body.Header | None:
        """Take in one message of the topic of outputs; its header, where it is of the run."""
        head = body.decode(output)
        if head is None or head.run != self._run:
            return None
        if head.producer != RUNNER:
            row = decode(output)
            self.rows[row.place, row.key, row.window] = row.messages, row.amount
            self.seen[row.place] = max(row.offset, self.seen.get(row.place, -1))
        return head


def encode(run: int, producer: int, seq: int, row: Row) -> bytes:
    """The body of one output."""
    payload = b"%04x%04x%08x%016x%016x%016x" % (row.key, row.place, row.window, row.messages, row.amount, row.offset)
    return body.wrap(run, producer, seq, payload)


def decode(output: bytes) -> Row:
    """The row in the body of an output, which has passed body.decode; raises ValueError for another form."""
    if len(output) != SIZE_BYTES:
        raise ValueError(f"an output has {SIZE_BYTES} bytes")
    text = body.payload(output)
    ends = (0, 4, 8, 16, 32, 48, 64)
    key, place, window, messages, amount, offset = (int(text[a:b], 16) for a, b in pairwise(ends))
    return Row(place, key, window, messages, amount, offset)
