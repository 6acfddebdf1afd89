"""What can be done to a cluster and to our own workers: the actions as functions, the table at the foot.

Rules:
- An action is a do, an undo, and the evidence that it bit. Undo is registered before do runs, is idempotent, and runs
  on every way out, so an interrupted cell is healed.
- Evidence is what the cluster shows, never what we asked for. Where it shows only afterwards (forgotten bytes, dropped
  packets), `proof` fetches it after the heal. No evidence at all: the fault did not bite, and the cell is `invalid`.
- All that an action works with stands in its Hit. Whom it hits is decided in targets.py, when in schedule.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from mqtest.clock import now_ns
from mqtest.cluster import HOST, STREAMS, Evidence, Links
from mqtest.errors import ClusterError
from mqtest.model import Value
from mqtest.targets import PROCESSORS, WORKERS, Names, Stand, processor


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """One action on those that it hits."""

    stand: Stand
    target: str
    names: tuple[str, ...]
    settings: Mapping[str, Value]
    """of the action, the scenario's over the defaults"""
    tag: str
    """tells it from others of the same kind that are in force at the same time"""


Act = Callable[[Hit], Evidence]


def _kill(hit: Hit) -> Evidence:
    if hit.target in WORKERS:
        return hit.stand.workers.crash(WORKERS[hit.target])
    if hit.target in PROCESSORS:
        return processor(hit.stand).kill(hit.names)
    return hit.stand.cluster.kill(hit.names)


def _stop(hit: Hit) -> Evidence:
    return hit.stand.cluster.stop(hit.names)


def _pause(hit: Hit) -> Evidence:
    return hit.stand.cluster.pause(hit.names)


def _cut_power(hit: Hit) -> Evidence:
    return hit.stand.cluster.cut_power(hit.names)


def _partition(hit: Hit) -> Evidence:
    return hit.stand.cluster.isolate(hit.names, _others(hit), tag=hit.tag)


def _partition_one_way(hit: Hit) -> Evidence:
    direction = str(hit.settings["direction"])
    return hit.stand.cluster.isolate(hit.names, _others(hit), direction=direction, tag=hit.tag)


def _partition_bridge(hit: Hit) -> Evidence:
    """One broker, the first that is not hit, still reaches both sides."""
    bridge = next(name for name in hit.stand.names() if name not in hit.names)
    return hit.stand.cluster.isolate(hit.names, [name for name in _others(hit) if name != bridge], tag=hit.tag)


def _partition_clients(hit: Hit) -> Evidence:
    return hit.stand.cluster.isolate(hit.names, [HOST], tag=hit.tag)


def _lose_packets(hit: Hit) -> Evidence:
    return hit.stand.cluster.lose_packets(hit.names, float(hit.settings["percent"]), hit.tag)


def _fill_disk(hit: Hit) -> Evidence:
    return hit.stand.cluster.fill_disk(hit.names)


def _fail_disk(hit: Hit) -> Evidence:
    return hit.stand.cluster.fail_disk(hit.names)


def _stall_disk(hit: Hit) -> Evidence:
    return hit.stand.cluster.stall_disk(hit.names)


def _slow_disk(hit: Hit) -> Evidence:
    return hit.stand.cluster.slow_disk(hit.names, float(hit.settings["stalled_ms"]), float(hit.settings["free_ms"]))


def _restart(hit: Hit) -> Evidence:
    stopped = hit.stand.cluster.stop(hit.names)
    hit.stand.cluster.start(hit.names)
    return stopped


def _restart_in_turn(hit: Hit) -> Evidence:
    """Each only once the one before is back in sync, as a careful operator upgrades. `turns`: from when to when."""
    codes: dict[str, int] = {}
    turns: dict[str, tuple[int, int]] = {}
    for name in hit.names:
        began = now_ns()
        codes |= hit.stand.cluster.stop([name]).get("exit_code", {})
        hit.stand.cluster.start([name])
        hit.stand.await_ready()
        turns[name] = (began, now_ns())
    return {"exit_code": codes, "turns": turns} if codes else {}


def _jump_clock(hit: Hit) -> Evidence:
    return hit.stand.cluster.jump_clock(hit.names, float(hit.settings["seconds"]))


def _reset_clock(hit: Hit) -> Evidence:
    return hit.stand.cluster.reset_clock(hit.names)


def _start(hit: Hit) -> Evidence:
    if hit.target in WORKERS:
        hit.stand.workers.revive(WORKERS[hit.target])
    elif hit.target in PROCESSORS:
        processor(hit.stand).start(hit.names)
    else:
        hit.stand.cluster.start(hit.names)
    return {}


def _unpause(hit: Hit) -> Evidence:
    hit.stand.cluster.unpause(hit.names)
    return {}


def _rejoin(hit: Hit) -> Evidence:
    return hit.stand.cluster.rejoin(hit.tag)


def _keep_packets(hit: Hit) -> Evidence:
    return hit.stand.cluster.keep_packets(hit.tag)


def _free_disk(hit: Hit) -> Evidence:
    """Space first, then the nodes that ended for want of it."""
    freed = hit.stand.cluster.free_disk(hit.names)
    hit.stand.cluster.start(hit.names)
    return freed


def _replace_disk(hit: Hit) -> Evidence:
    """A filesystem that failed comes back only when it is mounted anew."""
    killed = hit.stand.cluster.kill(hit.names)
    hit.stand.cluster.start(hit.names)
    return killed


def _thaw_disk(hit: Hit) -> Evidence:
    stalled = hit.stand.cluster.thaw_disk(hit.names)
    hit.stand.cluster.start(hit.names)
    return stalled


def _unslow_disk(hit: Hit) -> Evidence:
    stalled = hit.stand.cluster.unslow_disk(hit.names)
    hit.stand.cluster.start(hit.names)
    return stalled


def _forgotten(hit: Hit) -> Evidence:
    return hit.stand.cluster.forgotten(hit.names)


def _link(action: str) -> Act:
    def impair(hit: Hit) -> Evidence:
        return _links(hit).impair(action, hit.names, hit.settings, hit.tag)

    return impair


def _restore_link(hit: Hit) -> Evidence:
    return _links(hit).restore(hit.tag)


def _links(hit: Hit) -> Links:
    if hit.stand.cluster.links is None:
        raise ClusterError("there are no proxies between clients and brokers")
    return hit.stand.cluster.links


def _others(hit: Hit) -> Names:
    return [node.name for node in hit.stand.cluster.nodes if node.name not in hit.names]


@dataclass(frozen=True, slots=True)
class Action:
    """One row of the table."""

    about: str
    targets: tuple[str, ...]
    do: Act
    undo: Act
    proof: Act | None = None
    """fetched after undo; then neither do nor undo is evidence by itself"""
    proven_by_undo: bool = False
    held: bool = True
    """False: over when do returns, unless a step says `for_s`"""
    settings: Mapping[str, Value] = field(default_factory=dict)
    """its numbers, with their defaults; a scenario overrides them in `[settings.<action>]`"""
    fakes_clock: bool = False
    """the cluster must be brought up for it"""
    choices: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """setting → what it may be, where it is no number"""
    on_links: bool = False
    """clients must come through proxies from the start"""


@dataclass(slots=True)
class Injection:
    """A fault that is in force. `detail` is what do said; `evidence` what proves the bite so far."""

    action: Action
    hit: Hit
    detail: Evidence = field(default_factory=dict)
    evidence: Evidence = field(default_factory=dict)
    healed: bool = False

    def heal(self) -> None:
        """Undo, once."""
        if self.healed:
            return
        undone = self.action.undo(self.hit)
        self.healed = True
        if self.action.proven_by_undo:
            self.evidence = undone

    def prove(self) -> Evidence:
        """The evidence, fetched now where it shows only after the heal."""
        if self.action.proof is not None:
            self.evidence = self.action.proof(self.hit)
        return self.evidence


@contextmanager
def inject(action: Action, hit: Hit) -> Iterator[Injection]:
    """Do the action; undo it on every way out. Raises ClusterError or EngineError."""
    injection = Injection(action, hit)
    try:
        injection.detail = action.do(hit)
        if action.proof is None and not action.proven_by_undo:
            injection.evidence = injection.detail
        yield injection
    finally:
        injection.heal()


_NODES = ("leader", "follower", "controller", "one", "other", "same", "minority", "majority", "random", "all")
_PARTS = tuple(target for target in _NODES if target not in ("random", "all"))
"""whoever is cut off needs somebody to be cut off from"""


def _on_links(action: str, about: str, *, proven_by_undo: bool = False, **settings: Value) -> Action:
    return Action(
        f"link of clients: {about}",
        ("leader", "follower", "one", "minority", "majority", "all"),
        _link(action),
        _restore_link,
        proven_by_undo=proven_by_undo,
        settings={**settings, "stream": STREAMS[0]},
        choices={"stream": STREAMS},
        on_links=True,
    )


FAULTS: Mapping[str, Action] = {
    "kill": Action(
        "SIGKILL of the broker process, of our own workers, all at once, or of a part of Flink",
        (*_NODES, *WORKERS, *PROCESSORS),
        _kill,
        _start,
    ),
    "stop": Action("orderly stop: SIGTERM, with a grace", _NODES, _stop, _start),
    "pause": Action("every process of the node frozen (cgroup freezer)", _NODES, _pause, _unpause),
    "power-cut": Action(
        "silence, a disk that forgets what was not fsynced, and death", _NODES, _cut_power, _start, proof=_forgotten
    ),
    "restart": Action("orderly stop and start at once", _NODES, _restart, _start, held=False),
    "rolling-restart": Action(
        "each hit node in turn stopped, started and awaited, as in an upgrade",
        _NODES,
        _restart_in_turn,
        _start,
        held=False,
    ),
    "partition": Action("cut from its peers, clients stay attached", _PARTS, _partition, _rejoin, proven_by_undo=True),
    "partition-one-way": Action(
        "one direction between it and its peers cut: `in` what they send, or `out` what it sends",
        _PARTS,
        _partition_one_way,
        _rejoin,
        proven_by_undo=True,
        settings={"direction": "in"},
        choices={"direction": ("in", "out")},
    ),
    "partition-bridge": Action(
        "cut from all of its peers but one broker, which still reaches everybody",
        _PARTS,
        _partition_bridge,
        _rejoin,
        proven_by_undo=True,
    ),
    "partition-clients": Action(
        "cut from the clients, its peers stay attached", _NODES, _partition_clients, _rejoin, proven_by_undo=True
    ),
    "packet-loss": Action(
        "packets lost at random, in and out, whoever the other side is",
        _NODES,
        _lose_packets,
        _keep_packets,
        proven_by_undo=True,
        settings={"percent": 20.0},
    ),
    "disk-full": Action("no space left on the disk of the node", _NODES, _fill_disk, _free_disk),
    "disk-failing": Action(
        "every access to the disk is an I/O error; healed by SIGKILL and start", _NODES, _fail_disk, _replace_disk
    ),
    "disk-stalled": Action(
        "the disk is flushed, then every write waits", _NODES, _stall_disk, _thaw_disk, proven_by_undo=True
    ),
    "disk-slow": Action(
        "the disk stands still and works in turn, flushed each time",
        _NODES,
        _slow_disk,
        _unslow_disk,
        proven_by_undo=True,
        settings={"stalled_ms": 80.0, "free_ms": 20.0},
    ),
    "clock-jump": Action(
        "the wall clock of the node set ahead, or back; its timers go on",
        _NODES,
        _jump_clock,
        _reset_clock,
        settings={"seconds": 300.0},
        fakes_clock=True,
    ),
    "link-latency": _on_links("link-latency", "every round trip takes so much longer", latency_ms=50),
    "link-jitter": _on_links("link-jitter", "every round trip takes 0 to twice so much longer", jitter_ms=50),
    "link-bandwidth": _on_links(
        "link-bandwidth", "no connection gets more through than this", rate_kb_per_s=200, proven_by_undo=True
    ),
    "link-reset": _on_links("link-reset", "every connection is closed as soon as something is said", after_ms=0),
    "link-timeout": _on_links("link-timeout", "nothing gets through, and the connection is closed", timeout_ms=2000),
    "link-slicer": _on_links(
        "link-slicer", "data arrives in small pieces", size_bytes=256, spread_bytes=128, gap_us=100, proven_by_undo=True
    ),
}
