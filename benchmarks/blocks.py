"""µs of CPU a message of the steps that go by the block, beside the same one by one: `python benchmarks/blocks.py`.

One process, no broker; the best of several rounds.
"""

from __future__ import annotations

import struct
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from mqtest import body
from mqtest.bodies import decode_many, encode_many
from mqtest.clients import Block, rocketmq_messages
from mqtest.clients.kafka_batches import make, read
from mqtest.ledger import ReceiptsWriter, SendsWriter
from mqtest.model import Delivery, Outcome
from mqtest.workload.consumer import record
from mqtest.workload.producer import BLOCK

ROUNDS = 15


def cpu_us(step: Callable[[], object], messages: int) -> float:
    """A message, in the best round."""
    best = float("inf")
    for _ in range(ROUNDS):
        begin = time.process_time_ns()
        step()
        best = min(best, (time.process_time_ns() - begin) / messages / 1000)
    return best


def pulled(texts: Sequence[bytes]) -> bytes:
    """RocketMQ's answer to a pull of these bodies, with the properties that a broker gives each message."""
    properties = b"CLUSTER\x01DefaultCluster\x02TRACE_ON\x01true\x02MSG_REGION\x01DefaultRegion\x02"
    rest = b"\6mqtest" + struct.pack(">H", len(properties)) + properties
    made = []
    for offset, text in enumerate(texts):
        size = 88 + len(text) + len(rest)
        head = struct.pack(">IIIIIqqI", size, 0xDAA320A7, zlib.crc32(text), 0, 0, offset, 0, 0)
        made.append(head + bytes(44) + struct.pack(">I", len(text)) + text + rest)
    return b"".join(made)


def main(size: int, folder: Path) -> None:
    """Print one table."""
    seqs = range(1_000_000, 1_000_000 + BLOCK)
    numbers = np.arange(seqs.start, seqs.stop)
    due_ns = 10**15 + numbers * 2500
    bodies = encode_many(7, 0, numbers, due_ns, size)
    texts = [row.tobytes() for row in bodies]
    sends, receipts = SendsWriter(folder / "sends.0"), ReceiptsWriter(folder / "receipts.0")
    batch = memoryview(bytearray(make([bodies], 1)))
    block = Block(0, numbers, bodies)
    deliveries = [Delivery(0, seq, text, False) for seq, text in zip(seqs, texts, strict=True)]
    answer = pulled(texts)
    at = 0

    def sent_and_settled_many() -> None:
        nonlocal at
        now = range(at, at := at + BLOCK)
        sends.sent_many(now, due_ns, 0, 0, 1)
        sends.settle_many(now, Outcome.ACKED, 5, 0, 2)

    def sent_and_settled() -> None:
        nonlocal at
        now = range(at, at := at + BLOCK)
        for seq in now:
            sends.sent(seq, 1, 0, 0, 1)
        for seq in now:
            sends.settle(seq, Outcome.ACKED, seq, 0, 2)

    def encoded() -> None:
        for seq in seqs:
            body.encode(7, 0, seq, 10**15, size)

    def decoded() -> None:
        for text in texts:
            body.decode(text)

    table: dict[str, tuple[Callable[[], object], Callable[[], object] | None]] = {
        "encode": (lambda: encode_many(7, 0, numbers, due_ns, size), encoded),
        "encode, closed loop": (lambda: encode_many(7, 0, numbers, 0, size), None),
        "decode": (lambda: decode_many(bodies), decoded),
        "sent + settle": (sent_and_settled_many, sent_and_settled),
        "decode + receipt": (
            lambda: record(receipts, [block], 7, 0, {}),
            lambda: record(receipts, deliveries, 7, 0, {}),
        ),
        "batch made": (lambda: make([bodies], 1, (1, 0, 0)), None),
        "batch read": (lambda: read(batch, 0), None),
        "pull read": (lambda: rocketmq_messages.blocks(answer), None),
    }
    print(f"{size} bytes, {BLOCK} messages a block: µs of CPU a message")
    for name, (many, one) in table.items():
        by_block = cpu_us(many, BLOCK)
        by_one = f"{cpu_us(one, BLOCK):8.3f}" if one else "       -"
        print(f"  {name:20} {by_block:8.3f}  one by one {by_one}")
    sends.close()
    receipts.close()


if __name__ == "__main__":
    for text in sys.argv[1:] or ("100", "1024"):
        with tempfile.TemporaryDirectory() as made:
            main(int(text), Path(made))
