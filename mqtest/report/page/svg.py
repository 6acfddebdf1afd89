"""Vega-Lite specifications → SVG, without a browser and without a network.

`inlined` is for the page: it takes its colours and its font from there, scales with its column, and is one image with a
text in its place for those who do not see it. `stand_alone` is a file of its own: it names its colours, those for dark
paper too, as not every viewer knows CSS variables.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from xml.etree import ElementTree

import vl_convert

from mqtest.report.page.colours import COLOURS, ink

Spec = Mapping[str, Any]

FONT_SIZE = 11
_VEGA_LITE = "6.1"
_LARGEST = 1.35
"""how much larger than drawn a picture is shown at most"""
_AXIS = {
    "labelColor": ink("soft"),
    "titleColor": ink("soft"),
    "gridColor": ink("line"),
    "domainColor": ink("line"),
    "tickColor": ink("line"),
    "labelFontSize": FONT_SIZE,
    "titleFontSize": FONT_SIZE,
    "titleFontWeight": "normal",
    "domain": False,
    "ticks": False,
    "labelPadding": 4,
}
CONFIG: Spec = {
    "aria": False,
    "background": None,
    "font": "Arial, Helvetica, sans-serif",
    "padding": 4,
    "view": {"stroke": None},
    "axis": _AXIS,
    "legend": {
        "labelColor": ink("ink"),
        "titleColor": ink("soft"),
        "labelFontSize": FONT_SIZE,
        "titleFontSize": FONT_SIZE,
        "titleFontWeight": "normal",
    },
    "title": {"color": ink("soft"), "fontSize": FONT_SIZE, "fontWeight": "normal", "anchor": "start", "offset": 3},
    "text": {"color": ink("ink"), "fontSize": FONT_SIZE},
}
"""of all pictures"""

_NAMESPACE = "http://www.w3.org/2000/svg"
_OF_SCRIPTS = ("class", "role", "aria-hidden", "aria-roledescription", "aria-label", "pointer-events")
"""attributes that draw nothing"""
_USUAL = {
    "opacity": "1",
    "fill-opacity": "1",
    "stroke-opacity": "1",
    "stroke-width": "1",
    "transform": "translate(0,0)",
}
"""attributes that say what holds without them"""

ElementTree.register_namespace("", _NAMESPACE)


def inlined(spec: Spec, text: str) -> str:
    """For the page; `text` says in words what is to be seen."""
    root, (width, height) = _drawn(spec)
    root.set("viewBox", f"0 0 {width} {height}")
    root.set("style", f"max-width:{round(width * _LARGEST)}px")
    root.set("role", "img")
    root.set("aria-label", text)
    return _text(root)


def stand_alone(spec: Spec, text: str) -> str:
    """For a file."""
    root, (width, height) = _drawn(spec)
    for name, value in (("viewBox", f"0 0 {width} {height}"), ("width", str(width)), ("height", str(height))):
        root.set(name, value)
    paper = ElementTree.Element(_tag("rect"), width=str(width), height=str(height), fill=ink("paper"))
    title, style = ElementTree.Element(_tag("title")), ElementTree.Element(_tag("style"))
    title.text = text
    for number, element in enumerate((title, style, paper)):
        root.insert(number, element)
    drawn = _text(root)
    used = [pair for name, pair in COLOURS.items() if ink(name) in drawn]
    dark = "".join(f'[fill="{light}"]{{fill:{dark}}}[stroke="{light}"]{{stroke:{dark}}}' for light, dark in used)
    style.text = f"@media (prefers-color-scheme:dark){{{dark}}}"
    return re.sub(r"var\(--([a-z-]+)\)", lambda found: COLOURS[found[1]][0], _text(root)) + "\n"


def _drawn(spec: Spec) -> tuple[ElementTree.Element, tuple[int, int]]:
    """The picture without what draws nothing, and its size."""
    text = vl_convert.vegalite_to_svg({**spec, "config": CONFIG}, vl_version=_VEGA_LITE, allowed_base_urls=[])
    root = ElementTree.fromstring(text)
    _left, _top, width, height = map(float, root.attrib["viewBox"].split())
    root.attrib.clear()
    _clean(root)
    return root, (round(width), round(height))


def _clean(element: ElementTree.Element) -> None:
    for name in [n for n, value in element.attrib.items() if n in _OF_SCRIPTS or _USUAL.get(n) == value]:
        del element.attrib[name]
    for child in list(element):
        _clean(child)
        if (child.tag == _tag("g") and not len(child)) or child.get("d") in ("", "M0,0h0v0h0Z"):
            element.remove(child)


def _text(root: ElementTree.Element) -> str:
    return ElementTree.tostring(root, encoding="unicode")


def _tag(name: str) -> str:
    return f"{{{_NAMESPACE}}}{name}"
