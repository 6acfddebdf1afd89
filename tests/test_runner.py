"""Run folders: one name a run, on the whole machine."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pytest

from mqtest import runner
from mqtest.cluster.locks import live_runs


@pytest.fixture(autouse=True)
def one_second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Time stands still, and the machine has no other runs."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "runtime"))
    monkeypatch.setattr(runner.time, "strftime", lambda *_: "T")


def test_runs_that_begin_in_one_second_get_names_of_their_own(tmp_path: Path) -> None:
    with ExitStack() as stack:
        begun = [stack.enter_context(runner.new_run(tmp_path / folder, "Self test")).name for folder in ("a", "b", "a")]
        assert begun == ["T-self-test", "T-self-test-1", "T-self-test-2"]
        assert live_runs() == set(begun)
    assert live_runs() == set()
    with runner.new_run(tmp_path / "a", "Self test") as after:
        assert after.name == "T-self-test-1"  # "b" had that one
