"""`mqtest select`: its options and what it prints. What it does is in mqtest/select/."""

from __future__ import annotations

from pathlib import Path

import click

from mqtest.cli.words import FOLDER, console

_SCREEN = "screen"


@click.command(short_help="Which profiles meet your needs, by the cells that prove it.")
@click.argument("paths", metavar="[DIR|CSV]...", nargs=-1, type=FOLDER)
@click.option("--need", "needs", multiple=True, metavar="NEED", help="What has to hold; repeatable. See below.")
@click.option("--preset", metavar="NAME", help="Start from needs that ship: money, orders, … (--presets shows them).")
@click.option("--requirements", "path", type=FOLDER, metavar="FILE", help="A TOML file: needs, prefer, preset, cells.")
@click.option("--prefer", multiple=True, metavar="NAME", help="The order of those that qualify; repeatable.")
@click.option("--cells", type=click.IntRange(min=1), metavar="N", help="At least so many cells a need. [default: 1]")
@click.option(
    "--format",
    "form",
    type=click.Choice([_SCREEN, "markdown", "json", "csv"]),
    default=_SCREEN,
    show_default=True,
    help="The last three have every cell; json and csv every need.",
)
@click.option("--presets", is_flag=True, help="Show presets, words, figures and preferences, and stop.")
def select(
    paths: tuple[Path, ...],
    needs: tuple[str, ...],
    preset: str | None,
    path: Path | None,
    prefer: tuple[str, ...],
    cells: int | None,
    form: str,
    presets: bool,
) -> int:
    """Say which profiles meet your needs, by the cells of runs: folders, or their results.csv.

    Only what was measured counts, never what a profile promises. For each profile that qualifies come the cells that
    prove it (k of n, with a bound); for each that does not, the first need that it missed, and by how much; where no
    cell speaks, "not measured". The most important need comes first.

    \b
    A NEED is a figure of results.csv with a comparison, or a word, and where it has to hold:
      lost == 0                              in every cell, whatever the fault
      lost == 0 under power-cut:all          (or: power-cut all; power-cut alone is any target; * is a pattern)
      latency_ms_p99 < 50 at 2000/s          cells at that rate or a higher one prove it, a lower one does not
      ordered, replay, no duplicates, …      words; replay of 7 days also says what no cell can prove

    \b
    Examples:
      mqtest select results/RUN --need 'lost == 0 under power-cut all' --need ordered --need replay
      mqtest select results/RUN --preset money --prefer latency
      mqtest select results/ONE results/TWO --requirements requirements.toml --format markdown > decision.md
      mqtest select results/reference/results.csv --need 'lost == 0' --cells 3
      mqtest select --presets

    \b
    Exit codes: 0 some profile qualifies, 1 none does: each missed a need, 2 none does, and for some or all
    it could not be told (not measured), 64 bad usage.
    """
    from mqtest import select as selecting
    from mqtest.select import requirements

    if presets:
        _show_presets()
        return 0
    if not paths:
        raise click.UsageError("name at least one run folder or results.csv")
    asked = requirements.asked(needs, prefer, cells)
    for base in (*([requirements.load(path)] if path else ()), *([requirements.preset(preset)] if preset else ())):
        asked = asked.over(base)
    from mqtest.faults import FAULTS
    from mqtest.targets import TARGETS

    selection = selecting.select(asked, selecting.read(paths), FAULTS, TARGETS)
    if form == _SCREEN:
        from mqtest.select.screen import screen

        terminal = console()
        terminal.print(screen(selection, terminal.width))
    else:
        from mqtest.select.texts import FORMATS

        click.echo(FORMATS[form](selection), nl=False)
    return selection.exit_code


def _show_presets() -> None:
    from mqtest.select.needs import FIGURES
    from mqtest.select.ranking import PREFERENCES
    from mqtest.select.requirements import presets
    from mqtest.select.words import WORDS

    click.echo("presets (--preset)")
    for name, about, asked in presets():
        click.echo(f"  {name}: {about}")
        for need in asked.needs:
            click.echo(f"      {need}")
        click.echo(f"      prefer {', '.join(asked.prefer)}")
    for what, entries in (
        ("words of needs", [(name, word.about) for name, word in WORDS.items()]),
        ("preferences (--prefer)", [(name, preference.about) for name, preference in PREFERENCES.items()]),
    ):
        width = max(len(name) for name, _ in entries)
        click.echo(f"\n{what}")
        for name, about in entries:
            click.echo(f"  {name.ljust(width)}  {about}")
    click.echo("\nfigures of needs, the columns of results.csv")
    click.echo(click.wrap_text(", ".join(FIGURES), width=100, initial_indent="  ", subsequent_indent="  "))
