"""Partitions: rules that drop packets, in a chain of our own in the node's network namespace.

One chain, jumped to from INPUT and OUTPUT, so that exactly what was added is removed, and its counters are the
evidence. A node that starts again has a fresh namespace: then there is nothing to remove. Machines differ in which
flavour of iptables their kernel takes, so the first that works is used, and both are looked through to heal.
"""

from __future__ import annotations

import subprocess
from collections.abc import Sequence

from .proofs import FailedError, Target, hold, network

CHAIN = "MQTEST-PARTITION"
FLAVOURS = ("iptables-nft", "iptables-legacy")


def isolate(target: Target, peers: Sequence[str]) -> dict[str, int]:
    """Drop every packet between the target and these addresses, both ways, in place of earlier rules of ours."""
    drops = [f"-A {CHAIN} {side} {peer} -j DROP" for peer in peers for side in ("-s", "-d")]
    rules = ["*filter", f":{CHAIN} - [0:0]", *drops, f"-I INPUT -j {CHAIN}", f"-I OUTPUT -j {CHAIN}", "COMMIT", ""]
    with hold(target) as pidfd, network(target, pidfd) as namespace:
        _remove(namespace)
        said = ""
        for flavour in FLAVOURS:
            done = _run(namespace, [f"{flavour}-restore", "--noflush"], "\n".join(rules))
            if done.returncode == 0:
                return {"rules": len(drops)}
            said = said or " ".join(done.stderr.split())
        raise FailedError(f"{target.name}: no flavour of iptables takes the rules: {said}")


def rejoin(target: Target) -> dict[str, int]:
    """Remove our rules; returns the packets that they `dropped`."""
    with hold(target) as pidfd, network(target, pidfd) as namespace:
        return {"dropped": _remove(namespace)}


def _remove(namespace: int) -> int:
    dropped = 0
    for flavour in FLAVOURS:
        seen = _run(namespace, [flavour, "-w", "5", "-nvxL", CHAIN])
        if seen.returncode != 0:
            continue
        # "Chain …", the heads of the columns, then one rule a line: packets, bytes, target, …
        dropped += sum(int(line.split()[0]) for line in seen.stdout.splitlines()[2:] if line.strip())
        undo = ["*filter", f"-D INPUT -j {CHAIN}", f"-D OUTPUT -j {CHAIN}", f"-F {CHAIN}", f"-X {CHAIN}", "COMMIT", ""]
        done = _run(namespace, [f"{flavour}-restore", "--noflush"], "\n".join(undo))
        if done.returncode != 0:
            raise FailedError(f"the rules of the partition stay: {' '.join(done.stderr.split())}")
    return dropped


def _run(namespace: int, command: list[str], given: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["nsenter", f"--net=/proc/self/fd/{namespace}", *command],
        input=given,
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
        pass_fds=(namespace,),
    )
