"""What a bench came to, as Markdown and CSV: pure functions of the runs.

The ratio is the median of ours by the median of theirs. Only runs whose figure counts are in it; those that do not are
told with their reasons. A dash, or an empty field, means not measured; never 0.
"""

from __future__ import annotations

import csv
import io
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from mqtest.bench.figures import Figure, Spread, ratio, spread
from mqtest.bench.rows import Row
from mqtest.report.blocks import bullets, code, plain, section
from mqtest.report.blocks import table as table_text

OURS: Final = "mqtest"
THEIRS: Final = "tool"
WORKS: Final = ("produce", "consume")

_CHECKED: Final = (
    "mqtest checks all of it: every message has a number and a checksum, every acknowledgement and every receipt is in "
    "the ledger before the next step, and after each run the broker is read back whole, and each message gets one "
    "fate. A run counts only when none was lost, foreign or corrupt, nor doubled or out of order beyond the promise.",
    "The tools check nothing: they count answers and deliveries, whatever is in them, and nothing that they wrote was "
    "read back for them.",
)
_DEFINED: Final = (
    "mqtest, produce: acknowledgements, from the first to the last one within the measured seconds, after the warm-up.",
    "mqtest, consume: receipts of one consumer that takes what the run left behind, from a second after the first one "
    "to the last one within the measured seconds.",
    "CPU a message: client + brokers, in user and kernel mode, over the same time: mqtest's worker process or the "
    "tool's container, and all nodes together. Not in it: how mqtest reads back and judges afterwards. By the rate it "
    "says who was the limit: where both together come near the cores of the machine, the processors were.",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One run of one side."""

    number: int
    side: str
    produce: Figure | None
    consume: Figure | None
    why: str | None
    """why it does not count, or not all of it"""

    def __str__(self) -> str:
        """Such as `mqtest: produce 41,234/s, consume 30,123/s`."""
        told = [f"{work} {_rate(figure)}/s" for work in WORKS if (figure := getattr(self, work)) is not None]
        return f"{self.side}: {', '.join(told) or 'nothing measured'}" + (f" ({self.why})" if self.why else "")


@dataclass(slots=True, kw_only=True)
class Compared:
    """A row, and what was measured of it so far."""

    row: Row
    facts: dict[str, Any] = field(default_factory=dict)
    """`versions`, `effective` settings and `image` of the cluster"""
    commands: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """the tool's, by work"""
    runs: list[Run] = field(default_factory=list)
    failed: str | None = None

    def spread(self, side: str, work: str) -> Spread | None:
        """Of the runs of one side."""
        return spread([getattr(run, work) for run in self.runs if run.side == side])

    def ratio(self, work: str) -> float | None:
        """Ours by theirs."""
        return ratio(self.spread(OURS, work), self.spread(THEIRS, work))

    def record(self) -> dict[str, Any]:
        """As it stands in bench.json."""
        row = self.row
        return {
            "name": row.name,
            "about": row.about,
            "profile": row.profile.path,
            "settings": {table: dict(keys) for table, keys in row.profile.settings.items() if keys},
            "size_bytes": row.size_bytes,
            "window": row.window,
            "nodes": row.nodes,
            "tool": row.tool.name,
            "tool_settings": dict(row.options),
            "targets": dict(row.targets),
            "commands": {work: list(command) for work, command in self.commands.items()},
            **self.facts,
            "runs": [asdict(run) for run in self.runs],
            "failed": self.failed,
        }


def markdown(compared: Sequence[Compared], record: Mapping[str, Any]) -> str:
    """bench.md."""
    asked, machine = record["asked"], record["host"]
    rows = [line for one in compared for line in _lines(one)]
    missing = [line for one in compared for line in _missing(one)]
    sections = [
        "# Verified load beside the brokers' own perf tools",
        f"{asked['runs']} runs of {asked['seconds']:g} s each after {asked['warm_up_s']:g} s of warm-up, mqtest and "
        "the tool in turn on one fresh cluster a row. Median, in parentheses lowest to highest.",
        table_text(_HEADERS, rows, numbers_from=2),
        section("## What each side checked", bullets(_CHECKED)),
        section("## What the rates are", bullets([*_DEFINED, *_tools_defined(compared)])),
        section("## Runs that do not count, or not whole", bullets(missing)),
        section("## What it ran on", bullets(_ran_on(machine, record))),
        section("## Settings and commands", *(_how(one) for one in compared)),
    ]
    return "\n\n".join(part for part in sections if part) + "\n"


_HEADERS: Final = (
    "row",
    "work",
    "mqtest, a second",
    "tool, a second",
    "ratio",
    "wanted",
    "CPU a message: mqtest",
    "tool",
    "runs that count",
)


_COLUMNS: Final = (
    "row",
    "work",
    "side",
    "run",
    "messages",
    "seconds",
    "rate_per_s",
    "cpu_us",
    "nodes_us",
    "ratio",
    "wanted",
    "why_not",
)


def summary(compared: Sequence[Compared]) -> Sequence[str]:
    """For a terminal: a line for each row and work, under a line of headers."""
    told = [_HEADERS, *(line for one in compared for line in _lines(one))]
    widths = [max(map(len, column)) for column in zip(*told, strict=True)]
    return ["  ".join(map(str.ljust, line, widths)).rstrip() for line in told]


def whole(compared: Sequence[Compared]) -> bool:
    """Whether every run of both sides counts, with both figures."""
    return not any(line for one in compared for line in _missing(one))


def csv_text(compared: Sequence[Compared]) -> str:
    """bench.csv: a line for each run and work, then one for each row and work with the medians."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for one in compared:
        name = one.row.name
        for run in one.runs:
            for work in WORKS:
                writer.writerow((name, work, run.side, run.number, *_measured(getattr(run, work)), "", "", run.why))
        for work in WORKS:
            for side in (OURS, THEIRS):
                seen = one.spread(side, work)
                medians = (round(seen.median, 1), *_cpus(seen)) if seen else ("", "", "")
                last = (_rounded(one.ratio(work)), one.row.targets.get(work, "")) if side == OURS else ("", "")
                writer.writerow((name, work, side, "median", "", "", *medians, *last, one.failed))
    return out.getvalue()


def _lines(one: Compared) -> Iterator[tuple[str, ...]]:
    for work in WORKS:
        mine, theirs, by = one.spread(OURS, work), one.spread(THEIRS, work), one.ratio(work)
        wanted = one.row.targets.get(work)
        verdict = "" if by is None or wanted is None else (", met" if by >= wanted else ", missed")
        yield (
            one.row.name,
            work,
            _spread(mine),
            _spread(theirs),
            "–" if by is None else f"{by:.2f}",
            "–" if wanted is None else f"≥ {wanted:g}{verdict}",
            _cpu(mine),
            _cpu(theirs),
            f"{len(mine.rates_per_s) if mine else 0}, {len(theirs.rates_per_s) if theirs else 0}",
        )


def _missing(one: Compared) -> Iterator[str]:
    if one.failed:
        yield f"{one.row.name}: {one.failed}"
    for run in one.runs:
        lacks = [work for work in WORKS if getattr(run, work) is None]
        if run.why or lacks:
            why = run.why or f"too short to measure: {', '.join(lacks)}"
            yield f"{one.row.name}, run {run.number} of {run.side}: {why}"


def _tools_defined(compared: Sequence[Compared]) -> Sequence[str]:
    tools = {one.row.tool.name: one.row.tool for one in compared}
    return [
        f"{name}, {work}: {told}."
        for name, tool in tools.items()
        for work, told in (("produce", tool.produce_is), ("consume", tool.consume_is))
    ]


def _ran_on(machine: Mapping[str, Any], record: Mapping[str, Any]) -> Sequence[str]:
    return [
        f"{machine['cores']} cores ({machine['cpu']}), {machine['memory_gb']} GB, {machine['os']}, "
        f"Linux {machine['kernel']}; all nodes, clients and disks on it",
        f"mqtest {record['mqtest_version']} under Python {machine['python']}; "
        + ", ".join(f"{name} {version}" for name, version in record["clients"].items()),
        "tools of " + ", ".join(f"{broker} {version}" for broker, version in record["tools"].items()),
        f"begun {record['started_utc']}",
    ]


def _how(one: Compared) -> str:
    """How a row was run: the cluster, our settings, the tool's command lines."""
    row, versions = one.row, one.facts.get("versions", {})
    ours = {key: value for table in ("producer", "consumer") for key, value in row.profile.settings[table].items()}
    told = [
        f"{row.about}: {row.profile.path} of version {versions.get('broker', 'unknown')}, {row.nodes} nodes, "
        f"one place, one producer, one consumer",
        f"{OURS}: {row.size_bytes} bytes, closed loop, at most {row.window} sends in flight, client "
        f"{row.profile.client}, " + ", ".join(f"{key} = {value}" for key, value in ours.items()),
    ]
    commands = [f"- the tool's {work}: {code(shlex.join(command))}" for work, command in one.commands.items()]
    return "\n".join([f"### {plain(row.name)}\n", bullets(told), *commands])


def _measured(figure: Figure | None) -> tuple[object, ...]:
    if figure is None:
        return ("", "", "", "", "")
    return (round(figure.messages), round(figure.seconds, 3), round(figure.rate_per_s, 1), *_cpus(figure))


def _cpus(seen: Figure | Spread) -> tuple[object, object]:
    return _rounded(seen.cpu_us), _rounded(seen.nodes_us)


def _rounded(value: float | None) -> object:
    return "" if value is None else round(value, 3)


def _rate(figure: Figure) -> str:
    return f"{figure.rate_per_s:,.0f}"


def _spread(seen: Spread | None) -> str:
    if seen is None:
        return "–"
    return f"{seen.median:,.0f} ({min(seen.rates_per_s):,.0f} to {max(seen.rates_per_s):,.0f})"


def _cpu(seen: Spread | None) -> str:
    if seen is None or seen.cpu_us is None:
        return "–"
    return f"{seen.cpu_us:.2f} + {'–' if seen.nodes_us is None else f'{seen.nodes_us:.2f}'} µs"
