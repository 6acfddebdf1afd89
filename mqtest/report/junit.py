"""junit.xml: a test case for each cell and guarantee, for CI systems.

The guarantees are those of verdict.py, that the cluster comes back (`recovery`), and that the cell proves something
(`proof`). Rules:
- Broken in this cell where it was promised: a failure. Promised, looked for and not broken: passed.
- Not promised under this fault, or not measured: skipped, with what was seen all the same. A guarantee that this cell
  is not about (outputs, where there is no pipeline) has no case.
- In a cell that is unknown or invalid nothing is proven: `proof` is an error, and so is every guarantee that is not
  seen broken all the same.
- Failures and errors carry the command that runs the cell again. A cell that was planned and did not finish is one
  skipped case.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal
from xml.etree import ElementTree

from mqtest.model import Finding, Verdict
from mqtest.report.collect import Collected, JudgedCell
from mqtest.report.summary import PROVE_NOTHING, count, fault_of, measured, profile_of
from mqtest.report.surprises import replay
from mqtest.verdict import GUARANTEES

RECOVERY, PROOF = "recovery", "proof"
_NOT_XML = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True, slots=True)
class Case:
    """One guarantee in one cell."""

    guarantee: str
    came_to: Literal["passed", "failure", "error", "skipped"]
    said: str


def junit_text(name: str, collected: Collected) -> str:
    """The whole file."""
    every = [(cell, case) for cell in collected.cells for case in cases(cell)]
    came_to = [case.came_to for _cell, case in every] + ["skipped" for _cell in collected.unfinished]
    suite = ElementTree.Element(
        "testsuite",
        name=_clean(name),
        tests=str(len(came_to)),
        failures=str(came_to.count("failure")),
        errors=str(came_to.count("error")),
        skipped=str(came_to.count("skipped")),
    )
    for cell, case in every:
        _add(suite, cell, case, replay(cell, collected.runs))
    for cell_id in collected.unfinished:
        element = ElementTree.SubElement(suite, "testcase", classname="unfinished", name=_clean(cell_id))
        ElementTree.SubElement(element, "skipped", message="planned, and did not finish")
    ElementTree.indent(suite)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ElementTree.tostring(suite, encoding="unicode") + "\n"


def cases(cell: JudgedCell) -> Iterator[Case]:
    """Of one cell, in the order of GUARANTEES."""
    proven = cell.verdict not in PROVE_NOTHING
    why = f"{cell.verdict}: {cell.reason}"
    for guarantee, columns in GUARANTEES.items():
        found = {name: value for name in columns if (value := measured(cell.row, name)) is not None}
        promised = [name for name in columns if name in cell.promised]
        kept = [name for name in promised if name in found]
        seen = ", ".join(f"{count(value)} {_words(name)}" for name, value in found.items() if value)
        if not promised and not found and (proven or guarantee == "outputs"):
            continue
        if any(found[name] for name in kept):
            yield Case(guarantee, "failure", why)
        elif not proven:
            yield Case(guarantee, "error", why)
        elif not promised:
            yield Case(guarantee, "skipped", f"not promised under {fault_of(cell.row)}; {seen or 'none'} seen")
        elif not kept:
            yield Case(guarantee, "skipped", "promised, and not measured")
        else:
            allowed = f"; {seen}, which the promise allows" if seen else ""
            yield Case(guarantee, "passed", f"0 {', '.join(map(_words, kept))}{allowed}")
    if cell.verdict is Verdict.DEAD:
        yield Case(RECOVERY, "failure", why)
    else:
        yield Case(RECOVERY, "passed" if proven else "error", "it came back" if proven else why)
    yield Case(PROOF, "passed" if proven else "error", why)


def _add(suite: ElementTree.Element, cell: JudgedCell, case: Case, again: str | None) -> None:
    classname, name = profile_of(cell.row).replace("/", "."), f"{cell.id}: {case.guarantee}"
    element = ElementTree.SubElement(suite, "testcase", classname=_clean(classname), name=_clean(name))
    if case.came_to == "passed":
        ElementTree.SubElement(element, "system-out").text = _clean(case.said)
        return
    body = ElementTree.SubElement(element, case.came_to, message=_clean(case.said))
    if case.came_to == "skipped":
        return
    body.set("type", str(cell.verdict))
    lines = [f"again: {again}"] if again else []
    if case.came_to == "failure":
        lines += [line for finding in cell.findings if _is_about(finding, case) for line in finding.examples]
    body.text = _clean("\n".join(lines))


def _is_about(finding: Finding, case: Case) -> bool:
    if case.guarantee == RECOVERY:
        return finding.check == "dead"
    return any(finding.numbers.get(name) for name in GUARANTEES[case.guarantee])


def _words(name: str) -> str:
    return name.replace("_", " ")


def _clean(text: str) -> str:
    """Without the characters that XML cannot carry."""
    return _NOT_XML.sub("�", text)
