"""Flink's REST interface, as much of it as a replay needs: submit the job, follow it, end it.

Paths and fields as in Flink 2.2 (docs, ops/rest_api). Every call is bounded; one that is refused, or not answered, is a
ClusterError. A job has a number of our own, so that asking twice makes one job.
"""

from __future__ import annotations

import http.client
import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from mqtest.errors import ClusterError

PORT: Final = 8081
JAR: Final = "job.jar"
"""where start.sh puts it, as if it had been uploaded"""
MAIN: Final = "ReplayJob"
SAVEPOINTS: Final = "file:///checkpoints/savepoints"
ENDED: Final = ("FINISHED", "CANCELED", "FAILED")
_ANSWER_S: Final = 2.0
_SUBMIT_S: Final = 30.0
"""the job's main runs inside this call"""


class FlinkRest:
    """One job manager."""

    def __init__(self, address: str) -> None:
        """`address`: host:port; asks nothing yet."""
        self._address = address

    def slots(self) -> int:
        """How many jobs of one slot it could begin now."""
        return int(self._ask("GET", "/overview")["slots-available"])

    def run(self, job: str, arguments: Sequence[str]) -> None:
        """Submit the job under that id (32 hexadecimal digits)."""
        asked = {"entryClass": MAIN, "programArgsList": list(arguments), "jobId": job}
        self._ask("POST", f"/jars/{JAR}/run", asked, _SUBMIT_S)

    def state(self, job: str) -> str:
        """`RUNNING`, `RESTARTING`, …, as Flink calls it."""
        return str(self._ask("GET", f"/jobs/{job}/status")["status"])

    def checkpoints(self, job: str) -> Mapping[str, int]:
        """How many were `completed`, `failed`, `restored`, since this job manager started; zeroes without any."""
        return {name: int(n) for name, n in self._ask("GET", f"/jobs/{job}/checkpoints").get("counts", {}).items()}

    def restarts(self, job: str) -> int | None:
        """How often it was restarted, since this job manager started."""
        told: Any = self._ask("GET", f"/jobs/{job}/metrics?get=numRestarts")
        return int(float(told[0]["value"])) if told else None

    def stop(self, job: str) -> None:
        """End it in good order: a last savepoint, and with it the last transaction. Does not wait for that."""
        self._ask("POST", f"/jobs/{job}/stop", {"targetDirectory": SAVEPOINTS, "drain": False})

    def cancel(self, job: str) -> None:
        """End it as it stands. Does not wait for that."""
        self._ask("PATCH", f"/jobs/{job}?mode=cancel")

    def _ask(self, method: str, path: str, asked: object = None, timeout_s: float = _ANSWER_S) -> dict[str, Any]:
        host, _, port = self._address.partition(":")
        connection = http.client.HTTPConnection(host, int(port), timeout=timeout_s)
        try:
            text = None if asked is None else json.dumps(asked)
            connection.request(method, path, text, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            said = answer.read()
        except (OSError, http.client.HTTPException) as error:
            raise ClusterError(f"Flink at {self._address} does not answer: {error}") from error
        finally:
            connection.close()
        if answer.status >= 300:
            raise ClusterError(f"Flink said {answer.status} to {method} {path}: {_why(said)}")
        try:
            found: dict[str, Any] = json.loads(said)
        except ValueError as error:
            raise ClusterError(f"Flink's answer to {method} {path} is no JSON") from error
        return found


def _why(said: bytes) -> str:
    """The last cause in an answer's `errors`, which has whole stack traces, in one line."""
    try:
        errors = json.loads(said)["errors"]
    except (ValueError, KeyError, TypeError):
        return " ".join(said.decode(errors="replace").split())[:300]
    lines = [line.strip() for error in errors for line in str(error).splitlines()]
    causes = [line.removeprefix("Caused by: ") for line in lines if line.startswith("Caused by: ")]
    return (causes or [line for line in lines if line] or ["no reason"])[-1][:300]
