"""The example projects: what they say of themselves is so."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"


def outcomes(folder: Path, *options: str, timeout_s: float) -> tuple[dict[str, int], str]:
    """How many of its tests came to what, and what was said."""
    command = [sys.executable, "-m", "pytest", "-p", "mqtest.pytest_plugin", "-p", "no:cacheprovider", *options, folder]
    environment = {**os.environ, "PYTHONPATH": str(EXAMPLES.parent), "COLUMNS": "200"}
    done = subprocess.run(
        command, env=environment, cwd=folder, capture_output=True, text=True, check=False, timeout=timeout_s
    )
    last = done.stdout.strip().splitlines()[-1]
    return {word: int(number) for number, word in re.findall(r"(\d+) (\w+)", last)}, done.stdout + done.stderr


def test_the_orders_on_the_embedded_broker() -> None:
    found, said = outcomes(EXAMPLES / "orders", "-m", "not docker", timeout_s=250)
    assert (found.get("passed"), found.get("xfailed"), found.get("failed")) == (2, 2, None), said


def test_the_bug_is_found_for_what_it_is() -> None:
    found, said = outcomes(EXAMPLES / "orders", "--runxfail", "-k", "memory-queue-careless", timeout_s=250)
    assert found.get("failed") == 1, said
    assert "acknowledged messages were missed: a consumer told the broker that it is done with them" in said
    assert "the broker: kept (0 of 500 acked messages lost under power-cut:leader)" in said


@pytest.mark.docker
@pytest.mark.long
@pytest.mark.timeout(900)
def test_the_orders_on_real_brokers() -> None:
    found, said = outcomes(EXAMPLES / "orders", "-m", "docker", timeout_s=850)
    assert (found.get("passed"), found.get("xfailed"), found.get("failed")) == (2, 2, None), said
