"""README.md and docs/ as a person reads them: the commands in their code blocks, files to write, links, headings."""

from __future__ import annotations

import contextlib
import io
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

from mqtest.cli import main

ROOT = Path(__file__).resolve().parent.parent
README, TUTORIAL = ROOT / "README.md", ROOT / "docs" / "tutorial.md"
PAGES = (README, *sorted((ROOT / "docs").glob("*.md")))

_BLOCK = re.compile(r"(?:^`([\w.-]+)`:\n\n)?^```(\w*)\n(.*?)^```", re.M | re.S)
_COMMANDS = ("mqtest ", "make ")


def steps(page: Path) -> Iterator[tuple[str, str]]:
    """What the page has its reader do, in order: (name, text) of a file to write, ("", command) to run.

    A command is a line of a plain code block, without its explanation. A file is a block of any kind below its name.
    """
    for name, language, text in _BLOCK.findall(page.read_text(encoding="utf-8")):
        if name:
            yield name, text
        for line in [] if language else text.splitlines():
            if line.startswith(_COMMANDS):
                yield "", re.split(r"  +|  *#", line)[0].strip()


def commands(page: Path) -> list[str]:
    """Those of one page, in order."""
    return [text for name, text in steps(page) if not name]


def run(command: str, code: int = 0) -> str:
    """What the command says on stdout, or writes into the file after `>`; it must end with this code."""
    words, _, file = command.partition(" > ")
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        ended = main(shlex.split(words)[1:])
    assert ended == code, f"{command}: {out.getvalue()[-500:]} {err.getvalue()[-500:]}"
    assert out.getvalue().strip(), f"{command} says something"
    if file:
        Path(file).write_text(out.getvalue(), encoding="utf-8")
    return out.getvalue()


def links(page: Path) -> list[str]:
    """Links of the page to other files of the tree and to headings."""
    return [at for at in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")) if "://" not in at]


def headings(page: Path) -> set[str]:
    """As links name them: lower case, words joined by dashes."""
    found = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.M)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in found}
