"""The cluster of one cell: containers, or the process of the embedded broker; and what frames the cells of a run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from mqtest import dashboard
from mqtest.brokers import broker_module
from mqtest.cluster import Cluster
from mqtest.errors import UsageError
from mqtest.faults import FAULTS
from mqtest.jobs import FLINK
from mqtest.model import Cell

_EMBEDDED = "memory"


def bring_up(cell: Cell, run_id: str, folder: Path, progress: Callable[[str], None]) -> Cluster:
    """Start all nodes of a cell, each on a fresh disk; raises EngineError, ImageError, ClusterError."""
    broker = cell.profile.broker
    module = broker_module(broker)
    environment = module.environment(cell.profile, cell.nodes)
    if broker == _EMBEDDED:
        from mqtest.cluster.memory import MemoryCluster

        return MemoryCluster(folder / "memory", environment, cell.nodes)

    from mqtest.cluster import compose, flink, images
    from mqtest.cluster.containers import PROJECT_LABEL

    cluster = compose.bring_up(
        broker=broker,
        environment=environment,
        image=images.ensure_image(broker, cell.version, progress),
        nodes=cell.nodes,
        run=run_id,
        cell=cell.id,
        fs=cell.fs,
        disk_mb=cell.disk_mb,
        timeout_s=cell.phases.up_s,
        progress=progress,
        fakes_clock=any(FAULTS[step.action].fakes_clock for step in cell.fault.steps),
        door=module.DOOR if any(FAULTS[step.action].on_links for step in cell.fault.steps) else None,
    )
    if cell.replay is not None and cell.replay.runs_on == FLINK:
        try:
            named = {PROJECT_LABEL: cluster.project}
            cluster.flink = flink.start(cluster.agent.client, named, run_id, cluster.nodes, progress)
        except BaseException:
            cluster.down()
            raise
    return cluster


def need_engine(cells: Iterable[Cell]) -> bool:
    """Whether any of the cells needs containers."""
    return any(cell.profile.broker != _EMBEDDED for cell in cells)


def require_engine(cells: Iterable[Cell]) -> None:
    """Raises EngineError, in one line, when cells need containers and no fit engine answers; UsageError when one feeds
    a dashboard's table and its extra is not installed."""
    if any(cell.replay is not None and cell.replay.dashboard for cell in cells):
        dashboard.require()
    if not need_engine(cells):
        return

    from mqtest import doctor

    doctor.require_engine()


@contextmanager
def engine_for(cells: Iterable[Cell], run_id: str, progress: Callable[[str], None], *, keep: bool) -> Iterator[None]:
    """Around the cells of a run: clear what dead runs left, then take this run's own agent, network guard and disks
    away, on every way out. With `keep` they stay with the cluster that was left up. Nothing without containers."""
    if not need_engine(cells):
        yield
        return

    from mqtest.cluster import leftovers

    leftovers.clean(all_runs=False, by_hand=False, progress=progress)
    try:
        yield
    finally:
        if not keep:
            leftovers.close_run(run_id, progress)


@contextmanager
def left_up(cell: Cell, run_id: str, progress: Callable[[str], None]) -> Iterator[Cluster]:
    """A cluster that stays when the block ends, without its agent; removed when the block raises.

    Raises UsageError for the embedded broker, which ends with this process.
    """
    if cell.profile.broker == _EMBEDDED:
        raise UsageError(f"{cell.profile.path}: the embedded broker ends with its run; up is for brokers in containers")

    from mqtest.cluster import agent

    require_engine([cell])
    cluster = bring_up(cell, run_id, Path(), progress)
    try:
        yield cluster
    except BaseException:
        cluster.down()
        raise
    finally:
        agent.stop(run_id)
