"""What a job's output came to, on disk: ledger/totals.<job>, one row a place, key and time window, written by the
runner when it has read the whole output; columns as those of any other folder of the ledger (ledger.py).
ledger/table.<job>: likewise, what a dashboard's table that was fed from it answers (dashboard.py)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from mqtest.clock import now_ns
from mqtest.columns import Columns, Table, load_columns, trim, used_rows

TOTALS: Mapping[str, str] = {
    "read_ns": "<i8",
    "window": "<i8",
    "messages": "<i8",
    "amount": "<i8",
    "place": "<i4",
    "key": "<i4",
}
"""`amount` in hundredths; a row exists when its `read_ns` is not 0"""


def write_totals(folder: Path, rows: Mapping[tuple[int, int, int], tuple[int, int]]) -> None:
    """(place, key, window) -> (messages, amount). Raises LedgerError when the disk is full."""
    table = Table(folder, TOTALS)
    if len(rows) > table.capacity:
        table.grow(len(rows))
    columns, read_ns = table.columns(), now_ns()
    for at, ((place, key, window), (messages, amount)) in enumerate(rows.items()):
        columns["place"][at], columns["key"][at], columns["window"][at] = place, key, window
        columns["messages"][at], columns["amount"][at] = messages, amount
        columns["read_ns"][at] = read_ns
    columns.clear()
    table.close()


def load_totals(folder: Path) -> Columns:
    """Raises LedgerError naming a file that is missing or damaged."""
    maps = load_columns(folder, TOTALS)
    return trim(folder, maps, used_rows(maps["read_ns"]))
