"""`mqtest list`, `schema`, `doctor`, `calibrate`, `up`, `down`, `clean`: what there is, and what is left behind."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import click

from mqtest.cli.words import FOLDER, console, say


@click.command("list", short_help="Show what there is to choose from.")
def list_command() -> int:
    """Show brokers, clients, profiles, faults, targets, checks and shipped scenarios."""
    from mqtest import inventory

    for number, (what, entries) in enumerate(inventory.sections()):
        click.echo(("\n" if number else "") + what)
        width = max((len(name) for name, _ in entries), default=0)
        for name, about in entries:
            click.echo(f"  {name.ljust(width)}  {about}".rstrip())
    return 0


@click.command(short_help="Print the JSON Schema of a scenario, for editors.")
def schema() -> int:
    """Print the JSON Schema of a scenario file: an editor that knows it completes keys, profiles and faults, says what
    each key means, and marks a misspelt one while it is typed.

    \b
    Write it beside your scenarios:
      mqtest schema > scenario.schema.json
    and let each of them begin with this line:
      #:schema ./scenario.schema.json

    That line is read by taplo, and so by VS Code's "Even Better TOML" and by every editor that has taplo as its
    language server. `taplo check mine.toml` goes by it as well. What depends on more than one key only mqtest itself
    can tell: `mqtest run mine.toml --dry-run` does, without running anything.
    """
    import json

    from mqtest.schema import scenario_schema

    click.echo(json.dumps(scenario_schema(), indent=2, ensure_ascii=False))
    return 0


@click.command(short_help="Show what this machine can do.")
@click.option("--power-cut", is_flag=True, help="Also prove the power cut, on disks of its own; takes some seconds.")
def doctor(power_cut: bool) -> int:
    """Show what this machine can do, what each capability is for, and what is lost without it."""
    from mqtest import doctor as examiner

    console().print(examiner.render(examiner.examine(power_cut=power_cut, progress=say)))
    return 0


@click.command(short_help="Measure the noise floor of this machine.")
@click.option(
    "--rate", "rates", multiple=True, type=click.FloatRange(min=1), metavar="N", help="Messages per s; repeatable."
)
@click.option("--results", type=FOLDER, default=Path("results"), show_default=True, help="Where the runs are.")
def calibrate(rates: tuple[float, ...], results: Path) -> int:
    """Measure what our own load makes of a broker that costs nothing, and keep it for the reports of runs to come.

    Without --rate: at the rates of the scenarios that ship, some seconds each. What lies below the noise floor is
    mqtest's and this machine's, not a broker's.
    """
    from mqtest import noise_floor
    from mqtest.report.noise import floor_table

    console().print(floor_table(noise_floor.calibrate(rates, results, say)))
    click.echo(results / noise_floor.FILE)
    return 0


@click.command(short_help="Leave a cluster running to play with.")
@click.argument("profile", metavar="BROKER/PROFILE")
@click.option("--nodes", type=click.IntRange(min=1), default=3, show_default=True, help="Nodes of the cluster.")
def up(profile: str, nodes: int) -> int:
    """Leave a cluster of BROKER/PROFILE running to play with, and print its addresses.

    \b
    Example:
      mqtest up kafka/acks-all --nodes 1
    """
    from mqtest import runner
    from mqtest.profile import find_profile

    cluster = runner.up(find_profile(profile), nodes, say)
    width = max(len(node.name) for node in cluster)
    for node in cluster:
        click.echo(f"{node.name.ljust(width)}  {node.address}  {node.role}")
    say("it runs until `mqtest down`")
    return 0


@click.command(short_help="Remove everything of mqtest's that is left.")
@click.option("--all", "all_runs", is_flag=True, help="Also what belongs to runs that are still going on.")
def down(all_runs: bool) -> int:
    """Remove everything of mqtest's that is left: containers, networks, volumes, disks, routes, processes.

    Runs that are still going on are spared, unless --all is given. Results stay; see `mqtest clean`.
    """
    from mqtest.cluster import leftovers

    click.echo(f"removed {leftovers.clean(all_runs=all_runs, progress=say)}")
    return 0


@click.command()
@click.option("--results", type=FOLDER, default=Path("results"), show_default=True, help="Where the runs are.")
@click.option("--keep", type=click.IntRange(min=0), metavar="N", help="Remove all but the newest N runs.")
@click.option("--older-than", type=click.FloatRange(min=0), metavar="DAYS", help="Remove runs older than DAYS.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def clean(results: Path, keep: int | None, older_than: float | None, yes: bool) -> int:
    """Remove the folders of old runs; asks first.

    A run that goes on is spared, and so is a folder that was given another name than its run has.

    \b
    Examples:
      mqtest clean --keep 5
      mqtest clean --older-than 30 --yes
    """
    from mqtest import prune
    from mqtest.cluster.locks import live_runs

    if (keep is None) == (older_than is None):
        raise click.UsageError("give either --keep N or --older-than DAYS")
    found = prune.runs(results, live_runs())
    old = (
        prune.all_but(found, keep) if keep is not None else prune.older_than(found, older_than or 0, datetime.now(UTC))
    )
    if not old:
        click.echo(f"nothing to remove among {len(found)} runs in {results}")
        return 0
    for entry in old:
        click.echo(f"{entry.folder}  {entry.size_mb:,.0f} MB")
    if not yes and not click.confirm(f"remove these {len(old)} of {len(found)} runs?"):
        click.echo("nothing removed")
        return 0
    for entry in old:
        prune.remove(entry)
    click.echo(f"removed {len(old)} of {len(found)} runs")
    return 0
