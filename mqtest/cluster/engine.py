"""The Docker engine: one way to reach it, and its errors as ours.

An engine that is gone or silent is an EngineError; what it refuses to do with a container, a network or a volume is a
ClusterError. Whatever mqtest makes on it carries two labels, `mqtest` and `mqtest.run`; only what carries the second
is ever touched (images pass the first on to every container that anybody makes of them).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

import docker
import docker.errors
import urllib3.exceptions

from mqtest.errors import ClusterError, EngineError

RUN_LABEL: Final = "mqtest.run"
ANSWER_S: Final = 60
"""the longest silence of the engine"""

T = TypeVar("T")
R = TypeVar("R")


def labels(run: str) -> dict[str, str]:
    """The labels of what a run makes."""
    return {"mqtest": "1", RUN_LABEL: run}


@contextlib.contextmanager
def asking(what: str) -> Iterator[None]:
    """Turns the engine's errors in this block into ours; `what` says what was asked, as in "starting kafka-1"."""
    try:
        yield
    except docker.errors.APIError as error:
        raise ClusterError(f"{what}: {' '.join(str(error.explanation or error).split())}") from error
    except (docker.errors.DockerException, urllib3.exceptions.HTTPError, OSError) as error:
        raise EngineError(f"{what}: the Docker engine is gone or silent: {error}") from error


def connect() -> docker.DockerClient:
    """A client of the engine, for several threads; raises EngineError. Whoever connects closes."""
    try:
        client = docker.from_env(timeout=ANSWER_S, max_pool_size=16)
    except docker.errors.DockerException:
        raise EngineError("no Docker engine answers: start it, or run `make setup`") from None
    try:
        with asking("connecting"):
            client.ping()
    except BaseException:
        client.close()
        raise
    return client


def together(act: Callable[[T], R], items: Iterable[T]) -> list[R]:
    """Do it to all at the same time; raises the first error once all are done."""
    work = list(items)
    if not work:
        return []
    with ThreadPoolExecutor(len(work)) as pool:
        waiting = [pool.submit(act, item) for item in work]
    return [one.result() for one in waiting]
