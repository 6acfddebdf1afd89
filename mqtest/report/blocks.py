"""The pieces of Markdown that report.md is put together from. Names and reasons come from files and brokers, so every
text is one line that Markdown cannot take for HTML; a list is cut at MOST lines, and says how many it leaves out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

MOST = 200
"""lines of any one list or table"""
MOST_BYTES = 900_000
"""of one file: a job summary takes 1 MB"""


def plain(text: object) -> str:
    """One line that Markdown cannot take for HTML."""
    return " ".join(str(text).split()).replace("<", "&lt;")


def code(text: object) -> str:
    """As it is typed; what is inside cannot end it."""
    return f"`{' '.join(str(text).split()).replace('`', chr(39))}`"


def table(headers: Sequence[str], rows: Iterable[Sequence[str]], *, numbers_from: int | None = None) -> str:
    """A table; columns from `numbers_from` on are aligned to the right."""
    every = list(rows)
    left = len(headers) if numbers_from is None else numbers_from
    lines = [_row(headers), "|" + "---|" * left + "---:|" * (len(headers) - left)]
    lines += [_row(row) for row in every[:MOST]]
    if len(every) > MOST:
        lines.append(f"\n({len(every) - MOST} more in results.csv)")
    return "\n".join(lines)


def bullets(lines: Sequence[str], none: str = "") -> str:
    """One line each; `none` where there is none."""
    shown = [f"- {plain(line)}" for line in lines[:MOST]]
    if len(lines) > MOST:
        shown.append(f"- and {len(lines) - MOST} more")
    return "\n".join(shown) or none


def section(title: str, *parts: str) -> str:
    """A heading and what stands under it; nothing where nothing does."""
    body = [part for part in parts if part]
    return "\n\n".join([title, *body]) if body else ""


def cut(text: str, rest: str) -> str:
    """The text, ended at MOST_BYTES with a line that says where the rest is."""
    whole = text.encode()
    if len(whole) <= MOST_BYTES:
        return text
    return whole[:MOST_BYTES].decode(errors="ignore") + f"\n\n(cut here: the rest is in {rest})\n"


def _row(texts: Sequence[str]) -> str:
    return "| " + " | ".join(plain(text).replace("|", "\\|") for text in texts) + " |"
