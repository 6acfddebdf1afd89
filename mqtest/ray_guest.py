"""What Ray runs on a host. Sent there by value, so that a host without mqtest, or with another one, can say so: nothing
of ours is imported before the versions were compared.
"""

from __future__ import annotations

import pickle
import platform
import sys
from collections.abc import Iterator
from typing import Any

Versions = tuple[str, str]
"""of mqtest, and of Python (major.minor)"""


class Board:
    """Where hosts tell how their cells stand; lives on the runner's own machine, as an actor."""

    def __init__(self) -> None:
        self._told: list[tuple[str, str, Any]] = []

    def tell(self, key: str, what: str, value: Any) -> None:
        """`key` names the job; `what` is `began`, or a method of CellWatch."""
        self._told.append((key, what, value))

    def take(self) -> list[tuple[str, str, Any]]:
        """What was told since the last time."""
        told, self._told = self._told, []
        return told


def here() -> Versions:
    """The versions on this machine; of mqtest an empty one where it cannot be imported."""
    python = ".".join(platform.python_version_tuple()[:2])
    try:
        from mqtest import __version__
    except ImportError:
        return "", python
    return __version__, python


def complaint(asked: Versions, containers: bool) -> str | None:
    """Why this host cannot take cells of a run of these versions, or None."""
    found = here()
    if found != asked:
        has = f"mqtest {found[0]}" if found[0] else "no mqtest"
        return (
            f"it has {has} on Python {found[1]} ({sys.executable}), "
            f"and the runner has mqtest {asked[0]} on Python {asked[1]}: install the same on both"
        )
    if containers:
        from mqtest.doctor import require_engine
        from mqtest.errors import MqtestError

        try:
            require_engine()
        except MqtestError as error:
            return str(error)
    return None


def cell(asked: Versions, packed_job: bytes, board: Any) -> Iterator[bytes | str]:
    """Run a pickled Job; yields the chunks of its folder, or one complaint."""
    said = complaint(asked, containers=False)
    if said is not None:
        yield said
        return
    import ray

    from mqtest.remote_cell import Told, run_here

    job = pickle.loads(packed_job)
    key = job.held_as
    board.tell.remote(key, "began", ray.get_runtime_context().get_node_id())
    yield from run_here(job, Told(lambda said: board.tell.remote(key, *said)))
