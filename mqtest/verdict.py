"""The verdict of a cell: what was found, held against what the profile promises. Pure; the first rule that holds wins.

    broken              foreign, corrupt, phantom or diverging messages, always; and under a fault that `survives`
                        lists: acked messages lost, or duplicates, disorder or outputs beyond the promise
    dead                disks, network and engine whole, yet nodes exited, elected no leader, or stayed out of sync;
                        where a restart of every node brings the cluster back, its loss is told as well
    unknown             the tool itself failed, or the audit is not complete
    invalid             the fault did not bite, or less was acked than the floor (without acknowledgements: sent without
                        an error): too little to tell
    lost-as-documented  acked messages lost (without acknowledgements: not found) under a fault that is not listed; or
                        outputs of a pipeline lost, or inputs or amounts missing from a replay, that nobody promised
    invalid             the cell is there to measure latency (`latency = true` in the scenario), and our own load was so
                        late that its latency is refused (checks/speed.py)
    kept                none of these
A fault that did not bite is judged as no fault (`none`), one that bit in part as what is left of it. What was not
measured (None) breaks nothing. That a latency is refused hides nothing that was found, for a busy machine takes nothing
from what became of the messages: so elsewhere it empties the latency's columns and no more, and loss is told before it.
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

from mqtest.checks.pacing import REFUSED, refusal, too_late
from mqtest.fault_log import NO_FAULT, Groups, Part, parts
from mqtest.model import Duplicates, Order, Output, Promise, Verdict

_DUPLICATES: Mapping[Duplicates, Sequence[str]] = {
    Duplicates.NONE: ("stored_twice", "redelivered", "redelivered_unflagged"),
    Duplicates.REDELIVERED: ("stored_twice", "redelivered_unflagged"),
    Duplicates.ANY: (),
}
"""promise -> columns that must be 0"""
_ORDER: Mapping[Order, Sequence[str]] = {
    Order.PLACE: ("reordered_in_session", "replay_reordered"),
    Order.UNLESS_REQUEUED: ("reordered_unflagged",),
    Order.NONE: (),
}
"""promise -> columns that must be 0"""
_OUTPUTS: Mapping[Output, Sequence[str]] = {
    Output.EXACTLY_ONCE: (
        *("output_lost", "output_doubled", "replay_missing", "replay_doubled", "amount_lost", "amount_doubled"),
        *("table_lost", "table_doubled"),
    ),
    Output.AT_LEAST_ONCE: ("output_lost", "replay_missing", "amount_lost", "table_lost"),
    Output.NONE: (),
}
"""promise -> columns that must be 0"""
_WHOLE_OF_ONE = ("leader", "one", "controller", "majority", "random")
"""targets that are the whole cluster where there is one node"""
_RESTART = "restart:all"
_ALWAYS_BROKEN = ("foreign", "corrupt", "phantom", "offset_divergence", "output_phantom")

GUARANTEES: Mapping[str, Sequence[str]] = {
    "loss": ("lost", "not_found"),
    "duplicates": _DUPLICATES[Duplicates.NONE],
    "order": tuple(name for names in _ORDER.values() for name in names),
    "outputs": _OUTPUTS[Output.EXACTLY_ONCE],
    "integrity": _ALWAYS_BROKEN,
}
"""what a promise may be about -> the columns that break it, where it is given"""


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
    groups: Groups = ()
    """of `action:target`, where the fault is a schedule; the steps of one group may have overlapped"""
    felt: Groups = ()
    """what is left of them without the steps that did not bite"""
    latency: bool = False
    """the cell is there to measure latency"""


def verdict(facts: Facts) -> tuple[Verdict, str]:
    """The verdict and its reason, in one line."""
    for rule in (_broken, _dead, _unknown, _invalid, _lost, _late):
        decided = rule(facts)
        if decided is not None:
            return decided
    return Verdict.KEPT, f"{_loss_words(facts)} under {facts.fault}"


def promised(facts: Facts) -> tuple[str, ...]:
    """The columns that have to be 0 in this cell: those that nobody may ever break, and what the profile promises under
    the fault as it is judged."""
    always = _ALWAYS_BROKEN
    # What was lost after the restart of a dead cluster may be the restart's.
    restarted_as_promised = facts.dead is None or covers(facts.promise, _RESTART, facts.nodes)
    judged_as, groups = _judged_as(facts)
    if not restarted_as_promised or not covers(facts.promise, judged_as, facts.nodes, groups):
        return always
    return (
        *(("lost",) if facts.acknowledged else ()),
        *always,
        *_DUPLICATES[facts.promise.duplicates],
        *_ORDER[facts.promise.order],
        *_OUTPUTS[facts.promise.output],
    )


def named_in(reason: str, name: str, value: object) -> bool:
    """Whether a reason blames this column: its number and its words stand there."""
    return bool(value) and f"{value} {_words(name)}" in reason


def fault_bit(groups: Groups, events: Sequence[Mapping[str, Any]]) -> bool | None:
    """Whether each part of the fault shows evidence in its `injected` or `healed` event; no fault needs none.

    None: some part was begun and never came to its `healed` event, where the evidence may have been due, or the cell
    ended after the first part and before the last one.
    """
    found = parts(events)
    asked = Counter(step.partition(":")[0] for group in groups for step in group)
    if all(part.proven for part in found) and asked == Counter(part.action for part in found):
        return True
    cut_short = 0 < len(found) < asked.total() and any(e["event"] in ("dead", "failed") for e in events)
    return None if cut_short or any(part.open_ended for part in found) else False


def felt(groups: Groups, events: Sequence[Mapping[str, Any]]) -> Groups:
    """The groups of the fault without the steps that did not bite, and without those of which nothing is left."""
    waiting = list(parts(events))
    left = []
    for group in groups:
        begun, waiting = waiting[: len(group)], waiting[len(group) :]
        bit = [part for part in begun if part.proven]
        names = [name for part in bit for name in _names(part, group)]
        left.append(names)
    return [names for names in left if names]


def _names(part: Part, group: Sequence[str]) -> Sequence[str]:
    """What the promise calls a part; older ledgers name no target in it."""
    return [part.step] if part.aim else [step for step in group if step.startswith(f"{part.action}:")][:1]


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
    found = facts.found
    faults = [name for name in promised(facts) if found.get(name)]
    if not faults:
        return None
    judged_as, groups = _judged_as(facts)
    what = ", ".join(f"{found[name]} {_words(name)}" for name in faults)
    bit = facts.bit is not False
    whether = "" if bit else f" ({'the rest of ' if groups else ''}the fault {facts.fault} did not bite)"
    return Verdict.BROKEN, f"{what} under {judged_as}{whether}"


def _judged_as(facts: Facts) -> tuple[str, Groups]:
    """The fault, and its groups, without what did not bite."""
    if facts.bit is not False:
        return facts.fault, facts.groups
    return ", ".join("+".join(group) for group in facts.felt) or NO_FAULT, facts.felt


def _words(name: str) -> str:
    return name.replace("_", " ")


def _dead(facts: Facts) -> tuple[Verdict, str] | None:
    if facts.dead is None:
        return None
    judged = facts.failed is None and facts.incomplete is None
    after = f"; after a restart of every node: {_loss_words(facts)}" if judged else ""
    return Verdict.DEAD, facts.dead + after


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
    if facts.found.get("lost" if facts.acknowledged else "not_found"):
        promise = "which the promise does not cover" if facts.acknowledged else "nothing was promised"
        return Verdict.LOST_AS_DOCUMENTED, f"{_loss_words(facts)} under {facts.fault}, {promise}"
    if outputs := facts.found.get("output_lost"):
        return Verdict.LOST_AS_DOCUMENTED, f"{outputs} outputs lost under {facts.fault}, which nobody promised"
    if missing := facts.found.get("replay_missing"):
        return Verdict.LOST_AS_DOCUMENTED, f"{missing} inputs missing from the replay, which nobody promised"
    if amount := facts.found.get("amount_lost"):
        lost = f"{amount / 100:,.2f} of the amounts"
        return Verdict.LOST_AS_DOCUMENTED, f"{lost} missing from the replay's result, which nobody promised"
    return None


def _late(facts: Facts) -> tuple[Verdict, str] | None:
    refused = [name for name, p99 in facts.found.items() if name.endswith(REFUSED) and p99 is not None]
    if not facts.latency or not refused:
        return None
    phase = refused[0].removesuffix(REFUSED)
    why = too_late(facts.found.get(f"{phase}pacing_lag_ms_p99"), facts.found[refused[0]])
    return Verdict.INVALID, refusal(f"{phase}latency", why or "")


def _loss_words(facts: Facts) -> str:
    found = facts.found
    if facts.acknowledged:
        return f"{found.get('lost')} of {found.get('acked')} acked messages lost"
    return f"{found.get('not_found')} of {found.get('sent')} unacknowledged messages not found"
