"""RabbitMQ, asked over its management API (and, for positions of streams, the stream protocol).

Rules, each from what version 4.3.6 was seen to do:
- A node that is down still has its classic queues in state "running": a classic queue is there when its node is.
- Totals of a quorum queue are known to the node of its leader only, and as old as its last tick. The depth of a passive
  declare is live, but counts what is ready only. So where nothing is ready, the totals are asked one tick later.
- A node that is cut off goes on naming the old leader, so the leader is what most nodes say.
- RabbitMQ takes any queue argument that it does not know, so those that it does know stand here. A misspelt key of
  rabbitmq.conf stops the boot instead: `boot_error` finds it in the node's log.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Final, TypeVar
from urllib.parse import quote

import requests

from mqtest.brokers import TOPIC, Door
from mqtest.brokers.rabbitmq_stream import stream_stats
from mqtest.clients import ClientError
from mqtest.clients.pika_link import PASSWORD, USER, Link
from mqtest.clock import now_ns, wait_until
from mqtest.errors import ClusterError, SettingError, UsageError
from mqtest.model import Kind, Node, Profile, Value, Wiring

T = TypeVar("T")

NO_TARGETS: Final = ("controller",)
BRING_UP_S = 9.0
"""from nothing to the first acknowledgement, seen on two cores; for the plan's guess"""

AMQP_PORT: Final = 5672
DOOR: Final = Door(AMQP_PORT, b"AMQP\0\0\x09\x01")
MANAGEMENT_PORT: Final = 15672
STREAM_PORT: Final = 5552
GROUP: Final = "mqtest"
ASK_S: Final = 2.0
"""bound of one question to one node; answers take milliseconds, a paused node gives none"""
CONNECT_S: Final = 1.0
"""a node that is gone answers no ARP, which takes 3 s to be told"""
TICK_MS: Final = 500
"""how often the leader of a quorum queue renews its totals; 5,000 by default"""

ARGUMENTS: Final = (
    *("x-queue-type", "x-queue-leader-locator", "x-expires", "x-message-ttl", "x-consumer-timeout"),
    *("x-max-length", "x-max-length-bytes", "x-overflow", "x-max-priority", "x-single-active-consumer"),
    *("x-dead-letter-exchange", "x-dead-letter-routing-key", "x-dead-letter-strategy", "x-delivery-limit"),
    *("x-quorum-initial-group-size", "x-quorum-target-group-size", "x-initial-cluster-size"),
    *("x-max-age", "x-stream-max-segment-size-bytes", "x-stream-filter-size-bytes"),
)
_SIZE_ARGUMENT: Final = {"quorum": "x-quorum-initial-group-size", "stream": "x-initial-cluster-size"}

ADVANCED: Final = frozenset({"ra.wal_sync_method"})
"""Keys of advanced.config that are known to do something; RabbitMQ takes any and says nothing."""

_ENVIRONMENT: Final = (
    # prefix of a key in rabbitmq.conf -> prefix of where it shows, as application.key
    ("raft.adaptive_failure_detector.", "aten."),
    ("raft.", "ra."),
    ("quorum_queue.", "rabbit.quorum_"),
    ("classic_queue.", "rabbit.classic_queue_"),
    ("stream.", "rabbit.stream_"),
    ("net_ticktime", "kernel.net_ticktime"),
    ("", "rabbit."),
)


def environment(profile: Profile, nodes: int) -> Mapping[str, str]:
    """Variables for compose.yaml. Raises UsageError for a queue argument or advanced key that RabbitMQ would take and
    ignore; a key of the `broker` table that it does not know stops the boot (see boot_error)."""
    if profile.client == "rstream" and not (profile.kind is Kind.LOG and profile.acknowledged):
        raise UsageError(f"{profile.path}: the client rstream is for streams only, and always has acknowledgements")
    for argument in (one for one in profile.settings.get("topic", {}) if one not in ARGUMENTS):
        raise UsageError(f"{profile.path}: topic.{argument}: RabbitMQ has no such queue argument")
    advanced, allowed = profile.settings.get("advanced", {}), ", ".join(ADVANCED)
    for key in advanced:
        if key not in ADVANCED:
            raise UsageError(f"{profile.path}: advanced.{key}: not known to do anything; allowed: {allowed}")
    lines = (f"{key} = {_conf(value)}" for key, value in profile.settings.get("broker", {}).items())
    return {
        "MQTEST_NODES": str(nodes),
        "MQTEST_SETTINGS": "\n".join(lines),
        "MQTEST_ADVANCED": _advanced({"rabbit.quorum_tick_interval": TICK_MS, **advanced}),
    }


_STAMP = re.compile(r"^\d{4}-\d\d-\d\d \S+ \[\w+\] <[\d.]+>", re.M)
"""before a line of the log"""


def boot_error(log: str) -> str | None:
    """The setting that kept a node from starting, from its log, or else what it says of its failed boot; None when the
    log names none."""
    found = re.search(
        r"(?:unknown variable: |Error transforming datatype for: |Translation for ')(\S+?)'?\s*$", log, re.M
    )
    if found is None:
        failed = re.search(r"Exception during startup:\s+(\S.*)\s+(\S+), line", _STAMP.sub("", log))
        return f"BOOT FAILED: {failed[1]} in {failed[2]}" if failed else None
    detail = log[found.start() : found.end() + 300].splitlines()[:2]
    reasons = [re.sub(r"^.*?<[\d.]+>\s*", "", line).strip(" -") for line in detail]
    return f"broker.{found.group(1)}: RabbitMQ does not start with it ({'; '.join(r for r in reasons if r)})"


def connect(profile: Profile, nodes: Sequence[Node], places: int, topic: str = TOPIC) -> RabbitmqBroker:
    """A driver for the cluster made of these nodes, and this topic."""
    return RabbitmqBroker(profile, nodes, places, topic)


class RabbitmqBroker:
    """See mqtest.brokers.Broker."""

    def __init__(self, profile: Profile, nodes: Sequence[Node], places: int, topic: str) -> None:
        self._profile = profile
        self._nodes = [node for node in nodes if node.role == "broker"]
        self._topic = topic
        self._queues = [f"{topic}-{place}" for place in range(places)]
        self._type = str(profile.settings.get("topic", {}).get("x-queue-type", "classic"))
        self._http = requests.Session()
        self._http.auth = (USER, PASSWORD)

    def await_nodes(self, timeout_s: float) -> None:
        """See Broker: each node serves clients and sees all of them running."""
        wait_until(self._all_running, timeout_s, f"{len(self._nodes)} RabbitMQ nodes that see each other running")

    def create_places(self) -> None:
        """See Broker. Place p is declared through node p, which then hosts or leads it at first."""
        size = {_SIZE_ARGUMENT[self._type]: len(self._nodes)} if self._type in _SIZE_ARGUMENT else {}
        arguments = {"x-queue-type": self._type, **size, **self._profile.settings.get("topic", {})}
        for place, queue in enumerate(self._queues):
            node = self._nodes[place % len(self._nodes)]
            self._ask(node, f"queues/%2F/{queue}", put={"durable": True, "arguments": arguments}, timeout_s=10 * ASK_S)

    def remove_places(self) -> None:
        """See Broker."""
        for queue in self._queues:
            self._over_amqp(self._nodes[0], partial(Link.delete, queue=queue, timeout_s=10 * ASK_S))

    def settle(self) -> None:
        """It is."""

    def await_ready(self, timeout_s: float) -> None:
        """See Broker: every queue runs; every member of it is there and has what was committed when first asked."""
        goals: dict[tuple[int, str], int] = {}
        wait_until(
            lambda: self._all_running() and all(self._ready(place, goals) for place in range(len(self._queues))),
            timeout_s,
            f"all members of the {self._type} queues to be there and in sync",
            swallow=(ClusterError,),
        )

    def version(self) -> str:
        """See Broker."""
        return str(self._first("overview?columns=rabbitmq_version")["rabbitmq_version"])

    def effective(self) -> Mapping[str, str]:
        """See Broker: every node's application environment, and every queue's arguments."""
        found: dict[str, str] = {}
        asked = self._profile.settings
        for node in self._nodes:
            shown = self._text(node, "config/effective")
            for key, value in asked.get("broker", {}).items():
                found[f"broker.{key}"] = _took(node.name, f"broker.{key}", value, _env(shown, _where(key)))
            for key, value in asked.get("advanced", {}).items():
                found[f"advanced.{key}"] = _took(node.name, f"advanced.{key}", value, _env(shown, key))
        for queue in self._queues:
            shown_queue = self._first(f"queues/%2F/{queue}?disable_stats=true")
            arguments = shown_queue["arguments"]
            found |= {f"topic.{key}": _conf(value) for key, value in arguments.items()}
            found |= {"topic.durable": _conf(shown_queue["durable"])}
            for key, value in asked.get("topic", {}).items():
                _took(queue, f"topic.{key}", value, None if key not in arguments else _conf(arguments[key]))
        return found

    def leader(self, place: int) -> str | None:
        """See Broker: what most of the nodes that answer say."""
        votes = Counter(self._votes(self._queues[place]))
        return votes.most_common(1)[0][0] if votes else None

    def controller(self) -> str | None:
        """See Broker: the leader of the metadata store is told by no API, only by a command on a node."""
        return None

    def committed(self) -> Mapping[int, tuple[int, int]]:
        """See Broker: consumers of a stream keep their positions themselves."""
        return {}

    def counts(self) -> Mapping[str, int]:
        """See Broker. `published` and `delivered` come out of the statistics, which are up to 5 s old."""
        found: Counter[str] = Counter()
        for place, queue in enumerate(self._queues if self._type != "stream" else ()):
            node = self._leading(place)
            totals = self._ask(node, f"queues/%2F/{queue}?disable_stats=true&enable_queue_totals=true")
            found.update(ready=int(totals["messages_ready"]), unacked=int(totals["messages_unacknowledged"]))
            stats = self._ask(node, f"queues/%2F/{queue}").get("message_stats", {})
            found.update(published=int(stats.get("publish", 0)), delivered=int(stats.get("deliver_get", 0)))
        return dict(found)

    def remaining(self, positions: Mapping[int, int]) -> int:
        """See Broker."""
        return sum(self._left(place, positions.get(place, -1)) for place in range(len(self._queues)))

    def wiring(self) -> Wiring:
        """See Broker. The node that leads place 0 is the first address."""
        leader = self.leader(0)
        nodes = sorted(self._nodes, key=lambda node: node.name != leader)
        return Wiring(
            broker=self._profile.broker,
            client=self._profile.client,
            kind=self._profile.kind,
            acknowledged=self._profile.acknowledged,
            addresses=tuple(node.via or f"{node.address}:{AMQP_PORT}" for node in nodes),
            topic=self._topic,
            places=len(self._queues),
            group=GROUP,
            producer=self._profile.settings.get("producer", {}),
            consumer=self._profile.settings.get("consumer", {}),
            topic_settings=self._profile.settings.get("topic", {}),
        )

    def close(self) -> None:
        """See Broker."""
        self._http.close()

    # --- readiness ---

    def _all_running(self) -> bool:
        try:
            for node in self._nodes:
                seen = self._ask(node, "nodes?columns=name,running")
                if sum(bool(other["running"]) for other in seen) != len(self._nodes):
                    return False
                self._ask(node, "health/checks/ready-to-serve-clients")
        except ClusterError:
            return False
        return True

    def _ready(self, place: int, goals: dict[tuple[int, str], int]) -> bool:
        """Whether a place has all its members, none of them behind `goals`: what the leader had committed when it was
        first asked (load goes on meanwhile, so nobody is ever level with it)."""
        leader = self.leader(place)
        if leader is None:
            return False
        queue = self._queues[place]
        if self._type == "classic":
            self._ask(self._node(leader), f"queues/%2F/{queue}?disable_stats=true&enable_queue_totals=true")
            return True
        reached = self._reached_raft(queue) if self._type == "quorum" else self._reached_stream(queue)
        if leader not in reached:
            return False
        goal = goals.setdefault((place, leader), reached[leader])
        return len(reached) == len(self._nodes) and min(reached.values()) >= goal

    def _reached_raft(self, queue: str) -> Mapping[str, int]:
        """Node -> last index written, of the members that lead or follow."""
        members = self._first(f"queues/quorum/%2F/{queue}/status")
        states = Counter(member["Raft State"] for member in members)
        if states["leader"] != 1:
            return {}
        return {
            _host(member["Node Name"]): int(member["Last Written"])
            for member in members
            if member["Raft State"] in ("leader", "follower")
        }

    def _reached_stream(self, queue: str) -> Mapping[str, int]:
        """Node -> last offset that it knows to be committed, of the nodes that serve consumers. A node that has just
        started answers StreamStats, and stands in the list of those online, before its replica runs."""
        return {
            node.name: self._stats(node, queue)["committed_offset"]
            for node in self._nodes
            if self._over_amqp(node, lambda link: link.serves_stream(queue, ASK_S))
        }

    def _leading(self, place: int) -> Node:
        """The node that leads the place; raises ClusterError."""
        leader = self.leader(place)
        if leader is None:
            raise ClusterError(f"{self._queues[place]}: no leader, so nobody knows what is left")
        return self._node(leader)

    def _left(self, place: int, position: int) -> int:
        node, queue = self._leading(place), self._queues[place]
        if self._type == "stream":
            return max(0, self._stats(node, queue)["committed_offset"] - position)
        ready = self._over_amqp(node, lambda link: link.depth(queue, ASK_S))
        if ready == 0 and self._type == "quorum":
            due_ns = now_ns() + int(1.2e6 * TICK_MS)
            wait_until(lambda: now_ns() >= due_ns, ASK_S, "the next tick of the queue")
        totals = self._ask(node, f"queues/%2F/{queue}?disable_stats=true&enable_queue_totals=true")
        return max(int(totals["messages"]), ready)

    def _over_amqp(self, node: Node, ask: Callable[[Link], T]) -> T:
        """One question over a connection of its own."""
        try:
            link = Link(f"{node.address}:{AMQP_PORT}", ASK_S)
            try:
                return ask(link)
            finally:
                link.close(0.5)
        except ClientError as error:
            raise ClusterError(str(error)) from None

    def _stats(self, node: Node, queue: str) -> Mapping[str, int]:
        return stream_stats(node.address, STREAM_PORT, USER, PASSWORD, queue, ASK_S)

    def _votes(self, queue: str) -> Iterator[str]:
        """What each node says who leads the queue, where it also sees that node and the queue running."""
        for node in self._nodes:
            try:
                shown = self._ask(node, f"queues/%2F/{queue}?disable_stats=true")
                seen = self._ask(node, "nodes?columns=name,running")
            except ClusterError:
                continue
            leads = shown.get("leader") or shown.get("node")
            if shown.get("state") == "running" and leads in {other["name"] for other in seen if other["running"]}:
                yield _host(leads)

    def _node(self, name: str) -> Node:
        return next(node for node in self._nodes if node.name == name)

    # --- the management API ---

    def _first(self, path: str) -> Any:
        """The first answer that any node gives."""
        failures = []
        for node in self._nodes:
            try:
                return self._ask(node, path)
            except ClusterError as error:
                failures.append(str(error))
        raise ClusterError("; ".join(failures))

    def _ask(self, node: Node, path: str, *, put: Any = None, timeout_s: float = ASK_S) -> Any:
        """One question to one node; `put` is the JSON of a PUT. Raises ClusterError."""
        answer = self._request(node, path, put, timeout_s)
        try:
            return answer.json() if answer.content else None
        except ValueError:
            raise ClusterError(f"{node.name}: {path}: the answer is no JSON: {answer.text[:100]!r}") from None

    def _text(self, node: Node, path: str) -> str:
        return self._request(node, path, None, ASK_S).text

    def _request(self, node: Node, path: str, put: Any, timeout_s: float) -> requests.Response:
        url = f"http://{node.address}:{MANAGEMENT_PORT}/api/{quote(path, safe='/?&=%,')}"
        try:
            answer = self._http.request("GET" if put is None else "PUT", url, json=put, timeout=(CONNECT_S, timeout_s))
        except requests.RequestException as error:
            raise ClusterError(f"{node.name}: {path}: {type(error).__name__}") from None
        if not answer.ok:
            raise ClusterError(f"{node.name}: {path}: {answer.status_code} {answer.text[:200]}")
        return answer


# --- settings as RabbitMQ writes them ---


def _conf(value: Value) -> str:
    """As rabbitmq.conf writes it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _advanced(settings: Mapping[str, Value]) -> str:
    """advanced.config: {"ra.wal_sync_method": "none"} -> [{ra,[{wal_sync_method,none}]}]."""
    applications: dict[str, list[str]] = {}
    for path, value in settings.items():
        application, _, key = path.partition(".")
        applications.setdefault(application, []).append(f"{{{key},{_conf(value)}}}")
    terms = (f"{{{application},[{','.join(pairs)}]}}" for application, pairs in applications.items())
    return f"[{','.join(terms)}]."


def _where(key: str) -> str:
    """application.key under which a key of rabbitmq.conf shows in the effective configuration."""
    prefix, shown = next((p, s) for p, s in _ENVIRONMENT if key.startswith(p))
    return shown + re.sub(r"\.(absolute|relative)$", "", key[len(prefix) :])


def _env(effective: str, path: str) -> str | None:
    """One value out of the effective configuration (an Erlang term, one application a block), None if not there."""
    application, _, key = path.partition(".")
    block = re.search(rf"^[\[ ]\{{{re.escape(application)},(.*?)(?=^ \{{|\Z)", effective, re.M | re.S)
    found = block and re.search(rf"\{{{re.escape(key)},\s*(\"[^\"]*\"|[^{{}}\[\],\s]+)\}}", block.group(1))
    return found.group(1).strip('"') if found else None


def _took(where: str, key: str, asked: Value, shown: str | None) -> str:
    if shown != _conf(asked):
        raise SettingError(f"{where}: {key}: asked for {_conf(asked)}, RabbitMQ says {shown or 'nothing of it'}")
    return shown


def _host(erlang_node: str) -> str:
    return erlang_node.partition("@")[2]
