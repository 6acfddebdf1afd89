"""The verdict of a cell: what was found, held against what the profile promises. Pure; the first rule that holds wins.

    broken              foreign, corrupt, phantom or diverging messages, always; and under a fault that `survives`
                        lists: acked messages lost, or duplicates or disorder beyond the promise
    dead                disks, network and engine whole, yet nodes exited, elected no leader, or stayed out of sync
    unknown             the tool itself failed, or the audit is not complete
    invalid             the fault did not bite, or less was acked than the floor (without acknowledgements: sent without
                        an error): too little to tell
    lost-as-documented  acked messages lost (without acknowledgements: not found) under a fault that is not listed
    kept                none of these
A fault that did not bite is judged as no fault (`none`). What was not measured (None) breaks nothing.
A composed fault (steps of one group) is listed only as a whole, in any order of its steps; a step may be listed as a
pattern (`kill:*`, `*:follower`), which matches one step. Between its groups the cluster recovers, so a schedule is
covered when each of its groups is, or when it is listed by its name. On one node the leader, or any one, is all there
is: it is judged as `all`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import permutations
from typing import Any

from mqtest.model import Duplicates, Order, Promise, Verdict

NO_FAULT = "none"
_DUPLICATES: Mapping[Duplicates, Sequence[str]] = {
    Duplicates.NONE: ("stored_twice", "redelivered", "redelivered_unflagged"),
    Duplicates.REDELIVERED: ("stored_twice", "redelivered_unflagged"),
    Duplicates.ANY: (),
}
"""promise -> columns that must be 0"""
_WHOLE_OF_ONE = ("leader", "one", "controller", "majority", "random")
"""targets that are the whole cluster where there is one node"""
_ALWAYS_BROKEN = ("foreign", "corrupt", "phantom", "offset_divergence")


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """All that a verdict depends on."""

    fault: str
    bit: bool | None
    """None: the cell ended before it could be told"""
    promise: Promise
    acknowledged: bool
    floor: int
    nodes: int
    found: Mapping[str, Any]
    """columns of results.csv, from the findings"""
    dead: str | None
    """why nodes count as dead, or None"""
    failed: str | None
    """how the tool failed, or None"""
    incomplete: str | None
    """why the audit is not complete, or None"""
    groups: Sequence[Sequence[str]] = ()
    """of `action:target`, where the fault is a schedule; the steps of one group may have overlapped"""


def verdict(facts: Facts) -> tuple[Verdict, str]:
    """The verdict and its reason, in one line."""
    for rule in (_broken, _dead, _unknown, _invalid, _lost):
        decided = rule(facts)
        if decided is not None:
            return decided
    return Verdict.KEPT, f"{_loss_words(facts)} under {facts.fault}"


def fault_bit(groups: Sequence[Sequence[str]], events: Sequence[Mapping[str, Any]]) -> bool | None:
    """Whether each step of the fault shows evidence in its `injected` or `healed` event; no fault needs none.

    None: some step was begun and never came to its `healed` event, where the evidence may have been due.
    """
    steps: dict[object, dict[str, bool]] = {}
    actions: dict[object, str] = {}
    for event in events:
        if event["event"] == "fault":
            # ledgers of the first release number no parts
            part = event.get("part", f"{event.get('action')} {event.get('target')}")
            actions[part] = str(event.get("action"))
            steps.setdefault(part, {})[str(event.get("step"))] = bool(event.get("evidence"))
    proven = Counter(actions[part] for part, s in steps.items() if s.get("injected") or s.get("healed"))
    asked = Counter(step.partition(":")[0] for group in groups for step in group)
    if asked == proven and proven.total() == len(steps):
        return True
    open_ended = [s for s in steps.values() if "healed" not in s and not s.get("injected")]
    return None if open_ended else False


def groups_of(cell: Mapping[str, Any]) -> list[list[str]]:
    """The groups of a cell's fault, as cell.json has them; the first release wrote the name alone."""
    fault = str(cell.get("fault") or NO_FAULT)
    named = [] if fault == NO_FAULT else [fault.split("+")]
    groups: list[list[str]] = cell.get("groups", named)
    return groups


def covers(promise: Promise, fault: str, nodes: int, groups: Sequence[Sequence[str]] = ()) -> bool:
    """Whether `survives` lists this fault of a cluster of so many nodes, or each of its groups."""
    listed = [entry.split("+") for entry in promise.survives]
    asked = [[_as_one_node(step) if nodes == 1 else step for step in group] for group in groups or [fault.split("+")]]
    by_name = ":" not in fault and fault in promise.survives
    return by_name or all(any(_matches(entry, group) for entry in listed) for group in asked)


def _matches(patterns: Sequence[str], steps: Sequence[str]) -> bool:
    orders = permutations(steps) if len(patterns) == len(steps) else ()
    return any(all(map(fnmatchcase, order, patterns)) for order in orders)


def _as_one_node(step: str) -> str:
    action, _, target = step.partition(":")
    return f"{action}:all" if target in _WHOLE_OF_ONE else step


def _broken(facts: Facts) -> tuple[Verdict, str] | None:
    found, bit = facts.found, facts.bit is not False
    judged_as, groups = (facts.fault, facts.groups) if bit else (NO_FAULT, ())
    faults = [name for name in _ALWAYS_BROKEN if found.get(name)]
    if covers(facts.promise, judged_as, facts.nodes, groups):
        if facts.acknowledged and found.get("lost"):
            faults.insert(0, "lost")
        faults += [name for name in _DUPLICATES[facts.promise.duplicates] if found.get(name)]
        if facts.promise.order is Order.PLACE and found.get("reordered"):
            faults.append("reordered")
    if not faults:
        return None
    what = ", ".join(f"{found[name]} {name.replace('_', ' ')}" for name in faults)
    whether = "" if bit else f" (the fault {facts.fault} did not bite)"
    return Verdict.BROKEN, f"{what} under {judged_as}{whether}"


def _dead(facts: Facts) -> tuple[Verdict, str] | None:
    return None if facts.dead is None else (Verdict.DEAD, facts.dead)


def _unknown(facts: Facts) -> tuple[Verdict, str] | None:
    if facts.failed is not None:
        return Verdict.UNKNOWN, f"the cell failed: {facts.failed}"
    if facts.incomplete is not None:
        return Verdict.UNKNOWN, f"the audit is not complete: {facts.incomplete}"
    return None


def _invalid(facts: Facts) -> tuple[Verdict, str] | None:
    if not facts.bit:
        return Verdict.INVALID, f"the fault {facts.fault} did not bite: no evidence"
    found = facts.found
    if facts.acknowledged:
        enough, what = found.get("acked") or 0, "acked"
    else:
        enough = (found.get("sent") or 0) - (found.get("refused") or 0) - (found.get("returned") or 0)
        what = "sent without an error"
    if enough < facts.floor:
        return Verdict.INVALID, f"only {enough} messages were {what}, the floor is {facts.floor}"
    return None


def _lost(facts: Facts) -> tuple[Verdict, str] | None:
    if not facts.found.get("lost" if facts.acknowledged else "not_found"):
        return None
    promise = "which the promise does not cover" if facts.acknowledged else "nothing was promised"
    return Verdict.LOST_AS_DOCUMENTED, f"{_loss_words(facts)} under {facts.fault}, {promise}"


def _loss_words(facts: Facts) -> str:
    found = facts.found
    if facts.acknowledged:
        return f"{found.get('lost')} of {found.get('acked')} acked messages lost"
    return f"{found.get('not_found')} of {found.get('sent')} unacknowledged messages not found"
