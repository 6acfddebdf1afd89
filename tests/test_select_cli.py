"""`mqtest select` from its words to its exit codes and its output."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest

from mqtest.cli import main
from mqtest.select.requirements import presets
from tests.run_dirs import make_cell, make_run


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    """One profile that keeps everything, one that loses under kill:all."""
    made = make_run(tmp_path, "one")
    for fault in ("none", "kill:all"):
        make_cell(made, f"safe-{fault[:4]}", profile="safe", fault=fault)
        make_cell(made, f"lossy-{fault[:4]}", profile="lossy", fault=fault, lost=2 if fault != "none" else 0)
    return made


@pytest.mark.parametrize(
    ("needs", "code", "words"),
    [
        (["lost == 0 under kill all"], 0, "1 of 2 profiles qualifies"),
        (["lost == 0 under none", "ordered"], 0, "2 of 2 profiles qualify"),
        (["lost > 5"], 1, "None of 2 profiles qualifies"),
        (["lost == 0 under pause:all"], 2, "2 of 2 profiles could not be told"),
        (["lost == 0 under kill:all", "replay"], 2, "lost == 0 under kill:all: missed by 2, in 1 of 1 cell"),
    ],
)
def test_the_exit_code_and_the_screen(
    needs: list[str], code: int, words: str, run_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["select", str(run_dir), *(word for need in needs for word in ("--need", need))]) == code
    captured = capsys.readouterr()
    assert words in captured.out
    assert captured.err == ""
    assert "\x1b" not in captured.out


def test_the_formats(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["select", str(run_dir), "--need", "lost == 0 under kill:all", "--prefer", "latency", "--format"]
    assert main([*words, "json"]) == 0
    assert [p["standing"] for p in json.loads(capsys.readouterr().out)["profiles"]] == ["qualifies", "fails"]
    assert main([*words, "csv"]) == 0
    table = csv.DictReader(io.StringIO(capsys.readouterr().out))
    assert [line["profile"] for line in table] == ["memory/safe", "memory/lossy"]
    assert main([*words, "markdown"]) == 0
    assert "| 1. memory/safe | lost == 0 under kill:all | met in 1 of 1 cell" in capsys.readouterr().out


def test_a_file_a_preset_and_needs_add_up(run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "requirements.toml"
    path.write_text('needs = ["ordered"]\nprefer = ["cpu"]\ncells = 2\n', encoding="utf-8")
    words = ["select", str(run_dir), "--requirements", str(path), "--preset", "kappa", "--need", "comes back"]
    assert main([*words, "--format", "json"]) == 2
    found = json.loads(capsys.readouterr().out)
    assert found["needs"][0] == "replay"
    assert found["needs"][-1] == "comes back"
    assert found["needs"].count("ordered") == 1
    assert (found["prefer"], found["cells_wanted"]) == (["cpu"], 2)
    assert main([*words, "--prefer", "latency", "--cells", "1", "--format", "json"]) == 2
    found = json.loads(capsys.readouterr().out)
    assert (found["prefer"], found["cells_wanted"]) == (["latency"], 1)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ([], "mqtest: name at least one run folder or results.csv (see `mqtest select --help`)"),
        (["RUN"], "mqtest: no need is given; such as --need 'lost == 0 under power-cut:all', or --preset money"),
        (["/absent", "--need", "lost == 0"], "mqtest: /absent: no such folder or file"),
        (["RUN", "--need", "lost = 0"], None),
        (["RUN", "--need", "lost == 0 under kil:all"], None),
        (["RUN", "--need", "lost == 0", "--prefer", "speed"], None),
        (["RUN", "--preset", "absent"], None),
        (["RUN", "--requirements", "/absent.toml"], "mqtest: /absent.toml: No such file or directory"),
        (["RUN", "--need", "lost == 0", "--format", "xml"], None),
        (["RUN", "--need", "lost == 0", "--cells", "0"], None),
    ],
)
def test_bad_usage_is_one_line_and_64(
    words: list[str], line: str | None, run_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["select", *(str(run_dir) if word == "RUN" else word for word in words)]) == 64
    captured = capsys.readouterr()
    assert captured.out == ""
    (said,) = captured.err.splitlines()
    assert said == line if line else said.startswith("mqtest: ")


def test_presets_are_listed_with_their_needs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["select", "--presets"]) == 0
    said = capsys.readouterr().out
    for name, about, asked in presets():
        assert f"  {name}: {about}\n" in said
        assert all(f"      {need}\n" in said for need in asked.needs)
    for words in ("  ordered ", "  throughput ", "latency_ms_p99"):
        assert words in said


def test_the_help_tells_the_exit_codes_and_teaches(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["select", "--help"]) == 0
    said = capsys.readouterr().out
    for words in ("0 some profile qualifies", "1 none does", "2 none does", "  mqtest select results/RUN --need "):
        assert words in said
