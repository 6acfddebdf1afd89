"""`mqtest compare`: two runs held against each other. What that means is in mqtest/report/compare.py."""

from __future__ import annotations

from pathlib import Path

import click

from mqtest.cli.words import FOLDER, only_option


@click.command(short_help="Hold a run against an older one; exit 1 when something got worse.")
@click.argument("old", metavar="OLD", type=FOLDER)
@click.argument("new", metavar="NEW...", nargs=-1, required=True, type=FOLDER)
@only_option
@click.option(
    "--format",
    "form",
    type=click.Choice(("text", "markdown", "json")),
    default="text",
    show_default=True,
    help="Of what is written.",
)
@click.option("--output", type=FOLDER, metavar="FILE", help="Write it there; stdout gets the lines as text.")
@click.option("--allow-differences", is_flag=True, help="Tell versions and settings that differ, and no more.")
@click.option("--ledgers", type=FOLDER, metavar="DIR", help="Copy the cells of NEW that got worse or failed there.")
def compare(
    old: Path,
    new: tuple[Path, ...],
    only: tuple[str, ...],
    form: str,
    output: Path | None,
    allow_differences: bool,
    ledgers: Path | None,
) -> int:
    """Hold the run NEW against OLD: a line for each anomaly class that is new, verdict that got worse, unavailability
    or p99 that is worse beyond the noise of the repeats, and version or setting that differs.

    Each is a run's folder, which is judged anew, or a results.csv; several NEW are shards of one run. Groups of one
    profile and fault are compared, all their repeats together. What got better, and what proves nothing, is told too.
    Exit codes: 0 nothing is worse, 1 something is worse or differs, 2 not everything could be compared: something that
    OLD proved is missing in NEW or proves nothing there, say. To compare a part on purpose, name it with --only.

    \b
    Examples:
      mqtest compare results/reference results/20260101T120000Z-durability
      mqtest compare last.csv results/shard-1 results/shard-2 --format markdown --output summary.md
      mqtest compare results/reference results/20260102T120000Z-durability --only 'kafka/*/kill:leader'
    """
    from mqtest.report import compare as comparing
    from mqtest.report.collect import keep, write
    from mqtest.report.compare_text import FORMATS, plain_text

    before, after = comparing.read([old]), comparing.read(new)
    if only:
        before, after = comparing.narrowed(before, after, only)
    compared = comparing.compare(before, after, allow_differences=allow_differences)
    text = FORMATS[form](compared)
    if output is None:
        click.echo(text, nl=False)
    else:
        write(output, text)
        click.echo(plain_text(compared), nl=False)
    if ledgers is not None:
        for folder in keep(comparing.failing(compared, after), ledgers):
            click.echo(folder, err=True)
    return compared.exit_code
