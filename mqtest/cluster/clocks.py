"""Wall clocks of nodes that can jump: libfaketime, loaded into every process of a node.

A container shares the wall clock of the host, for no namespace of the kernel has one. The library stands on the node's
disk with the file that it reads (agent_program/clocks.py), so a clock that jumped stays so over a restart. Only what
asks for the wall clock sees the jump; the clock of timers goes on, as when a real clock is set. The library is one for
glibc: in an image with another libc nothing starts. It makes each look at a clock some twenty times dearer, under a
lock (72 ns became 1.6 us with eight threads of a JVM on two processors): brokers that look all the time no longer start
in time, and say so in their `NO_FAULTS`.
"""

from __future__ import annotations

from mqtest.cluster.agent_program.disks import CLOCK, LIBRARY


def environment(data: str) -> dict[str, str]:
    """What a node must be started with, its disk being mounted at `data`."""
    return {
        "LD_PRELOAD": f"{data}/{LIBRARY}",
        "FAKETIME_TIMESTAMP_FILE": f"{data}/{CLOCK}",
        "FAKETIME_CACHE_DURATION": "1",  # seconds; without a cache a JVM takes half a minute to start
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "FAKETIME_DISABLE_SHM": "1",
        "NO_FAKE_STAT": "1",
    }
