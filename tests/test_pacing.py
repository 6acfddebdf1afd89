"""How late a producer's loop was: what counts, what does not, and what becomes of a latency that has too much of it.

The loop runs on a clock of its own here, so that nothing depends on how busy the machine is.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from mqtest import hdr, history, ledger, pacing
from mqtest.checks import CHECKS
from mqtest.checks.pacing import too_late
from mqtest.clients import ClientError, Settle
from mqtest.errors import LedgerError
from mqtest.judge import judge
from mqtest.model import Kind, Outcome, Verdict, Wiring, Workload
from mqtest.workload import Role, WorkerPlan, producer
from tests.histories import Got, Sent, at, in_order, write_cell_folder

MS = 1_000_000


@dataclass
class World:
    """A clock that only moves when somebody waits, a control that stops at `end_ms`, and a client."""

    end_ms: float
    overrun_ms: dict[int, float] = field(default_factory=dict)
    """at the first poll after this time (ms) the client takes so much longer than it was asked to"""
    blocked_ms: tuple[float, float] = (0, 0)
    """from, to: it takes no message"""
    dies_at_ms: float = float("inf")
    """the first client; opening the next one takes `opening_ms`, and fails the first time"""
    opening_ms: float = 0
    rates: dict[float, float] = field(default_factory=dict)
    """from this time (ms) on another rate holds"""
    t_ns: int = 10**12
    opened: int = 0

    @property
    def ms(self) -> float:
        return (self.t_ns - 10**12) / MS

    def now(self) -> int:
        self.t_ns += 100
        return self.t_ns

    def wait(self, seconds: float) -> None:
        self.t_ns += round(seconds * 1e9)

    # --- control

    @property
    def stopping(self) -> bool:
        return self.ms > self.end_ms

    def wait_go(self) -> bool:
        return True

    def pause(self, seconds: float) -> None:
        self.wait(seconds)

    def new_rate(self) -> float | None:
        due = [ms for ms in self.rates if ms <= self.ms]
        return self.rates.pop(due[0]) if due else None

    def ready(self) -> None:
        return

    def event(self, event: str, **fields: Any) -> None:
        return

    def stats(self, stats: Any, *, force: bool = False) -> None:
        return

    # --- client

    def open_producer(self, _wiring: Wiring, settle: Settle, _number: int, _epoch: int) -> FakeProducer:
        self.opened += 1
        if self.opened > 1:
            self.wait(self.opening_ms / 1000)
        if self.opened == 2:
            raise ClientError("nobody listens")
        return FakeProducer(self, settle, self.dies_at_ms if self.opened == 1 else float("inf"))


@dataclass
class FakeProducer:
    """Everything is acknowledged at the next poll."""

    world: World
    settle: Settle
    dies_at_ms: float
    open: list[int] = field(default_factory=list)

    @property
    def failed(self) -> str | None:
        return "gone" if self.world.ms >= self.dies_at_ms else None

    @property
    def blocked(self) -> bool:
        begin, end = self.world.blocked_ms
        return begin <= self.world.ms < end

    def send(self, seq: int, place: int, _body: bytes) -> bool:
        self.open.append(seq)
        return True

    def poll(self, timeout_s: float) -> None:
        self.world.wait(0.0001 if self.open else timeout_s)
        late = [ms for ms in self.world.overrun_ms if ms <= self.world.ms]
        for ms in late:
            self.world.wait(self.world.overrun_ms.pop(ms) / 1000)
        for seq in self.open:
            self.settle(seq, Outcome.ACKED, seq, 0)
        self.open.clear()

    def close(self, timeout_s: float) -> None:
        return


def run(folder: Path, world: World, monkeypatch: pytest.MonkeyPatch, rate_per_s: float = 1000) -> dict[str, Any]:
    """Lags of the whole load (ms), and what the ledger has."""
    wiring = Wiring(
        broker="x", client="x", kind=Kind.LOG, acknowledged=True, addresses=(), topic="t", places=1, group="g",
        producer={}, consumer={},
    )  # fmt: skip
    plan = WorkerPlan(
        role=Role.PRODUCER, number=0, run_number=7, wiring=wiring, workload=Workload(rate_per_s=rate_per_s),
        folder=str(folder / "ledger" / "sends.0"), log="", settle_s=1,
    )  # fmt: skip
    monkeypatch.setattr(producer, "now_ns", world.now)
    monkeypatch.setattr(producer, "client", lambda _name: SimpleNamespace(open_producer=world.open_producer))
    producer.ProducerLoop(plan, world).run()  # type: ignore[arg-type]
    lags = pacing.lag(pacing.load(folder), (10**12, 2 * 10**12))
    assert lags is not None
    sends = ledger.load_sends(folder / "ledger" / "sends.0")
    found = {name: hdr.quantile_ns(lags, q) for name, q in {"p50": 500, "p99": 990, "max": 1000}.items()}
    return {name: (ns or 0) / MS for name, ns in found.items()} | {
        "n": lags.total_count,
        "sends": sends,
        "response_ms": (sends["settled_ns"] - sends["due_ns"])[sends["outcome"] == Outcome.ACKED] / MS,
    }


@pytest.mark.parametrize("rate_per_s", [40, 300, 1000])
def test_a_loop_that_nothing_holds_up_is_on_time(
    tmp_path: Path, rate_per_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = run(tmp_path, World(end_ms=2000), monkeypatch, rate_per_s)
    assert found["n"] == len(found["sends"]["due_ns"])
    assert found["n"] == pytest.approx(2 * rate_per_s, abs=2)
    assert found["max"] < 0.1


def test_ticks_in_which_sends_gather_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(end_ms=1000)
    monkeypatch.setattr(FakeProducer, "poll", lambda _client, timeout_s: world.wait(timeout_s))  # no answer, ever
    found = run(tmp_path, world, monkeypatch, rate_per_s=5000)
    assert found["max"] == pytest.approx(1.0, abs=0.2)
    assert found["p50"] == pytest.approx(0.5, abs=0.2)


def test_a_lag_counts_from_the_due_times_of_the_rate_that_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(end_ms=4000, overrun_ms={1500: 100}, rates={1100: 0, 1400: 4000, 2000: 50})
    found = run(tmp_path, world, monkeypatch, rate_per_s=1000)
    assert found["n"] == len(found["sends"]["due_ns"])
    assert found["n"] == pytest.approx(1100 + 0.6 * 4000 + 2 * 50, abs=60)
    assert found["max"] == pytest.approx(100, abs=1.5)
    intervals = pacing.load(tmp_path)
    none = [(a.end_s, b.begin_s) for a, b in pairwise(intervals) if b.begin_s - a.end_s > 0.1]
    assert [span == pytest.approx((1001.1, 1001.4), abs=0.06) for span in none] == [True], "no line in the pause"


def test_a_call_that_takes_longer_than_it_was_asked_to_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = run(tmp_path, World(end_ms=1000, overrun_ms={500: 100}), monkeypatch)
    assert found["max"] == pytest.approx(100, abs=1.5)
    assert found["p50"] < 0.1


def test_a_client_that_takes_nothing_is_no_lag_but_response_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = run(tmp_path, World(end_ms=1000, blocked_ms=(300, 600)), monkeypatch)
    assert found["max"] < 1.1, "a tick"
    assert found["response_ms"].max() == pytest.approx(300, abs=2)


def test_a_client_that_is_opened_again_is_no_lag_but_response_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(end_ms=3000, dies_at_ms=500, opening_ms=700)
    found = run(tmp_path, world, monkeypatch)
    assert world.opened == 3
    assert found["max"] < 1.1
    assert found["response_ms"].max() > 1400


# --- the file


def test_lags_of_a_round_count_down_from_the_first_due_time_and_from_when_the_loop_was_back() -> None:
    found = pacing.lags([(100, 10, 4, 0), (100, 10, 4, 35), (7, 7, 1, 0)], 20)
    assert found.tolist() == [90, 70, 50, 30, 65, 65, 50, 30, 0]


def test_a_line_holds_the_lags_of_what_fell_due_in_it_and_a_writer_goes_on(tmp_path: Path) -> None:
    (tmp_path / "ledger").mkdir()
    path = pacing.path_of(tmp_path / "ledger", 3)
    for life in range(2):
        writer = pacing.PacingWriter(path, MS)
        for ms in range(0, 1000, 10):
            due = (1000 * life + 5000 + ms) * MS
            writer.noticed(due + MS, due, 10, 0)
        writer.close((1000 * life + 6000) * MS)
        writer.close(0)
        with path.open("a") as file:
            file.write("5.0,0.2")  # a kill
    intervals = pacing.load(tmp_path)
    assert [(i.begin_s, i.end_s) for i in intervals] == [(5 + n / 4, 5.25 + n / 4) for n in range(8)]

    def counted(begin_s: float, end_s: float) -> int | None:
        lags = pacing.lag(intervals, (round(begin_s * 1e9), round(end_s * 1e9)))
        return None if lags is None else int(lags.total_count)

    assert (counted(5, 7), counted(5.25, 5.5), counted(5.3, 5.4), counted(7, 9)) == (2000, 250, 250, None)
    text = path.read_text()
    assert text.count("format version") == 1
    path.write_text("x\n" + text)
    with pytest.raises(LedgerError, match=r"pacing\.3\.hlog: line 1 is no interval"):
        pacing.load(tmp_path)


def test_a_log_that_cannot_be_written_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match=r"pacing\.0\.hlog: No such file"):
        pacing.PacingWriter(pacing.path_of(tmp_path / "no", 0), MS)


# --- the check, and what it does to a latency and a verdict

NAMES = ("pacing_lag_ms_p50", "pacing_lag_ms_p99", "pacing_lag_ms_max")
SENDS = [Sent(s, due_s=2 + s / 10, settled_s=2.1 + s / 10) for s in range(160)]  # 100 ms each, until 18 s
AUDIT = [Got(s) for s in range(160)]


def found(folder: Path, check: str, *names: str) -> tuple[Any, ...]:
    finding = CHECKS[check](history.load(folder))
    return tuple(finding.numbers[name] for name in names)


def test_the_lag_of_the_steady_phase_alone(tmp_path: Path) -> None:
    lags = [(0.0, 15, 900.0), (1.5, 75, 1.0), (10.5, 20, 5000.0)]
    folder = write_cell_folder(tmp_path, sends=SENDS, audit=AUDIT, lags=lags, fault="kill:leader")
    assert found(folder, "pacing", *NAMES) == pytest.approx((1, 1, 1), rel=2e-3)
    assert judge(folder).row["pacing_lag_ms_p99"] == pytest.approx(1, rel=2e-3)


def test_no_lag_is_measured_where_there_was_no_log(tmp_path: Path) -> None:
    folder = write_cell_folder(tmp_path, sends=SENDS, audit=AUDIT)
    assert found(folder, "pacing", *NAMES) == (None, None, None)
    assert found(folder, "latency", "latency_ms_p99", "latency_ms_p99_refused") == (100.0, None)


@pytest.mark.parametrize(("lag_ms", "refused"), [(19.9, False), (20.1, True)])
def test_a_latency_is_refused_where_the_lag_is_more_than_a_fifth_of_it(
    tmp_path: Path, lag_ms: float, refused: bool
) -> None:
    folder = write_cell_folder(tmp_path, sends=SENDS, audit=AUDIT, lags=[(2.0, 160, lag_ms)])
    finding = CHECKS["latency"](history.load(folder))
    shown = [finding.numbers[f"latency_ms_{q}"] for q in ("p50", "p99", "max")]
    assert shown == ([None] * 3 if refused else [100.0] * 3)
    assert finding.numbers["latency_ms_p99_refused"] == (100.0 if refused else None)
    assert finding.numbers["latency_unacked"] == 0
    assert finding.numbers["service_ms_p50"] == 100.0
    assert len(finding.notes) == refused
    if refused:
        assert finding.notes[0].startswith("latency is refused: our own load was late by p99 20.1")


def test_each_phase_is_refused_by_its_own_lag(tmp_path: Path) -> None:
    lags = [(2.0, 75, 1.0), (10.5, 50, 50.0)]
    folder = write_cell_folder(tmp_path, sends=SENDS, audit=AUDIT, lags=lags, fault="kill:leader")
    assert found(folder, "latency", "latency_ms_p99", "fault_latency_ms_p99") == (100.0, None)


LOADS = [{"event": "phase", "name": name, "t_ns": at(s)} for name, s in (("search", 3), ("load-25", 5), ("load-90", 8))]


@pytest.mark.parametrize("late_s", [5.0, 8.0])
def test_a_load_at_a_share_is_refused_and_makes_a_cell_invalid_like_the_steady_phase(
    tmp_path: Path, late_s: float
) -> None:
    lags = [(2.0, 30, 1.0), (5.0, 30, 30.0 if late_s == 5 else 2.0), (8.0, 20, 30.0 if late_s == 8 else 2.0)]
    judged = judge(
        in_order(write_cell_folder(tmp_path, sends=SENDS, audit=AUDIT, lags=lags, events=LOADS, latency=True))
    )
    name = "25" if late_s == 5 else "90"
    assert judged.verdict is Verdict.INVALID
    assert judged.reason.startswith(f"load {name} latency is refused: our own load was late by p99 30")
    row = judged.row
    assert row["load_25_pacing_lag_ms_p99"] == pytest.approx(30 if late_s == 5 else 2, rel=2e-3)
    assert (row["load_25_latency_ms_p50"], row["load_25_latency_ms_max"]) == (
        (None,) * 2 if late_s == 5 else (100.0,) * 2
    )
    assert row["load_50_pacing_lag_ms_p99"] is None
    (numbers,) = [f.numbers for f in judged.findings if f.check == "latency"]
    assert numbers[f"load_{name}_latency_ms_p99_refused"] == 100.0
    assert numbers["load_50_latency_ms_p99_refused"] is None


@pytest.mark.parametrize(
    ("late", "cell", "expected"),
    [
        (True, {"latency": True}, Verdict.INVALID),
        (False, {"latency": True}, Verdict.KEPT),
        (True, {"latency": False}, Verdict.KEPT),
        (True, {}, Verdict.KEPT),
        (True, {"latency": True, "audit": AUDIT[:-3]}, Verdict.BROKEN),
        (True, {"latency": True, "audit": AUDIT[:-3], "fault": "kill:leader"}, Verdict.LOST_AS_DOCUMENTED),
        (True, {"latency": False, "audit": AUDIT[:-3], "fault": "kill:leader"}, Verdict.LOST_AS_DOCUMENTED),
    ],
)
def test_only_a_cell_that_measures_latency_is_invalid_and_nothing_that_was_lost_is_hidden(
    tmp_path: Path, late: bool, cell: dict[str, Any], expected: Verdict
) -> None:
    lags = [(2.0, 160, 30.0 if late else 1.0)]
    judged = judge(write_cell_folder(tmp_path, **{"sends": SENDS, "audit": AUDIT, "lags": lags, **cell}))
    assert judged.verdict is expected, judged.reason
    assert (judged.row["latency_ms_p99"] is None) == late
    if expected is Verdict.INVALID:
        assert judged.reason.startswith("latency is refused: our own load was late by p99 30")


def test_what_was_not_measured_speaks_against_nothing() -> None:
    assert (too_late(None, 5.0), too_late(5.0, None), too_late(1.0, 5.0)) == (None, None, None)
    assert too_late(1.1, 5.0) == "our own load was late by p99 1.1 ms, more than a fifth of the p99 of 5 ms"


def test_any_round_of_the_loop_has_as_many_lags_as_messages() -> None:
    rounds = [(10**9 + n, 10**9 - n * 100, n, 0) for n in range(1, 50)]
    assert len(pacing.lags(rounds, 100.0)) == sum(range(1, 50))
    assert np.all(pacing.lags(rounds, 100.0) >= 0)
