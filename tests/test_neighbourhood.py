"""What stands around a message: literal cells, each figure at its place."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mqtest import history
from mqtest.checks.sightings import run_starts
from mqtest.model import Outcome
from mqtest.neighbourhood import Neighbour, Neighbourhood, neighbourhoods
from tests.histories import Got, Sent, Skipped, at, write_cell_folder


def around(folder: Path, producer: int = 0, seq: int = 5) -> Neighbourhood:
    (found,) = neighbourhoods(history.load(folder, closely=True), [(producer, seq)])
    return found


def test_three_neighbours_each_side(tmp_path: Path) -> None:
    sends: list[Sent | Skipped] = [Sent(s, sent_s=11 + s / 10) for s in range(12)]
    sends[3], sends[7] = Skipped(3), Sent(7, Outcome.UNKNOWN, place=-1, sent_s=12.0, settled=False)
    receipts = [Got(5, received_s=12.5), Got(5, received_s=12.1), Got(4, received_s=13)]
    other = Sent(5, producer=1)
    folder = write_cell_folder(tmp_path, fault="kill:leader", sends=[*sends, other], receipts=receipts, audit=[Got(4)])
    found = around(folder)
    assert found.since == "fault"
    assert [n.seq for n in found.neighbours] == [2, 3, 4, 5, 6, 7, 8]
    assert found.neighbours[3] == Neighbour(
        producer=0, seq=5, concerned=True, outcome="acked", fate="lost", place=0, offset=5,
        sent_s=1.4, settled_s=1.41, received_s=2.0,
    )  # fmt: skip
    skipped, delivered, unknown = found.neighbours[1], found.neighbours[2], found.neighbours[5]
    assert (skipped.outcome, skipped.fate, skipped.sent_s, skipped.offset) == ("skipped", "open", None, -1)
    assert (delivered.fate, delivered.received_s, delivered.concerned) == ("delivered", 2.9, False)
    assert (unknown.outcome, unknown.fate, unknown.place, unknown.offset) == ("unknown", "unresolved", -1, -1)
    assert unknown.settled_s is None


def test_at_the_edge_of_the_sequence_there_are_fewer(tmp_path: Path) -> None:
    folder = write_cell_folder(tmp_path, sends=[Sent(s) for s in range(6)])
    assert [n.seq for n in around(folder, seq=0).neighbours] == [0, 1, 2, 3]
    assert [n.seq for n in around(folder, seq=5).neighbours] == [2, 3, 4, 5]


def test_a_fate_of_two_words(tmp_path: Path) -> None:
    folder = write_cell_folder(tmp_path, sends=[Sent(0, Outcome.DEGRADED)])
    assert around(folder, seq=0).neighbours[0].fate == "lost-degraded"


def test_events_within_two_seconds_of_what_happened_to_it(tmp_path: Path) -> None:
    times = (21.9, 22.0, 26.0, 26.1, 27.9, 28.0, 32.0, 32.1)
    more = [{"event": "leader", "t_ns": at(t), "place": 0, "node": f"n{t}"} for t in times]
    sends = [Sent(0, sent_s=24.0, settled_s=30.0)]
    folder = write_cell_folder(tmp_path, fault="kill:leader", sends=sends, events=more)
    assert around(folder, seq=0).events == (
        (11.9, "leader: place 0, node n22.0"),
        (15.9, "leader: place 0, node n26.0"),
        (17.9, "leader: place 0, node n28.0"),
        (19.9, "phase: name drain"),
        (21.9, "leader: place 0, node n32.0"),
    )


def test_an_event_is_one_line_without_its_evidence(tmp_path: Path) -> None:
    sends = [Sent(0, sent_s=10.5, settled_s=10.5)]
    folder = write_cell_folder(tmp_path, fault="kill:leader", sends=sends)
    lines = [line for _, line in around(folder, seq=0).events]
    assert "fault: action kill, target leader, step injected" in lines
    assert all("\n" not in line for line in lines)


def test_without_a_fault_times_count_from_the_load(tmp_path: Path) -> None:
    found = around(write_cell_folder(tmp_path, sends=[Sent(0, sent_s=3.0)], audit=[Got(0)]), seq=0)
    assert found.since == "load"
    assert (found.neighbours[0].sent_s, found.events) == (3.0, ((2.0, "phase: name steady"),))


def test_runs_are_named_by_their_first_message(tmp_path: Path) -> None:
    sends = [Sent(s) for s in range(30)] + [Sent(s, producer=1) for s in range(3)]
    loaded = history.load(write_cell_folder(tmp_path, sends=sends), closely=True)
    assert run_starts(loaded, np.array([8, 3, 4, 4, 9, 29, 30, 31])) == ((0, 3), (0, 8), (0, 29), (1, 0))
    assert run_starts(loaded, np.arange(0, 30, 2)) == ((0, 0), (0, 2), (0, 4), (0, 6), (0, 8))
    assert run_starts(loaded, np.array([], dtype=np.int64)) == ()
