"""The load comes first: a producer whose messages have a time at which they are due gets the processor before others.

Brokers and load share one host here. Under a load that makes brokers busy (each flush of a disk is work for the kernel,
and that is many threads), a producer waited for its turn so long that what it measured was its own lateness; on a host
of its own it would not. What the producer takes it takes from the brokers either way. Rules:
- Only producers of an open loop: the rate of a closed loop is what all of them together make of the host.
- Where the system does not allow it, or the run was given a priority already (nice, chrt), the load goes on as it is;
  the event says with which.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Final

NICE: Final = -10
"""nine tenths of a processor that others want too"""
_AUTOGROUP: Final = Path("/proc/self/autogroup")


def come_first() -> int:
    """Raise the priority of this process, whose threads are still to be made; returns the nice value it has then.

    Where processes are scheduled by session (sched(7), autogroup), a nice value counts within the session only, so the
    process begins one of its own.
    """
    given = os.getpriority(os.PRIO_PROCESS, 0)
    if given or os.sched_getscheduler(0) != os.SCHED_OTHER:
        return given
    with suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, NICE)
        if _AUTOGROUP.exists():
            os.setsid()
            _AUTOGROUP.write_text(str(NICE), encoding="ascii")
    return os.getpriority(os.PRIO_PROCESS, 0)
