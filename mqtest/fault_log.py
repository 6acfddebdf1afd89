"""The fault events of a cell put together: each part of its fault, when it was done and undone, and whether it bit.

A part is one injection of one step. Its events share the number `part`; older ledgers have none, there an action and
its nodes are one part. Evidence stands in `injected`, or in `healed` where it shows only afterwards.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mqtest import model

NO_FAULT = model.NO_FAULT.name
Groups = Sequence[Sequence[str]]
"""names of steps (`action:target`): the groups of a fault, one after the other, each of steps that overlap"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One injection. Times are None where that event is missing."""

    action: str
    aim: str
    """the target as asked, such as `leader`; empty in older ledgers"""
    nodes: tuple[str, ...]
    injected_ns: int | None
    healed_ns: int | None
    proven: bool
    turns: Mapping[str, tuple[int, int]]
    """node -> from when to when, where one node was hit after the other; else empty"""

    @property
    def step(self) -> str:
        """`kill:leader`."""
        return f"{self.action}:{self.aim}"

    @property
    def open_ended(self) -> bool:
        """Begun, without evidence so far, and it never came to where that may have been due."""
        return self.healed_ns is None and not self.proven

    def __str__(self) -> str:
        """`kill:leader (kafka-1)`."""
        return f"{self.step if self.aim else self.action} ({', '.join(self.nodes)})"


def groups_of(cell: Mapping[str, Any]) -> Groups:
    """The groups that cell.json asks for; an older one names a single group in `fault`, joined by `+`."""
    fault = str(cell.get("fault") or NO_FAULT)
    named = [] if fault == NO_FAULT else [fault.split("+")]
    groups: Groups = cell.get("groups", named)
    return groups


def parts(events: Sequence[Mapping[str, Any]]) -> tuple[Part, ...]:
    """The parts that were begun, in the order in which they were."""
    found: dict[object, dict[str, Mapping[str, Any]]] = {}
    for event in events:
        if event["event"] == "fault":
            key = event.get("part", (str(event.get("action")), str(event.get("target"))))
            found.setdefault(key, {})[str(event.get("step"))] = event
    return tuple(_part(steps) for steps in found.values())


def _part(steps: Mapping[str, Mapping[str, Any]]) -> Part:
    first = next(iter(steps.values()))
    injected, healed = steps.get("injected"), steps.get("healed")
    target = first.get("target") or ()
    return Part(
        action=str(first.get("action")),
        aim=str(first.get("aim") or ""),
        nodes=(target,) if isinstance(target, str) else tuple(map(str, target)),
        injected_ns=injected["t_ns"] if injected else None,
        healed_ns=healed["t_ns"] if healed else None,
        turns=_turns(injected),
        proven=any(event is not None and bool(event.get("evidence")) for event in (injected, healed)),
    )


def _turns(injected: Mapping[str, Any] | None) -> Mapping[str, tuple[int, int]]:
    detail = (injected or {}).get("detail") or {}
    turns: Mapping[str, tuple[int, int]] = detail.get("turns") or {}
    return turns
