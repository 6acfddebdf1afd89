"""`mqtest attach`: its options, and how Ctrl-C ends it. What it does is in mqtest/attach.py."""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mqtest.cli.words import FOLDER, show_report
from mqtest.errors import UsageError

if TYPE_CHECKING:
    from mqtest.attach import Attachment
    from mqtest.brokers.foreign import Asked
    from mqtest.credentials import Credentials

_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600}


def seconds(text: str) -> float:
    """`90`, `90s`, `10m`, `2h` → seconds."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", text)
    if found is None:
        raise click.BadParameter(f"{text!r} is not a time such as 90s, 10m or 2h")
    return float(found[1]) * _SECONDS[found[2]]


@click.command(short_help="Load and judge a cluster that you run, and break.")
@click.argument("broker")
@click.option(
    "--bootstrap",
    "--url",
    "--host",
    "--nameserver",
    "--socket",
    "at",
    required=True,
    metavar="HOST:PORT[,…]",
    help="Where it is: Kafka's bootstrap servers, RabbitMQ's nodes (or amqp[s]://HOST/VHOST), RocketMQ's name servers.",
)
@click.option("--profile", metavar="NAME", help="Its client settings and its promise are used. [default: a safe one]")
@click.option("--topic", "--queue", "topic", help="Made if it is not there. [default: mqtest-<utc>]")
@click.option("--places", type=click.IntRange(min=1), default=1, show_default=True, help="Of a topic that is made.")
@click.option(
    "--replicas",
    type=click.IntRange(min=1),
    help="Of a topic that is made. [default: 3, where there are so many nodes]",
)
@click.option("--rate", type=click.FloatRange(min=0, min_open=True), default=200.0, show_default=True, help="A second.")
@click.option("--size", type=click.IntRange(min=128), default=512, show_default=True, help="Bytes of a message.")
@click.option("--producers", type=click.IntRange(min=1), default=1, show_default=True, help="Processes that send.")
@click.option("--consumers", type=click.IntRange(min=0), default=1, show_default=True, help="Processes that read.")
@click.option(
    "--for",
    "for_s",
    type=seconds,
    metavar="TIME",
    help="How long the load lasts, as 90s or 10m. [default: until Ctrl-C]",
)
@click.option("--fault", metavar="COMMAND", help="A shell command of yours that breaks something.")
@click.option("--heal", metavar="COMMAND", help="A shell command of yours that mends it; runs on every way out.")
@click.option(
    "--after", type=seconds, metavar="TIME", default="10s", show_default=True, help="Calm time first, for the figures."
)
@click.option(
    "--hold", type=seconds, metavar="TIME", default="10s", show_default=True, help="From the fault to the heal command."
)
@click.option("--credentials", type=FOLDER, help="TOML file with the client's own keys for login and TLS.")
@click.option("--may-lose", is_flag=True, help="What you do is more than the profile promises to survive.")
@click.option("--yes", is_flag=True, help="Write to a topic that holds messages of others.")
@click.option("--remove", is_flag=True, help="At the end, delete the topic that the run made.")
@click.option("--results", type=FOLDER, default=Path("results"), show_default=True, help="Where the run's folder goes.")
@click.option("--plain", is_flag=True, help="Lines instead of the live screen, as in CI.")
def attach(
    broker: str,
    at: str,
    profile: str | None,
    topic: str | None,
    places: int,
    replicas: int | None,
    rate: float,
    size: int,
    producers: int,
    consumers: int,
    for_s: float | None,
    fault: str | None,
    heal: str | None,
    after: float,
    hold: float,
    credentials: Path | None,
    may_lose: bool,
    yes: bool,
    remove: bool,
    results: Path,
    plain: bool,
) -> int:
    """Load and judge a cluster of BROKER that somebody else runs and breaks: a rolling upgrade on staging, say.

    The same ledger, checks and report as in a run; every time of a second or more without an acknowledgement is an
    incident in the report. The first Ctrl-C ends the load, then everything is read back and judged; a second one ends
    at once. Nothing is started, stopped or deleted there but the topic that the run made (with --remove).

    Login and TLS come from --credentials FILE or from the environment (MQTEST_KAFKA_SASL_PASSWORD for `sasl.password`
    of kafka), and reach no result.

    \b
    Examples:
      mqtest attach kafka --bootstrap kafka-1:9092,kafka-2:9092 --for 10m
      mqtest attach rabbitmq --url amqps://rabbit.staging/shop --credentials rabbit.toml
      mqtest attach rocketmq --nameserver 10.0.0.5:9876 --fault './stop-master.sh' --heal './start-master.sh' --for 2m
    """
    from dataclasses import replace

    from mqtest import attach as attaching
    from mqtest.model import Workload

    if heal is not None and fault is None:
        raise UsageError("--heal without --fault has nothing to mend")
    there, access = _there(broker, at, profile, topic, credentials)
    asked = attaching.Attachment(
        asked=there,
        credentials=access,
        workload=Workload(producers=producers, consumers=consumers, rate_per_s=rate, size_bytes=size, places=places),
        phases=replace(attaching.PHASES, steady_s=after, hold_s=hold),
        for_s=for_s,
        fault=fault,
        heal=heal,
        replicas=replicas,
        into_used=yes,
        remove=remove,
        may_lose=may_lose,
    )
    return _run(asked, results, plain)


def _there(
    broker: str, at: str, profile: str | None, topic: str | None, credentials: Path | None
) -> tuple[Asked, Credentials]:
    """What is asked of that cluster, and what lets us in."""
    from mqtest import credentials as secrets
    from mqtest.brokers.foreign import Asked, foreign_module
    from mqtest.profile import find_profile

    module = foreign_module(broker)
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    access = secrets.read(broker, module.ACCESS, credentials, os.environ)
    asked = Asked(
        profile=find_profile(f"{broker}/{profile or module.PROFILE}"),
        at=at,
        topic=topic or f"mqtest-{stamp}",
        group=f"mqtest-{stamp}",
        access=access.access,
    )
    return asked, access


def _run(asked: Attachment, results: Path, plain: bool) -> int:
    from mqtest import attach as attaching
    from mqtest import live

    watch = live.watch(plain=plain)
    with first_interrupt_ends_the_load() as enough:
        run_dir = attaching.run(asked, results, watch, enough.is_set)
    return show_report([run_dir], run_dir).exit_code


@contextmanager
def first_interrupt_ends_the_load() -> Iterator[threading.Event]:
    """The event is set by the first Ctrl-C; the next one is handled as ever."""
    enough = threading.Event()
    ever = signal.getsignal(signal.SIGINT)

    def first(_number: int, _frame: object) -> None:
        enough.set()
        signal.signal(signal.SIGINT, ever)
        click.echo(
            "mqtest: the load ends, once a command of yours that still runs has ended; then everything is read back "
            "(Ctrl-C again: end at once)",
            err=True,
        )

    signal.signal(signal.SIGINT, first)
    try:
        yield enough
    finally:
        signal.signal(signal.SIGINT, ever)
