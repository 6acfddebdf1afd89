"""Facts about this host that stand beside every result."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

_LIBRARIES = ("confluent-kafka", "google-crc32c", "pika", "rocketmq-client-python", "rstream")


def facts() -> dict[str, str | int | float]:
    """Machine, kernel, memory and Python; nothing that names the host or its user."""
    return {
        "cpu": _first_match("/proc/cpuinfo", "model name") or platform.machine(),
        "cores": os.cpu_count() or 0,
        "memory_gb": round(int((_first_match("/proc/meminfo", "MemTotal") or "0 kB").split()[0]) / 1e6, 1),
        "kernel": platform.release(),
        "os": _os_name(),
        "python": platform.python_version(),
    }


def client_versions() -> dict[str, str]:
    """Versions of the client libraries that are installed."""
    found = {}
    for name in _LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _first_match(path: str, key: str) -> str | None:
    for line in Path(path).read_text(encoding="utf-8").splitlines():
        name, _, value = line.partition(":")
        if name.strip() == key:
            return value.strip()
    return None


def _os_name() -> str:
    release = Path("/etc/os-release")
    if release.is_file():
        for line in release.read_text(encoding="utf-8").splitlines():
            if line.startswith("PRETTY_NAME="):
                return line.split("=", 1)[1].strip('"')
    return platform.system()
