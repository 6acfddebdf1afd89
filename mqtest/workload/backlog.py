"""What is due and not handed over yet: runs of consecutive messages with their due times; no object a message."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

import numpy as np

from mqtest.bodies import Ints


def due_times(t0_ns: int, interval_ns: float, after: int, now_ns: int) -> Ints:
    """The due times, t0 + i x interval cut to whole ns, of all messages i >= `after` that are due by now."""
    if t0_ns + int(after * interval_ns) > now_ns:
        return np.empty(0, dtype=np.int64)
    end = after + int((now_ns - t0_ns) / interval_ns - after) + 3  # a few too many, for the division rounds
    due: Ints = t0_ns + (np.arange(after, end) * interval_ns).astype(np.int64)
    return due[: int(np.searchsorted(due, now_ns, side="right"))]


class Backlog:
    """A queue of messages; `len` of them."""

    def __init__(self) -> None:
        self._runs: deque[tuple[int, Ints]] = deque()
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """(seq, due_ns) of each, in order."""
        for first, due_ns in self._runs:
            yield from enumerate(due_ns.tolist(), first)

    def add(self, first_seq: int, due_ns: Ints) -> None:
        """These messages, from first_seq on, come last."""
        if len(due_ns):
            self._runs.append((first_seq, due_ns))
            self._count += len(due_ns)

    def head(self, most: int) -> tuple[range, Ints]:
        """The first run, cut to `most` messages: seqs and due times."""
        first, due_ns = self._runs[0]
        due_ns = due_ns[:most]
        return range(first, first + len(due_ns)), due_ns

    def drop(self, count: int) -> None:
        """So many of the first run are done with."""
        first, due_ns = self._runs.popleft()
        if count < len(due_ns):
            self._runs.appendleft((first + count, due_ns[count:]))
        self._count -= count
