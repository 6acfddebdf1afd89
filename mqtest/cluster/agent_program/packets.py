"""Packets that do not arrive: rules that drop them, in chains of our own in the node's network namespace.

A tag has a chain for what comes in and one for what goes out, jumped to from INPUT and OUTPUT for all but the
loopback; so exactly what was added is removed, two partitions that overlap are undone apart, and the counters of a
tag's rules are its evidence. A node that starts again has a fresh namespace: then there is nothing to remove. Machines
differ in which flavour of iptables their kernel takes, so the first that works is used, and both are looked through to
heal.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from .proofs import FailedError, RefusedError, Target, hold, network

FLAVOURS = ("iptables-nft", "iptables-legacy")
WAYS = {"in": ("INPUT", "! -i lo", "-s"), "out": ("OUTPUT", "! -o lo", "-d")}
"""way -> the chain that it passes, all but the loopback, how a rule names the peer"""

_TAG = re.compile(r"[A-Za-z0-9-]{1,17}")
"""the name of a chain has at most 28 characters"""


def drop(target: Target, drops: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, int]:
    """Have the target drop packets: by tag, what is wanted in place of the earlier rules of that tag.

    An entry has `peers` (addresses, None: everybody), `ways` (of "in" and "out", as the target sees them) and
    `percent` (100: all of them). Returns how many rules each tag has now.
    """
    with hold(target) as pidfd, network(target, pidfd) as namespace:
        made = {}
        for tag, entries in drops.items():
            _remove(namespace, tag)
            rules = [rule for entry in entries for rule in _rules(tag, entry)]
            _add(target, namespace, tag, rules)
            made[tag] = len(rules)
        return made


def let_pass(target: Target, tag: str) -> int:
    """Remove the rules of a tag; returns the packets that they dropped."""
    with hold(target) as pidfd, network(target, pidfd) as namespace:
        return _remove(namespace, tag)


def dropped(target: Target, tags: Sequence[str]) -> dict[str, int]:
    """The packets that the rules of each tag have dropped by now."""
    with hold(target) as pidfd, network(target, pidfd) as namespace:
        return {
            tag: sum(_count(namespace, flavour, _chain(tag, way)) or 0 for flavour in FLAVOURS for way in WAYS)
            for tag in tags
        }


def _chain(tag: str, way: str) -> str:
    if not _TAG.fullmatch(tag):
        raise RefusedError(f"{tag!r} does not tag rules")
    return f"MQTEST-{tag}-{way}"


def _rules(tag: str, entry: Mapping[str, Any]) -> Iterator[str]:
    percent = float(entry["percent"])
    some = "" if percent >= 100 else f" -m statistic --mode random --probability {percent / 100:.6f}"
    for way in entry["ways"]:
        for peer in entry["peers"] or [None]:
            whom = "" if peer is None else f" {WAYS[way][2]} {peer}"
            yield f"-A {_chain(tag, way)}{whom}{some} -j DROP"


def _add(target: Target, namespace: int, tag: str, rules: Sequence[str]) -> None:
    chains = [f":{_chain(tag, way)} - [0:0]" for way in WAYS]
    jumps = [f"-I {passes} {most} -j {_chain(tag, way)}" for way, (passes, most, _) in WAYS.items()]
    given = "\n".join(["*filter", *chains, *rules, *jumps, "COMMIT", ""])
    said = ""
    for flavour in FLAVOURS:
        done = _run(namespace, [f"{flavour}-restore", "--noflush"], given)
        if done.returncode == 0:
            return
        said = said or " ".join(done.stderr.split())
    raise FailedError(f"{target.name}: no flavour of iptables takes the rules: {said}")


def _remove(namespace: int, tag: str) -> int:
    total = 0
    for flavour in FLAVOURS:
        counts = [_count(namespace, flavour, _chain(tag, way)) for way in WAYS]
        if None in counts:
            continue
        total += sum(count or 0 for count in counts)
        jumps = [f"-D {passes} {most} -j {_chain(tag, way)}" for way, (passes, most, _) in WAYS.items()]
        chains = [f"{verb} {_chain(tag, way)}" for verb in ("-F", "-X") for way in WAYS]
        given = "\n".join(["*filter", *jumps, *chains, "COMMIT", ""])
        done = _run(namespace, [f"{flavour}-restore", "--noflush"], given)
        if done.returncode != 0:
            raise FailedError(f"the rules {tag} stay: {' '.join(done.stderr.split())}")
    return total


def _count(namespace: int, flavour: str, chain: str) -> int | None:
    """The packets that a chain dropped; None: there is no such chain."""
    seen = _run(namespace, [flavour, "-w", "5", "-nvxL", chain])
    if seen.returncode != 0:
        return None
    # "Chain …", the heads of the columns, then one rule a line: packets, bytes, target, …
    return sum(int(line.split()[0]) for line in seen.stdout.splitlines()[2:] if line.strip())


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
