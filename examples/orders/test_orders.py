"""No order may be forgotten, whatever loses power. `work_careless` forgets some, and the test finds that out."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

HERE = Path(__file__).parent

BROKERS = [
    pytest.param("memory_shop", marks=pytest.mark.mqtest(broker="memory", profile="log-safe"), id="memory-log"),
    pytest.param("memory_shop", marks=pytest.mark.mqtest(broker="memory", profile="queue-safe"), id="memory-queue"),
    pytest.param(
        "kafka_shop", marks=[pytest.mark.docker, pytest.mark.mqtest(broker="kafka", profile="acks-all")], id="kafka"
    ),
    pytest.param(
        "rabbitmq_shop",
        marks=[pytest.mark.docker, pytest.mark.mqtest(broker="rabbitmq", profile="quorum")],
        id="rabbitmq",
    ),
]
LOOPS = [
    "careful",
    pytest.param(
        "careless",
        # `pytest --runxfail` shows what it says
        marks=pytest.mark.xfail(strict=True, raises=AssertionError, reason="it commits before it ships"),
    ),
]


@contextmanager
def worker(module: str, loop: str, shop: dict[str, Any], ledger: Any) -> Iterator[subprocess.Popen[str]]:
    """The application's worker, as a process that works by now; ends with the block."""
    process = subprocess.Popen(
        [sys.executable, str(HERE / "worker.py"), module, loop],
        env={**os.environ, **ledger.environment(), "SHOP": json.dumps(shop)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline(), "it ships"
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("module", BROKERS)
def test_no_order_is_forgotten(
    module: str, loop: str, mq_cluster: Any, mq_topic: Any, mq_faults: Any, mq_ledger: Any
) -> None:
    shop = {
        "bootstrap": mq_cluster.bootstrap,
        "addresses": mq_cluster.addresses,
        "producer": mq_cluster.producer_settings,
        "consumer": mq_cluster.consumer_settings,
        "topic": mq_topic.name,
        "queue": mq_topic.queues[0],
        "group": mq_topic.group,
        "wiring": msgspec.to_builtins(mq_cluster.wiring),  # for the embedded broker alone
    }

    def place(first: int, last: int) -> None:
        bodies = (mq_ledger.next_body(f"order {number}") for number in range(first, last))
        importlib.import_module(module).place_orders(shop, bodies, told)

    def told(body: bytes, acknowledged: bool) -> None:
        (mq_ledger.acked if acknowledged else mq_ledger.unknown)(body)

    place(0, 400)
    with worker(module, loop, shop, mq_ledger) as first:
        first.kill()  # it has orders in hand: its machine loses power, and then …
    with mq_faults("power-cut:leader"):  # … so does the broker's
        pass
    place(400, 500)
    with worker(module, loop, shop, mq_ledger) as second:
        mq_topic.await_drained(120)
        second.communicate()  # its stdin ends: it finishes what it has, and leaves

    judged = mq_ledger.judge()
    assert judged.acked == 500
    judged.assert_kept()
    assert judged.processed == 500
