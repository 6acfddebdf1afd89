"""How long things took, to the microsecond that results are given to: exact ranks, without keeping every one of them.

Those from 0 to SHORT_US are counted by the microsecond; the others, which are few, are kept.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from mqtest.tables import Ints

SHORT_US = 1 << 20
_NS_PER_US = 1000

Spread = tuple[Ints, Ints]
"""of some durations: how many took 0, 1, 2, … microseconds, and the others in microseconds"""


def spread(durations_ns: Ints) -> Spread:
    """Of durations in ns."""
    took_us = (durations_ns + _NS_PER_US // 2) // _NS_PER_US
    short = (took_us >= 0) & (took_us < SHORT_US)
    return np.bincount(took_us[short]), took_us[~short]


class Durations:
    """A sum of spreads."""

    def __init__(self, parts: Iterable[Spread] = ()) -> None:
        self.number = 0
        """how many durations"""
        self._short: Ints = np.zeros(SHORT_US, dtype=np.int64)
        self._others: list[Ints] = []
        for part in parts:
            self.add(part)

    def add(self, part: Spread) -> None:
        """Take these too."""
        short, others = part
        self._short[: len(short)] += short
        self._others.append(others)
        self.number += int(short.sum()) + len(others)

    def ranks(self, thousandths: Iterable[int]) -> list[int]:
        """For each, the duration in microseconds that so many thousandths of all are not above, by nearest rank."""
        others = np.sort(np.concatenate(self._others))
        below = int(np.searchsorted(others, 0))
        so_far = np.cumsum(self._short)
        found = []
        for rank in (-(-self.number * part // 1000) for part in thousandths):
            if below < rank <= below + so_far[-1]:
                found.append(int(np.searchsorted(so_far, rank - below)))
            else:
                found.append(int(others[rank - 1 - (0 if rank <= below else int(so_far[-1]))]))
        return found
