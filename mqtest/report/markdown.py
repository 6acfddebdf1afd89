"""report.md: the question, the answer in words, the table, how to read it, what was not proven, what it ran on.

Everything said is made from the rows of this run. Names and reasons come from files and brokers, so they are
escaped. The text stays under 1 MB whatever the run's size: long lists are cut, and say how much they leave out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mqtest.model import Verdict
from mqtest.report.collect import Collected, JudgedCell
from mqtest.report.summary import (
    HEADERS,
    Group,
    cost,
    count,
    figures,
    groups,
    loss,
    loss_words,
    measured,
    profile_of,
    teeth,
    verdict_of,
    verdict_words,
)

_MOST = 200
"""lines of any one list"""
_MOST_EXAMPLES = 5
_MOST_BYTES = 900_000

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
- **dead**: disks, network and engine were whole, yet the cluster did not come back whole in time: nodes ended, none leads, or a replica stays out of sync.
- **unknown**: the broker could not be read to its end, or mqtest failed; nothing is said about loss. **invalid**: the fault did not bite, or too little was acknowledged to tell.
- **lost / acked**: acknowledged messages that a complete read of the broker after its recovery did not find. **read, then lost**: of these, the ones that a consumer had already been given.
- **cells that lost**: k of n repeats. Where 0 of n lost, the share of such cells that lose is at most 3/n, with 95 % confidence (rule of three): one clean cell bounds nothing.
- **duplicates**: *stored twice* at two positions of a log; *redelivered* by the broker and flagged so (or a position of a log read again); *unflagged* ones are second copies.
- **longest ack gap**: the longest time without any acknowledgement. **first ack after fault**: from the fault to the first acknowledgement of a message sent after it.
- **acked per s, p50 / p99**: steady phase before the fault; latency counts from the time at which a message was due, not from when it could be sent.
- Over repeats a figure is the median, with the worst in parentheses. A dash means not measured, never 0."""  # noqa: E501 - prose


def markdown_text(collected: Collected, mqtest_version: str) -> str:
    """The whole file."""
    all_groups = groups(collected.rows)
    scenario = _scenario(collected)
    sections = [
        f"# {_plain(str(scenario.get('title', 'Report')))}",
        f"> {_plain(str(scenario.get('question', '')))}" if scenario.get("question") else "",
        *(f"> **Note.** {_plain(note)}" for note in teeth(all_groups, must_lose(collected))),
        _tally(collected),
        "## The answer\n\n" + _answer(all_groups),
        "### What it costs, in the steady phase\n\n" + _bullets(cost(collected.rows), "no figures"),
        "## The table\n\n" + _matrix(all_groups) + _table(HEADERS, [figures(group) for group in all_groups]),
        "How to read it:\n\n" + _HOW_TO_READ,
        "## What was not proven\n\n" + _not_proven(collected),
        _findings(collected.cells),
        "## What it ran on\n\n" + _ran_on(collected, mqtest_version),
        "## Settings\n\n" + _settings(collected.cells),
    ]
    text = "\n\n".join(section for section in sections if section) + "\n"
    whole = text.encode()
    if len(whole) > _MOST_BYTES:
        text = whole[:_MOST_BYTES].decode(errors="ignore") + "\n\n(cut here: the rest is in results.csv)\n"
    return text


def must_lose(collected: Collected) -> tuple[str, ...]:
    """The faults under which some profile must lose, by the scenarios of these runs."""
    return tuple(dict.fromkeys(str(f) for run in collected.runs for f in run.get("scenario", {}).get("must_lose", ())))


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
        heading = "Without a fault:" if fault == "none" else f"Under `{_plain(fault)}`:"
        paragraphs.append(heading + "\n\n" + "\n".join(lines))
    return "\n\n".join(paragraphs) or "No cell finished, so there is none."


def _clause(group: Group) -> str:
    text = f"{_plain(group.profile)} {loss_words(group)}"
    for key, words in (("read_then_lost", "already read by a consumer"), ("lost_degraded", "not fully acknowledged")):
        worst = max((measured(row, key) or 0 for row in group.rows), default=0)
        if worst:
            link = "of which up to" if key == "read_then_lost" else "and lost besides, up to"
            text += f", {link} {count(worst)} {words}"
    reasons = [str(row["reason"]) for row in group.rows if verdict_of(row) is group.verdict and row.get("reason")]
    if group.verdict not in (Verdict.KEPT, Verdict.LOST_AS_DOCUMENTED) and reasons:
        text += f" ({_plain(reasons[0])})"
    return text


def _matrix(all_groups: Sequence[Group]) -> str:
    """Profiles down, faults across, where there are several faults; else nothing."""
    faults = list(dict.fromkeys(group.fault for group in all_groups))
    if len(faults) < 2:
        return ""
    at = {(group.profile, group.fault): group for group in all_groups}
    rows = [
        [profile, *(_in_short(at.get((profile, fault))) for fault in faults)]
        for profile in dict.fromkeys(group.profile for group in all_groups)
    ]
    return _table(["profile", *faults], rows) + "\n\nEach of them in full:\n\n"


def _in_short(group: Group | None) -> str:
    if group is None:
        return ""
    worst = max((loss(row) or 0 for row in group.proven), default=0)
    return f"{verdict_words(group)}: {count(worst)}" if worst else verdict_words(group)


def _not_proven(collected: Collected) -> str:
    lines = [
        f"`{cell.id}` is {cell.verdict}: {cell.reason}"
        for cell in collected.cells
        if cell.verdict in (Verdict.UNKNOWN, Verdict.INVALID)
    ]
    lines += [f"`{cell}` was planned and did not finish" for cell in collected.unfinished]
    if collected.cells and not any(row["fault"] == "none" for row in collected.rows):
        lines.append("there is no control cell without a fault among these cells")
    repeats = [len(group.proven) for group in groups(collected.rows)]
    if repeats and max(repeats) <= 3:
        lines.append(
            "no profile and fault has more than three cells that prove something, so that a clean one says what can "
            "happen, not how often it does"
        )
    lines.append("all nodes shared one host: figures compare profiles with each other, not with other hardware")
    return _bullets(lines, "")


def _findings(cells: Sequence[JudgedCell]) -> str:
    """Examples behind the broken and dead cells; nothing when there are none."""
    parts = []
    for cell in [c for c in cells if c.verdict in (Verdict.BROKEN, Verdict.DEAD)][:_MOST]:
        lines = [f"{finding.check}: {count(finding.count)}" for finding in cell.findings if finding.count]
        lines += [example for finding in cell.findings for example in finding.examples[:_MOST_EXAMPLES]]
        parts.append(f"`{cell.id}`: {_plain(cell.reason)}\n\n{_bullets(lines, 'no examples')}")
    return "## What broke\n\n" + "\n\n".join(parts) if parts else ""


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
    return _bullets(lines, "")


def _settings(cells: Sequence[JudgedCell]) -> str:
    """What each profile asked for, and what the broker said was in force; all of it is in results.csv."""
    rows: dict[tuple[str, str, str, str], None] = {}
    for cell in cells:
        effective = cell.facts.get("effective") or {}
        for table, keys in (cell.facts.get("settings") or {}).items():
            for key, value in (keys if isinstance(keys, Mapping) else {}).items():
                name = f"{table}.{key}"
                asked = str(value).lower() if isinstance(value, bool) else str(value)
                rows[profile_of(cell.row), name, asked, str(effective.get(name, ""))] = None
    shown = list(rows)[: _MOST * 5]
    more = f"\n\n({len(rows) - len(shown)} more in results.csv)" if len(rows) > len(shown) else ""
    return _table(("profile", "setting", "asked", "read back from the broker"), shown) + more


def _distinct(pairs: Iterable[tuple[object, str]]) -> list[tuple[object, str]]:
    return [pair for pair in dict.fromkeys(pairs) if pair[1]]


def _flat(value: object) -> str:
    """`a 1, b 2` of a mapping, without what is empty."""
    if not isinstance(value, Mapping):
        return "" if value is None else str(value)
    return ", ".join(f"{key} {text}" for key, inner in value.items() if (text := _flat(inner)))


def _table(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [_row(headers), "|" + "---|" * len(headers)]
    lines += [_row(row) for row in rows]
    return "\n".join(lines)


def _row(texts: Sequence[str]) -> str:
    return "| " + " | ".join(_plain(text).replace("|", "\\|") for text in texts) + " |"


def _bullets(lines: Sequence[str], none: str) -> str:
    shown = [f"- {_plain(line)}" for line in lines[:_MOST]]
    if len(lines) > _MOST:
        shown.append(f"- and {len(lines) - _MOST} more")
    return "\n".join(shown) or none


def _plain(text: str) -> str:
    """One line that Markdown cannot take for HTML."""
    return " ".join(text.split()).replace("<", "&lt;")
