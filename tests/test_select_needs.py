"""Needs, as they are written: texts to records and back, and what is said of the others."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mqtest.errors import UsageError
from mqtest.select.needs import _STEADY, FIGURES, OPS, Need, number, parse
from mqtest.select.words import WORDS


@pytest.mark.parametrize(
    ("text", "need"),
    [
        ("lost == 0", Need(subject="lost")),
        ("lost==0", Need(subject="lost")),
        (" Lost  == 0 ", Need(subject="lost")),
        ("ordered", Need(subject="ordered")),
        ("no duplicates under none", Need(subject="no duplicates", fault="none")),
        ("lost == 0 under power-cut all", Need(subject="lost", fault="power-cut:all")),
        ("lost == 0 under power-cut:all", Need(subject="lost", fault="power-cut:all")),
        ("lost_ppm <= 1e2 under kill", Need(subject="lost_ppm", op="<=", bound=100.0, fault="kill")),
        ("ack_gap_s_max < 2.5 under kill:*", Need(subject="ack_gap_s_max", op="<", bound=2.5, fault="kill:*")),
        ("lost == 0 under kill:leader+pause:one", Need(subject="lost", fault="kill:leader+pause:one")),
        ("latency_ms_p99 < 50 at 2000/s", Need(subject="latency_ms_p99", op="<", bound=50.0, rate_per_s=2000.0)),
        ("latency_ms_p99 < 50 at 2000 /s", Need(subject="latency_ms_p99", op="<", bound=50.0, rate_per_s=2000.0)),
        ("latency_ms_p99 < 50 under none", Need(subject="latency_ms_p99", op="<", bound=50.0, fault="none")),
        ("ordered at 500/s under kill all", Need(subject="ordered", fault="kill:all", rate_per_s=500.0)),
        ("replay of 7 days", Need(subject="replay", span="7 days")),
        ("replay of 7d", Need(subject="replay", span="7 days")),
        ("replay of 1.5 hours", Need(subject="replay", span="1.5 hours")),
        ("replay of 1 week", Need(subject="replay", span="1 week")),
    ],
)
def test_what_is_written_is_what_is_meant(text: str, need: Need) -> None:
    assert parse(text) == need


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "nothing is asked"),
        ("under kill", "nothing is asked"),
        ("losst == 0", "'losst' is no figure of results.csv, nor one of: .* (did you mean 'lost'?)"),
        ("ordred", "(did you mean 'ordered'?)"),
        ("verdict == 0", "'verdict' is no figure"),
        ("nodes == 3", "'nodes' is no figure"),
        ("not_found == 0", "never safe: ask lost"),
        ("lost", "lost takes a comparison, such as 'lost == 0'"),
        ("ordered == 0", "'ordered' takes no comparison"),
        ("lost = 0", "write == for equal"),
        ("lost != 0", "'!=' compares nothing; allowed: <, <=, ==, >=, >"),
        ("lost ==", "'' is not a number"),
        ("lost == many", "'many' is not a number"),
        ("lost == nan", "'nan' is not a number"),
        ("lost == inf", "'inf' is not a number"),
        ("lost == 0 0", "'0' is not understood"),
        ("lost == 0 under", "nothing follows 'under'"),
        ("lost == 0 under kill under pause", "'under' stands twice"),
        ("lost == 0 under kill the leader", "'kill the leader' is no fault"),
        ("lost == 0 under kill:leader now", "'kill:leader now' is no fault"),
        ("lost == 0 under kill/leader", "'kill/leader' is no fault"),
        ("lost == 0 at 2000", "'2000' is no rate; such as 2000/s"),
        ("lost == 0 at 2000/min", "is no rate"),
        ("lost == 0 at fast/s", "'fast' is not a rate"),
        ("lost == 0 at 0/s", "a rate is above 0"),
        ("replay of ever", "'ever' is no time; such as 7 days"),
        ("replay of 7 moons", "'7 moons' is no time"),
        ("replay of 0 days", "'0 days' is no time"),
        ("ordered of 7 days", "'of' and a time go with 'replay' alone"),
        ("latency_ms_p99 < 50 under kill all", "before a fault: ask fault_latency_ms_p99, or drop 'under kill:all'"),
        ("sustained_per_s > 50 under kill all", "before a fault: drop 'under kill:all'"),
    ],
)
def test_a_rejection_is_one_line_that_names_the_need_and_what_is_wrong(text: str, why: str) -> None:
    with pytest.raises(UsageError) as raised:
        parse(text)
    said = str(raised.value)
    assert said.startswith(f"need {' '.join(text.split())!r}: ")
    assert all(part in said for part in why.split(".*"))
    assert "\n" not in said


FAULTS = st.from_regex(r"\A(none|[a-z]+(-[a-z]+)?(:(leader|all|\*))?(\+kill:one)?|\*:\*)\Z").filter(
    lambda fault: not {"at", "of", "under"} & {fault}
)
FINITE = st.floats(allow_nan=False, allow_infinity=False)
SPANS = st.builds(lambda n, unit: f"{n} {unit}s", st.integers(2, 10**6), st.sampled_from(["second", "day", "week"]))


@st.composite
def needs(draw: st.DrawFn) -> Need:
    subject = draw(st.sampled_from([*WORDS, *(figure for figure in FIGURES if figure != "not_found")]))
    steady = _STEADY.fullmatch(subject) is not None
    return Need(
        subject=subject,
        op="==" if subject in WORDS else draw(st.sampled_from(list(OPS))),
        bound=0.0 if subject in WORDS else draw(FINITE),
        fault=draw(st.none() | (st.just("none") if steady else FAULTS)),
        rate_per_s=draw(st.none() | FINITE.filter(lambda rate: rate > 0)),
        span=draw(st.none() | SPANS) if subject == "replay" else None,
    )


@given(needs())
def test_every_need_reads_back_as_it_was_written(need: Need) -> None:
    assert parse(str(need)) == need


TOKENS = ["lost", "ordered", "==", "<", "under", "at", "of", "1/s", "0", "kill", "all", "replay", "7", "days"]


@given(st.text(max_size=40) | st.lists(st.sampled_from(TOKENS), max_size=9).map(" ".join))
def test_any_text_is_a_need_or_a_rejection(text: str) -> None:
    try:
        need = parse(text)
    except UsageError:
        return
    assert parse(str(need)) == need


@given(FINITE)
def test_a_number_reads_back_the_same(value: float) -> None:
    assert float(number(value)) == value


@pytest.mark.parametrize(
    ("fault", "covered", "others"),
    [
        (None, ["none", "kill:all", "chaos"], []),
        ("none", ["none"], ["kill:all"]),
        ("kill:all", ["kill:all"], ["kill:leader", "none", "kill:all+pause:one"]),
        ("kill", ["kill:all", "kill:leader"], ["none", "killer:all"]),
        ("*:all", ["kill:all", "power-cut:all"], ["kill:leader", "none", "chaos"]),
        ("*:*", ["kill:all", "kill:all+pause:one"], ["none", "chaos"]),
        ("chaos", ["chaos"], ["chaos-monkey", "none"]),
    ],
)
def test_the_cells_that_a_need_is_about(fault: str | None, covered: list[str], others: list[str]) -> None:
    need = Need(subject="lost", fault=fault)
    assert [f for f in (*covered, *others) if need.covers(f)] == covered


@pytest.mark.parametrize(
    ("text", "of_loss", "of_time"),
    [
        ("lost == 0", True, False),
        ("no loss", True, False),
        ("lost_ppm < 9", True, False),
        ("read_then_lost == 0", True, False),
        ("ordered", False, False),
        ("ack_gap_s_max < 9", False, True),
        ("recovery_s < 9", False, True),
        ("rate_90_s < 9", False, True),
        ("detected_s < 9", False, False),
        ("ack_rate_per_s > 9", False, False),
        ("fault_latency_ms_max < 9", False, False),
        ("stored_twice == 0", False, False),
    ],
)
def test_what_a_need_asks_for(text: str, of_loss: bool, of_time: bool) -> None:
    assert (parse(text).of_loss, parse(text).of_time_lost) == (of_loss, of_time)
