"""Packets that nodes drop: what is in force, by tag, and stays in force over the death of a node.

A node that starts again has a fresh network, without any rule of ours. So what was asked for is kept here, put back
right after the start, and what the old rules had dropped is counted before their network goes. A tag is undone as a
whole and by itself, however many overlap.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from mqtest.cluster import Evidence
from mqtest.cluster.agent import Agent

Targets = Callable[[Sequence[str]], list[dict[str, Any]]]
"""names of nodes -> what the agent must know of those that run"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Drop:
    """What one node drops."""

    peers: tuple[str, ...] | None
    """addresses; None: everybody"""
    ways: tuple[str, ...]
    """of "in" and "out", as the node sees them"""
    percent: float = 100.0


@dataclass(slots=True)
class Holds:
    """The drops that are in force in one cluster."""

    agent: Agent
    targets: Targets
    _drops: dict[str, dict[str, list[Drop]]] = field(default_factory=dict)
    """by tag and node"""
    _counted: dict[str, Counter[str]] = field(default_factory=dict)
    """by tag and node: packets dropped in networks that are gone"""

    def add(self, tag: str, drops: Mapping[str, Drop]) -> Evidence:
        """Let nodes drop packets, on top of what the tag has already. Evidence: `rules` of the tag by node."""
        for name, drop in drops.items():
            self._drops.setdefault(tag, {}).setdefault(name, []).append(drop)
        rules = {name: made[tag] for name, made in self._lay(list(drops), [tag]).items()}
        return {"rules": rules} if rules else {}

    def lift(self, tag: str) -> Evidence:
        """Remove the rules of a tag. Evidence: `dropped` packets by node; empty when there were none at all."""
        dropped = self._counted.get(tag, Counter())
        if tag in self._drops:
            dropped.update(self.agent.call("let-pass", {"targets": self.targets(list(self._drops[tag])), "tag": tag}))
        self._drops.pop(tag, None)
        self._counted.pop(tag, None)
        return {"dropped": dict(dropped)} if any(dropped.values()) else {}

    def before_death(self, names: Sequence[str]) -> None:
        """Count what the rules of these nodes have dropped, while their networks are there."""
        held = [name for name in names if any(name in nodes for nodes in self._drops.values())]
        if not held:
            return
        answer = self.agent.call("dropped", {"targets": self.targets(held), "tags": list(self._drops)})
        for name, counts in answer.items():
            for tag, packets in counts.items():
                self._counted.setdefault(tag, Counter())[name] += packets

    def after_start(self, names: Sequence[str]) -> None:
        """Put the rules of these nodes back."""
        self._lay(names, list(self._drops))

    def _lay(self, names: Sequence[str], tags: Sequence[str]) -> dict[str, dict[str, int]]:
        wanted = {
            name: {tag: [asdict(drop) for drop in self._drops[tag][name]] for tag in tags if name in self._drops[tag]}
            for name in names
        }
        held = [name for name, drops in wanted.items() if drops]
        if not held:
            return {}
        targets = [{**one, "drops": wanted[one["name"]]} for one in self.targets(held)]
        made: dict[str, dict[str, int]] = self.agent.call("drop", {"targets": targets})
        return made
