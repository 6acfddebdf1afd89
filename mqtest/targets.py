"""Whom a fault hits: the targets as functions, the table at the foot.

Rules:
- A target is resolved once, right before its injection, against what stands then; whatever is drawn comes from the
  cell's seed.
- `same` and `other` look at what the group did before: `same` is whom the step before hit, `other` a broker that no
  step of the group has hit.
- Coordinators (name servers, controllers of their own) are hit by `all`, and by `controller` where one is.
- `producers`, `consumers`, `transformers` are our own worker processes, not nodes.
- `jobmanager`, `taskmanager` are the containers of a Flink that runs the jobs of a replay, beside the cluster.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from mqtest.brokers import Broker
from mqtest.cluster import Cluster, Processor
from mqtest.errors import ClusterError
from mqtest.workload import Role
from mqtest.workload.processes import Workers

Names = Sequence[str]


@dataclass(slots=True)
class Stand:
    """Everything that a fault can reach in one cell."""

    cluster: Cluster
    broker: Broker
    workers: Workers
    rng: random.Random
    await_ready: Callable[[], None]
    """until the cluster is whole, by the broker's word; looks at the workers meanwhile; raises ClusterError"""
    hit: list[Names] = field(default_factory=list)
    """whom each step of the present group hit, in order"""

    def names(self) -> list[str]:
        """All brokers, coordinators left out."""
        return [node.name for node in self.cluster.nodes if node.role == "broker"]


def _leader(stand: Stand) -> Names:
    leader = stand.broker.leader(0)
    if leader is None:
        raise ClusterError("place 0 has no leader to hit")
    return [leader]


def _follower(stand: Stand) -> Names:
    leader = _leader(stand)
    return _some(stand, [name for name in stand.names() if name not in leader], 1)


def _controller(stand: Stand) -> Names:
    controller = stand.broker.controller()
    if controller is None:
        raise ClusterError("the broker names no controller to hit")
    return [controller]


def _one(stand: Stand) -> Names:
    return _some(stand, stand.names(), 1)


def _other(stand: Stand) -> Names:
    hit = {name for names in stand.hit for name in names}
    return _some(stand, [name for name in stand.names() if name not in hit], 1)


def _same(stand: Stand) -> Names:
    if not stand.hit:
        raise ClusterError("no step before this one hit anybody")
    return stand.hit[-1]


def _minority(stand: Stand) -> Names:
    return _some(stand, stand.names(), (len(stand.names()) - 1) // 2)


def _majority(stand: Stand) -> Names:
    return _some(stand, stand.names(), len(stand.names()) // 2 + 1)


def _random(stand: Stand) -> Names:
    return _some(stand, stand.names(), stand.rng.randint(1, len(stand.names())))


def _all(stand: Stand) -> Names:
    return [node.name for node in stand.cluster.nodes]


def _some(stand: Stand, names: Names, count: int) -> Names:
    if not 0 < count <= len(names):
        raise ClusterError(f"there are not {count or 1} nodes to choose from")
    return sorted(stand.rng.sample(list(names), count))


def _workers(role: Role) -> Callable[[Stand], Names]:
    return lambda stand: stand.workers.names(role)


def _itself(name: str) -> Callable[[Stand], Names]:
    return lambda stand: [name]


def processor(stand: Stand) -> Processor:
    """What runs the jobs of the replay; raises ClusterError where our own workers do."""
    if stand.cluster.flink is None:
        raise ClusterError("there is no Flink to hit")
    return stand.cluster.flink


Target = Callable[[Stand], Names]

WORKERS: Mapping[str, Role] = {
    "producers": Role.PRODUCER,
    "consumers": Role.CONSUMER,
    "transformers": Role.TRANSFORMER,
}

PROCESSORS = ("jobmanager", "taskmanager")
"""parts of Flink"""

TARGETS: Mapping[str, Target] = {
    "leader": _leader,  # of place 0
    "follower": _follower,  # any other broker than the leader, by the cell's seed
    "controller": _controller,  # where the broker can tell
    "one": _one,  # any broker, by the cell's seed
    "other": _other,  # a broker that the group has not hit
    "same": _same,  # whom the step before hit
    "minority": _minority,  # the most brokers that still leave a majority
    "majority": _majority,
    "random": _random,  # any number of brokers, by the cell's seed
    "all": _all,  # every container, name servers and controllers included
    **{name: _workers(role) for name, role in WORKERS.items()},
    **{name: _itself(name) for name in PROCESSORS},
}
