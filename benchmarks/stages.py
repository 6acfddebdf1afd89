"""Where the time of a cell goes beside its load, by broker: `python benchmarks/stages.py results/RUN…`.

Of every finished cell, from its events: bring-up and tear-down (outside the phases) with the stages that they consist
of, then drain and audit, and how long the whole cell took. Median and longest, in s.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median

from mqtest.event_log import events_path, load_events
from mqtest.ledger import read_cell
from mqtest.report.blocks import table

S = 1e9
OUTSIDE = ("up", "down")
"""phases in which nothing is sent, read or judged"""
BESIDE = ("drain", "audit")


def times_s(cell: Path) -> Mapping[str, float]:
    """What one cell took: the whole, outside, each phase of OUTSIDE and BESIDE, each stage."""
    events = load_events(events_path(cell))
    phases = [(event["name"], event["t_ns"]) for event in events if event["event"] == "phase"]
    ends = [begin for _, begin in phases[1:]] + [events[-1]["t_ns"]]
    took = {name: (end - begin) / S for (name, begin), end in zip(phases, ends, strict=True)}
    stages = {f"· {event['name']}": float(event["seconds"]) for event in events if event["event"] == "stage"}
    stages.pop("· down", None)  # the phase says it
    return {
        "whole cell": (events[-1]["t_ns"] - phases[0][1]) / S,
        "outside the phases": sum(took[name] for name in OUTSIDE),
        "up": took["up"],
        **stages,
        "down": took["down"],
        **{name: took[name] for name in BESIDE},
    }


def _words(taken_s: Sequence[float]) -> str:
    return f"{median(taken_s):.1f} ({max(taken_s):.1f})" if taken_s else "–"


def main(runs: Sequence[Path]) -> None:
    """Print one table."""
    seen: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    cells: dict[str, int] = defaultdict(int)
    for cell in (cell for run in runs for cell in sorted((run / "cells").iterdir())):
        record = read_cell(cell)
        if record["finished"]:
            cells[record["broker"]] += 1
            for name, taken_s in times_s(cell).items():
                seen[record["broker"]][name].append(taken_s)
    names = list(dict.fromkeys(name for told in seen.values() for name in told))
    rows = [(name, *(_words(told.get(name, ())) for told in seen.values())) for name in names]
    print(table(("", *(f"{broker}, {cells[broker]} cells" for broker in seen)), rows, numbers_from=1))


if __name__ == "__main__":
    main([Path(name) for name in sys.argv[1:]])
