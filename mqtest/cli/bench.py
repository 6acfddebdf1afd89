"""`mqtest bench`: its options and what it prints. What it does is in mqtest/bench/."""

from __future__ import annotations

from pathlib import Path

import click

from mqtest.cli.words import FOLDER

UNFINISHED = 2


@click.command(short_help="Our verified load beside the brokers' own perf tools.")
@click.argument("rows", metavar="[ROW]...", nargs=-1)
@click.option("--list", "list_only", is_flag=True, help="Show the rows, and stop.")
@click.option("--runs", type=click.IntRange(min=1), default=5, show_default=True, help="Of each side.")
@click.option("--seconds", type=click.FloatRange(min=1), default=20.0, show_default=True, help="Measured, of each run.")
@click.option(
    "--warm-up", type=click.FloatRange(min=0), default=5.0, show_default=True, help="Seconds before them, of each run."
)
@click.option("--file", "path", type=FOLDER, help="Rows of your own. [default: those that ship]")
@click.option("--keep-ledgers", is_flag=True, help="Keep what every producer and consumer saw: some GB.")
@click.option("--results", type=FOLDER, default=Path("results"), show_default=True, help="Where the folder goes.")
@click.option("--plain", is_flag=True, help="Lines instead of the live screen, as in CI.")
def bench(
    rows: tuple[str, ...],
    list_only: bool,
    runs: int,
    seconds: float,
    warm_up: float,
    path: Path | None,
    keep_ledgers: bool,
    results: Path,
    plain: bool,
) -> int:
    """Measure our verified load beside the brokers' own perf tools: every row, or each ROW (a name or a glob).

    A row is one fresh cluster, on which mqtest and the tool run in turn, with the same settings. Every message of
    ours is judged, and a run of ours counts only when none was lost; the tools check nothing. The tools' image is
    built the first time. Ends with 2 when some run does not count.

    \b
    Examples:
      mqtest bench --list
      mqtest bench
      mqtest bench 'kafka-*' rabbitmq-quorum-1k --runs 3
    """
    from mqtest.bench import rows as benchmarks

    there = benchmarks.load(path or benchmarks.shipped())
    picked = benchmarks.chosen(there, rows)
    if list_only:
        width = max(len(row.name) for row in picked)
        for row in picked:
            click.echo(f"{row.name.ljust(width)}  {row.about}; beside {row.tool.name}")
        return 0
    from mqtest import live
    from mqtest.bench import alternation, table

    asked = benchmarks.Asked(runs=runs, seconds=seconds, warm_up_s=warm_up, keep_ledgers=keep_ledgers)
    run_dir, compared = alternation.run(picked, asked, results, live.watch(plain=plain))
    for line in table.summary(compared):
        click.echo(line)
    for name in ("bench.md", "bench.csv"):
        click.echo(run_dir / name)
    return 0 if table.whole(compared) else UNFINISHED
