"""The tutorial, word by word: its files are written and its commands run, in its order, on the embedded broker."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.pages_of_docs import TUTORIAL, run, steps
from tests.test_readme import ELSEWHERE


def test_whoever_follows_the_tutorial_sees_what_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    said: dict[str, str] = {}
    for name, text in steps(TUTORIAL):
        if name:
            Path(name).write_text(text, encoding="utf-8")
        elif text not in ELSEWHERE:
            assert text not in said
            said[text] = run(with_folders(text))
    assert {path.name for path in Path().glob("*.*")} >= {"mine.toml", "crash.toml", "requirements.toml"}
    assert said["mqtest run mine.toml --dry-run"].count("\n") == 2
    assert "lost-as-documented    100 / " in said["mqtest run mine.toml"]
    assert said["mqtest check results/FIRST"] == "2 cells judged, no differences\n"
    for command in (command for command in said if command.startswith("mqtest select results/FIRST")):
        assert "1 of 2 profiles qualifies" in said[command]
        assert "1. memory/log-safe\n" in said[command]
        assert "missed by 100" in said[command]
    compared = "mqtest compare results/FIRST results/SECOND"
    assert "1 group compared: " in said[f"{compared} --only memory/log-lossy"]
    assert "only in OLD" not in said[f"{compared} --only memory/log-lossy"]
    assert "memory/log-safe under kill:leader: only in OLD: kept\n" in run(with_folders(compared), code=2)
    assert said["mqtest run crash.toml --dry-run"].count("\n") == 6
    assert len(said) == 11


def with_folders(command: str) -> str:
    """FIRST and SECOND are the runs that are there, in the order of their times."""
    runs = sorted(path.name for path in Path("results").glob("*-mine*"))
    for word, name in zip(("FIRST", "SECOND"), runs, strict=False):
        command = command.replace(word, name)
    return command
