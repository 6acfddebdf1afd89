"""Times at which something happened, in order, with as many kept as a judge can hold.

Up to EXACT of them, all are kept. Of more, the first and the last of each millisecond (2^20 ns) are kept, with how many
they stand for: a gap between two that are neighbours here is a true gap, or shorter than a millisecond.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mqtest.tables import Ints

EXACT = 1 << 21
_BUCKET_BITS = 20


@dataclass(frozen=True, slots=True)
class Series:
    """`counts`: how many things each of the `times` stands for."""

    times: Ints
    counts: Ints

    def between(self, begin: int, end: int) -> int:
        """How many happened from `begin` on, before `end`."""
        first, last = np.searchsorted(self.times, (begin, end))
        return int(self.counts[first:last].sum())


def series(times: Ints, *, exact: bool) -> Series:
    """Of times in any order."""
    times = np.sort(times)
    return _thinned(times, np.ones(len(times), dtype=np.int64), exact)


def joined(parts: Sequence[Series], *, exact: bool) -> Series:
    """All of them as one."""
    if len(parts) == 1:
        return parts[0]
    none = np.zeros(0, dtype=np.int64)
    times = np.concatenate([none, *(part.times for part in parts)])
    order = np.argsort(times, kind="stable")
    return _thinned(times[order], np.concatenate([none, *(part.counts for part in parts)])[order], exact)


def _thinned(times: Ints, counts: Ints, exact: bool) -> Series:
    if exact or not len(times):
        return Series(times, counts)
    bucket = times >> _BUCKET_BITS
    first = np.flatnonzero(np.concatenate([[True], bucket[1:] != bucket[:-1]]))
    last = np.append(first[1:], len(times)) - 1
    total = np.add.reduceat(counts, first)
    more = first != last
    own = np.where(more, counts[last], 0)
    kept = np.stack([times[first], times[last]], axis=1)
    numbers = np.stack([total - own, own], axis=1)
    keep = np.stack([np.ones(len(first), dtype=np.bool_), more], axis=1)
    return Series(kept[keep], numbers[keep])
