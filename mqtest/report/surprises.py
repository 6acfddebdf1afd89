"""What came out otherwise than promised, in either direction: the top of report.md.

A surprise is a promise that was broken, a cluster that did not come back, a control without a fault that was not clean,
and a fault under which some profile must lose and none did. Each names the sentence that the promise rests on, what
was seen, and the command that does it again. Repeats of one profile and fault are one surprise: its worst cell.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mqtest import paths, toml
from mqtest.fault_log import NO_FAULT
from mqtest.model import Finding, Verdict
from mqtest.neighbourhood import Neighbourhood
from mqtest.report.blocks import bullets, code, plain, table
from mqtest.report.collect import Collected, JudgedCell
from mqtest.report.summary import NOT_MEASURED, Group, count, fault_of, groups, loss, profile_of, teeth
from mqtest.verdict import named_in

_MOST_EXAMPLES = 8
_MOST_NEIGHBOURHOODS = 2
_MOST_EVENTS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Surprise:
    """One of them."""

    headline: str
    what: str
    cell: JudgedCell | None
    """the worst of its cells; None where it is about cells that are not there"""
    replay: str | None
    """a command; None for a cluster of somebody else's"""


def surprises(collected: Collected) -> tuple[Surprise, ...]:
    """The worst first."""
    return (*_cells(collected, Verdict.BROKEN), *_cells(collected, Verdict.DEAD), *_no_loss(collected))


def surprises_text(collected: Collected) -> str:
    """The section."""
    found = surprises(collected)
    if not collected.cells:
        return ""
    if not found:
        return "## Surprises\n\nNone: no promise was broken" + (
            ", and under each fault where some profile must lose, one did." if must_lose(collected) else "."
        )
    return "## Surprises\n\n" + "\n\n".join(_text(number, surprise) for number, surprise in enumerate(found, 1))


def must_lose(collected: Collected) -> tuple[str, ...]:
    """The faults under which some profile must lose, by the scenarios of these runs."""
    return tuple(dict.fromkeys(str(f) for run in collected.runs for f in run.get("scenario", {}).get("must_lose", ())))


def replay(cell: JudgedCell, runs: Sequence[Mapping[str, Any]]) -> str | None:
    """The command that runs this cell again, with the same seed and so the same schedule; None for a cell that no
    scenario describes."""
    run = next((run for run in runs if run.get("run") == cell.row.get("run")), {})
    scenario = run.get("scenario", {})
    if not scenario.get("path"):
        return None
    named = str(scenario["path"])
    if "/" not in named and (paths.scenarios() / named).is_file():
        named = named.removesuffix(".toml")  # an older run.json has the name of the file alone
    words = ["mqtest", "run", named]
    words += ["--only", f"*{cell.id.lstrip('0123456789')}"]
    words += ["--seed", str(run["seed"])] if "seed" in run else []
    repeat = cell.row.get("repeat")
    words += ["--repeat", str(repeat)] if isinstance(repeat, int) and repeat > 1 else []
    for key, value in scenario.get("asked", {}).items():
        words += ["--set", f"{key}={toml.text_of(value)}"]
    return shlex.join(words)


def _cells(collected: Collected, verdict: Verdict) -> Iterator[Surprise]:
    """A surprise for each profile and fault that came to this verdict."""
    words = "a promise was broken" if verdict is Verdict.BROKEN else "it did not come back"
    found: dict[tuple[str, str], list[JudgedCell]] = {}
    every = [(profile_of(cell.row), fault_of(cell.row)) for cell in collected.cells]
    for name, cell in zip(every, collected.cells, strict=True):
        if cell.verdict is verdict:
            found.setdefault(name, []).append(cell)
    for (profile, fault), cells in found.items():
        worst = max(cells, key=lambda cell: loss(cell.row) or 0)
        how_many = every.count((profile, fault))
        times = f" ({len(cells)} of {how_many} cells)" if how_many > 1 else ""
        under = f"under {code(fault)}" if fault != NO_FAULT else "without any fault"
        yield Surprise(
            headline=f"{plain(profile)} {under}: {words}{times}",
            what=worst.reason,
            cell=worst,
            replay=replay(worst, collected.runs),
        )


def _no_loss(collected: Collected) -> Iterator[Surprise]:
    """A surprise for each fault under which nobody lost."""
    every: tuple[Group, ...] = groups(collected.rows)
    for fault in must_lose(collected):
        for note in teeth([group for group in every if group.fault == fault], [fault]):
            cell = next(cell for cell in collected.cells if fault_of(cell.row) == fault)
            yield Surprise(
                headline=f"{code(fault)}: a loss that must happen did not",
                what=note,
                cell=None,
                replay=replay(cell, collected.runs),
            )


def _text(number: int, surprise: Surprise) -> str:
    parts = [f"### {number}. {surprise.headline}", plain(surprise.what)]
    cell = surprise.cell
    if cell is not None:
        promise = cell.facts.get("promise") or {}
        where = "its ledger is beside this report" if cell.ledger else "of which only this row is left"
        facts = [f"cell `{cell.id}`, {where}"]
        if promise.get("source"):
            facts.append(f"the promise rests on: {promise['source']}")
        for finding in _behind(cell):
            facts.append(f"{finding.check}: {count(finding.count)}")
            facts += [*finding.notes, *finding.examples[:_MOST_EXAMPLES]]
        parts.append(bullets(facts))
        parts += [
            _around(finding.check, place)
            for finding in _behind(cell)
            for place in cell.neighbourhoods.get(finding.check, ())[:_MOST_NEIGHBOURHOODS]
        ]
    if surprise.replay is not None:
        parts.append(f"Again: {code(surprise.replay)}")
    return "\n\n".join(parts)


def _around(check: str, place: Neighbourhood) -> str:
    """A message of that finding with its neighbours in the producer's order, and what went on."""
    rows = [
        (
            f"**{n.producer}/{n.seq}**" if n.concerned else f"{n.producer}/{n.seq}",
            n.outcome,
            n.fate,
            f"{n.place}/{n.offset}" if n.offset >= 0 else NOT_MEASURED,
            *(NOT_MEASURED if t is None else f"{t:,.3f}" for t in (n.sent_s, n.settled_s, n.received_s)),
        )
        for n in place.neighbours
    ]
    headers = ("producer/seq", "the client said", "it became", "place/offset", "sent, s", "settled, s", "delivered, s")
    said = f"{check}, around one of these messages (seconds from the {place.since}):"
    events = bullets([f"{at:,.3f} s: {event}" for at, event in place.events[:_MOST_EVENTS]])
    return "\n\n".join(part for part in (said, table(headers, rows, numbers_from=4), events) if part)


def _behind(cell: JudgedCell) -> tuple[Finding, ...]:
    """The findings whose numbers the reason names; where it names none, all that found something and show it."""
    named = [
        finding
        for finding in cell.findings
        if any(named_in(cell.reason, name, value) for name, value in finding.numbers.items())
    ]
    return tuple(named or [finding for finding in cell.findings if finding.count and finding.examples])
