"""Schedules: what a scenario says → groups of steps → a timeline."""

from __future__ import annotations

import pytest

from mqtest.errors import UsageError
from mqtest.model import NO_FAULT, Fault, Step
from mqtest.schedule import (
    ScheduleTable,
    StepTable,
    drawn,
    lasts_s,
    moments,
    parse_fault,
    parse_schedule,
    timeline,
)


def schedule(**keys: object) -> Fault:
    return parse_schedule("x", ScheduleTable(**keys), "file: schedule.x")  # type: ignore[arg-type]


KILL, PAUSE = Step("kill", "leader"), Step("pause", "one")


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("none", NO_FAULT),
        ("kill:leader", Fault("kill:leader", ((KILL,),))),
        ("kill:leader+pause:one", Fault("kill:leader+pause:one", ((KILL, PAUSE),))),
        ("mine", Fault("mine", ((PAUSE,),))),
    ],
)
def test_a_fault_by_name(text: str, fault: Fault) -> None:
    found = parse_fault(text, "x", {"mine": Fault("mine", ((PAUSE,),))})
    assert found == fault
    assert str(found) == text


@pytest.mark.parametrize(
    "text", ["", "kil", "kill", "kill:", "kill:nobody", "none:all", "partition:all", "kill:leader+", "none+kill:one"]
)
def test_what_is_no_fault_is_rejected_in_one_line(text: str) -> None:
    with pytest.raises(UsageError, match=r"^file: key: .*allowed: "):
        parse_fault(text, "file: key", {})


@pytest.mark.parametrize(
    ("fault", "target"),
    [
        (Fault("a", ((KILL,), (KILL,))), "leader"),
        (Fault("b", ((KILL, PAUSE),)), ""),
        (NO_FAULT, ""),
    ],
)
def test_the_target_that_all_steps_share(fault: Fault, target: str) -> None:
    assert fault.target == target


def test_steps_stand_in_the_order_of_their_times_and_groups_repeat() -> None:
    steps = [StepTable(do="pause:one", at_s=4, for_s=1), StepTable(do="kill:leader")]
    group = (Step("kill", "leader"), Step("pause", "one", at_s=4, for_s=1))
    assert schedule(steps=steps, repeat=2, every_s=9) == Fault("x", (group, group), every_s=9)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({}, "either `steps` or `draw`"),
        ({"steps": [StepTable(do="kill:one")], "draw": ["kill:one"]}, "either `steps` or `draw`"),
        ({"steps": [StepTable(do="kill:one", at_s=-1)]}, r"schedule\.x\.steps\[0\]: at_s and for_s must not"),
        ({"steps": [StepTable(do="kill:one", for_s=-1)]}, r"schedule\.x\.steps\[0\]: at_s and for_s must not"),
        ({"steps": [StepTable(do="kil:one")]}, r"schedule\.x\.steps\[0\]\.do: fault 'kil' is not known"),
        ({"steps": [StepTable(do="kill:one")], "repeat": 0}, "repeat: must be at least 1"),
        ({"draw": ["kill:one"]}, "every_s: must be above 0"),
        ({"draw": ["kill:one"], "every_s": 5, "hold_s": [3, 2]}, "hold_s: two numbers"),
        ({"draw": ["kill:one"], "every_s": 5, "hold_s": [3]}, "hold_s: two numbers"),
        ({"draw": ["kill:on"], "every_s": 5}, r"schedule\.x\.draw: .*cannot have the target 'on'"),
    ],
)
def test_what_is_no_schedule_is_rejected(keys: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        schedule(**keys)


@pytest.mark.parametrize("name", ["none", "kill:leader", "a+b"])
def test_a_schedule_cannot_be_called_like_a_fault(name: str) -> None:
    with pytest.raises(UsageError, match="cannot name a schedule"):
        parse_schedule(name, ScheduleTable(steps=[StepTable(do="kill:one")]), "file: schedule")


def test_what_ends_comes_before_what_begins_at_the_same_time() -> None:
    steps = (Step("kill", "leader", for_s=4), Step("pause", "one", at_s=4), Step("restart", "one", at_s=4))
    assert [tuple(m) for m in moments(steps, 6)] == [
        (0.0, False, 0),
        (4.0, True, 0),
        (4.0, False, 1),
        (4.0, False, 2),
        (4.0, True, 2),
        (10.0, True, 1),
    ]


def test_draws_are_the_seeds_and_nothing_elses() -> None:
    fault = schedule(draw=["kill:leader", "pause:one"], lasts_s=100, every_s=10, hold_s=[1, 4])
    assert drawn(fault, 5) == drawn(fault, 5)
    assert drawn(fault, 5) != drawn(fault, 6)
    assert len(drawn(fault, 5).groups) == 10
    assert drawn(NO_FAULT, 5) is NO_FAULT


def test_how_long_it_lasts() -> None:
    assert lasts_s(NO_FAULT, 6) == 0
    assert lasts_s(Fault("k", ((KILL,),)), 6) == 6
    assert lasts_s(Fault("k", ((KILL,), (Step("kill", "one", for_s=3),)), every_s=20), 6) == 23
    assert lasts_s(Fault("k", ((KILL, Step("pause", "one", at_s=5, for_s=4)),)), 6) == 9


def test_a_timeline_has_a_line_for_each_step() -> None:
    fault = Fault("k", ((KILL, Step("pause", "one", at_s=5, for_s=4.5)), (Step("restart", "one"),)))
    assert list(timeline(fault, 6)) == [
        "group 1 at 0 s: kill:leader for 6 s",
        "group 1 at 5 s: pause:one for 4.5 s",
        "group 2 at 0 s: restart:one",
    ]
