"""What the doctor says about engines from literal `docker info` data, and about this machine where one answers."""

from __future__ import annotations

import os

import pytest
from rich.console import Console

from mqtest import doctor
from mqtest.clients import CLIENTS
from mqtest.doctor import Capability
from mqtest.errors import EngineError

FIT: dict[str, object] = {
    "OperatingSystem": "Debian GNU/Linux 12 (bookworm)",
    "OSType": "linux",
    "KernelVersion": os.uname().release,
    "Name": "host",
    "SecurityOptions": ["name=seccomp,profile=default"],
}


@pytest.mark.parametrize("host", ["", "unix:///var/run/docker.sock", "unix:///run/elsewhere.sock"])
def test_a_local_engine_of_the_host_is_taken(host: str) -> None:
    assert doctor.refuse_engine(FIT, host) is None


def test_an_engine_that_tells_little_is_taken() -> None:
    assert doctor.refuse_engine({"SecurityOptions": None}, "") is None


@pytest.mark.parametrize(
    ("change", "host", "word"),
    [
        ({"OperatingSystem": "Docker Desktop"}, "", "Docker Desktop"),
        ({"Name": "docker-desktop"}, "unix:///home/me/.docker/desktop/docker.sock", "Docker Desktop"),
        ({"SecurityOptions": ["name=seccomp,profile=builtin", "name=rootless"]}, "", "rootless"),
        ({"SecurityOptions": ["name=userns"]}, "", "userns-remap"),
        ({"KernelVersion": "0.0.1-elsewhere"}, "", "virtual machine"),
        ({"OSType": "windows"}, "", "windows"),
        ({}, "tcp://192.0.2.1:2376", "remote"),
        ({}, "ssh://me@192.0.2.1", "remote"),
        ({}, "npipe:////./pipe/docker_engine", "remote"),
    ],
)
def test_an_unfit_engine_is_turned_away_in_one_line(change: dict[str, object], host: str, word: str) -> None:
    why = doctor.refuse_engine({**FIT, **change}, host)
    assert why is not None
    assert word in why
    assert "\n" not in why


def test_docker_host_goes_before_the_context() -> None:
    assert doctor.engine_host({"DOCKER_HOST": "tcp://192.0.2.1:2376"}) == "tcp://192.0.2.1:2376"


@pytest.mark.usefixtures("no_engine")
def test_a_machine_without_an_engine_is_examined_all_the_same() -> None:
    found = {each.name: each for each in doctor.examine()}
    assert found["engine"].ok is False
    assert "make setup" in found["engine"].detail
    assert {found[name].ok for name in ("power cut", "iptables", "libfaketime", "netem", "images", "address pool")} == {
        None
    }
    assert found["disk"].ok is not None
    assert found["client memory"].ok is True
    assert {f"client {name}" for name in CLIENTS} <= found.keys()


def test_a_run_is_told_why_it_cannot_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "tcp://192.0.2.1:2376")
    with pytest.raises(EngineError, match="remote"):
        doctor.require_engine()


def test_what_is_lost_is_said_only_where_something_is_missing() -> None:
    console = Console(width=200, record=True, file=open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115, PTH123
    console.print(
        doctor.render(
            [
                Capability("compose", True, "2.26", "brings clusters up", "LOST-ONE"),
                Capability("netem", False, "[not markup]", "delays", "LOST-TWO"),
                Capability("power cut", None, "not tried", "cuts power", "LOST-THREE"),
            ]
        )
    )
    console.file.close()
    text = console.export_text()
    assert "LOST-ONE" not in text
    assert "LOST-TWO" in text
    assert "LOST-THREE" in text
    assert "[not markup]" in text


@pytest.mark.docker
def test_this_machine_has_what_the_runs_need() -> None:
    found = {each.name: each for each in doctor.examine()}
    for name in ("engine", "compose", "loop devices", "iptables", "address pool", "memory", "disk"):
        assert found[name].ok is True, found[name]
    assert found["netem"].ok is not None  # either is fine, but it was tried


@pytest.mark.docker
def test_the_power_cut_is_proven_when_asked() -> None:
    found = {each.name: each for each in doctor.examine(power_cut=True)}
    assert found["power cut"].ok is True, found["power cut"]
