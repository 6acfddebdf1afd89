"""Cells spread over hosts, the hosts being played: what is sent, lost, sent again, given up, and told."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from mqtest.errors import EngineError
from mqtest.grid import ATTEMPTS, Began, Grid, Heard, Lost, Over, Sent, Tells
from mqtest.ledger import read_cell
from mqtest.model import Cell
from mqtest.parcel import packed
from mqtest.remote_cell import Job, Told
from mqtest.report.collect import collect, lost_hosts
from mqtest.watch import Progress, SilentWatch
from tests import cells as test_cells
from tests import run_dirs

Way = Callable[[Job, list[bytes]], Iterator[Heard | Exception]]
"""what a host says of a job whose folder, packed, is these chunks"""


def well(job: Job, chunks: list[bytes]) -> Iterator[Heard]:
    yield Began(job.held_as, "host-a")
    yield Tells(job.held_as, ("phase", "steady"))
    yield from (Sent(job.held_as, chunk) for chunk in chunks)
    yield Over(job.held_as)


def dies_before_it_begins(job: Job, _chunks: list[bytes]) -> Iterator[Heard]:
    yield Lost(job.held_as, "node\n died")


def dies_half_way(job: Job, chunks: list[bytes]) -> Iterator[Heard]:
    yield Began(job.held_as, "host-b")
    yield Sent(job.held_as, chunks[0][: len(chunks[0]) // 2])
    yield Lost(job.held_as, "node\n died")


def sends_half(job: Job, chunks: list[bytes]) -> Iterator[Heard]:
    yield Began(job.held_as, "host-b")
    yield Sent(job.held_as, chunks[0][: len(chunks[0]) // 2])
    yield Over(job.held_as)


def raises(job: Job, _chunks: list[bytes]) -> Iterator[Heard | Exception]:
    yield Began(job.held_as, "host-b")
    yield EngineError("the engine of host-b is gone")


@dataclass
class PlayedHosts:
    """Two slots. `ways`: cell index -> how each attempt goes, `well` where nothing is said."""

    folder: Path
    ways: Mapping[int, list[Way]] = field(default_factory=dict)
    free: int = 2
    failed: bool = False
    """whether the cells fail by themselves"""
    begun: list[str] = field(default_factory=list)
    open: int = 0
    most: int = 0
    interrupted: bool = False
    going: deque[Iterator[Heard | Exception]] = field(default_factory=deque)

    def slots(self) -> int:
        return self.free

    def begin(self, job: Job) -> None:
        made = run_dirs.make_cell(self.folder / job.held_as, job.cell.id, complete=not self.failed)
        chunks = list(packed(made, self.folder / "archive"))
        ways = dict(enumerate(self.ways.get(job.cell.index, []), 1))
        self.begun.append(job.held_as)
        self.going.append(ways.get(job.attempt, well)(job, chunks))
        self.open += 1
        self.most = max(self.most, self.open)

    def heard(self, timeout_s: float) -> Iterable[Heard]:
        """One word of one cell, each in its turn."""
        one = self.going.popleft()
        said = next(one, None)
        if isinstance(said, Exception):
            raise said
        if said is not None:
            self.going.append(one)
            self.open -= isinstance(said, Over | Lost)
            yield said

    def interrupt(self) -> None:
        self.interrupted = True


class Seen(SilentWatch):
    """Writes down what it is told."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def cell_started(self, cell: Cell, index: int, total: int) -> Seen:
        self.lines.append(f"{index}/{total} {cell.id}")
        return self

    def phase(self, name: str) -> None:
        self.lines.append(name)

    def note(self, text: str) -> None:
        self.lines.append(text)

    def cell_judged(self, cell_id: str, row: Mapping[str, object]) -> None:
        self.lines.append(f"= {cell_id} {row['verdict']}")


def three_cells() -> list[Cell]:
    one = test_cells.make_cell("memory/log-safe", "none")
    return [replace(one, id=f"00{index}-x", index=index) for index in (1, 2, 3)]


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    return run_dirs.make_run(tmp_path, "run", [cell.id for cell in three_cells()])


def ran(run_dir: Path, hosts: PlayedHosts) -> list[str]:
    watch = Seen()
    Grid(hosts).run(run_dir, three_cells(), watch)
    return watch.lines


def verdicts(run_dir: Path) -> dict[str, str]:
    return {cell.id: str(cell.verdict) for cell in collect([run_dir]).cells}


def test_every_cell_goes_to_a_free_slot_and_comes_back(run_dir: Path, tmp_path: Path) -> None:
    hosts = PlayedHosts(tmp_path / "hosts")
    lines = ran(run_dir, hosts)
    assert verdicts(run_dir) == {"001-x": "kept", "002-x": "kept", "003-x": "kept"}
    assert hosts.begun == ["run-001-1", "run-002-1", "run-003-1"]
    assert hosts.most == 2
    assert lines[:4] == ["1/3 001-x", "on host-a", "2/3 002-x", "on host-a"]
    assert lines.count("steady") == 3
    assert not hosts.interrupted
    assert not (run_dir / "arriving").exists()
    assert lost_hosts(collect([run_dir]).cells) == ()


@pytest.mark.parametrize(
    ("way", "host"),
    [
        (dies_before_it_begins, "its host: node died"),
        (dies_half_way, "host-b: node died"),
        (sends_half, "host-b: .*what its host sent is not whole"),
    ],
)
def test_a_host_that_dies_costs_its_cell_which_runs_again(run_dir: Path, tmp_path: Path, way: Way, host: str) -> None:
    hosts = PlayedHosts(tmp_path / "hosts", {2: [way]})
    lines = ran(run_dir, hosts)
    assert verdicts(run_dir) == {"001-x": "kept", "002-x": "kept", "003-x": "kept"}
    assert hosts.begun == ["run-001-1", "run-002-1", "run-003-1", "run-002-2"]
    assert any(line.startswith("002-x: lost with ") and line.endswith("; it runs again elsewhere") for line in lines)
    (lost,) = read_cell(run_dir / "cells" / "002-x")["lost_hosts"]
    assert re.fullmatch(f"{host}.*", lost)
    (note,) = lost_hosts(collect([run_dir]).cells)
    assert note == f"002-x: lost with its host, and run again: {lost}"


def test_a_cell_that_costs_too_many_hosts_is_unknown_and_the_others_go_on(run_dir: Path, tmp_path: Path) -> None:
    hosts = PlayedHosts(tmp_path / "hosts", {1: [dies_half_way] * (ATTEMPTS + 1)})
    lines = ran(run_dir, hosts)
    assert verdicts(run_dir) == {"001-x": "unknown", "002-x": "kept", "003-x": "kept"}
    assert sum(begun.startswith("run-001") for begun in hosts.begun) == ATTEMPTS
    assert "001-x: lost with host-b: node died; 3 times are enough" in lines
    reason = collect([run_dir]).cells[0].reason
    assert (
        reason
        == "the cell failed: lost with its host, 3 times: host-b: node died; host-b: node died; host-b: node died"
    )


def test_a_cell_that_fails_by_itself_is_not_run_again(run_dir: Path, tmp_path: Path) -> None:
    hosts = PlayedHosts(tmp_path / "hosts", failed=True)
    ran(run_dir, hosts)
    assert set(verdicts(run_dir).values()) == {"unknown"}
    assert len(hosts.begun) == 3


def test_what_a_cell_raises_on_its_host_ends_the_run_and_interrupts_the_others(run_dir: Path, tmp_path: Path) -> None:
    hosts = PlayedHosts(tmp_path / "hosts", {2: [raises]})
    with pytest.raises(EngineError, match="the engine of host-b is gone"):
        ran(run_dir, hosts)
    assert hosts.interrupted
    assert not (run_dir / "arriving").exists()
    assert not (run_dir / "cells" / "002-x").exists()


def test_without_a_host_the_run_ends(run_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="no host with a slot is left, and 3 cells wait for one: start one, --resume"):
        ran(run_dir, PlayedHosts(tmp_path / "hosts", free=0))


def test_what_a_dead_host_still_says_counts_for_nothing(run_dir: Path, tmp_path: Path) -> None:
    def speaks_again(job: Job, chunks: list[bytes]) -> Iterator[Heard]:
        yield from dies_half_way(job, chunks)
        yield Sent(job.held_as, chunks[0])
        yield Over(job.held_as)

    hosts = PlayedHosts(tmp_path / "hosts", {1: [speaks_again]})
    lines = ran(run_dir, hosts)
    assert lines.count("= 001-x kept") == 1
    assert read_cell(run_dir / "cells" / "001-x")["lost_hosts"] == ["host-b: node died"]


def test_what_a_killed_runner_left_of_arrivals_is_gone(run_dir: Path, tmp_path: Path) -> None:
    (run_dir / "arriving").mkdir()
    (run_dir / "arriving" / "run-001-1").write_bytes(b"half")
    ran(run_dir, PlayedHosts(tmp_path / "hosts"))
    assert verdicts(run_dir)["001-x"] == "kept"


def test_a_host_tells_phases_and_notes_and_progress_now_and_then() -> None:
    told: list[object] = []
    watch = Told(told.append)
    now = Progress(2, 1, 0, 0, 0, 0, None, None)
    watch.phase("steady")
    for _ in range(3):
        watch.progress(now)
    watch.note("x")
    assert told == [("phase", "steady"), ("progress", now), ("note", "x")]
