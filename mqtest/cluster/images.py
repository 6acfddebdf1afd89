"""The images that a run needs: found, pulled or built, always under one tag of ours.

    base ──┬─> builder ──> toxiproxy, and the jars of kafka, rocketmq, flink and tools
           └─> agent, kafka, rabbitmq, rocketmq, flink, tools

A broker's image is the official one where it can be pulled (retagged, so that a compose file names one tag
either way); else it is built from `compose/images/`, once: an image carries the digest of its recipe and is
built again only when that changes. Builds take along what this machine needs to reach its registries (the
certificates it trusts, its proxies, Maven and Go settings), so nothing of that stands in a recipe. Whether
images can be pulled at all is asked once in a process, with a bound. `python -m mqtest.cluster.images` makes
all of them beforehand, but for `tools`, which only `mqtest bench` needs, and `flink`, which a replay on it does.
"""

from __future__ import annotations

import functools
import hashlib
import io
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import docker
import docker.errors
import requests
import urllib3.exceptions

from mqtest.errors import EngineError, ImageError, MqtestError
from mqtest.paths import recipes
from mqtest.profile import image_version

Progress = Callable[[str], None]

BASE: Final = "mqtest/base:trixie"
BUILDER: Final = "mqtest/builder:1"
AGENT: Final = "mqtest/agent:2"
TOXIPROXY_VERSION: Final = "2.12.0"
TOXIPROXY: Final = f"mqtest/toxiproxy:{TOXIPROXY_VERSION}"
FLINK_VERSION: Final = "2.2.1"
FLINK_CONNECTOR_VERSION: Final = "5.0.0-2.2"
"""of Flink's connector for Kafka, a project of its own; the newest, which is for Flink 2.2"""
PERF_TEST_VERSION: Final = "2.22.1"
"""of RabbitMQ's PerfTest, a project of its own; the other perf tools have their brokers' versions"""

DEBIAN: Final = "debian:trixie-slim"
DEBIAN_HERE: Final = "mqtest/debian:trixie"
OFFICIAL: Final = {
    "kafka": "apache/kafka:{version}",
    "rabbitmq": "rabbitmq:{version}-management",
    "rocketmq": "apache/rocketmq:{version}",
}

RECIPE_LABEL: Final = "mqtest.recipe"
PROBE_S: Final = 20.0
PULL_S: Final = 900.0
BUILD_S: Final = 900.0

_GONE: Final = (requests.RequestException, urllib3.exceptions.HTTPError, ConnectionError, TimeoutError)
_PROXIES: Final = ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")
_GO_SETTINGS: Final = ("GOPROXY", "GOSUMDB", "GONOSUMDB", "GOPRIVATE")


@dataclass(frozen=True, slots=True)
class Image:
    """An image that is on the engine now. `origin` is "official" (pulled) or "built" (from our recipe)."""

    tag: str
    id: str
    origin: str


def tag_of(broker: str, version: str) -> str:
    """The tag under which a broker's image stands, wherever it came from."""
    return f"mqtest/{broker}:{version}"


def ensure_image(broker: str, version: str, progress: Progress) -> Image:
    """The broker's image: as it is on the engine, else pulled, else built. Takes minutes the first time."""
    if broker not in OFFICIAL:
        raise ImageError(f"there is no image of {broker}: it is one of {', '.join(OFFICIAL)}")
    tag = tag_of(broker, version)
    with _engine() as client:
        there = _present(client, tag, _digest(broker, version))
        if there:
            return there
        adopted = _adopt(client, OFFICIAL[broker].format(version=version), tag, progress)
        if adopted:
            return adopted
        if broker != "rabbitmq":  # its recipe has nothing to compile or to resolve
            _ensure_builder(client, progress)
        else:
            _ensure_base(client, progress)
        return _build(client, broker, tag, version, progress)


def ensure_agent(progress: Progress) -> Image:
    """The image of the helper container that injects faults."""
    return _ensure("agent", AGENT, "", _ensure_base, progress)


def ensure_toxiproxy(progress: Progress) -> Image:
    """The image of Toxiproxy, one static binary."""
    return _ensure("toxiproxy", TOXIPROXY, TOXIPROXY_VERSION, _ensure_builder, progress)


def ensure_flink(progress: Progress) -> Image:
    """The image of Apache Flink with mqtest's own job for it."""
    versions = f"{FLINK_VERSION}_{FLINK_CONNECTOR_VERSION}"
    return _ensure("flink", f"mqtest/flink:{FLINK_VERSION}", versions, _ensure_builder, progress)


def tool_versions() -> Mapping[str, str]:
    """Broker -> the version of its perf tool."""
    return {broker: PERF_TEST_VERSION if broker == "rabbitmq" else image_version(broker) for broker in OFFICIAL}


def ensure_tools(progress: Progress) -> Image:
    """The image of the brokers' own perf tools."""
    versions = "_".join(tool_versions().values())
    return _ensure("tools", f"mqtest/tools:{versions}", versions, _ensure_builder, progress)


def _ensure(
    recipe: str, tag: str, version: str, below: Callable[[docker.DockerClient, Progress], object], progress: Progress
) -> Image:
    """An image of ours, built where it is not there or not up to date, on what `below` makes sure of."""
    with _engine() as client:
        there = _present(client, tag, _digest(recipe, version))
        if there:
            return there
        below(client, progress)
        return _build(client, recipe, tag, version, progress)


def present(broker: str, version: str) -> Image | None:
    """The broker's image if it is on the engine and up to date; never pulls, never builds."""
    with _engine() as client:
        return _present(client, tag_of(broker, version), _digest(broker, version))


def present_agent() -> Image | None:
    """The agent's image if it is on the engine and up to date; never builds."""
    with _engine() as client:
        return _present(client, AGENT, _digest("agent", ""))


class _engine:  # noqa: N801 - reads as the statement that it is: with _engine() as client
    """A client of the engine; its errors, and an engine that goes away, become one line."""

    def __enter__(self) -> docker.DockerClient:
        try:
            self.client = docker.from_env(timeout=int(BUILD_S))
            self.client.ping()
        except (docker.errors.DockerException, *_GONE):
            raise EngineError("no Docker engine answers: start it, or run `make setup`") from None
        return self.client

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self.client.close()
        if isinstance(error, _GONE):
            raise EngineError(f"the Docker engine went away or fell silent: {error}") from None
        if isinstance(error, docker.errors.DockerException):
            raise ImageError(f"the Docker engine refused: {error}") from None


# --- what is there ---


def _present(client: docker.DockerClient, tag: str, digest: str) -> Image | None:
    """An official image under our tag is taken as it is; one of ours only if its recipe is the present one."""
    try:
        found = client.images.get(tag)
    except docker.errors.ImageNotFound:
        return None
    built = found.labels.get(RECIPE_LABEL)
    if built not in (None, digest):
        return None
    return Image(tag=tag, id=str(found.id), origin="official" if built is None else "built")


def _digest(recipe: str, version: str) -> str:
    """Names a recipe as it is now: the contents of its folder and of the base's, and the version."""
    digest = hashlib.sha256(version.encode())
    for folder in dict.fromkeys(("base", recipe)):
        for path in sorted((recipes() / "images" / folder).iterdir()):
            digest.update(b"\0" + path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


# --- pulling ---


@functools.cache
def can_pull() -> bool:
    """Whether this engine reaches the registry of the official images: asked once, in at most PROBE_S."""
    client = docker.from_env(timeout=int(PROBE_S))
    try:
        client.images.get_registry_data(DEBIAN)
    except (docker.errors.DockerException, *_GONE):
        return False
    finally:
        client.close()
    return True


def _adopt(client: docker.DockerClient, official: str, tag: str, progress: Progress) -> Image | None:
    """Puts our tag on an official image: on one that the user has, else on one that is pulled for it.

    None where it can be neither. What was pulled for us keeps only our tag, so that an uninstall finds it.
    """
    name, version = tag.rsplit(":", 1)
    had = _has(client, official)
    if not had and not _pull(client, official, progress):
        return None
    image = client.images.get(official)
    image.tag(name, version)
    if not had:
        client.images.remove(official, noprune=True)
    return Image(tag=tag, id=str(image.id), origin="official")


def _pull(client: docker.DockerClient, official: str, progress: Progress) -> bool:
    """False where the registry cannot be reached, or has no such image."""
    if not can_pull():
        progress(f"{official} cannot be pulled here, so a recipe of ours serves")
        return False
    progress(f"pulling {official}")
    name, version = official.rsplit(":", 1)
    deadline = time.monotonic() + PULL_S
    try:
        for _ in client.api.pull(name, tag=version, stream=True, decode=True):
            if time.monotonic() > deadline:
                raise ImageError(f"pulling {official} took longer than {PULL_S:.0f} s")
    except docker.errors.APIError as error:
        progress(f"{official} cannot be pulled ({error}), so a recipe of ours serves")
        return False
    return _has(client, official)


# --- building ---


def _ensure_base(client: docker.DockerClient, progress: Progress) -> None:
    if _present(client, BASE, _digest("base", "")):
        return
    if not _has(client, DEBIAN_HERE) and not _adopt(client, DEBIAN, DEBIAN_HERE, progress):
        _bootstrap(client, progress)
    _build(client, "base", BASE, "", progress)


def _ensure_builder(client: docker.DockerClient, progress: Progress) -> None:
    _ensure_base(client, progress)
    if not _present(client, BUILDER, _digest("builder", "")):
        _build(client, "builder", BUILDER, "", progress)


def _has(client: docker.DockerClient, tag: str) -> bool:
    try:
        client.images.get(tag)
    except docker.errors.ImageNotFound:
        return False
    return True


def _bootstrap(client: docker.DockerClient, progress: Progress) -> None:
    """Debian from the machine's own mirror, imported in the place of the image that could not be pulled."""
    if shutil.which("debootstrap") is None or os.geteuid() != 0:
        raise ImageError(
            f"{DEBIAN} cannot be pulled, and making it takes root and debootstrap: run `make setup` as root, "
            f"or `docker load` it"
        )
    progress(f"making {DEBIAN_HERE} with debootstrap, once")
    script = recipes() / "images" / "base" / "bootstrap.sh"
    name, version = DEBIAN_HERE.split(":")
    with (
        tempfile.TemporaryFile("w+") as said,
        subprocess.Popen(["sh", str(script)], stdout=subprocess.PIPE, stderr=said) as process,
    ):
        assert process.stdout is not None
        client.api.import_image_from_stream(
            process.stdout, repository=name, tag=version, changes=["LABEL mqtest=1", 'CMD ["/bin/bash"]']
        )
        failed = process.wait(timeout=60) != 0
        said.seek(0)
        last = said.read().strip().splitlines()[-1:]
    if failed:  # what was imported is the torn half of a system
        client.images.remove(DEBIAN_HERE, force=True)
        raise ImageError(f"debootstrap failed: {' '.join(last) or 'it gave no reason'}")


def _build(client: docker.DockerClient, recipe: str, tag: str, version: str, progress: Progress) -> Image:
    """Builds a recipe with the classic builder, in the host's network (where registries are reachable)."""
    began = time.monotonic()
    progress(f"building {tag}")
    lines = client.api.build(
        fileobj=_context(recipes() / "images" / recipe),
        custom_context=True,
        encoding="gzip",
        tag=tag,
        rm=True,
        forcerm=True,
        decode=True,
        network_mode="host",
        buildargs={"VERSION": version, **_base_argument(recipe), **_host_settings()},
        labels={RECIPE_LABEL: _digest(recipe, version)},
    )
    _watch(lines, tag, progress)
    progress(f"built {tag} in {time.monotonic() - began:.0f} s")
    return Image(tag=tag, id=str(client.images.get(tag).id), origin="built")


def _watch(lines: Iterator[Mapping[str, Any]], tag: str, progress: Progress) -> None:
    """Follows a build to its end; its failure becomes one line with the last thing that it said."""
    deadline = time.monotonic() + BUILD_S
    said = ""
    for line in lines:
        if "error" in line:
            raise ImageError(f"building {tag} failed: {said or line['error']} (docker: {line['error']})")
        text = str(line.get("stream", "")).strip()
        if text.startswith("Step "):
            progress(f"{tag}: {' '.join(text.split())[:80]}")
        elif text and not text.startswith("--->"):
            said = text.splitlines()[-1]
        if time.monotonic() > deadline:
            raise ImageError(f"building {tag} took longer than {BUILD_S:.0f} s")


def _base_argument(recipe: str) -> dict[str, str]:
    return {"FROM": DEBIAN_HERE} if recipe == "base" else {}


# --- what a build takes along from this machine ---


def _host_settings(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Proxies and Go's settings, as build arguments: Docker keeps none of the proxies in the image."""
    given = {name: environment[name] for name in (*_PROXIES, *_GO_SETTINGS) if environment.get(name)}
    if shutil.which("go"):  # settings may stand in Go's own file instead
        asked = subprocess.run(["go", "env", *_GO_SETTINGS], capture_output=True, text=True, timeout=30, check=False)
        values = asked.stdout.splitlines() if asked.returncode == 0 else []
        given |= {name: value for name, value in zip(_GO_SETTINGS, values, strict=False) if value}
    return given


def _host_certificates(environment: Mapping[str, str] = os.environ) -> bytes:
    """The certificates that this machine trusts; a network that inspects TLS puts its own among them."""
    for candidate in (environment.get("SSL_CERT_FILE"), "/etc/ssl/certs/ca-certificates.crt"):
        if candidate and Path(candidate).is_file():
            return Path(candidate).read_bytes()
    return b""


def _maven_settings() -> bytes:
    path = Path.home() / ".m2" / "settings.xml"
    return path.read_bytes() if path.is_file() else b"<settings/>\n"


def _context(folder: Path) -> io.BytesIO:
    """The recipe's folder and the host's files beside it, as the gzipped tar that a build starts from."""
    files = {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}
    files |= {"host-ca.pem": _host_certificates(), "settings.xml": _maven_settings()}
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), 0o644
            tar.addfile(entry, io.BytesIO(content))
    packed.seek(0)
    return packed


def _ensure_all(progress: Progress) -> None:
    for broker in OFFICIAL:
        ensure_image(broker, image_version(broker), progress)
    ensure_agent(progress)
    ensure_toxiproxy(progress)
    with _engine() as client:  # the stages of builds, and images that a new recipe has replaced
        client.images.prune(filters={"dangling": True, "label": "mqtest"})


if __name__ == "__main__":
    try:
        _ensure_all(lambda line: print(line, file=sys.stderr, flush=True))
    except MqtestError as error:
        sys.exit(f"mqtest: {error}")
