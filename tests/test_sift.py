"""What is sifted out tells all that there is to tell: every check, against the same with every message looked at."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mqtest import sift, tables
from mqtest.checks import CHECKS
from mqtest.fates import Fate
from mqtest.history import load
from mqtest.model import Flag, Kind, Outcome
from mqtest.neighbourhood import neighbourhoods
from mqtest.timeline import timeline
from tests.histories import CORRUPT, FOREIGN, Got, Sent, Skipped, at, told, write_cell_folder

LOG, QUEUE = Kind.LOG, Kind.QUEUE


@pytest.fixture(autouse=True)
def _small_slices() -> Iterator[None]:
    """Every story crosses the edges of slices."""
    with ExitStack() as stack:
        stack.enter_context(patch.object(tables, "SLICE_ROWS", 9))
        stack.enter_context(patch.object(sift, "_RANGE", 8))
        yield


class Cell:
    """A cell in which all went well, and what can be done to it."""

    def __init__(self, draw: random.Random, kind: Kind, *, named: bool, producers: int, places: int, consumers: int):
        self.draw, self.kind, self.named, self.places = draw, kind, named, places
        self.sends: list[Sent | Skipped] = []
        self.audit: list[Got] = []
        self.receipts: list[Got] = []
        ends = [0] * places
        epochs = [0] * producers
        for seq in range(draw.randint(1, 40)):
            for producer in range(producers):
                epochs[producer] += draw.random() < 0.1
                place = seq % places
                ends[place] += 1
                offset = ends[place] if kind is LOG and named else -1
                sent = Sent(seq, offset=offset, producer=producer, place=place, epoch=epochs[producer])
                self.sends.append(sent)
                got = Got(seq, offset=ends[place], producer=producer, place=place, actor=place % consumers)
                self.receipts.append(got)
                if kind is LOG:
                    self.audit.append(got._replace(actor=0))

    def sent(self) -> int:
        return self.draw.randrange(len(self.sends))

    def lose(self) -> None:
        """One is not in the audit; in a queue, nowhere."""
        self._drop(self.audit)
        if self.kind is QUEUE or self.draw.random() < 0.5:
            self._drop(self.receipts)

    def _drop(self, rows: list[Got]) -> None:
        if rows:
            del rows[self.draw.randrange(len(rows))]

    def unread(self) -> None:
        """One was not given to any consumer."""
        self._drop(self.receipts)

    def again(self) -> None:
        """A receipt comes once more, later."""
        for rows in (self.receipts, self.audit):
            if rows and self.draw.random() < 0.5:
                got = self.draw.choice(rows)
                where = self.draw.randint(rows.index(got), len(rows))
                flags = self.draw.choice([Flag(0), Flag.REDELIVERED])
                rows.insert(where, got._replace(flags=flags, epoch=self.draw.randint(0, 1)))

    def twice(self) -> None:
        """A message is stored a second time, further on or at a position of another place."""
        if self.audit:
            got = self.draw.choice(self.audit)
            place = self.draw.randrange(self.places)
            end = max((r.offset or 0 for r in self.audit if r.place == place), default=0)
            self.audit.append(got._replace(offset=end + 1, place=place))
            if self.draw.random() < 0.5:
                self.receipts.append(got._replace(offset=end + 1, place=place))

    def swap(self) -> None:
        """Two change places in the audit of a log, in the receipts of a queue."""
        rows = self.audit if self.kind is LOG else self.receipts
        if len(rows) > 1:
            i, j = self.draw.randrange(len(rows)), self.draw.randrange(len(rows))
            a, b = rows[i], rows[j]
            rows[i] = a._replace(seq=b.seq, producer=b.producer)
            rows[j] = b._replace(seq=a.seq, producer=a.producer)

    def move(self) -> None:
        """A reader found a message at another position than it was acked at."""
        rows = self.draw.choice([self.receipts, self.audit])
        if rows:
            i = self.draw.randrange(len(rows))
            rows[i] = rows[i]._replace(offset=self.draw.randint(0, 45), place=self.draw.randrange(self.places))

    def begin_anew(self) -> None:
        """A reader of the audit reads from the start again."""
        self.audit += [got._replace(epoch=1) for got in self.audit[: self.draw.randint(0, 9)]]

    def other_outcome(self) -> None:
        i = self.sent()
        row = self.sends[i]
        if isinstance(row, Sent):
            outcome = self.draw.choice([o for o in Outcome if o is not Outcome.NONE])
            self.sends[i] = row._replace(outcome=outcome, settled=self.draw.random() < 0.8)

    def skip(self) -> None:
        i = self.sent()
        self.sends[i] = Skipped(self.sends[i].seq, self.sends[i].producer)

    def strange(self) -> None:
        rows = self.draw.choice([self.receipts, self.audit])
        rows.insert(self.draw.randint(0, len(rows)), self.draw.choice([CORRUPT, FOREIGN, Got(99), Got(0, producer=9)]))

    def late_ack(self) -> None:
        i = self.sent()
        row = self.sends[i]
        if isinstance(row, Sent):
            self.sends[i] = row._replace(settled_s=self.draw.choice([9.0, 14.0, 29.0]))


THINGS = [name for name, value in vars(Cell).items() if callable(value) and not name.startswith("_") and name != "sent"]


def events(draw: random.Random, places: int) -> list[dict[str, Any]]:
    said: list[dict[str, Any]] = []
    if draw.random() < 0.5:
        said.append({"t_ns": at(34), "event": "committed", "places": {"0": draw.randint(0, 50)}, "ends": {}})
    if draw.random() < 0.5:
        counts = {"t_ns": at(draw.choice([31.0, 34])), "event": "counts", "when": "drained"}
        said.append(counts | {"totals": {"ready": draw.randint(0, 2), "unacked": 0}})
    return said


def make(folder: Path, seed: int) -> Path:
    draw = random.Random(seed)
    kind = draw.choice([LOG, QUEUE])
    cell = Cell(
        draw,
        kind,
        named=draw.random() < 0.7,
        producers=draw.choice([1, 1, 2, 3]),
        places=draw.choice([1, 1, 2]),
        consumers=draw.choice([1, 1, 2]),
    )
    if draw.random() < 0.2:
        cell.receipts.clear()
    for _ in range(draw.choice([0, 1, 1, 2, 3, 6])):
        getattr(cell, draw.choice(THINGS))()
    pipeline: dict[str, Any] = {}
    if kind is LOG and draw.random() < 0.3:
        outputs = [got._replace(offset=i) for i, got in enumerate(cell.audit)]
        for _ in range(draw.randint(0, 2)):
            if outputs:
                outputs.insert(draw.randint(0, len(outputs)), draw.choice(outputs))
                del outputs[draw.randrange(len(outputs))]
        pipeline = {"handed": cell.audit, "outputs": outputs}
    return write_cell_folder(
        folder,
        kind=kind,
        sends=cell.sends,
        receipts=cell.receipts,
        audit=cell.audit,
        events=events(draw, cell.places),
        fault=draw.choice(["none", "kill:leader", "power-cut:all"]),
        complete=draw.random() < 0.9,
        consume=draw.choice(["live", "after-heal"]),
        places=cell.places,
        acknowledged=draw.random() < 0.85,
        **pipeline,
    )


def everything(loaded: Any) -> Any:
    findings = [check(loaded) for check in CHECKS.values()]
    return findings, timeline(loaded), [neighbourhoods(loaded, finding.messages) for finding in findings]


@settings(max_examples=60)
@given(st.integers(0, 2**32))
def test_checks_say_the_same_as_of_all_messages(seed: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        told(everything, make(Path(folder), seed))


@pytest.mark.parametrize("kind", [LOG, QUEUE])
def test_where_all_went_well_only_witnesses_are_looked_at(tmp_path: Path, kind: Kind) -> None:
    sends = [Sent(seq, place=seq % 2) for seq in range(200)]
    got = [Got(seq, place=seq % 2, actor=seq % 2) for seq in range(200)]
    audit = [g._replace(actor=0) for g in got] if kind is LOG else []
    folder = write_cell_folder(tmp_path, kind=kind, sends=sends, receipts=got, audit=audit, places=2)
    assert 0 < len(load(folder).looked_at) <= 6
    assert len(load(folder, closely=True).looked_at) == 200


def test_an_audit_that_does_not_come_in_the_order_of_positions_is_looked_at_whole(tmp_path: Path) -> None:
    got = [Got(seq) for seq in range(30)]
    got[10], got[20] = got[20], got[10]
    folder = write_cell_folder(tmp_path, sends=[Sent(seq) for seq in range(30)], audit=got)
    assert len(load(folder).looked_at) == 30
    assert told(CHECKS["reordered"], folder).numbers["reordered"] == 0


def test_a_reader_that_began_anew_does_not_make_every_message_a_story(tmp_path: Path) -> None:
    got = [Got(seq) for seq in range(100)]
    again = [g._replace(epoch=1) for g in got]
    folder = write_cell_folder(tmp_path, sends=[Sent(seq) for seq in range(100)], audit=[*got[:60], *again])
    assert len(load(folder).looked_at) <= 3
    assert told(CHECKS["stored-twice"], folder).numbers["stored_twice"] == 0


def test_the_tally_is_of_all_messages(tmp_path: Path) -> None:
    sends = [Sent(0), Sent(1, Outcome.UNKNOWN), Skipped(2), *(Sent(seq) for seq in range(3, 50))]
    loaded = load(write_cell_folder(tmp_path, sends=sends, audit=[Got(seq) for seq in range(50) if seq != 2]))
    assert loaded.tally.sum() == 50
    assert (loaded.count(Fate.DELIVERED), loaded.count(Fate.RECOVERED), loaded.count(Fate.LOST)) == (48, 1, 0)
    assert loaded.messages.skipped == 1


# --- witnesses without whom a story reads otherwise


def test_who_stands_where_a_lost_one_was_acked_is_looked_at(tmp_path: Path) -> None:
    """The audit holds an unnamed message of another producer there, which has no story of its own."""
    sends = [Sent(seq, offset=10 * seq) for seq in range(30)]
    sends += [Sent(seq, offset=-1, producer=1) for seq in range(20)]
    holds = {150: Got(8, offset=150, producer=1)}
    holds |= {10 * seq: Got(seq, offset=10 * seq) for seq in range(30) if seq != 15}
    holds |= {10 * seq + 71: Got(seq, offset=10 * seq + 71, producer=1) for seq in range(20) if seq != 8}
    folder = write_cell_folder(tmp_path, sends=sends, audit=[holds[at] for at in sorted(holds)])
    numbers = told(CHECKS["loss"], folder).numbers
    assert (numbers["lost"], numbers["lost_cut_off"], numbers["offsets_reused"]) == (1, 1, 1)


@pytest.mark.parametrize(("skipped", "others"), [(range(11, 16), range(16, 30)), (range(5, 10), range(5))])
def test_the_far_survivors_of_a_producer_are_looked_at(tmp_path: Path, skipped: range, others: range) -> None:
    """Nobody near the lost one was sent on that side; another producer stands at the end of the log."""
    sends = [Skipped(seq) if seq in skipped else Sent(seq) for seq in range(30)]
    there = [seq for seq in range(30) if seq != 10 and seq not in skipped]
    assert set(others) <= set(there)
    more = [Sent(seq, offset=100 + seq, producer=1) for seq in range(20)]
    got = [*(Got(seq) for seq in there), *(Got(seq, offset=100 + seq, producer=1) for seq in range(20))]
    folder = write_cell_folder(tmp_path, sends=[*sends, *more], audit=got)
    numbers = told(CHECKS["loss"], folder).numbers
    assert (numbers["lost"], numbers["prefix"], numbers["middle"], numbers["suffix"]) == (1, 0, 1, 0)


def test_what_the_group_committed_past_is_looked_at(tmp_path: Path) -> None:
    """Further than any consumer read."""
    committed = {"t_ns": at(34), "event": "committed", "places": {"0": 20}, "ends": {"0": 30}}
    folder = write_cell_folder(
        tmp_path,
        sends=[Sent(seq) for seq in range(30)],
        receipts=[Got(seq) for seq in range(6)],
        audit=[Got(seq) for seq in range(30)],
        events=[committed],
    )
    assert told(CHECKS["skipped-by-consumer"], folder).numbers["skipped_by_consumer"] == 14


def test_a_second_copy_of_an_unnamed_message_is_no_reader_that_began_anew(tmp_path: Path) -> None:
    sends = [Sent(seq, offset=-1) for seq in range(40)]
    stored = [*range(30), 12, *range(30, 40)]
    folder = write_cell_folder(tmp_path, sends=sends, audit=[Got(seq, offset=i) for i, seq in enumerate(stored)])
    assert told(CHECKS["stored-twice"], folder).numbers["stored_twice"] == 1


def test_whom_a_late_one_followed_in_its_own_connection_is_looked_at(tmp_path: Path) -> None:
    """5 came after 12 of the same connection, and after 20 of the next."""
    alive = [*range(6), 12, *range(20, 30)]
    sends = [Sent(seq, offset=-1, epoch=int(seq > 12)) if seq in alive else Skipped(seq) for seq in range(30)]
    order = [*range(5), 12, 20, 5, *range(21, 30)]
    folder = write_cell_folder(tmp_path, sends=sends, audit=[Got(seq, offset=i) for i, seq in enumerate(order)])
    numbers = told(CHECKS["reordered"], folder).numbers
    assert (numbers["reordered"], numbers["reordered_in_session"], numbers["reordered_by_max"]) == (1, 1, 15)


def test_messages_whose_position_nobody_named_are_plain(tmp_path: Path) -> None:
    got = [Got(seq) for seq in range(100)]
    folder = write_cell_folder(tmp_path, sends=[Sent(seq, offset=-1) for seq in range(100)], receipts=got, audit=got)
    assert len(load(folder).looked_at) <= 3


def test_two_readers_may_share_a_place_of_a_log(tmp_path: Path) -> None:
    """One after the other they read it in order; else all is looked at."""
    sends = [Sent(seq) for seq in range(60)]
    for name, first, least, most in (("rising", 0, 1, 4), ("falling", 1, 60, 60)):
        audit = [Got(seq, actor=first if seq < 30 else 1 - first) for seq in range(60)]
        ended = {"t_ns": at(45), "event": "audit", "reader": 1, "complete": True}
        folder = write_cell_folder(tmp_path / name, sends=sends, audit=audit, events=[ended])
        assert told(CHECKS["reordered"], folder).numbers["reordered"] == 0
        assert least <= len(load(folder).looked_at) <= most
        assert told(CHECKS["loss"], folder).numbers["lost"] == 0
