"""How fast a cell is judged, and in how much memory: ledgers of 10^7 and more, with known losses and duplicates.

    python benchmarks/verifier.py [--messages 1e7 1e8] [--losses 1000] [--duplicates 10000] [--folder DIR] [--packed]

A ledger needs some 75 bytes a message of disk, and is removed again; --packed: it is packed before it is judged. It is
one producer and one place of a log, read by an audit, or (--kind queue) of a queue, read by one consumer. Judged in a
process of its own, which says its time and the peak of its private memory (RssAnon: mapped pages of the ledger do not
count); what it finds must be what was planted.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

from mqtest import ledger, packing
from mqtest.columns import STEP_ROWS
from mqtest.event_log import EventsWriter, events_path
from mqtest.model import RUNNER, Kind, Outcome
from tests.histories import at, write_cell_folder

RATE_PER_S = 100_000
_ROWS = 1 << 22


def main() -> None:
    """Generate, judge, tell; exit 1 when something else was found than was planted."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=float, nargs="+", default=[1e7, 1e8])
    parser.add_argument("--losses", type=int, default=1000)
    parser.add_argument("--duplicates", type=int, default=10_000)
    parser.add_argument("--kind", choices=["log", "queue"], default="log")
    parser.add_argument("--folder", type=Path, default=None, help="where the ledgers are made")
    parser.add_argument("--packed", action="store_true", help="pack the ledger, as a large cell's is at its end")
    parser.add_argument("--judge", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.judge:
        print(json.dumps(judged(asked.judge)))
        return
    exact = True
    for messages in map(int, asked.messages):
        with tempfile.TemporaryDirectory(dir=asked.folder) as folder:
            planted = plant(Path(folder), messages, asked.losses, asked.duplicates, Kind(asked.kind))
            packed = pack(planted) if asked.packed else {}
            done = subprocess.run(
                [sys.executable, __file__, "--judge", str(planted)], stdout=subprocess.PIPE, check=True, text=True
            )
            found = json.loads(done.stdout)
            exact &= found["lost"] == asked.losses and found["again"] == asked.duplicates
            on_disk = sum(f.stat().st_blocks * 512 for f in (planted / "ledger").rglob("*") if f.is_file())
            found |= {"bytes_a_message": round(on_disk / messages, 1), **packed}
            print(f"{messages:,} {asked.kind}: {found}", flush=True)
    sys.exit(0 if exact else 1)


def judged(cell: Path) -> dict[str, object]:
    """Judge the cell; seconds, peak of private memory in MB, and what was found."""
    from mqtest.judge import judge

    peak_kb, stop = [0], threading.Event()

    def watch() -> None:
        while not stop.wait(0.02):
            status = Path("/proc/self/status").read_text(encoding="ascii")
            peak_kb[0] = max(peak_kb[0], int(status.split("RssAnon:")[1].split()[0]))

    watcher = threading.Thread(target=watch)
    watcher.start()
    began, cpu = time.monotonic(), time.process_time()
    row = judge(cell).row
    took_s, cpu_s = time.monotonic() - began, time.process_time() - cpu
    stop.set()
    watcher.join()
    again = row["stored_twice"] if row["kind"] == Kind.LOG else row["redelivered_unflagged"]
    return {
        "seconds": round(took_s, 2),
        "cpu_s": round(cpu_s, 2),
        "rss_anon_mb": peak_kb[0] // 1024,
        "lost": row["lost"],
        "again": again,
        "verdict": row["verdict"],
    }


def pack(cell: Path) -> dict[str, object]:
    """Pack the cell's ledger; the CPU that it took, in ns a row."""
    load = {id(ledger.SENDS): ledger.load_sends, id(ledger.RECEIPTS): ledger.load_receipts}
    folders = ledger.actor_folders(cell)
    rows = sum(len(load[id(columns)](folder)["place"]) for folder, columns in folders.items())
    cpu = time.process_time()
    for folder, columns in folders.items():
        packing.close(folder, columns)
    return {"pack_ns_a_row": round((time.process_time() - cpu) * 1e9 / rows)}


def plant(folder: Path, messages: int, losses: int, duplicates: int, kind: Kind) -> Path:
    """A cell whose lost and doubled messages are spread evenly over it."""
    cell = write_cell_folder(folder, kind=kind, sends=[], receipts=[], audit=[])
    seq = np.arange(messages, dtype="<i8")
    lost = np.zeros(messages, dtype=np.bool_)
    lost[np.linspace(messages // 7, messages - 1, losses).astype(np.int64)] = True
    twice = np.zeros(messages, dtype=np.bool_)
    twice[np.linspace(3, messages - messages // 9, duplicates).astype(np.int64)] = True
    twice &= ~lost
    while np.count_nonzero(twice) < duplicates:
        twice[np.flatnonzero(~twice & ~lost)[: duplicates - np.count_nonzero(twice)]] = True
    jitter = np.random.default_rng(1).integers(0, 1000, messages)
    due_ns = at(2.5) + seq * (10**9 // RATE_PER_S)
    _columns(
        cell / "ledger" / "sends.0",
        ledger.SENDS,
        messages,
        due_ns=due_ns,
        sent_ns=due_ns + 50_000 + jitter,
        settled_ns=due_ns + 2_000_000 + (seq * 7919 + jitter * 397) % 900_000,
        offset=seq if kind is Kind.LOG else np.broadcast_to(np.int64(-1), (messages,)),
        outcome=np.broadcast_to(np.uint8(Outcome.ACKED), (messages,)),
    )
    there = np.repeat(seq[~lost], 1 + twice[~lost])
    rows = len(there)
    offset = there.copy()
    doubled = np.flatnonzero(there[1:] == there[:-1]) + 1
    if kind is Kind.LOG:  # the second copies stand at the end
        order = np.concatenate([np.delete(np.arange(rows), doubled), doubled])
        there = there[order]
        offset = np.concatenate([there[: rows - duplicates], messages + np.arange(duplicates)])
    end_ns = int(due_ns[-1]) + 5 * 10**9
    received = end_ns + np.arange(rows, dtype="<i8") * 1000 + np.resize(jitter, rows)
    name = "audit.1" if kind is Kind.LOG else "receipts.0"
    _columns(cell / "ledger" / name, ledger.RECEIPTS, rows, received_ns=received, seq=there, offset=offset)
    _late_fence(cell, end_ns, int(received[-1]))
    return cell


def _late_fence(cell: Path, end_ns: int, last_ns: int) -> None:
    """The fence comes after the load."""
    for path in (cell / "ledger").glob("audit.0"):
        shutil.rmtree(path)
    shutil.rmtree(cell / "ledger" / f"sends.{RUNNER}")
    sends = ledger.SendsWriter(cell / "ledger" / f"sends.{RUNNER}")
    sends.sent(0, 0, 0, 0, end_ns)
    sends.settle(0, Outcome.ACKED, 2**62, 0, end_ns + 1000)
    sends.close()
    reader = ledger.ReceiptsWriter(cell / "ledger" / "audit.0")
    reader.append(last_ns + 10**9, RUNNER, 0, 0, 2**62, 0, 0)
    reader.close()
    events = EventsWriter(events_path(cell))
    events.write("phase", t_ns=end_ns, name="drain")
    events.write("audit", t_ns=last_ns + 2 * 10**9, reader=1, complete=True)
    events.close()


def _columns(folder: Path, columns: dict[str, str], rows: int, **values: np.ndarray) -> None:
    folder.mkdir(parents=True)
    for name, dtype in columns.items():
        capacity = -(-rows // STEP_ROWS) * STEP_ROWS
        column = np.lib.format.open_memmap(folder / f"{name}.npy", mode="w+", dtype=dtype, shape=(capacity,))
        if name in values:
            for first in range(0, rows, _ROWS):
                column[first : min(first + _ROWS, rows)] = values[name][first : min(first + _ROWS, rows)]
        del column
        os.sync() if rows > 10**8 else None


if __name__ == "__main__":
    main()
