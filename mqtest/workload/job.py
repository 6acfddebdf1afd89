"""The state of a job: count and sum of each place, key and time window (jobs.py); how it comes back after a failure.

Rules:
- The output is the only store of the state. A job that opens has a message of its own acknowledged in each place of its
  output (a fence, as the audit has), and reads everything before it: the last row of each is the state.
- What a batch changes counts from the moment at which its outputs are written; a batch that is not, never was.
- At least once: the job goes on from the positions that were committed, and counts again what its output had beyond
  them. Exactly once: it passes over inputs at or below the highest position that its output has of the place.
- A queue names no positions and keeps nothing that can be read again: a job on it begins with nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

from mqtest import body, jobs
from mqtest.audit import RunnerProducer
from mqtest.clients import Client, ClientError
from mqtest.clock import NS_PER_S, now_ns
from mqtest.model import RUNNER, Kind, Outcome, Output
from mqtest.workload import WorkerPlan

_FENCE_S: Final = 30.0
_READ_S: Final = 300.0
"""at most, for the whole output"""
_POLL_S: Final = 0.2


class Input(NamedTuple):
    """One message of the workload, as a transformer was handed it."""

    place: int
    offset: int
    body: bytes
    head: body.Header


class Job:
    """See the module's rules."""

    def __init__(self, plan: WorkerPlan, library: Client) -> None:
        assert plan.replay is not None
        self._plan = plan
        self._library = library
        self._keys = plan.replay.keys
        self._window_ns = jobs.window_ns(plan.replay.window_s)
        self._is_log = plan.wiring.kind is Kind.LOG
        self._once = plan.replay.output is Output.EXACTLY_ONCE and self._is_log
        self._state = jobs.Table(plan.run_number)
        self._batch = jobs.Table(plan.run_number)
        """what the batch in hand changes"""

    def outputs(self, inputs: Sequence[Input]) -> list[tuple[int, bytes]]:
        """The outputs (place, body) of a batch, in the order of its inputs; `settle` says what became of them."""
        run, state, found = self._plan.run_number, self._state, list[tuple[int, bytes]]()
        self._batch = batch = jobs.Table(run)
        for place, offset, _body, head in inputs:
            if self._once and offset <= batch.seen.get(place, state.seen.get(place, -1)):
                continue
            key, amount = jobs.key_and_amount(head.producer, head.seq, self._keys)
            name = place, key, head.due_ns // self._window_ns
            count, total = batch.rows.get(name) or state.rows.get(name, (0, 0))
            batch.rows[name] = count + 1, total + amount
            batch.seen[place] = offset
            row = jobs.Row(*name, count + 1, total + amount, offset)
            found.append((place, jobs.encode(run, head.producer, head.seq, row)))
        return found

    def settle(self, outcome: Outcome) -> None:
        """What became of the batch's outputs."""
        if outcome is Outcome.ACKED:
            self._state.rows.update(self._batch.rows)
            self._state.seen.update(self._batch.seen)

    def restore(self) -> int:
        """Read the state back; returns how many outputs there were. Raises MqtestError where that cannot be done."""
        self._state = state = jobs.Table(self._plan.run_number)
        if not self._is_log:
            return 0
        wiring, folder = self._plan.wiring.output, Path(f"{self._plan.folder}-fences")
        runner = RunnerProducer(self._library, folder, self._plan.run_number, jobs.SIZE_BYTES)
        try:
            waiting = dict(runner.acknowledge_one_each(wiring, _FENCE_S, "the fence of a job"))
        finally:
            runner.close()
        reader = self._library.open_reader(wiring, sorted(waiting))
        found, deadline = 0, now_ns() + int(_READ_S * NS_PER_S)
        try:
            while waiting:
                if reader.failed is not None or now_ns() > deadline:
                    raise ClientError(f"the output cannot be read back: {reader.failed or 'no end of it'}")
                for place, _offset, text, _redelivered in reader.poll(_POLL_S):
                    head = state.take(text)
                    found += head is not None and head.producer != RUNNER
                    if head is not None and head.producer == RUNNER and head.seq >= waiting.get(place, head.seq + 1):
                        del waiting[place]
                reader.ack()
        finally:
            reader.close(1.0)
        return found
