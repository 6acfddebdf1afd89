"""Images: what a build takes along, when an image is built again, what recipes may not name; and the real ones."""

from __future__ import annotations

import contextlib
import re
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest

from mqtest.cluster import images
from mqtest.errors import ImageError
from mqtest.paths import recipes
from mqtest.profile import image_version

RECIPES = ("base", "builder", "agent", "toxiproxy", "kafka", "rabbitmq", "rocketmq", "flink", "tools")
TREE = Path(__file__).resolve().parent.parent


def quiet(line: str) -> None:
    """Progress that nobody reads."""


@pytest.fixture
def own_recipes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the recipes, to change."""
    shutil.copytree(recipes() / "images", tmp_path / "images")
    monkeypatch.setattr(images, "recipes", lambda: tmp_path)
    return tmp_path / "images"


def test_a_tag_names_broker_and_version() -> None:
    assert images.tag_of("kafka", "4.3.1") == "mqtest/kafka:4.3.1"


def test_an_unknown_broker_is_refused_before_the_engine_is_asked() -> None:
    with pytest.raises(ImageError, match="kafka, rabbitmq, rocketmq"):
        images.ensure_image("pulsar", "1", quiet)


def test_a_recipe_is_another_one_when_it_its_base_or_the_version_changes(own_recipes: Path) -> None:
    before = images._digest("kafka", "4.3.1")
    assert images._digest("kafka", "4.3.1") == before
    assert images._digest("kafka", "4.3.2") != before
    assert images._digest("rocketmq", "4.3.1") != before
    (own_recipes / "rabbitmq" / "Dockerfile").write_text("FROM other\n")
    assert images._digest("kafka", "4.3.1") == before
    (own_recipes / "kafka" / "pom.xml").write_text("<project/>")
    changed = images._digest("kafka", "4.3.1")
    assert changed != before
    (own_recipes / "base" / "Dockerfile").write_text("FROM other\n")
    assert images._digest("kafka", "4.3.1") != changed


def test_a_build_takes_the_certificates_that_this_machine_trusts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bundle.pem").write_bytes(b"OURS")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "bundle.pem"))
    with tarfile.open(fileobj=images._context(recipes() / "images" / "kafka")) as tar:
        names = tar.getnames()
        bundle = tar.extractfile("host-ca.pem")
        assert bundle is not None
        assert bundle.read() == b"OURS"
    assert {"Dockerfile", "pom.xml", "train-cds.sh", "settings.xml"} <= set(names)


def test_a_bundle_that_is_not_there_is_no_bundle(tmp_path: Path) -> None:
    at_home = Path("/etc/ssl/certs/ca-certificates.crt")
    expected = at_home.read_bytes() if at_home.is_file() else b""
    assert images._host_certificates({"SSL_CERT_FILE": str(tmp_path / "nowhere.pem")}) == expected


def test_a_build_takes_proxies_and_gos_settings_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    given = images._host_settings(
        {"https_proxy": "http://192.0.2.1:3128", "GOPROXY": "off", "NO_PROXY": "", "SECRET": "x"}
    )
    assert given == {"https_proxy": "http://192.0.2.1:3128", "GOPROXY": "off"}


def test_a_failed_build_is_one_line_with_what_was_said_last() -> None:
    lines = [
        {"stream": "Step 1/2 : FROM x\n"},
        {"stream": " ---> 0123\n"},
        {"stream": "some\nDebian forky carries 9.9\n"},
        {"error": "returned a non-zero code: 1"},
    ]
    said: list[str] = []
    with pytest.raises(ImageError, match=r"mqtest/x:1 failed: Debian forky carries 9\.9") as caught:
        images._watch(iter(lines), "mqtest/x:1", said.append)
    assert "\n" not in str(caught.value)
    assert said == ["mqtest/x:1: Step 1/2 : FROM x"]


def recipe_files() -> list[Path]:
    """Everything that brings software onto a machine or into an image."""
    files = [path for path in (recipes() / "images").rglob("*") if path.is_file()]
    return [*files, TREE / "compose" / "setup.sh", TREE / "Makefile", TREE / ".ci" / "run"]


@pytest.mark.parametrize("path", recipe_files(), ids=lambda path: f"{path.parent.name}/{path.name}")
def test_no_recipe_names_a_host_to_get_software_from(path: Path) -> None:
    text = path.read_text().replace('xmlns="http://maven.apache.org/POM/4.0.0"', "")
    hosts = [host for host in re.findall(r"[a-z]+://([^\s/:\"']+)", text) if not host.startswith(("127.0.0.1", "$"))]
    assert hosts == []
    if path.name == "Dockerfile":
        bases = re.findall(r"^FROM (\S+)", text, re.MULTILINE)
        assert all(base.startswith("mqtest/") or base in ("scratch", "${FROM}") for base in bases)
        assert "LABEL mqtest=1" in text


def test_each_recipe_is_there() -> None:
    assert {path.name for path in (recipes() / "images").iterdir() if path.is_dir()} == set(RECIPES)


def test_the_perf_tools_have_their_brokers_versions_where_they_are_one_project() -> None:
    found = images.tool_versions()
    assert {broker: found[broker] for broker in ("kafka", "rocketmq")} == {
        broker: image_version(broker) for broker in ("kafka", "rocketmq")
    }
    assert found["rabbitmq"] == images.PERF_TEST_VERSION


@pytest.fixture(scope="module")
def client() -> Iterator[docker.DockerClient]:
    """An engine's client."""
    with contextlib.closing(docker.from_env(timeout=60)) as made:
        yield made


def inside(client: docker.DockerClient, tag: str, script: str) -> str:
    """What a shell says in a throwaway container without a network."""
    output: bytes = client.containers.run(
        tag, ["sh", "-c", script], entrypoint=[], network_mode="none", remove=True, stderr=False
    )
    return output.decode().strip()


@pytest.mark.docker
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    ("broker", "script", "word"),
    [
        ("kafka", "ls /opt/kafka/libs /opt/kafka", "kafka.jsa"),
        ("kafka", "ls /opt/kafka/libs", "kafka-tools-"),
        ("rabbitmq", "command -v rabbitmq-server && echo $HOME", "/var/lib/rabbitmq"),
        ("rocketmq", "ls /home/rocketmq/rocketmq-*/lib", "rocketmq-proxy-"),
        ("rocketmq", "ls /home/rocketmq/rocketmq-*/lib", "rocketmq-namesrv-"),
    ],
)
def test_a_brokers_image_carries_its_software(client: docker.DockerClient, broker: str, script: str, word: str) -> None:
    image = images.ensure_image(broker, image_version(broker), quiet)
    assert image.tag == images.tag_of(broker, image_version(broker))
    assert image.id.startswith("sha256:")
    assert image.origin in ("official", "built")
    assert images.present(broker, image_version(broker)) == image
    assert word in inside(client, image.tag, script)


@pytest.mark.docker
@pytest.mark.timeout(1800)
def test_the_class_data_archive_fits_the_java_beside_it(client: docker.DockerClient) -> None:
    image = images.ensure_image("kafka", image_version("kafka"), quiet)
    if image.origin == "official":
        pytest.skip("the archive of the official image is not ours")
    java = "java -Xshare:on -XX:SharedArchiveFile=/opt/kafka/kafka.jsa -cp '/opt/kafka/libs/*' kafka.Kafka --version"
    assert image_version("kafka") in inside(client, image.tag, java)


@pytest.mark.docker
@pytest.mark.timeout(1800)
def test_the_agent_has_its_tools(client: docker.DockerClient) -> None:
    tools = "python3 iptables ip tc nsenter losetup mkfs.ext4 mkfs.xfs mount"
    image = images.ensure_agent(quiet)
    said = inside(client, image.tag, f"for tool in {tools}; do command -v $tool || echo lacks $tool; done")
    assert "lacks" not in said
    assert images.present_agent() == image


@pytest.mark.docker
@pytest.mark.timeout(1800)
def test_toxiproxy_runs(client: docker.DockerClient) -> None:
    image = images.ensure_toxiproxy(quiet)
    said: bytes = client.containers.run(image.tag, ["-version"], network_mode="none", remove=True)
    assert images.TOXIPROXY_VERSION in said.decode()


@pytest.mark.docker
def test_what_is_there_is_not_built_again() -> None:
    images.ensure_agent(quiet)
    said: list[str] = []
    images.ensure_agent(said.append)
    assert said == []
