"""Links without an engine: what an action puts on a proxy, what proves that it bit, and toxiproxy-python kept in hand
against a make-believe Toxiproxy."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from mqtest.brokers import broker_module
from mqtest.cluster import links, toxics
from mqtest.cluster.toxics import Toxic, Toxiproxy
from mqtest.errors import ClusterError, UsageError
from mqtest.faults import FAULTS
from mqtest.model import Node, Value
from mqtest.profile import find_profile
from mqtest.scenario import load

ON_LINKS = [name for name, action in FAULTS.items() if action.on_links]


# --- what an action puts on a proxy ---


@pytest.mark.parametrize(
    ("action", "changed", "expected"),
    [
        ("link-latency", {}, [("latency", "upstream", {"latency": 25}), ("latency", "downstream", {"latency": 25})]),
        ("link-latency", {"stream": "upstream"}, [("latency", "upstream", {"latency": 50})]),
        ("link-jitter", {"stream": "downstream"}, [("latency", "downstream", {"latency": 50, "jitter": 50})]),
        ("link-bandwidth", {"rate_kb_per_s": 9}, [("bandwidth", s, {"rate": 9}) for s in ("upstream", "downstream")]),
        ("link-reset", {"stream": "upstream"}, [("reset_peer", "upstream", {"timeout": 0})]),
        ("link-timeout", {"stream": "upstream"}, [("timeout", "upstream", {"timeout": 2000})]),
        (
            "link-slicer",
            {"stream": "upstream"},
            [("slicer", "upstream", {"average_size": 256, "size_variation": 128, "delay": 100})],
        ),
    ],
)
def test_toxics_of_an_action(action: str, changed: Mapping[str, Value], expected: list[tuple[object, ...]]) -> None:
    assert toxics.toxics(action, {**FAULTS[action].settings, **changed}) == expected


def test_every_action_on_links_has_toxics() -> None:
    for action in ON_LINKS:
        assert toxics.toxics(action, FAULTS[action].settings)


# --- what proves it ---


@pytest.mark.parametrize(
    ("action", "before", "after", "shows"),
    [
        ("link-latency", [1.0, 30.0], [51.0, 80.0], True),
        ("link-latency", [1.0, 30.0], [1.0, 80.0], False),  # one came through as before: the others were noise
        ("link-latency", [1.0], [None], False),
        ("link-latency", [None], [51.0], False),
        ("link-jitter", [1.0, 1.0], [9.0, 70.0], True),
        ("link-jitter", [1.0, 1.0], [60.0, 70.0], False),
        ("link-reset", [1.0], [None], True),
        ("link-reset", [1.0], [1.0], False),
        ("link-reset", [None], [None], False),  # it was dead before
        ("link-timeout", [1.0], [1.0, None], True),
        ("link-slicer", [1.0], [1.0], True),
        ("link-slicer", [1.0], [None], False),
    ],
)
def test_what_probes_show(action: str, before: list[float | None], after: list[float | None], shows: bool) -> None:
    assert links._shows(action, FAULTS[action].settings, before, after) is shows


@contextmanager
def listening(answer: Callable[[socket.socket], object]) -> Iterator[str]:
    """A peer that does `answer` to each connection once it has said something."""
    with socket.create_server(("127.0.0.1", 0)) as listener, ExitStack() as kept:

        def serve() -> None:
            while True:
                try:
                    connection = kept.enter_context(listener.accept()[0])
                except OSError:
                    return
                connection.recv(100)
                answer(connection)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(5)


def test_a_probe_of_one_that_answers() -> None:
    with listening(lambda c: c.sendall(b"hello")) as address:
        seen = links.probe(address, b"hi", 5)
    assert len(seen) == 5
    assert all(ms is not None and 0 <= ms < 1000 for ms in seen)


def test_a_probe_of_one_that_closes_or_is_not_there() -> None:
    with listening(lambda c: c.shutdown(socket.SHUT_RDWR)) as address:
        assert links.probe(address, b"hi", 5) == [None]
    assert links.probe(address, b"hi", 5) == [None]


def test_a_probe_of_one_that_is_silent_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(links, "_ANSWER_S", 0.1)
    with listening(lambda _: None) as address:
        assert links.probe(address, b"hi", 5) == [None]


# --- toxiproxy-python, kept in hand ---


@contextmanager
def toxiproxy(answers: Mapping[str, tuple[int, object]]) -> Iterator[list[tuple[str, object]]]:
    """A server that answers `METHOD /path` with (status, JSON); 599: not at all. Yields what it was asked."""
    asked: list[tuple[str, object]] = []
    over = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            said = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            asked.append((f"{self.command} {self.path}", json.loads(said or b"null")))
            status, body = answers.get(f"{self.command} {self.path}", (404, {"error": "proxy not found"}))
            if status == 599:
                over.wait(5)
                return
            text = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        do_GET = do_POST = do_DELETE = answer  # noqa: N815 - the names that the base class looks for

        def log_message(self, *_: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(toxics, "API_PORT", server.server_address[1])
        yield asked
    over.set()
    server.shutdown()
    server.server_close()
    thread.join(5)


LATENCY = Toxic("latency", "upstream", {"latency": 5})


def test_what_is_asked_and_what_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")  # nobody is there
    here = Toxiproxy("127.0.0.1")
    there = {"name": "n", "listen": "1.1.1.1:1", "upstream": "2.2.2.2:2", "enabled": True}
    toxic = {"name": "t", "type": "latency", "stream": "upstream", "toxicity": 1.0, "attributes": {"latency": 5}}
    answers = {
        "GET /version": (200, {"version": "2.12.0"}),
        "GET /proxies": (200, {}),
        "POST /proxies": (201, there),
        "POST /proxies/n/toxics": (200, toxic),
        "GET /proxies/n/toxics": (200, [toxic]),
        "DELETE /proxies/n/toxics/t": (204, ""),
    }
    with toxiproxy(answers) as asked:
        assert here.version() == "2.12.0"
        here.create("n", "1.1.1.1:1", "2.2.2.2:2")
        here.add("n", "t", LATENCY)
        assert here.listed("n") == {"t": LATENCY}
        here.remove("n", "t")
        here.remove("n", "gone")
    assert ("POST /proxies/n/toxics", toxic) in asked


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (400, {"error": "invalid toxic type"}, "latency on n: invalid toxic type"),
        (404, {"error": "proxy not found"}, "latency on n: proxy not found"),
        (409, {"error": "toxic already exists"}, "latency on n: toxic already exists"),
        (500, {"error": "broken"}, "latency on n: no answer: 500"),
        (599, None, "latency on n: no answer: "),
    ],
)
def test_every_failure_is_told(status: int, body: object, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if status == 599:
        monkeypatch.setattr(toxics, "ANSWER_S", 0.2)
    with toxiproxy({"POST /proxies/n/toxics": (status, body)}), pytest.raises(ClusterError) as error:
        Toxiproxy("127.0.0.1").add("n", "t", LATENCY)
    assert said in str(error.value)


def test_nonsense_and_another_address_are_told() -> None:
    elsewhere = {"name": "n", "listen": "1.1.1.1:9", "upstream": "2.2.2.2:2", "enabled": True}
    answers = {"GET /version": (200, {}), "GET /proxies": (200, {}), "POST /proxies": (201, elsewhere)}
    with toxiproxy(answers):
        with pytest.raises(ClusterError, match="makes no sense"):
            Toxiproxy("127.0.0.1").version()
        with pytest.raises(ClusterError, match=r"listens at 1\.1\.1\.1:9, not at 1\.1\.1\.1:1"):
            Toxiproxy("127.0.0.1").create("n", "1.1.1.1:1", "2.2.2.2:2")


# --- who goes through them ---


@pytest.mark.parametrize("profile", ["kafka/acks-all", "rocketmq/sync-flush-all-ack"])
def test_clients_are_told_the_proxies(profile: str) -> None:
    name = profile.partition("/")[0]
    nodes = [Node(f"{name}-{n}", f"198.19.7.1{n}", via=f"{links.via('198.19.7')}{n}") for n in (1, 2, 3)]
    wiring = broker_module(name).connect(find_profile(profile), nodes, 1).wiring()
    proxies = tuple(f"198.19.7.30:2000{n}" for n in (1, 2, 3))
    if name == "kafka":
        assert wiring.addresses == proxies
    else:
        assert wiring.via == {f"198.19.7.1{n}:10911": proxies[n - 1] for n in (1, 2, 3)}


def scenario(folder: Path, profile: str, fault: str, more: str = "") -> Path:
    path = folder / "x.toml"
    path.write_text(f'title = "t"\nquestion = "q"\nprofiles = ["{profile}"]\nfaults = ["{fault}"]\n{more}')
    return path


@pytest.mark.parametrize(
    ("profile", "fault", "more", "said"),
    [
        ("memory/log-safe", "link-latency:all", "", "memory cannot have 'link-latency'"),
        ("rocketmq/async-flush-native", "link-latency:all", "", "goes to the brokers past any proxy"),
        (
            "kafka/acks-all", "link-latency:all", '[settings.link-latency]\nstream = "up"',
            "settings.link-latency.stream: stream 'up' is not known; allowed: both, upstream, downstream",
        ),
        (
            "kafka/acks-all", "link-latency:all", "[settings.link-latency]\nlatency_ms = -1",
            "settings.link-latency.latency_ms: must not be negative",
        ),
    ],
)  # fmt: skip
def test_what_a_scenario_cannot_ask(tmp_path: Path, profile: str, fault: str, more: str, said: str) -> None:
    with pytest.raises(UsageError) as error:
        load(scenario(tmp_path, profile, fault, more))
    assert said in str(error.value)
