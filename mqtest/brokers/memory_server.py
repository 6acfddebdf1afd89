"""The memory broker: one process, one thread (`python -m mqtest.brokers.memory_server STORE ADDRESS`).

Rules:
- One step of the loop: take what every connection has sent, write it (and fsync it, with `fsync`), then answer. So
  an answer never comes before what it says is true, and one fsync serves all that arrived meanwhile.
- It keeps every promise of a log or a queue, but for what the dials (memory_dials.py) break.
- It ends cleanly, with everything written and synced, on SIGTERM and, so that it never outlives its runner, when
  stdin closes.
"""

from __future__ import annotations

import os
import selectors
import signal
import socket
import sys
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from mqtest import __version__
from mqtest.brokers.memory_dials import SETTINGS, Dials, read_dials, shown
from mqtest.brokers.memory_store import AppendFile
from mqtest.clients import memory_wire as wire
from mqtest.clock import now_ns
from mqtest.model import Delivery, Kind, Outcome

_READ_BYTES = 1 << 20
_DELIVERED_BYTES = 1 << 20
_IDLE_S = 0.02
"""a message that waits for its successor (`reorder_every`) waits no longer than this"""


class Place:
    """One log or queue. A message is named by its position, from 0."""

    def __init__(self, store: Path, topic: str, number: int) -> None:
        self.file = AppendFile(store, f"{'' if topic == wire.TOPIC else f'{topic}-'}place-{number}")
        self.bodies = self.file.recovered
        self.written = len(self.bodies)
        self.ready: deque[tuple[int, bool]] = deque()
        """queue: (position, redelivered) of what can be delivered"""
        self.held: tuple[Session, int, bytes] | None = None
        """a message that waits for its successor"""

    def write(self, keep_back: int) -> None:
        """Hand all but the newest `keep_back` messages to the file."""
        upto = len(self.bodies) - keep_back
        if upto > self.written:
            self.file.append(self.bodies[self.written : upto])
            self.written = upto


@dataclass(slots=True, eq=False)
class Session:
    """One connection."""

    socket: socket.socket
    unpacker: wire.Unpacker[wire.Request] = field(default_factory=lambda: wire.Unpacker(wire.requests))
    out: bytearray = field(default_factory=bytearray)
    settled: list[tuple[int, Outcome, int, int]] = field(default_factory=list)
    """rows of the answer that this step will give"""
    quiet: bool = False
    """the producer wants no answers"""
    group: str = ""
    topic: str = wire.TOPIC
    """subscribed"""
    cursors: dict[int, int] = field(default_factory=dict)
    """subscribed places, each with its next position (log)"""
    wanted: int = 0
    """deliveries that a Fetch waits for"""
    tag: int = 0
    unacked: dict[int, tuple[int, int]] = field(default_factory=dict)
    """queue: delivery tag → (place, position)"""


class Server:
    """The broker of one store."""

    def __init__(self, store: Path, listener: socket.socket, dials: Dials) -> None:
        self._store = store
        self._listener = listener
        self._dials = dials
        self._sessions: list[Session] = []
        self._late: deque[tuple[int, Session, bytes]] = deque()
        """answers that `delay_ms` and `answers_per_s` hold back, with their time"""
        self._answered_ns = 0
        """when the last answer of all is due"""
        self._produced = 0
        self._delivered = 0
        """first deliveries, of queues"""
        self._selector = selectors.DefaultSelector()
        self._meta = AppendFile(store, "meta")
        self._acks = AppendFile(store, "acks")
        self._committed: dict[tuple[str, str, int], int] = {}
        """log: (topic, group, place) → next position"""
        self._topics: dict[str, list[Place]] = {}
        self._kind = Kind.LOG
        self._recover()

    def _recover(self) -> None:
        for record in self._meta.recovered:
            self._kind, places, topic = msgspec.msgpack.decode(record, type=tuple[Kind, int, str])
            self._topics[topic] = [Place(self._store, topic, number) for number in range(places)]
        done: dict[tuple[str, int], set[int]] = {}
        for record in self._acks.recovered:
            topic, group, number, positions = msgspec.msgpack.decode(record, type=tuple[str, str, int, list[int]])
            if self._kind is Kind.QUEUE:
                done.setdefault((topic, number), set()).update(positions)
                continue
            self._committed[topic, group, number] = positions[-1]
        for (topic, group, number), position in self._committed.items():
            end = len(self._topics[topic][number].bodies)
            if position > end:  # the log lost what the group had read
                self._commit(topic, group, number, [end])
        for (topic, number), place in self._all():
            if self._kind is Kind.QUEUE:  # whether they were delivered before nobody knows any more: flagged
                gone = done.get((topic, number), set())
                place.ready.extend((p, True) for p in range(len(place.bodies)) if p not in gone)
        if self._topics:
            print(f"recovered {[len(place.bodies) for _, place in self._all()]} messages", flush=True)

    def _all(self) -> list[tuple[tuple[str, int], Place]]:
        """Every place, with its topic and number."""
        return [((topic, n), place) for topic, places in self._topics.items() for n, place in enumerate(places)]

    def run(self, ends: Iterable[int]) -> None:
        """Serve until one of the file descriptors `ends` can be read."""
        self._listener.setblocking(False)
        self._selector.register(self._listener, selectors.EVENT_READ)
        for end in ends:
            self._selector.register(end, selectors.EVENT_READ)
        stopping = False
        while not stopping:
            events = self._selector.select(self._timeout_s())
            for key, mask in events:
                if key.fileobj is self._listener:
                    self._accept()
                elif key.data is None:
                    stopping = True
                elif mask & selectors.EVENT_READ:
                    self._read(key.data)
            self._end_step(idle=not events)
        self._sync()

    def _timeout_s(self) -> float | None:
        if any(place.held for _, place in self._all()):
            return _IDLE_S
        return max(0.0, (self._late[0][0] - now_ns()) / 1e9) if self._late else None

    def _accept(self) -> None:
        connection, _ = self._listener.accept()
        connection.setblocking(False)
        session = Session(connection)
        self._sessions.append(session)
        self._selector.register(connection, selectors.EVENT_READ, session)

    def _read(self, session: Session) -> None:
        try:
            data = session.socket.recv(_READ_BYTES)
            messages = session.unpacker.feed(data)
        except BlockingIOError:
            return
        except (OSError, msgspec.DecodeError) as error:
            print(f"connection dropped: {error}", flush=True)
            self._drop(session)
            return
        for message in messages:
            self._take(session, message)
        if not data:
            self._drop(session)

    def _drop(self, session: Session) -> None:
        """Forget a connection; what it had not acknowledged is ready again, flagged, in its old order."""
        for number, position in reversed(session.unacked.values()):
            self._topics[session.topic][number].ready.appendleft((position, True))
        self._sessions.remove(session)
        self._selector.unregister(session.socket)
        session.socket.close()

    def _take(self, session: Session, message: wire.Request) -> None:
        match message:
            case wire.Produce(quiet, rows, topic):
                for seq, number, body in rows:
                    self._produce(session, seq, topic, number, body)
                session.quiet = quiet
            case wire.Fetch(most):
                session.wanted = most
            case wire.Ack(last):
                self._ack(session, last)
            case wire.Subscribe(places, group, topic):
                self._answer(session, self._subscribe(session, places, group, topic))
            case wire.Create(kind, count, topic):
                self._create(kind, count, topic)
                self._answer(session, self._described(topic))
            case wire.Sync():
                self._sync()
                self._answer(session, self._described(""))
            case wire.Describe(topic):
                self._answer(session, self._described(topic))

    def _subscribe(self, session: Session, places: list[int], group: str, topic: str) -> wire.Answer:
        there = len(self._topics.get(topic, ()))
        session.group, session.topic = group, topic
        session.cursors = {p: self._committed.get((topic, group, p), 0) for p in places if p < there}
        known = len(session.cursors) == len(places)
        return self._described(topic) if known else wire.Refused(f"no such place among {places}")

    def _create(self, kind: Kind, count: int, topic: str) -> None:
        if topic not in self._topics:
            self._kind = kind
            self._topics[topic] = [Place(self._store, topic, number) for number in range(count)]
            self._meta.append([msgspec.msgpack.encode((kind, count, topic))])
            self._meta.sync()

    def _produce(self, session: Session, seq: int, topic: str, number: int, body: bytes) -> None:
        places = self._topics.get(topic, ())
        if number >= len(places):
            session.settled.append((seq, Outcome.REFUSED, -1, number))
            return
        self._produced += 1
        place = places[number]
        if self._hits("refuse_every"):
            session.settled.append((seq, Outcome.REFUSED, -1, number))
        elif self._hits("drop_acked_every"):
            offset = len(place.bodies) if self._kind is Kind.LOG else -1
            session.settled.append((seq, Outcome.ACKED, offset, number))
        else:
            if self._hits("corrupt_every"):
                body = body[:-1] + bytes([body[-1] ^ 1])
            if self._hits("reorder_every") and place.held is None:
                place.held = (session, seq, body)
                return
            self._store_message(session, seq, place, number, body)
            self._release(place, number)

    def _hits(self, dial: str) -> bool:
        every: int = getattr(self._dials, dial)
        return every > 0 and self._produced % every == 0

    def _release(self, place: Place, number: int) -> None:
        """Store the message that has waited for its successor."""
        if place.held is not None:
            session, seq, body = place.held
            place.held = None
            self._store_message(session, seq, place, number, body)

    def _store_message(self, session: Session, seq: int, place: Place, number: int, body: bytes) -> None:
        position = len(place.bodies)
        for _ in range(2 if self._hits("duplicate_every") else 1):
            if self._kind is Kind.QUEUE:
                place.ready.append((len(place.bodies), False))
            place.bodies.append(body)
        offset = position + self._hits("misreport_every") if self._kind is Kind.LOG else -1
        outcome = Outcome.REFUSED if self._hits("refuse_stored_every") else Outcome.ACKED
        session.settled.append((seq, outcome, offset, number))

    def _ack(self, session: Session, last: Mapping[int, int]) -> None:
        for number, upto in last.items():
            if self._kind is Kind.QUEUE:
                tags = [tag for tag, (place, _) in session.unacked.items() if place == number and tag <= upto]
                positions = [session.unacked.pop(tag)[1] for tag in tags]
                self._topics[session.topic][number].write(0)  # or an acknowledgement could outlive its message
                self._commit(session.topic, session.group, number, positions)
            elif session.group:
                self._commit(session.topic, session.group, number, [upto + 1])

    def _commit(self, topic: str, group: str, number: int, positions: list[int]) -> None:
        """Log: the group's next position. Queue: the positions that are done with."""
        if self._kind is Kind.LOG:
            self._committed[topic, group, number] = positions[-1]
        self._acks.append([msgspec.msgpack.encode((topic, group, number, positions))])

    def _end_step(self, idle: bool) -> None:
        for (_topic, number), place in self._all():
            if idle:
                self._release(place, number)
            place.write(self._dials.lose_last_on_kill)
            if self._dials.fsync:
                place.file.sync()
        if self._dials.fsync:
            self._acks.sync()
        for session in self._sessions:
            if session.settled and not session.quiet:
                self._late.append(
                    (self._due_ns(len(session.settled)), session, wire.pack(wire.Settled(session.settled)))
                )
            session.settled = []
            if session.wanted:
                self._deliver(session)
        while self._late and self._late[0][0] <= now_ns():
            _, session, frame = self._late.popleft()
            session.out += frame
        for session in list(self._sessions):
            self._flush(session)

    def _due_ns(self, answers: int) -> int:
        """When so many more answers to producers may go out."""
        now = now_ns()
        if self._dials.answers_per_s:
            takes_ns = answers * 1_000_000_000 // self._dials.answers_per_s
            self._answered_ns = max(now, self._answered_ns) + takes_ns
        return max(now + self._dials.delay_ms * 1_000_000, self._answered_ns)

    def _deliver(self, session: Session) -> None:
        deliveries: list[Delivery] = []
        size = 0
        for number in session.cursors:
            while len(deliveries) < session.wanted and size < _DELIVERED_BYTES:
                delivery = self._next(session, number)
                if delivery is None:
                    break
                deliveries.append(delivery)
                size += len(delivery.body)
        if deliveries:
            session.wanted = 0
            self._answer(session, wire.Delivered(deliveries))

    def _next(self, session: Session, number: int) -> Delivery | None:
        place = self._topics[session.topic][number]
        if self._kind is Kind.LOG:
            position = max(session.cursors[number], self._start(session.topic, place))
            if position == len(place.bodies):
                return None
            session.cursors[number] = position + 1
            return Delivery(number, position, place.bodies[position], False)
        if not place.ready:
            return None
        position, redelivered = place.ready.popleft()
        session.tag += 1
        session.unacked[session.tag] = (number, position)
        every = self._dials.redeliver_every
        if not redelivered:
            self._delivered += 1
            if every > 0 and self._delivered % every == 0:
                place.ready.appendleft((position, True))
        return Delivery(number, session.tag, place.bodies[position], redelivered)

    def _answer(self, session: Session, answer: wire.Answer) -> None:
        session.out += wire.pack(answer)

    def _flush(self, session: Session) -> None:
        try:
            while session.out:
                del session.out[: session.socket.send(session.out)]
        except BlockingIOError:
            pass
        except OSError:
            self._drop(session)
            return
        wants = selectors.EVENT_READ | (selectors.EVENT_WRITE if session.out else 0)
        if self._selector.get_key(session.socket).events != wants:
            self._selector.modify(session.socket, wants, session)

    def _sync(self) -> None:
        for (_topic, number), place in self._all():
            self._release(place, number)
            place.write(0)
            place.file.sync()
        self._acks.sync()

    def _start(self, topic: str, place: Place) -> int:
        """First position that the log still has; the outputs of jobs keep everything."""
        kept = self._dials.retain_messages
        return max(0, len(place.bodies) - kept) if kept and topic == wire.TOPIC else 0

    def _described(self, topic: str) -> wire.Described:
        reading = [session for session in self._sessions if session.topic == topic]
        unacked = [number for session in reading for number, _ in session.unacked.values()]
        places = []
        for number, place in enumerate(self._topics.get(topic, ())):
            committed = {g: at for (t, g, n), at in self._committed.items() if (t, n) == (topic, number)}
            start, end, ready = self._start(topic, place), len(place.bodies), len(place.ready)
            places.append(wire.PlaceState(start, end, ready, unacked.count(number), committed))
        return wire.Described(__version__, shown(self._dials), places)


def main() -> None:
    """Run the server in this process."""
    store, address = Path(sys.argv[1]), sys.argv[2]
    store.mkdir(parents=True, exist_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(wire.socket_address(address))
    terminated, wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(wake)
    signal.signal(signal.SIGTERM, lambda *_: None)  # the descriptor tells the loop
    dials = read_dials(os.environ.get(SETTINGS, "{}"))
    server = Server(store, listener, dials)
    listener.listen(64)
    print(f"memory broker {__version__} at {address}: {dials}", flush=True)
    server.run([terminated, sys.stdin.fileno()])
    print("stopped", flush=True)


if __name__ == "__main__":
    main()
