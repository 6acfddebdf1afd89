"""The check of who was the limit: CPU of nodes and of clients, and what reached the disks. Rules: __init__.py.

The runner asks nodes and workers now and then what they have used until now (event `usage`). The figures of a phase are
those between the first and the last time that this was told in it, over the messages sent meanwhile; with less than two
times, or where a node or a worker began anew in between, a figure is not measured. Nodes are all containers of the
cluster, coordinators too. How fast a disk flushes was measured before the load (event `flushed`).
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from typing import Any

from mqtest.checks.speed import inside
from mqtest.clock import NS_PER_MS, NS_PER_S
from mqtest.history import History
from mqtest.model import Finding

Numbers = dict[str, float | int | None]

_DISK = ("written_bytes", "writes", "flushes")
_ROLES = ("producer", "consumer")


def usage(history: History) -> Finding:
    """CPU of nodes and clients, and what reached the disks, in the steady phase; how fast the disks flush."""
    return Finding(check="usage", count=None, numbers=used(history, history.window("steady")) | _flush_ms(history))


def used(history: History, window: tuple[int, int] | None) -> Numbers:
    """The figures of a window of time."""
    begin, end = window or (0, -1)
    told = [event for event in history.events if event["event"] == "usage" and begin <= event["t_ns"] <= end]
    first, last = (told[0], told[-1]) if len(told) > 1 else ({}, {})
    span = (first.get("t_ns", 0), last.get("t_ns", 0))
    sent = sum(history.over_sends(lambda sends: inside(sends.sent_ns, span))) if told else 0
    read = sum(history.over_receipts(lambda receipts: inside(receipts.received_ns, span))) if told else 0
    nodes_s = _grown(first.get("nodes"), last.get("nodes"), "cpu_s")
    disks = {name: _grown(first.get("nodes"), last.get("nodes"), name) for name in _DISK}
    workers = [_by_worker(event.get("workers")) for event in (first, last)]
    producers_s, consumers_s = (_grown(workers[0].get(role), workers[1].get(role), "cpu_s") for role in _ROLES)
    clients_s = _grown(_all_of(workers[0]), _all_of(workers[1]), "cpu_s")
    seconds = (span[1] - span[0]) / NS_PER_S
    return {
        "broker_cpu_cores": _per(nodes_s, seconds, 3),
        "client_cpu_cores": _per(clients_s, seconds, 3),
        "broker_cpu_us_per_message": _per(nodes_s, sent / 1e6, 1),
        "client_cpu_us_per_message": _per(producers_s, sent / 1e6, 1),
        "consumer_cpu_us_per_message": _per(consumers_s, read / 1e6, 1),
        **{f"broker_{name}_per_message": _per(figure, sent, 3) for name, figure in disks.items()},
    }


def _flush_ms(history: History) -> Numbers:
    """The median disk's median, and the worst disk's p99 (nearest rank)."""
    flushed: Mapping[str, list[int]] = next(
        (event["nodes"] for event in history.events if event["event"] == "flushed"), {}
    )
    ordered = [sorted(taken) for taken in flushed.values() if taken]
    if not ordered:
        return {"fsync_ms_p50": None, "fsync_ms_p99": None}
    middle = statistics.median(statistics.median(taken) for taken in ordered)
    worst = max(taken[-(-len(taken) * 99 // 100) - 1] for taken in ordered)
    return {"fsync_ms_p50": round(middle / NS_PER_MS, 3), "fsync_ms_p99": round(worst / NS_PER_MS, 3)}


def _grown(first: Mapping[str, Any] | None, last: Mapping[str, Any] | None, figure: str) -> float | None:
    """By how much a figure of all grew together; None where one did not tell it both times, or began anew."""
    if not first or not last or first.keys() != last.keys():
        return None
    pairs = [(first[name].get(figure), last[name].get(figure)) for name in first]
    if any(before is None or after is None or after < before for before, after in pairs):
        return None
    return float(sum(after - before for before, after in pairs))


def _by_worker(workers: Mapping[str, float] | None) -> dict[str, dict[str, dict[str, float]]]:
    """`producer 0` → 1.5 as role → name → its figures."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for name, cpu_s in (workers or {}).items():
        found.setdefault(name.partition(" ")[0], {})[name] = {"cpu_s": cpu_s}
    return found


def _all_of(roles: Mapping[str, Mapping[str, dict[str, float]]]) -> dict[str, dict[str, float]]:
    return {name: figures for role in roles.values() for name, figures in role.items()}


def _per(amount: float | None, number: float, digits: int) -> float | None:
    return None if amount is None or number <= 0 else round(amount / number, digits)
