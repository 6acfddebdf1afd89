"""Plans: the cells, their seeds, and what --only, --repeat and --shard leave of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from mqtest.errors import UsageError
from mqtest.plan import expected_s, plan
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


def test_all_cells(scenario: Scenario) -> None:
    assert sorted(cell.id for cell in plan(scenario).cells) == [
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
    assert sorted(c.index for c in plan(scenario).cells if c.must_lose) == [5, 6, 11, 12]


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
    assert sorted(c.index for c in plan(scenario, only=only).cells) == indices


def test_only_that_matches_nothing_is_an_error(scenario: Scenario) -> None:
    with pytest.raises(UsageError, match=r"no cell of .* matches"):
        plan(scenario, only=["kafka/*"])


def test_shards_are_disjoint_and_whole(scenario: Scenario) -> None:
    shards = [plan(scenario, shard=(i, 5)).cells for i in range(1, 6)]
    assert sorted(c.index for shard in shards for c in shard) == list(range(1, 13))
    assert [len(shard) for shard in shards] == [3, 3, 2, 2, 2]


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


def test_the_order_is_shuffled_by_the_seed_and_the_cells_stay_the_same(scenario: Scenario) -> None:
    one, again, other = (plan(scenario, seed=seed).cells for seed in (1, 1, 2))
    assert [c.id for c in one] == [c.id for c in again]
    assert [c.id for c in one] != [c.id for c in other]
    assert sorted(c.id for c in one) == sorted(c.id for c in other)
    assert [c.index for c in one] != sorted(c.index for c in one)


def test_more_cells_than_allowed_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.toml"
    path.write_text("max_cells = 11\n" + TEXT)
    with pytest.raises(UsageError, match=r"max_cells: 12 cells, and no more than 11 are allowed"):
        plan(load(path))
    path.write_text("max_cells = 12\n" + TEXT)
    assert len(plan(load(path)).cells) == 12


def test_what_is_skipped_is_no_cell(tmp_path: Path) -> None:
    path = tmp_path / "x.toml"
    path.write_text('skip = ["memory/queue-safe/kill:*"]\n' + TEXT)
    names = [f"{c.profile.name}/{c.fault}" for c in plan(load(path)).cells]
    assert "queue-safe/kill:leader" not in names
    assert len(names) == 10


CHAOS = """
title = "t"
question = "q?"
profiles = ["memory/log-safe"]
faults = ["chaos"]
nodes = 1
[schedule.chaos]
draw = ["kill:leader", "pause:one", "power-cut:all"]
lasts_s = 60
every_s = 5
hold_s = [1, 3]
"""


def test_a_drawn_schedule_comes_from_the_cells_seed_alone(tmp_path: Path) -> None:
    path = tmp_path / "x.toml"
    path.write_text(CHAOS)
    one, again, other = (plan(load(path), seed=seed).cells[0] for seed in (1, 1, 2))
    assert one.fault == again.fault
    assert one.fault != other.fault
    assert len(one.fault.groups) == 12
    held = [step.for_s for group in one.fault.groups for step in group]
    assert all(for_s is not None and 1 <= for_s <= 3 for for_s in held)
    assert len({str(step) for step in one.fault.steps}) == 3


def test_the_expected_time_and_disk_of_a_schedule_are_of_the_whole_of_it(tmp_path: Path) -> None:
    short, long = tmp_path / "short.toml", tmp_path / "long.toml"
    short.write_text(CHAOS)
    long.write_text(CHAOS.replace("lasts_s = 60", "lasts_s = 600"))
    assert plan(load(long)).expected_s > plan(load(short)).expected_s + 500
    assert plan(load(long)).disk_mb > plan(load(short)).disk_mb


def test_a_search_has_its_own_time_and_disk(tmp_path: Path) -> None:
    """1 to 4 in two doublings, so of 5 trials 3 more at 4 a second, and twice that: 5 x 2 s; then 1.5 x 10 s of it."""
    search = "[search]\nstart_per_s = 1000\nmost_per_s = 4000\ntrials = 5\nstep_s = 2\nat_s = 10\n"
    path = tmp_path / "x.toml"
    path.write_text(TEXT + search)
    cells = {str(cell.fault): cell for cell in plan(load(path)).cells}
    assert cells["none"].disk_mb == 2 * 384 + int(2 * 4000 * (5 * 2 + 1.5 * 10) * (512 + 200) / 1e6)
    assert expected_s(cells["none"]) == pytest.approx(0.5 + 2 + 5 * 2.5 + 3 * 10 + 3)
    path.write_text(TEXT)
    before = {str(cell.fault): cell for cell in plan(load(path)).cells}
    assert cells["kill:leader"].disk_mb == before["kill:leader"].disk_mb
    assert expected_s(cells["kill:leader"]) == expected_s(before["kill:leader"])
