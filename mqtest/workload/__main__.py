"""`python -m mqtest.workload`: one worker process. Not for people; see the package's docstring for its protocol."""

from __future__ import annotations

import ctypes
import gc
import logging
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from mqtest.credentials import Credentials
from mqtest.errors import MqtestError
from mqtest.model import Value
from mqtest.workload import Role, WorkerPlan, priority
from mqtest.workload.consumer import ConsumerLoop
from mqtest.workload.control import Control
from mqtest.workload.producer import ProducerLoop
from mqtest.workload.transformer import TransformerLoop

if TYPE_CHECKING:
    from mqtest.workload.flink_job import FlinkLoop

_PR_SET_PDEATHSIG = 1
_LOOPS: Mapping[Role, type[ProducerLoop | ConsumerLoop | TransformerLoop]] = {
    Role.PRODUCER: ProducerLoop,
    Role.CONSUMER: ConsumerLoop,
    Role.TRANSFORMER: TransformerLoop,
    Role.READER: ConsumerLoop,
}


def main() -> int:
    """Read the plan, do it, say done."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the runner decides
    plan = msgspec.json.decode(sys.stdin.readline(), type=WorkerPlan)
    logging.basicConfig(level=logging.WARNING, handlers=[log_handler(Path(plan.log), plan.wiring.access)])
    control = Control()
    if plan.role is Role.PRODUCER and plan.workload.rate_per_s is not None:
        control.event("priority", producer=plan.number, nice=priority.come_first())
    control.listen()
    loop = _on_flink(plan, control) if plan.flink else _LOOPS[plan.role](plan, control)
    gc.freeze()
    try:
        loop.run()
    except MqtestError as error:
        control.failed(str(error))
        return 1
    control.done()
    return 0


def _on_flink(plan: WorkerPlan, control: Control) -> FlinkLoop:
    from mqtest.workload.flink_job import FlinkLoop  # with an HTTP client, which no other worker needs

    return FlinkLoop(plan, control)


class _Lines(logging.Formatter):
    """In UTC, as the nodes' logs are, and without what lets us in."""

    def __init__(self, access: Credentials) -> None:
        super().__init__("%(asctime)s.%(msecs)03dZ %(name)s %(message)s", "%Y-%m-%dT%H:%M:%S")
        self.converter = time.gmtime
        self._access = access

    def format(self, record: logging.LogRecord) -> str:
        return self._access.mask(super().format(record))


def log_handler(path: Path, access: Mapping[str, Value]) -> logging.Handler:
    """Writes what client libraries say to a file, which is made with the first line; a worker that comes back goes on
    in it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(path, delay=True, encoding="utf-8")
    handler.setFormatter(_Lines(Credentials(access)))
    return handler


if __name__ == "__main__":
    sys.exit(main())
