"""The command line. Together with live.py the only module that prints.

stdout carries the result (tables, lists, paths); what goes on meanwhile, and errors, go to stderr. An error that
mqtest raises on purpose is one line, `mqtest: …`; anything else is a defect and shows its traceback. Exit codes: 0 all
kept or lost as documented, 1 broken or dead, 2 unknown or invalid (or not finished), 64 bad usage, 70 the tool failed,
130 interrupted. The live half is imported inside the commands that need it, so that the others need no engine.
"""

from __future__ import annotations

import errno
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console

from mqtest import __version__
from mqtest.cli_attach import attach
from mqtest.errors import MqtestError, UsageError

if TYPE_CHECKING:
    from mqtest.plan import Plan
    from mqtest.report import RunReport

USAGE, FAILED, INTERRUPTED = 64, 70, 130
_FOLDER = click.Path(path_type=Path)
_WIDTH_OF_NO_TERMINAL = 200


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code; `sys.argv` without arguments."""
    try:
        with _one_interrupt():
            code = cli.main(args=arguments, prog_name="mqtest", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return USAGE
    except click.ClickException as error:
        context = getattr(error, "ctx", None)
        where = f" (see `{context.command_path} --help`)" if context else ""
        return _complain(error.format_message().rstrip(".") + where, USAGE)
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except UsageError as error:
        return _complain(str(error), USAGE)
    except MqtestError as error:
        return _complain(str(error), FAILED)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS):
            raise
        return _complain(f"{error.filename or 'disk'}: {error.strerror}", FAILED)
    return code if isinstance(code, int) else 0


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
def cli() -> None:
    """Which message queue, with which settings, keeps which promise under which failure, and what does it cost?

    mqtest starts real brokers in containers, loads them, breaks them, reads everything back, and tells what became of
    every message.

    \b
    First steps:
      mqtest doctor                      what this machine can do
      mqtest run self-test               the whole way in seconds, without Docker
      mqtest run first-look              three brokers, one power cut, one table
      mqtest list                        what else there is

    \b
    Exit codes: 0 all kept or lost as documented, 1 broken or dead, 2 unknown or invalid,
    64 bad usage, 70 mqtest failed, 130 interrupted.
    """


@cli.command(short_help="Run a scenario.")
@click.argument("scenario")
@click.option(
    "--only", multiple=True, metavar="GLOB", help="Only cells whose broker/profile/fault matches; repeatable."
)
@click.option("--repeat", type=click.IntRange(min=1), metavar="N", help="Repeat each cell N times.")
@click.option("--seed", type=int, metavar="N", help="Seed of the run, instead of the scenario's.")
@click.option("--resume", type=_FOLDER, metavar="RUN_DIR", help="Finish a stopped run; finished cells stay.")
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
@click.option("--keep", is_flag=True, help="Leave the cluster of a failed cell up, to look at it.")
@click.option(
    "--results", type=_FOLDER, default=Path("results"), show_default=True, help="Where the run's folder goes."
)
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
    """
    from mqtest import axes, plan
    from mqtest import resume as resuming
    from mqtest import scenario as scenarios

    loaded = scenarios.load(scenarios.locate(scenario), dict(axes.parse(text) for text in assign))
    if resume is not None:
        seed = resuming.seed_of(resume) if seed is None else seed
    planned = plan.plan(loaded, only=only, repeat=repeat, seed=seed, shard=shard)
    if resume is not None:
        resuming.refuse_another_plan(resume, loaded, [cell.id for cell in planned.cells])
    if dry_run:
        _show_plan(loaded.title, planned)
        return 0
    from mqtest import live, runner

    _say(f"{loaded.title}: {loaded.question} (seed {planned.seed})")
    watch = live.watch(plain=plain)
    try:
        run_dir = runner.run(loaded, planned, results, keep=keep, resume=resume, watch=watch)
    except BaseException as error:  # whatever ended it: the cells that finished are in the report
        watch.run_ended()
        if watch.run_dir is not None:
            show_report([watch.run_dir], watch.run_dir)
            if isinstance(error, KeyboardInterrupt):
                _say(f"mqtest: interrupted; finish it with: {resuming.command(context.params, watch.run_dir)}")
        raise
    return show_report([run_dir], run_dir).exit_code


@cli.command(short_help="Judge a run again, without Docker; show what differs.")
@click.argument("folders", metavar="DIR...", nargs=-1, required=True, type=_FOLDER)
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
    click.echo(f"{_number(checked.cells, 'cell')} judged, {_number(len(checked.differences), 'difference')}")
    return checked.exit_code


@cli.command("report", short_help="Render the report of a run again; merge shards.")
@click.argument("folders", metavar="DIR...", nargs=-1, required=True, type=_FOLDER)
@click.option(
    "--out", type=_FOLDER, help="Where the report goes. [default: DIR; for several, `merged` beside the first]"
)
def report_command(folders: tuple[Path, ...], out: Path | None) -> int:
    """Judge the cells of DIR... again and write results.csv, report.md and junit.xml; several DIR are merged.

    \b
    Examples:
      mqtest report results/20260101T120000Z-durability
      mqtest report shard-1 shard-2 shard-3 --out whole
    """
    default = folders[0] if len(folders) == 1 else folders[0].resolve().parent / "merged"
    return show_report(folders, out or default).exit_code


@cli.command("list", short_help="Show what there is to choose from.")
def list_command() -> int:
    """Show brokers, clients, profiles, faults, targets, checks and shipped scenarios."""
    from mqtest import inventory

    for number, (what, entries) in enumerate(inventory.sections()):
        click.echo(("\n" if number else "") + what)
        width = max((len(name) for name, _ in entries), default=0)
        for name, about in entries:
            click.echo(f"  {name.ljust(width)}  {about}".rstrip())
    return 0


@cli.command(short_help="Show what this machine can do.")
@click.option("--power-cut", is_flag=True, help="Also prove the power cut, on disks of its own; takes some seconds.")
def doctor(power_cut: bool) -> int:
    """Show what this machine can do, what each capability is for, and what is lost without it."""
    from mqtest import doctor as examiner

    _out().print(examiner.render(examiner.examine(power_cut=power_cut, progress=_say)))
    return 0


cli.add_command(attach)


@cli.command(short_help="Leave a cluster running to play with.")
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

    cluster = runner.up(find_profile(profile), nodes, _say)
    width = max(len(node.name) for node in cluster)
    for node in cluster:
        click.echo(f"{node.name.ljust(width)}  {node.address}  {node.role}")
    _say("it runs until `mqtest down`")
    return 0


@cli.command(short_help="Remove everything of mqtest's that is left.")
@click.option("--all", "all_runs", is_flag=True, help="Also what belongs to runs that are still going on.")
def down(all_runs: bool) -> int:
    """Remove everything of mqtest's that is left: containers, networks, volumes, disks, routes, processes.

    Runs that are still going on are spared, unless --all is given. Results stay; see `mqtest clean`.
    """
    from mqtest.cluster import leftovers

    click.echo(f"removed {leftovers.clean(all_runs=all_runs, progress=_say)}")
    return 0


@cli.command()
@click.option("--results", type=_FOLDER, default=Path("results"), show_default=True, help="Where the runs are.")
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


@cli.command()
def version() -> int:
    """Show the version of mqtest."""
    click.echo(f"mqtest {__version__}")
    return 0


def _show_plan(title: str, planned: Plan) -> None:
    from mqtest.live import planned_line
    from mqtest.schedule import timeline

    for cell in planned.cells:
        click.echo(f"{cell.id}  {cell.profile.path} under {cell.fault}, repeat {cell.repeat}")
        if len(cell.fault.steps) > 1:
            for line in timeline(cell.fault, cell.phases.hold_s):
                click.echo(f"    {line}")
    _say(f"{title}: {planned_line(len(planned.cells), planned.expected_s, planned.disk_mb)}; seed {planned.seed}")


def show_report(folders: Sequence[Path], out: Path) -> RunReport:
    """Render, and print the table, the notes and where the files are."""
    from mqtest import report

    rendered = report.render(folders, out)
    _out().print(rendered.table)
    if rendered.attached:
        click.echo(rendered.attached + "\n")
    for note in rendered.notes:
        click.echo(f"NOTE: {note}")
    if rendered.unfinished:
        first = ", ".join(rendered.unfinished[:3]) + (", …" if len(rendered.unfinished) > 3 else "")
        click.echo(f"not finished: {_number(len(rendered.unfinished), 'planned cell')} ({first})")
    for path in rendered.files:
        click.echo(path)
    return rendered


def _shard(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    first, _, last = text.partition("/")
    if not (first.isdecimal() and last.isdecimal() and 1 <= int(first) <= int(last)):
        raise click.BadParameter(f"{text!r} is not I/N with 1 <= I <= N, such as 2/4", param_hint="--shard")
    return int(first), int(last)


def _number(how_many: int, noun: str) -> str:
    return f"{how_many or 'no'} {noun}" + ("" if how_many == 1 else "s")


def _out() -> Console:
    console = Console()
    return console if console.is_terminal else Console(width=_WIDTH_OF_NO_TERMINAL)


def _say(text: str) -> None:
    click.echo(text, err=True)


def _complain(text: str, code: int) -> int:
    _say("mqtest: " + " ".join(text.split()))
    return code


@contextmanager
def _one_interrupt() -> Iterator[None]:
    """The first Ctrl-C, SIGTERM or closed terminal ends us, so that everything heals and cleans up on the way out; what
    comes while that goes on is answered with a line."""
    seen = False

    def interrupt(_number: int, _frame: object) -> None:
        nonlocal seen
        if seen:
            _say("mqtest: already healing and cleaning up; a moment")
            return
        seen = True
        raise KeyboardInterrupt

    before: dict[int, Callable[..., object] | int | None] = {
        number: signal.signal(number, interrupt)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        if signal.getsignal(number) is not signal.SIG_IGN  # nohup
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


if __name__ == "__main__":
    sys.exit(main())
