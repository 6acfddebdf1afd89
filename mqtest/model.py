"""The records that everything else passes around, and the enums of the vocabulary. Imports nothing of ours.

Rules: all are frozen; times are CLOCK_MONOTONIC in ns (`…_ns`) or durations in s (`…_s`); an absent figure is None,
never 0. A message is named by (producer, seq). A place is a partition (Kafka) or a queue, numbered from 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import IntEnum, IntFlag, StrEnum
from typing import Literal, NamedTuple

Value = str | int | float | bool
"""A setting as it stands in TOML."""

RUNNER = 2**32 - 2
"""The producer number of the runner itself: its fences and probes are in no figure."""
NOBODY = 2**32 - 1
"""The producer number of a corrupt receipt."""


class Kind(StrEnum):
    """What reading does: in a `log` nothing; in a `queue` reading and acknowledging removes."""

    LOG = "log"
    QUEUE = "queue"


class Outcome(IntEnum):
    """What the client said of one send. Anything not proven absent from the broker is UNKNOWN."""

    NONE = 0
    ACKED = 1
    DEGRADED = 2
    """stored, but the durability that was asked for was not reached in time (RocketMQ)"""
    REFUSED = 3
    """provably not stored"""
    UNKNOWN = 4
    RETURNED = 5
    """RabbitMQ basic.return: no queue took it; wins over the ack that follows"""


class Flag(IntFlag):
    """Flags of a receipt."""

    REDELIVERED = 1
    CORRUPT = 2
    FOREIGN = 4


class Verdict(StrEnum):
    """Of a cell; design rules in verdict.py."""

    KEPT = "kept"
    LOST_AS_DOCUMENTED = "lost-as-documented"
    BROKEN = "broken"
    DEAD = "dead"
    UNKNOWN = "unknown"
    INVALID = "invalid"


class Duplicates(StrEnum):
    """Which duplicates a profile's promise allows."""

    NONE = "none"
    REDELIVERED = "redelivered"
    """flagged by the broker, or a position of a log read again"""
    ANY = "any"


class Order(StrEnum):
    """Whether a profile promises order per connection of a producer, and place."""

    PLACE = "place"
    UNLESS_REQUEUED = "unless-requeued"
    """but for what a queue took back from a consumer, and flags as redelivered"""
    NONE = "none"


class Output(StrEnum):
    """What a profile promises of a pipeline (read, transform, write): outputs for each input."""

    EXACTLY_ONCE = "exactly-once"
    AT_LEAST_ONCE = "at-least-once"
    NONE = "none"


class Consume(StrEnum):
    """When the consumers of a cell run."""

    AFTER_HEAL = "after-heal"
    LIVE = "live"


@dataclass(frozen=True, slots=True, kw_only=True)
class Promise:
    """What a profile promises. `survives` lists faults as `action:target` ("none" for no fault), a composed one
    joined by `+`; acknowledged messages survive exactly those. An action or target may be a pattern: `kill:*`."""

    survives: tuple[str, ...]
    duplicates: Duplicates
    order: Order
    source: str
    output: Output = Output.NONE


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """A named set of settings of one broker and its client, in their own keys."""

    broker: str
    name: str
    about: str
    client: str
    kind: Kind
    acknowledged: bool
    promise: Promise
    settings: Mapping[str, Mapping[str, Value]]
    """table -> key -> value. Tables: `broker` (every node's configuration file), `topic` (topic configs or queue
    arguments), `producer`, `consumer` (the client's own keys), and what a broker adds (RabbitMQ: `advanced`; Kafka:
    `feature`, levels that a cluster is formatted with)."""

    @property
    def path(self) -> str:
        """`broker/name`, as scenarios and the command line write it."""
        return f"{self.broker}/{self.name}"


@dataclass(frozen=True, slots=True)
class Step:
    """One action on one target. `str()` gives `action:target`."""

    action: str
    target: str
    at_s: float = 0.0
    """from the beginning of its group"""
    for_s: float | None = None
    """from `injected` to the heal; None: the phase's `hold_s`"""

    def __str__(self) -> str:
        return f"{self.action}:{self.target}"


@dataclass(frozen=True, slots=True)
class Draw:
    """Groups of one step each, drawn from a cell's seed: one of `steps`, held for `hold_s` (least, most)."""

    steps: tuple[Step, ...]
    lasts_s: float
    every_s: float
    hold_s: tuple[float, float]


@dataclass(frozen=True, slots=True)
class Fault:
    """What is done to a cluster in one cell. `str()` gives its name: `none`, `kill:leader`, `a:x+b:y`, or the name of a
    schedule of the scenario. Between two groups the cluster recovers; the steps of one group may overlap."""

    name: str
    groups: tuple[tuple[Step, ...], ...] = ()
    """none at all: the control cell, or `draw` has still to be drawn (plan.py)"""
    every_s: float = 0.0
    """from the beginning of a group to that of the next, at least"""
    draw: Draw | None = None

    def __str__(self) -> str:
        return self.name

    @property
    def steps(self) -> tuple[Step, ...]:
        """All that is done, or may be drawn."""
        done = tuple(step for group in self.groups for step in group)
        return done or (self.draw.steps if self.draw else ())

    @property
    def target(self) -> str:
        """The target that all steps share, or nothing."""
        targets = {step.target for step in self.steps}
        return targets.pop() if len(targets) == 1 else ""


NO_FAULT = Fault("none")


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """What the producers and consumers of one cell do."""

    producers: int = 1
    """processes that send"""
    consumers: int = 1
    """processes that read, in one group"""
    consume: Consume = Consume.AFTER_HEAL
    """`live`: from the start; `after-heal`: only once nothing more is sent, so that they take nothing from a queue that
    the fault could hit"""
    rate_per_s: float | None = 2000.0
    """all producers together, open loop; None (`closed_loop = true`): no rate, `window` sends stay in flight"""
    window: int = 5000
    """most sends of one producer that are handed over and not settled"""
    size_bytes: int = 512
    """of a message"""
    places: int = 1
    """partitions (Kafka) or queues (RabbitMQ, RocketMQ)"""
    transformers: int = 0
    """they read what the producers send and write it on, into a second topic; live"""
    process_ms: float = 0.0
    """a live consumer takes so long over each message; its receipt is written when it is done"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Phases:
    """Durations and bounds of one cell, in seconds."""

    warm_up_s: float = 2.0
    """load whose speed is in no figure"""
    steady_s: float = 5.0
    """load before the fault; rates and latencies are those of this phase"""
    hold_s: float = 6.0
    """how long a fault is held: from `injected` until the heal begins"""
    after_s: float = 3.0
    """load goes on for so long after the recovery"""
    recover_s: float = 120.0
    """at most, from `healed` until every replica is back in sync"""
    settle_s: float = 30.0
    """at most, for open sends to settle once nothing more is sent"""
    drain_s: float = 60.0
    """at most, for the consumers to take everything that is left"""
    audit_s: float = 120.0
    """at most, for the fence in every place, and then for the complete read"""
    up_s: float = 180.0
    """at most, from compose up until the cluster is ready"""
    sync_before_fault_s: float | None = None
    """flush the nodes' disks so long before the fault: a power cut then leaves part of the load on disk"""


LOAD_PHASE = "load-"
"""how the phases of a search cell begin that load it at a share of what it sustains; the share in per cent follows"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """How a cell without a fault looks for the highest rate that it sustains, and measures latency at shares of it."""

    start_per_s: float = 4000.0
    """the first rate, of the warm-up too"""
    most_per_s: float = 200_000.0
    """no rate above this is tried"""
    step_s: float = 3.0
    """how long a rate is tried; one that is clearly too much, shorter"""
    trials: int = 14
    """so many rates are tried, at most"""
    settle_s: float = 10.0
    """at most, after each trial, for what is open to settle"""
    at: tuple[float, ...] = (0.25, 0.5, 0.75)
    """shares of the highest sustained rate"""
    at_s: float = 6.0
    """how long each of them lasts"""

    @property
    def loads(self) -> tuple[tuple[str, float], ...]:
        """The name of the phase at each share, and the share."""
        return tuple((f"{LOAD_PHASE}{round(share * 100)}", share) for share in self.at)


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """A cell with a stateful job, and a new one that starts beside it on the whole history and takes over."""

    history_s: float = 10.0
    """how long a history is made before the steady phase; the job runs live meanwhile"""
    history_per_s: float | None = None
    """at so many messages a second; without it at `workload.rate_per_s`"""
    keys: int = 100
    """so many different keys have amounts; the job keeps count and sum of each key and time window"""
    window_s: float = 10.0
    """length of a time window, by the time at which a message was due"""
    output: Output = Output.AT_LEAST_ONCE
    """after a failure: `at-least-once` goes on from the committed positions, `exactly-once` passes over what the output
    has already, by the source position in it; in Flink's words its checkpoints and sink, there `none` too"""
    fault_at: float = 0.3
    """a fault comes when the new job has read this share of what there was at its start"""
    catch_up_s: float = 120.0
    """at most, from the start of the new job until it is less than a second of load behind"""
    beside_s: float = 2.0
    """both jobs go on side by side for so long; then the outputs are switched, and the old job stops"""
    runs_on: Literal["mqtest", "flink"] = "mqtest"
    """who runs the jobs: `mqtest`'s own processes, or a cluster of Apache `flink` beside the brokers (Kafka)"""
    dashboard: bool = False
    """the new job's output is fed to a ClickHouse table, as a dashboard's would be; needs the extra `dashboard`"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One profile x one fault x one repeat: brought up fresh, run, judged, taken down."""

    id: str
    """folder name, such as `003-kafka-acks-all-power-cut-all-1`"""
    index: int
    profile: Profile
    fault: Fault
    repeat: int
    seed: int
    nodes: int
    workload: Workload
    phases: Phases
    floor: int
    """fewer acked messages than this: the cell is `invalid`"""
    fs: str
    disk_mb: int
    version: str
    must_lose: bool = False
    """the scenario says that some profile must lose under this fault; the report says so where none did"""
    latency: bool = False
    """it is there to measure latency: `invalid` when our own load was too late for that"""
    hasty: bool = False
    """the cluster meets the load as it first started: not settled (Broker.settle), its disks not flushed"""
    varied: Mapping[str, Value] = field(default_factory=dict)
    """what `[vary]` and `--set` made of the profile's and the scenario's own values, by key"""
    settings: Mapping[str, Mapping[str, Value]] = field(default_factory=dict)
    """action -> its numbers, where they are not the defaults"""
    search: Search | None = None
    """only without a fault: in place of the steady phase"""
    replay: Replay | None = None
    """with the phases of replay_run.py; its transformers are the two jobs"""


@dataclass(frozen=True, slots=True)
class Node:
    """One container (or process) of a cluster. `role` is `broker`, or `coordinator` (a name server, a controller)."""

    name: str
    address: str
    """the IP that host and peers reach it at; for `memory` the path of a local socket"""
    role: str = "broker"
    via: str = ""
    """host:port that clients reach it at, where a proxy of ours stands between; empty: they go there directly"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wiring:
    """All that a client needs to talk to a cluster; travels as JSON to the worker processes."""

    broker: str
    client: str
    kind: Kind
    acknowledged: bool
    addresses: tuple[str, ...]
    """host:port of every node that a client may bootstrap from (RocketMQ: the name servers)"""
    topic: str
    """RabbitMQ: place p is the queue `<topic>-<p>`"""
    places: int
    group: str
    """the cell's one consumer group"""
    producer: Mapping[str, Value]
    consumer: Mapping[str, Value]
    topic_settings: Mapping[str, Value] = field(default_factory=dict)

    @property
    def output(self) -> Wiring:
        """The same cluster, with the topic that transformers write to."""
        return replace(self, topic=f"{self.topic}-out{self.job}", begins={}, resume={}, since_ms=0)

    job: str = ""
    """ends the name of its output topic"""
    since_ms: int = 0
    """wall clock before the first message: where a client begins that is told to, the others at the first of all"""
    resume: Mapping[int, int] = field(default_factory=dict)
    """place -> the next position by the reader's own checkpoint, where the broker keeps none (RabbitMQ streams)"""

    access: Mapping[str, Value] = field(default_factory=dict, repr=False)
    """credentials and TLS of a cluster that is not ours, in the client's own keys; written down nowhere"""
    begins: Mapping[int, int] = field(default_factory=dict)
    """log: place -> the first position that is the cell's own, 0 where absent; below it is what others wrote"""
    via: Mapping[str, str] = field(default_factory=dict)
    """host:port that the broker tells its clients -> where they go instead; for a client that learns addresses so"""


class Delivery(NamedTuple):
    """One message as a consumer or the audit got it."""

    place: int
    offset: int
    """log position (log), delivery tag (queue)"""
    body: bytes
    redelivered: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What one check says. `count` None: not measured. `notes` say in sentences what the numbers mean, and which
    settings allow it; at most 20 `examples`. Each of both is one line. `messages` has a few of those concerned, by
    producer and seq: the first ones of runs of them."""

    check: str
    count: int | None
    numbers: Mapping[str, float | int | None] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    examples: tuple[str, ...] = ()
    messages: tuple[tuple[int, int], ...] = ()
