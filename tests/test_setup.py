"""The set-up script, on a make-believe machine: its commands are small scripts that write down what was asked.

The script itself is the real one. Its own engine and packages are tried by CI on machines that have none.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

TREE = Path(__file__).resolve().parent.parent
MIRROR = "mirror.invalid"
SOURCE = "etc/apt/sources.list.d/mqtest-trixie.sources"
PIN = "etc/apt/preferences.d/mqtest-trixie"
STATE = "var/lib/mqtest/installed"

DOCKER = """
case "$1 $2" in
  "info "*) test -e "$HAS/engine" ;;
  "compose version") test -e "$HAS/compose" ;;
  "image inspect") test -e "$HAS/base" ;;
  "pull "*) test -e "$HAS/registry" && touch "$HAS/base" ;;
  "volume ls") cat "$HAS/volumes" 2>/dev/null || true ;;
esac
"""
APT_GET = """
case " $* " in
  *" indextargets "*) echo "http://$MIRROR/debian/ bookworm main" ;;
  *" -s remove "*) cat "$HAS/needs" 2>/dev/null; shift 6
    for name; do case $name in -*|remove) ;; *) echo "Remv $name [1]" ;; esac; done ;;
  *" install "*) echo "ii  brought-along" >>"$HAS/dpkg"
    shift 5; for name; do case $name in -*|install) ;; *) echo "ii  ${name%/*}" >>"$HAS/dpkg" ;; esac; done
    touch "$HAS/compose" ;;
esac
"""
STUBS = {
    "docker": DOCKER,
    "apt-get": APT_GET,
    "apt-cache": 'grep -s "^$2 " "$HAS/candidates" | sed "s/.* /  Candidate: /"',
    "dpkg-query": 'cat "$HAS/dpkg"',
    "systemctl": 'case $1 in start) touch "$HAS/engine" ;; stop) rm -f "$HAS/engine" ;; esac',
    "id": 'cat "$HAS/uid"',
    "ip": "",
}


@dataclass(frozen=True, slots=True)
class Machine:
    """A clone, the commands of the machine, and what it has."""

    folder: Path

    @property
    def root(self) -> Path:
        """Stands for /."""
        return self.folder / "root"

    def has(self, name: str, text: str = "") -> None:
        """Give the machine something."""
        (self.folder / "has" / name).write_text(text)

    def run(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """The script's answer, with nobody at the keyboard."""
        return subprocess.run(
            ["sh", str(self.folder / "clone" / "compose" / "setup.sh"), *arguments],
            env={
                "PATH": f"{self.folder}/bin:/usr/bin:/bin",
                "HAS": str(self.folder / "has"),
                "LOG": str(self.folder / "log"),
                "MIRROR": MIRROR,
                "MQTEST_ROOT": str(self.root),
                **environment,
            },
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def asked(self, word: str) -> list[str]:
        """The commands so far that have this word in them."""
        log = self.folder / "log"
        return [line for line in log.read_text().splitlines() if word in line] if log.exists() else []


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """Debian bookworm with an init system, root, no engine, no registry in reach, and a .venv that is up to date."""
    made = Machine(tmp_path)
    for folder in ("has", "bin", "clone/compose/images", "clone/.venv/bin", "root/etc", "root/run/systemd/system"):
        (tmp_path / folder).mkdir(parents=True)
    for name, body in {**STUBS, "../clone/.venv/bin/python": ""}.items():
        stub = tmp_path / "bin" / name
        stub.write_text(f'#!/bin/sh\necho "{stub.name} $*" >>"$LOG"\n{body}\n')
        stub.chmod(0o755)
    clone = tmp_path / "clone"
    shutil.copy(TREE / "compose" / "setup.sh", clone / "compose")
    shutil.copy(TREE / "compose" / "images" / "mirror.sh", clone / "compose" / "images")
    (clone / "pyproject.toml").write_text("[project]\n")
    (clone / ".venv" / "mqtest-stamp").write_text(f"{os.path.realpath(clone)}\n[project]\n")
    (made.root / "etc" / "os-release").write_text("ID=debian\nVERSION_CODENAME=bookworm\n")
    keys = made.root / "usr" / "share" / "keyrings" / "debian-archive-keyring.gpg"
    keys.parent.mkdir(parents=True)
    keys.touch()
    made.has("uid", "0\n")
    made.has("dpkg", "ii  make\n")
    made.has("candidates", "docker.io 20.10.24\ndocker-compose 1.29.2\n")
    return made


def test_where_an_engine_answers_only_docker_and_the_venv_are_touched(machine: Machine) -> None:
    for name in ("engine", "compose", "base"):
        machine.has(name)
    done = machine.run()
    assert done.returncode == 0, done.stderr
    assert machine.asked("apt-get") == []
    assert not (machine.root / "var").exists()
    assert machine.asked("python") == ["python -m mqtest.cluster.images"]


def test_nobody_to_ask_changes_nothing(machine: Machine) -> None:
    done = machine.run(CI="true")
    assert done.returncode == 1
    assert "docker.io docker-compose/trixie" in done.stderr
    assert f"http://{MIRROR}/debian/ trixie main" in done.stderr
    assert "YES=1" in done.stderr
    assert machine.asked("install") == []
    assert not (machine.root / SOURCE).exists()
    assert not (machine.root / STATE).exists()


@pytest.mark.parametrize(
    ("uid", "release", "why"),
    [("1000", "ID=debian\n", "not root"), ("0", "ID=fedora\n", "no Debian or Ubuntu")],
)
def test_where_it_may_not_it_says_in_one_line_what_to_install(
    machine: Machine, uid: str, release: str, why: str
) -> None:
    machine.has("uid", uid)
    machine.has("candidates", "docker.io 26\ndocker-compose 2.26.1\n")
    (machine.root / "etc" / "os-release").write_text(release)
    done = machine.run(YES="1")
    assert done.returncode == 1
    [line] = done.stderr.splitlines()
    assert why in line
    assert "docker.io docker-compose" in line
    assert machine.asked("install") == []


def test_yes_installs_and_writes_down_what_came(machine: Machine) -> None:
    machine.has("registry")
    done = machine.run(YES="1")
    assert done.returncode == 0, done.stderr
    [install] = machine.asked(" install ")
    assert install.endswith("docker.io docker-compose/trixie")
    source = (machine.root / SOURCE).read_text()
    assert f"URIs: http://{MIRROR}/debian/\nSuites: trixie\n" in source
    assert "Pin-Priority: 100" in (machine.root / PIN).read_text()
    written = (machine.root / STATE).read_text().splitlines()
    assert {"package docker.io", "package docker-compose", "package brought-along"} <= set(written)
    assert "package make" not in written
    assert f"data {machine.root}/var/lib/docker" in written
    again = machine.run()
    assert again.returncode == 0
    assert machine.asked(" install ") == [install]


def test_a_compose_of_the_right_age_needs_no_source(machine: Machine) -> None:
    machine.has("registry")
    machine.has("candidates", "docker.io 27\ndocker-compose 1.29.2\ndocker-compose-v2 2.30\n")
    assert machine.run(YES="1").returncode == 0
    assert machine.asked(" install ")[0].endswith("docker.io docker-compose-v2")
    assert not (machine.root / SOURCE).exists()


def test_an_engine_without_compose_gets_only_that(machine: Machine) -> None:
    for name in ("engine", "registry"):
        machine.has(name)
    assert machine.run(YES="1").returncode == 0
    assert machine.asked(" install ")[0].endswith("--no-install-recommends docker-compose/trixie")


def test_debootstrap_comes_only_where_no_base_image_can_be_pulled(machine: Machine) -> None:
    for name in ("engine", "compose"):
        machine.has(name)
    assert machine.run(YES="1").returncode == 0
    assert machine.asked(" install ")[0].endswith("debootstrap debian-archive-keyring")


def test_undo_takes_back_exactly_what_was_done(machine: Machine) -> None:
    machine.has("registry")
    machine.run(YES="1")
    (machine.root / "var/lib/docker").mkdir(parents=True)
    done = machine.run("undo")
    assert done.returncode == 0, done.stderr
    [purge] = machine.asked(" purge ")
    assert set(purge.split(" -y ")[1].split()) == {"brought-along", "docker.io", "docker-compose"}
    for gone in (SOURCE, PIN, STATE, "var/lib/docker", "var/lib/mqtest"):
        assert not (machine.root / gone).exists(), gone
    assert not (machine.folder / "clone" / ".venv").exists()


def test_undo_keeps_the_data_of_others(machine: Machine) -> None:
    machine.has("registry")
    machine.run(YES="1")
    (machine.root / "var/lib/docker").mkdir(parents=True)
    machine.has("volumes", "somebody-elses\n")
    done = machine.run("undo")
    assert "not ours" in done.stderr
    assert machine.asked(" purge ") == []  # which would wipe /var/lib/docker
    assert len(machine.asked(" remove -y")) == 1
    assert (machine.root / "var/lib/docker").exists()


def test_undo_removes_nothing_that_somebody_has_come_to_need(machine: Machine) -> None:
    machine.has("registry")
    machine.run(YES="1")
    machine.has("needs", "Remv somebodys-tool [1]\n")
    done = machine.run("undo")
    assert done.returncode == 1
    assert "somebodys-tool" in done.stderr
    assert machine.asked(" purge ") == []
    assert machine.asked("systemctl stop") == []
    assert (machine.root / STATE).exists()


def test_undo_after_nothing_was_installed(machine: Machine) -> None:
    for name in ("engine", "compose", "base"):
        machine.has(name)
    machine.run()
    done = machine.run("undo")
    assert done.returncode == 0
    assert "nothing was installed" in done.stderr
    assert machine.asked("apt-get") == []


def test_an_old_python_is_named(machine: Machine) -> None:
    old = machine.folder / "bin" / "python-old"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    (machine.folder / "clone" / "pyproject.toml").write_text("[changed]\n")
    done = machine.run("venv", PYTHON="python-old")
    assert done.returncode == 1
    assert "python-old is older than 3.11" in done.stderr
