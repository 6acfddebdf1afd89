"""An rstream Producer or Consumer, driven without a thread: its asyncio loop runs while somebody waits, and only then.

Rules:
- rstream swallows what a callback raises, so callbacks only note what came; what a background task of its raises ends
  up in the loop's exception handler, and is `failed`.
- It only warns when heartbeats stay away (its issue 201), and a writer that meets a dead socket tells nobody: so each
  step looks at every connection.
- It reconnects where its recovery strategy says so, and ours never does: a Link that failed says why, for good.
- Its `close` swallows cancellations and waits up to 5 s for each answer. So whatever is not done in time is cancelled
  until it gives up, and the transports are dropped.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, Final, TypeVar

from rstream import Consumer, OnClosedErrorInfo, Producer
from rstream.client import Client
from rstream.recovery import RecoveryStrategy
from rstream.schema import Close

from mqtest.clients import OPEN_TIMEOUT_S, ClientError
from mqtest.clients.pika_link import PASSWORD, USER

logging.getLogger("rstream").addHandler(logging.NullHandler())  # what it would print to stderr is in `failed`

_TURNS: Final = 3
"""of the loop, from the socket through rstream's listener and its queue of chunks to our callback"""
_CANCELS: Final = 20
"""more than rstream has places that swallow one"""
_SILENT_HEARTBEATS: Final = 2
_LEAVE_S: Final = 0.5
"""of the time to open, for leaving what did not open"""

Entity = TypeVar("Entity", Producer, Consumer)


class _NoRecovery(RecoveryStrategy):
    """What failed stays so."""

    async def recover(self, entity: Any, stream: str, error: Exception, attempt: int, recovery_fun: Any) -> None:
        """Nothing."""


class _Loop(asyncio.SelectorEventLoop):
    """Remembers its transports, so that none outlives it."""

    def __init__(self) -> None:
        super().__init__()
        self.transports: list[asyncio.Transport] = []

    async def create_connection(self, *args: Any, **kwargs: Any) -> Any:
        transport, protocol = await super().create_connection(*args, **kwargs)
        self.transports.append(transport)
        return transport, protocol


class Link:
    """The loop of one Producer or Consumer, and what became of its connections."""

    def __init__(self) -> None:
        self.failed: str | None = None
        self.clients: Sequence[Client] = ()
        """connections that must stay; see `watch`"""
        self._closed = False
        self._loop = _Loop()
        self._loop.set_exception_handler(self._raised)

    def step(self, timeout_s: float) -> None:
        """I/O until something happened (`wake`), or for timeout_s; with 0 what can be done at once."""
        if self._closed:
            return
        if timeout_s > 0:
            timer = self._loop.call_later(timeout_s, self._loop.stop)
            self._loop.run_forever()
            timer.cancel()
        else:
            for _ in range(_TURNS):
                self._turn()
        self._look()

    def wake(self) -> None:
        """Something came: the step in which this is called ends."""
        self._loop.stop()

    def run(self, work: Coroutine[Any, Any, object], timeout_s: float, what: str) -> None:
        """Step until `work` is done; raises ClientError when it fails, or takes longer."""
        end = time.monotonic() + timeout_s
        task = self._loop.create_task(work)
        task.add_done_callback(lambda _: self.wake())
        while not task.done() and (left := end - time.monotonic()) > 0:
            self.step(left)
        if not task.done():
            task.cancel()
            raise ClientError(f"waited {timeout_s:.1f} s for {what}")
        if not task.cancelled() and (error := task.exception()) is not None:
            raise ClientError(f"{what}: {_told(error)}")

    def spawn(self, work: Coroutine[Any, Any, object]) -> asyncio.Task[object]:
        """Let `work` be done by the steps that follow; what it raises is `failed`."""
        task = self._loop.create_task(work)
        task.add_done_callback(self._spawned)
        return task

    def watch(self, clients: Sequence[Client]) -> None:
        """These connections must stay; why the server closes one is told by it alone."""
        self.clients = clients
        for client in clients:
            client.add_handler(Close, lambda close: self.fail(f"the server closes: {close.reason}"), "mqtest")

    def fail(self, why: str) -> None:
        """Beyond use from now on; the first reason stays."""
        if self.failed is None:
            self.failed = why
            self.wake()

    def lost(self, info: OnClosedErrorInfo) -> None:
        """rstream's `on_close_handler`: a connection ended, or a stream has another leader or none."""
        self.fail(f"{info.reason}: {', '.join(info.streams)}")

    def close(self, leave: Callable[[], Coroutine[Any, Any, object]], timeout_s: float) -> None:
        """`leave` in order within timeout_s, else drop the connections. Idempotent."""
        if self._closed:
            return
        reason = self.failed
        try:
            self.run(leave(), timeout_s, "a close in order")
        except ClientError as error:
            reason = reason or str(error)
        self.failed = reason or "closed"
        self._drop()

    def _drop(self) -> None:
        for _ in range(_CANCELS):
            tasks = asyncio.all_tasks(self._loop)
            if not tasks:
                break
            for task in tasks:
                task.cancel()
            self._turn()
        for transport in self._loop.transports:
            transport.abort()
        self._turn()  # a transport closes its socket in a callback
        self._closed = True
        self._loop.close()

    def _turn(self) -> None:
        self._loop.call_soon(self._loop.stop)
        self._loop.run_forever()

    def _look(self) -> None:
        for client in self.clients:
            if not client.is_connection_alive():
                self.fail(f"{client.host}:{client.port}: connection lost")
            silent_s = time.monotonic() - client._last_heartbeat
            if 0 < _SILENT_HEARTBEATS * client._heartbeat < silent_s:
                self.fail(f"{client.host}:{client.port}: nothing heard for {silent_s:.1f} s")

    def _spawned(self, task: asyncio.Task[object]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self.fail(_told(error))

    def _raised(self, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        self.fail(_told(error) if error else str(context.get("message")))


def connect(
    library: type[Entity],
    addresses: Sequence[str],
    turn: int,
    settings: Mapping[str, Any],
    locate: Callable[[Entity], Coroutine[Any, Any, object]],
    begin: Callable[[Link, Entity], Coroutine[Any, Any, object]],
) -> tuple[Link, Entity]:
    """A link and its Producer or Consumer, made with these settings for the host of one of the addresses, beginning
    with number `turn`. `locate` reaches that host, each within its share of the time that is left (a paused node takes
    connections and says nothing); `begin` goes where the streams are. Raises ClientError within OPEN_TIMEOUT_S."""
    end = time.monotonic() + OPEN_TIMEOUT_S - _LEAVE_S
    failures: list[str] = []
    for tried in range(len(addresses)):
        host = addresses[(turn + tried) % len(addresses)].rpartition(":")[0]
        share_s = max((end - time.monotonic()) / (len(addresses) - tried), 0.1)
        link = Link()
        entity = library(
            host,
            username=USER,
            password=PASSWORD,
            on_close_handler=link.lost,
            recovery_strategy=_NoRecovery(),
            **settings,
        )
        try:
            link.run(locate(entity), share_s, "an open connection")
            link.run(begin(link, entity), max(end - time.monotonic(), 0.1), "the streams")
        except ClientError as error:
            failures.append(f"{host}: {error}")
            link.close(entity.close, 0.1)
            continue
        link.watch(tuple(entity._clients.values()))
        return link, entity
    raise ClientError("; ".join(failures))


def _told(error: BaseException) -> str:
    """What an exception says; many of rstream's are a class and no more."""
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
