"""Requirements in, ranking out: which profiles meet the needs, by the cells that were measured.

    --need, --preset, requirements.toml ──> needs (needs.py, requirements.py)
    run folders, results.csv ──> rows ──> candidates (candidates.py): a profile with its cells
    each need held against each cell ──> judged (judging.py) ──> selection: ranked (ranking.py), failed, not measured
                                                                     └─> screen.py, texts.py: for people and scripts

Rules:
- Only cells speak; no promise does. A cell whose verdict is unknown or invalid says nothing, nor does a figure that was
  not measured. One cell that misses a need is enough to fail; one that meets it is the least that proves it.
- Told is always k of n cells, with the bound of the rule of three where none missed, and by which cells.
- Offline: needs only the files of runs. Nothing here prints.
"""

from __future__ import annotations

from mqtest.select.candidates import Evidence, read
from mqtest.select.needs import Need, parse
from mqtest.select.requirements import Requirements
from mqtest.select.selection import Selection, select

__all__ = ["Evidence", "Need", "Requirements", "Selection", "parse", "read", "select"]
