"""The table of a run for the terminal, as a rich renderable; cli prints it.

Every verdict is a word; colour only repeats it, for those who see it. To fit a terminal, a fault is a heading instead
of a column, a column that says nothing in any row (0 or not measured, or one cell of each) stands in the caption, and
what is about our own load and not about a broker is left to report.md.
"""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.table import Table
from rich.text import Text

from mqtest.model import Verdict
from mqtest.report.summary import HEADERS, NOT_MEASURED, Group, figures

STYLES = {
    Verdict.KEPT: "green",
    Verdict.LOST_AS_DOCUMENTED: "yellow",
    Verdict.BROKEN: "bold red",
    Verdict.DEAD: "bold red",
    Verdict.UNKNOWN: "magenta",
    Verdict.INVALID: "magenta",
}
_PROFILE, _VERDICT, _LOST, _CELLS = range(1, 5)
_OURS = len(HEADERS) - 1
"""places in HEADERS"""


def table(groups: Sequence[Group], title: str) -> Table:
    """A heading a fault, a line a profile."""
    lines = [figures(group) for group in groups]
    empty = [n for n in range(_CELLS + 1, _OURS) if all(line[n] in ("0", NOT_MEASURED) for line in lines)]
    repeated = any(len(group.rows) > 1 for group in groups)
    shown = [n for n in range(1, _OURS) if n not in empty and (n != _CELLS or repeated)]
    result = Table(title=Text(title), title_justify="left", box=box.SIMPLE_HEAD, caption_justify="left")
    for number in shown:
        left = number <= _VERDICT
        result.add_column(HEADERS[number], justify="left" if left else "right", no_wrap=left, overflow="fold")
    last = None
    for group, line in zip(groups, lines, strict=True):
        if group.fault != last:
            result.add_row(Text(group.fault, style="bold"))
            last = group.fault
        texts = {number: Text(line[number]) for number in shown}
        texts[_PROFILE] = Text("  " + line[_PROFILE])
        texts[_VERDICT].stylize(STYLES[group.verdict])
        result.add_row(*texts.values())
    if empty and lines:
        result.caption = Text(f"0 or not measured in every row: {'; '.join(HEADERS[n] for n in empty)}")
    return result
