"""Scenario → Plan: the cells of a run, from one seed.

Cells stand profile by profile, then fault by fault, then repeat. A cell's seed comes from the run's seed and the cell's
own name, so that `--only`, `--shard` and `--resume` change nothing about the cells that they leave.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatch

from mqtest.brokers import broker_module
from mqtest.errors import UsageError
from mqtest.model import Cell, Consume, Fault, Profile
from mqtest.scenario import Scenario

_ROOM_MB = 384
"""what a fresh node writes before the first message, with preallocated files, doubled"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a run will do."""

    seed: int
    cells: tuple[Cell, ...]

    @property
    def expected_s(self) -> float:
        """A rough guess of the whole, from the phases and each broker's bring-up."""
        return sum(expected_s(cell) for cell in self.cells)

    @property
    def disk_mb(self) -> int:
        """Most disk that the nodes of one cell take at a time."""
        return max((cell.disk_mb * cell.nodes for cell in self.cells), default=0)


def plan(
    scenario: Scenario,
    *,
    only: Sequence[str] = (),
    repeat: int | None = None,
    seed: int | None = None,
    shard: tuple[int, int] | None = None,
) -> Plan:
    """All cells, or those whose `broker/profile/fault` (or its beginning) matches a glob in `only`; of these every n-th
    from the i-th for `shard` (i, n). Raises UsageError when nothing is left."""
    run_seed = scenario.seed if seed is None else seed
    cells = [
        _cell(scenario, profile, fault, number, run_seed)
        for profile in scenario.profiles
        for fault in scenario.faults
        for number in range(1, (repeat or scenario.repeats) + 1)
    ]
    cells = [replace(cell, index=i, id=f"{i:03d}-{cell.id}") for i, cell in enumerate(cells, 1)]
    if only:
        cells = [cell for cell in cells if any(_matches(cell, glob) for glob in only)]
    if not cells:
        raise UsageError(f"--only {' '.join(only)}: no cell of {scenario.path} matches")
    if shard is not None:
        cells = cells[shard[0] - 1 :: shard[1]]
    if not cells:
        raise UsageError(f"--shard {shard[0]}/{shard[1]}: no cell is left for it" if shard else "no cells")
    return Plan(seed=run_seed, cells=tuple(cells))


def expected_s(cell: Cell) -> float:
    """A rough guess of one cell's time."""
    phases = cell.phases
    bring_up: float = getattr(broker_module(cell.profile.broker), "BRING_UP_S", 20.0)
    recovery = bring_up / 2 if cell.fault.action not in ("none", "pause") else 0.0
    return bring_up + phases.warm_up_s + phases.steady_s + phases.hold_s + phases.after_s + recovery + 3.0


def _matches(cell: Cell, glob: str) -> bool:
    name = f"{cell.profile.path}/{cell.fault}"
    return fnmatch(name, glob) or fnmatch(name, f"{glob}/*") or fnmatch(cell.id, glob)


def _cell(scenario: Scenario, profile: Profile, fault: Fault, number: int, seed: int) -> Cell:
    name = re.sub(r"[^a-z0-9-]+", "-", f"{profile.path}-{fault}-{number}")
    return Cell(
        id=name,
        index=0,
        profile=profile,
        fault=fault,
        repeat=number,
        seed=zlib.crc32(f"{seed}:{name}".encode()),
        nodes=scenario.nodes,
        workload=scenario.workload,
        phases=scenario.phases,
        floor=scenario.floor,
        fs=scenario.fs,
        disk_mb=scenario.disk_mb or _disk_mb(scenario),
        version=scenario.versions[profile.broker],
        must_lose=fault in scenario.must_lose,
    )


def _disk_mb(scenario: Scenario) -> int:
    """Half of it stays empty: retention and disk alarms must never touch a cell. The image file is sparse."""
    load, phases = scenario.workload, scenario.phases
    sending_s = phases.warm_up_s + phases.steady_s + phases.hold_s + phases.after_s + phases.recover_s / 2
    rate = load.rate_per_s or 20_000.0
    copies = 3 if load.consume is Consume.LIVE else 2
    return _ROOM_MB * 2 + int(copies * rate * sending_s * (load.size_bytes + 200) / 1e6)
