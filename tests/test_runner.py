"""Run folders: one name a run, on the whole machine."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pytest

from mqtest import runner
from mqtest.cluster.locks import live_runs
from mqtest.scenario import load, locate


@pytest.fixture(autouse=True)
def one_second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Time stands still, and the machine has no other runs."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "runtime"))
    monkeypatch.setattr(runner.time, "strftime", lambda *_: "T")


def test_runs_that_begin_in_one_second_get_names_of_their_own(tmp_path: Path) -> None:
    scenario = load(locate("self-test"))
    with ExitStack() as stack:
        begun = [stack.enter_context(runner._new(tmp_path / folder, scenario)).name for folder in ("a", "b", "a")]
        assert begun == ["T-self-test", "T-self-test-1", "T-self-test-2"]
        assert live_runs() == set(begun)
    assert live_runs() == set()
    with runner._new(tmp_path / "a", scenario) as after:
        assert after.name == "T-self-test-1"  # "b" had that one
