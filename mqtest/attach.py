"""`mqtest attach`: load and judge a cluster that somebody else runs, and breaks; one run of one cell.

    look → make or adopt the topic → probe → warm-up → steady → fault … → drain → audit

Rules:
- Nothing is started, stopped or deleted on that cluster but the topic that this run made, and that only when asked.
- The fault is the user's: two commands of theirs, or what they do by hand after the steady phase. What was seen of it
  (members that went, leaders that moved, connections that broke, a command that ended well) is its evidence. Where
  nothing was seen the cell is one without a fault.
- It is held to the profile's promise: who promises to survive more than an ordinary day (`none`) promises this too,
  unless the user says that what they do goes beyond it.
- Undo belongs to do: once the fault command began, the heal command runs on every way out.
- Credentials are in no file of the run (credentials.py).
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from mqtest import __version__, host, noise_floor
from mqtest.brokers.foreign import Asked, Foreign, Held, foreign_module
from mqtest.cell_run import record as record_of
from mqtest.clients import client
from mqtest.clock import NS_PER_S, now_ns
from mqtest.credentials import Credentials
from mqtest.errors import ClusterError, MqtestError, UsageError
from mqtest.event_log import events_path, load_events
from mqtest.fault_log import NO_FAULT
from mqtest.journal import Journal
from mqtest.judge import judge
from mqtest.ledger import write_cell
from mqtest.load import Load
from mqtest.lookout import Lookout, signs
from mqtest.model import Cell, Consume, Fault, Kind, Phases, Workload
from mqtest.runner import RUN_FILE, new_run
from mqtest.watch import CellWatch, Watch

ATTACHED = "attached"
"""the fault's name"""
PHASES = Phases(steady_s=10.0, hold_s=10.0, audit_s=300.0)
_OF_THE_NODES = ("broker", "advanced")
"""tables of a profile that are not asked of a cluster of somebody else's"""
_WHOLE_S = 0.5
"""between two questions whether the cluster is whole"""
_COMMAND_S = 60.0
"""at most, for a heal command after an interrupt"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attachment:
    """What `mqtest attach` was asked for."""

    asked: Asked
    credentials: Credentials
    workload: Workload
    phases: Phases = PHASES
    """`steady_s`: before the fault; `hold_s`: from the fault command's end to the heal command"""
    for_s: float | None = None
    """how long the load lasts, from the warm-up on, if need be until the fault is over; None: until `enough`"""
    fault: str | None = None
    heal: str | None = None
    """shell commands"""
    replicas: int | None = None
    into_used: bool = False
    """a topic may hold messages of others"""
    remove: bool = False
    may_lose: bool = False
    """what is done goes beyond the promise"""


def run(asked: Attachment, results: Path, watch: Watch, enough: Callable[[], bool]) -> Path:
    """Run it until its time is over or `enough()`, then drain and audit; returns the run's folder.

    Raises UsageError for a topic that may not be written to and ClusterError for a cluster that does not answer, both
    before anything is made; what fails later is in the cell, and the cell is `unknown`.
    """
    profile = asked.asked.profile
    cluster = foreign_module(profile.broker).attach(asked.asked)
    try:
        found = cluster.found()
        refuse_used(asked, found)
        cell = _cell(asked, len(found) if found else asked.workload.places)
        with new_run(results, f"attach-{profile.broker}") as run_dir:
            _write_run(run_dir, asked, cell)
            watch.run_planned([cell], asked.for_s or 0.0, 0)
            watch.run_opened(run_dir)
            begun = watch.cell_started(cell, 1, 1)
            try:
                AttachedCell(asked, cell, cluster, run_dir, begun, enough).run(found)
                watch.cell_judged(cell.id, judge(run_dir / "cells" / cell.id).row)
            finally:
                watch.run_ended()
        return run_dir
    except ClusterError as error:
        raise ClusterError(asked.credentials.mask(str(error))) from None
    finally:
        cluster.close()


def refuse_used(asked: Attachment, found: Mapping[int, Held] | None) -> None:
    """Raises UsageError for a topic that holds messages and may not; for a queue always, and for one with consumers;
    and for a number of replicas where there is nothing to make."""
    if found and asked.replicas is not None:
        raise UsageError(f"{asked.asked.topic}: is there already; --replicas is for a topic that is made")
    used = {place: held for place, held in (found or {}).items() if held.messages or held.consumers}
    if not used:
        return
    name = asked.asked.topic
    if asked.asked.profile.kind is Kind.QUEUE:
        raise UsageError(f"{name}: holds messages or has consumers; a queue of others is not touched, name a new one")
    if not asked.into_used:
        messages = sum(held.messages for held in used.values())
        raise UsageError(f"{name}: holds {messages:,} messages of others; --yes writes to it all the same")


class AttachedCell:
    """The one cell of such a run."""

    def __init__(
        self,
        asked: Attachment,
        cell: Cell,
        cluster: Foreign,
        run_dir: Path,
        watch: CellWatch,
        enough: Callable[[], bool],
    ) -> None:
        self._asked = asked
        self._cell = cell
        self._cluster = cluster
        self._enough = enough
        self._commanded = False
        """whether the fault command began"""
        self._folder = run_dir / "cells" / cell.id
        (self._folder / "ledger").mkdir(parents=True)
        self._journal = Journal(self._folder, watch, asked.credentials.mask)
        self._record = record_of(run_dir.name, cell) | {"attached": {"at": asked.asked.at, "topic": asked.asked.topic}}
        number = zlib.crc32(f"{run_dir.name}/{cell.id}".encode())
        self._load = Load(
            run=run_dir.name,
            run_number=number,
            cell_dir=self._folder,
            library=client(cell.profile.client),
            workload=cell.workload,
            phases=cell.phases,
            journal=self._journal,
            watch=watch,
        )
        self._lookout = Lookout(cluster, self._journal)

    def run(self, found: Mapping[int, Held] | None) -> None:
        """From the topic to the audit; `found` is what the topic holds, None where there is none."""
        write_cell(self._folder, self._record)
        finished = True
        try:
            with ExitStack() as stack:
                stack.callback(self._load.close)
                self._live(stack, found)
        except MqtestError as error:
            why = self._asked.credentials.mask(str(error))
            self._journal.event("failed", why=why)
            self._journal.note(f"failed: {why}")
        except KeyboardInterrupt:
            finished = False
            self._journal.event("failed", why="interrupted")
            raise
        finally:
            self._lookout.close()
            self._record["finished"] = finished
            write_cell(self._folder, self._record)
            self._journal.close()

    def _live(self, stack: ExitStack, found: Mapping[int, Held] | None) -> None:
        self._journal.phase("up")
        self._place(stack, found)
        wiring = self._cluster.wiring()
        with self._journal.stage("first ack"):
            self._load.probe(wiring)
        self._describe()
        with self._journal.stage("workers"):
            self._load.start(wiring)
        self._lookout.start()
        end = time.monotonic() + (float("inf") if self._asked.for_s is None else self._asked.for_s)

        def over() -> bool:
            return self._enough() or time.monotonic() > end

        calm_over = over if self._asked.fault is None else self._enough  # a fault that was asked for is never left out
        self._load.go()
        self._load.last(self._cell.phases.warm_up_s, calm_over)
        self._journal.phase("steady")
        self._load.last(self._cell.phases.steady_s, calm_over)
        self._journal.phase("fault")
        if self._asked.fault is not None and not self._enough():
            self._command_fault(self._asked.fault)
        elif not over():
            self._journal.note("the steady phase is over: break it")
        self._load.last(float("inf"), over)
        self._lookout.close()
        self._tell_fault()
        self._load.drain(self._cluster)
        why = self._await_whole()
        if why is not None:
            self._journal.event("not whole", why=why)
            self._journal.note(f"not whole again, read all the same: {why}")
        self._load.audit(self._cluster)

    def _place(self, stack: ExitStack, found: Mapping[int, Held] | None) -> None:
        if found is not None:
            self._cluster.adopt(found)
            return
        self._cluster.create(self._cell.workload.places, self._asked.replicas)
        if self._asked.remove:
            stack.callback(self._remove)

    def _remove(self) -> None:
        try:
            self._cluster.remove()
        except ClusterError as error:
            self._journal.note(f"{self._asked.asked.topic} was not deleted: {error}")

    def _describe(self) -> None:
        """What the cluster says of itself, as far as it does."""
        members = self._cluster.members()
        with suppress(ClusterError):
            self._record["versions"] = {"broker": self._cluster.version(), **host.client_versions()}
        with suppress(ClusterError):
            self._record["effective"] = dict(self._cluster.effective())
        self._record["nodes"] = len(members.alive) if members else None
        write_cell(self._folder, self._record)

    # --- the fault

    def _command_fault(self, fault: str) -> None:
        """Fault, hold, heal, and wait until the cluster is whole; the load goes on, if need be past its time."""
        self._commanded = True
        heal = self._asked.heal
        said = {"action": ATTACHED, "target": ["command"], "part": 0}
        began_ns = now_ns()
        self._journal.event("fault", step="inject", **said, command=fault)
        healed = False
        try:
            code = self._command(fault)
            evidence = {"exit_code": code} if code == 0 else {}
            injected = {"t_ns": began_ns, "evidence": evidence, "detail": {"exit_code": code}}
            self._journal.event("fault", step="injected", **said, **injected)  # what takes time has hit from the start
            self._load.last(self._cell.phases.hold_s, self._enough)
            self._journal.phase("heal")
            self._journal.event("fault", step="heal", **said, command=heal)
            healed = True
            if heal is not None and (code := self._command(heal)) != 0:
                self._journal.note(f"the heal command ended with exit code {code}")
        finally:
            if heal is not None and not healed:
                with suppress(subprocess.TimeoutExpired):
                    subprocess.run(heal, shell=True, stdout=sys.stderr, timeout=_COMMAND_S, check=False)
        self._journal.phase("recover")
        self._journal.event("fault", step="healed", **said, evidence={})
        if self._await_whole() is None:
            self._journal.event("recovered", stage="ready")
        self._journal.phase("after")

    def _command(self, command: str) -> int:
        """Run a shell command of the user's, its output on stderr, while the load goes on; returns its exit code."""
        process = subprocess.Popen(command, shell=True, stdout=sys.stderr, start_new_session=True)
        try:
            while process.poll() is None:
                self._load.last(0.1)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGTERM)
                process.wait(_COMMAND_S)
        return process.returncode

    def _tell_fault(self) -> None:
        """Name the fault by what was seen of it."""
        seen = signs(load_events(events_path(self._folder)))
        fault = ATTACHED if seen or self._commanded else NO_FAULT
        if seen and not self._commanded:
            said = {"action": ATTACHED, "target": ["by hand"], "part": 0}
            self._journal.event("fault", step="healed", **said, evidence=seen)
        self._record |= {"fault": fault, "groups": [[fault]] if fault == ATTACHED else [], "seen": seen}
        write_cell(self._folder, self._record)

    def _await_whole(self) -> str | None:
        """Wait, bounded, until every replica is in sync; returns what is missing then."""
        deadline = now_ns() + int(self._cell.phases.recover_s * NS_PER_S)
        while True:
            try:
                why = self._cluster.not_whole()
            except ClusterError as error:
                why = str(error)
            if why is None or now_ns() > deadline:
                return why
            self._load.last(_WHOLE_S)


def _cell(asked: Attachment, places: int) -> Cell:
    profile = asked.asked.profile
    promise = profile.promise
    settings = {table: keys for table, keys in profile.settings.items() if table not in _OF_THE_NODES}
    if set(promise.survives) - {NO_FAULT} and not asked.may_lose:
        promise = replace(promise, survives=(*promise.survives, ATTACHED))
    return Cell(
        id=f"001-{ATTACHED}-{profile.broker}-{profile.name}",
        index=1,
        profile=replace(profile, promise=promise, settings=settings),
        fault=Fault(ATTACHED),
        repeat=1,
        seed=random.randrange(2**31),
        nodes=0,
        workload=replace(asked.workload, places=places, consume=Consume.LIVE),
        phases=asked.phases,
        floor=1,
        fs="",
        disk_mb=0,
        version="",
    )


def _write_run(run_dir: Path, asked: Attachment, cell: Cell) -> None:
    profile = asked.asked.profile
    record = {
        "run": run_dir.name,
        "scenario": {
            "title": f"Attached to {profile.broker}",
            "question": f"Does this cluster keep what {profile.path} promises, while its owner works on it?",
            "must_lose": [],
        },
        "seed": cell.seed,
        "planned": [cell.id],
        "started_utc": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "host": host.facts(),
        "mqtest_version": __version__,
        "workload": asdict(cell.workload),
        "noise_floor": noise_floor.kept(run_dir.parent),
    }
    (run_dir / RUN_FILE).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
