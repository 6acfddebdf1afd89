"""The parts of a fault, put together from its events, in ledgers with and without their numbers."""

from __future__ import annotations

from typing import Any

from mqtest.fault_log import parts


def event(step: str, t_ns: int, **fields: Any) -> dict[str, Any]:
    return {"event": "fault", "step": step, "t_ns": t_ns, "action": "kill", "target": ["a", "b"], **fields}


def test_a_part_from_begin_to_end() -> None:
    events = [
        event("inject", 1, part=0, aim="minority"),
        event("injected", 2, part=0, aim="minority", evidence={}),
        {"event": "phase", "name": "heal", "t_ns": 3},
        event("heal", 3, part=0, aim="minority"),
        event("healed", 4, part=0, aim="minority", evidence={"x": 1}),
    ]
    (part,) = parts(events)
    assert (part.step, part.nodes, part.injected_ns, part.healed_ns) == ("kill:minority", ("a", "b"), 2, 4)
    assert (part.proven, part.open_ended, str(part)) == (True, False, "kill:minority (a, b)")


def test_parts_with_a_number_are_told_apart_by_it() -> None:
    events = [event("injected", 1, part=0, evidence={"x": 1}), event("injected", 2, part=1, evidence={})]
    assert [(p.injected_ns, p.proven, p.open_ended) for p in parts(events)] == [(1, True, False), (2, False, True)]


def test_parts_without_a_number_are_told_apart_by_action_and_nodes() -> None:
    events = [
        event("injected", 1, evidence={"x": 1}),
        event("injected", 2, target="c"),
        event("injected", 3, action="pause"),
        event("healed", 4),
    ]
    found = parts(events)
    assert [str(part) for part in found] == ["kill (a, b)", "kill (c)", "pause (a, b)"]
    assert [part.healed_ns for part in found] == [4, None, None]


def test_evidence_of_other_steps_proves_nothing() -> None:
    events = [event("inject", 1, evidence={"x": 1}), event("heal", 2, evidence={"x": 1}), event("healed", 3)]
    assert [(p.proven, p.injected_ns, p.open_ended) for p in parts(events)] == [(False, None, False)]
