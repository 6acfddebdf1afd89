"""Where recipes, scenarios and benchmarks are: beside the package in a clone, inside it in an installed wheel."""

from __future__ import annotations

from pathlib import Path

from mqtest.errors import MqtestError

_PACKAGE = Path(__file__).resolve().parent


def _shipped(name: str) -> Path:
    for candidate in (_PACKAGE / "_data" / name, _PACKAGE.parent / name):
        if candidate.is_dir():
            return candidate
    raise MqtestError(f"{name}/ is neither beside nor inside the mqtest package: the installation is incomplete")


def recipes() -> Path:
    """The folder with `kafka/`, `rabbitmq/`, `rocketmq/`, `memory/` (compose files, profiles) and `images/`."""
    return _shipped("compose")


def scenarios() -> Path:
    """The folder with the scenarios that mqtest ships."""
    return _shipped("scenarios")


def benchmarks() -> Path:
    """The folder with what `mqtest bench` measures."""
    return _shipped("benchmarks")
