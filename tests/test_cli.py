"""The command line from its words to its exit codes. The runner, the leftovers and the doctor, which need an engine,
are replaced by small fakes of the same signature; scenario, plan, judge and report are the real ones."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import pytest
from click.testing import CliRunner

import mqtest
import mqtest.cluster
from mqtest import inventory, paths
from mqtest.brokers import BROKERS
from mqtest.checks import CHECKS
from mqtest.cli import cli, main
from mqtest.clients import CLIENTS
from mqtest.cluster.locks import RunLock
from mqtest.errors import EngineError, MqtestError
from mqtest.faults import FAULTS
from mqtest.model import Node
from mqtest.plan import Plan
from mqtest.profile import load_profiles
from mqtest.scenario import Scenario
from mqtest.targets import TARGETS
from mqtest.watch import Watch
from tests.run_dirs import make_cell, make_run

COMMANDS = (
    "run", "attach", "bench", "calibrate", "check", "compare", "report", "select", "list", "doctor", "up", "down",
    "clean", "schema", "version",
)  # fmt: skip


@dataclass
class FakeRunner:
    """Writes the cells that it is given instead of running them, then ends as told."""

    lost: int = 0
    cells: int = 1_000
    end: Callable[[], None] = lambda: None
    asked: dict[str, Any] = field(default_factory=dict)

    def run(
        self,
        scenario: Scenario,
        plan: Plan,
        results: Path,
        *,
        keep: bool,
        ray: str | None,
        resume: Path | None,
        watch: Watch,
    ) -> Path:
        self.asked = {
            "keep": keep,
            "ray": ray,
            "resume": resume,
            "seed": plan.seed,
            "cells": [cell.id for cell in plan.cells],
        }
        facts = {"title": scenario.title, "text": scenario.text, "must_lose": [str(f) for f in scenario.must_lose]}
        run_dir = resume or make_run(results, "the-run", self.asked["cells"], scenario=facts, seed=plan.seed)
        watch.run_planned(plan.cells, plan.expected_s, plan.disk_mb)
        watch.run_opened(run_dir)
        for number, cell in enumerate(plan.cells[: self.cells], 1):
            watch.cell_started(cell, number, len(plan.cells))
            if not (run_dir / "cells" / cell.id).exists():
                profile, fault, survives = cell.profile.name, str(cell.fault), cell.profile.promise.survives
                make_cell(run_dir, cell.id, profile=profile, fault=fault, survives=survives, lost=self.lost)
        self.end()
        return run_dir

    @staticmethod
    def up(profile: Any, nodes: int, progress: Callable[[str], None]) -> tuple[Node, ...]:
        progress(f"starting {profile.path}")
        return tuple(Node(f"kafka-{n}", f"198.19.1.{10 + n}") for n in range(1, nodes + 1))


@pytest.fixture
def runner(monkeypatch: pytest.MonkeyPatch) -> FakeRunner:
    fake = FakeRunner()
    stand_in(monkeypatch, mqtest, "runner", SimpleNamespace(run=fake.run, up=fake.up))
    return fake


def stand_in(monkeypatch: pytest.MonkeyPatch, package: Any, name: str, fake: object) -> None:
    monkeypatch.setitem(sys.modules, f"{package.__name__}.{name}", fake)
    monkeypatch.setattr(package, name, fake, raising=False)


def fail(error: BaseException) -> Callable[[], None]:
    def end() -> None:
        raise error

    return end


# --- help, usage, errors


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_of_every_command(command: str) -> None:
    result = CliRunner().invoke(cli, [*command.split(), "--help"])
    assert result.exit_code == 0
    assert result.output.startswith(f"Usage: cli {command}".rstrip())


def test_the_commands_are_these() -> None:
    assert tuple(sorted(cli.list_commands(click.Context(cli)))) == tuple(sorted(COMMANDS))


@pytest.mark.parametrize(
    "command", ["run", "attach", "bench", "check", "compare", "report", "select", "up", "clean"]
)
def test_help_of_a_command_that_takes_words_has_an_example(command: str) -> None:
    assert f"  mqtest {command} " in CliRunner().invoke(cli, [command, "--help"]).output


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["nonsense"], "mqtest: No such command 'nonsense' (see `mqtest --help`)"),
        (["run"], "mqtest: Missing argument 'SCENARIO' (see `mqtest run --help`)"),
        (
            ["run", "self-test", "--shard", "5/4"],
            "mqtest: Invalid value for --shard: '5/4' is not I/N with 1 <= I <= N, such as 2/4 "
            "(see `mqtest run --help`)",
        ),
        (["clean"], "mqtest: give either --keep N or --older-than DAYS (see `mqtest clean --help`)"),
        (["check", "/absent"], "mqtest: /absent: no such folder"),
        (["run", "/absent.toml"], None),
        (["run", "self-test", "--repeat", "0"], None),
        (["run", "self-test", "--only", "nothing/*"], None),
        (["up", "kafka/nothing"], None),
    ],
)
def test_bad_usage_is_one_line_and_64(words: list[str], line: str | None, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 64
    captured = capsys.readouterr()
    assert captured.out == ""
    (said,) = captured.err.splitlines()
    assert said.startswith("mqtest: ")
    assert line is None or said == line


def test_no_command_shows_the_help_and_is_bad_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 64
    assert "First steps:" in capsys.readouterr().err


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["version"]) == 0
    assert capsys.readouterr().out == f"mqtest {mqtest.__version__}\n"


# --- list


def test_list_names_everything_in_the_tables_once(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list"]) == 0
    listed: dict[str, list[str]] = {}
    section = ""
    for line in capsys.readouterr().out.splitlines():
        if line.startswith("  "):
            listed[section].append(line.split()[0])
        elif line:
            section = line
            listed[section] = []
    assert listed == {
        "brokers": list(BROKERS),
        "clients": list(CLIENTS),
        "profiles": [profile.path for broker in BROKERS for profile in load_profiles(broker).values()],
        "faults": list(FAULTS),
        "targets": list(TARGETS),
        "checks": list(CHECKS),
        "scenarios": sorted(path.stem for path in paths.scenarios().glob("*.toml")),
    }
    assert all(len(names) == len(set(names)) > 0 for names in listed.values())


def test_list_has_a_line_about_everything() -> None:
    for what, entries in inventory.sections():
        assert [name for name, about in entries if not about] == [], what


# --- run


def test_dry_run_shows_the_plan_and_runs_nothing(runner: FakeRunner, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["run", "self-test", "--dry-run", "--only", "memory/log-safe/none", "--repeat", "2", "--seed", "5"]
    assert main(words) == 0
    captured = capsys.readouterr()
    assert captured.out == (
        "001-memory-log-safe-none-1  memory/log-safe under none, repeat 1\n"
        "002-memory-log-safe-none-2  memory/log-safe under none, repeat 2\n"
    )
    assert captured.err.startswith("self-test: 2 cells, about ")
    assert captured.err.endswith("; seed 5\n")
    assert runner.asked == {}


def test_dry_run_shows_the_timeline_of_a_schedule_of_one_step(
    runner: FakeRunner, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scenario = """
        title = "t"
        question = "q?"
        profiles = ["memory/log-safe"]
        faults = ["late", "kill:leader"]
        nodes = 1
        [schedule.late]
        steps = [{ do = "kill:leader", at_s = 1, for_s = 3 }]
    """
    (tmp_path / "x.toml").write_text(scenario)
    assert main(["run", str(tmp_path / "x.toml"), "--dry-run"]) == 0
    lines = capsys.readouterr().out.splitlines()
    late = lines.index("001-memory-log-safe-late-1  memory/log-safe under late, repeat 1")
    assert lines[late + 1] == "    group 1 at 1 s: kill:leader for 3 s"
    assert len(lines) == 3


def test_shard_takes_every_nth_cell(runner: FakeRunner, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "self-test", "--dry-run", "--shard", "2/5"]) == 0
    assert sorted(line[:3] for line in capsys.readouterr().out.splitlines()) == ["002", "007", "012"]


def run_words(results: Path, *words: str) -> list[str]:
    return ["run", "self-test", "--plain", "--results", str(results), "--only", "memory/log-safe/none", *words]


def test_run_prints_the_table_and_the_files(
    runner: FakeRunner, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(run_words(tmp_path, "--keep")) == 0
    captured = capsys.readouterr()
    assert "kept" in captured.out
    assert captured.out.splitlines()[-6:] == [
        str(tmp_path / "the-run" / name)
        for name in ("results.csv", "results.parquet", "report.md", "report.html", "matrix.svg", "junit.xml")
    ]
    assert f"results in {tmp_path / 'the-run'}" in captured.err
    assert runner.asked["keep"] is True
    assert "\x1b" not in captured.out + captured.err


def test_a_run_with_a_broken_cell_exits_1(runner: FakeRunner, tmp_path: Path) -> None:
    runner.lost = 3
    assert main(run_words(tmp_path)) == 1


@pytest.mark.parametrize(
    ("error", "code", "last_line"),
    [
        (KeyboardInterrupt(), 130, "mqtest: interrupted; finish it with: mqtest run self-test --only "),
        (EngineError("the engine is gone"), 70, "mqtest: the engine is gone"),
    ],
)
def test_an_ended_run_still_has_its_report(
    error: BaseException, code: int, last_line: str, runner: FakeRunner, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    runner.cells, runner.end = 1, fail(error)
    assert main(run_words(tmp_path, "--repeat", "2")) == code
    captured = capsys.readouterr()
    assert re.search(r"^not finished: 1 planned cell \(00(1|2)-memory-log-safe-none-\1\)$", captured.out, re.M)
    assert "1 kept, 1 planned and not finished." in (tmp_path / "the-run" / "report.md").read_text(encoding="utf-8")
    assert [line for line in captured.err.splitlines() if line][-1].startswith(last_line)


def test_what_an_interrupted_run_says_finishes_it(
    runner: FakeRunner, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runner.cells, runner.end = 1, fail(KeyboardInterrupt())
    main(run_words(tmp_path, "--repeat", "2", "--seed", "9"))
    words = shlex.split(capsys.readouterr().err.rpartition("finish it with: mqtest ")[2])
    runner.cells, runner.end = 2, lambda: None
    assert main(words) == 0
    assert runner.asked["resume"] == tmp_path / "the-run"
    assert runner.asked["seed"] == 9


def test_resume_takes_the_seed_of_the_run_and_refuses_another_plan(
    runner: FakeRunner, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(run_words(tmp_path, "--seed", "9")) == 0
    resume = ["--resume", str(tmp_path / "the-run")]
    assert main(run_words(tmp_path, *resume)) == 0
    assert runner.asked["seed"] == 9
    capsys.readouterr()
    assert main(run_words(tmp_path, "--repeat", "2", *resume)) == 64
    assert "that run has 1 cells, 1 of them among the 2 asked for" in capsys.readouterr().err
    (tmp_path / "the-run" / "run.json").write_text('{"run": "the-run", "planned": [], "seed": 1}', encoding="utf-8")
    assert main(run_words(tmp_path, *resume)) == 64
    assert "that run was of another scenario" in capsys.readouterr().err
    assert main(run_words(tmp_path, "--resume", str(tmp_path))) == 64
    assert "not the folder of a run" in capsys.readouterr().err


def test_a_defect_is_not_swallowed_and_the_report_is_there(runner: FakeRunner, tmp_path: Path) -> None:
    runner.end = fail(ZeroDivisionError())
    with pytest.raises(ZeroDivisionError):
        main(run_words(tmp_path))
    assert (tmp_path / "the-run" / "report.md").is_file()


def test_sigterm_is_an_interrupt_and_the_handlers_are_put_back(runner: FakeRunner, tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    runner.end = lambda: os.kill(os.getpid(), signal.SIGTERM)
    assert main(run_words(tmp_path)) == 130
    assert signal.getsignal(signal.SIGTERM) is before
    assert (tmp_path / "the-run" / "results.csv").is_file()


def test_a_full_disk_is_one_line(runner: FakeRunner, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runner.end = fail(OSError(28, "No space left on device", "results/x"))
    assert main(run_words(tmp_path)) == 70
    assert capsys.readouterr().err.splitlines()[-1] == "mqtest: results/x: No space left on device"


# --- run, for real, on the memory broker


def start(tmp_path: Path, *only: str) -> subprocess.Popen[str]:
    globs = [word for glob in only for word in ("--only", glob)]
    words = ["run", "self-test", "--results", str(tmp_path / "results"), *globs]
    return subprocess.Popen(
        [sys.executable, "-m", "mqtest", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_sigterm_of_a_real_run_leaves_the_finished_cells_in_the_report(tmp_path: Path) -> None:
    run = start(tmp_path, "memory/log-safe/none", "memory/log-lossy/none")
    assert run.stderr is not None
    for line in run.stderr:
        if re.fullmatch(r"\[2/2\] .*: steady\n", line):
            run.terminate()
            break
    out, err = run.communicate(timeout=60)
    assert run.returncode == 130, err
    assert re.search(r"not finished: 1 planned cell \(00[15]-memory-log-(safe|lossy)-none-1\)", out)
    (report,) = (tmp_path / "results").glob("*/report.md")
    assert "1 cell: 1 kept, 1 planned and not finished." in report.read_text(encoding="utf-8")
    assert "--resume" in err


# --- check and report


def test_check_prints_differences_and_the_exit_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_dir = make_run(tmp_path, "r")
    make_cell(run_dir, "001", lost=2)
    assert main(["check", str(run_dir)]) == 1
    assert capsys.readouterr().out == "1 cell judged, no differences\n"
    stored = run_dir / "cells" / "001" / "verdict.json"
    stored.write_text(stored.read_text(encoding="utf-8").replace('"lost": 2', '"lost": 1'), encoding="utf-8")
    assert main(["check", str(run_dir / "cells" / "001")]) == 1
    assert capsys.readouterr().out == "001: lost: 1 → 2\n1 cell judged, 1 difference\n"


def test_report_of_several_folders_merges_them_beside_the_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shards = [make_run(tmp_path, "one"), make_run(tmp_path, "two")]
    make_cell(shards[0], "001")
    make_cell(shards[1], "002", complete=False)
    assert main(["report", *map(str, shards)]) == 2
    assert len((tmp_path / "merged" / "results.csv").read_text(encoding="utf-8").splitlines()) == 3
    assert main(["report", str(shards[0])]) == 0
    assert (shards[0] / "report.md").is_file()
    assert main(["report", str(shards[0]), "--out", str(tmp_path / "there")]) == 0
    assert (tmp_path / "there" / "junit.xml").is_file()
    capsys.readouterr()


# --- the rest


def test_up_prints_the_addresses(runner: FakeRunner, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["up", "kafka/acks-all", "--nodes", "2"]) == 0
    captured = capsys.readouterr()
    assert captured.out == "kafka-1  198.19.1.11  broker\nkafka-2  198.19.1.12  broker\n"
    assert captured.err.splitlines() == ["starting kafka/acks-all", "it runs until `mqtest down`"]


@pytest.mark.parametrize(("words", "all_runs"), [(["down"], False), (["down", "--all"], True)])
def test_down(
    words: list[str], all_runs: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = []

    def clean(*, all_runs: bool, progress: Callable[[str], None]) -> str:
        asked.append(all_runs)
        progress("removing")
        return "3 containers"

    stand_in(monkeypatch, mqtest.cluster, "leftovers", SimpleNamespace(clean=clean))
    assert main(words) == 0
    assert asked == [all_runs]
    assert capsys.readouterr() == ("removed 3 containers\n", "removing\n")


def test_doctor_prints_its_table(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def examine(*, power_cut: bool, progress: Callable[[str], None]) -> str:
        return f"power cut {power_cut}"

    stand_in(monkeypatch, mqtest, "doctor", SimpleNamespace(examine=examine, render=lambda found: found))
    assert main(["doctor", "--power-cut"]) == 0
    assert capsys.readouterr().out == "power cut True\n"


def test_a_refusal_of_the_live_half_is_one_line_and_70(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def examine(**_: object) -> None:
        raise MqtestError("no\nengine")

    stand_in(monkeypatch, mqtest, "doctor", SimpleNamespace(examine=examine, render=lambda found: found))
    assert main(["doctor"]) == 70
    assert capsys.readouterr() == ("", "mqtest: no engine\n")


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three old runs, a copy of a run under a name of its own, and something else."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "runtime"))
    folder = tmp_path / "results"
    for name in ("2026-a", "2026-b", "2026-c"):
        make_run(folder, name)
    make_run(folder, "2026-d").rename(folder / "reference")
    (folder / "notes").mkdir()
    return folder


def left(results: Path) -> list[str]:
    return sorted(path.name for path in results.iterdir())


def test_clean_keeps_the_newest_and_what_is_no_run(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["clean", "--results", str(results), "--keep", "1", "--yes"]) == 0
    assert left(results) == ["2026-c", "notes", "reference"]
    assert capsys.readouterr().out.splitlines()[-1] == "removed 2 of 3 runs"


def test_clean_by_age(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["clean", "--results", str(results), "--older-than", "100000", "--yes"]) == 0
    assert capsys.readouterr().out == f"nothing to remove among 3 runs in {results}\n"
    assert main(["clean", "--results", str(results), "--older-than", "0", "--yes"]) == 0
    assert left(results) == ["notes", "reference"]


def test_clean_spares_a_run_that_goes_on(results: Path) -> None:
    with RunLock("2026-a"):
        assert main(["clean", "--results", str(results), "--keep", "0", "--yes"]) == 0
    assert left(results) == ["2026-a", "notes", "reference"]


@pytest.mark.parametrize(("answer", "removed"), [("n\n", False), ("y\n", True)])
def test_clean_asks(results: Path, answer: str, removed: bool) -> None:
    result = CliRunner().invoke(cli, ["clean", "--results", str(results), "--keep", "0"], input=answer)
    assert "remove these 3 of 3 runs?" in result.output
    assert (left(results) == ["notes", "reference"]) is removed
