"""The verdict matrix: profiles × faults, for the page and as a picture.

In the page there is one table a broker, with the longer side down, so that it fits a phone. Every cell has a word; its
colour only repeats it. A combination that has no cell is `not measured`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mqtest.fault_log import NO_FAULT
from mqtest.report.page.colours import ink, short
from mqtest.report.page.svg import FONT_SIZE, Spec
from mqtest.report.summary import Group, cells_that_lost, count, loss, verdict_of, verdict_words

NONE = "not measured"


@dataclass(frozen=True, slots=True, kw_only=True)
class Square:
    """One profile under one fault."""

    word: str
    detail: str
    """what stands below the word; often nothing"""
    tone: str
    """the name of its colour; empty: no cell"""
    about: str
    """the whole story, in one line"""
    cell: str
    """the id of the cell that decided; empty: none"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Matrix:
    """One broker."""

    broker: str
    faults_down: bool
    across: tuple[str, ...]
    down: tuple[tuple[str, tuple[Square, ...]], ...]
    """a heading, and its squares under `across`"""


def matrices(all_groups: Sequence[Group]) -> tuple[Matrix, ...]:
    """One a broker."""
    return tuple(_matrix(broker, all_groups) for broker in dict.fromkeys(map(_broker, all_groups)))


def matrix_spec(all_groups: Sequence[Group]) -> Spec:
    """All brokers in one picture, profiles down, faults across."""
    faults = _faults(all_groups)
    at = {(group.profile, group.fault): group for group in all_groups}
    brokers = dict.fromkeys(map(_broker, all_groups))
    extent = _PX_A_LETTER * max(len(group.profile) for group in all_groups)
    charts = [
        _chart([g.profile for g in all_groups if _broker(g) == broker], faults, at, extent, first=number == 0)
        for number, broker in enumerate(brokers)
    ]
    return {"vconcat": charts, "spacing": 8, "bounds": "flush"} if len(charts) > 1 else charts[0]


def _matrix(broker: str, all_groups: Sequence[Group]) -> Matrix:
    mine = [group for group in all_groups if _broker(group) == broker]
    profiles, faults = list(dict.fromkeys(group.profile for group in mine)), _faults(mine)
    at = {(group.profile, group.fault): square(group) for group in mine}
    faults_down = len(faults) > len(profiles)
    names = [_name(profile) for profile in profiles]
    if faults_down:
        down = [(fault, [at.get((profile, fault), _EMPTY) for profile in profiles]) for fault in faults]
    else:
        rows = zip(names, profiles, strict=True)
        down = [(name, [at.get((profile, fault), _EMPTY) for fault in faults]) for name, profile in rows]
    return Matrix(
        broker=broker,
        faults_down=faults_down,
        across=tuple(names if faults_down else faults),
        down=tuple((heading, tuple(squares)) for heading, squares in down),
    )


_EMPTY = Square(word=NONE, detail="", tone="", about="there is no cell of this", cell="")


def square(group: Group) -> Square:
    """`lost`, and below it `8,096`; over repeats `lost`, `2 of 3, worst 40`, and where none lost `0 of 3 (≤ 100 %)`."""
    verdict = group.verdict
    worst = max((loss(row) or 0 for row in group.proven), default=0)
    if len(group.rows) == 1:
        detail = count(worst) if worst else ""
    else:
        detail = f"{cells_that_lost(group)}" + (f", worst {count(worst)}" if worst else "")
    deciding = [row for row in group.rows if verdict_of(row) is verdict]
    row = max(deciding, key=lambda row: loss(row) or 0)
    return Square(
        word=short(verdict),
        detail=detail,
        tone=short(verdict),
        about=f"{group.profile} under {group.fault}: {verdict_words(group)}. {row.get('reason') or ''}".strip(),
        cell=str(row.get("cell") or ""),
    )


_STEP = 112
_PX_A_LETTER = 6.8
"""of a wide font"""
_FOLDED = "length(datum.label) > 17 ? split(replace(datum.label, ':', ':\\n'), '\\n') : datum.label"
"""a long name of a fault on two lines"""


def _chart(profiles: Sequence[str], faults: Sequence[str], at: Any, extent: float, *, first: bool) -> dict[str, Any]:
    names = list(dict.fromkeys(profiles))
    values = []
    for profile in names:
        for fault in faults:
            group = at.get((profile, fault))
            found = square(group) if group else _EMPTY
            fill, text = (ink(found.tone), ink(f"{found.tone}-text")) if found.tone else ("none", ink("soft"))
            values.append(
                {"p": profile, "f": fault, "w": found.word, "d": found.detail, "fill": fill, "text": text,
                 "edge": ink("line") if not found.tone else fill}
            )  # fmt: skip
    x = {
        "field": "f", "type": "nominal", "sort": list(faults), "title": None,
        "scale": {"paddingInner": 0.05, "paddingOuter": 0},
        "axis": {"orient": "top", "labelAngle": 0, "labelColor": ink("ink"), "labelLimit": _STEP, "labelExpr": _FOLDED}
        if first else None,
    }  # fmt: skip
    y = {
        "field": "p", "type": "nominal", "sort": names, "title": None,
        "scale": {"paddingInner": 0.08, "paddingOuter": 0},
        "axis": {"labelColor": ink("ink"), "minExtent": extent, "labelLimit": extent},
    }  # fmt: skip
    words: dict[str, dict[str, Any]] = {
        "w": {"type": "text", "fontWeight": "bold", "fontSize": FONT_SIZE + 1},
        "d": {"type": "text"},
    }
    colour = {"field": "text", "type": "nominal", "scale": None}
    alone = "datum.d == ''"
    return {
        "data": {"values": values},
        "width": {"step": _STEP},
        "height": {"step": 38},
        "encoding": {"x": x, "y": y},
        "layer": [
            {
                "mark": {"type": "rect", "cornerRadius": 3},
                "encoding": {
                    "fill": {"field": "fill", "type": "nominal", "scale": None},
                    "stroke": {"field": "edge", "type": "nominal", "scale": None},
                },
            },
            *(
                {
                    "transform": [{"filter": alone if dy == 0 else f"!({alone})"}],
                    "mark": words[field] | {"dy": dy},
                    "encoding": {"text": {"field": field}, "color": colour},
                }
                for field, dy in (("w", 0), ("w", -7), ("d", 8))
            ),
        ],
    }


def _broker(group: Group) -> str:
    return group.profile.partition("/")[0]


def _name(profile: str) -> str:
    return profile.partition("/")[2]


def _faults(all_groups: Sequence[Group]) -> list[str]:
    """The control first."""
    return sorted(dict.fromkeys(group.fault for group in all_groups), key=lambda fault: fault != NO_FAULT)
