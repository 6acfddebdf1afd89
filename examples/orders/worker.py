"""The worker as a process: `python worker.py kafka_shop careful`, the shop as JSON in $SHOP; it ends when stdin does.

Only here the application and mqtest meet: the inbox tells the ledger what it was given, and shipping what was shipped.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import threading
import time
from typing import Any

import orders

from mqtest.user_ledger import Ledger, join

SHIPPING_S = 0.002


class Watched:
    """An inbox, and the ledger beside it."""

    def __init__(self, inbox: orders.Inbox, ledger: Ledger) -> None:
        self._inbox = inbox
        self._ledger = ledger
        self.done = inbox.done
        self.close = inbox.close

    def take(self) -> list[orders.Order]:
        taken = self._inbox.take()
        for order in taken:
            self._ledger.received(
                order.body, place=order.place, offset=order.offset, redelivered=order.redelivered
            )
        return taken


def main(shop: Any, work: Any) -> None:
    ledger = join()
    stopped = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), stopped.set()), daemon=True).start()

    def ship(order: orders.Order) -> None:
        time.sleep(SHIPPING_S)
        ledger.processed(order.body)
        print(ledger.payload(order.body).decode(), flush=True)

    while not stopped.is_set():
        try:
            inbox = Watched(shop.Inbox(json.loads(os.environ["SHOP"])), ledger)
            work(inbox, ship, stopped.is_set)
            inbox.close()
        except shop.Broken as error:  # the broker went away: begin anew
            print(f"worker: {error}", file=sys.stderr)
            time.sleep(0.2)


if __name__ == "__main__":
    main(importlib.import_module(sys.argv[1]), getattr(orders, f"work_{sys.argv[2]}"))
