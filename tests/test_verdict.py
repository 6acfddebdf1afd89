"""Each row of the verdict table, in both directions, and which of two rows wins."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from mqtest.fault_log import groups_of
from mqtest.model import Duplicates, Order, Output, Promise, Verdict
from mqtest.verdict import Facts, covers, fault_bit, felt, verdict

PROMISE = Promise(
    survives=("none", "kill:leader", "kill:all+partition:one"),
    duplicates=Duplicates.REDELIVERED,
    order=Order.PLACE,
    source="a test",
)
CLEAN: Mapping[str, Any] = {
    "sent": 110,
    "acked": 100,
    "refused": 4,
    "returned": 0,
    "lost": 0,
    "foreign": 0,
    "corrupt": 0,
    "phantom": 0,
    "offset_divergence": 0,
    "stored_twice": 0,
    "redelivered": 0,
    "redelivered_unflagged": None,
    "reordered": 0,
    "reordered_in_session": 0,
    "reordered_unflagged": 0,
    "not_found": None,
}
KEPT = Facts(
    fault="kill:leader",
    bit=True,
    promise=PROMISE,
    acknowledged=True,
    floor=100,
    nodes=3,
    found=CLEAN,
    dead=None,
    failed=None,
    incomplete=None,
)
UNLISTED = replace(KEPT, fault="power-cut:all")


def with_found(facts: Facts, **found: Any) -> Facts:
    return replace(facts, found={**facts.found, **found})


def promising(facts: Facts, **parts: Any) -> Facts:
    return replace(facts, promise=replace(facts.promise, **parts))


def test_kept() -> None:
    assert verdict(KEPT) == (Verdict.KEPT, "0 of 100 acked messages lost under kill:leader")
    assert verdict(UNLISTED)[0] is Verdict.KEPT


@pytest.mark.parametrize("name", ["foreign", "corrupt", "phantom", "offset_divergence"])
@pytest.mark.parametrize("facts", [KEPT, UNLISTED, replace(KEPT, incomplete="x", dead="y", failed="z", bit=False)])
def test_what_nobody_may_do_is_always_broken(facts: Facts, name: str) -> None:
    decided, reason = verdict(with_found(facts, **{name: 3}))
    assert decided is Verdict.BROKEN
    assert reason.startswith(f"3 {name.replace('_', ' ')} under ")


def test_acked_loss_under_a_listed_fault_is_broken_else_documented() -> None:
    assert verdict(with_found(KEPT, lost=1)) == (Verdict.BROKEN, "1 lost under kill:leader")
    assert verdict(with_found(UNLISTED, lost=1)) == (
        Verdict.LOST_AS_DOCUMENTED,
        "1 of 100 acked messages lost under power-cut:all, which the promise does not cover",
    )


_DUPLICATES = [
    ("stored_twice", Duplicates.NONE, True),
    ("redelivered", Duplicates.NONE, True),
    ("redelivered_unflagged", Duplicates.NONE, True),
    ("stored_twice", Duplicates.REDELIVERED, True),
    ("redelivered", Duplicates.REDELIVERED, False),
    ("redelivered_unflagged", Duplicates.REDELIVERED, True),
    ("stored_twice", Duplicates.ANY, False),
    ("redelivered", Duplicates.ANY, False),
    ("redelivered_unflagged", Duplicates.ANY, False),
]


@pytest.mark.parametrize(("name", "allowed", "broken"), _DUPLICATES)
def test_duplicates_beyond_the_promise(name: str, allowed: Duplicates, broken: bool) -> None:
    listed = with_found(promising(KEPT, duplicates=allowed), **{name: 2})
    assert verdict(listed)[0] is (Verdict.BROKEN if broken else Verdict.KEPT)
    assert verdict(replace(listed, fault="power-cut:all"))[0] is Verdict.KEPT


def test_disorder_beyond_the_promise() -> None:
    disorder = with_found(KEPT, reordered=3, reordered_in_session=2)
    assert verdict(disorder) == (Verdict.BROKEN, "2 reordered in session under kill:leader")
    assert verdict(with_found(KEPT, reordered=3))[0] is Verdict.KEPT, "the next connection overtook the last"
    assert verdict(promising(disorder, order=Order.NONE))[0] is Verdict.KEPT
    assert verdict(replace(disorder, fault="power-cut:all"))[0] is Verdict.KEPT


def test_what_a_queue_took_back_may_come_late_where_the_promise_says_so() -> None:
    requeued = promising(with_found(KEPT, reordered=2, reordered_in_session=2), order=Order.UNLESS_REQUEUED)
    assert verdict(requeued)[0] is Verdict.KEPT
    some = with_found(requeued, reordered_unflagged=1)
    assert verdict(some) == (Verdict.BROKEN, "1 reordered unflagged under kill:leader")
    assert verdict(replace(some, fault="power-cut:all"))[0] is Verdict.KEPT


@pytest.mark.parametrize(
    ("name", "output", "broken"),
    [
        ("amount_lost", Output.AT_LEAST_ONCE, True),
        ("table_lost", Output.AT_LEAST_ONCE, True),
        ("table_doubled", Output.AT_LEAST_ONCE, False),
        ("table_doubled", Output.EXACTLY_ONCE, True),
        ("table_lost", Output.NONE, False),
    ],
)
def test_amounts_beyond_the_promise(name: str, output: Output, broken: bool) -> None:
    decided = verdict(with_found(promising(KEPT, output=output), **{name: 250}))
    assert decided[0] is (Verdict.BROKEN if broken else Verdict.KEPT)


def test_amounts_that_nobody_promised_are_lost_as_documented() -> None:
    reason = "1,234.50 of the amounts missing from the replay's result, which nobody promised"
    assert verdict(with_found(KEPT, amount_lost=123450)) == (Verdict.LOST_AS_DOCUMENTED, reason)


def test_dead() -> None:
    dead = replace(KEPT, dead="kafka-1: exit code 1", failed="no recovery", incomplete="no audit")
    assert verdict(dead) == (Verdict.DEAD, "kafka-1: exit code 1")
    assert verdict(replace(dead, incomplete=None)) == (Verdict.DEAD, "kafka-1: exit code 1")


def test_what_a_dead_cluster_lost_is_told_where_a_restart_brought_it_back() -> None:
    back = replace(UNLISTED, dead="kafka-1: exit code 1", found={"lost": 3, "acked": 9})
    words = "kafka-1: exit code 1; after a restart of every node: 3 of 9 acked messages lost"
    assert verdict(back) == (Verdict.DEAD, words)


@pytest.mark.parametrize(("survives", "decided"), [((), Verdict.DEAD), (("restart:*",), Verdict.BROKEN)])
def test_a_loss_after_that_restart_breaks_only_a_promise_that_covers_a_restart(
    survives: tuple[str, ...], decided: Verdict
) -> None:
    promise = replace(KEPT.promise, survives=(*KEPT.promise.survives, *survives))
    assert verdict(replace(KEPT, promise=promise, dead="x", found={"lost": 3, "acked": 9}))[0] is decided


def test_unknown() -> None:
    assert verdict(replace(KEPT, failed="disk full"))[0] is Verdict.UNKNOWN
    decided, reason = verdict(with_found(replace(KEPT, incomplete="place 0 has no fence", bit=False), lost=None))
    assert (decided, reason) == (Verdict.UNKNOWN, "the audit is not complete: place 0 has no fence")


def test_invalid_when_the_fault_did_not_bite() -> None:
    assert verdict(replace(KEPT, bit=False)) == (Verdict.INVALID, "the fault kill:leader did not bite: no evidence")


def test_a_fault_that_did_not_bite_is_judged_as_none() -> None:
    lost = with_found(replace(UNLISTED, bit=False), lost=5)
    assert verdict(lost) == (Verdict.BROKEN, "5 lost under none (the fault power-cut:all did not bite)")
    assert verdict(promising(lost, survives=("kill:leader",)))[0] is Verdict.INVALID


def test_a_fault_whose_bite_could_not_be_told_is_not_judged_as_none() -> None:
    ended = with_found(replace(UNLISTED, bit=None, failed="engine gone"), redelivered_unflagged=3)
    assert verdict(ended)[0] is Verdict.UNKNOWN


@pytest.mark.parametrize(("acked", "decided"), [(99, Verdict.INVALID), (100, Verdict.KEPT)])
def test_the_floor(acked: int, decided: Verdict) -> None:
    assert verdict(with_found(KEPT, acked=acked))[0] is decided


@pytest.mark.parametrize(("refused", "decided"), [(11, Verdict.INVALID), (10, Verdict.KEPT)])
def test_the_floor_without_acknowledgements_counts_sends_without_an_error(refused: int, decided: Verdict) -> None:
    quiet = with_found(replace(KEPT, acknowledged=False), acked=None, lost=None, not_found=0, refused=refused)
    assert verdict(quiet)[0] is decided


@pytest.mark.parametrize("fault", ["none", "kill:leader", "power-cut:all"])
def test_not_found_without_acknowledgements_is_as_documented_under_any_fault(fault: str) -> None:
    quiet = with_found(replace(KEPT, acknowledged=False, fault=fault), acked=None, lost=None, not_found=6)
    assert verdict(quiet) == (
        Verdict.LOST_AS_DOCUMENTED,
        f"6 of 110 unacknowledged messages not found under {fault}, nothing was promised",
    )


@pytest.mark.parametrize(
    ("fault", "listed"),
    [
        ("kill:leader", True),
        ("kill:all", False),
        ("none", True),
        ("kill:all+partition:one", True),
        ("partition:one+kill:all", True),
        ("partition:one", False),
        ("kill:leader+partition:one", False),
    ],
)
def test_a_composed_fault_is_covered_only_as_a_whole(fault: str, listed: bool) -> None:
    assert covers(PROMISE, fault, 3) is listed


@pytest.mark.parametrize(
    ("survives", "fault", "listed"),
    [
        ("kill:*", "kill:all", True),
        ("kill:*", "pause:all", False),
        ("kill:*", "none", False),
        ("*:follower", "pause:follower", True),
        ("*:follower", "pause:leader", False),
        ("kill:*", "kill:one+kill:leader", False),
        ("*", "kill:one+kill:leader", False),
        ("kill:*+pause:one", "pause:one+kill:leader", True),
        ("kill:*+pause:one", "pause:one+pause:leader", False),
    ],
)
def test_a_pattern_matches_one_step(survives: str, fault: str, listed: bool) -> None:
    assert covers(replace(PROMISE, survives=(survives,)), fault, 3) is listed


@pytest.mark.parametrize("target", ["leader", "one", "all"])
def test_on_one_node_whoever_is_hit_is_all(target: str) -> None:
    safe, unsafe = (replace(PROMISE, survives=(f"kill:{listed}",)) for listed in ("all", "leader"))
    assert (covers(safe, f"kill:{target}", 1), covers(unsafe, f"kill:{target}", 1)) == (True, False)
    assert covers(safe, f"kill:{target}", 3) is (target == "all")
    assert covers(safe, "mine", 1, [[f"kill:{target}"], ["kill:one"]])
    assert not covers(safe, "kill:producers", 1)


@pytest.mark.parametrize(
    ("groups", "listed"),
    [
        ([["kill:leader"], ["kill:leader"]], True),
        ([["kill:leader"], ["partition:one", "kill:all"]], True),
        ([["kill:leader"], ["kill:all"]], False),
        ([["kill:all"]], False),
    ],
)
def test_a_schedule_is_covered_when_each_of_its_groups_is(groups: list[list[str]], listed: bool) -> None:
    assert covers(PROMISE, "mine", 3, groups) is listed
    assert covers(replace(PROMISE, survives=("mine",)), "mine", 3, groups)
    lost = with_found(replace(KEPT, fault="mine", groups=groups), lost=3)
    assert (verdict(lost)[0] is Verdict.BROKEN) is listed


@pytest.mark.parametrize(
    ("cell", "groups"),
    [
        ({}, []),
        ({"fault": "none"}, []),
        ({"fault": "none", "groups": []}, []),
        ({"fault": "kill:leader"}, [["kill:leader"]]),
        ({"fault": "kill:all+pause:one"}, [["kill:all", "pause:one"]]),
        ({"fault": "mine", "groups": [["kill:all"], ["kill:all"]]}, [["kill:all"], ["kill:all"]]),
    ],
)
def test_the_groups_of_a_cell(cell: dict[str, Any], groups: list[list[str]]) -> None:
    assert groups_of(cell) == groups


def part(number: int, evidence: Any) -> dict[str, Any]:
    return {**step("healed", evidence), "part": number}


def test_each_part_of_a_schedule_must_prove_itself() -> None:
    groups = [["kill:leader"], ["kill:leader"]]
    assert fault_bit(groups, [part(0, BIT), part(1, BIT)]) is True
    assert fault_bit(groups, [part(0, BIT), part(1, {})]) is False
    assert fault_bit(groups, [part(0, BIT)]) is False
    assert fault_bit(groups, [part(0, BIT), part(1, BIT), part(2, BIT)]) is False


def step(step_: str, evidence: Any = None, action: str = "kill", target: str = "leader") -> dict[str, Any]:
    return {"t_ns": 1, "event": "fault", "step": step_, "action": action, "target": target, "evidence": evidence}


BIT = {"exit_code": 137}
_BITES = [
    ("none", [], True),
    ("kill:leader", [], False),
    ("kill:leader", [step("inject"), step("injected", BIT), step("healed", {})], True),
    ("kill:leader", [step("inject"), step("injected", {}), step("healed", BIT)], True),
    ("kill:leader", [step("inject"), step("injected", {}), step("healed", {})], False),
    ("kill:leader", [step("inject", BIT), step("heal", BIT), step("healed", {})], False),
    ("kill:leader", [step("inject"), step("injected", {})], None),
    ("kill:leader", [step("inject")], None),
    ("kill:leader", [step("injected", BIT)], True),
    ("kill:leader", [step("injected", BIT, action="pause"), step("healed", {}, action="pause")], False),
    ("kill:leader+pause:one", [step("injected", BIT), step("injected", BIT, "pause", "one")], True),
    ("kill:leader+pause:one", [step("injected", BIT)], False),
    (
        "kill:leader+pause:one",
        [step("injected", BIT), step("injected", {}, "pause", "one"), step("healed", {}, "pause", "one")],
        False,
    ),
    ("kill:leader+kill:one", [step("injected", BIT), step("injected", BIT, "kill", "one")], True),
    ("kill:leader+kill:one", [step("injected", BIT)], False),
    ("kill:leader", [step("injected", BIT), step("injected", {}, target="b"), step("healed", {}, target="b")], False),
]


@pytest.mark.parametrize(("fault", "events", "bit"), _BITES)
def test_evidence(fault: str, events: list[dict[str, Any]], bit: bool | None) -> None:
    assert fault_bit(groups_of({"fault": fault}), [{"t_ns": 0, "event": "phase", "name": "steady"}, *events]) is bit


def aimed(number: int, name: str, evidence: Any = None) -> list[dict[str, Any]]:
    """One part, begun and healed."""
    action, _, aim = name.partition(":")
    says = {"t_ns": 1, "event": "fault", "part": number, "action": action, "aim": aim, "target": ["a"]}
    return [says | {"step": "injected", "evidence": evidence or {}}, says | {"step": "healed", "evidence": {}}]


_SCHEDULE = [["kill:leader", "pause:one"], ["kill:all"]]


@pytest.mark.parametrize(
    ("evidence", "left"),
    [
        ((BIT, BIT, BIT), _SCHEDULE),
        ((BIT, None, BIT), [["kill:leader"], ["kill:all"]]),
        ((None, BIT, None), [["pause:one"]]),
        ((None, None, BIT), [["kill:all"]]),
        ((None, None, None), []),
    ],
)
def test_what_was_felt_of_a_schedule(evidence: tuple[Any, ...], left: list[list[str]]) -> None:
    names = [name for group in _SCHEDULE for name in group]
    events = [e for i, name in enumerate(names) for e in aimed(i, name, evidence[i])]
    assert felt(_SCHEDULE, events) == left


def test_what_was_felt_is_named_by_the_step_that_was_injected() -> None:
    events = [*aimed(0, "pause:one", BIT), *aimed(1, "kill:leader")]  # the later step of the group came first
    assert felt([["kill:leader", "pause:one"]], events) == [["pause:one"]]


def test_what_was_felt_in_an_older_ledger_is_named_by_its_action() -> None:
    events = [step("injected", BIT, "pause", "b"), step("injected", {}, "kill", "a")]
    assert felt([["kill:leader", "pause:one"]], events) == [["pause:one"]]


def test_a_schedule_that_was_cut_short_cannot_be_told() -> None:
    groups, ended = [["kill:leader"], ["kill:all"]], [{"t_ns": 2, "event": "dead", "why": "x"}]
    assert fault_bit(groups, [*aimed(0, "kill:leader", BIT), *ended]) is None
    assert fault_bit(groups, [*aimed(0, "kill:leader", BIT), {"t_ns": 2, "event": "failed"}]) is None
    assert fault_bit(groups, aimed(0, "kill:leader", BIT)) is False
    assert fault_bit(groups, ended) is False
    assert fault_bit(groups, [*aimed(0, "kill:leader", BIT), *aimed(1, "kill:all"), *ended]) is False


@pytest.mark.parametrize(
    ("left", "decided", "judged_as"),
    [
        ([["kill:leader"]], Verdict.BROKEN, "kill:leader (the rest of the fault a-schedule did not bite)"),
        ([["kill:leader"], ["kill:all"]], Verdict.INVALID, None),
        ([["power-cut:all"]], Verdict.INVALID, None),
        ([], Verdict.BROKEN, "none (the fault a-schedule did not bite)"),
    ],
)
def test_a_fault_that_bit_in_part_is_judged_as_what_is_left_of_it(
    left: list[list[str]], decided: Verdict, judged_as: str | None
) -> None:
    groups = [["kill:leader"], ["power-cut:all"]]
    lost = with_found(replace(KEPT, fault="a-schedule", groups=groups, felt=left, bit=False), lost=5)
    assert verdict(lost)[0] is decided
    assert judged_as is None or verdict(lost)[1] == f"5 lost under {judged_as}"
