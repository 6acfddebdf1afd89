"""How many examples a property is tried with: few on every run, many with `pytest --hypothesis-profile=thorough`.
Which test comes first: the longest, so that the others run beside it. And a machine without a Docker engine."""

from __future__ import annotations

import gc
import os
import warnings
from collections.abc import Iterator

import pytest
from hypothesis import settings

LONGEST = "test_self_test.py"

settings.register_profile("quick", max_examples=25, deadline=None, derandomize="CI" in os.environ)
settings.register_profile("thorough", max_examples=1000, deadline=None)
settings.load_profile("quick")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """See pytest."""
    items.sort(key=lambda item: item.path.name != LONGEST)


@pytest.fixture
def no_engine(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No Docker engine answers. Docker's library leaves the socket open that it could not connect, in a cycle: were it
    not collected here, its warning would come in some test that runs later."""
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere/docker.sock")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        yield
        gc.collect()
