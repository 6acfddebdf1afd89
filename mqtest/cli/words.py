"""What all commands print with: results to stdout, everything else to stderr."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console

if TYPE_CHECKING:
    from mqtest.report import RunReport

FOLDER = click.Path(path_type=Path)
"""an option or argument that is a folder or a file"""
only_option = click.option(
    "--only", multiple=True, metavar="GLOB", help="Only cells whose broker/profile/fault matches; repeatable."
)
_WIDTH_OF_NO_TERMINAL = 200


def show_report(folders: Sequence[Path], out: Path) -> RunReport:
    """Render, and print the table, the notes and where the files are."""
    from mqtest import report

    rendered = report.render(folders, out)
    console().print(rendered.table)
    if rendered.attached:
        click.echo(rendered.attached + "\n")
    for note in rendered.notes:
        click.echo(f"NOTE: {note}")
    if rendered.unfinished:
        first = ", ".join(rendered.unfinished[:3]) + (", …" if len(rendered.unfinished) > 3 else "")
        click.echo(f"not finished: {number(len(rendered.unfinished), 'planned cell')} ({first})")
    for path in rendered.files:
        click.echo(path)
    return rendered


def number(how_many: int, noun: str) -> str:
    """`no cells`, `1 cell`, `2 cells`."""
    return f"{how_many or 'no'} {noun}" + ("" if how_many == 1 else "s")


def console() -> Console:
    """The terminal, or something wide enough for a table."""
    plain = Console()
    return plain if plain.is_terminal else Console(width=_WIDTH_OF_NO_TERMINAL)


def say(text: str) -> None:
    """What goes on meanwhile."""
    click.echo(text, err=True)
