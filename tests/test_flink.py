"""Flink's job: its form byte for byte against Python's, its REST interface as scripted, and how it is followed."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from mqtest import body, jobs
from mqtest.brokers import memory
from mqtest.clients import client
from mqtest.clock import wait_until
from mqtest.errors import ClusterError
from mqtest.flink_rest import FlinkRest
from mqtest.ledger import load_receipts
from mqtest.model import RUNNER, Kind, Output, Replay, Wiring, Workload
from mqtest.paths import recipes
from mqtest.replay_table import of_job
from mqtest.workload import Role, WorkerPlan
from mqtest.workload.flink_job import FlinkLoop, arguments, job_id
from tests.memory_rig import profile, running
from tests.polling import poll_until

RUN = 7


# --- the form


@pytest.mark.skipif(shutil.which("javac") is None, reason="no Java compiler")
def test_the_jobs_form_is_that_of_our_own_jobs(tmp_path: Path) -> None:
    draw = random.Random(3)
    rows = [
        (draw.getrandbits(32), draw.choice([0, 7, 2**32 - 3]), draw.randrange(10**7), 0, draw.randrange(100),
         *(draw.randrange(most) for most in (4, 10**6, 10**5, 10**9, 10**7)))
        for _ in range(50)
    ]  # fmt: skip
    source = recipes() / "images" / "flink" / "Form.java"
    subprocess.run(["javac", "-d", str(tmp_path), str(source)], check=True, timeout=120)
    asked = "\n".join(" ".join(map(str, row)) for row in rows)
    ran = subprocess.run(
        ["java", "-cp", str(tmp_path), "Form"], input=asked, text=True, capture_output=True, check=True, timeout=120
    )
    expected = []
    for run, producer, seq, _due, key, place, window, messages, amount, offset in rows:
        text = jobs.encode(run, producer, seq, jobs.Row(place, key, window, messages, amount, offset)).decode()
        expected.append(" ".join(map(str, (*jobs.key_and_amount(producer, seq, 100), text))))
    assert ran.stdout.splitlines() == expected


# --- its REST interface


class Script:
    """Answers by method and path; what was asked is kept."""

    def __init__(self) -> None:
        self.answers: dict[str, tuple[int, Any]] = {}
        self.asked: list[tuple[str, Any]] = []


@contextmanager
def manager() -> Iterator[tuple[Script, str]]:
    """A job manager as scripted, and its address."""
    script = Script()

    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            sent = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            name = f"{self.command} {self.path}"
            script.asked.append((name, json.loads(sent) if sent else None))
            status, said = script.answers.get(name, (404, {"errors": ["Not found"]}))
            text = json.dumps(said).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        do_GET = do_POST = do_PATCH = _answer  # noqa: N815 - the names that the base class looks for

        def log_message(self, *_: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield script, f"127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)


def test_what_is_asked_of_flink() -> None:
    with manager() as (script, address):
        script.answers = {
            "GET /overview": (200, {"slots-total": 2, "slots-available": 1}),
            "POST /jars/job.jar/run": (200, {"jobid": "ab"}),
            "GET /jobs/ab/status": (200, {"status": "RESTARTING"}),
            "GET /jobs/ab/checkpoints": (200, {"counts": {"completed": 12, "failed": 1}}),
            "GET /jobs/ab/metrics?get=numRestarts": (200, [{"id": "numRestarts", "value": "2"}]),
            "POST /jobs/ab/stop": (202, {"request-id": "1"}),
            "PATCH /jobs/ab?mode=cancel": (202, {}),
        }
        rest = FlinkRest(address)
        assert rest.slots() == 1
        rest.run("ab", ["--run", "7"])
        assert rest.state("ab") == "RESTARTING"
        assert rest.checkpoints("ab") == {"completed": 12, "failed": 1}
        assert rest.restarts("ab") == 2
        rest.stop("ab")
        rest.cancel("ab")
        asked = dict(script.asked)
        assert asked["POST /jars/job.jar/run"] == {
            "entryClass": "ReplayJob", "programArgsList": ["--run", "7"], "jobId": "ab"
        }  # fmt: skip
        assert asked["POST /jobs/ab/stop"]["drain"] is False


def test_what_flink_refuses_is_one_line_with_the_last_cause() -> None:
    with manager() as (script, address):
        trace = "a.b.Exception: could not\n\tat x.y\nCaused by: a.c.Other: no slot\n\tat z\n"
        script.answers = {"GET /jobs/ab/status": (500, {"errors": ["Internal server error.", trace]})}
        with pytest.raises(ClusterError) as caught:
            FlinkRest(address).state("ab")
    assert str(caught.value) == "Flink said 500 to GET /jobs/ab/status: a.c.Other: no slot"


def test_a_manager_that_is_gone_is_an_error() -> None:
    with manager() as (_script, address):
        pass
    with pytest.raises(ClusterError, match=f"Flink at {address} does not answer"):
        FlinkRest(address).slots()


# --- how it is followed


class Told:
    """In place of the worker's pipes."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        self.last: dict[str, Any] = {}
        self.stopping = False

    def ready(self) -> None:
        return

    def wait_go(self) -> bool:
        return True

    def pause(self, _seconds: float) -> None:
        return

    def event(self, event: str, **fields: Any) -> None:
        self.events.append({"event": event, **fields})

    def stats(self, stats: dict[str, Any], *, force: bool = False) -> None:
        self.last = stats


def plan_of(wiring: Wiring, folder: Path, address: str) -> WorkerPlan:
    return WorkerPlan(
        role=Role.TRANSFORMER,
        number=1,
        run_number=RUN,
        wiring=wiring,
        workload=Workload(),
        folder=str(folder / "transforms.1"),
        log=str(folder / "log"),
        settle_s=5,
        replay=Replay(runs_on="flink", output=Output.EXACTLY_ONCE, keys=3, window_s=2),
        flink=address,
    )


def test_the_arguments_are_all_that_the_job_asks_for(tmp_path: Path) -> None:
    wiring = Wiring(
        broker="kafka", client="confluent", kind=Kind.LOG, acknowledged=True, addresses=("a:1", "b:1"), topic="t",
        places=2, group="g", producer={}, consumer={"isolation.level": "read_committed"},
    )  # fmt: skip
    words = arguments(plan_of(of_job(wiring, 1, 0), tmp_path, ""))
    given = dict(zip(words[::2], words[1::2], strict=True))
    job = (recipes() / "images" / "flink" / "ReplayJob.java").read_text(encoding="utf-8")
    asked = {line.split('"')[0] for line in job.split('getRequired("')[1:]}
    asked |= {line.split('"')[0] for kind in ("getLong", "getInt") for line in job.split(f'{kind}("')[1:]}
    assert {name.removeprefix("--") for name in given} == asked
    assert (given["--bootstrap"], given["--output"], given["--window-ns"]) == ("a:1,b:1", "t-out-1", "2000000000")
    assert (given["--guarantee"], given["--isolation"]) == ("exactly-once", "read_committed")


def test_a_job_is_submitted_once_followed_by_its_outputs_and_stopped(tmp_path: Path) -> None:
    """What it was handed is what its outputs say; the runner's own messages are none of it."""
    asked = profile({})
    with running(tmp_path, asked) as rig, manager() as (script, address):
        wiring = of_job(rig.broker.wiring(), 1, 0)
        memory.connect(asked, rig.cluster.nodes, 1, wiring.output.topic).create_places()
        plan = plan_of(wiring, tmp_path, address)
        job = job_id(plan)
        script.answers = {
            "POST /jars/job.jar/run": (200, {"jobid": job}),
            f"GET /jobs/{job}/status": (200, {"status": "RUNNING"}),
            f"GET /jobs/{job}/checkpoints": (200, {"counts": {"completed": 3}}),
            f"GET /jobs/{job}/metrics?get=numRestarts": (200, []),
            f"POST /jobs/{job}/stop": (202, {}),
        }
        settled: list[int] = []
        producer = client("memory").open_producer(wiring.output, lambda seq, *_: settled.append(seq), 0, 0)
        texts = [jobs.encode(RUN, 0, seq, jobs.Row(0, 1, 2, 1, 5, offset)) for seq, offset in ((4, 10), (5, 12))]
        for number, text in enumerate([*texts, body.encode(RUN, RUNNER, 0, 0, 128)]):
            assert producer.send(number, 0, text)
        poll_until(producer, lambda: len(settled) == 3)
        told = Told()
        loop = FlinkLoop(plan, told)  # type: ignore[arg-type]
        thread = threading.Thread(target=loop.run, daemon=True)
        thread.start()
        wait_until(lambda: told.last.get("positions") == {"0": 12}, 10, "the outputs to be seen")
        script.answers[f"GET /jobs/{job}/status"] = (200, {"status": "FINISHED"})
        told.stopping = True
        thread.join(10)
        assert not thread.is_alive()
        producer.close(1)
    handed = load_receipts(tmp_path / "transforms.1")
    assert (handed["seq"].tolist(), handed["offset"].tolist()) == ([4, 5], [10, 12])
    assert [name for name, _ in script.asked].count("POST /jars/job.jar/run") == 1
    states = [(e["state"], e.get("checkpoints")) for e in told.events]
    assert states == [("RUNNING", None), ("ending", {"completed": 3}), ("FINISHED", None)]
    assert told.last["written"] == 2


def test_a_job_that_does_not_stop_in_time_is_cancelled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mqtest.workload.flink_job._SAVEPOINT_S", 0.3)
    monkeypatch.setattr("mqtest.workload.flink_job._CANCEL_S", 0.3)
    asked = profile({})
    with running(tmp_path, asked) as rig, manager() as (script, address):
        wiring = of_job(rig.broker.wiring(), 1, 0)
        memory.connect(asked, rig.cluster.nodes, 1, wiring.output.topic).create_places()
        plan = plan_of(wiring, tmp_path, address)
        job = job_id(plan)
        script.answers = {
            "POST /jars/job.jar/run": (200, {"jobid": job}),
            f"GET /jobs/{job}/status": (200, {"status": "RUNNING"}),
            f"POST /jobs/{job}/stop": (202, {}),
            f"PATCH /jobs/{job}?mode=cancel": (202, {}),
        }
        told = Told()
        thread = threading.Thread(target=FlinkLoop(plan, told).run, daemon=True)  # type: ignore[arg-type]
        thread.start()
        wait_until(lambda: told.events, 10, "a first word")
        told.stopping = True
        thread.join(10)
        assert not thread.is_alive()
    assert "not stopped in time" in [e["state"] for e in told.events]
    assert f"PATCH /jobs/{job}?mode=cancel" in [name for name, _ in script.asked]


def test_of_two_jobs_each_has_an_id_of_its_own(tmp_path: Path) -> None:
    plan = plan_of(of_job(Wiring(
        broker="memory", client="memory", kind=Kind.LOG, acknowledged=True, addresses=(), topic="t", places=1,
        group="g", producer={}, consumer={},
    ), 1, 0), tmp_path, "")  # fmt: skip
    assert len(job_id(plan)) == 32
    assert job_id(plan) == job_id(replace(plan))
    assert job_id(plan) != job_id(replace(plan, number=0)) != job_id(replace(plan, number=0, run_number=8))
