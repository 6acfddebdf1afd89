"""Who was the limit: from what nodes and workers said of themselves to figures and sentences, on literal answers."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from mqtest import history
from mqtest.checks import CHECKS
from mqtest.checks.usage import used
from mqtest.cluster.agent_program import disk_work
from mqtest.cluster.containers import of_stats
from mqtest.event_log import events_path, load_events
from mqtest.model import Consume, Workload
from mqtest.report.limits import limits_text
from tests.cells import make_cell, run_cell
from tests.histories import Got, Sent, at, write_cell_folder
from tests.histories import told as said
from tests.memory_rig import profile, running
from tests.test_report import judged

SENDS = [Sent(s) for s in range(300)]
"""10 a second, for 30 s; the steady phase is 2 to 10 s of it"""


def told(at_s: float, nodes: dict[str, tuple[float, ...]], workers: dict[str, float]) -> dict[str, Any]:
    """One event: of each node cpu_s, and where it says so written_bytes, writes, flushes."""
    names = ("cpu_s", "written_bytes", "writes", "flushes")
    return {
        "event": "usage",
        "t_ns": at(at_s),
        "nodes": {name: dict(zip(names, figures, strict=False)) for name, figures in nodes.items()},
        "workers": workers,
    }


BEFORE = told(3.0, {"a": (1.0, 1000, 10, 1), "b": (2.0, 0, 0, 0)}, {"producer 0": 0.5, "consumer 0": 0.1})
AFTER = told(8.0, {"a": (3.0, 26000, 35, 51), "b": (2.5, 25000, 25, 0)}, {"producer 0": 1.0, "consumer 0": 0.35})
OUTSIDE = [
    told(1.0, {"a": (0.0, 0, 0, 0), "b": (0.0, 0, 0, 0)}, {"producer 0": 0}),
    told(11.0, {"a": (99.0, 1, 1, 1), "b": (99.0, 1, 1, 1)}, {"producer 0": 99}),
]


def cell(tmp_path: Path, *events: dict[str, Any], **more: Any) -> Path:
    return write_cell_folder(tmp_path, sends=SENDS, fault="kill:leader", events=events, **more)


def numbers(folder: Path) -> dict[str, Any]:
    return {name: n for name, n in said(CHECKS["usage"], folder).numbers.items() if n is not None}


def test_what_all_used_between_two_times_in_the_steady_phase(tmp_path: Path) -> None:
    receipts = [Got(s, received_s=s / 10) for s in range(0, 300, 2)]
    assert numbers(cell(tmp_path, *OUTSIDE, BEFORE, AFTER, receipts=receipts, consume="live")) == {
        "broker_cpu_cores": 0.5,  # 2.5 s in 5 s
        "client_cpu_cores": 0.15,
        "broker_cpu_us_per_message": 50000.0,  # 50 messages
        "client_cpu_us_per_message": 10000.0,
        "consumer_cpu_us_per_message": 10000.0,  # 25 receipts
        "broker_written_bytes_per_message": 1000.0,
        "broker_writes_per_message": 1.0,
        "broker_flushes_per_message": 1.0,
    }


def test_any_window_has_its_own_figures(tmp_path: Path) -> None:
    seen = history.load(cell(tmp_path, BEFORE, AFTER, *OUTSIDE))
    assert used(seen, (at(2), at(9)))["broker_cpu_cores"] == 0.5, "from the first time to the last one in it"
    assert used(seen, (at(8), at(12)))["client_cpu_cores"] is None, "a consumer is gone"
    assert used(seen, (at(4), at(9)))["broker_cpu_cores"] is None, "told once"


def test_what_was_not_told_twice_or_began_anew_is_not_measured(tmp_path: Path) -> None:
    again = told(8.0, {"a": (0.5, 26000), "b": (2.5, 25000)}, {"producer 0": 0.2})
    assert numbers(cell(tmp_path / "once", BEFORE)) == {}
    assert numbers(cell(tmp_path / "never")) == {}
    assert numbers(cell(tmp_path / "again", BEFORE, again)) == {"broker_written_bytes_per_message": 1000.0}
    fewer = told(8.0, {"a": (3.0, 26000)}, {"producer 0": 1.0, "consumer 0": 0.35})
    assert numbers(cell(tmp_path / "gone", BEFORE, fewer)) == {
        "client_cpu_cores": 0.15,
        "client_cpu_us_per_message": 10000.0,
    }


def test_how_fast_disks_flush_is_the_median_disk_and_the_worst_p99(tmp_path: Path) -> None:
    ms = 1_000_000
    nodes = {
        "a": [n * ms for n in range(1, 101)],
        "b": [2 * ms],
        "c": [3 * ms, 3 * ms],
        "d": [],
    }
    found = numbers(cell(tmp_path, {"event": "flushed", "t_ns": at(-1), "nodes": nodes}))
    assert found == {"fsync_ms_p50": 3.0, "fsync_ms_p99": 99.0}


# --- where the figures come from

STAT = "    8693     1172  2665694    20843   261540   126736  2725088   193926        0   183272   335727"
STAT_6 = STAT + "        0        0        0        0   182017   120956\n"
V1 = {
    "cpu_stats": {
        "cpu_usage": {"total_usage": 2500000000, "percpu_usage": [1, 2], "usage_in_kernelmode": 1},
        "system_cpu_usage": 9,
        "online_cpus": 2,
    },
    "memory_stats": {"usage": 4096, "max_usage": 8192, "stats": {"cache": 1}, "limit": 16384},
    "blkio_stats": {"io_service_bytes_recursive": [{"major": 7, "minor": 3, "op": "Write", "value": 12288}]},
}  # fmt: skip
V2 = {
    "cpu_stats": {"cpu_usage": {"total_usage": 2500000000, "usage_in_kernelmode": 1, "usage_in_usermode": 2}},
    "memory_stats": {"usage": 4096, "stats": {"anon": 1, "file": 2}, "limit": 16384},
    "blkio_stats": {"io_service_bytes_recursive": [{"major": 7, "minor": 3, "op": "write", "value": 12288}]},
}


@pytest.mark.parametrize("seen", [V1, V2], ids=["cgroup v1", "cgroup v2"])
def test_the_engines_answer(seen: dict[str, Any]) -> None:
    assert of_stats(seen) == {"cpu_s": 2.5, "memory_bytes": 4096}


def test_a_container_that_just_ended_says_nothing() -> None:
    assert of_stats({"cpu_stats": {"cpu_usage": {"total_usage": 0}}, "memory_stats": {}}) == {}
    assert of_stats({"cpu_stats": None, "memory_stats": None}) == {}


def test_the_counters_of_a_loop_device() -> None:
    told = {"writes": 261540, "written_bytes": 2725088 * 512}
    assert disk_work.parse(STAT_6) == told | {"flushes": 182017}
    assert disk_work.parse(STAT) == told, "a kernel before 5.5 counts no flushes"


def test_blocks_are_appended_and_flushed_and_the_file_is_empty_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = []
    monkeypatch.setattr(disk_work.os, "fdatasync", lambda fd: sizes.append(os.fstat(fd).st_size))
    monkeypatch.setattr(disk_work, "MOST_S", 600)
    path = tmp_path / "probe"
    path.touch()
    taken = disk_work.appended(os.open(path, os.O_WRONLY))
    assert sizes == [4096 * n for n in range(1, disk_work.SAMPLES + 1)]
    assert len(taken) == disk_work.SAMPLES
    assert min(taken) > 0
    assert path.stat().st_size == 0


def test_a_disk_that_is_slow_is_asked_less_often(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk_work, "MOST_S", 0)
    path = tmp_path / "probe"
    path.touch()
    assert len(disk_work.appended(os.open(path, os.O_WRONLY))) == 1


def counts_writes(folder: Path) -> bool:
    """Whether the kernel counts what is written there as bound for a disk: not in memory (tmpfs)."""

    def written() -> int:
        return int(Path("/proc/self/io").read_text().partition("\nwrite_bytes: ")[2].split()[0])

    before = written()
    (folder / "some").write_bytes(bytes(1 << 20))
    return written() - before >= 1 << 20


def test_the_embedded_broker_says_what_it_used(tmp_path: Path) -> None:
    with running(tmp_path, profile({})) as rig:
        before = rig.cluster.usage()["memory-1"]
        rig.send(range(100))
        after = rig.cluster.usage()["memory-1"]
        least = 100 * 64 if counts_writes(tmp_path) else 0
        assert after["written_bytes"] - before["written_bytes"] >= least
        assert after["cpu_s"] >= before["cpu_s"]
        assert min(rig.cluster.flush_times()["memory-1"]) > 0


def test_a_whole_cell_has_the_figures_of_nodes_and_clients(tmp_path: Path) -> None:
    live = Workload(rate_per_s=2000, consume=Consume.LIVE)
    asked = make_cell("memory/log-safe", "none", workload=live)
    row = run_cell(tmp_path, asked).row
    events = load_events(events_path(tmp_path / "cells" / asked.id))
    when = [e.get("name") or e["event"] for e in events if e["event"] in ("phase", "usage", "flushed")]
    assert when[:7] == ["up", "flushed", "warm-up", "steady", "usage", "usage", "usage"]
    assert set(next(e for e in events if e["event"] == "usage")["workers"]) == {"producer 0", "consumer 0"}
    for column in ("broker_cpu_cores", "client_cpu_cores", "broker_written_bytes_per_message", "fsync_ms_p50"):
        assert row[column] >= 0, column
    assert row["broker_written_bytes_per_message"] > (512 if counts_writes(tmp_path) else -1)
    assert row["broker_flushes_per_message"] is None, "nobody counts them there"


# --- the report


def test_one_line_a_profile_with_what_was_measured() -> None:
    columns = {
        "broker_cpu_cores": 0.821, "client_cpu_cores": 0.305, "broker_cpu_us_per_message": 821.0,
        "client_cpu_us_per_message": 95.4, "broker_written_bytes_per_message": 1540.3,
        "broker_writes_per_message": 0.123, "broker_flushes_per_message": 0.011, "fsync_ms_p50": 1.21,
        "fsync_ms_p99": 5.04,
    }  # fmt: skip
    facts: dict[str, object] = {"host": {"cores": 2}}
    more = columns | {"broker_cpu_cores": 0.9}
    cells = [
        judged("1", facts, **columns), judged("2", facts, fault="none", **more),
        judged("3", facts, fault="none", **more), judged("4", facts, profile="rabbitmq/quorum"),
        judged("5", None, profile="kafka/acks-1", client_cpu_cores=0.1),
    ]  # fmt: skip
    assert limits_text(cells).split("\n\n")[0] == (
        "- kafka/acks-all: nodes 0.90 and clients 0.30 of 2 cores; per message 821 µs of the nodes' CPU, 95 µs of its "
        "producer's, 1,540 bytes written, in 0.12 writes, 0.01 flushes; fsync p50 1.2, p99 5.0 ms\n"
        "- kafka/acks-1: clients 0.10 cores"
    )
    assert limits_text(cells[3:4]) == ""
