"""Scenario → Plan: the cells of a run, from one seed.

Cells are numbered profile by profile, then fault by fault, then repeat, and run in an order that is shuffled by the
seed, so that no profile always finds the machine in the same state. A cell's seed comes from the run's seed and the
cell's own name, so that `--only`, `--shard` and `--resume` change nothing about the cells that they leave.
"""

from __future__ import annotations

import math
import random
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

from mqtest import replay_table
from mqtest.brokers import broker_module
from mqtest.errors import UsageError
from mqtest.model import NO_FAULT, Cell, Consume, Fault, Profile, Search
from mqtest.only import meant
from mqtest.scenario import Arm, Scenario
from mqtest.schedule import drawn, lasts_s

_ROOM_MB = 384
"""what a fresh node writes before the first message, with preallocated files, doubled"""
_SETTLE_S = 0.5
"""after a trial of a search"""


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
        _cell(scenario, arm, profile, fault, number, run_seed)
        for arm in scenario.arms
        for profile in arm.profiles
        for fault in scenario.faults
        if not scenario.skips(profile, fault)
        for number in range(1, (repeat or scenario.repeats) + 1)
    ]
    if len(cells) > scenario.max_cells and repeat is None:
        raise UsageError(
            f"{scenario.path}: max_cells: {len(cells)} cells, and no more than {scenario.max_cells} are allowed"
        )
    cells = [replace(cell, index=i, id=f"{i:03d}-{cell.id}") for i, cell in enumerate(cells, 1)]
    if only:
        cells = [cell for cell in cells if meant(only, f"{cell.profile.path}/{cell.fault}", cell.id)]
    if not cells:
        raise UsageError(f"--only {' '.join(only)}: no cell of {scenario.path} matches")
    if shard is not None:
        cells = cells[shard[0] - 1 :: shard[1]]
    if not cells:
        raise UsageError(f"--shard {shard[0]}/{shard[1]}: no cell is left for it" if shard else "no cells")
    random.Random(run_seed).shuffle(cells)
    return Plan(seed=run_seed, cells=tuple(cells))


def expected_s(cell: Cell) -> float:
    """A rough guess of one cell's time."""
    phases = cell.phases
    bring_up: float = getattr(broker_module(cell.profile.broker), "BRING_UP_S", 20.0)
    if cell.search is not None:
        return bring_up + phases.warm_up_s + _search_s(cell.search) + 3.0
    recoveries = len(cell.fault.groups) * bring_up / 2
    held = lasts_s(cell.fault, phases.hold_s) if cell.fault.groups else phases.hold_s
    rate_per_s = cell.workload.rate_per_s
    replayed = replay_table.expected_s(cell.replay, rate_per_s) if cell.replay and rate_per_s else 0.0
    return bring_up + phases.warm_up_s + phases.steady_s + held + phases.after_s + recoveries + replayed + 3.0


def _search_s(search: Search) -> float:
    """With all its trials."""
    return search.trials * (search.step_s + _SETTLE_S) + len(search.at) * search.at_s


def _cell(scenario: Scenario, arm: Arm, profile: Profile, fault: Fault, number: int, run_seed: int) -> Cell:
    varied = "".join(f"-{key}-{value}" for key, value in arm.varied.items())
    name = re.sub(r"[^a-z0-9-]+", "-", f"{profile.path}{varied}-{fault}-{number}".lower())
    seed = zlib.crc32(f"{run_seed}:{name}".encode())
    fault = drawn(fault, seed)
    search = arm.search if fault == NO_FAULT else None
    workload = arm.workload if search is None else replace(arm.workload, rate_per_s=search.start_per_s)
    return Cell(
        id=name[:100],
        index=0,
        profile=profile,
        fault=fault,
        repeat=number,
        seed=seed,
        nodes=arm.nodes,
        workload=workload,
        phases=arm.phases,
        floor=scenario.floor,
        fs=arm.fs,
        disk_mb=scenario.disk_mb or _disk_mb(arm, fault, search),
        version=scenario.versions[profile.broker],
        must_lose=fault.name in [str(lost) for lost in scenario.must_lose],
        latency=scenario.latency,
        hasty=scenario.hasty,
        varied=arm.varied,
        settings=scenario.settings,
        search=search,
        replay=arm.replay,
    )


def _disk_mb(arm: Arm, fault: Fault, search: Search | None) -> int:
    """Half of it stays empty: retention and disk alarms must never touch a cell. The image file is sparse."""
    load, phases = arm.workload, arm.phases
    held = max(phases.hold_s, lasts_s(fault, phases.hold_s))
    sending_s = phases.warm_up_s + phases.steady_s + held + phases.after_s + phases.recover_s / 2
    messages = _searched(search) if search else (load.rate_per_s or 20_000.0) * sending_s
    if arm.replay and load.rate_per_s:
        messages += replay_table.messages(arm.replay, load.rate_per_s)
    copies = (3 if load.consume is Consume.LIVE else 2) * (1 + min(load.transformers, 1) + bool(arm.replay))
    return _ROOM_MB * 2 + int(copies * messages * (load.size_bytes + 200) / 1e6)


def _searched(search: Search) -> float:
    """Messages, at most: rates that double up to the highest make twice that, each trial after them as much as that."""
    doubled = math.ceil(math.log2(search.most_per_s / search.start_per_s))
    trials = 2 + max(0, search.trials - doubled)
    return search.most_per_s * (trials * search.step_s + sum(search.at) * search.at_s)
