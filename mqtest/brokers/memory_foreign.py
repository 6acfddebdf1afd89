"""The memory broker as a cluster of somebody else's: a process that listens on a socket. See foreign.py."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing

from mqtest.brokers.foreign import Asked, Held, Members, ends, wiring
from mqtest.clients import ClientError, memory_wire
from mqtest.errors import ClusterError, SettingError
from mqtest.model import Kind, Wiring

PROFILE = "log-safe"
ACCESS = ("token",)
"""nobody asks for it: there so that the way of a secret can be tested"""
_ANSWER_S = 2.0


def attach(asked: Asked) -> MemoryForeign:
    """See ForeignModule."""
    return MemoryForeign(asked)


class MemoryForeign:
    """See Foreign."""

    def __init__(self, asked: Asked) -> None:
        self._asked = asked
        self._places = 0
        self._begins: Mapping[int, int] = {}

    def found(self) -> Mapping[int, Held] | None:
        """See Foreign."""
        places = self._describe().places
        log = self._asked.profile.kind is Kind.LOG
        held = {p: Held(s.end - s.start if log else s.ready + s.unacked, s.end, 0) for p, s in enumerate(places)}
        return held or None

    def adopt(self, found: Mapping[int, Held]) -> None:
        """See Foreign."""
        self._places = len(found)
        self._begins = ends(self._asked, found)

    def create(self, places: int, replicas: int | None) -> None:
        """See Foreign."""
        if replicas not in (None, 1):
            raise SettingError(f"replicas = {replicas} did not take: the memory broker has one node")
        self._ask(memory_wire.Create(self._asked.profile.kind, places, self._asked.topic))
        self._places = places

    def remove(self) -> None:
        """See Foreign."""
        raise ClusterError("the memory broker cannot delete its places")

    def members(self) -> Members | None:
        """See Foreign."""
        try:
            self._describe()
        except ClusterError:
            return Members((), None)
        return Members(("memory-1",), "memory-1")

    def not_whole(self) -> str | None:
        """See Foreign."""
        return None if self.leader(0) else "the memory broker"

    def version(self) -> str | None:
        """See Foreign."""
        return self._describe().version

    def effective(self) -> Mapping[str, str]:
        """See Foreign."""
        return {f"broker.{key}": value for key, value in self._describe().settings.items()}

    def leader(self, place: int) -> str | None:
        """See Reachable."""
        members = self.members()
        return members.leader if members else None

    def remaining(self, positions: Mapping[int, int]) -> int:
        """See Reachable."""
        places = self._describe().places
        if self._asked.profile.kind is Kind.QUEUE:
            return sum(state.ready + state.unacked for state in places)
        begins = self._begins
        return sum(max(0, s.end - positions.get(p, begins.get(p, 0) - 1) - 1) for p, s in enumerate(places))

    def counts(self) -> Mapping[str, int]:
        """See Reachable: a client is not told."""
        return {}

    def wiring(self) -> Wiring:
        """See Reachable."""
        return wiring(self._asked, (self._asked.at,), self._places, self._begins)

    def close(self) -> None:
        """See Reachable: nothing is kept open."""

    def _describe(self) -> memory_wire.Described:
        return self._ask(memory_wire.Describe(self._asked.topic))

    def _ask(self, request: memory_wire.Describe | memory_wire.Create) -> memory_wire.Described:
        try:
            with closing(memory_wire.Connection(self._asked.at, _ANSWER_S)) as connection:
                return connection.ask(request, _ANSWER_S)
        except ClientError as error:
            raise ClusterError(str(error)) from error
