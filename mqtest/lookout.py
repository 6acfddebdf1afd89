"""Who is there and who leads, in a cluster that is not ours: written down while the load lasts, and read back as signs
that something happened to it."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from mqtest.brokers.foreign import Foreign, Members
from mqtest.clock import now_ns
from mqtest.journal import Journal

_LOOK_S = 1.0
"""between two looks"""


class Lookout:
    """Writes down who is there and who leads, whenever that changes (at some time from `since_ns` on, when it was last
    seen otherwise); in a thread, for a question to a dying cluster takes time."""

    def __init__(self, cluster: Foreign, journal: Journal) -> None:
        self._cluster = cluster
        self._journal = journal
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True, name="lookout")

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def close(self) -> None:
        """End, bounded; idempotent."""
        self._over.set()
        if self._thread.ident is not None:
            self._thread.join(10)

    def _look(self) -> None:
        last: Members | None = None
        since_ns = now_ns()
        while not self._over.is_set():
            looked_ns = now_ns()
            seen = self._cluster.members()
            if seen is None:
                return
            if last is None or seen.alive != last.alive:
                self._journal.event("members", alive=seen.alive, since_ns=since_ns)
            if last is None or seen.leader != last.leader:
                moved = {"node": seen.leader, "before": last and last.leader}
                self._journal.event("leader", place=0, **moved, since_ns=since_ns)
            last, since_ns = seen, looked_ns
            self._over.wait(_LOOK_S)


def signs(events: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What shows that something happened to the cluster: who went, moves of the leader, clients that failed."""
    looks = [e["alive"] for e in events if e["event"] == "members"]
    alive = [names for names in looks if names]
    leaders = [e["node"] for e in events if e["event"] == "leader" and e["node"] is not None]
    found = {
        "went": [name for before, now in pairwise(alive) for name in before if name not in now],
        "nobody_answered": len(looks) - len(alive),
        "leader_moves": sum(1 for before, now in pairwise(leaders) if before != now),
        "clients_failed": sum(1 for e in events if e["event"] == "client" and e.get("state") == "failed"),
    }
    return {name: value for name, value in found.items() if value}
