"""What is refused before a Ray cluster is asked for anything, and what a host complains of."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from mqtest import __version__, doctor, ray_guest
from mqtest.cli import main
from mqtest.errors import EngineError

HERE = (__version__, f"{sys.version_info.major}.{sys.version_info.minor}")


def run_words(tmp_path: Path, *words: str) -> list[str]:
    return ["run", "self-test", "--plain", "--results", str(tmp_path / "results"), *words]


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--ray", "host"], "--ray host: HOST:PORT is wanted, as `ray start --address` takes it, or `auto`"),
        (["--ray", "ray://host:10001"], "--ray ray://host:10001: HOST:PORT is wanted, as "),
        (["--ray", "127.0.0.1:1"], "--ray 127.0.0.1:1: no Ray cluster answers there: "),
        (["--ray", "127.0.0.1:99999"], "--ray 127.0.0.1:99999: no Ray cluster answers there: "),
        (["--ray", "auto", "--keep"], "--keep leaves a cluster up on this machine: it does not go with --ray"),
    ],
)
def test_what_cannot_be_is_one_line_and_makes_nothing(
    words: list[str], line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(run_words(tmp_path, *words)) == 64
    assert capsys.readouterr().err.splitlines()[-1].startswith(f"mqtest: {line}")
    assert not (tmp_path / "results").exists()


def test_without_ray_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    assert main(run_words(tmp_path, "--ray", "auto")) == 64
    assert "mqtest: --ray needs Ray: pip install 'mqtest[ray]'" in capsys.readouterr().err.splitlines()[-1]


def test_a_host_of_the_same_versions_has_no_complaint() -> None:
    assert ray_guest.here() == HERE
    assert ray_guest.complaint(HERE, containers=False) is None


@pytest.mark.parametrize("asked", [("9.9", HERE[1]), (HERE[0], "2.7")])
def test_a_host_of_other_versions_says_both(asked: tuple[str, str]) -> None:
    assert ray_guest.complaint(asked, containers=False) == (
        f"it has mqtest {HERE[0]} on Python {HERE[1]} ({sys.executable}), "
        f"and the runner has mqtest {asked[0]} on Python {asked[1]}: install the same on both"
    )


def test_a_host_without_mqtest_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mqtest", None)
    said = ray_guest.complaint(HERE, containers=True)
    assert said is not None
    assert said.startswith(f"it has no mqtest on Python {HERE[1]} (")


def test_cells_in_containers_need_an_engine_there(monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> None:
        raise EngineError("no Docker engine answers")

    monkeypatch.setattr(doctor, "require_engine", none)
    assert ray_guest.complaint(HERE, containers=False) is None
    assert ray_guest.complaint(HERE, containers=True) == "no Docker engine answers"


def test_a_cell_on_a_host_of_other_versions_is_a_complaint_and_not_unpacked() -> None:
    (said,) = ray_guest.cell(("9.9", HERE[1]), b"no pickle", board=None)
    assert said == ray_guest.complaint(("9.9", HERE[1]), containers=False)
