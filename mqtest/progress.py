"""How far each place had come, by producer and connection, while its messages pass by: who is late, and behind whom.

Rows come in the order of their table. In a log what is followed is the audit, by position; in a queue consumers and
then the audit, by time, in places that one of each had to itself. Where that does not rise from row to row, `jumbled`
says so: nothing found here then says anything of that place.
"""

from __future__ import annotations

import numpy as np

from mqtest.pieces import Piece
from mqtest.tables import Bools, Ints, Messages


class Progress:
    """Of all places."""

    def __init__(self, messages: Messages, *, is_log: bool) -> None:
        self._messages = messages
        self._is_log = is_log
        self._highest: dict[tuple[int, ...], int] = {}
        """(place, producer) and (place, producer, connection) -> highest sequence so far"""
        self._reached: dict[int, int] = {}
        self._from: dict[tuple[int, int], int] = {}
        """(side, place) -> table"""
        self._open: dict[int, list[tuple[Ints, Ints]]] = {}
        self._shared: set[int] = set()
        self._jumbled: set[int] = set()

    @property
    def jumbled(self) -> bool:
        """Whether the rows of some place that can have an order did not come in it."""
        return bool(self._jumbled - self._shared)

    def follow(self, side: int, actor: int, piece: Piece, at: Ints, passed_over: Bools | None) -> Ints:
        """Take one piece; returns late messages and whom they came after. `at`: position or time of each row;
        `passed_over`: rows that are there a second time because the reader began anew."""
        if not self._is_log and self._from.setdefault((side, piece.place), actor) != actor:
            self._shared.add(piece.place)
        rows = np.arange(piece.rows.start, piece.rows.stop) if isinstance(piece.rows, slice) else piece.rows
        numbers = piece.numbers()
        epochs = self._messages.column(piece.producer, "epoch", piece.seq)
        rising = piece.rising
        if passed_over is not None:
            rows, numbers, epochs, at = (column[~passed_over] for column in (rows, numbers, epochs, at))
        if not len(rows):
            return rows
        self._open.setdefault(piece.place, []).append((rows, at))
        found = []
        key = (piece.place, piece.producer)
        behind = self._behind(key, numbers, rising=rising)
        for epoch in [int(epochs[0])] if (epochs == epochs[0]).all() else np.unique(epochs).tolist():
            mine = epochs == epoch
            before = self._behind((*key, epoch), numbers[mine], rising=rising)
            if before is not None and behind is not None:
                found += [before[0], before[1]]
        if behind is not None:
            found += [behind[0], behind[1]]
        start = int(self._messages.starts[piece.producer])
        return np.concatenate(found) + start if found else np.zeros(0, dtype=np.int64)

    def _behind(self, key: tuple[int, ...], numbers: Ints, *, rising: bool) -> tuple[Ints, Ints] | None:
        """Late ones, and the highest before each of them; None: nobody is late."""
        highest = self._highest.get(key, -1)
        last = int(numbers[-1] if rising else numbers.max())
        self._highest[key] = max(highest, last)
        if rising and numbers[0] > highest:
            return None
        before = np.maximum(np.concatenate([[-1], np.maximum.accumulate(numbers)[:-1]]), highest)
        late = numbers < before
        return (numbers[late], before[late]) if late.any() else None

    def close_slice(self) -> None:
        """All pieces of a slice have been taken: hold the rows of each place against the order."""
        for place, parts in self._open.items():
            at = parts[0][1]
            if len(parts) > 1:
                at = np.concatenate([a for _, a in parts])[np.argsort(np.concatenate([r for r, _ in parts]))]
            reached = self._reached.get(place)
            if self._is_log:
                rises = bool((at[1:] > at[:-1]).all()) and (reached is None or int(at[0]) > reached)
            else:
                rises = bool((at[1:] >= at[:-1]).all()) and (reached is None or int(at[0]) >= reached)
            if not rises:
                self._jumbled.add(place)
            self._reached[place] = max(int(at.max()), reached if reached is not None else int(at[0]))
        self._open.clear()
