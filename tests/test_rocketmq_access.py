"""RocketMQ's wire client where a broker wants a login, TLS, or both."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from mqtest.clients import ClientError, tls
from mqtest.clients.rocketmq_codec import Login, Request, SendFrames, take_frames
from mqtest.clients.rocketmq_link import Link, login
from tests.rocketmq_server import Asked, Server, answer

BIG = bytes(3 << 20)


def test_a_signature_is_over_the_values_in_the_order_of_their_names_and_the_body() -> None:
    signed = Login("key", "secret").sign({"b": "2", "a": "1"}, b"body")
    assert signed == {"b": "2", "a": "1", "AccessKey": "key", "Signature": "RO+2E9a0n4A4OVx5POCCEy+V7cw="}


def test_a_send_is_signed_with_the_fields_that_it_has() -> None:
    plain, signed = (SendFrames("t", "g", who).frame(1, 3, 5, b"body") for who in (None, Login("key", "secret")))
    (sent,), (named,) = take_frames(bytearray(plain)), take_frames(bytearray(signed))
    assert named.header.fields == Login("key", "secret").sign(sent.header.fields or {}, b"body")
    assert (named.body, named.header.code, named.header.opaque) == (b"body", 310, 1)


def test_half_a_login_is_refused() -> None:
    assert login({}) is None
    with pytest.raises(ClientError, match="both access_key and secret_key"):
        login({"access_key": "key"})


@pytest.fixture
def authority(tmp_path: Path) -> trustme.CA:
    made = trustme.CA()
    made.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    return made


@pytest.fixture
def server(authority: trustme.CA) -> Iterator[Server]:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("broker.test").configure_cert(context)
    made = Server(lambda asked: answer(asked, body=BIG), context=context)
    yield made
    made.close()


def test_answers_larger_than_a_record_come_whole_through_tls(server: Server, tmp_path: Path) -> None:
    access = {"ca_file": str(tmp_path / "ca.pem"), "check_host": False, "access_key": "key", "secret_key": "s"}
    link = Link(server.address, 2, access)
    for _ in range(3):
        assert link.call(Request.GET_BROKER_CONFIG, {"a": "1"}, bytes(1 << 20)).body == BIG
    link.close()
    asked: Asked = server.asked[-1]
    assert asked.fields == Login("key", "s").sign({"a": "1"}, bytes(1 << 20))


@pytest.mark.parametrize(("trusted", "check_host"), [(False, False), (True, True)])
def test_a_server_that_is_not_trusted_gets_no_request(
    server: Server, tmp_path: Path, trusted: bool, check_host: bool
) -> None:
    if not trusted:
        trustme.CA().cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    with pytest.raises(ClientError, match=r"TLS: .*certificate"):
        Link(server.address, 2, {"ca_file": str(tmp_path / "ca.pem"), "check_host": check_host})
    assert server.asked == []


def test_tls_only_where_it_is_asked_for(tmp_path: Path) -> None:
    assert tls.context({}) is None
    assert tls.context({"tls": "false"}) is None
    asked = tls.context({"tls": "true"})
    assert asked is not None
    assert asked.check_hostname
    with pytest.raises(ClientError, match="certificates cannot be used"):
        tls.context({"ca_file": str(tmp_path / "none.pem")})
