"""TLS of the clients whose library leaves it to Python: certificates from files."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from typing import Final

from mqtest.clients import ClientError
from mqtest.model import Value

ACCESS: Final = ("tls", "ca_file", "cert_file", "key_file", "key_password", "check_host")
"""`tls` alone takes the system's certificates; `check_host = false` takes any name in a certificate that is trusted"""


def context(access: Mapping[str, Value]) -> ssl.SSLContext | None:
    """None where TLS is not asked for; raises ClientError for certificates that cannot be used."""
    if not (_is(access, "tls", default=False) or "ca_file" in access or "cert_file" in access):
        return None
    try:
        made = ssl.create_default_context(cafile=_text(access, "ca_file"))
        if "cert_file" in access:
            made.load_cert_chain(str(access["cert_file"]), _text(access, "key_file"), _text(access, "key_password"))
    except OSError as error:
        raise ClientError(f"TLS: the certificates cannot be used: {error}") from error
    made.check_hostname = _is(access, "check_host", default=True)
    return made


def _is(access: Mapping[str, Value], key: str, *, default: bool) -> bool:
    """A variable of the environment is a text."""
    return access.get(key, default) in (True, "true", "1")


def _text(access: Mapping[str, Value], key: str) -> str | None:
    return str(access[key]) if key in access else None
