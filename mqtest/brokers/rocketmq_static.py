"""A static RocketMQ group: the first broker is its master for good, as every group was before there were controllers.

No controller elects or counts; the master itself says which slaves are connected to it and how far they are. A profile
asks for it with `enableControllerMode = false`; the start script in compose.yaml gives each broker its role. Nobody
takes over from a master that is gone: sends wait until it is back.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from mqtest.clients.rocketmq_codec import Frame, Request
from mqtest.errors import ClusterError
from mqtest.model import Profile

LEVEL_BYTES: Final = 1 << 16
"""a slave that is no further behind than that, a tenth of a second under load, is in sync: load goes on meanwhile"""


def asked(profile: Profile) -> bool:
    """Whether the profile asks for a static group."""
    return profile.settings.get("broker", {}).get("enableControllerMode") is False


def replicas(brokers: Sequence[str], call: Callable[[str, int], Frame]) -> Mapping[str, Any]:
    """The group (addresses as host:port, the master first) in the words of a controller: `masterAddress`,
    `inSyncReplicas`, `notInSyncReplicas`; empty while the master does not answer. Raises ClusterError."""
    try:
        status = json.loads(call(brokers[0], Request.GET_BROKER_HA_STATUS).body)
        behind = {c["addr"].rpartition(":")[0]: int(c["diff"]) for c in status["haConnectionInfo"]}
    except ClusterError:
        return {}
    except (ValueError, KeyError) as error:
        raise ClusterError(f"rocketmq: the master's answer does not parse: {error}") from error
    level: dict[bool, list[Mapping[str, Any]]] = {True: [{"brokerAddress": brokers[0], "alive": True}], False: []}
    for address in brokers[1:]:
        gap = behind.get(address.rpartition(":")[0])
        level[gap is not None and gap <= LEVEL_BYTES].append({"brokerAddress": address, "alive": gap is not None})
    return {"masterAddress": brokers[0], "inSyncReplicas": level[True], "notInSyncReplicas": level[False]}
