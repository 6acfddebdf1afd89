"""What this machine can do: one Capability each, with what it is for and what is lost without it.

Examining changes nothing that lasts: reads, plus one throwaway container of the agent's image without a network
(iptables and netem are tried in its own namespace, where alone they are needed). The power cut is proven by its
control program only when asked for, since that takes seconds. `refuse_engine` is the one place that decides
which engines are turned away; a run asks it too. Nothing here raises because something is missing: that is
what it reports.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from docker.context import ContextAPI
from rich.table import Table
from rich.text import Text

from mqtest.brokers import BROKERS
from mqtest.clients import CLIENTS
from mqtest.cluster import images, network
from mqtest.cluster.engine import asking, connect, together
from mqtest.errors import EngineError, MqtestError
from mqtest.profile import image_version, load_profiles

MEMORY_GIB: Final = 6
DISK_GIB: Final = 10
_PROBE: Final = """
iptables -A INPUT -m statistic --mode random --probability 0.1 -j DROP && iptables -F INPUT && echo iptables
tc qdisc add dev lo root netem delay 1ms && echo netem
library=$(echo /usr/lib/*/faketime/libfaketimeMT.so.1)
[ "$(LD_PRELOAD=$library FAKETIME=-1000d date +%Y)" != "$(date +%Y)" ] && echo libfaketime
"""
_GIB: Final = 2**30


@dataclass(frozen=True, slots=True)
class Capability:
    """One thing that a machine has (`ok`), has not, or that was not looked at (None)."""

    name: str
    ok: bool | None
    detail: str
    purpose: str
    without: str


def examine(*, power_cut: bool = False, progress: Callable[[str], None] = lambda line: None) -> list[Capability]:
    """Every capability, in the order in which they matter. `power_cut` also runs the control program."""
    engine, info = _engine()
    answering = bool(engine.ok)
    return [
        engine,
        _compose(),
        _loop_devices(),
        _power_cut(progress) if power_cut and answering else _power_cut_not_asked(),
        *(_probed(answering)),
        _memory(info),
        _disk(info),
        _images(answering),
        *together(_client, CLIENTS),
        _address_pool(answering),
    ]


def render(capabilities: Iterable[Capability]) -> Table:
    """A table for the terminal: what is there, and for the rest what it is for and what is lost."""
    table = Table(box=None, padding=(0, 2, 0, 0))
    for column in ("", "capability", "found", "for", "without it"):
        table.add_column(column, overflow="fold")
    marks = {True: Text("yes", "green"), False: Text("no", "bold red"), None: Text("?", "yellow")}
    for each in capabilities:
        table.add_row(
            marks[each.ok],
            *(Text(text) for text in (each.name, each.detail, each.purpose)),
            Text("" if each.ok else each.without),
        )
    return table


# --- the engine ---


def engine_host(environment: Mapping[str, str] = os.environ) -> str:
    """Where commands would find the engine: DOCKER_HOST, else the current context; "" is the local default."""
    if environment.get("DOCKER_HOST"):
        return environment["DOCKER_HOST"]
    context = ContextAPI.get_current_context()
    return "" if context is None or context.Name == "default" else str(context.Host or "")


def refuse_engine(info: Mapping[str, object], host: str) -> str | None:
    """Why we would not work on this engine, in one line, or None. `info` is what `docker info` says.

    The agent enters the brokers' containers through their processes and mounts loop devices: that takes an
    engine with the host's own root, on this very kernel.
    """
    if host and not host.startswith("unix://"):
        return f"the engine is remote ({host}): unset DOCKER_HOST or use the context of a local engine"
    system = str(info.get("OperatingSystem", ""))
    if "Docker Desktop" in system or str(info.get("Name", "")) == "docker-desktop":
        return "this is Docker Desktop, whose engine lives in a virtual machine: use Docker Engine on Linux"
    if info.get("OSType", "linux") != "linux":
        return f"the engine runs {info.get('OSType')} containers: use Docker Engine on Linux"
    options = info.get("SecurityOptions")
    security = [str(option) for option in options] if isinstance(options, Sequence) else []
    if any("name=rootless" in option for option in security):
        return "the engine is rootless and may not mount disks or cut links: use one that runs as root"
    if any("name=userns" in option for option in security):
        return "the engine maps user namespaces (userns-remap): its containers may not mount disks; use one without"
    kernel = info.get("KernelVersion")
    if kernel and kernel != os.uname().release:
        return f"the engine runs on another kernel ({kernel}), in a virtual machine: use Docker Engine on this host"
    return None


def require_engine() -> None:
    """Raises EngineError, in one line, unless an engine answers that we can work on. A run asks this first."""
    capability, _ = _engine()
    if not capability.ok:
        raise EngineError(capability.detail)


def _engine() -> tuple[Capability, Mapping[str, Any]]:
    purpose, without = "runs the brokers", "only the memory broker can be tested"
    try:
        host = engine_host()
        refused = refuse_engine({}, host)  # a remote one is not even asked
        info: dict[str, Any] = {}
        if refused is None:
            with contextlib.closing(connect()) as client, asking("asking what the engine is"):
                info = client.info()
            refused = refuse_engine(info, host)
    except MqtestError as error:
        return Capability("engine", False, str(error), purpose, without), {}
    detail = refused or f"Docker {info.get('ServerVersion')}, cgroup v{info.get('CgroupVersion', '1')}"
    return Capability("engine", refused is None, detail, purpose, without), info


def _compose() -> Capability:
    said, status = _run(["docker", "compose", "version", "--short"])
    fits = status == 0 and bool(said) and not said[0].lstrip("v").startswith("1.")
    detail = said[0] if fits else "no compose v2 plugin: `make setup`"
    return Capability("compose", fits, detail, "brings clusters up", "only the memory broker can be tested")


# --- privileged doings ---


def _loop_devices() -> Capability:
    control = Path("/dev/loop-control").exists()
    used = sum(1 for _ in Path("/sys/block").glob("loop*/loop/backing_file"))
    detail = f"{used} in use" if control else "/dev/loop-control is missing: load the kernel module loop"
    return Capability("loop devices", control, detail, "a disk of its own for each node", "no clusters, no disk faults")


_POWER_CUT: Final = ("cuts power: what was not fsynced is forgotten", "losses under a power cut prove nothing")


def _power_cut_not_asked() -> Capability:
    return Capability("power cut", None, "not tried: its control program was not asked for", *_POWER_CUT)


def _power_cut(progress: Callable[[str], None]) -> Capability:
    from mqtest.cluster import powercut_control  # starts disks of its own, so only on demand

    try:
        cases = [(fs, case) for fs in ("ext4", "xfs") for case in powercut_control.prove(fs, progress)]
    except MqtestError as error:
        return Capability("power cut", False, str(error), *_POWER_CUT)
    wrong = [f"{fs}: {case.name}: expected {case.expected}, saw {case.seen}" for fs, case in cases if not case.ok]
    detail = "; ".join(wrong) or f"proven, {len(cases)} cases on ext4 and xfs"
    return Capability("power cut", bool(cases) and not wrong, detail, *_POWER_CUT)


def _probed(answering: bool) -> list[Capability]:
    """iptables, libfaketime and netem, tried in a throwaway container of the agent's image."""
    said, why = _probe() if answering else (None, "needs an engine")

    def capability(name: str, detail: str, purpose: str, without: str) -> Capability:
        if said is None:
            return Capability(name, None, why, purpose, without)
        found = name in said
        return Capability(name, found, detail if found else "this kernel has it not", purpose, without)

    return [
        capability("iptables", "with statistic match", "partitions, packet loss", "no partition faults"),
        capability("libfaketime", "sets a clock", "wall clocks that jump, of RabbitMQ alone", "no clock faults"),
        capability("netem", "works", "packet delay and loss on a link", "Toxiproxy and iptables serve instead"),
    ]


def _probe() -> tuple[list[str] | None, str]:
    """The names that worked, or None and why nothing could be tried."""
    try:
        if images.present_agent() is None:
            return None, "not tried: the agent's image is not there yet"
        with contextlib.closing(connect()) as client, asking("trying iptables and netem"):
            output: bytes = client.containers.run(
                images.AGENT,
                ["sh", "-c", _PROBE + "true"],
                network_mode="none",
                cap_drop=["ALL"],
                cap_add=["NET_ADMIN", "NET_RAW"],
                labels={"mqtest": "doctor"},
                remove=True,
                stderr=False,
            )
    except MqtestError as error:
        return None, f"not tried: {error}"
    return output.decode().split(), ""


# --- room ---


def _memory(info: Mapping[str, Any]) -> Capability:
    total = int(info.get("MemTotal", 0)) or os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    detail = f"{total / _GIB:.1f} GiB, {_available_gib():.1f} free; {MEMORY_GIB} wanted"
    return Capability(
        "memory",
        total >= MEMORY_GIB * _GIB * 0.95,
        detail,
        "three nodes of each broker",
        "one node, or nodes that the kernel kills",
    )


def _available_gib() -> float:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024 / _GIB
    return 0.0


def _disk(info: Mapping[str, Any]) -> Capability:
    folder = Path(str(info.get("DockerRootDir", "/")))
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    detail = f"{free / _GIB:.0f} GiB free at {folder}; {DISK_GIB} wanted"
    return Capability(
        "disk", free >= DISK_GIB * _GIB, detail, "images and the nodes' disks", "runs end with a full disk"
    )


def _images(answering: bool) -> Capability:
    purpose, without = "the brokers' software", "the first run pulls or builds them, which takes minutes"
    if not answering:
        return Capability("images", None, "needs an engine", purpose, without)
    found: list[str] = []
    absent: list[str] = []
    try:
        for broker in images.OFFICIAL:
            version = image_version(broker)
            image = images.present(broker, version)
            if image:
                found.append(f"{image.tag} ({image.origin})")
            else:
                absent.append(images.tag_of(broker, version))
        (found if images.present_agent() else absent).append(images.AGENT)
    except MqtestError as error:
        return Capability("images", None, str(error), purpose, without)
    detail = ", ".join(found) + ("; not yet: " + ", ".join(absent) if absent else "")
    return Capability("images", not absent, detail, purpose, without)


# --- clients and addresses ---


def _client(name: str) -> Capability:
    """In a process of its own: a native library that cannot be loaded may take its process along."""
    script = f"from mqtest.clients import client; client({name!r})"
    said, status = _run([sys.executable, "-c", script])
    detail = "importable" if status == 0 else (said or [f"its process ended with {status}"])[-1]
    return Capability(f"client {name}", status == 0, detail, _users(name), "its profiles cannot run")


def _users(client: str) -> str:
    try:
        users = [each.path for broker in BROKERS for each in load_profiles(broker).values() if each.client == client]
    except MqtestError as error:
        return str(error)
    return ", ".join(users) or "no profile yet"


def _address_pool(answering: bool) -> Capability:
    purpose, without = "addresses of the nodes", "no clusters: set MQTEST_POOL to a network that is free here"
    if not answering:
        return Capability("address pool", None, "needs an engine", purpose, without)
    try:
        whole = network.pool()
        with contextlib.closing(connect()) as client:
            taken = network.conflict(client)
    except MqtestError as error:
        return Capability("address pool", False, str(error), purpose, without)
    return Capability("address pool", taken is None, f"{whole} overlaps {taken or 'nothing'}", purpose, without)


def _run(command: Sequence[str]) -> tuple[list[str], int | None]:
    """What a command says, line by line, and its status; None: it could not be run or did not end."""
    try:
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=30, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return [str(error)], None
    return done.stdout.strip().splitlines(), done.returncode
