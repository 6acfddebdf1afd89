"""Response times by phase and second, from literal rows; what is merged is what the whole would have been."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hdrh.log import HistogramLogReader

from mqtest import hdr, history, latency_log, tables
from mqtest.model import Outcome
from mqtest.report import check, render
from tests.histories import Sent, at, write_cell_folder
from tests.run_dirs import make_cell, make_run

MS = 1_000_000
CLOCK = {"event": "clock", "t_ns": at(-5), "utc": "2026-01-02T03:04:05.000+00:00"}
SENDS = [
    Sent(0, due_s=0.5, settled_s=0.51),  # warm-up
    Sent(1, due_s=2.0, settled_s=2.001),
    Sent(2, due_s=2.999, settled_s=3.001),
    Sent(3, due_s=3.0, settled_s=3.004),
    Sent(4, Outcome.UNKNOWN, due_s=3.1, settled_s=3.2),
    Sent(5, due_s=9.9, settled_s=18.0),  # fell due before the fault, and waited for its end
    Sent(6, due_s=10.0, settled_s=18.0),
    Sent(0, producer=1, due_s=3.5, settled_s=3.508),
]


def written(folder: Path) -> Path:
    path = folder / "x.hlog"
    path.write_text("".join(f"{line}\n" for line in latency_log.lines(history.load(folder))))
    return path


def values(histogram: hdr.HdrHistogram) -> dict[int, int]:
    """The least value of a bucket (ms, rounded) → count."""
    return {round(histogram.get_value_from_index(i) / MS): n for i, n in enumerate(histogram.counts) if n}


def test_a_line_a_second_of_what_fell_due_in_it_tagged_with_its_phase(tmp_path: Path) -> None:
    folder = write_cell_folder(tmp_path, sends=SENDS, fault="kill:leader", events=[CLOCK])
    found = [(i.tag, i.begin_s, i.length_s, values(hdr.merged([i]))) for i in hdr.read(written(folder))]
    assert found == [
        ("warm-up", 0.0, 1.0, {10: 1}),
        ("steady", 2.0, 1.0, {1: 1, 2: 1}),
        ("steady", 3.0, 1.0, {4: 1, 8: 1}),
        ("steady", 9.0, 1.0, {8099: 1}),
        ("fault", 10.0, 1.0, {7999: 1}),
    ]


def test_the_last_second_of_a_phase_ends_with_it(tmp_path: Path) -> None:
    folder = write_cell_folder(
        tmp_path, sends=[Sent(0, due_s=2.2)], events=[{"event": "phase", "name": "x", "t_ns": at(2.4)}]
    )
    events = folder / "ledger" / "events.jsonl"
    events.write_text("".join(sorted(events.read_text().splitlines(keepends=True))))
    assert [(i.tag, i.begin_s, i.length_s) for i in hdr.read(written(folder))] == [("steady", 0.0, 0.4)]


def test_another_tool_reads_it_in_utc(tmp_path: Path) -> None:
    path = written(write_cell_folder(tmp_path, sends=SENDS, events=[CLOCK]))
    reader = HistogramLogReader(str(path), hdr.empty())
    first = reader.get_next_interval_histogram()
    assert (first.get_tag(), first.get_total_count()) == ("warm-up", 1)
    assert first.get_start_time_stamp() / 1000 == pytest.approx(1767323050.0), "5 s after the clock's line"
    reader.close()


def test_the_logs_of_two_cells_together_are_the_log_of_both(tmp_path: Path) -> None:
    rng = np.random.default_rng(7)
    took = rng.exponential(0.02, 600)
    sends = [Sent(s, due_s=2 + s / 100, settled_s=2 + s / 100 + float(took[s])) for s in range(600)]
    half = (
        [row._replace(seq=n) for n, row in enumerate(sends[::2])],
        [row._replace(seq=n) for n, row in enumerate(sends[1::2])],
    )
    logs = [
        hdr.read(written(write_cell_folder(tmp_path / str(n), sends=rows))) for n, rows in enumerate((sends, *half))
    ]
    whole = latency_log.by_phase(logs[0])
    both = latency_log.by_phase([*logs[1], *logs[2]])
    assert list(whole) == list(both) == ["steady"]
    assert list(whole["steady"].counts) == list(both["steady"].counts)
    assert whole["steady"].get_total_count() == 600


def test_slices_together_are_the_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_cell_folder(
        tmp_path, sends=[s._replace(producer=p, seq=n) for p in (0, 1) for n, s in enumerate(SENDS[:7])]
    )
    whole = list(latency_log.lines(history.load(folder)))
    monkeypatch.setattr(tables, "SLICE_ROWS", 2)
    monkeypatch.setattr(latency_log, "_AT_A_TIME", 3)
    assert list(latency_log.lines(history.load(folder))) == whole
    assert len(hdr.read(written(folder))) == 5


@pytest.mark.parametrize(
    "cell", [{"sends": []}, {"sends": [Sent(0, Outcome.UNKNOWN)]}, {"sends": SENDS, "acknowledged": False}]
)
def test_where_nothing_was_acknowledged_there_is_no_log(tmp_path: Path, cell: dict[str, object]) -> None:
    assert list(latency_log.lines(history.load(write_cell_folder(tmp_path, **cell)))) == []  # type: ignore[arg-type]


def test_the_report_leaves_it_beside_the_cell_and_a_check_does_not(tmp_path: Path) -> None:
    run = make_run(tmp_path, "r", ["1", "2"])
    good, broken = make_cell(run, "1"), make_cell(run, "2")
    (broken / "ledger" / "sends.0" / "outcome.npy").unlink()
    check([run])
    assert not (good / "latency.hlog").exists()
    render([run], tmp_path / "out")
    assert latency_log.by_phase(hdr.read(good / "latency.hlog"))["steady"].get_total_count() == 10
    assert not (broken / "latency.hlog").exists()
