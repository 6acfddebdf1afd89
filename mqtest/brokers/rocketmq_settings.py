"""RocketMQ's settings: how a profile becomes lines of a broker's configuration and fields of a topic, and how it shows
whether they took.

A broker hands a key that it does not know back as it stood in its file. So settings go in spelt as the broker itself
never would (`+2`, `TRUE`, a trailing space): what comes back in the plain spelling was understood.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from mqtest.clients import rocketmq_native, rocketmq_wire
from mqtest.errors import SettingError
from mqtest.model import Profile, Value

PLAIN_TOPIC: Final = {"perm": "6", "order": "false", "topicFilterType": "SINGLE_TAG", "topicSysFlag": "0"}
_TOPIC_FIELDS: Final = ("perm", "order", "topicFilterType", "topicSysFlag")
"""Keys of a profile's `topic` table that are fields of a topic; every other one is an attribute (`message.type`)."""
TELLING: Final = (
    "flushDiskType",
    "flushIntervalCommitLog",
    "allAckInSyncStateSet",
    "inSyncReplicas",
    "minInSyncReplicas",
    "transientStorePoolEnable",
    "haMaxTimeSlaveNotCatchup",
    "controllerHeartBeatTimeoutMills",
    "sendMessageThreadPoolNums",
    "slaveTimeout",
    "syncFlushTimeout",
)
"""Broker settings that every result states, asked for or not."""


def plain(value: Value) -> str:
    """A setting as the broker writes it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def spelt(value: Value) -> str:
    """The same in a spelling that the broker reads, but never writes itself."""
    if isinstance(value, bool):
        return str(value).upper()
    if isinstance(value, int | float):
        return f"-0{abs(value)}" if value < 0 else f"+{value}"
    return f"{value} "


def topic_fields(settings: Mapping[str, Value]) -> Mapping[str, str]:
    """A profile's `topic` table as fields of the request that makes the topic."""
    fields = PLAIN_TOPIC | {key: plain(settings[key]) for key in _TOPIC_FIELDS if key in settings}
    attributes = [f"+{key}={plain(value)}" for key, value in settings.items() if key not in _TOPIC_FIELDS]
    return {**fields, "attributes": ",".join(attributes)}


def topic_request(name: str, queues: int, fields: Mapping[str, str]) -> Mapping[str, str]:
    """All fields of UPDATE_AND_CREATE_TOPIC."""
    counts = {"readQueueNums": str(queues), "writeQueueNums": str(queues)}
    return {"topic": name, "defaultTopic": "TBW102", **counts, **fields}


def check_taken(node: str, asked: Mapping[str, Value], config: Mapping[str, str]) -> None:
    """Raise SettingError for the first setting that did not take on that node. `config` as the broker answers."""
    for key, value in asked.items():
        has = config.get(key)
        if has is None or has == spelt(value):
            raise SettingError(f"rocketmq: broker.{key} = {plain(value)} did not take on {node}: no such setting")
        if has != plain(value):
            raise SettingError(
                f"rocketmq: broker.{key} did not take on {node}: asked {plain(value)}, the broker has {has}"
            )


def check_client(profile: Profile) -> None:
    """Raise SettingError for a `producer` or `consumer` key that the profile's client does not have."""
    module = rocketmq_native if profile.client == "rocketmq-client-python" else rocketmq_wire
    for table, known in (("producer", module.PRODUCER), ("consumer", module.CONSUMER)):
        for key in profile.settings.get(table, {}):
            if key not in known:
                raise SettingError(f"rocketmq: {table}.{key}: {profile.client} has no such setting; {', '.join(known)}")
