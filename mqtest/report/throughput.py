"""What each profile sustains, and how long answers take at shares of that: the section of cells with a search."""

from __future__ import annotations

import re
import statistics
from collections.abc import Sequence

from mqtest.report.blocks import section, table
from mqtest.report.collect import JudgedCell
from mqtest.report.summary import NOT_MEASURED, count, measured, millis, profile_of, spread

_LOAD = re.compile(r"load_(\d+)_latency_ms_p50")
_QUANTILES = ("p50", "p99", "p999", "max")
_RULE = (
    "*Sustained*: the highest rate that was tried and at which what fell due was acknowledged, nothing was skipped, "
    "our own load was on time, and the backlog did not grow, for the seconds that it was tried. *Not at*: the lowest "
    "rate above that, where it was not so. *At 25 %*: milliseconds from due to acknowledged, p50 / p99 / p99.9 / max, "
    "at that share of what the search took for sustained."
)


def throughput_text(cells: Sequence[JudgedCell], floor: str = "") -> str:
    """The section: one row a profile, over repeats the medians, and the worst in parentheses; with the noise floor."""
    searched = by_profile(cells)
    if not searched:
        return ""
    loads = sorted({share for members in searched.values() for share in _loads(members)})
    rows = [
        (profile, *_rates(members), *(_latency(members, share) for share in loads), _limit(members))
        for profile, members in searched.items()
    ]
    at = [f"at {share} %" for share in loads]
    headers = ("profile", "sustained per s", "MB/s", "not at", *at, "limit")
    return section("## Throughput", _RULE, table(headers, rows), floor)


def by_profile(cells: Sequence[JudgedCell]) -> dict[str, list[JudgedCell]]:
    """The cells with a search, by their profile, in their order."""
    found: dict[str, list[JudgedCell]] = {}
    for cell in cells:
        if cell.facts.get("search"):
            found.setdefault(profile_of(cell.row), []).append(cell)
    return found


def figures(cells: Sequence[JudgedCell], name: str) -> list[float]:
    """A number of the checks, of those cells that measured it."""
    numbers = [f.numbers[name] for cell in cells for f in cell.findings if name in f.numbers]
    return [float(number) for number in numbers if number is not None]


def _loads(cells: Sequence[JudgedCell]) -> set[int]:
    names = {name for cell in cells for f in cell.findings for name, n in f.numbers.items() if n is not None}
    return {int(found[1]) for name in names if (found := _LOAD.fullmatch(name))}


def _rates(cells: Sequence[JudgedCell]) -> tuple[str, str, str]:
    rates = figures(cells, "sustained_per_s")
    sizes = [measured(cell.row, "size_bytes") or 0.0 for cell in cells]
    mb_per_s = [rate * max(sizes) / 1e6 for rate in rates]
    return (
        spread(rates, lambda rate: f"{rate:,.0f}", worst=min),
        spread(mb_per_s, lambda mb: f"{mb:,.1f}", worst=min),
        spread(figures(cells, "not_sustained_per_s"), lambda rate: f"{rate:,.0f}", worst=min),
    )


def _latency(cells: Sequence[JudgedCell], share: int) -> str:
    """`1.2 / 3.4 / 8.0 / 21`, and how many that fell due then were never acknowledged, or not even sent."""
    name = f"load_{share}_latency"
    found = [figures(cells, f"{name}_ms_{quantile}") for quantile in _QUANTILES]
    if not all(found):
        return NOT_MEASURED
    text = " / ".join(millis(statistics.median(values)) for values in found)
    missing = sum(figures(cells, f"{name}_unacked") + figures(cells, f"{name}_skipped"))
    return f"{text} ({count(missing)} not acknowledged)" if missing else text


def _limit(cells: Sequence[JudgedCell]) -> str:
    """What stood in the way of more, where that is known."""
    most = max(float(cell.facts["search"].get("most_per_s", 0)) for cell in cells)
    rates = figures(cells, "sustained_per_s")
    if rates and max(rates) >= most:
        return f"the search: nothing above {most:,.0f} was tried"
    last = [line for cell in cells for f in cell.findings if f.check == "sustained" for line in f.examples[-1:]]
    return NOT_MEASURED if rates or not last else f"nothing was sustained; {last[-1]}"
