"""`mqtest run`, `check` and `report`: a run, and its folder judged and rendered again."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from mqtest.cli.words import FOLDER, number, only_option, say, show_report

if TYPE_CHECKING:
    from mqtest.plan import Plan


def _shard(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    first, _, last = text.partition("/")
    if not (first.isdecimal() and last.isdecimal() and 1 <= int(first) <= int(last)):
        raise click.BadParameter(f"{text!r} is not I/N with 1 <= I <= N, such as 2/4", param_hint="--shard")
    return int(first), int(last)


@click.command(short_help="Run a scenario.")
@click.argument("scenario")
@only_option
@click.option("--repeat", type=click.IntRange(min=1), metavar="N", help="Repeat each cell N times.")
@click.option("--seed", type=int, metavar="N", help="Seed of the run, instead of the scenario's.")
@click.option("--resume", type=FOLDER, metavar="RUN_DIR", help="Finish a stopped run; finished cells stay.")
@click.option(
    "--set",
    "assign",
    multiple=True,
    metavar="KEY=VALUE",
    help="Another value of the scenario or a setting; repeatable.",
)
@click.option("--dry-run", is_flag=True, help="Show the plan, with the timeline of each schedule, and stop.")
@click.option(
    "--shard", metavar="I/N", callback=lambda _c, _p, value: _shard(value), help="Every N-th cell from the I-th."
)
@click.option(
    "--ray", metavar="ADDRESS", help="Spread the cells over the hosts of a Ray cluster: HOST:PORT of its head, or auto."
)
@click.option("--keep", is_flag=True, help="Leave the cluster of a failed cell up, to look at it.")
@click.option("--results", type=FOLDER, default=Path("results"), show_default=True, help="Where the run's folder goes.")
@click.option("--plain", is_flag=True, help="Lines instead of the live screen, as in CI.")
@click.pass_context
def run(
    context: click.Context,
    scenario: str,
    only: tuple[str, ...],
    repeat: int | None,
    seed: int | None,
    resume: Path | None,
    assign: tuple[str, ...],
    dry_run: bool,
    shard: tuple[int, int] | None,
    ray: str | None,
    keep: bool,
    results: Path,
    plain: bool,
) -> int:
    """Run SCENARIO: a file, or the name of a shipped scenario (`mqtest list`).

    Each cell is brought up fresh, loaded, broken, healed, read to the end and taken down. Ctrl-C heals and cleans up;
    the cells that finished are in the report, and --resume does the rest.

    \b
    Examples:
      mqtest run first-look
      mqtest run durability --only 'kafka/*/power-cut:*' --repeat 3
      mqtest run chaos --set schedule.chaos.lasts_s=1800
      mqtest run my/scenario.toml --dry-run
      mqtest run durability --shard 2/4        the second of four machines; merge with `mqtest report`
      mqtest run durability --ray auto         on all hosts of the Ray cluster that this machine is a node of
    """
    if keep and ray is not None:
        raise click.UsageError("--keep leaves a cluster up on this machine: it does not go with --ray")
    from mqtest import plan
    from mqtest import resume as resuming
    from mqtest import scenario as scenarios

    loaded = scenarios.load(scenarios.locate(scenario), scenarios.assigned(assign))
    if resume is not None:
        seed = resuming.seed_of(resume) if seed is None else seed
    planned = plan.plan(loaded, only=only, repeat=repeat, seed=seed, shard=shard)
    if resume is not None:
        resuming.refuse_another_plan(resume, loaded, [cell.id for cell in planned.cells])
    if dry_run:
        _show_plan(loaded.title, planned)
        return 0
    from mqtest import live, runner

    say(f"{loaded.title}: {loaded.question} (seed {planned.seed})")
    watch = live.watch(plain=plain)
    try:
        run_dir = runner.run(loaded, planned, results, keep=keep, ray=ray, resume=resume, watch=watch)
    except BaseException as error:  # whatever ended it: the cells that finished are in the report
        watch.run_ended()
        if watch.run_dir is not None:
            show_report([watch.run_dir], watch.run_dir)
            if isinstance(error, KeyboardInterrupt):
                say(f"mqtest: interrupted; finish it with: {resuming.command(context.params, watch.run_dir)}")
        raise
    return show_report([run_dir], run_dir).exit_code


@click.command(short_help="Judge a run again, without Docker; show what differs.")
@click.argument("folders", metavar="DIR...", nargs=-1, required=True, type=FOLDER)
def check(folders: tuple[Path, ...]) -> int:
    """Judge the cells of DIR... again, without Docker, and show what differs from the stored verdicts.

    DIR is the folder of a run, or of one cell. The verdicts are stored anew.

    \b
    Example:
      mqtest check results/reference
    """
    from mqtest import report

    checked = report.check(folders)
    for line in checked.differences:
        click.echo(line)
    click.echo(f"{number(checked.cells, 'cell')} judged, {number(len(checked.differences), 'difference')}")
    return checked.exit_code


@click.command("report", short_help="Render the report of a run again; merge shards.")
@click.argument("folders", metavar="DIR...", nargs=-1, required=True, type=FOLDER)
@click.option(
    "--out", type=FOLDER, help="Where the report goes. [default: DIR; for several, `merged` beside the first]"
)
def report_command(folders: tuple[Path, ...], out: Path | None) -> int:
    """Judge the cells of DIR... again and write results.csv, results.parquet, report.md, report.html with its
    pictures, and junit.xml; several DIR are merged.

    Of a DIR that has a results.csv and no cells, that stands for them, and is not written over.

    \b
    Examples:
      mqtest report results/20260101T120000Z-durability
      mqtest report shard-1 shard-2 shard-3 --out whole
    """
    default = folders[0] if len(folders) == 1 else folders[0].resolve().parent / "merged"
    return show_report(folders, out or default).exit_code


def _show_plan(title: str, planned: Plan) -> None:
    from mqtest.live import planned_line
    from mqtest.schedule import timeline

    for cell in planned.cells:
        click.echo(f"{cell.id}  {cell.profile.path} under {cell.fault}, repeat {cell.repeat}")
        if [str(step) for step in cell.fault.steps] != [str(cell.fault)]:  # a schedule, or several at one moment
            for line in timeline(cell.fault, cell.phases.hold_s):
                click.echo(f"    {line}")
    say(f"{title}: {planned_line(len(planned.cells), planned.expected_s, planned.disk_mb)}; seed {planned.seed}")
