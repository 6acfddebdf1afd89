"""The live screen and the plain lines, from literal calls and a clock of the test's own."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from mqtest import live
from mqtest.live import PlainWatch, ScreenWatch, TimeLeft, duration, judged_line, planned_line
from mqtest.model import Cell, Duplicates, Kind, Order, Phases, Profile, Promise, Workload
from mqtest.schedule import parse_fault
from mqtest.watch import CellWatch, Progress, SilentWatch, Watch

PROMISE = Promise(survives=("none",), duplicates=Duplicates.NONE, order=Order.PLACE, source="test")
PROFILE = Profile(
    broker="kafka", name="acks-1", about="", client="confluent", kind=Kind.LOG, acknowledged=True, promise=PROMISE,
    settings={},
)  # fmt: skip
CELL = Cell(
    id="002-kafka", index=2, profile=PROFILE, fault=parse_fault("kill:all", "test", {}), repeat=1, seed=1, nodes=3,
    workload=Workload(), phases=Phases(), floor=1, fs="ext4", disk_mb=64, version="1",
)  # fmt: skip
LOST = {
    "broker": "kafka", "profile": "acks-1", "fault": "kill:all", "verdict": "lost-as-documented",
    "reason": "no promise",
    "lost": 12, "acked": 20000, "ack_gap_s_max": 3.2,
}  # fmt: skip
UNKNOWN = LOST | {"verdict": "unknown", "reason": "no\nfence", "lost": None, "ack_gap_s_max": None}


class Clock:
    """A clock that stands until it is set."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def watch_a_cell(watch: Watch) -> CellWatch:
    watch.run_planned([CELL, CELL], 120.0, 192)
    watch.run_opened(Path("results/r"))
    cell = watch.cell_started(CELL, 1, 2)
    cell.phase("steady")
    cell.progress(Progress(2100, 2000, 5, 1, 2, 300, 0.5, 2000.0))
    cell.note("leader is kafka-1")
    return cell


def test_duration() -> None:
    assert [duration(s) for s in (-1, 0, 89.4, 90, 3540, 3600, 3900)] == [
        "0 s", "0 s", "89 s", "2 min", "59 min", "1 h 00 min", "1 h 05 min",
    ]  # fmt: skip


def test_planned_line() -> None:
    assert planned_line(6, 240.0, 2304) == "6 cells, about 4 min, at most 2,304 MB of disk at a time"
    assert planned_line(1, 9.0, 64) == "1 cell, about 9 s, at most 64 MB of disk at a time"


def test_judged_line_gives_a_reason_only_where_the_cell_proves_nothing_good() -> None:
    assert judged_line("c", LOST) == "c lost-as-documented: lost 12 of 20,000 acked, longest ack gap 3.20 s"
    assert judged_line("c", UNKNOWN) == "c unknown: loss not judged (no fence)"


def test_time_left_is_the_guess_until_a_cell_is_over_then_what_cells_took() -> None:
    clock = Clock()
    left = TimeLeft(clock)
    assert left.seconds == 0.0
    left.planned(4, 40.0)
    assert (left.seconds, left.share) == (40.0, 0.0)
    clock.now_s += 4
    assert (left.seconds, left.share) == (36.0, 0.1)
    clock.now_s += 16
    left.cell_done()
    assert left.seconds == 60.0
    clock.now_s += 70
    assert left.seconds == 0.0


def test_plain_lines_exactly_and_without_control_codes() -> None:
    lines: list[str] = []
    watch = PlainWatch(lines.append)
    watch_a_cell(watch)
    watch.cell_judged(CELL.id, LOST)
    watch.note("bye")
    watch.run_ended()
    assert lines == [
        "2 cells, about 2 min, at most 192 MB of disk at a time",
        "results in results/r",
        "[1/2] 002-kafka: kafka/acks-1 under kill:all, repeat 1",
        "[1/2] 002-kafka: steady",
        "[1/2] 002-kafka: leader is kafka-1",
        "= 002-kafka lost-as-documented: lost 12 of 20,000 acked, longest ack gap 3.20 s",
        "bye",
    ]
    assert all(line.isprintable() for line in lines)
    assert watch.run_dir == Path("results/r")


def shown(watch: ScreenWatch) -> str:
    console = Console(file=io.StringIO(), width=140)
    with console.capture() as capture:
        console.print(watch.screen())
    return capture.get()


def test_the_screen_shows_cell_phase_rate_acked_gap_time_left_and_verdicts() -> None:
    clock = Clock()
    watch = ScreenWatch(Console(file=io.StringIO(), width=140, force_terminal=True), clock)
    cell = watch_a_cell(watch)
    clock.now_s += 1
    cell.progress(Progress(4100, 4000, 5, 1, 2, 300, 2.5, 2000.0))
    clock.now_s += 1
    cell.progress(Progress(4200, 4050, 5, 1, 2, 300, 0.1, 2000.0))
    text = shown(watch)
    for part in (
        "cell 1 of 2  kafka/acks-1 under kill:all, repeat 1",
        "steady, for 2 s",
        "1,025 acked per s (2,000 asked)",
        "4,050 of 4,200 sent, 5 unknown, 1 refused, 2 skipped",
        "0.1 s ago, longest gap so far 2.5 s",
        "about 2 min",
        "· leader is kafka-1",
    ):
        assert part in text
    assert "lost-as-documented" not in text
    watch.cell_judged(CELL.id, LOST)
    watch.run_ended()
    watch.run_ended()
    assert "002-kafka lost-as-documented: lost 12 of 20,000 acked" in shown(watch)


def test_the_screen_forgets_the_figures_of_the_cell_before() -> None:
    watch = ScreenWatch(Console(file=io.StringIO(), width=140, force_terminal=True), Clock())
    watch_a_cell(watch)
    cell = watch.cell_started(CELL, 2, 2)
    assert "acked per s" not in shown(watch)
    cell.progress(Progress(0, 0, 0, 0, 0, 0, None, None))
    assert "0 acked per s (as fast as it goes)" in shown(watch)
    assert "none yet, longest gap so far 0.0 s" in shown(watch)
    watch.run_ended()


def test_no_ack_is_no_gap_once_everything_is_sent() -> None:
    watch = ScreenWatch(Console(file=io.StringIO(), width=140, force_terminal=True), Clock())
    cell = watch_a_cell(watch)
    cell.phase("audit")
    cell.progress(Progress(2100, 2100, 0, 0, 0, 0, 9.0, 2000.0))
    assert "all sent, longest gap so far 0.5 s" in shown(watch)
    watch.run_ended()


def test_brackets_in_a_note_are_text_not_markup() -> None:
    watch = ScreenWatch(Console(file=io.StringIO(), width=140, force_terminal=True), Clock())
    watch_a_cell(watch)
    watch.note("state [red]down[/red] [/nothing]")
    assert "state [red]down[/red] [/nothing]" in shown(watch)
    watch.run_ended()


@pytest.mark.parametrize(("plain", "ci"), [(True, ""), (False, "true"), (False, "")])
def test_without_a_terminal_in_ci_or_when_asked_the_lines_are_plain(
    plain: bool, ci: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CI", ci)
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    assert isinstance(live.watch(plain=plain), PlainWatch)


def test_a_terminal_gets_the_screen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert isinstance(live.watch(plain=False), ScreenWatch)
    monkeypatch.setenv("CI", "true")
    assert isinstance(live.watch(plain=False), PlainWatch)


def test_the_silent_watch_takes_every_call() -> None:
    watch = SilentWatch()
    watch_a_cell(watch)
    watch.cell_judged(CELL.id, LOST)
    watch.run_ended()
    names = {*dir(Watch), *dir(CellWatch)}
    assert set(dir(SilentWatch)) >= {name for name in names if not name.startswith("_")}


def test_cells_on_several_hosts_have_lines_and_screens_of_their_own() -> None:
    lines: list[str] = []
    other = replace(CELL, id="001-kafka", index=1)
    for watch in (PlainWatch(lines.append), ScreenWatch(Console(file=io.StringIO(), width=140), Clock())):
        first, second = watch.cell_started(CELL, 1, 2), watch.cell_started(other, 2, 2)
        first.phase("steady")
        second.note("on host-b")
        first.note("on host-a")
    assert lines[-3:] == ["[1/2] 002-kafka: steady", "[2/2] 001-kafka: on host-b", "[1/2] 002-kafka: on host-a"]
    text = shown(watch)
    for part in ("cell 1 of 2", "steady, for 0 s", "cell 2 of 2", "up, for 0 s", "· 001-kafka: on host-b"):
        assert part in text
    watch.cell_judged(CELL.id, LOST)
    second.note("leader is kafka-1")
    assert "cell 1 of 2" not in shown(watch)
    assert "· leader is kafka-1" in shown(watch)
