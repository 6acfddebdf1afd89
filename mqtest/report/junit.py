"""junit.xml: a test case a cell, for CI systems.

kept and lost-as-documented pass; broken and dead are failures; unknown and invalid are errors, because they prove
nothing; a cell that was planned and did not finish is skipped.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from xml.etree import ElementTree

from mqtest.model import Verdict
from mqtest.report.collect import JudgedCell
from mqtest.report.summary import profile_of

_ELEMENT = {
    Verdict.BROKEN: "failure",
    Verdict.DEAD: "failure",
    Verdict.UNKNOWN: "error",
    Verdict.INVALID: "error",
}
_NOT_XML = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def junit_text(name: str, cells: Sequence[JudgedCell], unfinished: Sequence[str]) -> str:
    """The whole file."""
    elements = [_ELEMENT.get(cell.verdict) for cell in cells]
    suite = ElementTree.Element(
        "testsuite",
        name=_clean(name),
        tests=str(len(cells) + len(unfinished)),
        failures=str(elements.count("failure")),
        errors=str(elements.count("error")),
        skipped=str(len(unfinished)),
    )
    for cell, element in zip(cells, elements, strict=True):
        classname = _clean(profile_of(cell.row).replace("/", "."))
        case = ElementTree.SubElement(suite, "testcase", classname=classname, name=_clean(cell.id))
        said = f"{cell.verdict}: {cell.reason}" if cell.reason else str(cell.verdict)
        if element is None:
            ElementTree.SubElement(case, "system-out").text = _clean(said)
        else:
            body = ElementTree.SubElement(case, element, type=str(cell.verdict), message=_clean(said))
            body.text = _clean("\n".join(line for finding in cell.findings for line in finding.examples))
    for cell_id in unfinished:
        case = ElementTree.SubElement(suite, "testcase", classname="unfinished", name=_clean(cell_id))
        ElementTree.SubElement(case, "skipped", message="planned, and did not finish")
    ElementTree.indent(suite)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ElementTree.tostring(suite, encoding="unicode") + "\n"


def _clean(text: str) -> str:
    """Without the characters that XML cannot carry."""
    return _NOT_XML.sub("�", text)
