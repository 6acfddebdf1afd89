"""Which messages a channel's delivery tags stand for, by runs of consecutive tags: no object a message.

Rules (AMQP 0-9-1 with publisher confirms): tags count the messages published on a channel, from 1. An answer names one
tag, or, as `multiple`, all up to it that are open; 0 with `multiple` stands for all so far.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from typing import NamedTuple


class Run(NamedTuple):
    """Messages of one place with consecutive tags, from `tag` on."""

    tag: int
    seqs: range
    place: int


class Confirms:
    """The open messages of one channel."""

    def __init__(self) -> None:
        self.returned: set[int] = set()
        """seqs of open messages that came back: `take` leaves them out"""
        self._runs: list[Run] = []
        self._next = 1
        self._lowest = 1
        """no tag below is open"""
        self._done: set[int] = set()
        """tags above it that are not open either"""

    def sent(self, seqs: range, place: int) -> None:
        """These messages were published one after the other."""
        self._runs.append(Run(self._next, seqs, place))
        self._next += len(seqs)

    def named(self, tag: int, multiple: bool) -> tuple[int, int]:
        """First and last tag that an answer names."""
        return (self._lowest, tag or self._next - 1) if multiple else (tag, tag)

    def take(self, low: int, high: int) -> list[Run]:
        """The open messages of these tags; they are open no longer."""
        low, high = max(low, self._lowest), min(high, self._next - 1)
        if low > high:
            return []
        found: list[Run] = []
        at = max(0, bisect_right(self._runs, low, key=lambda run: run.tag) - 1)
        while at < len(self._runs) and self._runs[at].tag <= high:
            tag, seqs, place = self._runs[at]
            run = Run(max(low, tag), seqs[max(0, low - tag) : high + 1 - tag], place)
            found += self._pieces(run) if self._done or self.returned else [run] if run.seqs else []
            at += 1
        self._close(low, high)
        return found

    def _pieces(self, run: Run) -> Iterator[Run]:
        """What of a run is open and did not come back, in runs."""
        first = 0
        for nth, seq in enumerate(run.seqs):
            gone = run.tag + nth in self._done
            if not gone and seq in self.returned:
                self.returned.remove(seq)
                gone = True
            if gone:
                if nth > first:
                    yield Run(run.tag + first, run.seqs[first:nth], run.place)
                first = nth + 1
        if first < len(run.seqs):
            yield Run(run.tag + first, run.seqs[first:], run.place)

    def _close(self, low: int, high: int) -> None:
        if low > self._lowest:
            self._done.update(range(low, high + 1))
            return
        self._lowest = high + 1
        if self._done:
            self._done = {tag for tag in self._done if tag > high}
            while self._lowest in self._done:
                self._done.remove(self._lowest)
                self._lowest += 1
        over = 0
        while over < len(self._runs) and self._runs[over].tag + len(self._runs[over].seqs) <= self._lowest:
            over += 1
        del self._runs[:over]
