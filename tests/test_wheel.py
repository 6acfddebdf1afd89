"""An installed wheel works outside the clone: recipes and scenarios travel inside it."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with nothing of the clone in it but what the wheel carries."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "-q",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        str(folder),
        str(ROOT),
    ]
    subprocess.run(build, check=True, timeout=120)
    (wheel,) = folder.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(folder / "site")
    return folder / "site"


def test_the_wheel_carries_what_stands_in_the_tree(installed: Path) -> None:
    for name in ("benchmarks", "compose", "scenarios"):
        tree = {p.relative_to(ROOT / name) for p in (ROOT / name).rglob("*") if p.is_file()}
        shipped = {
            p.relative_to(installed / "mqtest/_data" / name)
            for p in (installed / "mqtest/_data" / name).rglob("*")
            if p.is_file()
        }
        assert shipped == tree


def test_it_runs_a_shipped_scenario_elsewhere(installed: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mqtest", "run", "self-test", "--only", "memory/log-safe/none", "--plain"]
    environment = {**os.environ, "PYTHONPATH": str(installed), "PYTHONSAFEPATH": "1"}
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    (report,) = (tmp_path / "results").glob("*-self-test/report.md")
    assert "memory/log-safe" in report.read_text()
    where = [sys.executable, "-c", "import mqtest.paths as p; print(p.recipes())"]
    shown = subprocess.run(where, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True, timeout=60)
    assert shown.stdout.strip() == str(installed / "mqtest/_data/compose")
