"""Fates: by literal rows in both directions, and against a naive model in plain Python."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mqtest import history, ledger
from mqtest.errors import LedgerError
from mqtest.event_log import events_path
from mqtest.fates import Fate
from mqtest.history import History
from mqtest.model import RUNNER, Flag, Kind, Outcome
from tests.histories import CORRUPT, FOREIGN, Got, Sent, Skipped, at, write_cell_folder


def whole(folder: Path) -> History:
    return history.load(folder, closely=True)


def fates(loaded: History) -> list[str]:
    return [Fate(f).name for f in loaded.fate]


_LOG, _QUEUE = Kind.LOG, Kind.QUEUE
_FATES = [
    # kind, outcome, read by a consumer, in the audit -> fate
    (_LOG, Outcome.ACKED, False, True, Fate.DELIVERED),
    (_LOG, Outcome.ACKED, True, True, Fate.DELIVERED),
    (_LOG, Outcome.ACKED, False, False, Fate.LOST),
    (_LOG, Outcome.ACKED, True, False, Fate.LOST),
    (_QUEUE, Outcome.ACKED, True, False, Fate.DELIVERED),
    (_QUEUE, Outcome.ACKED, False, True, Fate.DELIVERED),
    (_QUEUE, Outcome.ACKED, False, False, Fate.LOST),
    (_LOG, Outcome.DEGRADED, False, True, Fate.DELIVERED),
    (_LOG, Outcome.DEGRADED, True, False, Fate.LOST_DEGRADED),
    (_QUEUE, Outcome.DEGRADED, False, False, Fate.LOST_DEGRADED),
    (_LOG, Outcome.UNKNOWN, False, True, Fate.RECOVERED),
    (_LOG, Outcome.UNKNOWN, True, False, Fate.UNRESOLVED),
    (_QUEUE, Outcome.UNKNOWN, True, False, Fate.RECOVERED),
    (_QUEUE, Outcome.UNKNOWN, False, False, Fate.UNRESOLVED),
    (_LOG, Outcome.REFUSED, False, True, Fate.PHANTOM),
    (_LOG, Outcome.REFUSED, True, False, Fate.PHANTOM),
    (_LOG, Outcome.REFUSED, False, False, Fate.REFUSED),
    (_QUEUE, Outcome.RETURNED, True, False, Fate.PHANTOM),
    (_QUEUE, Outcome.RETURNED, False, False, Fate.REFUSED),
]


@pytest.mark.parametrize(("kind", "outcome", "read", "audited", "fate"), _FATES)
def test_fate(tmp_path: Path, kind: Kind, outcome: Outcome, read: bool, audited: bool, fate: Fate) -> None:
    folder = write_cell_folder(
        tmp_path, kind=kind, sends=[Sent(0, outcome)], receipts=[Got(0)] * read, audit=[Got(0)] * audited
    )
    loaded = whole(folder)
    assert loaded.incomplete is None
    assert fates(loaded) == [fate.name]
    assert {f.name: loaded.count(f) for f in Fate if loaded.count(f)} == {fate.name: 1}


def test_a_message_that_was_never_settled_is_unknown(tmp_path: Path) -> None:
    folder = write_cell_folder(tmp_path, sends=[Sent(0, settled=False), Sent(1, settled=False)], audit=[Got(1)])
    assert fates(whole(folder)) == ["UNRESOLVED", "RECOVERED"]


def test_an_outcome_without_its_time_was_torn_by_a_kill_and_is_unknown(tmp_path: Path) -> None:
    folder = write_cell_folder(tmp_path, sends=[Sent(0), Sent(1)])
    columns = ledger.SendsWriter(folder / "ledger" / "sends.0")
    columns._settled_ns[0] = 0
    columns.close()
    assert fates(whole(folder)) == ["UNRESOLVED", "LOST"]


def test_skipped_messages_have_no_fate(tmp_path: Path) -> None:
    folder = write_cell_folder(tmp_path, sends=[Skipped(0), Sent(1), Skipped(2)], audit=[Got(1)])
    assert fates(whole(folder)) == ["OPEN", "DELIVERED", "OPEN"]


def test_without_acknowledgements_every_send_is_unknown(tmp_path: Path) -> None:
    folder = write_cell_folder(
        tmp_path, acknowledged=False, sends=[Sent(0), Sent(1), Sent(2, Outcome.REFUSED)], audit=[Got(0)]
    )
    assert fates(whole(folder)) == ["RECOVERED", "UNRESOLVED", "REFUSED"]


def test_producers_are_told_apart(tmp_path: Path) -> None:
    folder = write_cell_folder(
        tmp_path, sends=[Sent(0), Sent(1), Sent(0, producer=5), Sent(1, producer=5)], audit=[Got(1), Got(0, producer=5)]
    )
    loaded = whole(folder)
    assert fates(loaded) == ["LOST", "DELIVERED", "DELIVERED", "LOST"]
    assert [loaded.name(m) for m in (1, 2)] == ["producer 0 seq 1", "producer 5 seq 0"]


_STRANGERS = [
    ([Got(0)], 0, 0),
    ([CORRUPT], 0, 1),
    ([FOREIGN], 1, 0),
    ([Got(9)], 1, 0),  # beyond the last row
    ([Got(1)], 1, 0),  # skipped, so never sent
    ([Got(-1)], 1, 0),
    ([Got(0, producer=3)], 1, 0),
    ([Got(0, producer=RUNNER, received_s=41)], 0, 0),
    ([Got(77, producer=RUNNER)], 1, 0),
    ([Got(1, producer=RUNNER)], 1, 0),  # the runner sent one, its fence
    ([Got(0, producer=RUNNER, flags=Flag.FOREIGN)], 1, 0),  # of another run's runner
    ([CORRUPT, FOREIGN, Got(9), Got(0)], 2, 1),
]


@pytest.mark.parametrize(("receipts", "foreign", "corrupt"), _STRANGERS)
@pytest.mark.parametrize("where", ["receipts", "audit"])
def test_strangers(tmp_path: Path, receipts: list[Got], foreign: int, corrupt: int, where: str) -> None:
    read, audited = (receipts, []) if where == "receipts" else ([], receipts)
    folder = write_cell_folder(tmp_path, kind=Kind.QUEUE, sends=[Sent(0), Skipped(1)], receipts=read, audit=audited)
    loaded = whole(folder)
    assert (loaded.foreign, loaded.corrupt, len(loaded.strangers)) == (foreign, corrupt, foreign + corrupt)


def test_a_number_beyond_the_last_is_not_the_next_producer_s_first(tmp_path: Path) -> None:
    sends = [Sent(0), Sent(0, producer=1)]
    loaded = whole(write_cell_folder(tmp_path, kind=Kind.QUEUE, sends=sends, receipts=[Got(1)]))
    assert (loaded.foreign, fates(loaded)) == (1, ["LOST", "LOST"])


def test_without_messages_of_the_runner_none_of_them_is_known(tmp_path: Path) -> None:
    runners = Got(0, producer=RUNNER)
    folder = write_cell_folder(tmp_path, kind=Kind.QUEUE, sends=[Sent(0)], receipts=[runners], fences=False)
    assert whole(folder).foreign == 1


def test_acknowledged_unless_the_cell_says_otherwise(tmp_path: Path) -> None:
    folder = write_cell_folder(tmp_path, sends=[Sent(0)])
    ledger.write_cell(folder, {k: v for k, v in ledger.read_cell(folder).items() if k != "acknowledged"})
    assert fates(whole(folder)) == ["LOST"]


def test_a_corrupt_receipt_proves_nothing(tmp_path: Path) -> None:
    flagged = Got(0, flags=Flag.CORRUPT)
    folder = write_cell_folder(tmp_path, kind=Kind.QUEUE, sends=[Sent(0)], receipts=[flagged])
    assert fates(whole(folder)) == ["LOST"]


class TestComplete:
    """Each thing that makes an audit complete, taken away."""

    def incomplete(self, folder: Path) -> str:
        loaded = whole(folder)
        assert loaded.incomplete is not None
        assert [loaded.count(f) for f in Fate if f is not Fate.PHANTOM] == [None] * (len(Fate) - 1)
        assert fates(loaded) == ["OPEN", "PHANTOM"]
        return loaded.incomplete

    rows = ([Sent(0), Sent(1, Outcome.REFUSED)], [Got(1)])

    @pytest.mark.parametrize("kind", list(Kind))
    def test_complete(self, tmp_path: Path, kind: Kind) -> None:
        folder = write_cell_folder(tmp_path, kind=kind, sends=self.rows[0], audit=self.rows[1])
        assert fates(whole(folder)) == ["LOST", "PHANTOM"]

    def test_a_reader_said_no(self, tmp_path: Path) -> None:
        folder = write_cell_folder(tmp_path, sends=self.rows[0], audit=self.rows[1], complete=False)
        assert self.incomplete(folder) == "audit reader 0: cut off"

    def test_one_of_two_readers_said_no(self, tmp_path: Path) -> None:
        no = {"event": "audit", "t_ns": at(44), "reader": 1, "complete": False, "why": "too slow"}
        folder = write_cell_folder(tmp_path, sends=self.rows[0], audit=self.rows[1], events=[no])
        assert self.incomplete(folder) == "audit reader 1: too slow"

    def test_a_reader_never_ended(self, tmp_path: Path) -> None:
        folder = write_cell_folder(tmp_path, sends=self.rows[0], audit=[Got(1, actor=1)])
        assert self.incomplete(folder) == "an audit reader did not end"

    def test_no_audit_at_all(self, tmp_path: Path) -> None:
        folder = write_cell_folder(tmp_path, sends=self.rows[0], audit=self.rows[1])
        path = events_path(folder)
        path.write_text("".join(x for x in path.read_text().splitlines(True) if '"reader"' not in x))
        assert self.incomplete(folder) == "no reader of the audit ended"

    @pytest.mark.parametrize("kind", list(Kind))
    def test_no_fence(self, tmp_path: Path, kind: Kind) -> None:
        folder = write_cell_folder(tmp_path, kind=kind, sends=self.rows[0], audit=self.rows[1], fences=False)
        assert self.incomplete(folder) == "place 0 has no acknowledged fence after the load and the heal"

    def test_a_fence_that_was_not_acked(self, tmp_path: Path) -> None:
        fence = Sent(0, Outcome.UNKNOWN, producer=RUNNER, sent_s=40)
        audit = [*self.rows[1], Got(0, 99, producer=RUNNER)]
        folder = write_cell_folder(tmp_path, sends=[*self.rows[0], fence], audit=audit, fences=False)
        assert "no acknowledged fence" in self.incomplete(folder)

    def test_a_probe_before_the_load_is_no_fence(self, tmp_path: Path) -> None:
        probe = Sent(0, offset=99, producer=RUNNER, sent_s=-1)
        audit = [*self.rows[1], Got(0, 99, producer=RUNNER)]
        folder = write_cell_folder(tmp_path, sends=[*self.rows[0], probe], audit=audit, fences=False)
        assert "no acknowledged fence" in self.incomplete(folder)

    def test_a_message_before_the_heal_is_no_fence(self, tmp_path: Path) -> None:
        fence = Sent(0, offset=99, producer=RUNNER, sent_s=16.5)
        audit = [*self.rows[1], Got(0, 99, producer=RUNNER)]
        folder = write_cell_folder(
            tmp_path, sends=[*self.rows[0], fence], audit=audit, fences=False, fault="kill:leader"
        )
        assert "no acknowledged fence" in self.incomplete(folder)

    def test_the_audit_does_not_hold_the_fence(self, tmp_path: Path) -> None:
        fence = Sent(0, producer=RUNNER, sent_s=40)
        folder = write_cell_folder(tmp_path, sends=[*self.rows[0], fence], audit=self.rows[1], fences=False)
        assert self.incomplete(folder) == "the audit does not hold the fence of place 0"

    @pytest.mark.parametrize("flag", [Flag.CORRUPT, Flag.FOREIGN])
    def test_a_fence_that_proves_nothing(self, tmp_path: Path, flag: Flag) -> None:
        fence = Sent(0, producer=RUNNER, sent_s=40)
        audit = [*self.rows[1], Got(0, 98, producer=RUNNER, flags=flag)]
        folder = write_cell_folder(tmp_path, sends=[*self.rows[0], fence], audit=audit, fences=False)
        assert self.incomplete(folder) == "the audit does not hold the fence of place 0"

    def test_an_older_message_of_the_runner_is_not_the_fence(self, tmp_path: Path) -> None:
        runners = [Sent(0, producer=RUNNER, sent_s=39), Sent(1, producer=RUNNER, sent_s=40)]
        audit = [*self.rows[1], Got(0, 98, producer=RUNNER)]
        folder = write_cell_folder(tmp_path, sends=[*self.rows[0], *runners], audit=audit, fences=False)
        assert self.incomplete(folder) == "the audit does not hold the fence of place 0"

    def test_a_fence_found_in_another_place(self, tmp_path: Path) -> None:
        fence = Sent(0, producer=RUNNER, sent_s=40)
        audit = [*self.rows[1], Got(0, 98, producer=RUNNER, place=1)]
        folder = write_cell_folder(tmp_path, sends=[*self.rows[0], fence], audit=audit, fences=False)
        assert self.incomplete(folder) == "the audit does not hold the fence of place 0"

    def test_one_place_without_its_fence(self, tmp_path: Path) -> None:
        rows = [Sent(0), Sent(1, Outcome.REFUSED, place=1)]
        folder = write_cell_folder(tmp_path, sends=rows, audit=self.rows[1])
        assert self.incomplete(folder) == "place 1 has no acknowledged fence after the load and the heal"

    def test_a_place_of_the_cell_that_nothing_was_sent_to(self, tmp_path: Path) -> None:
        fence = Sent(0, offset=99, producer=RUNNER, sent_s=40)
        rows: dict[str, Any] = {"sends": [*self.rows[0], fence], "audit": [*self.rows[1], Got(0, 99, producer=RUNNER)]}
        two = write_cell_folder(tmp_path / "a", fences=False, places=2, **rows)
        one = write_cell_folder(tmp_path / "b", fences=False, workload={}, **rows)
        assert self.incomplete(two) == "place 1 has no acknowledged fence after the load and the heal"
        assert whole(one).incomplete is None

    def test_two_places_each_with_its_fence(self, tmp_path: Path) -> None:
        rows = [Sent(0), Sent(1, Outcome.REFUSED, place=1)]
        folder = write_cell_folder(tmp_path, sends=rows, audit=self.rows[1], places=2)
        assert fates(whole(folder)) == ["LOST", "PHANTOM"]


def test_a_damaged_ledger_is_named(tmp_path: Path) -> None:
    folder = write_cell_folder(tmp_path, sends=[Sent(0)])
    (folder / "ledger" / "sends.0" / "place.npy").unlink()
    with pytest.raises(LedgerError, match=r"sends\.0/place\.npy"):
        whole(folder)


def test_a_kind_that_is_none_is_named(tmp_path: Path) -> None:
    folder = write_cell_folder(tmp_path, sends=[Sent(0)])
    ledger.write_cell(folder, ledger.read_cell(folder) | {"kind": "stack"})
    with pytest.raises(LedgerError, match=r"cell\.json: kind: expected log or queue, found 'stack'"):
        whole(folder)


_OUTCOMES = st.sampled_from([o for o in Outcome if o is not Outcome.NONE])
_NAMES = st.tuples(st.integers(0, 1), st.integers(0, 7))


@st.composite
def cells(draw: st.DrawFn) -> tuple[Kind, list[Sent | Skipped], list[Got], list[Got]]:
    """Two producers with up to six messages each, and up to ten receipts and audit rows of them or of nobody."""
    kind = draw(st.sampled_from(list(Kind)))
    sends: list[Sent | Skipped] = []
    for producer in (0, 1):
        for seq in range(draw(st.integers(0, 6))):
            if draw(st.integers(0, 4)) == 0:
                sends.append(Skipped(seq, producer=producer))
            else:
                sends.append(Sent(seq, draw(_OUTCOMES), producer=producer, settled=draw(st.integers(0, 4)) > 0))
    got = st.builds(
        lambda name, offset, flags: Got(name[1], offset, producer=name[0], flags=flags),
        _NAMES,
        st.integers(0, 12) | st.integers(2**62, 2**63 - 1),
        st.sampled_from([Flag(0), Flag(0), Flag.REDELIVERED, Flag.CORRUPT, Flag.FOREIGN]),
    )
    return kind, sends, draw(st.lists(got, max_size=10)), draw(st.lists(got, max_size=10))


@given(cells())
def test_fates_agree_with_a_naive_model_and_add_up(
    cell: tuple[Kind, list[Sent | Skipped], list[Got], list[Got]],
) -> None:
    kind, sends, receipts, audit = cell
    attempted = {(s.producer, s.seq): s for s in sends if isinstance(s, Sent)}

    def known(rows: list[Got]) -> set[tuple[int, int]]:
        good = {(r.producer, r.seq) for r in rows if not r.flags & (Flag.CORRUPT | Flag.FOREIGN)}
        return good & set(attempted)

    expected: dict[tuple[int, int], Fate] = {}
    for name, send in attempted.items():
        outcome = send.outcome if send.settled else Outcome.UNKNOWN
        anywhere = name in known(receipts) | known(audit)
        there = anywhere if kind is Kind.QUEUE else name in known(audit)
        if outcome in (Outcome.REFUSED, Outcome.RETURNED):
            expected[name] = Fate.PHANTOM if anywhere else Fate.REFUSED
        elif outcome is Outcome.UNKNOWN:
            expected[name] = Fate.RECOVERED if there else Fate.UNRESOLVED
        elif there:
            expected[name] = Fate.DELIVERED
        else:
            expected[name] = Fate.LOST if outcome is Outcome.ACKED else Fate.LOST_DEGRADED
    with tempfile.TemporaryDirectory() as folder:
        loaded = whole(write_cell_folder(Path(folder), kind=kind, sends=sends, receipts=receipts, audit=audit))
    names = zip(loaded.sends.producer.tolist(), loaded.sends.seq.tolist(), strict=True)
    found = {name: Fate(fate) for name, fate in zip(names, loaded.fate, strict=True) if fate != Fate.OPEN}
    assert found == expected
    assert sum(loaded.count(f) or 0 for f in Fate if f is not Fate.OPEN) == len(attempted)
    both = receipts + audit
    assert loaded.corrupt == sum(1 for r in both if r.flags & Flag.CORRUPT)
    assert loaded.foreign == sum(
        1
        for r in both
        if not r.flags & Flag.CORRUPT and (r.flags & Flag.FOREIGN or (r.producer, r.seq) not in attempted)
    )
