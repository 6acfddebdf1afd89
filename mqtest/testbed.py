"""A cluster under a user's own test: brought up, broken when the test says so, read to its end, and taken down.

Rules:
- The cluster, its places, faults, audit and files are those of any cell (standing.py, fault_run.py, load.py); what
  produces and consumes is the user's. Of ours only the fences of the audit get into the places, after everything else.
- The fault of the cell is what the test did: each `in_force` is a group of steps. It has to prove that it bit.
- Killing the user's own processes is the user's: no fault hits `producers` or `consumers` here.
"""

from __future__ import annotations

import os
import random
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mqtest.brokers import Broker
from mqtest.brokers.foreign import foreign_module
from mqtest.cell_run import record as record_of
from mqtest.clients import client, library_settings
from mqtest.clock import wait_until
from mqtest.cluster import Cluster
from mqtest.cluster.locks import RunLock
from mqtest.errors import ClusterError, MqtestError, UsageError
from mqtest.fault_log import NO_FAULT
from mqtest.fault_run import FaultRun, watching_leader
from mqtest.faults import FAULTS
from mqtest.journal import Journal
from mqtest.ledger import write_cell
from mqtest.load import Load
from mqtest.model import Cell, Consume, Fault, Kind, Phases, Profile, Step, Value, Wiring, Workload
from mqtest.nodes import engine_for, require_engine
from mqtest.profile import find_profile, image_version
from mqtest.schedule import parse_fault
from mqtest.standing import Standing
from mqtest.targets import PROCESSORS, WORKERS, Stand
from mqtest.user_ledger import Ledger
from mqtest.watch import SilentWatch

_DISK_MB = 2048
_SEVERAL = "several"
"""the fault's name, of a test with more than one"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a test wants."""

    broker: str
    profile: str | None = None
    """None: a safe one of that broker"""
    nodes: int | None = None
    """None: three, of the embedded broker one"""
    places: int = 1
    faults: tuple[str, ...] = ()
    """those that a cluster has to be brought up for: bad links, clocks that jump"""


class Bed:
    """See the module's rules."""

    def __init__(self, run_id: str, cell: Cell, folder: Path, stack: ExitStack) -> None:
        """Bring it up; the stack takes it down."""
        self._cell = cell
        self._folder = folder
        for part in ("ledger", "logs"):
            (folder / part).mkdir(parents=True)
        self._record: dict[str, Any] = record_of(run_id, cell) | {"fault": NO_FAULT, "groups": [], "schedule": []}
        write_cell(folder, self._record)
        watch = SilentWatch()
        self._journal = Journal(folder, watch)
        stack.callback(self._journal.close)
        run_number = zlib.crc32(f"{run_id}/{cell.id}".encode())
        self._load = Load(
            run=run_id,
            run_number=run_number,
            cell_dir=folder,
            library=client(cell.profile.client),
            workload=cell.workload,
            phases=cell.phases,
            journal=self._journal,
            watch=watch,
        )
        stack.callback(self._load.close)
        self._standing = Standing(
            cell, folder, self._journal, self._record, held_as=run_id, keep=False, look=self._load.look
        )
        self.ledger = Ledger(folder, run_number, cell.profile.kind, cell.workload.places, audit=self._audit)
        self.phase("up")
        self._cluster, self._broker = self._standing.up(stack)
        stack.callback(self.ledger.close)
        self._stand = Stand(
            cluster=self._cluster,
            broker=self._broker,
            workers=self._load.workers,
            rng=random.Random(cell.seed),
            await_ready=lambda: self._standing.recover(self._cluster, self._broker),
        )
        self._faults = FaultRun(self._stand, self, cell.fault, cell.phases.hold_s, cell.settings)
        self._cluster.sync()
        self.phase("warm-up")
        self.phase("steady")

    @property
    def profile(self) -> Profile:
        """The profile, with its promise."""
        return self._cell.profile

    @property
    def cluster(self) -> Cluster:
        """Its nodes."""
        return self._cluster

    @property
    def broker(self) -> Broker:
        """What can be asked of it."""
        return self._broker

    @contextmanager
    def in_force(self, fault: str) -> Iterator[None]:
        """Inject the fault (`action:target`, several joined by `+`); heal it when the block ends, wait until the
        cluster is whole, and have it proven. Raises UsageError, and ClusterError where it does not come back."""
        steps = _steps(fault, self._cell)
        self._record["groups"].append([str(step) for step in steps])
        self._record["fault"] = fault if len(self._record["groups"]) == 1 else _SEVERAL
        write_cell(self._folder, self._record)
        with watching_leader(lambda: self._standing.connect(self._cluster), self), self._faults.in_force(steps):
            yield
        self.phase("after")

    def remaining(self) -> int:
        """Messages that consumers have still to acknowledge, by the broker's own word; of a log, of the group
        `Topic.group`. Raises ClusterError."""
        positions = {place: next_one - 1 for place, (next_one, _end) in self._broker.committed().items()}
        return self._broker.remaining(positions)

    def _audit(self) -> None:
        """Read everything; what goes wrong makes the cell `unknown`, and is not raised."""
        self.phase("drain")
        try:
            committed = self._broker.committed() if self._cell.profile.kind is Kind.LOG else {}
            places, ends = ({str(p): pair[i] for p, pair in committed.items()} for i in (0, 1))
            self.event("committed", places=places, ends=ends)
            self._load.audit(self._broker)
        except MqtestError as error:
            self.event("failed", why=str(error))
        self._record["finished"] = True
        write_cell(self._folder, self._record)
        self.phase("down")

    # --- what a fault needs of the cell

    def event(self, event: str, **fields: Any) -> None:
        """See Teller."""
        self._journal.event(event, **fields)

    def phase(self, name: str) -> None:
        """See Teller."""
        self._journal.phase(name)

    def last(self, seconds: float) -> None:
        """See Teller."""
        self._load.last(seconds)


@dataclass(frozen=True, slots=True)
class UserCluster:
    """What a test sees of the cluster: `mq_cluster`."""

    bed: Bed

    @property
    def profile(self) -> Profile:
        """Its profile, with the promise that it is held to."""
        return self.bed.profile

    @property
    def wiring(self) -> Wiring:
        """All that one of mqtest's own clients needs."""
        return self.bed.broker.wiring()

    @property
    def addresses(self) -> tuple[str, ...]:
        """`host:port` of every node that a client may begin with."""
        return self.wiring.addresses

    @property
    def bootstrap(self) -> str:
        """The same, as Kafka's `bootstrap.servers` wants them."""
        return ",".join(self.addresses)

    @property
    def nodes(self) -> tuple[str, ...]:
        """Names of all nodes."""
        return tuple(node.name for node in self.bed.cluster.nodes)

    @property
    def producer_settings(self) -> dict[str, Value]:
        """The profile's, in the client library's own keys: the promise holds for these."""
        return library_settings(self.wiring.producer)

    @property
    def consumer_settings(self) -> dict[str, Value]:
        """Likewise."""
        return library_settings(self.wiring.consumer)


@dataclass(frozen=True, slots=True)
class Topic:
    """Where a test's messages go: `mq_topic`. Made, empty, and for this test alone."""

    bed: Bed
    name: str
    places: int
    group: str
    """whose committed positions are looked at; consumers of a log use it"""

    @property
    def queues(self) -> tuple[str, ...]:
        """RabbitMQ: one queue a place."""
        return tuple(f"{self.name}-{place}" for place in range(self.places))

    def remaining(self) -> int:
        """Messages that consumers have still to acknowledge (a log: the group has to commit), by the broker's word."""
        return self.bed.remaining()

    def await_drained(self, timeout_s: float = 60.0) -> None:
        """Wait until there are none; raises WaitTimeout."""
        wait_until(
            lambda: self.remaining() == 0,
            timeout_s,
            f"the consumers of {self.name} to acknowledge everything",
            poll_s=0.2,
            swallow=(ClusterError,),
        )


def topic(bed: Bed) -> Topic:
    """The one that the cluster was made with."""
    wiring = bed.broker.wiring()
    return Topic(bed, wiring.topic, wiring.places, wiring.group)


@contextmanager
def bed(asked: Asked, folder: Path, note: Callable[[str], None]) -> Iterator[Bed]:
    """A cluster as it was asked for, its files in `folder`; taken down on every way out. Raises UsageError,
    EngineError, ImageError and ClusterError."""
    cell = _cell(asked)
    require_engine([cell])
    run_id = f"pytest-{os.getpid()}-{zlib.crc32(str(folder).encode()):08x}"
    with RunLock(run_id), engine_for([cell], run_id, note, keep=False), ExitStack() as stack:
        yield Bed(run_id, cell, folder, stack)


def _cell(asked: Asked) -> Cell:
    profile = find_profile(f"{asked.broker}/{asked.profile or foreign_module(asked.broker).PROFILE}")
    steps = [step for text in asked.faults for step in parse_fault(text, "faults", {}).steps]
    return Cell(
        id=f"001-test-{profile.broker}-{profile.name}",
        index=1,
        profile=profile,
        fault=Fault("+".join(map(str, steps)), (tuple(steps),)) if steps else Fault(NO_FAULT),
        repeat=1,
        seed=1,
        nodes=asked.nodes or (1 if asked.broker == "memory" else 3),
        workload=Workload(producers=0, consumers=0, consume=Consume.LIVE, rate_per_s=None, places=asked.places),
        phases=Phases(),
        floor=1,
        fs="ext4",
        disk_mb=_DISK_MB,
        version=image_version(profile.broker),
    )


def _steps(fault: str, cell: Cell) -> Sequence[Step]:
    """Raises UsageError for what the cluster was not brought up for."""
    steps = parse_fault(fault, "mq_faults", {}).steps
    if not steps:
        raise UsageError("mq_faults: without a fault there is nothing to do")
    prepared = [FAULTS[step.action] for step in cell.fault.steps]
    for step in steps:
        action = FAULTS[step.action]
        if step.target in (*WORKERS, *PROCESSORS):
            raise UsageError(f"mq_faults: {step}: your own processes are yours to kill")
        if (action.on_links and not any(a.on_links for a in prepared)) or (
            action.fakes_clock and not any(a.fakes_clock for a in prepared)
        ):
            raise UsageError(f"mq_faults: {step}: name it in the marker, faults=({str(step)!r},): it needs preparation")
    return steps
