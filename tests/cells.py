"""Runs one real cell and judges it; used by the end-to-end tests on the memory broker and on real ones."""

from __future__ import annotations

import contextlib
import os
from dataclasses import replace
from pathlib import Path

from mqtest.cell_run import CellRun
from mqtest.cluster.locks import RunLock
from mqtest.errors import MqtestError
from mqtest.judge import Judgement, judge
from mqtest.model import Cell, Phases, Profile, Value, Workload
from mqtest.nodes import engine_for
from mqtest.profile import find_profile, image_version
from mqtest.schedule import parse_fault
from mqtest.watch import SilentWatch

QUICK = Phases(
    warm_up_s=0.2, steady_s=0.4, hold_s=0.3, after_s=0.3, recover_s=10, settle_s=5, drain_s=5, audit_s=10, up_s=10
)
"""for the memory broker"""
REAL = Phases(warm_up_s=2, steady_s=4, hold_s=3, after_s=2)
"""for the real ones"""


def _ignore(_text: str) -> None:
    return


def changed(profile: str, table: str, **keys: Value | None) -> Profile:
    """A shipped profile with other settings; None removes a key. `__` in a name stands for a dot."""
    found = find_profile(profile)
    settings = {name: dict(values) for name, values in found.settings.items()}
    for key, value in keys.items():
        name = key.replace("__", ".")
        if value is None:
            del settings[table][name]
        else:
            settings[table][name] = value
    return replace(found, settings=settings)


def make_cell(profile: str | Profile, fault: str, **options: object) -> Cell:
    """A cell of that profile and fault; `options` replace fields of Cell."""
    chosen = find_profile(profile) if isinstance(profile, str) else profile
    memory = chosen.broker == "memory"
    cell = Cell(
        id=f"001-{chosen.broker}-{chosen.name}",
        index=1,
        profile=chosen,
        fault=parse_fault(fault, "test", {}),
        repeat=1,
        seed=1,
        nodes=1 if memory else 3,
        workload=Workload(rate_per_s=2000 if memory else 1000),
        phases=QUICK if memory else REAL,
        floor=100,
        fs="ext4",
        disk_mb=1024,
        version=image_version(chosen.broker),
    )
    return replace(cell, **options)  # type: ignore[arg-type]


def run_cell(folder: Path, cell: Cell) -> Judgement:
    """Run it in `folder`/cells/<id> and judge what it left. What the cell itself raises is in its ledger."""
    path = folder / "cells" / cell.id
    run_id = f"test-{os.getpid()}-{folder.name}"
    with RunLock(run_id), engine_for([cell], run_id, _ignore, keep=False), contextlib.suppress(MqtestError):
        CellRun(run_id, cell, path, keep=False, watch=SilentWatch()).run()  # what it raises is recorded as `failed`
    return judge(path)
