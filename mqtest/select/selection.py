"""All needs of all candidates → who qualifies, in which order, who fails and by what, and what was not measured."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from mqtest.errors import UsageError
from mqtest.fault_log import NO_FAULT
from mqtest.model import Verdict
from mqtest.report.summary import fault_of, groups, loss_words, verdict_words
from mqtest.select.candidates import Candidate, Evidence
from mqtest.select.judging import Judged, Result, judged, not_proven
from mqtest.select.needs import Need
from mqtest.select.ranking import Compared, compare, place
from mqtest.select.requirements import Requirements
from mqtest.toml import near

_GLOB = "*?"


class Standing(StrEnum):
    """Of a candidate."""

    QUALIFIES = "qualifies"
    FAILS = "fails"
    NOT_MEASURED = "not measured"


@dataclass(frozen=True, slots=True, kw_only=True)
class Weighed:
    """A candidate, and what its cells say of each need."""

    candidate: Candidate
    needs: tuple[Judged, ...]
    beware: tuple[str, ...]
    """what its cells show that nobody asked about, one line each"""

    @property
    def name(self) -> str:
        """Of the candidate."""
        return self.candidate.name

    @property
    def standing(self) -> Standing:
        """It fails when one need is missed; it qualifies when all are met."""
        results = {found.result for found in self.needs}
        if Result.MISSED in results:
            return Standing.FAILS
        return Standing.NOT_MEASURED if Result.NOT_MEASURED in results else Standing.QUALIFIES

    def of(self, result: Result) -> tuple[Judged, ...]:
        """The needs that came to it, in the order in which they were asked."""
        return tuple(found for found in self.needs if found.result is result)


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """The answer."""

    requirements: Requirements
    runs: tuple[str, ...]
    cells: int
    apart: bool
    """the ids of the cells tell them apart, without the names of their runs"""
    qualifying: tuple[Weighed, ...]
    """the best first"""
    failing: tuple[Weighed, ...]
    """the fewest missed needs first, then by name"""
    unmeasured: tuple[Weighed, ...]
    """the fewest needs that were not measured first, then by name"""
    compared: tuple[Compared, ...]
    """those that qualify under each preference, in the order of the preferences"""
    notes: tuple[str, ...]
    """what all this does not prove, one line each"""

    @property
    def exit_code(self) -> int:
        """0: something qualifies; 1: nothing does, and everything fails; 2: nothing does, and something, or
        everything, was not measured."""
        return 0 if self.qualifying else 1 if self.failing and not self.unmeasured else 2


def select(
    requirements: Requirements, evidence: Evidence, actions: Collection[str] = (), targets: Collection[str] = ()
) -> Selection:
    """Raises UsageError without a need, and for a fault that neither a cell nor mqtest (`actions`, `targets`) knows."""
    if not requirements.needs:
        raise UsageError("no need is given; such as --need 'lost == 0 under power-cut:all', or --preset money")
    for need in requirements.needs:
        _check_fault(need, evidence, actions, targets)
    weighed = [_weighed(candidate, requirements) for candidate in evidence.candidates]
    by_standing = {standing: [one for one in weighed if one.standing is standing] for standing in Standing}
    good = by_standing[Standing.QUALIFIES]
    compared = tuple(compare(name, [one.candidate for one in good]) for name in requirements.prefer)
    return Selection(
        requirements=requirements,
        runs=evidence.runs,
        cells=len(evidence.rows),
        apart=len({row["cell"] for row in evidence.rows}) == len(evidence.rows),
        qualifying=tuple(sorted(good, key=lambda one: _rank(one, compared))),
        failing=_fewest(by_standing[Standing.FAILS], Result.MISSED),
        unmeasured=_fewest(by_standing[Standing.NOT_MEASURED], Result.NOT_MEASURED),
        compared=compared,
        notes=(*not_proven(requirements.needs), *_not_compared(compared, len(good)), *evidence.notes),
    )


def _weighed(candidate: Candidate, requirements: Requirements) -> Weighed:
    wanted = requirements.cells or 1
    return Weighed(
        candidate=candidate,
        needs=tuple(judged(need, candidate, wanted) for need in requirements.needs),
        beware=tuple(_beware(candidate)),
    )


def _beware(candidate: Candidate) -> Iterator[str]:
    if not candidate.acknowledged:
        yield "it has no acknowledgements: nothing tells whether a message arrived, and it is safe under no fault"
    for group in groups(candidate.rows):
        if group.losing or group.verdict in (Verdict.BROKEN, Verdict.DEAD):
            under = f"under {group.fault}" if group.fault != NO_FAULT else "without a fault"
            yield f"{under}: {verdict_words(group)}, {loss_words(group)}"


def _rank(one: Weighed, compared: Sequence[Compared]) -> tuple[float | str, ...]:
    fewest = min((len(found.meeting) for found in one.needs), default=0)
    return (*(place(under, one.name) for under in compared), -fewest, one.name)


def _fewest(found: Sequence[Weighed], result: Result) -> tuple[Weighed, ...]:
    return tuple(sorted(found, key=lambda one: (len(one.of(result)), one.name)))


def _not_compared(compared: Sequence[Compared], candidates: int) -> Iterator[str]:
    for under in compared:
        if candidates and not under.values:
            yield f"{under.preference}: not measured for any profile that qualifies, so it ranks nothing"
        elif len(under.values) < candidates:
            yield f"{under.preference}: who was not measured as the others were comes last, whatever it is worth"


def _check_fault(need: Need, evidence: Evidence, actions: Collection[str], targets: Collection[str]) -> None:
    """A name that nobody knows is a slip; one that mqtest knows and no cell had is not measured."""
    seen = dict.fromkeys(fault_of(row) for row in evidence.rows)
    if need.fault is None or need.fault == NO_FAULT or any(need.covers(fault) for fault in seen):
        return
    for step in need.fault.split("+"):
        for what, name, known in zip(("action", "target"), step.split(":"), (actions, targets), strict=False):
            if not any(sign in name for sign in _GLOB) and name not in known:
                hint = near(need.fault, [*seen, *actions]) or near(name, known)
                under = f"; these cells have: {', '.join(seen)}" if seen else ""
                raise UsageError(f"need {str(need)!r}: no cell was under {need.fault!r}, and mqtest knows no {what} "
                                 f"{name!r}{hint}{under}")  # fmt: skip
