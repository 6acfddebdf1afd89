"""The offline half never imports the live half; model imports nothing of ours. Read from the imports themselves."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import mqtest

PACKAGE = Path(mqtest.__file__).parent

OFFLINE = {
    "bodies", "body", "causes", "checks", "chunks", "clock", "columns", "curves", "deliveries", "durations", "errors",
    "event_log", "fates", "fault_log", "hdr", "history", "job_ledger", "jobs", "judge", "latency_log", "ledger",
    "model", "neighbourhood", "only", "pacing", "packing", "paths", "pieces", "progress", "replayed", "report",
    "select", "series", "sift", "tables", "timeline", "toml", "totals", "user_judgement", "verdict",
}  # fmt: skip
"""modules and packages, by their first name, that need only files; everything else may need Docker or a broker"""


def imported(source: str, module: str) -> set[str]:
    """First names of the modules of ours that a source imports, wherever in it; `module` is its dotted name."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                package = module.split(".")[: -node.level]
                base = ".".join([*package, base]).rstrip(".")
            found |= {f"{base}.{alias.name}" for alias in node.names}
    ours = {name.split(".")[1] for name in found if name.startswith("mqtest.")}
    return {name for name in ours if (PACKAGE / f"{name}.py").is_file() or (PACKAGE / name).is_dir()}


def offline_files() -> list[Path]:
    """Every file of the offline half that exists."""
    files = [path for name in OFFLINE for path in (PACKAGE / f"{name}.py", *(PACKAGE / name).rglob("*.py"))]
    return sorted(path for path in files if path.is_file())


def dotted(path: Path) -> str:
    """`mqtest/report/collect.py` → `mqtest.report.collect`; a package's own file gets `.__init__`."""
    return ".".join(["mqtest", *path.relative_to(PACKAGE).with_suffix("").parts])


@pytest.mark.parametrize("path", offline_files(), ids=dotted)
def test_the_offline_half_imports_only_itself(path: Path) -> None:
    assert imported(path.read_text(encoding="utf-8"), dotted(path)) <= OFFLINE


def test_the_model_imports_nothing_of_ours() -> None:
    assert imported((PACKAGE / "model.py").read_text(encoding="utf-8"), "mqtest.model") == set()


def test_the_files_that_must_be_read_are_read() -> None:
    read = {dotted(path) for path in offline_files()}
    assert {f"mqtest.{name}" for name in ("ledger", "history", "checks.loss", "verdict", "judge", "model")} <= read
    assert "mqtest.report.collect" in read


@pytest.mark.parametrize(
    "line",
    [
        "import mqtest.runner",
        "import mqtest.runner as r",
        "from mqtest import runner",
        "from mqtest.runner import run",
        "from . import runner",
        "from .runner import run",
        "def f():\n    from mqtest.runner import run",
        "if TYPE_CHECKING:\n    from mqtest.runner import run",
    ],
)
def test_a_forbidden_import_is_seen(line: str) -> None:
    assert imported(line, "mqtest.judge") == {"runner"}


@pytest.mark.parametrize("line", ["import numpy", "from mqtest import __version__", "import docker"])
def test_other_imports_are_not_ours(line: str) -> None:
    assert imported(line, "mqtest.judge") == set()


@pytest.mark.parametrize("path", offline_files(), ids=dotted)
def test_the_offline_half_does_not_need_docker_or_a_client(path: Path) -> None:
    tree = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    names = {a.name for n in tree if isinstance(n, ast.Import) for a in n.names}
    tree = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    names |= {n.module or "" for n in tree if isinstance(n, ast.ImportFrom)}
    clients = {"confluent_kafka", "pika", "rocketmq", "rstream"}
    live = {"docker", "testcontainers", "toxiproxy", "subprocess", "socket"} | clients
    assert {name.split(".")[0] for name in names} & live == set()
