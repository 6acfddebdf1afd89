"""How many examples a property is tried with: few on every run, many with `pytest --hypothesis-profile=thorough`.
And which test comes first: the longest, so that the others run beside it."""

from __future__ import annotations

import os

import pytest
from hypothesis import settings

LONGEST = "test_self_test.py"

settings.register_profile("quick", max_examples=25, deadline=None, derandomize="CI" in os.environ)
settings.register_profile("thorough", max_examples=1000, deadline=None)
settings.load_profile("quick")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """See pytest."""
    items.sort(key=lambda item: item.path.name != LONGEST)
