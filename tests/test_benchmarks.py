"""The scripts in benchmarks/ run and print what they say; how fast anything is, is no matter here."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def said(folder: Path, *words: str) -> str:
    done = subprocess.run(
        [sys.executable, *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def script(name: str) -> str:
    return str(ROOT / "benchmarks" / name)


def test_the_stages_of_a_run(tmp_path: Path) -> None:
    said(tmp_path, "-m", "mqtest", "run", "self-test", "--plain", "--only", "memory/log-safe/none")
    (run_dir,) = (tmp_path / "results").iterdir()
    lines = said(tmp_path, script("stages.py"), str(run_dir)).splitlines()
    rows = [[field.strip() for field in line.split("|")[1:-1]] for line in lines]
    assert rows[0] == ["", "memory, 1 cells"]
    took = {name: float(text.split()[0]) for name, text in rows[2:]}
    assert 0 < took["outside the phases"] <= took["whole cell"]
    assert took["outside the phases"] <= took["up"] + took["down"] + 0.2, "each is rounded"
    assert {"· containers", "· nodes", "· places", "drain", "audit"} <= set(took)


def test_the_verifier_finds_what_it_planted(tmp_path: Path) -> None:
    """It ends with 1 when it does not."""
    said(tmp_path, script("verifier.py"), "--messages", "2e4", "--losses", "7", "--duplicates", "3")
