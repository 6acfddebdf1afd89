"""`--only`: the cells that a person means by globs, of a plan as of rows of results.csv."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatch


def meant(globs: Sequence[str], name: str, cell: str) -> bool:
    """Whether one of the globs matches `broker/profile/fault`, its beginning up to a `/`, or the id of the cell."""
    return any(fnmatch(name, glob) or fnmatch(name, f"{glob}/*") or fnmatch(cell, glob) for glob in globs)
