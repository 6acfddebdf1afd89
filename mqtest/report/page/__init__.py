"""report.html, matrix.svg and frontier.svg: a run as pictures.

The page is one file that needs no network: words, tables, and pictures as SVG inside it. It takes light or dark paper
from its reader, fits a phone, and prints whole. Its one script, of a few lines, opens the cell that a link leads to.
Every text that comes from files or brokers is escaped by the template.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from mqtest.curves import Curves
from mqtest.model import Verdict
from mqtest.report.collect import Collected
from mqtest.report.noise import floor_text
from mqtest.report.page.answer import answer
from mqtest.report.page.cell_view import cell_views
from mqtest.report.page.colours import css, short
from mqtest.report.page.frontier import Frontier, best, frontier, frontier_spec, frontier_specs
from mqtest.report.page.matrix import matrices, matrix_spec
from mqtest.report.page.svg import inlined, stand_alone
from mqtest.report.summary import NOT_MEASURED, count, groups, millis, teeth
from mqtest.report.surprises import must_lose

_HERE = Path(__file__).parent
_STAMP = re.compile(r"^\d{8}T\d{6}Z-")
_LEGEND = {
    Verdict.KEPT: "nothing acknowledged was lost, and no duplicate or disorder beyond the promise",
    Verdict.LOST_AS_DOCUMENTED: "lost-as-documented: under a fault that the promise does not cover",
    Verdict.BROKEN: "a promise was broken",
    Verdict.DEAD: "the cluster did not come back whole",
    Verdict.UNKNOWN: "cannot be told",
    Verdict.INVALID: "no valid test",
}


def page(collected: Collected, curves: Mapping[Path, Curves | None], version: str) -> str:
    """report.html; `curves` by the folders of the cells that have any."""
    environment = Environment(
        loader=FileSystemLoader(_HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    all_groups = groups(collected.rows)
    found = frontier(collected.rows)
    run: Mapping[str, Any] = next((run["scenario"] for run in collected.runs if run.get("scenario")), {})
    return environment.get_template("page.html.j2").render(
        title=run.get("title") or " + ".join(run_names(collected)) or "Report",
        question=run.get("question", ""),
        tally=_tally(collected),
        answer=answer(collected.rows),
        notes=teeth(all_groups, must_lose(collected)),
        matrices=matrices(all_groups),
        legend=[(short(v), text) for v, text in _LEGEND.items() if v in {cell.verdict for cell in collected.cells}],
        frontier=[Markup(inlined(spec, _words(found, figure))) for figure, spec in frontier_specs(found).items()],
        points=_points(found),
        searched=found.searched,
        tried=found.tried,
        floor=floor_text(collected).replace("`", ""),
        cells=list(cell_views(collected, curves)),
        unfinished=collected.unfinished,
        bare=not all(cell.ledger for cell in collected.cells),
        ledgers=any(cell.ledger for cell in collected.cells) or not collected.cells,
        runs=[str(run.get("run")) for run in collected.runs],
        version=version,
        colours=Markup(css()),
        style=Markup((_HERE / "style.css").read_text(encoding="utf-8")),
    )


def stills(collected: Collected) -> dict[str, str]:
    """matrix.svg and frontier.svg, those that there is something to show in."""
    found = frontier(collected.rows)
    drawn = {
        "matrix.svg": (matrix_spec(groups(collected.rows)) if collected.cells else None, matrix_words(collected)),
        "frontier.svg": (frontier_spec(found), " ".join(_words(found, f) for f in frontier_specs(found))),
    }
    return {name: stand_alone(spec, text) for name, (spec, text) in drawn.items() if spec is not None}


def matrix_words(collected: Collected) -> str:
    """What is to be seen in the matrix."""
    all_groups = groups(collected.rows)
    told = "; ".join(
        f"{group.profile} under {group.fault}: {short(group.verdict)}"
        for group in all_groups
        if group.verdict is not Verdict.KEPT
    )
    kept = sum(group.verdict is Verdict.KEPT for group in all_groups)
    many = f"Verdicts of {len(all_groups)} combinations of a profile and a fault: {kept} kept"
    return f"{many}; {told}." if told else f"{many}."


def run_names(collected: Collected) -> list[str]:
    """The runs without their times, each once."""
    return list(dict.fromkeys(_STAMP.sub("", str(run.get("run"))) for run in collected.runs))


def _words(found: Frontier, figure: str) -> str:
    what = "messages a second" if figure == "per_s" else "ms p99"
    front = best(found.points, figure)
    told = [
        f"{p.profile} survived {p.survived}, {count(round(value)) if figure == 'per_s' else millis(value)} {what}"
        + (", on the frontier" if p.profile in front else "")
        for p in found.points
        if (value := getattr(p, figure)) is not None
    ]
    return "The strongest failure survived, against " + what + ": " + "; ".join(told) + "."


def _points(found: Frontier) -> list[tuple[str, ...]]:
    """Rows of the table below the frontier."""
    return [
        (
            p.profile,
            p.survived,
            ", ".join(p.lost_under) or "none",
            NOT_MEASURED if p.per_s is None else count(round(p.per_s)),
            NOT_MEASURED if p.p99_ms is None else millis(p.p99_ms),
        )
        for p in sorted(found.points, key=lambda p: (-p.level, p.p99_ms if p.p99_ms is not None else float("inf")))
    ]


def _tally(collected: Collected) -> str:
    verdicts = [cell.verdict for cell in collected.cells]
    parts = [f"{verdicts.count(v)} {v}" for v in Verdict if v in verdicts]
    if collected.unfinished:
        parts.append(f"{len(collected.unfinished)} planned and not finished")
    return f"{len(verdicts)} cell{'' if len(verdicts) == 1 else 's'}: {', '.join(parts)}." if parts else ""
