"""Hosts (grid.py) by Ray: the nodes of a Ray cluster that were started with the resource `mqtest_cell`, a slot each.

    ray start --head                                                     on this machine, which has to be a node
    ray start --address=HOST:6379 --resources='{"mqtest_cell": 1}'       on each machine that runs cells

Rules:
- A slot is a cluster at a time, so one a machine, unless its clusters may share it.
- Ray runs nothing again by itself: which cells do is grid.py's to say.
- What a cell tells goes through one actor on this machine's node; its folder comes as the stream of a generator, a few
  chunks at a time.
Ray is imported only here, and only when a run asks for it.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mqtest import ray_guest
from mqtest.errors import EngineError, MqtestError, UsageError
from mqtest.grid import Began, Heard, Lost, Over, Sent, Tells
from mqtest.model import Cell
from mqtest.nodes import need_engine
from mqtest.remote_cell import Job

SLOT = "mqtest_cell"
_ANSWER_S = 60.0
"""at most, for a host to say which versions it has; Ray starts a process there first"""
_HEAL_S = 300.0
"""at most, for the interrupted cells to heal and clean up"""
_CHUNKS_AHEAD = 2
"""chunks of a cell that may be on their way"""


@contextlib.contextmanager
def connected(address: str, cells: Sequence[Cell]) -> Iterator[RayHosts]:
    """The hosts of the Ray cluster at `address` (HOST:PORT of its head, or `auto`), each of which can take these cells.

    Raises UsageError where there is no Ray, no such cluster or no slot; EngineError for a host that cannot take them.
    """
    _refuse_address(address)
    ray = _imported()
    # of a node that dies Ray prints the last words, among our results; grid.py tells it in a line
    with Path(os.devnull).open("w", encoding="utf-8") as nowhere, contextlib.redirect_stdout(nowhere):
        _init(ray, address)
        try:
            hosts = RayHosts(ray, need_engine(cells))
            if not hosts.slots():
                raise UsageError(
                    f"--ray {address}: no node has a slot: start those that shall run cells with "
                    f"`ray start --address={address} --resources='{{\"{SLOT}\": 1}}'`"
                )
            hosts.refuse_unfit()
            yield hosts
        finally:
            ray.shutdown()


class RayHosts:
    """See grid.Hosts."""

    def __init__(self, ray: Any, containers: bool) -> None:
        ray.cloudpickle.register_pickle_by_value(ray_guest)
        self._ray = ray
        self._containers = containers
        self._versions = ray_guest.here()
        own = ray.get_runtime_context().get_node_id()
        self._board = ray.remote(num_cpus=0)(ray_guest.Board).options(scheduling_strategy=_on(own)).remote()
        self._cell = ray.remote(
            num_cpus=0, max_retries=0, resources={SLOT: 1}, _generator_backpressure_num_objects=_CHUNKS_AHEAD
        )(ray_guest.cell)
        self._streams: dict[Any, Job] = {}
        """a cell's generator -> its job"""
        self._names: dict[str, str] = {}
        """key of a job -> the name of the host that it began on"""

    def slots(self) -> int:
        """See Hosts."""
        return sum(int(node["Resources"][SLOT]) for node in self._nodes())

    def refuse_unfit(self) -> None:
        """Raises EngineError, in one line, when a host cannot take our cells."""
        ask = self._ray.remote(num_cpus=0, max_retries=0)(ray_guest.complaint)
        asked = {
            node["NodeName"]: ask.options(scheduling_strategy=_on(node["NodeID"])).remote(
                self._versions, self._containers
            )
            for node in self._nodes()
        }
        for name, answer in asked.items():
            try:
                said = self._ray.get(answer, timeout=_ANSWER_S)
            except self._ray.exceptions.RayError as error:
                said = f"it does not say which versions it has: {_in_one_line(error)}"
            if said is not None:
                raise EngineError(f"host {name}: {said}")

    def begin(self, job: Job) -> None:
        """See Hosts."""
        stream = self._cell.remote(self._versions, pickle.dumps(job), self._board)
        self._streams[stream] = job

    def heard(self, timeout_s: float) -> Iterator[Heard]:
        """See Hosts."""
        ready, _ = self._ray.wait(list(self._streams), num_returns=1, timeout=timeout_s)
        try:
            told = self._ray.get(self._board.take.remote(), timeout=_ANSWER_S)
        except self._ray.exceptions.RayError as error:
            raise EngineError(f"the Ray cluster is gone: {_in_one_line(error)}") from error
        for key, what, value in told:
            yield self._began(key, value) if what == "began" else Tells(key, (what, value))
        for stream in ready:
            yield self._next(stream)

    def interrupt(self) -> None:
        """See Hosts."""
        for stream in self._streams:
            with contextlib.suppress(self._ray.exceptions.RayError):
                self._ray.cancel(stream, recursive=False)
        ended = [stream.completed() for stream in self._streams]
        if ended:
            self._ray.wait(ended, num_returns=len(ended), timeout=_HEAL_S, fetch_local=False)

    def _next(self, stream: Any) -> Heard:
        job = self._streams[stream]
        key = job.held_as
        errors = self._ray.exceptions
        try:
            sent = self._ray.get(next(stream))
        except StopIteration:
            del self._streams[stream]
            return Over(key)
        except errors.RayTaskError as error:
            del self._streams[stream]
            if isinstance(error.cause, MqtestError):
                raise type(error.cause)(f"{job.cell.id} on {self._names.get(key)}: {error.cause}") from error
            raise
        except errors.RayError as error:
            del self._streams[stream]
            return Lost(key, _in_one_line(error))
        if isinstance(sent, str):
            raise EngineError(f"a host that came later: {sent}")
        return Sent(key, sent)

    def _nodes(self) -> list[Any]:
        return [node for node in self._ray.nodes() if node["Alive"] and node["Resources"].get(SLOT, 0) >= 1]

    def _began(self, key: str, node_id: str) -> Began:
        names = {node["NodeID"]: str(node["NodeName"]) for node in self._ray.nodes()}
        self._names[key] = names.get(node_id, node_id)
        return Began(key, self._names[key])


def _imported() -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
        import ray.exceptions
    except ImportError as error:
        raise UsageError(f"--ray needs Ray: pip install 'mqtest[ray]' ({error})") from error
    return ray


def _refuse_address(address: str) -> None:
    """Ray itself takes minutes to say that nobody answers."""
    if address == "auto":
        return
    host, _, port = address.rpartition(":")
    if "/" in address or not host or not port.isdecimal():
        raise UsageError(f"--ray {address}: HOST:PORT is wanted, as `ray start --address` takes it, or `auto`")
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except (OSError, OverflowError) as error:
        raise UsageError(f"--ray {address}: no Ray cluster answers there: {error}") from error


def _init(ray: Any, address: str) -> None:
    """Ray's driver takes SIGTERM for itself; the runner has a use of its own for it."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        ray.init(address=address, log_to_driver=False, logging_level="error")
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise UsageError(f"--ray {address}: {error}") from error
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _on(node_id: str) -> Any:
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return NodeAffinitySchedulingStrategy(node_id, soft=False)


def _in_one_line(error: BaseException) -> str:
    """The first sentence of it."""
    return (str(error).strip() or type(error).__name__).splitlines()[0].partition(". ")[0][:200]
