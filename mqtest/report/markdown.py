"""report.md: the question, the surprises, the answer in words, the tables, what was not proven, what it ran on.

Everything said is made from the rows, findings and timelines of this run. The text stays under 1 MB whatever the run's
size: long lists are cut, and say how much they leave out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mqtest.fault_log import NO_FAULT
from mqtest.model import Verdict
from mqtest.report.blocks import bullets, code, cut, plain, section, table
from mqtest.report.collect import Collected
from mqtest.report.limits import limits_text
from mqtest.report.matrix import controls_text, matrix_text
from mqtest.report.noise import floor_text
from mqtest.report.replays import replays_text
from mqtest.report.safety import safety_text
from mqtest.report.settings import settings_text
from mqtest.report.summary import (
    HEADERS,
    PROVE_NOTHING,
    Group,
    cost,
    count,
    figures,
    groups,
    loss_words,
    measured,
    verdict_of,
)
from mqtest.report.surprises import surprises_text
from mqtest.report.throughput import throughput_text
from mqtest.report.unavailable import timelines_text, unavailable_text

_ANSWERS = (
    (Verdict.KEPT, "Kept"),
    (Verdict.LOST_AS_DOCUMENTED, "Lost, as documented"),
    (Verdict.BROKEN, "Broke the promise"),
    (Verdict.DEAD, "Did not come back"),
    (Verdict.UNKNOWN, "Not known"),
    (Verdict.INVALID, "Not a valid test"),
)

_HOW_TO_READ = """\
- **kept**: every message that the broker acknowledged was there afterwards, and duplicates and order were within the profile's promise.
- **lost-as-documented**: acknowledged messages are gone, under a fault that the profile's promise does not cover.
- **broken**: acknowledged messages are gone, or doubled, or out of order, where the promise says otherwise; or something was read that cannot be.
- **dead**: disks, network and engine were whole, yet the cluster did not come back whole in time: nodes ended, none leads, or a replica stays out of sync. Every node is then restarted, and what was lost is judged where that helps.
- **unknown**: the broker could not be read to its end, or mqtest failed; nothing is said about loss. **invalid**: the fault did not bite, too little was acknowledged to tell, or the cell is there to measure latency and our own load was too late for that.
- **lost / acked**: acknowledged messages that a complete read of the broker after its recovery did not find. **read, then lost**: of these, the ones that a consumer had already been given. **outputs**: of a pipeline: what it had to write and did not.
- **cells that lost**: k of n repeats. Where 0 of n lost, the share of such cells that lose is at most 3/n, with 95 % confidence (rule of three): one clean cell bounds nothing.
- **duplicates**: *stored twice* at two positions of a log; *redelivered* by the broker and flagged so (or a position of a log read again); *unflagged* ones are second copies.
- **longest ack gap**: the longest time without any acknowledgement. **first ack after fault**: from the fault to the first acknowledgement of a message sent after it.
- **acked per s, p50 / p99**: steady phase before the fault; latency counts from the time at which a message was due, not from when it could be sent.
- **pacing lag**: how long after its due time our own load noticed a message, p99: the part of a response time that is ours. Where it is more than a fifth of the p99 of a latency, that latency is refused, and a dash stands in its place.
- Over repeats a figure is the median, with the worst in parentheses. A dash means not measured, never 0."""  # noqa: E501 - prose


def markdown_text(collected: Collected, mqtest_version: str, pictures: Sequence[str] = ()) -> str:
    """The whole file; `pictures`: the files of these that lie beside it."""
    all_groups = groups(collected.rows)
    scenario = _scenario(collected)
    floor = floor_text(collected)
    sections = [
        f"# {plain(scenario.get('title', 'Report'))}",
        f"> {plain(scenario.get('question', ''))}" if scenario.get("question") else "",
        _tally(collected),
        surprises_text(collected),
        "## The answer\n\n" + _answer(all_groups),
        section("### What it costs, in the steady phase", bullets(cost(collected.rows)), floor),
        section("### Who was the limit, in the steady phase", limits_text(collected.cells)),
        section(
            "## Verdicts",
            _picture(pictures, "matrix.svg", "the verdicts of the tables below"),
            matrix_text(all_groups),
            controls_text(collected, all_groups),
        ),
        throughput_text(collected.cells, floor),
        replays_text(collected.cells),
        safety_text(collected.cells),
        _picture(
            pictures, "frontier.svg", "the strongest failure that each profile survived, against throughput and p99"
        ),
        unavailable_text(collected.cells, floor),
        "## The table\n\n" + table(HEADERS, [figures(group) for group in all_groups]),
        floor,
        "How to read it:\n\n" + _HOW_TO_READ,
        timelines_text(collected.cells),
        "## What was not proven\n\n" + _not_proven(collected),
        "## What it ran on\n\n" + _ran_on(collected, mqtest_version),
        section("## Settings", settings_text(collected.cells)),
    ]
    return cut("\n\n".join(part for part in sections if part) + "\n", "results.csv")


def _picture(pictures: Sequence[str], name: str, words: str) -> str:
    return f"![{words}]({name})" if name in pictures else ""


def _scenario(collected: Collected) -> Mapping[str, Any]:
    return next((run["scenario"] for run in collected.runs if run.get("scenario")), {})


def _tally(collected: Collected) -> str:
    verdicts = [verdict_of(row) for row in collected.rows]
    parts = [f"{verdicts.count(v)} {v}" for v, _ in _ANSWERS if v in verdicts]
    if collected.unfinished:
        parts.append(f"{len(collected.unfinished)} planned and not finished")
    cells = "1 cell" if len(verdicts) == 1 else f"{len(verdicts)} cells"
    return f"{cells}: {', '.join(parts)}." if parts else "No cell finished."


def _answer(all_groups: Sequence[Group]) -> str:
    paragraphs = []
    for fault in dict.fromkeys(group.fault for group in all_groups):
        under = [group for group in all_groups if group.fault == fault]
        lines = []
        for verdict, words in _ANSWERS:
            those = [group for group in under if group.verdict is verdict]
            if those:
                lines.append(f"- **{words}**: " + "; ".join(_clause(group) for group in those) + ".")
        heading = "Without a fault:" if fault == NO_FAULT else f"Under {code(fault)}:"
        paragraphs.append(heading + "\n\n" + "\n".join(lines))
    return "\n\n".join(paragraphs) or "No cell finished, so there is none."


def _clause(group: Group) -> str:
    text = f"{plain(group.profile)} {loss_words(group)}"
    for key, words in (("read_then_lost", "already read by a consumer"), ("lost_degraded", "not fully acknowledged")):
        worst = max((measured(row, key) or 0 for row in group.rows), default=0)
        if worst:
            link = "of which up to" if key == "read_then_lost" else "and lost besides, up to"
            text += f", {link} {count(worst)} {words}"
    if missing := max((measured(row, "replay_missing") or 0 for row in group.rows), default=0):
        text += f", and up to {count(missing)} are not in the replay"
    reasons = [str(row["reason"]) for row in group.rows if verdict_of(row) is group.verdict and row.get("reason")]
    if group.verdict not in (Verdict.KEPT, Verdict.LOST_AS_DOCUMENTED) and reasons:
        text += f" ({plain(reasons[0])})"
    return text


def _not_proven(collected: Collected) -> str:
    lines = [
        f"`{cell.id}` is {cell.verdict}: {cell.reason}"
        for cell in collected.cells
        if cell.verdict in PROVE_NOTHING
    ]
    lines += [f"`{cell}` was planned and did not finish" for cell in collected.unfinished]
    lines += [
        f"`{cell.id}`: {note}"
        for cell in collected.cells
        for finding in cell.findings
        if finding.check == "latency"
        for note in finding.notes
        if note not in cell.reason
    ]
    theirs = any("attached" in cell.facts for cell in collected.cells)
    if collected.cells and not theirs and not any(row["fault"] == NO_FAULT for row in collected.rows):
        lines.append("there is no control cell without a fault among these cells")
    repeats = [len(group.proven) for group in groups(collected.rows)]
    if repeats and max(repeats) <= 3:
        lines.append(
            "no profile and fault has more than three cells that prove something, so that a clean one says what can "
            "happen, not how often it does"
        )
    lines.append(
        "latencies hold the way from this host to that cluster"
        if theirs
        else "all nodes shared one host: figures compare profiles with each other, not with other hardware"
    )
    return bullets(lines, "")


def _ran_on(collected: Collected, mqtest_version: str) -> str:
    lines = [f"judged and rendered by mqtest {mqtest_version}"]
    for run in collected.runs:
        by = f", run by mqtest {run['mqtest_version']}" if "mqtest_version" in run else ""
        scenario = run.get("scenario", {}).get("path")
        facts = [f"run `{run.get('run')}`{by}"]
        facts += [f"scenario `{scenario}`"] if scenario else []
        facts += [f"{key} {run[key]}" for key in ("seed", "started_utc") if key in run]
        lines.append(", ".join(facts))
    for broker, value in _distinct((c.row.get("broker"), _flat(c.facts.get("versions"))) for c in collected.cells):
        lines.append(f"{broker}: versions {value}")
    for broker, value in _distinct((c.row.get("broker"), _flat(c.facts.get("image"))) for c in collected.cells):
        lines.append(f"{broker}: image {value}")
    hosts = [_flat(run.get("host")) for run in collected.runs] + [_flat(c.facts.get("host")) for c in collected.cells]
    lines += [f"host: {host}" for host in dict.fromkeys(hosts) if host]
    return bullets(lines, "")


def _distinct(pairs: Iterable[tuple[object, str]]) -> list[tuple[object, str]]:
    return [pair for pair in dict.fromkeys(pairs) if pair[1]]


def _flat(value: object) -> str:
    """`a 1, b 2` of a mapping, without what is empty."""
    if not isinstance(value, Mapping):
        return "" if value is None else str(value)
    return ", ".join(f"{key} {text}" for key, inner in value.items() if (text := _flat(inner)))
