"""One command: `python3 -m agent_program COMMAND JSON`, one JSON line out.

The line is {"ok": answer}, {"refused": reason} or {"failed": reason}; a reason is one line.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from . import clocks, disk_faults, disk_work, disks, packets, power, search
from .proofs import FailedError, RefusedError, Target

Request = Mapping[str, Any]


def _targets(request: Request) -> Sequence[Target]:
    return [Target.read(entry) for entry in request["targets"]]


def _drop(request: Request) -> dict[str, Any]:
    return {entry["name"]: packets.drop(Target.read(entry), entry["drops"]) for entry in request["targets"]}


def _let_pass(request: Request) -> dict[str, Any]:
    return {target.name: packets.let_pass(target, request["tag"]) for target in _targets(request)}


def _dropped(request: Request) -> dict[str, Any]:
    return {target.name: packets.dropped(target, request["tags"]) for target in _targets(request)}


def main(command: str, request: Request) -> dict[str, Any]:
    """The answer to one command."""
    try:
        return {"ok": COMMANDS[command](request)}
    except RefusedError as refused:
        return {"refused": str(refused)}
    except FailedError as failed:
        return {"failed": str(failed)}
    except (OSError, subprocess.SubprocessError) as error:
        return {"failed": f"{command}: {error}"}


COMMANDS: Mapping[str, Callable[[Request], object]] = {
    "make-disks": lambda request: disks.make(request["names"], request["fs"], request["size_mb"]),
    "list-disks": lambda request: disks.listing(),
    "remove-disks": lambda request: disks.remove(request["disks"]),
    "await-unmounted": lambda request: disks.await_unmounted(request["devices"], request["timeout_s"]),
    "detach": lambda request: disks.detach(request["minor"]),
    "sync": lambda request: power.sync(_targets(request)),
    "kill": lambda request: power.kill(_targets(request)),
    "cut": lambda request: power.cut(_targets(request), request["age_s"]),
    "witnesses": lambda request: power.read_witnesses(_targets(request)),
    "search": lambda request: search.search(_targets(request), request["run"], request["size"]),
    "space": lambda request: power.space(_targets(request)),
    "flush-times": lambda request: disk_work.flush_times(_targets(request)),
    "disk-counters": lambda request: disk_work.counters(request["disks"]),
    "fill-disks": lambda request: disk_faults.fill(_targets(request)),
    "free-disks": lambda request: disk_faults.free(request["disks"]),
    "fail-disks": lambda request: disk_faults.fail(_targets(request)),
    "stall-disks": lambda request: disk_faults.stall(_targets(request)),
    "thaw-disks": lambda request: disk_faults.thaw(request["disks"]),
    "slow-disks": lambda request: disk_faults.slow(_targets(request), request["stalled_ms"], request["free_ms"]),
    "unslow-disks": lambda request: disk_faults.unslow(request["containers"]),
    "jump-clocks": lambda request: clocks.jump(_targets(request), request["seconds"]),
    "reset-clocks": lambda request: clocks.reset(request["disks"]),
    "drop": _drop,
    "let-pass": _let_pass,
    "dropped": _dropped,
}

if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], json.loads(sys.argv[2]))))
