"""A selection for the terminal, as a rich text; cli prints it.

Every result is a word; colour only repeats it. It reads in 80 columns: a profile is a heading, and under it stand its
needs, each with how many cells speak for it and which; a list of cells is cut, the other formats have all of them.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence

from rich.text import Text

from mqtest.select.judging import Judged, Reading, Result, met_words, missed_words
from mqtest.select.selection import Selection, Standing, Weighed

STYLES = {Standing.QUALIFIES: "green", Standing.FAILS: "red", Standing.NOT_MEASURED: "magenta"}
_RULE_OF_THREE = (
    "missed in at most: of such cells, with 95 % confidence, where none of n missed (rule of three, 3/n); three cells "
    "or fewer bound nothing"
)
_MOST_CELLS = 3
"""of a need"""
_WIDEST = 100

Line = tuple[int, str, str]
"""indent, text, style"""


def screen(selection: Selection, width: int) -> Text:
    """The whole answer, wrapped to so many columns."""
    result = Text()
    for indent, text, style in _lines(selection):
        wrapped = textwrap.wrap(
            text,
            min(width, _WIDEST),
            initial_indent=" " * indent,
            subsequent_indent=" " * (indent + 2),
            break_on_hyphens=False,
        )
        for line in wrapped or [""]:
            result.append(line + "\n", style)
    result.right_crop()
    return result


def cells_text(readings: Sequence[Reading], selection: Selection, most: int = _MOST_CELLS) -> str:
    """Names of cells, with the name of their run where several have cells of one name."""
    names = [str(reading.row["cell"]) if selection.apart else reading.cell for reading in readings]
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def proof(found: Judged) -> tuple[str, Sequence[Reading]]:
    """What is said of a need, whatever came of it, and the cells that say so."""
    if found.result is Result.MET:
        return met_words(found), found.meeting
    return (missed_words(found), found.missing) if found.missing else (found.silence, found.meeting)


def notes(selection: Selection) -> tuple[str, ...]:
    """What is not proven; the rule of three where somebody qualifies, for only what is met is given a bound."""
    return (*selection.notes, *((_RULE_OF_THREE,) if selection.qualifying else ()))


def _lines(selection: Selection) -> Iterator[Line]:
    yield 0, f"{selection.cells} cells of {', '.join(selection.runs) or 'no run'}", ""
    for standing, found in (
        (Standing.QUALIFIES, selection.qualifying),
        (Standing.FAILS, selection.failing),
        (Standing.NOT_MEASURED, selection.unmeasured),
    ):
        if found or standing is Standing.QUALIFIES:
            yield 0, "", ""
            yield 0, _heading(standing, len(found), selection), f"bold {STYLES[standing]}"
        for rank, one in enumerate(found, 1):
            yield 0, f"{rank}. {one.name}" if standing is Standing.QUALIFIES else one.name, "bold"
            yield from _LINES[standing](one, selection)
    for number, note in enumerate(notes(selection)):
        if not number:
            yield 0, "", ""
            yield 0, "What this does not prove", "bold"
        yield 0, f"- {note}", ""


def _heading(standing: Standing, found: int, selection: Selection) -> str:
    every = len(selection.qualifying) + len(selection.failing) + len(selection.unmeasured)
    those = f"{found or 'None'} of {every} profiles {{}}"
    if standing is Standing.FAILS:
        return those.format(f"fail{'s' if found == 1 else ''}: the first need that each missed, and by how much")
    if standing is Standing.NOT_MEASURED:
        return those.format("could not be told: no need was missed, and not every one was measured")
    if not found:
        return those.format("qualifies")
    order = ", then ".join((*selection.requirements.prefer, "the most cells that prove it"))
    return those.format(f"qualif{'ies' if found == 1 else 'y'}, the best first by {order}")


def _qualifying(one: Weighed, selection: Selection) -> Iterator[Line]:
    for found in one.needs:
        yield from _need(found, selection)
    for under in selection.compared:
        yield 3, f"{under.preference}: {under.words(one.name)}", ""
    for line in one.beware:
        yield 3, f"beware: {line}", "yellow"


def _failing(one: Weighed, selection: Selection) -> Iterator[Line]:
    missed = one.of(Result.MISSED)
    yield from _need(missed[0], selection)
    if len(missed) > 1:
        yield 3, f"and it missed {'another need' if len(missed) == 2 else f'{len(missed) - 1} other needs'}", ""


def _unmeasured(one: Weighed, selection: Selection) -> Iterator[Line]:
    for found in one.of(Result.NOT_MEASURED):
        yield from _need(found, selection)


def _need(found: Judged, selection: Selection) -> Iterator[Line]:
    words, readings = proof(found)
    yield 3, f"{found.need}: {words}", ""
    if readings:
        yield 5, cells_text(readings, selection), "dim"


_LINES = {Standing.QUALIFIES: _qualifying, Standing.FAILS: _failing, Standing.NOT_MEASURED: _unmeasured}
