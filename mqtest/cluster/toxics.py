"""toxiproxy-python, kept in hand: one Toxiproxy at its address, every call bounded, every failure a ClusterError.

What the library does by itself, and what is done about it here, once:
- it keeps host and port in class attributes, so that a process can talk to one Toxiproxy only: set before each call,
  under a lock;
- its calls have no timeout, and go where the environment's HTTP proxy says: all of them pass through `_Http`;
- it raises for 400, 404 and 409 alone and takes any other error for success: `_Http` raises for the rest;
- its exceptions carry the server's answer as bytes of JSON: `_said` makes a line of it.
What an attribute means: README of Toxiproxy 2.12, "Toxics".
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

import requests
import toxiproxy.api
from toxiproxy.api import APIConsumer
from toxiproxy.exceptions import InvalidToxic, NotFound, ProxyExists
from toxiproxy.proxy import Proxy
from toxiproxy.server import Toxiproxy as Server

from mqtest.cluster import STREAMS
from mqtest.errors import ClusterError
from mqtest.model import Value

API_PORT: Final = 8474
ANSWER_S: Final = 20.0
"""longer than Toxiproxy waits for a connection that a toxic is taken from (5 s a piece of data, link.go)"""
_KNOWN: Final = (400, 404, 409)
_lock = threading.Lock()


class Toxic(NamedTuple):
    """One toxic on one direction of a proxy."""

    kind: str
    stream: str
    attributes: Mapping[str, int]


_KINDS: Final[Mapping[str, tuple[str, Mapping[str, str]]]] = {
    "link-latency": ("latency", {"latency": "latency_ms"}),
    "link-jitter": ("latency", {"latency": "jitter_ms", "jitter": "jitter_ms"}),
    "link-bandwidth": ("bandwidth", {"rate": "rate_kb_per_s"}),
    "link-reset": ("reset_peer", {"timeout": "after_ms"}),
    "link-timeout": ("timeout", {"timeout": "timeout_ms"}),
    "link-slicer": ("slicer", {"average_size": "size_bytes", "size_variation": "spread_bytes", "delay": "gap_us"}),
}
"""action → Toxiproxy's kind, and its attribute → our setting"""
_OF_A_ROUND_TRIP: Final = ("latency_ms", "jitter_ms")


def toxics(action: str, settings: Mapping[str, Value]) -> list[Toxic]:
    """What an action puts on each proxy. Delays are of a round trip: with both directions, half of it on each."""
    chosen = str(settings["stream"])
    streams = STREAMS[1:] if chosen == STREAMS[0] else (chosen,)
    kind, named = _KINDS[action]
    attributes = {
        attribute: int(float(settings[key]) / (len(streams) if key in _OF_A_ROUND_TRIP else 1))
        for attribute, key in named.items()
    }
    return [Toxic(kind, stream, attributes) for stream in streams]


class Toxiproxy:
    """One Toxiproxy server. Raises ClusterError."""

    def __init__(self, host: str) -> None:
        self._host = host

    def version(self) -> str:
        """The server's own word."""
        with self._asking("version"):
            found: bytes = APIConsumer.get("/version").content
            return str(json.loads(found)["version"])

    def create(self, name: str, listen: str, upstream: str) -> None:
        """A proxy; `listen` and `upstream` are host:port."""
        with self._asking(f"proxy {name}"):
            made = Server().create(upstream=upstream, name=name, listen=listen)
        if made.listen != listen:
            raise ClusterError(f"Toxiproxy: proxy {name} listens at {made.listen}, not at {listen}")

    def add(self, proxy: str, name: str, toxic: Toxic) -> None:
        """Put a toxic on a proxy; it acts at once, on open connections as well."""
        with self._asking(f"{toxic.kind} on {proxy}"):
            _proxy(proxy).add_toxic(
                name=name, type=toxic.kind, stream=toxic.stream, toxicity=1.0, attributes=dict(toxic.attributes)
            )

    def listed(self, proxy: str) -> dict[str, Toxic]:
        """By name: what acts on a proxy now, in the server's words."""
        with self._asking(f"the toxics of {proxy}"):
            found = _proxy(proxy).toxics()
        return {name: Toxic(one.type, one.stream, one.attributes) for name, one in found.items()}

    def remove(self, proxy: str, name: str) -> None:
        """Take a toxic away; one that is not there is none."""
        with self._asking(f"taking {name} from {proxy}"), contextlib.suppress(NotFound):
            _proxy(proxy).destroy_toxic(name)

    @contextlib.contextmanager
    def _asking(self, what: str) -> Iterator[None]:
        with _lock:
            Server().update_api_consumer(self._host, API_PORT)
            toxiproxy.api.requests = _Http
            try:
                yield
            except (InvalidToxic, NotFound, ProxyExists) as error:
                raise ClusterError(f"Toxiproxy: {what}: {_said(error)}") from None
            except requests.RequestException as error:
                raise ClusterError(f"Toxiproxy: {what}: no answer: {error}") from None
            except (ValueError, KeyError, TypeError) as error:
                raise ClusterError(f"Toxiproxy: {what}: an answer that makes no sense: {error}") from None


def _proxy(name: str) -> Proxy:
    """The library's object without asking the server for it."""
    return Proxy(name=name, upstream="", listen="", enabled=True)


class _Http:
    """Stands where the library has `requests`."""

    @staticmethod
    def get(**request: Any) -> requests.Response:
        return _bounded("GET", **request)

    @staticmethod
    def post(**request: Any) -> requests.Response:
        return _bounded("POST", **request)

    @staticmethod
    def delete(**request: Any) -> requests.Response:
        return _bounded("DELETE", **request)


def _bounded(method: str, **request: Any) -> requests.Response:
    with requests.Session() as session:
        session.trust_env = False
        answer = session.request(method, timeout=ANSWER_S, **request)
    if answer.status_code not in _KNOWN:
        answer.raise_for_status()
    return answer


def _said(error: Exception) -> str:
    text = error.args[0].decode(errors="replace") if error.args and isinstance(error.args[0], bytes) else str(error)
    try:
        return str(json.loads(text)["error"])
    except (ValueError, KeyError, TypeError):
        return text or type(error).__name__
