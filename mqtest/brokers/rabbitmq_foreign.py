"""RabbitMQ as a cluster of somebody else's, over AMQP; who leads, over the management API where it may. See foreign.py.

Rules:
- Place p is the queue `<name>-<p>`. Over AMQP a queue tells what is ready in it and how many consume it, not what is
  unacknowledged; our consumers are gone before the audit ends, and nobody else may consume it.
- `management_url` among the credentials (`http://HOST:15672`, several with commas between: the first that answers is
  believed) shows who is up and who leads; without it nobody knows.
- Streams are refused: their positions are asked over a port of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, Final, TypeVar
from urllib.parse import quote, unquote, urlsplit

import requests

from mqtest.brokers.foreign import Asked, Held, Members, host_ports, wiring
from mqtest.brokers.rabbitmq import AMQP_PORT, ASK_S, CONNECT_S
from mqtest.clients import ClientError, pika_link
from mqtest.clients.pika_link import Link
from mqtest.errors import ClusterError, SettingError, UsageError
from mqtest.model import Kind, Wiring

PROFILE: Final = "quorum"
_MANAGEMENT: Final = "management_url"
ACCESS: Final = (*pika_link.ACCESS, _MANAGEMENT)

_REPLICAS: Final = {"quorum": "x-quorum-initial-group-size"}
_DECLARE_S: Final = 20.0
_TLS_PORT: Final = 5671
T = TypeVar("T")


def attach(asked: Asked) -> RabbitmqForeign:
    """See ForeignModule. Where: `HOST:PORT[,…]`, or `amqp[s]://HOST[:PORT][/VHOST]`."""
    if asked.profile.kind is Kind.LOG:
        raise UsageError(f"{asked.profile.path}: a stream cannot be attached to; take a profile of a queue")
    return RabbitmqForeign(asked)


class RabbitmqForeign:
    """See Foreign."""

    def __init__(self, asked: Asked) -> None:
        self._asked = asked
        self._addresses, of_url = _where(asked.at)
        self._access = {**of_url, **asked.access}
        self._places = 0

    def found(self) -> Mapping[int, Held] | None:
        """See Foreign: queues `<name>-0`, `<name>-1`, … until one is not there."""
        held: dict[int, Held] = {}
        while True:
            queue = self._queue(len(held))
            try:
                seen = self._ask(partial(Link.declared, queue=queue, timeout_s=ASK_S))
            except ClusterError as error:
                if "NOT_FOUND" not in str(error):
                    raise
                return held or None
            held[len(held)] = Held(seen.message_count, 0, seen.consumer_count)

    def adopt(self, found: Mapping[int, Held]) -> None:
        """See Foreign."""
        self._places = len(found)

    def create(self, places: int, replicas: int | None) -> None:
        """See Foreign."""
        topic = self._asked.profile.settings.get("topic", {})
        kind = str(topic.get("x-queue-type", "classic"))
        size = {_REPLICAS[kind]: replicas} if replicas and kind in _REPLICAS else {}
        if replicas not in (None, 1) and not size:
            raise SettingError(f"replicas = {replicas} did not take: a {kind} queue has one")
        for place in range(places):
            arguments = {"x-queue-type": kind, **size, **topic}
            queue = self._queue(place)
            self._ask(partial(Link.declared, queue=queue, timeout_s=_DECLARE_S, arguments=arguments))
        self._places = places

    def remove(self) -> None:
        """See Foreign."""
        for place in range(self._places):
            self._ask(partial(Link.delete, queue=self._queue(place), timeout_s=_DECLARE_S))

    def members(self) -> Members | None:
        """See Foreign."""
        if _MANAGEMENT not in self._access:
            return None
        try:
            nodes = self._managed("nodes?columns=name,running")
            queue = self._managed(f"queues/{quote(self._vhost, safe='')}/{self._queue(0)}?disable_stats=true")
        except ClusterError:
            return Members((), None)
        alive = tuple(sorted(node["name"] for node in nodes if node["running"]))
        leader = queue.get("leader") or queue.get("node")
        return Members(alive, leader if leader in alive else None)

    def not_whole(self) -> str | None:
        """See Foreign."""
        if _MANAGEMENT not in self._access:
            return None
        for place in range(self._places):
            shown = self._managed(f"queues/{quote(self._vhost, safe='')}/{self._queue(place)}?disable_stats=true")
            absent = set(shown.get("members") or ()) - set(shown.get("online") or ())
            if absent or shown.get("state") != "running":
                return f"{self._queue(place)}: {', '.join(sorted(absent)) or shown.get('state')}"
        return None

    def version(self) -> str | None:
        """See Foreign: from the greeting of AMQP."""
        return self._ask(_greeting)

    def effective(self) -> Mapping[str, str]:
        """See Foreign: a queue's arguments, where the management API shows them."""
        if _MANAGEMENT not in self._access:
            return {}
        shown = self._managed(f"queues/{quote(self._vhost, safe='')}/{self._queue(0)}?disable_stats=true")
        members = {"topic.members": str(len(shown["members"]))} if "members" in shown else {}
        return {f"topic.{key}": str(value).lower() for key, value in shown["arguments"].items()} | members

    def leader(self, place: int) -> str | None:
        """See Reachable; of place 0 whichever is asked for."""
        members = self.members()
        return members.leader if members else None

    def remaining(self, positions: Mapping[int, int]) -> int:
        """See Reachable: what is ready."""
        queues = [self._queue(place) for place in range(self._places)]
        return sum(self._ask(partial(Link.depth, queue=queue, timeout_s=ASK_S)) for queue in queues)

    def counts(self) -> Mapping[str, int]:
        """See Reachable: a client is not told."""
        return {}

    def wiring(self) -> Wiring:
        """See Reachable."""
        access = {key: value for key, value in self._access.items() if key != _MANAGEMENT}
        return replace(wiring(self._asked, self._addresses, self._places, {}), access=access)

    def close(self) -> None:
        """See Reachable: nothing is kept open."""

    @property
    def _vhost(self) -> str:
        return str(self._access.get("vhost", "/"))

    def _queue(self, place: int) -> str:
        return f"{self._asked.topic}-{place}"

    def _ask(self, ask: Callable[[Link], T]) -> T:
        """One question, over a connection of its own, to the first node that answers it. A queue that is not there is
        the same everywhere, so the last word counts."""
        failure = "no address"
        for address in self._addresses:
            try:
                link = Link(address, ASK_S, access=self._access)
                try:
                    return ask(link)
                finally:
                    link.close(0.5)
            except ClientError as error:
                failure = str(error)
                if "NOT_FOUND" in failure:
                    break
        raise ClusterError(failure)

    def _managed(self, path: str) -> Any:
        access = {"username": pika_link.USER, "password": pika_link.PASSWORD, **self._access}
        login = (str(access["username"]), str(access["password"]))
        verify = str(self._access["ca_file"]) if "ca_file" in self._access else True
        why = "no management_url"
        for base in str(self._access[_MANAGEMENT]).split(","):
            url = f"{base.strip().rstrip('/')}/api/{path}"
            try:
                answer = requests.get(url, auth=login, timeout=(CONNECT_S, ASK_S), verify=verify)
                answer.raise_for_status()
                return answer.json()
            except (requests.RequestException, ValueError) as error:
                why = type(error).__name__
        raise ClusterError(f"the management API: {why}")


def _greeting(link: Link) -> str:
    """The version that the broker told when the connection was opened."""
    return str((link.connection.server_properties or {}).get("version", ""))


def _where(at: str) -> tuple[tuple[str, ...], dict[str, Any]]:
    """Addresses, and what else a URL says; raises UsageError."""
    if "://" not in at:
        return host_ports(at), {}
    url = urlsplit(at)
    if url.scheme not in ("amqp", "amqps") or not url.hostname:
        raise UsageError("a URL is amqp://HOST[:PORT][/VHOST], or amqps:// for TLS")
    if url.username or url.password:
        raise UsageError("a URL may not hold a login: give --credentials FILE, or variables of the environment")
    tls = url.scheme == "amqps"
    address = f"{url.hostname}:{url.port or (_TLS_PORT if tls else AMQP_PORT)}"
    vhost = url.path.removeprefix("/")
    return (address,), ({"tls": True} if tls else {}) | ({"vhost": unquote(vhost)} if vhost else {})
