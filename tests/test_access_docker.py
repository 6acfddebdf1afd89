"""`mqtest attach` to real brokers that want a login, and speak TLS: one node each, in a container of its own."""

from __future__ import annotations

import io
import shutil
import tarfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
import trustme
from cryptography.hazmat.primitives import serialization

from mqtest.cli import main
from mqtest.clock import wait_until
from mqtest.cluster import images, leftovers
from mqtest.cluster.engine import connect, labels
from mqtest.cluster.locks import RunLock
from mqtest.profile import image_version

pytestmark = [pytest.mark.docker, pytest.mark.long, pytest.mark.timeout(600)]

RUN = "test-access"
USER, PASSWORD = "somebody", "x1y2z3w4"

RABBITMQ = f"""
PATH=/usr/lib/rabbitmq/bin:$PATH HOME=/var/lib/rabbitmq RABBITMQ_LOGS=- RABBITMQ_CONFIG_FILE=/test/rabbitmq.conf
export PATH HOME RABBITMQ_LOGS RABBITMQ_CONFIG_FILE
cat >/test/rabbitmq.conf <<X
listeners.tcp = none
listeners.ssl.default = 5671
ssl_options.cacertfile = /test/ca.pem
ssl_options.certfile = /test/cert.pem
ssl_options.keyfile = /test/key.pem
ssl_options.verify = verify_none
default_user = {USER}
default_pass = {PASSWORD}
loopback_users = none
X
exec rabbitmq-server
"""
KAFKA = f"""
mkdir /test/data
{{
cat <<X
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@localhost:9093
controller.listener.names=CONTROLLER
listeners=SASL_SSL://:9092,CONTROLLER://localhost:9093
advertised.listeners=SASL_SSL://$ADDRESS:9092
listener.security.protocol.map=CONTROLLER:PLAINTEXT,SASL_SSL:SASL_SSL
inter.broker.listener.name=SASL_SSL
sasl.enabled.mechanisms=PLAIN
sasl.mechanism.inter.broker.protocol=PLAIN
listener.name.sasl_ssl.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required \\
  username="{USER}" password="{PASSWORD}" user_{USER}="{PASSWORD}";
ssl.keystore.type=PEM
ssl.keystore.location=/test/both.pem
ssl.truststore.type=PEM
ssl.truststore.location=/test/ca.pem
log.dirs=/test/data
offsets.topic.replication.factor=1
min.insync.replicas=1
X
}} >/test/kafka.properties
cat /test/key.pem /test/cert.pem >/test/both.pem
java -Xmx128m -cp '/opt/kafka/libs/*' kafka.tools.StorageTool format -t MkU3OEVBNTcwNTJENDM2Qg -c /test/kafka.properties
exec java -Xmx400m -cp '/opt/kafka/libs/*' kafka.Kafka /test/kafka.properties
"""
ROCKETMQ = f"""
lib=$(echo /home/rocketmq/rocketmq-*/lib)
export ROCKETMQ_HOME="${{lib%/lib}}"
cat >/test/broker.conf <<X
brokerClusterName=test
brokerName=test
brokerId=0
brokerIP1=$ADDRESS
namesrvAddr=127.0.0.1:9876
storePathRootDir=/test/store
mappedFileSizeCommitLog=16777216
mappedFileSizeConsumeQueue=1200000
maxHashSlotNum=50000
maxIndexNum=200000
timerWheelEnable=false
authConfigPath=/test/auth
authenticationEnabled=true
authenticationProvider=org.apache.rocketmq.auth.authentication.provider.DefaultAuthenticationProvider
authenticationMetadataProvider=org.apache.rocketmq.auth.authentication.provider.LocalAuthenticationMetadataProvider
initAuthenticationUser={{"username":"{USER}","password":"{PASSWORD}"}}
innerClientAuthenticationCredentials={{"accessKey":"{USER}","secretKey":"{PASSWORD}"}}
X
run() {{
  java -Xmx300m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Duser.home=/test \\
    --add-opens=java.base/java.lang=ALL-UNNAMED --add-opens=java.base/java.nio=ALL-UNNAMED \\
    --add-opens=java.base/sun.nio.ch=ALL-UNNAMED --add-opens=java.base/jdk.internal.misc=ALL-UNNAMED \\
    --add-exports=java.base/jdk.internal.ref=ALL-UNNAMED -Dtls.server.mode=permissive -Dtls.test.mode.enable=false \\
    -Dtls.server.certPath=/test/cert.pem -Dtls.server.keyPath=/test/key.pem -Dtls.server.trustCertPath=/test/ca.pem \\
    -cp "$ROCKETMQ_HOME/conf:$lib/*" "$@"
}}
run org.apache.rocketmq.namesrv.NamesrvStartup &
until (: </dev/tcp/127.0.0.1/9876) 2>/dev/null; do sleep 0.2; done  # or it registers half a minute later
run org.apache.rocketmq.broker.BrokerStartup -c /test/broker.conf
"""


@contextmanager
def broker(name: str, script: str, tmp_path: Path) -> Iterator[str]:
    """The address of a container that runs the script once its certificate, made for that address, is in /test."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    with RunLock(RUN):
        image = images.ensure_image(name, image_version(name), print)
        client = connect()
        try:
            container = client.containers.run(
                image.id,
                ["-c", "until [ -e /test/run ]; do sleep 0.1; done; exec bash /test/run"],
                entrypoint="bash",
                user="root",
                labels=labels(RUN),
                mem_limit="1200m",
                detach=True,
            )
            container.reload()
            (network,) = container.attrs["NetworkSettings"]["Networks"].values()
            address = str(network["IPAddress"])
            own = authority.issue_cert(address)
            files = {
                "ca.pem": authority.cert_pem.bytes(),
                "cert.pem": own.cert_chain_pems[0].bytes(),
                "key.pem": _pkcs8(own.private_key_pem.bytes()),
                "run": f"export ADDRESS={address}\n{script}".encode(),
            }
            container.put_archive("/", _packed(files))
            try:
                yield address
            finally:
                print(container.logs(tail=40).decode(errors="replace"))  # pytest shows it where the test fails
        finally:
            client.close()
            leftovers.close_run(RUN, print)


def _pkcs8(pem: bytes) -> bytes:
    """The one form of a key that Java reads."""
    key = serialization.load_pem_private_key(pem, None)
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return key.private_bytes(*form)


def _packed(files: Mapping[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(f"test/{name}")
            entry.size, entry.mtime, entry.mode = len(content), int(time.time()), 0o644
            tar.addfile(entry, io.BytesIO(content))
    return packed.getvalue()


def attach(name: str, where: str, keys: Mapping[str, str], tmp_path: Path, *words: str) -> int:
    """The exit code of `mqtest attach` with these credentials; only its run is in `results`."""
    path, results = tmp_path / "credentials.toml", tmp_path / "results"
    path.write_text("".join(f'"{key}" = "{value}"\n' for key, value in keys.items()), encoding="utf-8")
    shutil.rmtree(results, ignore_errors=True)
    asked = (
        "attach",
        name,
        "--bootstrap",
        where,
        "--credentials",
        str(path),
        "--for",
        "4s",
        "--replicas",
        "1",
        "--remove",
    )
    return main([*asked, "--results", str(results), "--plain", *words])


@pytest.mark.parametrize(
    ("name", "script", "port", "profile", "keys"),
    [
        ("rabbitmq", RABBITMQ, 5671, "quorum", {"username": USER, "password": PASSWORD, "ca_file": "ca.pem"}),
        (
            "kafka",
            KAFKA,
            9092,
            "acks-all",
            {
                "security.protocol": "SASL_SSL",
                "sasl.mechanism": "PLAIN",
                "sasl.username": USER,
                "sasl.password": PASSWORD,
                "ssl.ca.location": "ca.pem",
            },
        ),
        ("rocketmq", ROCKETMQ, 9876, "async-flush", {"access_key": USER, "secret_key": PASSWORD, "ca_file": "ca.pem"}),
    ],
    ids=["rabbitmq", "kafka", "rocketmq"],
)
def test_login_and_tls(
    name: str, script: str, port: int, profile: str, keys: Mapping[str, str], tmp_path: Path
) -> None:
    keys = {key: str(tmp_path / value) if value == "ca.pem" else value for key, value in keys.items()}
    with broker(name, script, tmp_path) as address:
        asked = (tmp_path, "--profile", profile)
        wait_until(lambda: attach(name, f"{address}:{port}", keys, *asked) == 0, 240, f"{name} to let us in", poll_s=1)
        (report,) = (tmp_path / "results").glob("*/report.md")
        written = [path for path in (tmp_path / "results").rglob("*") if path.is_file()]
        assert [path for path in written if PASSWORD.encode() in path.read_bytes()] == []
        assert "kept" in report.read_text(encoding="utf-8")
        wrong = {key: "guessed" if value == PASSWORD else value for key, value in keys.items()}
        assert attach(name, f"{address}:{port}", wrong, *asked) != 0
