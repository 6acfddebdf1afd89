"""A dashboard's table: what is fed to it, what ClickHouse answers, and what is said where it is not installed."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path

import pytest

from mqtest import body, dashboard, jobs
from mqtest.errors import ClusterError, UsageError
from mqtest.model import RUNNER

RUN, KEYS = 7, 3
installed = pytest.mark.skipif(
    importlib.util.find_spec("chdb") is None, reason="the extra `dashboard` is not installed"
)


def output(seq: int, run: int = RUN, producer: int = 0) -> bytes:
    """Whatever the job's own count says, the table has the amount of the message."""
    return jobs.encode(run, producer, seq, jobs.Row(0, jobs.key_and_amount(0, seq, KEYS)[0], 2, 99, 99, seq))


def sums(seqs: Sequence[int]) -> dashboard.Answer:
    found: dashboard.Answer = {}
    for seq in seqs:
        key, amount = jobs.key_and_amount(0, seq, KEYS)
        before = found.get((0, key, 2), (0, 0))
        found[0, key, 2] = before[0] + 1, before[1] + amount
    return found


@installed
@pytest.mark.parametrize("seqs", [[0, 1, 2, 3, 4], [0, 1, 1, 2], [3]])
def test_the_table_sums_what_it_was_fed(tmp_path: Path, seqs: Sequence[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dashboard, "BATCH", 2)
    feed = dashboard.Feed(tmp_path / "table", RUN, KEYS)
    for text in [*map(output, seqs), body.encode(RUN, RUNNER, 0, 0, 128), output(9, run=8), b"nobody's"]:
        feed.take(text)
    assert feed.answer() == sums(seqs)
    assert not (tmp_path / "table").exists()


def test_what_clickhouse_says_when_it_cannot_is_one_line(tmp_path: Path) -> None:
    feed = dashboard.Feed(tmp_path / "table", RUN, KEYS)
    (tmp_path / "table" / "000000.parquet").write_text("no table")
    with pytest.raises(ClusterError) as caught:
        feed.answer()
    assert str(caught.value).startswith("ClickHouse did not answer: ")
    assert "\n" not in str(caught.value)


def test_without_the_extra_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(
        UsageError, match=r"^replay\.dashboard: chdb is not installed: pip install 'mqtest\[dashboard\]'$"
    ):
        dashboard.require()
