"""The one clock, and the one way to wait.

All times in ledgers and events are CLOCK_MONOTONIC of this host in nanoseconds (`now_ns`), so that times taken
in different processes, and inside the agent container, can be compared. Nothing sleeps for a fixed time to let
something happen: `wait_until` polls a condition, with a bound and a reason.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from mqtest.errors import WaitTimeout

T = TypeVar("T")

NS_PER_S = 1_000_000_000
NS_PER_MS = 1_000_000
now_ns = time.monotonic_ns


def wait_until(
    condition: Callable[[], T],
    timeout_s: float,
    why: str,
    *,
    poll_s: float = 0.05,
    swallow: tuple[type[Exception], ...] = (),
) -> T:
    """Poll `condition` until it returns something truthy, and return that.

    Exceptions of the types in `swallow` count as "not yet"; the last one is named in the error.
    Raises WaitTimeout("… after N s: why") when `timeout_s` seconds have passed.
    """
    deadline = time.monotonic() + timeout_s
    last: Exception | None = None
    while True:
        try:
            result = condition()
            last = None
        except swallow as error:
            last = error
        else:
            if result:
                return result
        if time.monotonic() >= deadline:
            seen = f" (last error: {last})" if last else ""
            raise WaitTimeout(f"waited {timeout_s:g} s for {why}{seen}")
        time.sleep(poll_s)
