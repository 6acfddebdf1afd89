"""Which runs are alive: a run holds a lock on a file of its own for as long as its process lives.

The kernel drops the lock with the process, however that ends; so a run is live exactly when somebody holds its lock,
and no PID is ever compared. The files are those of one user: another user's runs are not seen.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from mqtest.clock import wait_until
from mqtest.errors import UsageError

TAKE_S = 5.0
"""at most; another process that only looks may hold it for a moment"""


def folder() -> Path:
    """`$XDG_RUNTIME_DIR/mqtest-<uid>/runs` (else under /tmp), made when it is not there."""
    base = Path(os.environ.get("XDG_RUNTIME_DIR") or "/tmp") / f"mqtest-{os.getuid()}"
    base.mkdir(mode=0o700, parents=True, exist_ok=True)
    if base.stat().st_uid != os.getuid():
        raise UsageError(f"{base} belongs to somebody else: set XDG_RUNTIME_DIR to a folder of yours")
    runs = base / "runs"
    runs.mkdir(mode=0o700, exist_ok=True)
    return runs


@contextlib.contextmanager
def RunLock(run: str, take_s: float = TAKE_S) -> Iterator[None]:  # noqa: N802 - reads as the thing that is held
    """Hold the lock of a run while the block runs. Raises WaitTimeout when somebody else does, for `take_s`."""
    path = folder() / f"{run}.lock"
    (fd,) = wait_until(lambda: _take(path), take_s, f"the lock of run {run}: another process holds it")
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(fd)


def live_runs() -> set[str]:
    """The runs of this user whose process lives. Files of dead runs are removed on the way."""
    live = set()
    for path in folder().glob("*.lock"):
        try:
            fd = os.open(path, os.O_RDWR)
        except FileNotFoundError:
            continue
        try:
            if _locked(fd, fcntl.LOCK_SH):  # shared, so that two who look at once do not take each other for a run
                path.unlink(missing_ok=True)
            else:
                live.add(path.stem)
        finally:
            os.close(fd)
    return live


def _take(path: Path) -> tuple[int, ...]:
    """The locked file; nothing while somebody else has it, or when it was removed before we had it."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)  # closed in every program that a run starts
    if _locked(fd, fcntl.LOCK_EX) and path.exists() and os.fstat(fd).st_ino == path.stat().st_ino:
        return (fd,)
    os.close(fd)
    return ()


def _locked(fd: int, how: int) -> bool:
    try:
        fcntl.flock(fd, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
