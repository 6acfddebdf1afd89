"""RocketMQ as a cluster of somebody else's, asked over the remoting protocol. See foreign.py.

Rules:
- The name servers say which brokers there are and who is master; each is named by the address that it registered.
- A topic is made on one broker group, the first by name, for places are queues of one group. Slaves copy topics every
  10 s, and a master that ends before has taken the topic along: so it is waited for on every replica.
- With ACL every request is signed, those to the name servers too, which do not ask for it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Final

from mqtest.brokers.foreign import Asked, Held, Members, host_ports, wiring
from mqtest.brokers.foreign import ends as begins_at
from mqtest.brokers.rocketmq import WRITE_S
from mqtest.brokers.rocketmq_settings import TELLING, topic_fields, topic_request
from mqtest.clients import ClientError, rocketmq_link
from mqtest.clients.rocketmq_codec import Code, Frame, Request
from mqtest.clients.rocketmq_link import Link
from mqtest.clock import wait_until
from mqtest.errors import ClusterError, SettingError
from mqtest.model import Wiring

PROFILE: Final = "sync-flush-all-ack"
ACCESS: Final = rocketmq_link.ACCESS

_CALL_S: Final = 2.0
_COPIED_S: Final = 30.0
_MASTER: Final = "0"


def attach(asked: Asked) -> RocketmqForeign:
    """See ForeignModule."""
    return RocketmqForeign(asked)


class RocketmqForeign:
    """See Foreign."""

    def __init__(self, asked: Asked) -> None:
        self._asked = asked
        self._name_servers = host_ports(asked.at)
        self._places = 0
        self._begins: Mapping[int, int] = {}

    def found(self) -> Mapping[int, Held] | None:
        """See Foreign."""
        route = self._route()
        if route is None:
            return None
        if len(route["queueDatas"]) > 1:
            groups = ", ".join(sorted(queue["brokerName"] for queue in route["queueDatas"]))
            raise ClusterError(f"the topic {self._asked.topic} is on several broker groups ({groups}), not on one")
        master, held = self._master(), {}
        for place in range(int(route["queueDatas"][0]["writeQueueNums"])):
            end = self._position(master, Request.GET_MAX_OFFSET, place)
            held[place] = Held(end - self._position(master, Request.GET_MIN_OFFSET, place), end, 0)
        return held

    def adopt(self, found: Mapping[int, Held]) -> None:
        """See Foreign."""
        self._places = len(found)
        self._begins = begins_at(self._asked, found)

    def create(self, places: int, replicas: int | None) -> None:
        """See Foreign. A topic is on every replica of its group, so `replicas` can only confirm their number."""
        groups = self._groups()
        if not groups:
            raise ClusterError(f"rocketmq: {', '.join(self._name_servers)} knows no broker")
        group = groups[min(groups)]
        if replicas not in (None, len(group)):
            raise SettingError(f"replicas = {replicas} did not take: the broker group {min(groups)} has {len(group)}")
        if _MASTER not in group:
            raise ClusterError(f"rocketmq: the broker group {min(groups)} has no master")
        fields = topic_fields(self._asked.profile.settings.get("topic", {}))
        asked = topic_request(self._asked.topic, places, fields)
        self._call(group[_MASTER], Request.UPDATE_AND_CREATE_TOPIC, asked, WRITE_S)
        wait_until(
            lambda: (
                self._route()
                and all(self._call(a, Request.GET_TOPIC_CONFIG, {"topic": self._asked.topic}) for a in group.values())
            ),
            _COPIED_S,
            "the topic to be on every replica",
            poll_s=0.5,
            swallow=(ClusterError,),
        )
        self._places = places

    def remove(self) -> None:
        """See Foreign. Whether it is gone the brokers' topics say, not the answer: 5.5.0 without its timer wheel fails
        on the timer's figures (a null TimerMessageStore) once the topic is deleted."""
        topic, group, said = {"topic": self._asked.topic}, self._group(), ""
        for address in group.values():
            try:
                self._call(address, Request.DELETE_TOPIC_IN_BROKER, topic, WRITE_S)
            except ClusterError as error:
                said = str(error)
        for address in self._name_servers:
            self._call(address, Request.DELETE_TOPIC_IN_NAME_SERVER, topic)
        known = (Code.SUCCESS, Code.TOPIC_NOT_EXIST)
        left = [
            address
            for address in group.values()
            if self._call(address, Request.GET_TOPIC_CONFIG, topic, accept=known).header.code == Code.SUCCESS
        ]
        if left:
            raise ClusterError(
                f"rocketmq: the topic {self._asked.topic} is still on {', '.join(left)}: {said or 'no word'}"
            )

    def members(self) -> Members | None:
        """See Foreign: the replicas of the topic's group."""
        try:
            group = self._group()
        except ClusterError:
            return Members((), None)
        return Members(tuple(sorted(group.values())), group.get(_MASTER))

    def not_whole(self) -> str | None:
        """See Foreign: whether a slave is in sync only a controller knows, and there may be none; so, who is there."""
        try:
            self._master()
        except ClusterError as error:
            return str(error)
        return None

    def version(self) -> str | None:
        """See Foreign."""
        table = json.loads(self._call(self._master(), Request.GET_BROKER_RUNTIME_INFO).body)["table"]
        return str(table["brokerVersionDesc"]).removeprefix("V").replace("_", ".")

    def effective(self) -> Mapping[str, str]:
        """See Foreign: of the master, and how many replicas its group has."""
        text = self._call(self._master(), Request.GET_BROKER_CONFIG).body.decode()
        config = dict(line.split("=", 1) for line in text.split("\n") if "=" in line)
        shown = {f"broker.{key}": config[key].strip() for key in TELLING if key in config}
        return shown | {"topic.replicas": str(len(self._group()))}

    def leader(self, place: int) -> str | None:
        """See Reachable."""
        members = self.members()
        return members.leader if members else None

    def remaining(self, positions: Mapping[int, int]) -> int:
        """See Reachable."""
        master, left = self._master(), 0
        for place in range(self._places):
            read = positions.get(place, self._begins.get(place, 0) - 1) + 1
            left += max(0, self._position(master, Request.GET_MAX_OFFSET, place) - read)
        return left

    def counts(self) -> Mapping[str, int]:
        """See Reachable: a client is not told."""
        return {}

    def wiring(self) -> Wiring:
        """See Reachable."""
        return wiring(self._asked, self._name_servers, self._places, self._begins)

    def close(self) -> None:
        """See Reachable: nothing is kept open."""

    def _groups(self) -> Mapping[str, Mapping[str, str]]:
        """Broker group -> replica number (0: the master) -> address."""
        table = _json(self._name_server(Request.GET_CLUSTER, {}).body)["brokerAddrTable"]
        return {name: group["brokerAddrs"] for name, group in table.items()}

    def _route(self) -> Any:
        """What the name server says of the topic, or None when it does not know it."""
        fields = {"topic": self._asked.topic, "acceptStandardJsonOnly": "true"}
        answer = self._name_server(Request.GET_ROUTE, fields, accept=(Code.SUCCESS, Code.TOPIC_NOT_EXIST))
        return None if answer.header.code == Code.TOPIC_NOT_EXIST else _json(answer.body)

    def _group(self) -> Mapping[str, str]:
        """Replica number -> address, of the topic's group; raises ClusterError while nobody has the topic."""
        route = self._route()
        groups = [group["brokerAddrs"] for group in route["brokerDatas"]] if route else []
        if not groups:
            raise ClusterError(f"rocketmq: no broker has the topic {self._asked.topic}")
        addresses: Mapping[str, str] = groups[0]
        return addresses

    def _master(self) -> str:
        group = self._group()
        if _MASTER not in group:
            raise ClusterError(f"rocketmq: the topic {self._asked.topic} has no master")
        return group[_MASTER]

    def _position(self, address: str, code: int, place: int) -> int:
        fields = {"topic": self._asked.topic, "queueId": str(place)}
        return int((self._call(address, code, fields).header.fields or {})["offset"])

    def _call(
        self,
        address: str,
        code: int,
        fields: Mapping[str, str] | None = None,
        timeout_s: float = _CALL_S,
        accept: tuple[int, ...] = (Code.SUCCESS,),
    ) -> Frame:
        """One bounded request over a connection of its own; raises ClusterError."""
        try:
            link = Link(address, _CALL_S, self._asked.access)
            try:
                return link.call(code, fields, timeout_s=timeout_s, accept=accept)
            finally:
                link.close()
        except ClientError as error:
            raise ClusterError(f"rocketmq: {error}") from error

    def _name_server(self, code: int, fields: Mapping[str, str], accept: tuple[int, ...] = (Code.SUCCESS,)) -> Frame:
        """The first name server's answer."""
        why = ""
        for address in self._name_servers:
            try:
                return self._call(address, code, fields, accept=accept)
            except ClusterError as error:
                why = str(error)
        raise ClusterError(why)


def _json(body: bytes) -> Any:
    """RocketMQ writes numbers as keys without quotes. Raises ClusterError."""
    try:
        return json.loads(re.sub(r"([{,])(\d+):", r'\1"\2":', body.decode()))
    except ValueError as error:
        raise ClusterError(f"rocketmq: a name server's answer does not parse: {error}") from error
