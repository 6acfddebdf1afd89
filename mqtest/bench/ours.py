"""One run of our side: the workers of a cell without a fault, closed loop, then the drain, the audit and the judge.

The cluster stays; the run has a topic of its own, made and removed by the caller.
"""

from __future__ import annotations

import os
import threading
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from mqtest import history as histories
from mqtest.bench.figures import Cpu, CpuSample, Figure, from_times
from mqtest.brokers import Broker
from mqtest.cell_run import record
from mqtest.clients import client
from mqtest.clock import NS_PER_S, now_ns
from mqtest.cluster import Cluster
from mqtest.errors import EngineError, LedgerError, MqtestError
from mqtest.journal import Journal
from mqtest.judge import Judgement, judge
from mqtest.ledger import write_cell
from mqtest.load import Load
from mqtest.model import Cell, Outcome, Verdict
from mqtest.watch import CellWatch
from mqtest.workload import Role
from mqtest.workload.processes import Workers

CONSUME_WARM_UP_S = 1.0
"""of either side"""
_SAMPLE_S = 0.25
_NODES_SAMPLE_S = 1.0
"""asking the engine costs some ms"""
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")

Figures = tuple[Figure | None, Figure | None]
"""produce, consume"""


def run(run_id: str, cell: Cell, folder: Path, broker: Broker, facts: dict[str, Any], watch: CellWatch) -> Judgement:
    """Load the broker's topic, drain and read it back, and judge what became of every message; `facts` go into
    cell.json. A failure of the run is in its ledger; EngineError, LedgerError and KeyboardInterrupt are raised."""
    for part in ("ledger", "logs"):
        (folder / part).mkdir(parents=True)
    journal = Journal(folder, watch)
    load = Load(
        run=run_id,
        run_number=zlib.crc32(f"{run_id}/{cell.id}".encode()),
        cell_dir=folder,
        library=client(cell.profile.client),
        workload=cell.workload,
        phases=cell.phases,
        journal=journal,
        watch=watch,
    )
    told = record(run_id, cell) | facts
    write_cell(folder, told)
    try:
        _load(load, cell, broker, journal)
        told["finished"] = True
    except (EngineError, LedgerError) as error:
        journal.event("failed", why=str(error))
        raise
    except MqtestError as error:
        told["finished"] = True
        journal.event("failed", why=str(error))
        journal.note(f"failed: {error}")
    finally:
        load.close()
        write_cell(folder, told)
        journal.close()
    return judge(folder)


def _load(load: Load, cell: Cell, broker: Broker, journal: Journal) -> None:
    load.probe(broker.wiring())
    load.start(broker.wiring())
    samples = [Samples(load.workers, role) for role in (Role.PRODUCER, Role.CONSUMER)]
    with _sampling(samples):
        load.go()
        load.last(cell.phases.warm_up_s)
        journal.phase("steady")
        load.last(cell.phases.steady_s)
        load.drain(broker)
    for one in samples:
        journal.event("cpu", role=one.role, samples=[list(sample) for sample in one.taken])
    load.audit(broker)


def figures(folder: Path, seconds: float, nodes: Sequence[CpuSample]) -> Figures:
    """What the ledger of a run says; `nodes`: the brokers' CPU meanwhile. Raises LedgerError."""
    history = histories.load(folder)
    cpu = {
        event["role"]: [CpuSample(*one) for one in event["samples"]]
        for event in history.events
        if event["event"] == "cpu"
    }
    steady = history.window("steady")
    acked = history.over_sends(lambda sends: sends.settled_ns[sends.outcome == Outcome.ACKED])
    produced = from_times(acked, steady[0], seconds, Cpu(cpu.get(Role.PRODUCER, []), nodes)) if steady else None
    first_ns = min((int(place.times[0]) for place in history.delivery_times.values() if len(place.times)), default=0)
    received = history.over_receipts(lambda read: read.received_ns)
    begin_ns = first_ns + int(CONSUME_WARM_UP_S * NS_PER_S)
    return produced, from_times(received, begin_ns, seconds, Cpu(cpu.get(Role.CONSUMER, []), nodes))


def why_not(judgement: Judgement) -> str | None:
    """Why the rates of a run do not count; None: every message was judged, and none lost."""
    row = judgement.row
    if judgement.verdict is not Verdict.KEPT or not row["audit_complete"] or row["lost"] != 0:
        return f"{judgement.verdict}: {judgement.reason}"
    return None


# --- CPU of worker processes ---


class Samples:
    """CPU of the workers of one role so far, together; what has ended is left out."""

    def __init__(self, workers: Workers, role: Role) -> None:
        self.role = role
        self.taken: list[CpuSample] = []
        self._workers = workers

    def take(self) -> None:
        """One more, while any of them runs."""
        used = [cpu for pid in self._workers.pids(self.role) if (cpu := cpu_s(pid)) is not None]
        if used:
            self.taken.append(CpuSample(now_ns(), sum(used)))


def cpu_s(pid: int) -> float | None:
    """CPU seconds of a process so far, all its threads; None once it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    ended = fields[0] in "ZX"
    return None if ended else (int(fields[11]) + int(fields[12])) / _TICKS_PER_S


@contextmanager
def sampling_nodes(cluster: Cluster) -> Iterator[Sequence[CpuSample]]:
    """CPU of all nodes together, sampled while the block runs. A sample that not every node has a part in is left out:
    what lies between others is interpolated."""
    taken: list[CpuSample] = []

    def take() -> None:
        with suppress(MqtestError, KeyError):  # of usage(): a container that has just ended says no `cpu_s`
            taken.append(CpuSample(now_ns(), sum(figures["cpu_s"] for figures in cluster.usage().values())))

    with _every(_NODES_SAMPLE_S, take):
        yield taken


@contextmanager
def _sampling(every: Sequence[Samples]) -> Iterator[None]:
    """Take samples while the block runs."""

    def take() -> None:
        for one in every:
            one.take()

    with _every(_SAMPLE_S, take):
        yield


@contextmanager
def _every(seconds: float, take: Callable[[], None]) -> Iterator[None]:
    over = threading.Event()

    def sample() -> None:
        while not over.wait(seconds):
            take()

    thread = threading.Thread(target=sample, daemon=True, name="cpu")
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
