"""The cluster of one cell: containers, or the process of the embedded broker."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from mqtest.brokers import broker_module
from mqtest.cluster import Cluster
from mqtest.model import Cell

_EMBEDDED = "memory"


def bring_up(cell: Cell, run_id: str, folder: Path, progress: Callable[[str], None]) -> Cluster:
    """Start all nodes of a cell, each on a fresh disk; raises EngineError, ImageError, ClusterError."""
    broker = cell.profile.broker
    environment = broker_module(broker).environment(cell.profile, cell.nodes)
    if broker == _EMBEDDED:
        from mqtest.cluster.memory import MemoryCluster

        return MemoryCluster(folder / "memory", environment, cell.nodes)

    from mqtest.cluster import compose, images

    return compose.bring_up(
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
    )
