"""A table that a dashboard would ask, fed from the topic of a job's outputs: ClickHouse in its embedded form (chDB).

One row an output, in the order of the topic as a reader at the profile's isolation level sees it; the question is count
and sum of each place, key and time window. chDB comes with the extra `dashboard`. It is native code with threads of its
own, so it runs in a process of its own: `python -m mqtest.dashboard FOLDER` loads every batch that lies in the folder,
in its order, and prints the answer.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from mqtest import body, jobs
from mqtest.errors import ClusterError, UsageError
from mqtest.model import RUNNER

COLUMNS: Final = ("place", "key", "window", "amount", "producer", "seq")
BATCH: Final = 20_000
"""rows of one insert"""
_ASK_S: Final = 120.0
_TYPES: Final = ", ".join(f"{name} Int64" for name in COLUMNS)
_TABLE: Final = f"CREATE TABLE outputs ({_TYPES}) ENGINE = MergeTree ORDER BY (key, window)"
_QUESTION: Final = "SELECT place, key, window, count(), sum(amount) FROM outputs GROUP BY place, key, window"

Answer = dict[tuple[int, int, int], tuple[int, int]]
"""(place, key, window) -> (messages, amount)"""


def require() -> None:
    """Raises UsageError where chDB is not installed."""
    if importlib.util.find_spec("chdb") is None:
        raise UsageError("replay.dashboard: chdb is not installed: pip install 'mqtest[dashboard]'")


class Feed:
    """What the table is fed with. `folder` must not be there yet, and is gone when the table has answered."""

    def __init__(self, folder: Path, run: int, keys: int) -> None:
        self._folder = folder
        self._run = run
        self._keys = keys
        self._rows: list[tuple[int, ...]] = []
        self._batches = 0
        folder.mkdir(parents=True)

    def take(self, output: bytes) -> None:
        """The next message of the topic of outputs; what is none of the workload's is left out."""
        head = body.decode(output)
        if head is None or head.run != self._run or head.producer == RUNNER:
            return
        row = jobs.decode(output)
        _key, amount = jobs.key_and_amount(head.producer, head.seq, self._keys)
        self._rows.append((row.place, row.key, row.window, amount, head.producer, head.seq))
        if len(self._rows) == BATCH:
            self._write()

    def answer(self) -> Answer:
        """What the table says of all that was taken; raises ClusterError where ClickHouse does not."""
        self._write()
        try:
            return self._asked()
        finally:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _asked(self) -> Answer:
        command = [sys.executable, "-m", "mqtest.dashboard", str(self._folder)]
        try:
            asked = subprocess.run(command, capture_output=True, text=True, timeout=_ASK_S, check=False)
        except subprocess.TimeoutExpired:
            raise ClusterError(f"ClickHouse did not answer within {_ASK_S:g} s") from None
        if asked.returncode != 0:
            last = asked.stderr.strip().splitlines()[-1:] or [f"exit code {asked.returncode}"]
            raise ClusterError(f"ClickHouse did not answer: {last[0]}")
        return {(place, key, window): (n, amount) for place, key, window, n, amount in json.loads(asked.stdout)}

    def _write(self) -> None:
        """The rows in hand, as a batch for one insert."""
        import pyarrow
        from pyarrow import parquet

        if not self._rows:
            return
        columns: Mapping[str, tuple[int, ...]] = dict(zip(COLUMNS, zip(*self._rows, strict=True), strict=True))
        table = pyarrow.table({name: pyarrow.array(values, pyarrow.int64()) for name, values in columns.items()})
        parquet.write_table(table, self._folder / f"{self._batches:06}.parquet")
        self._rows.clear()
        self._batches += 1


def ask(folder: Path) -> list[list[int]]:
    """Load the batches into a new table beside them, and ask it."""
    from chdb import session

    opened = session.Session(str(folder / "clickhouse"))
    try:
        opened.query("CREATE DATABASE IF NOT EXISTS mqtest")
        opened.query("USE mqtest")
        opened.query(_TABLE)
        for batch in sorted(folder.glob("*.parquet")):
            opened.query(f"INSERT INTO outputs SELECT {', '.join(COLUMNS)} FROM file('{batch.resolve()}', Parquet)")
        text = str(opened.query(_QUESTION, "CSV"))
    finally:
        opened.close()
    return [[int(field) for field in line.split(",")] for line in text.splitlines() if line]


if __name__ == "__main__":
    print(json.dumps(ask(Path(sys.argv[1]))))
