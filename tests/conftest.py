"""How many examples a property is tried with: few on every run, many with `pytest --hypothesis-profile=thorough`."""

from __future__ import annotations

import os

from hypothesis import settings

settings.register_profile("quick", max_examples=25, deadline=None, derandomize="CI" in os.environ)
settings.register_profile("thorough", max_examples=1000, deadline=None)
settings.load_profile("quick")
