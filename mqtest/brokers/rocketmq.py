"""RocketMQ: one broker group, in controller mode or static (rocketmq_static.py), asked over its remoting protocol.

The controller (in the name server) says who is master and which replicas are in sync (its SyncStateSet); each
broker says what it was configured with and which topics it knows. Rules:
- Ready = the SyncStateSet holds every replica, every replica knows the topic, and the name server routes to the
  controller's master. Slaves copy topics only every 10 s, so the topic is made at each broker.
"""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Final

from mqtest.brokers import TOPIC, Door, rocketmq_static
from mqtest.brokers.rocketmq_settings import (
    PLAIN_TOPIC,
    TELLING,
    check_client,
    check_taken,
    plain,
    spelt,
    topic_fields,
    topic_request,
)
from mqtest.clients import ClientError
from mqtest.clients.rocketmq_codec import Code, Frame, Request, request, send_fields
from mqtest.clients.rocketmq_link import AnswerError, Link
from mqtest.clock import wait_until
from mqtest.errors import ClusterError, SettingError, UsageError, WaitTimeout
from mqtest.model import Node, Profile, Value, Wiring

NO_TARGETS: Final = ()
NO_FAULTS: Final = ("clock-jump",)
"""under libfaketime a broker took 100 s to start instead of 5, and its controller answered too late for it to join"""
BRING_UP_S = 25.0
"""from nothing to the first acknowledgement, seen on two cores; for the plan's guess"""

CONSUMER_GROUP: Final = "mqtest-consumers"
GROUP: Final = "mqtest-group"
"""brokerName in compose.yaml; it may not be the topic's name, which a broker keeps for itself"""
CLUSTER: Final = "mqtest-cluster"
"""brokerClusterName in compose.yaml"""
NAME_SERVER_PORT: Final = 9876
CONTROLLER_PORT: Final = 9878
BROKER_PORT: Final = 10911
DOOR: Final = Door(BROKER_PORT, request(Request.GET_MAX_OFFSET, 1, {"topic": TOPIC, "queueId": "0"}))
"""a node that is not the master refuses it, and that is an answer too"""
HA_PORT: Final = 10912

_CALL_S: Final = 2.0
WRITE_S: Final = 20.0
"""bound of a call that makes a young broker create files: seen to take over 2 s on a busy machine"""
_READY_S: Final = 60.0
_FORM_S: Final = 25.0
"""at most, for a new group to be in sync"""
_JOIN_S: Final = 8.0
"""seen to take up to 6 s after an election, or to come to nothing; another election then costs less than waiting"""
_ELECTIONS: Final = 8
_EPOCH_TOPIC: Final = "mqtest-first-epoch"


def environment(profile: Profile, nodes: int) -> Mapping[str, str]:
    """MQTEST_SETTINGS: the profile's broker settings, one `key=value` a line; raises UsageError when they cannot
    hold with so few nodes."""
    settings = profile.settings.get("broker", {})
    for key in ("inSyncReplicas", "minInSyncReplicas"):
        if int(settings.get(key, 1)) > nodes:
            raise UsageError(f"profile {profile.path}: broker.{key} = {settings[key]} needs more than {nodes} node(s)")
    return {"MQTEST_SETTINGS": "".join(f"{key}={spelt(value)}\n" for key, value in settings.items())}


class RocketMQ:
    """See mqtest.brokers.Broker."""

    def __init__(self, profile: Profile, nodes: Sequence[Node], places: int, topic: str) -> None:
        self._profile = profile
        self._topic = topic
        self._places = places
        self._coordinators = [node for node in nodes if node.role == "coordinator"]
        self._brokers = {f"{node.address}:{BROKER_PORT}": node for node in nodes if node.role == "broker"}
        self._static = rocketmq_static.asked(profile)
        self._links: dict[str, Link] = {}
        self._spellings = itertools.cycle((f"{HA_PORT}", f"0{HA_PORT}"))

    def _call(
        self,
        address: str,
        code: int,
        fields: Mapping[str, str] | None = None,
        body: bytes = b"",
        timeout_s: float = _CALL_S,
        accept: Sequence[int] = (Code.SUCCESS,),
    ) -> Frame:
        """One bounded request; raises ClusterError, and without an answer the connection is not used again."""
        try:
            link = self._links.get(address)
            if link is None or link.lost:
                link = self._links[address] = Link(address, _CALL_S)
            return link.call(code, fields, body, timeout_s=timeout_s, accept=accept)
        except AnswerError as error:
            raise ClusterError(f"rocketmq: {error}") from error
        except ClientError as error:
            stale = self._links.pop(address, None)
            if stale is not None:
                stale.close()
            raise ClusterError(f"rocketmq: {error}") from error

    def _await(self, what: str, missing: Callable[[], str | None], timeout_s: float) -> None:
        seen: list[str | None] = ["nothing answered"]

        def complete() -> bool:
            seen[0] = missing()
            return seen[0] is None

        try:
            wait_until(complete, timeout_s, what, poll_s=0.1, swallow=(ClusterError,))
        except WaitTimeout as error:
            raise ClusterError(f"rocketmq: {error}; still missing: {seen[0]}") from error

    def _leading_controller(self) -> str | None:
        """host:port of the controller that leads, by the first that answers; None: it knows none. Raises
        ClusterError when none answers."""
        why = "no controller among the nodes"
        for node in self._coordinators:
            try:
                told = self._call(f"{node.address}:{CONTROLLER_PORT}", Request.CONTROLLER_GET_METADATA).header.fields
                return (told or {}).get("controllerLeaderAddress") or None
            except ClusterError as error:
                why = str(error)
        raise ClusterError(why)

    def _ask_controller(self, code: int, fields: Mapping[str, str] | None = None, body: bytes = b"") -> Frame:
        """One request to the leading controller; raises ClusterError."""
        leader = self._leading_controller()
        if leader is None:
            raise ClusterError("rocketmq: the controllers have no leader yet")
        return self._call(leader, code, fields, body)

    def _replicas(self) -> Mapping[str, Any]:
        """The controller's view of the group, or in a static group the master's, in the same words: masterAddress,
        inSyncReplicas, notInSyncReplicas. Raises ClusterError."""
        if self._static:
            return rocketmq_static.replicas(tuple(self._brokers), self._call)
        answer = self._ask_controller(Request.CONTROLLER_GET_SYNC_STATE, body=json.dumps([GROUP]).encode())
        try:
            return dict(json.loads(answer.body)["replicasInfoTable"].get(GROUP, {}))
        except (ValueError, KeyError) as error:
            raise ClusterError(f"rocketmq: the controller's answer does not parse: {error}") from error

    def _master(self) -> str:
        """host:port of the master; raises ClusterError."""
        address = self._replicas().get("masterAddress")
        if not address:
            raise ClusterError("rocketmq: the group has no master")
        return str(address)

    def await_nodes(self, timeout_s: float) -> None:
        def missing() -> str | None:
            replicas = self._replicas()
            known = [*replicas.get("inSyncReplicas", ()), *replicas.get("notInSyncReplicas", ())]
            alive = {r["brokerAddress"] for r in known if r["alive"]}
            absent = [node.name for address, node in self._brokers.items() if address not in alive]
            if absent:
                return f"{', '.join(absent)} not alive at the controller"
            return None if replicas.get("masterAddress") else "a master"

        self._await("every broker to join the controller", missing, timeout_s)

    def create_places(self) -> None:
        self._create_topic(self._topic, self._places, topic_fields(self._profile.settings.get("topic", {})))

    def remove_places(self) -> None:
        """Nothing: all topics are in one log, which a topic's end does not shorten."""

    def settle(self) -> None:
        if len(self._brokers) > 1 and not self._static:
            self._leave_first_epoch()

    def _create_topic(self, name: str, queues: int, fields: Mapping[str, str]) -> None:
        """Make a topic at each broker: slaves would copy it only within 10 to 13 s."""
        asked = topic_request(name, queues, fields)
        for address, node in self._brokers.items():
            wait_until(  # a broker can be known to the controller before it listens
                partial(self._call, address, Request.UPDATE_AND_CREATE_TOPIC, asked, timeout_s=WRITE_S),
                _READY_S,
                f"{node.name} to take the topic {name}",
                swallow=(ClusterError,),
            )

    def _leave_first_epoch(self) -> None:
        """Store a message, in a topic of its own, and have another broker elected; until all are in sync again.

        A group that restarts as a whole may find its old master first: it then leads again in the same epoch, and
        replaces that epoch's start in its epoch file by its current end (AutoSwitchHAService.changeToMaster). Slaves
        look for a common epoch with the same start; in the first epoch of a group there is none, and they never join
        again ("Failed to find a consistent point"). A group with one election behind it is safe. Seen on 5.5.0, as
        was this: now and then the third broker asks the name server for the master too early, goes on replicating
        from the old one, which lives, and never joins; another election ends that.
        """
        self._create_topic(_EPOCH_TOPIC, 1, PLAIN_TOPIC)
        why = self._formed(_FORM_S)  # whom the first master does not get, the next one may
        for _ in range(_ELECTIONS):
            try:
                self._elect_another()
            except ClusterError as error:
                self._formed(_JOIN_S)
                why = str(error)
                continue
            why = self._formed(_JOIN_S)
            if why is None:
                return
        raise ClusterError(f"rocketmq: not all brokers were in sync after any of {_ELECTIONS} elections: {why}")

    def _formed(self, timeout_s: float) -> str | None:
        """Wait for all to be in sync; why they are not, or None."""
        try:
            self._await("all replicas in sync, with the topic", self._unready_yet, timeout_s)
        except ClusterError as error:
            return str(error)
        return None

    def _unready_yet(self) -> str | None:
        """What is missing while the group forms. Slaves that are not in sync are told where the master replicates
        from, as brokers tell each other; by themselves they ask the name server, every 10 s. Not before the master
        has registered there: until then it may drop those that connect. One that was dropped waits for 5 s, or until
        it is told another address (AutoSwitchHAClient.updateHaMasterAddress): so the port has two spellings."""
        missing = self._unready()
        if missing:
            replicas = self._replicas()
            master = str(replicas.get("masterAddress"))
            told = {"masterAddress": master, "masterHaAddress": f"{master.rpartition(':')[0]}:{next(self._spellings)}"}
            if all(self._routed(c) == master for c in self._coordinators):
                for slave in replicas.get("notInSyncReplicas", ()):
                    with suppress(ClusterError):  # it is told again
                        self._call(slave["brokerAddress"], Request.EXCHANGE_BROKER_HA_INFO, told)
        return missing

    def _elect_another(self) -> None:
        """A new epoch, with a message in the one before, or the new one would not be written down."""
        old = self._replicas()
        now_ms = str(time.time_ns() // 1_000_000)
        letters = {**send_fields(_EPOCH_TOPIC, GROUP), "e": "0", "g": now_ms}
        queue = {"topic": _EPOCH_TOPIC, "queueId": "0"}
        stored = self._position(self._master(), Request.GET_MAX_OFFSET, queue) + 1
        # A slave that is late has it in a moment; the master's own wait for it is over before.
        stored_at_least = (Code.SUCCESS, Code.FLUSH_SLAVE_TIMEOUT)
        self._call(self._master(), Request.SEND_MESSAGE_V2, letters, b"an epoch ends here", WRITE_S, stored_at_least)
        in_sync = [replica["brokerAddress"] for replica in old["inSyncReplicas"]]
        wait_until(
            lambda: all(self._position(address, Request.GET_MAX_OFFSET, queue) >= stored for address in in_sync),
            _READY_S,
            "the message to be on every replica in sync",
            swallow=(ClusterError,),
        )
        other = next((r for r in old["inSyncReplicas"] if r["brokerAddress"] != old["masterAddress"]), None)
        if other is None:
            raise ClusterError("rocketmq: nobody but the master is in sync")
        # What the name servers still say of the old master, slaves would believe, and replicate from it for good.
        group = {"clusterName": CLUSTER, "brokerName": GROUP}
        for name_server in self._coordinators:
            forgotten = {**group, "brokerAddr": old["masterAddress"], "brokerId": "0"}
            self._call(f"{name_server.address}:{NAME_SERVER_PORT}", Request.UNREGISTER_BROKER, forgotten)
        asked = {**group, "brokerId": str(other["brokerId"]), "designateElect": "true", "invokeTime": now_ms}
        self._ask_controller(Request.CONTROLLER_ELECT_MASTER, asked)
        wait_until(
            lambda: self._replicas().get("masterAddress") == other["brokerAddress"],
            _READY_S,
            f"{other['brokerAddress']} to be master",
            swallow=(ClusterError,),
        )

    def _not_in_sync(self) -> str | None:
        replicas = self._replicas()
        if not replicas.get("masterAddress"):
            return "a master"
        in_sync = {r["brokerAddress"] for r in replicas.get("inSyncReplicas", ()) if r["alive"]}
        behind = [node.name for address, node in self._brokers.items() if address not in in_sync]
        return f"{', '.join(behind)} in the SyncStateSet" if behind else None

    def await_ready(self, timeout_s: float) -> None:
        self._await("all replicas in sync, with the topic", self._unready, timeout_s)

    def _unready(self) -> str | None:
        missing = self._not_in_sync()
        if missing:
            return missing
        master = self._master()
        for address, node in self._brokers.items():
            try:
                self._topic_config(address)
            except ClusterError as error:
                return f"the topic on {node.name} ({error})"
        for coordinator in self._coordinators:
            routed = self._routed(coordinator)
            if routed != master:
                return f"the route to {master} at {coordinator.name}, which says {routed}"
        return None

    def _topic_config(self, address: str) -> dict[str, Any]:
        return dict(json.loads(self._call(address, Request.GET_TOPIC_CONFIG, {"topic": self._topic}).body))

    def _routed(self, coordinator: Node) -> str | None:
        """The topic's master, by a name server."""
        address = f"{coordinator.address}:{NAME_SERVER_PORT}"
        answer = self._call(address, Request.GET_ROUTE, {"topic": self._topic, "acceptStandardJsonOnly": "true"})
        for group in json.loads(answer.body)["brokerDatas"]:
            if "0" in group["brokerAddrs"]:
                return str(group["brokerAddrs"]["0"])
        return None

    def version(self) -> str:
        info = json.loads(self._call(self._master(), Request.GET_BROKER_RUNTIME_INFO).body)
        return str(info["table"]["brokerVersionDesc"]).removeprefix("V").replace("_", ".")

    def effective(self) -> Mapping[str, str]:
        check_client(self._profile)
        asked = self._profile.settings.get("broker", {})
        seen: dict[str, str] = {}
        for address, node in self._brokers.items():
            text = self._call(address, Request.GET_BROKER_CONFIG).body.decode()
            config = dict(line.split("=", 1) for line in text.split("\n") if "=" in line)
            check_taken(node.name, asked, config)
            seen |= {f"broker.{key}": config[key].strip() for key in (*TELLING, *asked) if key in config}
        topic = self._topic_config(self._master())
        attributes = topic.pop("attributes", None) or {}
        wanted: dict[str, Value] = {"readQueueNums": self._places, "writeQueueNums": self._places}
        wanted |= self._profile.settings.get("topic", {})
        for key, value in wanted.items():
            has = topic.get(key, attributes.get(key))
            if has is None or plain(has) != plain(value):
                raise SettingError(f"rocketmq: topic.{key} did not take: asked {plain(value)}, the broker has {has}")
        return seen | {f"topic.{key}": plain(value) for key, value in (topic | attributes).items()}

    def leader(self, place: int) -> str | None:
        # one group has all queues, so all places have one leader
        node = self._brokers.get(str(self._replicas().get("masterAddress")))
        return node.name if node else None

    def controller(self) -> str | None:
        if self._static:
            return None
        address = self._leading_controller()
        return next((n.name for n in self._coordinators if f"{n.address}:{CONTROLLER_PORT}" == address), None)

    def committed(self) -> Mapping[int, tuple[int, int]]:
        master, told = self._master(), {}
        for place in range(self._places):
            queue = {"topic": self._topic, "queueId": str(place)}
            asked = {"consumerGroup": CONSUMER_GROUP, **queue}
            with suppress(ClusterError):  # a group that has committed nothing is an error answer
                offset = self._position(master, Request.QUERY_CONSUMER_OFFSET, asked)
                told[place] = (offset, self._position(master, Request.GET_MAX_OFFSET, queue))
        return told

    def counts(self) -> Mapping[str, int]:
        return {}  # a log

    def remaining(self, positions: Mapping[int, int]) -> int:
        master, left = self._master(), 0
        for place in range(self._places):
            queue = {"topic": self._topic, "queueId": str(place)}
            end = self._position(master, Request.GET_MAX_OFFSET, queue)
            read = positions[place] + 1 if place in positions else 0
            left += max(0, end - max(read, self._position(master, Request.GET_MIN_OFFSET, queue)))
        return left

    def _position(self, address: str, code: int, queue: Mapping[str, str]) -> int:
        return int((self._call(address, code, queue).header.fields or {})["offset"])

    def wiring(self) -> Wiring:
        profile = self._profile
        return Wiring(
            broker="rocketmq",
            client=profile.client,
            kind=profile.kind,
            acknowledged=profile.acknowledged,
            addresses=tuple(f"{node.address}:{NAME_SERVER_PORT}" for node in self._coordinators),
            topic=self._topic,
            places=self._places,
            group=CONSUMER_GROUP,
            producer=profile.settings.get("producer", {}),
            consumer=profile.settings.get("consumer", {}),
            topic_settings=profile.settings.get("topic", {}),
            via={address: node.via for address, node in self._brokers.items() if node.via},
        )

    def close(self) -> None:
        for link in self._links.values():
            link.close()
        self._links.clear()


def connect(profile: Profile, nodes: Sequence[Node], places: int, topic: str = TOPIC) -> RocketMQ:
    """See mqtest.brokers.BrokerModule."""
    return RocketMQ(profile, nodes, places, topic)
