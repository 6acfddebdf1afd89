"""A cell's fault, live: its groups one after the other, each step injected, healed and proven, each written down.

Rules:
- Every step writes four events, `inject`, `injected`, `heal`, `healed`, with its number in the cell (`part`). The time
  of `injected` is when it was in force, of a restart when it began (it is written when that is done). The time of
  `healed` is when undo was done; it is written after the recovery, with the evidence that shows only then.
- After each group the cluster is awaited, whole and in sync; only then the next one begins.
- The phase `fault` begins with the first injection, `heal` with the last heal, `recover` after it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from mqtest import faults
from mqtest.brokers import Broker
from mqtest.clock import now_ns
from mqtest.errors import MqtestError
from mqtest.faults import Hit, Injection, inject
from mqtest.model import Fault, Step, Value
from mqtest.schedule import moments
from mqtest.targets import TARGETS, Stand

LOOK_S = 0.25
"""between two looks at who leads"""
JOIN_S = 30.0
"""at most, for the last look to be answered"""


class Teller(Protocol):
    """What a fault needs of the cell around it."""

    def event(self, event: str, **fields: Any) -> None:
        """Write an event."""

    def phase(self, name: str) -> None:
        """A phase begins."""

    def last(self, seconds: float) -> None:
        """Let time pass, and look at the workers meanwhile."""


@dataclass(slots=True)
class _Part:
    injection: Injection
    says: Mapping[str, Any]
    healed_ns: int = 0


class FaultRun:
    """Does one fault to one cell."""

    def __init__(
        self,
        stand: Stand,
        teller: Teller,
        fault: Fault,
        hold_s: float,
        settings: Mapping[str, Mapping[str, Value]],
    ) -> None:
        self._stand = stand
        self._teller = teller
        self._fault = fault
        self._hold_s = hold_s
        self._settings = settings
        self._parts = 0

    def run(self) -> None:
        """All groups; raises ClusterError when the cluster does not recover from one."""
        self._teller.phase("fault")
        for number, group in enumerate(self._fault.groups, 1):
            last = number == len(self._fault.groups)
            began = time.monotonic()
            self._run_group(group, last=last)
            if not last:
                self._teller.last(began + self._fault.every_s - time.monotonic())

    @contextmanager
    def in_force(self, steps: Sequence[Step]) -> Iterator[None]:
        """One group whose times are the caller's: injected at once, in force while the block runs, then healed and
        proven, once the cluster is whole again. Raises ClusterError when it does not recover."""
        self._stand.hit.clear()
        self._teller.phase("fault")
        with ExitStack() as stack:
            parts = [self._inject(step, stack) for step in steps]
            yield
            self._teller.phase("heal")
            for part in parts:
                self._heal(part)
        self._recovered(parts)

    def _run_group(self, steps: Sequence[Step], *, last: bool) -> None:
        self._stand.hit.clear()
        began = time.monotonic()
        timeline = moments(steps, self._hold_s)
        parts: dict[int, _Part] = {}
        with ExitStack() as stack:
            for moment in timeline:
                self._teller.last(began + moment.at_s - time.monotonic())
                if not moment.heals:
                    parts[moment.part] = self._inject(steps[moment.part], stack)
                    continue
                if last and moment is timeline[-1]:
                    self._teller.phase("heal")
                self._heal(parts[moment.part])
        self._recovered(parts.values(), last=last)

    def _recovered(self, parts: Iterable[_Part], *, last: bool = True) -> None:
        if last:
            self._teller.phase("recover")
        self._stand.await_ready()
        self._teller.event("recovered", stage="ready")
        for part in parts:
            self._tell("healed", part, t_ns=part.healed_ns, evidence=part.injection.prove())

    def _inject(self, step: Step, stack: ExitStack) -> _Part:
        action = faults.FAULTS[step.action]
        names = tuple(TARGETS[step.target](self._stand))
        self._stand.hit.append(names)
        number, self._parts = self._parts, self._parts + 1
        hit = Hit(
            stand=self._stand,
            target=step.target,
            names=names,
            settings={**action.settings, **self._settings.get(step.action, {})},
            tag=str(number),
        )
        says = {"part": number, "action": step.action, "aim": step.target, "target": list(names)}
        began_ns = now_ns()
        self._teller.event("fault", step="inject", t_ns=began_ns, **says)
        injection = stack.enter_context(inject(action, hit))
        part = _Part(injection, says)
        injected_ns = now_ns() if action.held else began_ns  # what is over by now began when it was asked for
        self._tell("injected", part, t_ns=injected_ns, evidence=injection.evidence, detail=injection.detail)
        return part

    def _heal(self, part: _Part) -> None:
        self._tell("heal", part)
        part.injection.heal()
        part.healed_ns = now_ns()

    def _tell(self, step: str, part: _Part, **more: Any) -> None:
        self._teller.event("fault", step=step, **part.says, **more)


@contextmanager
def watching_leader(connect: Callable[[], Broker], teller: Teller) -> Iterator[None]:
    """Writes an event `leader` whenever place 0 is led by another node than before (None: by nobody), as seen every
    LOOK_S over a connection of its own."""
    ended = threading.Event()
    broker = connect()
    first = _leader(broker)
    teller.event("leader", place=0, node=first)

    def look() -> None:
        before = first
        while not ended.wait(LOOK_S):
            now = _leader(broker)
            if now != before:
                teller.event("leader", place=0, node=now, before=before)
                before = now

    thread = threading.Thread(target=look, daemon=True, name="leader")
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(JOIN_S)
        broker.close()


def _leader(broker: Broker) -> str | None:
    try:
        return broker.leader(0)
    except MqtestError:
        return None
