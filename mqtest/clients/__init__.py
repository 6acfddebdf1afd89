"""What a client library must offer to be driven: the protocols Producer and Consumer, and the table of clients.

A client is one module here with two functions, `open_producer` and `open_consumer` (and `open_reader` for the
audit, where the client can read back), imported only when it is used. Rules that every client keeps:
- One object is one connection (or one native client). It never reconnects and never retries by our hand: when it
  is beyond use it says so in `failed`, the worker closes it and opens another with the next epoch. That logic
  stands in one place, the worker's loop. (A native client that reconnects inside itself, as librdkafka, may.)
- Single-threaded from outside: `settle` is called only inside `send`, `poll` and `close`. Nothing of ours blocks
  longer than the given timeout; opening is bounded by `OPEN_TIMEOUT_S`.
- Outcomes follow the table in the design: anything not proven absent is UNKNOWN.
- A client may take and give messages by the block, so that none of them costs a Python object: BlockProducer and
  BlockConsumer. It does so beside the plain calls, never instead of them.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol, cast, runtime_checkable

from mqtest.bodies import Bodies, Ints
from mqtest.errors import MqtestError, UsageError
from mqtest.model import Delivery, Outcome, Value, Wiring

OPEN_TIMEOUT_S = 5.0

Settle = Callable[[int, Outcome, int, int], None]
"""settle(seq, outcome, offset, place): offset and place -1 where the broker did not say. May be called again for
one seq when a late answer arrives; the ledger keeps the rule that UNKNOWN may become ACKED or DEGRADED."""


SettleMany = Callable[[range, Outcome, int, int], None]
"""settle_many(seqs, outcome, offset, place): as Settle for each; `offset`: of the first one, the others follow it"""


class Block(NamedTuple):
    """Messages of one size that came from one place together; none of them redelivered."""

    place: int
    offsets: Ints
    bodies: Bodies
    """one row a message"""

    @property
    def deliveries(self) -> list[Delivery]:
        """The same, one by one."""
        rows = zip(self.offsets.tolist(), self.bodies, strict=True)
        return [Delivery(self.place, offset, row.tobytes(), False) for offset, row in rows]


Arrived = Sequence[Delivery | Block]
"""what a consumer hands on: one by one, or by the block"""


def one_by_one(arrived: Arrived) -> list[Delivery]:
    """The same without blocks."""
    found: list[Delivery] = []
    for item in arrived:
        found += item.deliveries if isinstance(item, Block) else [item]
    return found


OURS = "mqtest."
"""settings that begin so are read by us, and never handed to a client library"""


class ClientError(MqtestError):
    """A client could not be opened, or failed; the worker tries again."""


class Producer(Protocol):
    """Sends messages; see the module's rules."""

    @property
    def failed(self) -> str | None:
        """Why this object is beyond use (connection lost, fatal error), else None."""

    @property
    def blocked(self) -> bool:
        """True while the broker or the client takes no more for now (connection.blocked, full local queue)."""

    def send(self, seq: int, place: int, body: bytes) -> bool:
        """Hand one message over, without waiting. False: nothing left the process, try again after a poll.

        A refusal that proves that nothing was stored is reported through settle(seq, REFUSED, -1, place) and True.
        """

    def poll(self, timeout_s: float) -> None:
        """Do I/O and call `settle` for what was answered; returns after timeout_s at the latest, earlier when
        something happened. With 0: only what can be done at once."""

    def close(self, timeout_s: float) -> None:
        """Settle what is already answered, then drop the connection. What stays open is not settled."""


@runtime_checkable
class BlockProducer(Producer, Protocol):
    """A producer that takes blocks too."""

    settle_many: SettleMany | None
    """called, where it is set, instead of one `settle` a message; at the same times"""

    def send_many(self, seqs: range, places: int, bodies: Bodies) -> bool:
        """Hand these messages over, all or none, without waiting and without I/O; message seq goes to place
        seq % places. `seqs` has step 1, `bodies` one row each, which the client keeps: they must not change. False as
        in `send`, and only where `failed` or `blocked` would have told."""


class Consumer(Protocol):
    """Receives messages, of all places unless it was opened for some.

    It may have `ends`: place -> last position before the end of the log as it was told, where there are positions that
    are never delivered (Kafka transactions).
    """

    @property
    def failed(self) -> str | None:
        """Why this object is beyond use, else None."""

    def poll(self, timeout_s: float) -> Sequence[Delivery]:
        """What has arrived; empty after timeout_s. Corrupt bodies are handed on as they are."""

    def ack(self) -> None:
        """Acknowledge (queue) or commit (log) everything that poll returned so far; called only after the
        receipts are in the ledger."""

    def close(self, timeout_s: float) -> None:
        """Leave; what was not acknowledged goes back to the broker."""


@runtime_checkable
class BlockConsumer(Consumer, Protocol):
    """A consumer that gives blocks too; whoever begins with one of the two ways stays with it."""

    def poll_blocks(self, timeout_s: float) -> Arrived:
        """As `poll`; what does not fit into a block comes one by one, in its place among them."""


class Reader(Consumer, Protocol):
    """The audit's consumer: no group; a log from its very start, a queue as the only consumer left."""

    def starts(self) -> Mapping[int, int]:
        """Log: first position that each place still has, by the broker's own word. Queue: 0 for each."""


class Transformer(Protocol):
    """A pipeline: inputs of one topic become outputs in another (`wiring.output`)."""

    @property
    def failed(self) -> str | None:
        """Why this object is beyond use, else None."""

    @property
    def positions(self) -> Mapping[int, int]:
        """Place -> last position up to which the inputs are done with, of the places that it has now."""

    def poll(self, timeout_s: float) -> Sequence[Delivery]:
        """The inputs of the next batch; empty after timeout_s."""

    def write(self, outputs: Sequence[tuple[int, bytes]]) -> Outcome:
        """Write the outputs (place, body) of what poll returned, and remember how far that is; blocks, for a bounded
        time. ACKED; REFUSED: as if the batch had never been read, it comes again; UNKNOWN: see `failed`."""

    def close(self, timeout_s: float) -> None:
        """Hand over what is still queued, and leave."""


class Client(Protocol):
    """A module of this package."""

    def open_producer(self, wiring: Wiring, settle: Settle, number: int, epoch: int) -> Producer:
        """Connect producer `number`; raises ClientError within OPEN_TIMEOUT_S."""

    def open_consumer(self, wiring: Wiring, number: int, epoch: int, consumers: int) -> Consumer:
        """Connect consumer `number` of `consumers` in group wiring.group; raises ClientError."""

    def open_reader(self, wiring: Wiring, places: Sequence[int]) -> Reader:
        """Open the audit of these places; raises ClientError."""

    def open_transformer(self, wiring: Wiring, number: int, epoch: int, transformers: int) -> Transformer:
        """Connect transformer `number` of `transformers`; raises ClientError. Not in NO_PIPELINES."""


CLIENTS: Mapping[str, str] = {
    "memory": "mqtest.clients.memory",
    "confluent": "mqtest.clients.confluent",
    "kafka-wire": "mqtest.clients.kafka_wire",
    "pika": "mqtest.clients.pika",
    "rstream": "mqtest.clients.rstream",
    "rocketmq-wire": "mqtest.clients.rocketmq_wire",
    "rocketmq-client-python": "mqtest.clients.rocketmq_native",
}

NO_PIPELINES = ("kafka-wire", "rocketmq-client-python", "rstream")
"""have no `open_transformer`"""

FENCING = ("confluent",)
"""a transformer that is opened ends what its predecessor of the same number had under way, and may then wait: it keeps
its connections alive by itself. Of the others a job reads its state back before it opens one"""

DIRECT = ("rocketmq-client-python", "rstream")
"""learn the brokers' addresses from the cluster, and go there whatever Wiring.via says"""


def client(name: str) -> Client:
    """The client module of that name; raises UsageError when there is none or its library is missing."""
    if name not in CLIENTS:
        raise UsageError(f"client {name!r} is not known: one of {', '.join(CLIENTS)}")
    try:
        return cast("Client", importlib.import_module(CLIENTS[name]))
    except ImportError as error:
        raise UsageError(f"client {name!r} cannot be imported: {error}") from error


def library_settings(settings: Mapping[str, Value]) -> dict[str, Value]:
    """The settings that the client library is to have."""
    return {key: value for key, value in settings.items() if not key.startswith(OURS)}
