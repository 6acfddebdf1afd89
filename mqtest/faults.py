"""What can be done to a cluster, and to whom: actions and targets as functions, the tables at the foot.

Rules:
- An action is a do, an undo, and the evidence that it bit. Undo is registered before do runs, is idempotent, and runs
  on every way out, so an interrupted cell is healed.
- Evidence is what the cluster shows, never what we asked for. Where it shows only afterwards (forgotten bytes, dropped
  packets), `proof` fetches it after the heal. No evidence at all: the fault did not bite, and the cell is `invalid`.
- A target is resolved once, right before the injection.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from mqtest.brokers import Broker
from mqtest.cluster import Cluster, Evidence
from mqtest.errors import ClusterError, UsageError
from mqtest.model import Fault
from mqtest.toml import unknown

Names = Sequence[str]


def _nothing(_cluster: Cluster, _names: Names) -> Evidence:
    return {}


def _kill(cluster: Cluster, names: Names) -> Evidence:
    return cluster.kill(names)


def _stop(cluster: Cluster, names: Names) -> Evidence:
    return cluster.stop(names)


def _pause(cluster: Cluster, names: Names) -> Evidence:
    return cluster.pause(names)


def _cut_power(cluster: Cluster, names: Names) -> Evidence:
    return cluster.cut_power(names)


def _partition(cluster: Cluster, names: Names) -> Evidence:
    return cluster.isolate(names, [n.name for n in cluster.nodes if n.name not in names])


def _start(cluster: Cluster, names: Names) -> Evidence:
    cluster.start(names)
    return {}


def _unpause(cluster: Cluster, names: Names) -> Evidence:
    cluster.unpause(names)
    return {}


def _rejoin(cluster: Cluster, _names: Names) -> Evidence:
    return cluster.rejoin()


def _forgotten(cluster: Cluster, names: Names) -> Evidence:
    return cluster.forgotten(names)


@dataclass(frozen=True, slots=True)
class Action:
    """One row of the table. `proven_by` says which step's result is the evidence."""

    about: str
    targets: tuple[str, ...]
    do: Callable[[Cluster, Names], Evidence]
    undo: Callable[[Cluster, Names], Evidence]
    proof: Callable[[Cluster, Names], Evidence] | None = None
    """fetched after undo; then neither do nor undo is evidence by itself"""
    proven_by_undo: bool = False


@dataclass(slots=True)
class Injection:
    """A fault that is in force. `detail` is what do said; `evidence` what proves the bite so far."""

    action: Action
    names: tuple[str, ...]
    cluster: Cluster
    detail: Evidence = field(default_factory=dict)
    evidence: Evidence = field(default_factory=dict)
    healed: bool = False

    def heal(self) -> None:
        """Undo, once."""
        if self.healed:
            return
        undone = self.action.undo(self.cluster, self.names)
        self.healed = True
        if self.action.proven_by_undo:
            self.evidence = undone

    def prove(self) -> Evidence:
        """The evidence, fetched now where it shows only after the heal."""
        if self.action.proof is not None:
            self.evidence = self.action.proof(self.cluster, self.names)
        return self.evidence


@contextmanager
def inject(action: Action, cluster: Cluster, names: Names) -> Iterator[Injection]:
    """Do the action; undo it on every way out. Raises ClusterError or EngineError."""
    injection = Injection(action, tuple(names), cluster)
    try:
        injection.detail = action.do(cluster, names)
        if action.proof is None and not action.proven_by_undo:
            injection.evidence = injection.detail
        yield injection
    finally:
        injection.heal()


def _leader(cluster: Cluster, broker: Broker, _rng: random.Random) -> Names:
    leader = broker.leader(0)
    if leader is None:
        raise ClusterError("place 0 has no leader to hit")
    return [leader]


def _one(cluster: Cluster, _broker: Broker, rng: random.Random) -> Names:
    return [rng.choice([n.name for n in cluster.nodes if n.role == "broker"])]


def _all(cluster: Cluster, _broker: Broker, _rng: random.Random) -> Names:
    return [n.name for n in cluster.nodes]


Target = Callable[[Cluster, Broker, random.Random], Names]

TARGETS: Mapping[str, Target] = {
    "leader": _leader,  # of place 0
    "one": _one,  # any broker, by the cell's seed
    "all": _all,  # every container, name servers and controllers included
}

_NODES = ("leader", "one", "all")

FAULTS: Mapping[str, Action] = {
    "none": Action("no fault: the control cell", (), _nothing, _nothing),
    "kill": Action("SIGKILL of the broker process, all hit nodes at once", _NODES, _kill, _start),
    "stop": Action("orderly stop: SIGTERM, with a grace", _NODES, _stop, _start),
    "pause": Action("every process of the node frozen (cgroup freezer)", _NODES, _pause, _unpause),
    "power-cut": Action(
        "silence, death and a disk that forgets what was not fsynced", _NODES, _cut_power, _start, proof=_forgotten
    ),
    "partition": Action(
        "cut from its peers, clients stay attached", ("leader", "one"), _partition, _rejoin, proven_by_undo=True
    ),
}


def parse_fault(text: str, where: str) -> Fault:
    """`action:target` or `none` → Fault; raises UsageError that begins with `where` (file and key)."""
    action, _, target = text.partition(":")
    if action not in FAULTS:
        raise UsageError(f"{where}: {unknown('fault', action, list(FAULTS))}")
    allowed = FAULTS[action].targets
    if target not in allowed and (allowed or target):
        choices = ", ".join(f"{action}:{t}" for t in allowed) or action
        raise UsageError(f"{where}: fault {text!r} cannot have the target {target!r}; allowed: {choices}")
    return Fault(action, target)
