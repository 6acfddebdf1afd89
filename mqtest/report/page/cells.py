"""The pictures of one cell: its timeline, its latency percentiles, and where its lost messages lay.

The timeline is some rows over one axis of time, the fault and its heal as bands through all of them. A row of counts
has at most MOST steps: of a longer cell each is the worst of the seconds that it stands for, so that an outage of a
second still shows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from math import ceil, floor, log10
from typing import Any

from mqtest.curves import QUANTILES, Curves, Latency
from mqtest.report.page.colours import ink
from mqtest.report.page.svg import Spec

MOST = 240
"""steps of a row"""
_MOST_RUNS = 4
_WIDTH, _AXIS = 318, 44
_NAMES = ("p50", "p75", "p90", "p95", "p99", "p99.5", "p99.9", "max")
assert len(_NAMES) == len(QUANTILES)
_PHASES = ("steady", "fault", "recover", "after")
_LEFT_OUT = ("up", "warm-up", "search", "heal", "drain", "audit", "down")
"""phases without a load of their own, or that last for moments"""

_LEAST_MS = 0.001
"""what a logarithmic scale can show"""
FIRST_ACK, LEADER = "▼", "◆"


def timeline_spec(curves: Curves, first_ack_s: float | None) -> Spec:
    """`first_ack_s`: when the first message sent after the fault was acked."""
    rows = list(_rows(curves))
    charts = []
    for number, (title, height, layers) in enumerate(rows):
        first, x = number == 0, _x(curves, shown=number == len(rows) - 1)
        drawn = [*_bands(curves, x, label=first), *layers(x), *_marks(curves, first_ack_s, x, symbols=first)]
        charts.append({"title": title, "width": _WIDTH, "height": height, "layer": drawn})
    return {"vconcat": charts, "spacing": 7}


_SOFT = {"color": ink("soft")}
Layers = Callable[[Spec], list[dict[str, Any]]]


def _rows(curves: Curves) -> Iterator[tuple[str, int, Layers]]:
    """A title, a height, and the layers of each row, over an axis of time."""
    doubt = _thinned(curves, curves.unknown, max)
    if curves.acks is None:
        yield "sent per second (nobody acknowledges)", 62, _area(doubt, "doubt")
    else:
        acks = _thinned(curves, curves.acks, min)
        title = "acknowledged per second" + (", and sends in doubt (solid)" if any(curves.unknown) else "")
        yield title, 74, _both(_area(acks, "acks"), _area(doubt, "doubt", solid=True) if any(curves.unknown) else None)
    if any(curves.deliveries):
        yield "delivered per second", 48, _area(_thinned(curves, curves.deliveries, _mean), "deliveries")
    if curves.latencies:
        yield "latency, ms: p50 (solid), p99 (dashed), highest (dots)", 84, _latency(curves)
    if any(curves.deliveries):
        yield "unseen messages", 48, _area(_thinned(curves, curves.unseen, max, rate=False), "unseen", {})
    if curves.gone is not None and any(curves.gone):
        what = "lost, by the second of the ack"
        if curves.acks is None:
            what = "not found, by the second of the sending"
        yield what, 40, _area(_thinned(curves, curves.gone, max, rate=False), "gone", {}, solid=True)


def _both(below: Layers, above: Layers | None) -> Layers:
    return lambda x: [*below(x), *(above(x) if above else ())]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


Step = Mapping[str, float]


def _thinned(
    curves: Curves, counts: Sequence[int], pick: Callable[[Sequence[float]], float], *, rate: bool = True
) -> list[Step]:
    """From, to, and a number: a second's, or with `rate=False` as it was counted."""
    each = -(-len(counts) // MOST)
    lengths = [min(curves.step_s, curves.length_s - n * curves.step_s) for n in range(len(counts))]
    numbers = [n / max(length, 1e-3) if rate else n for n, length in zip(counts, lengths, strict=True)]
    if rate and len(numbers) > 1 and lengths[-1] < curves.step_s / 2:
        numbers[-1] = numbers[-2]  # too short a step to make a rate of
    return [
        {
            "s": round(first * curves.step_s, 3),
            "e": round(min((first + each) * curves.step_s, curves.length_s), 3),
            "n": round(pick(numbers[first : first + each]), 1),
        }
        for first in range(0, len(numbers), each)
    ]


def _x(curves: Curves, *, shown: bool) -> Spec:
    axis = {"title": "seconds into the load", "tickCount": 6, "grid": True, "format": ",~r"}
    hidden = {"title": None, "labels": False, "tickCount": 6, "grid": True}
    return {
        "type": "quantitative",
        "scale": {"domain": [0, curves.length_s], "nice": False},
        "axis": axis if shown else hidden,
    }


_SHORT = "format(datum.value, '~s')"
"""0, 500, 12k"""
_Y_AXIS = {"title": None, "minExtent": _AXIS, "maxExtent": _AXIS}
_COUNT_Y = {"field": "n", "type": "quantitative", "axis": {**_Y_AXIS, "tickCount": 2, "labelExpr": _SHORT}}
_STEPS, _SOLID = {"type": "area", "interpolate": "step-after"}, 0.9
_ROOT = {"scale": {"type": "sqrt", "nice": True}}
"""a backlog that goes out at once is many times the usual rate, which would lie flat on a straight scale"""


def _area(steps: list[Step], colour: str, scale: Spec = _ROOT, *, solid: bool = False) -> Layers:
    def layers(x: Spec) -> list[dict[str, Any]]:
        ended = [*steps, {**steps[-1], "s": steps[-1]["e"]}]
        line = {} if solid else {"line": {"color": ink(colour), "strokeWidth": 1.5}}
        mark = {**_STEPS, "color": ink(colour), "fillOpacity": _SOLID if solid else 0.25}
        return [
            {
                "data": {"values": ended},
                "mark": {**mark, **line},
                "encoding": {"x": {"field": "s", **x}, "y": {**_COUNT_Y, **scale}},
            }
        ]

    return layers


def _latency(curves: Curves) -> Layers:
    points = _worst_of(curves.latencies)
    scale, ticks = _decades([ms for _at, *each in points for ms in each if ms is not None])
    values = [dict(zip(("s", "p50", "p99", "max"), point, strict=True)) for point in points]

    def layers(x: Spec) -> list[dict[str, Any]]:
        axis = {**_Y_AXIS, "format": ",~r", "values": ticks}

        def layer(name: str, mark: Spec) -> dict[str, Any]:
            y = {"field": name, "type": "quantitative", "scale": scale, "axis": axis}
            return {"mark": mark, "encoding": {"x": {"field": "s", **x}, "y": y}}

        single = {"point": {"size": 10, "filled": True}} if len(points) < 12 else {}
        return [
            {
                "data": {"values": values},
                "layer": [
                    layer("max", {"type": "point", "filled": True, "size": 7, "opacity": 0.9, **_SOFT}),
                    layer("p99", {"type": "line", "color": ink("tail"), "strokeDash": [4, 2], "strokeWidth": 1.5}),
                    layer("p50", {"type": "line", "color": ink("middle"), "strokeWidth": 1.8, **single}),
                ],
            }
        ]

    return layers


Worst = tuple[float, float | None, float | None, float | None]


def _worst_of(latencies: Sequence[Latency]) -> list[Worst]:
    """When, and p50, p99, and the highest: of each second, or of more of them the worst. None where nothing that fell
    due was acked."""
    each = -(-len(latencies) // MOST)
    points: list[Worst] = []
    for first in range(0, len(latencies), each):
        some = latencies[first : first + each]
        at = some[0].at_s
        if points and at - points[-1][0] > 1.5 * each:
            points.append((at - 0.5, None, None, None))
        p50, p99, most = (max(_LEAST_MS, *column) for column in list(zip(*some, strict=True))[1:])
        points.append((at, p50, p99, most))
    return points


def _bands(curves: Curves, x: Spec, *, label: bool) -> list[dict[str, Any]]:
    bands: list[dict[str, Any]] = []
    for band in curves.bands:
        begin, end = max(0.0, band.began_s), curves.length_s
        healed = end if band.healed_s is None else min(band.healed_s, end)
        bands.append({"s": begin, "e": healed, "what": "fault", "fill": ink("fault")})
        if band.recovered_s is not None and healed < band.recovered_s:
            bands.append({"s": healed, "e": min(band.recovered_s, end), "what": "heal", "fill": ink("heal")})
    shown = [band for band in bands if band["e"] > band["s"]]
    if not shown:
        return []
    wide = [band for band in shown if (band["e"] - band["s"]) / curves.length_s > 0.09]
    fill = {"field": "fill", "type": "nominal", "scale": None}
    layers: list[dict[str, Any]] = [
        {
            "data": {"values": shown},
            "mark": {"type": "rect", "opacity": 0.2},
            "encoding": {"x": {"field": "s", **x}, "x2": {"field": "e"}, "fill": fill},
        }
    ]
    if label and wide:
        layers.append(
            {
                "data": {"values": wide},
                "mark": {"type": "text", "align": "left", "baseline": "bottom", "dx": 1, "dy": -2, **_SOFT},
                "encoding": {"x": {"field": "s", **x}, "y": {"value": 0}, "text": {"field": "what"}},
            }
        )
    return layers


def _marks(curves: Curves, first_ack_s: float | None, x: Spec, *, symbols: bool) -> list[dict[str, Any]]:
    marks: list[dict[str, Any]] = [{"s": mark.at_s, "shape": "diamond"} for mark in curves.marks]
    if first_ack_s is not None:
        marks.append({"s": first_ack_s, "shape": "triangle-down"})
    marks = [mark for mark in marks if 0 <= mark["s"] <= curves.length_s]
    if not marks:
        return []
    at = {"field": "s", **x}
    rule = {
        "data": {"values": marks},
        "mark": {"type": "rule", "color": ink("ink"), "strokeWidth": 0.8, "strokeDash": [2, 2]},
        "encoding": {"x": at},
    }
    shape = {"field": "shape", "type": "nominal", "scale": None, "legend": None}
    symbol = {
        "data": {"values": marks},
        "mark": {"type": "point", "filled": True, "size": 46, "color": ink("ink"), "opacity": 1},
        "encoding": {"x": at, "y": {"value": 0}, "shape": shape},
    }
    return [rule, symbol] if symbols else [rule]


def _decades(values: Sequence[float]) -> tuple[Spec, list[float]]:
    """A logarithmic scale from a power of ten to another, and its ticks."""
    low, high = floor(log10(min(values))), ceil(log10(max(values)))
    high = max(high, low + 1)
    steps = (1, 2, 5) if high == low + 1 else (1,)
    ticks = [step * 10.0**n for n in range(low, high) for step in steps] + [10.0**high]
    every = ticks[:: 2 if len(ticks) > 5 else 1]
    return {"type": "log", "domain": [10.0**low, 10.0**high], "nice": False}, every


def percentiles_spec(curves: Curves) -> Spec | None:
    """A line a phase; None where nothing was acked."""
    phases = [phase for phase in curves.percentiles if phase not in _LEFT_OUT]
    phases.sort(key=lambda phase: (_PHASES.index(phase) if phase in _PHASES else len(_PHASES), phase))
    if not phases:
        return None
    values: list[dict[str, Any]] = [
        {"q": name, "ms": max(ms, _LEAST_MS), "phase": phase}
        for phase in phases
        for name, ms in zip(_NAMES, curves.percentiles[phase], strict=True)
    ]
    scale, ticks = _decades([float(value["ms"]) for value in values])
    colours = [ink(name) for name in ("middle", "gone", "unseen", "deliveries", "tail", "soft")]
    dashes = [[1, 0], [5, 2], [2, 2], [7, 2, 2, 2], [4, 4], [1, 3]]
    shapes = ["circle", "square", "triangle-up", "diamond", "cross", "triangle-down"]

    def by_phase(channel: Sequence[Any]) -> dict[str, Any]:
        legend = {"title": None, "orient": "top", "columns": 4, "symbolSize": 50, "symbolStrokeWidth": 0}
        scale = {"domain": phases, "range": [channel[n % len(channel)] for n in range(len(phases))]}
        return {"field": "phase", "type": "nominal", "scale": scale, "legend": legend}

    shape = by_phase(shapes)
    return {
        "width": _WIDTH,
        "height": 170,
        "data": {"values": values},
        "encoding": {
            "x": {"field": "q", "type": "ordinal", "sort": list(_NAMES), "title": None, "axis": {"labelAngle": 0}},
            "y": {
                "field": "ms",
                "type": "quantitative",
                "scale": scale,
                "axis": {"title": "ms", "format": ",~r", "values": ticks, "minExtent": _AXIS - 14},
            },
            "color": by_phase(colours),
        },
        "layer": [
            {"mark": {"type": "line", "strokeWidth": 1.8}, "encoding": {"strokeDash": by_phase(dashes)}},
            {"mark": {"type": "point", "filled": True, "size": 28, "opacity": 1}, "encoding": {"shape": shape}},
        ],
    }


def runs_spec(curves: Curves) -> Spec | None:
    """Where in the run of its producer each lost message lay; None where none was lost. The producers with the most."""
    worst = sorted(curves.runs, key=lambda run: -sum(run.gone))[:_MOST_RUNS]
    if not worst:
        return None
    what = "lost" if curves.acks is not None else "not found"
    charts = []
    for run in sorted(worst, key=lambda run: run.producer):
        size = run.messages / len(run.gone)
        shares = [100 * min(1, gone / size) for gone in run.gone]
        values = [{"s": round(n * size), "n": share} for n, share in enumerate([*shares, shares[-1]])]
        axis = {"title": None, "tickCount": 6, "labelExpr": _SHORT}
        x = {"scale": {"domain": [0, run.messages], "nice": False}, "axis": axis}
        y = {"scale": {"domain": [0, 100]}, "axis": {**_Y_AXIS, "values": [0, 50, 100]}}
        told = f"{sum(run.gone):,} of {run.messages:,} {what}"
        charts.append(
            {
                "title": f"producer {run.producer}: {told}; % of each {size:,.0f} messages",
                "width": _WIDTH,
                "height": 44,
                "data": {"values": values},
                "mark": {**_STEPS, "color": ink("gone"), "fillOpacity": _SOLID},
                "encoding": {
                    "x": {"field": "s", "type": "quantitative", **x},
                    "y": {"field": "n", "type": "quantitative", **y},
                },
            }
        )
    return {"vconcat": charts, "spacing": 8}


