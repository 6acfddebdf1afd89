"""The safety–cost frontier: the strongest failure that each profile survived, against its throughput and its p99.

Throughput is what the cells with a search sustained. The p99 is that at half of it; in a run without a search, that of
the steady phase, which comes before the fault, so that it is the median over all cells of a profile.

A profile is on the frontier when no other survives as much and is faster. One that lost, or did not come back, under a
weaker failure or under another one of the run is drawn hollow, and is on no frontier.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from mqtest.report.page.colours import BROKERS, broker_colour, ink
from mqtest.report.page.svg import FONT_SIZE, Spec
from mqtest.report.safety import STRENGTH, outcomes, proven
from mqtest.report.summary import Group, Row, groups, measured, profile_of

NONE_OF_THESE = "none of these"
LEVELS = (NONE_OF_THESE, *reversed(STRENGTH))
"""the weakest first"""
_HOLLOW = ("Hollow: it lost, or did not come back, under a weaker", "failure or under another one of this run.")
_SHAPES = {"kafka": "circle", "rabbitmq": "square", "rocketmq": "triangle-up", "other": "diamond"}
_SUSTAINED, _AT_HALF, _STEADY = "sustained_per_s", "load_50_latency_ms_p99", "latency_ms_p99"


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One profile. A figure is None where it was not measured."""

    profile: str
    survived: str
    """one of LEVELS"""
    lost_under: tuple[str, ...]
    """all faults of the run that took messages, or after which the cluster stayed away"""
    per_s: float | None
    p99_ms: float | None

    @property
    def level(self) -> int:
        """Its place in LEVELS."""
        return LEVELS.index(self.survived)

    @property
    def whole(self) -> bool:
        """It lost under nothing but what is stronger than what it survived."""
        return all(fault in LEVELS[self.level + 1 :] for fault in self.lost_under)


@dataclass(frozen=True, slots=True, kw_only=True)
class Frontier:
    """All profiles that were put under one of STRENGTH, and how their p99 was measured."""

    points: tuple[Point, ...]
    searched: bool
    """the p99 is at half of the sustained rate, else of the steady phase"""
    tried: tuple[str, ...]
    """of STRENGTH, those that some cell was put under, the strongest first"""


def frontier(rows: Sequence[Row]) -> Frontier:
    """Of the rows of a run."""
    under: dict[str, dict[str, Group]] = {}
    for group in groups(rows):
        under.setdefault(group.profile, {})[group.fault] = group
    searched = any(measured(row, _SUSTAINED) is not None for row in rows)
    points = []
    for profile, faults in under.items():
        told = proven(faults)
        if not told:
            continue
        mine = [row for row in rows if profile_of(row) == profile]
        points.append(
            Point(
                profile=profile,
                survived=next((fault for fault, survived in told.items() if all(survived)), NONE_OF_THESE),
                lost_under=tuple(fault for fault, group in faults.items() if not all(outcomes(group))),
                per_s=_middle(mine, _SUSTAINED),
                p99_ms=_middle(mine, _AT_HALF if searched else _STEADY),
            )
        )
    tried = {fault for faults in under.values() for fault in proven(faults)}
    return Frontier(points=tuple(points), searched=searched, tried=tuple(f for f in STRENGTH if f in tried))


def best(points: Iterable[Point], figure: str) -> frozenset[str]:
    """The profiles on the frontier by `per_s` (more is better) or `p99_ms` (less is)."""
    known = [(p, value if figure == "per_s" else -value) for p in points if (value := getattr(p, figure)) is not None]
    sound = [(p, good) for p, good in known if p.whole and p.survived != NONE_OF_THESE]
    return frozenset(
        p.profile
        for p, good in sound
        if not any(
            (q.level > p.level and other >= good) or (q.level >= p.level and other > good) for q, other in sound
        )
    )


def frontier_specs(found: Frontier) -> dict[str, Spec]:
    """A picture for each of `per_s` and `p99_ms` that some profile has a figure of."""
    when = "at half of the sustained rate" if found.searched else "steady phase"
    titles = {"per_s": "sustained, messages a second →", "p99_ms": f"p99, ms, {when} (less is better →)"}
    return {
        figure: _chart(found, figure, title)
        for figure, title in titles.items()
        if any(getattr(point, figure) for point in found.points)
    }


def frontier_spec(found: Frontier) -> Spec | None:
    """Both beside each other, with what a hollow one means; None where nothing was measured."""
    charts = list(frontier_specs(found).values())
    return {"title": {"text": list(_HOLLOW), "orient": "bottom"}, "hconcat": charts, "spacing": 28} if charts else None


_ROW, _WIDTH, _GAP, _LABELS = 20, 264, 0.6, 102
_MOST_TICKS = 8


def _chart(found: Frontier, figure: str, title: str) -> dict[str, Any]:
    """Levels as bands, one line a profile in its band, the best of each band on top."""
    known = [point for point in found.points if getattr(point, figure)]
    levels = [level for level in reversed(LEVELS) if any(point.survived == level for point in known)]
    sign = -1 if figure == "per_s" else 1
    front = best(known, figure)
    lows, highs = (pick(getattr(point, figure) for point in known) for pick in (min, max))
    domain = [lows / 1.6, highs * 1.6]
    middle = (lows * highs) ** 0.5
    values, bands, y = [], [], 0.0
    for level in levels:
        members = sorted((p for p in known if p.survived == level), key=lambda p: sign * getattr(p, figure))
        begin = y
        for point in members:
            x = getattr(point, figure)
            right = (x < middle) == (figure == "per_s")
            values.append(
                {
                    "x": x, "y": y + 0.5, "name": point.profile,
                    "broker": broker_colour(point.profile.partition("/")[0]),
                    "right": right, "front": point.profile in front,
                    "whole": point.whole,
                }
            )  # fmt: skip
            y += 1
        y = max(y, begin + 1) + _GAP
        bands.append({"level": level, "y": begin - _GAP / 2, "y2": y - _GAP / 2, "middle": (begin + y - _GAP) / 2})
    scale_y = {"domain": [-_GAP / 2, y - _GAP / 2], "reverse": True, "nice": False, "zero": False}
    scale_x = {"type": "log", "domain": domain, "nice": False, "reverse": figure == "p99_ms"}
    return {
        "title": {"text": "strongest failure survived", "frame": "bounds"},
        "width": _WIDTH,
        "height": round(_ROW * (y + _GAP)),
        "layer": [*_backdrop(bands, scale_y), *_dots(values, scale_x, scale_y, title)],
    }


def _backdrop(bands: list[dict[str, Any]], scale_y: Spec) -> list[dict[str, Any]]:
    y = {"type": "quantitative", "scale": scale_y, "axis": None}
    return [
        {
            "data": {"values": bands},
            "mark": {"type": "rule", "color": ink("line")},
            "encoding": {"y": {"field": "y2", **y}, "x": {"value": -_LABELS}, "x2": {"value": _WIDTH}},
        },
        {
            "data": {"values": bands},
            "mark": {"type": "text", "align": "left", "color": ink("ink")},
            "encoding": {"y": {"field": "middle", **y}, "x": {"value": -_LABELS}, "text": {"field": "level"}},
        },
    ]


def _dots(values: list[dict[str, Any]], scale_x: Spec, scale_y: Spec, title: str) -> list[dict[str, Any]]:
    axis = {"title": title, "format": ",~r", "values": _ticks(*scale_x["domain"]), "grid": True}
    x = {"field": "x", "type": "quantitative", "scale": scale_x, "axis": axis}
    y = {"field": "y", "type": "quantitative", "scale": scale_y, "axis": None}
    shown = [broker for broker in (*BROKERS, "other") if any(value["broker"] == broker for value in values)]
    legend = {"title": None, "orient": "bottom"} if len(shown) > 1 else None
    colour = {
        "field": "broker", "type": "nominal", "legend": legend,
        "scale": {"domain": shown, "range": [ink(broker) for broker in shown]},
    }  # fmt: skip
    shape = {
        "field": "broker", "type": "nominal", "legend": legend,
        "scale": {"domain": shown, "range": [_SHAPES[broker] for broker in shown]},
    }  # fmt: skip
    names = [_names(values, x, y, right=right, front=front) for right in (True, False) for front in (True, False)]
    return [
        {
            "data": {"values": values},
            "transform": [{"filter": "datum.front"}],
            "mark": {"type": "line", "interpolate": "step-after", "color": ink("soft"), "strokeDash": [3, 3]},
            "encoding": {"x": x, "y": y, "order": {"field": "y"}},
        },
        {
            "data": {"values": values},
            "mark": {"type": "point", "size": 70, "strokeWidth": 2, "opacity": 1},
            "encoding": {
                "x": x, "y": y, "color": colour, "shape": shape,
                "fill": {
                    "condition": {"test": "datum.whole", "field": "broker", "type": "nominal", "legend": None,
                                  "scale": {"domain": shown, "range": [ink(broker) for broker in shown]}},
                    "value": ink("paper"),
                },
            },
        },
        *(layer for layers in zip(*names, strict=True) for layer in layers),
    ]  # fmt: skip


def _names(values: list[dict[str, Any]], x: Spec, y: Spec, *, right: bool, front: bool) -> list[dict[str, Any]]:
    """The names of the dots, to their right or left, upon a halo that keeps lines out of them."""
    side = {"align": "left", "dx": 9} if right else {"align": "right", "dx": -9}
    mark = {"type": "text", "fontWeight": "bold" if front else "normal", "fontSize": FONT_SIZE, **side}
    return [
        {
            "data": {"values": values},
            "transform": [{"filter": f"datum.right == {str(right).lower()} && datum.front == {str(front).lower()}"}],
            "mark": {**mark, **halo},
            "encoding": {"x": x, "y": y, "text": {"field": "name"}},
        }
        for halo in ({"stroke": ink("paper"), "strokeWidth": 4, "strokeJoin": "round"}, {})
    ]


def _ticks(low: float, high: float) -> list[float]:
    """Of 1, 2 and 5 times the powers of ten between the two; of many, the powers alone."""
    powers = [10.0**n for n in range(-3, 9)]
    fine = [n * power for power in powers for n in (1, 2, 5) if low <= n * power <= high]
    return fine if len(fine) <= _MOST_TICKS else [power for power in powers if low <= power <= high]


def _middle(rows: Iterable[Row], column: str) -> float | None:
    values = [value for row in rows if (value := measured(row, column)) is not None]
    return statistics.median(values) if values else None
