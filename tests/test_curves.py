"""What the pictures of a cell are drawn from: literal rows to exact numbers, in both directions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from mqtest import latency_log
from mqtest.curves import PARTS, Band, Curves, Latency, Mark, Run, curves
from mqtest.history import History
from mqtest.model import Kind, Outcome
from tests.histories import Got, Sent, at, told, write_cell_folder


def seen(folder: Path) -> Curves:
    """Of a literal cell; the same whether every message is looked at or those sifted out."""

    def tell(history: History) -> Curves | None:
        return curves(history, latency_log.times(history))

    found = told(tell, folder)
    assert found is not None
    return found


def steps(found: tuple[int, ...] | None) -> dict[int, int]:
    """Step → number, where it is not 0."""
    assert found is not None
    return {step: number for step, number in enumerate(found) if number}


def changes(found: tuple[int, ...]) -> dict[int, int]:
    """Step → the number from there on, where it changes."""
    return {0: found[0]} | {step: found[step] for step in range(1, len(found)) if found[step] != found[step - 1]}


def cell(tmp_path: Path, sends: list[Sent], audit: list[Got], **more: Any) -> Path:
    return write_cell_folder(tmp_path, sends=sends, audit=audit, **more)


ACKED = [Sent(0, due_s=2.5), Sent(1, due_s=2.6), Sent(2, due_s=11.2, settled_s=14.0), Sent(3, due_s=20.0)]


def test_counts_stand_in_the_second_in_which_they_happened(tmp_path: Path) -> None:
    sends = [*ACKED, Sent(4, Outcome.UNKNOWN, due_s=12.9, settled_s=16.0), Sent(0, producer=1, due_s=2.7, place=1)]
    got = [Got(0, received_s=31.5), Got(1, received_s=31.6), Got(2, received_s=33.0)]
    found = seen(cell(tmp_path, sends, [Got(0), Got(1), Got(2), Got(3)], receipts=got, places=2))
    assert (found.step_s, found.length_s, len(found.deliveries)) == (1.0, 35.0, 35)
    assert steps(found.acks) == {2: 3, 14: 1, 20: 1}
    assert steps(found.deliveries) == {31: 2, 33: 1}
    assert steps(found.unknown) == {12: 1}


def test_a_short_cell_is_told_in_tenths_of_a_second(tmp_path: Path) -> None:
    folder = cell(tmp_path, [Sent(0, due_s=0.5), Sent(1, due_s=0.61)], [Got(0), Got(1)])
    path = folder / "ledger" / "events.jsonl"
    path.write_text(path.read_text().replace(str(at(35.0)), str(at(1.0))))
    found = seen(folder)
    assert (found.step_s, found.length_s, steps(found.acks)) == (0.1, 1.0, {5: 1, 6: 1})


def test_a_message_is_unseen_from_its_ack_until_a_consumer_has_it(tmp_path: Path) -> None:
    got = [
        Got(0, received_s=2.4),  # before its ack
        Got(1, received_s=5.5),
        Got(1, received_s=7.5),  # again
        Got(2, received_s=31.0),
        Got(4, received_s=31.0),  # was never acked
    ]
    sends = [*ACKED, Sent(4, Outcome.UNKNOWN, due_s=3.0)]
    found = seen(cell(tmp_path, sends, [Got(n) for n in range(5)], receipts=got))
    assert changes(found.unseen) == {0: 0, 2: 1, 5: 0, 14: 1, 20: 2, 31: 1}
    assert changes(seen(cell(tmp_path / "b", ACKED[:1], [Got(0)], receipts=got[:1])).unseen) == {0: 0}


def test_lost_messages_stand_at_their_acks_and_in_the_run_of_their_producer(tmp_path: Path) -> None:
    sends = [*(Sent(n) for n in range(240)), *(Sent(n, producer=1) for n in range(10))]
    audit = [*(Got(n) for n in range(240) if n not in (50, 51, 52, 239)), *(Got(n, producer=1) for n in range(10))]
    found = seen(cell(tmp_path, sends, audit))
    assert steps(found.gone) == {5: 3, 23: 1}
    (run,) = found.runs
    assert (run.producer, run.messages, len(run.gone)) == (0, 240, PARTS)
    assert steps(run.gone) == {25: 2, 26: 1, 119: 1}


def test_a_cell_that_lost_nothing_has_no_run_and_one_that_is_not_read_to_its_end_does_not_tell(tmp_path: Path) -> None:
    kept = seen(cell(tmp_path, ACKED, [Got(n) for n in range(4)]))
    assert (steps(kept.gone), kept.runs) == ({}, ())
    cut_off = seen(cell(tmp_path / "b", ACKED, [Got(0)], complete=False))
    assert (cut_off.gone, cut_off.runs) == (None, ())


def test_without_acknowledgements_a_message_counts_from_its_sending(tmp_path: Path) -> None:
    sends = [Sent(0, due_s=2.5), Sent(1, due_s=3.5), Sent(2, due_s=4.5)]
    folder = cell(
        tmp_path, sends, [Got(0), Got(2)], receipts=[Got(0, received_s=6.0)], acknowledged=False, kind=Kind.LOG
    )
    found = seen(folder)
    assert found.acks is None
    assert changes(found.unseen) == {0: 0, 2: 1, 3: 2, 4: 3, 6: 2}
    assert steps(found.gone) == {3: 1}
    assert [run.messages for run in found.runs] == [3]


def test_response_times_by_second_and_by_phase(tmp_path: Path) -> None:
    sends = [Sent(n, due_s=2 + n / 100, settled_s=2 + n / 100 + 0.001 * (n + 1)) for n in range(100)]
    found = seen(cell(tmp_path, [*sends, Sent(100, due_s=5.0, settled_s=5.25)], []))
    assert [(x.at_s, round(x.p50_ms), round(x.p99_ms), round(x.max_ms)) for x in found.latencies] == [
        (2.0, 50, 99, 100),
        (5.0, 250, 250, 250),
    ]
    assert {phase: [round(ms) for ms in values] for phase, values in found.percentiles.items()} == {
        "steady": [51, 76, 91, 96, 100, 250, 250, 250]
    }
    assert np.allclose(found.latencies[1][1:], 250, rtol=1e-3)


def test_nothing_acked_has_no_response_time(tmp_path: Path) -> None:
    found = seen(cell(tmp_path, [Sent(0, Outcome.UNKNOWN, due_s=2.5)], []))
    assert (found.latencies, found.percentiles) == ((), {})
    assert Latency(1.0, 2.0, 3.0, 4.0) not in found.latencies


def test_a_fault_is_a_band_and_a_move_of_the_leader_a_mark(tmp_path: Path) -> None:
    moves = [
        {"event": "leader", "place": 0, "node": "n-1", "t_ns": at(9.9)},
        {"event": "leader", "place": 0, "node": None, "before": "n-1", "t_ns": at(10.5)},
        {"event": "leader", "place": 0, "node": "n-2", "before": None, "t_ns": at(12.25)},
    ]
    found = seen(cell(tmp_path, ACKED, [Got(n) for n in range(4)], fault="kill:leader", events=moves))
    assert found.bands == (Band(what="kill (leader)", began_s=10.1, healed_s=17.0, recovered_s=19.5),)
    assert found.marks == (Mark(what="n-2 leads instead of n-1", at_s=12.25),)
    calm = seen(cell(tmp_path / "b", ACKED, [Got(n) for n in range(4)], events=moves[:1]))
    assert (calm.bands, calm.marks) == ((), ())


def test_each_part_is_a_band_up_to_its_own_recovery(tmp_path: Path) -> None:
    def part(number: int, begin: float) -> list[dict[str, Any]]:
        said = {"event": "fault", "part": number, "action": "kill", "aim": "one", "target": ["n-1"], "evidence": {}}
        return [
            {**said, "step": "injected", "t_ns": at(begin)},
            {**said, "step": "healed", "t_ns": at(begin + 1)},
            {"event": "recovered", "stage": "ready", "t_ns": at(begin + 2)},
            {"event": "recovered", "stage": "in-sync", "t_ns": at(begin + 2.5)},
        ]

    events = [*part(0, 5), *part(1, 15), part(2, 25)[0]]
    found = seen(cell(tmp_path, ACKED, [Got(n) for n in range(4)], events=events))
    assert [(b.what, b.began_s, b.healed_s, b.recovered_s) for b in found.bands] == [
        ("kill:one (n-1)", 5.0, 6.0, 7.5),
        ("kill:one (n-1)", 15.0, 16.0, 17.5),
        ("kill:one (n-1)", 25.0, None, None),
    ]


def test_a_member_of_another_cluster_that_was_away_is_a_band(tmp_path: Path) -> None:
    looks = [(4.0, ["a", "b"]), (6.0, ["a"]), (9.0, ["a", "b"])]
    events = [{"event": "members", "alive": alive, "t_ns": at(t), "since_ns": at(t - 0.5)} for t, alive in looks]
    found = seen(cell(tmp_path, ACKED, [Got(n) for n in range(4)], events=events))
    assert found.bands == (Band(what="b away", began_s=5.5, healed_s=9.0, recovered_s=9.0),)


def test_a_cell_whose_load_never_began_has_none(tmp_path: Path) -> None:
    folder = cell(tmp_path, [], [])
    path = folder / "ledger" / "events.jsonl"
    path.write_text("".join(line for line in path.read_text().splitlines(keepends=True) if "warm-up" not in line))

    def tell(history: History) -> Curves | None:
        return curves(history, latency_log.times(history))

    assert told(tell, folder) is None
    assert Run(producer=0, messages=1, gone=()) != Run(producer=1, messages=1, gone=())
