"""Addresses: one /24 a cell out of a pool, and a guard so that nothing sent to the pool ever leaves the host.

The pool (MQTEST_POOL) must overlap no route and no network that is not ours; ours are the networks that carry our
label, and the guard itself: an `unreachable` route of the worst metric for the whole pool, put there through a
short-lived container in the host's network. While a cell's bridge exists its own route wins; once it is gone,
whatever is still sent is refused on the spot.
"""

from __future__ import annotations

import os
import random
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any, Final

import docker

from mqtest.clock import wait_until
from mqtest.cluster import images
from mqtest.cluster.engine import RUN_LABEL, asking, labels
from mqtest.errors import UsageError, WaitTimeout

DEFAULT_POOL: Final = "198.19.0.0/16"
WORST_METRIC: Final = 2**32 - 1
BY_HAND: Final = 255
"""the third octet that compose files use by themselves (in the default pool): never given to a cell"""

_LEAF = re.compile(r"\|-- ([0-9.]+)$")
_ROUTE = re.compile(r"^\s+/(\d+) \S+ (\S+)")


def pool(environment: Mapping[str, str] = os.environ) -> IPv4Network:
    """The pool that cells get their networks from. Raises UsageError when the setting is no pool."""
    text = environment.get("MQTEST_POOL", DEFAULT_POOL)
    try:
        found = IPv4Network(text)
    except ValueError as error:
        raise UsageError(f"MQTEST_POOL={text}: {error}: an IPv4 network such as {DEFAULT_POOL} is wanted") from None
    if found.prefixlen > 23 or not found.is_private:
        raise UsageError(f"MQTEST_POOL={text}: a private network of /23 or more is wanted, such as {DEFAULT_POOL}")
    return found


def routes(fib_trie: str) -> list[tuple[IPv4Network, str]]:
    """(destination, type) of every IPv4 route in every table, from the text of /proc/net/fib_trie.

    The type is the kernel's word: UNICAST, LOCAL, BROADCAST, UNREACHABLE, …; default routes are left out.
    """
    found: list[tuple[IPv4Network, str]] = []
    address = ""
    for line in fib_trie.splitlines():
        if leaf := _LEAF.search(line):
            address = leaf[1]
        elif (route := _ROUTE.search(line)) and address and route[1] != "0":
            found.append((IPv4Network((address, int(route[1]))), route[2]))
    return found


def foreign(
    pool: IPv4Network,
    routes: Iterable[tuple[IPv4Network, str]],
    ours: Sequence[IPv4Network],
    theirs: Sequence[IPv4Network],
) -> str | None:
    """What overlaps the pool and is not ours, in words; None: nothing. `ours` and `theirs` are Docker's networks."""
    for network in theirs:
        if network.overlaps(pool):
            return f"the Docker network {network}"
    for destination, kind in routes:
        guard = destination == pool and kind == "UNREACHABLE"
        if destination.overlaps(pool) and not guard and not any(destination.subnet_of(network) for network in ours):
            return f"a route to {destination}"
    return None


def choose(pool: IPv4Network, taken: Sequence[IPv4Network], seed: str) -> IPv4Network:
    """A free /24 of the pool; where to begin looking depends on the seed, so that two at once seldom want the same."""
    subnets = [one for one in pool.subnets(new_prefix=24) if one.network_address.packed[2] != BY_HAND]
    first = random.Random(seed).randrange(len(subnets))
    for subnet in subnets[first:] + subnets[:first]:
        if not any(subnet.overlaps(other) for other in taken):
            return subnet
    raise UsageError(f"no /24 of the pool {pool} is free: run `mqtest down`, or set MQTEST_POOL to a larger one")


def reserve(client: docker.DockerClient, seed: str, progress: Callable[[str], None]) -> IPv4Network:
    """Check and guard the pool, and choose a free /24 of it. Raises UsageError, EngineError."""
    whole = pool()
    try:  # another run's bridge and its route do not come and go at the same instant
        wait_until(lambda: conflict(client) is None, 3, "the address pool", poll_s=0.2)
    except WaitTimeout:
        raise UsageError(
            f"the address pool {whole} overlaps {conflict(client)}: set MQTEST_POOL to a network that is free here"
        ) from None
    guard(client, progress)
    ours, _ = _docker_networks(client)
    return choose(whole, ours, seed)


def guard(client: docker.DockerClient, progress: Callable[[str], None]) -> None:
    """See to it that the pool is guarded. Once more after a network is there: from then on no other run that ends
    takes the guard away, but until then it could."""
    whole = pool()
    if not guarded(whole):
        progress(f"guarding {whole} with an unreachable route")
        _route(client, "add", whole, progress)


def unguard(client: docker.DockerClient, progress: Callable[[str], None]) -> bool:
    """Remove the guard of the pool; whether there was one."""
    whole = pool()
    if not guarded(whole):
        return False
    _route(client, "del", whole, progress)
    return True


def guarded(pool: IPv4Network) -> bool:
    """Whether the pool's guard is in place."""
    return (pool, "UNREACHABLE") in routes(_fib_trie())


def conflict(client: docker.DockerClient) -> str | None:
    """What overlaps the pool now and is not ours, in words."""
    # Routes first: a bridge of ours that goes in between would else look like somebody's.
    seen = routes(_fib_trie())
    ours, theirs = _docker_networks(client)
    return foreign(pool(), seen, ours, theirs)


def _fib_trie() -> str:
    return Path("/proc/net/fib_trie").read_text()


def _docker_networks(client: docker.DockerClient) -> tuple[list[IPv4Network], list[IPv4Network]]:
    """Docker's IPv4 networks: (ours, all others)."""
    ours: list[IPv4Network] = []
    theirs: list[IPv4Network] = []
    with asking("listing networks"):
        entries: list[dict[str, Any]] = client.api.networks()
    for entry in entries:
        side = ours if RUN_LABEL in (entry.get("Labels") or {}) else theirs
        for config in entry["IPAM"].get("Config") or []:
            if ":" not in config.get("Subnet", ":"):
                side.append(IPv4Network(config["Subnet"]))
    return ours, theirs


def _route(client: docker.DockerClient, verb: str, pool: IPv4Network, progress: Callable[[str], None]) -> None:
    image = images.ensure_agent(progress)
    command = f"ip route {verb} unreachable {pool} metric {WORST_METRIC}"
    done = '*exists*|*"No such process"*'  # somebody else did it at the same time
    script = f'said=$({command} 2>&1) || case $said in {done}) ;; *) echo "$said" >&2; exit 1;; esac'
    with asking(command):
        client.containers.run(
            image.id,
            ["sh", "-c", script],
            labels=labels("route"),
            network_mode="host",
            cap_drop=["ALL"],
            cap_add=["NET_ADMIN"],
            remove=True,
        )
