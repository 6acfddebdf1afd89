"""Whether a figure of one profile under one fault moved beyond the noise of its repeats, from OLD to NEW.

Figures are the longest gap and all outages together, of acknowledgements and of deliveries, and every p99 of a latency
but that of the fault phase, which says the gap once more. A figure moved beyond the noise when
- it was measured in FEWEST cells or more on both sides: one or two say nothing of how far repeats lie apart;
- every cell of NEW lies beyond every cell of OLD, on the same side, by more than the wider of the two spreads (the
  worst less the best of one side);
- and the medians differ by a quarter, and by a second of unavailability or a millisecond of latency.
Of two runs that are alike this calls at most 4 figures in 1,000 worse, with three repeats each and noise of any width,
fewer with more of them (tests/test_compare.py tries it). With too few repeats a move of a half or more is told as what
may be noise. So it is where the machines are not alike (cpu, cores, memory), and where a schedule, a fault by its name,
had other seeds and so perhaps other faults.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from mqtest.judge import COLUMNS
from mqtest.report.summary import Row, measured, millis, seconds

FEWEST = 3
_SHARE = 0.25
_TELLING_SHARE = 0.5
_MACHINE = ("host.cpu", "host.cores", "host.memory_gb")
_GAPS: Mapping[str, str] = {
    "ack_gap_s_max": "longest time without an acknowledgement",
    "outage_s_total": "all outages of acknowledgements together",
    "delivery_gap_s_max": "longest time without a delivery",
    "delivery_outage_s_total": "all outages of deliveries together",
}
_P99, _OF_THE_FAULT = "latency_ms_p99", "fault_"


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """One figure that moved, or may have."""

    column: str
    words: str
    worse: bool
    doubt: str
    """why this may be noise; empty: it is beyond it"""


@dataclass(frozen=True, slots=True)
class _Figure:
    words: str
    text: Callable[[float], str]
    least: float
    """a move that means something, in the column's unit"""


def moves(old: Sequence[Row], new: Sequence[Row], *, by_name: bool) -> Iterator[Move]:
    """The figures of these cells, which prove something, that moved. `by_name`: the fault is a schedule."""
    unlike = _unlike(old, new, by_name=by_name)
    for column in COLUMNS:
        figure = _figure(column)
        before, after = _values(old, column), _values(new, column)
        if figure is None or not before or not after:
            continue
        few = min(len(before), len(after)) < FEWEST
        doubt = unlike or (f"may be noise: {FEWEST} repeats on both sides would tell" if few else "")
        beyond = _large(before, after, figure, _TELLING_SHARE if few else _SHARE) and (few or apart(before, after))
        if beyond:
            words = f"{figure.words}: {_spread(before, figure)} → {_spread(after, figure)}"
            yield Move(
                column=column,
                words=f"{words} ({doubt})" if doubt else words,
                worse=statistics.median(after) > statistics.median(before),
                doubt=doubt,
            )


def apart(before: Sequence[float], after: Sequence[float]) -> bool:
    """Whether every one of these lies beyond every one of those, by more than either of them is spread."""
    wider = max(max(before) - min(before), max(after) - min(after))
    return max(min(after) - max(before), min(before) - max(after)) > wider


def texts(rows: Sequence[Row], column: str) -> frozenset[str]:
    """The distinct values of a column, where it is not empty."""
    return frozenset(str(value) for row in rows if (value := row.get(column)) is not None)


def _figure(column: str) -> _Figure | None:
    """What is known of a column; None: it is no figure that is compared."""
    if column in _GAPS:
        return _Figure(f"{_GAPS[column]}, s", seconds, 1.0)
    if column.endswith(_P99) and not column.startswith(_OF_THE_FAULT):
        return _Figure(f"p99 of the {column.removesuffix(_P99).replace('_', ' ')}latency, ms", millis, 1.0)
    return None


def _values(rows: Sequence[Row], column: str) -> list[float]:
    return [value for row in rows if (value := measured(row, column)) is not None]


def _large(before: Sequence[float], after: Sequence[float], figure: _Figure, share: float) -> bool:
    low, high = sorted((statistics.median(before), statistics.median(after)))
    return high - low >= max(figure.least, share * low)


def _spread(values: Sequence[float], figure: _Figure) -> str:
    """`5.00`, or `5.00 (4.80 to 5.30, n = 3)`."""
    middle = figure.text(statistics.median(values))
    if len(values) == 1:
        return middle
    return f"{middle} ({figure.text(min(values))} to {figure.text(max(values))}, n = {len(values)})"


def _unlike(old: Sequence[Row], new: Sequence[Row], *, by_name: bool) -> str:
    """Why figures of the two say little about each other; empty where they do."""
    if _machines(old) != _machines(new):
        return "the machines are not alike"
    if by_name and texts(old, "seed") != texts(new, "seed"):
        return "the schedules had other seeds"
    return ""


def _machines(rows: Sequence[Row]) -> frozenset[tuple[str, ...]]:
    """Distinct ones; memory to the GB, as kernels take some of it."""
    found = set()
    for row in rows:
        cpu, cores, memory_gb = (str(row.get(column) or "") for column in _MACHINE)
        found.add((cpu, cores, memory_gb.partition(".")[0]))
    return frozenset(found)
