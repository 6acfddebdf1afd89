"""Plans: the cells, their seeds, and what --only, --repeat and --shard leave of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from mqtest.errors import UsageError
from mqtest.plan import plan
from mqtest.scenario import Scenario, load

TEXT = """
title = "t"
question = "q?"
profiles = ["memory/log-safe", "memory/queue-safe"]
faults = ["none", "kill:leader", "power-cut:all"]
must_lose = ["power-cut:all"]
nodes = 1
repeats = 2
"""


@pytest.fixture
def scenario(tmp_path: Path) -> Scenario:
    path = tmp_path / "x.toml"
    path.write_text(TEXT)
    return load(path)


def test_all_cells_in_order(scenario: Scenario) -> None:
    assert [cell.id for cell in plan(scenario).cells] == [
        "001-memory-log-safe-none-1",
        "002-memory-log-safe-none-2",
        "003-memory-log-safe-kill-leader-1",
        "004-memory-log-safe-kill-leader-2",
        "005-memory-log-safe-power-cut-all-1",
        "006-memory-log-safe-power-cut-all-2",
        "007-memory-queue-safe-none-1",
        "008-memory-queue-safe-none-2",
        "009-memory-queue-safe-kill-leader-1",
        "010-memory-queue-safe-kill-leader-2",
        "011-memory-queue-safe-power-cut-all-1",
        "012-memory-queue-safe-power-cut-all-2",
    ]
    assert [c.index for c in plan(scenario).cells if c.must_lose] == [5, 6, 11, 12]


@pytest.mark.parametrize(
    ("only", "indices"),
    [
        (["memory/log-safe"], [1, 2, 3, 4, 5, 6]),
        (["memory/log-safe/none"], [1, 2]),
        (["*/kill:*"], [3, 4, 9, 10]),
        (["memory/*/none", "*power-cut*"], [1, 2, 5, 6, 7, 8, 11, 12]),
        (["004-*"], [4]),
    ],
)
def test_only(scenario: Scenario, only: list[str], indices: list[int]) -> None:
    assert [c.index for c in plan(scenario, only=only).cells] == indices


def test_only_that_matches_nothing_is_an_error(scenario: Scenario) -> None:
    with pytest.raises(UsageError, match=r"no cell of .* matches"):
        plan(scenario, only=["kafka/*"])


def test_shards_are_disjoint_and_whole(scenario: Scenario) -> None:
    shards = [plan(scenario, shard=(i, 5)).cells for i in range(1, 6)]
    assert sorted(c.index for shard in shards for c in shard) == list(range(1, 13))
    assert [c.index for c in shards[0]] == [1, 6, 11]


def test_seeds_depend_on_seed_and_cell_only(scenario: Scenario) -> None:
    whole = {c.id: c.seed for c in plan(scenario).cells}
    part = {c.id: c.seed for c in plan(scenario, only=["*/kill:*"]).cells}
    assert all(whole[i] == s for i, s in part.items())
    assert len(set(whole.values())) == 12
    assert all(whole[c.id] != c.seed for c in plan(scenario, seed=2).cells)


def test_repeat_overrides(scenario: Scenario) -> None:
    assert len(plan(scenario, repeat=3).cells) == 18


def test_disks_grow_with_the_load(scenario: Scenario, tmp_path: Path) -> None:
    heavier = tmp_path / "heavy.toml"
    heavier.write_text(TEXT + "[workload]\nrate_per_s = 20000\n")
    assert plan(load(heavier)).disk_mb > plan(scenario).disk_mb
