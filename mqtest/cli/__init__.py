"""The command line. Together with live.py the only thing that prints.

stdout carries the result (tables, lists, paths); what goes on meanwhile, and errors, go to stderr. An error that
mqtest raises on purpose is one line, `mqtest: …`; anything else is a defect and shows its traceback. Exit codes: 0 all
kept or lost as documented, 1 broken or dead, 2 unknown or invalid (or not finished), 64 bad usage, 70 the tool failed,
130 interrupted; `select`, `compare` and `bench` say in their help what 0, 1 and 2 are there. The live half is imported
inside the commands that need it, so that the others need no engine.
"""

from __future__ import annotations

import errno
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import click

from mqtest import __version__
from mqtest.cli.attach import attach
from mqtest.cli.bench import bench
from mqtest.cli.compare import compare
from mqtest.cli.machine import calibrate, clean, doctor, down, list_command, schema, up
from mqtest.cli.runs import check, report_command, run
from mqtest.cli.select import select
from mqtest.cli.words import say
from mqtest.errors import MqtestError, UsageError

USAGE, FAILED, INTERRUPTED = 64, 70, 130


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


@cli.command()
def version() -> int:
    """Show the version of mqtest."""
    click.echo(f"mqtest {__version__}")
    return 0


for command in (
    run, check, report_command, select, compare, list_command, schema, doctor, calibrate, attach, bench, up, down,
    clean,
):  # fmt: skip
    cli.add_command(command)


def _complain(text: str, code: int) -> int:
    say("mqtest: " + " ".join(text.split()))
    return code


@contextmanager
def _one_interrupt() -> Iterator[None]:
    """The first Ctrl-C, SIGTERM or closed terminal ends us, so that everything heals and cleans up on the way out; what
    comes while that goes on is answered with a line."""
    seen = False

    def interrupt(_number: int, _frame: object) -> None:
        nonlocal seen
        if seen:
            say("mqtest: already healing and cleaning up; a moment")
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
