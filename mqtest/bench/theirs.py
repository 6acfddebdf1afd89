"""One run of a tool: its producer until it has told of enough, then its consumer; what both said stays in a log."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from mqtest.bench.figures import Cpu, CpuSample, Figure, Interval, from_intervals, measured
from mqtest.bench.ours import CONSUME_WARM_UP_S
from mqtest.bench.rows import Asked, Row
from mqtest.bench.tools import Job, rocketmq_group
from mqtest.clients.rocketmq_codec import Request
from mqtest.clients.rocketmq_link import Link, master_address
from mqtest.cluster import toolbox
from mqtest.cluster.containers import ComposeCluster
from mqtest.cluster.images import Image
from mqtest.errors import ClusterError, MqtestError
from mqtest.model import Wiring

_QUIET_S = 60.0
"""a tool that says nothing for so long is ended; RocketMQ's first report comes after 18 s"""
_CONSUME_S = 600.0
"""at most, for a consumer to take everything"""
_ASK_S = 5.0
_ALMOST_S = 0.5
"""so much less than was asked for is still enough"""


class Theirs:
    """The tool of a row, on the row's cluster."""

    def __init__(
        self, cluster: ComposeCluster, image: Image, run_id: str, row: Row, asked: Asked, folder: Path
    ) -> None:
        self._cluster = cluster
        self._image = image
        self._run_id = run_id
        self._row = row
        self._asked = asked
        self._folder = folder
        """of the logs"""
        self.commands: dict[str, Sequence[str]] = {}
        """`produce`, `consume` → the command line, of the newest run"""

    def produce(self, name: str, wiring: Wiring, nodes: Sequence[CpuSample]) -> Figure | None:
        """Its producer's figure; None when it told of less than was asked for; `nodes`: the brokers' CPU, sampled
        meanwhile. Raises ClusterError, EngineError."""
        asked, tool = self._asked, self._row.tool

        def told(lines: Sequence[str]) -> Sequence[Interval]:
            return measured(tool.produced(lines), asked.warm_up_s, asked.seconds)

        def enough(lines: Sequence[str]) -> bool:
            return sum(one.seconds for one in told(lines)) >= asked.seconds - _ALMOST_S

        bound_s = 2 * (asked.warm_up_s + asked.seconds) + _QUIET_S
        heard = self._run(name, "produce", tool.produce(self._job(wiring, 0)), enough, bound_s)
        return _figure(heard, told(heard.lines), nodes) if enough(heard.lines) else None

    def consume(self, name: str, wiring: Wiring, messages: int, nodes: Sequence[CpuSample]) -> Figure | None:
        """Its consumer's figure, of so many messages. Raises ClusterError, EngineError."""
        tool = self._row.tool
        if (before := BEFORE_CONSUMING.get(wiring.broker)) is not None:
            before(wiring)
        heard = self._run(name, "consume", tool.consume(self._job(wiring, messages)), tool.over, _CONSUME_S)
        told = measured(tool.consumed(heard.lines, messages), CONSUME_WARM_UP_S, self._asked.seconds)
        return _figure(heard, told, nodes)

    def _job(self, wiring: Wiring, messages: int) -> Job:
        row = self._row
        return Job(wiring=wiring, size_bytes=row.size_bytes, window=row.window, options=row.options, messages=messages)

    def _run(
        self, name: str, work: str, command: Sequence[str], over: Callable[[Sequence[str]], bool], bound_s: float
    ) -> toolbox.Heard:
        self.commands[work] = command
        heard = toolbox.Heard()
        try:
            toolbox.run(
                self._cluster,
                self._image,
                self._run_id,
                command,
                heard,
                lambda: over(list(heard.lines)),
                timeout_s=bound_s,
                quiet_s=_QUIET_S,
            )
        finally:
            log = self._folder / f"{name}-{work}.log"
            log.write_text(f"$ {' '.join(command)}\n{''.join(_stamped(heard))}", encoding="utf-8")
        return heard


def rewind(wiring: Wiring) -> None:
    """Let the group of RocketMQ's Consumer begin at the first message: it would begin at the end of a topic that has
    grown beyond what the broker holds in memory. The group is made first: a broker refuses positions of one that it
    does not know (ConsumerManageProcessor). Raises ClusterError."""
    group = rocketmq_group(wiring)
    try:
        link = Link(master_address(wiring.addresses, wiring.topic, _ASK_S, wiring.access), _ASK_S, wiring.access)
        with contextlib.closing(link):
            made = json.dumps({"groupName": group}).encode()
            link.call(Request.UPDATE_AND_CREATE_SUBSCRIPTION_GROUP, body=made, timeout_s=_ASK_S)
            for place in range(wiring.places):
                queue = {"topic": wiring.topic, "queueId": str(place), "commitOffset": "0"}
                link.call(Request.UPDATE_CONSUMER_OFFSET, {"consumerGroup": group, **queue}, timeout_s=_ASK_S)
    except MqtestError as error:
        raise ClusterError(f"the group of the tool cannot be set to the first message: {error}") from error


BEFORE_CONSUMING: Mapping[str, Callable[[Wiring], None]] = {"rocketmq": rewind}
"""broker → what its tool's consumer cannot be told"""


def _figure(heard: toolbox.Heard, told: Sequence[Interval], nodes: Sequence[CpuSample]) -> Figure | None:
    return from_intervals(told, heard.lines_ns, Cpu([CpuSample(*one) for one in heard.cpu], nodes))


def _stamped(heard: toolbox.Heard) -> Sequence[str]:
    """Each line with the seconds since the first one."""
    times = heard.lines_ns
    return [f"{(at - times[0]) / 1e9:8.3f} {line}\n" for at, line in zip(times, list(heard.lines), strict=False)]
