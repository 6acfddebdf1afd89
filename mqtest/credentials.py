"""Credentials and TLS for a cluster that is not ours: from a file or the environment, and never in a result.

- A TOML file of the client's own keys (`"sasl.password" = "…"`), without tables; or for each key a variable
  `MQTEST_<BROKER>_<KEY>` with every other character as `_` (MQTEST_KAFKA_SASL_PASSWORD). The variable wins.
- Which keys there are, each foreign broker says (`ACCESS`). A rejection names the file and the key, never a value.
- They reach the clients inside the wiring, on a pipe. Whatever is written down passes through `mask`, which takes every
  value out that is not known to be harmless: librdkafka, for one, quotes the values that it refuses.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mqtest import toml
from mqtest.errors import UsageError
from mqtest.model import Value

_HARMLESS = re.compile(
    r"(protocol|mechanism|mechanisms|location|username|vhost|tls|algorithm|verification|check_host|_file)$"
)
"""keys whose values may be seen"""
_LEAST = 3
"""a shorter value is not taken out of texts: it would take half of them along"""
MASK = "***"


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a client needs to be let in."""

    access: Mapping[str, Value] = field(default_factory=dict, repr=False)
    """in the client's own keys"""

    def mask(self, text: str) -> str:
        """The text without any value that is not known to be harmless."""
        for key, value in self.access.items():
            if not _HARMLESS.search(key) and len(str(value)) >= _LEAST:
                text = text.replace(str(value), MASK)
        return text


def read(broker: str, allowed: Sequence[str], path: Path | None, environment: Mapping[str, str]) -> Credentials:
    """Those of the file, overlaid by those of the environment; raises UsageError."""
    found: dict[str, Value] = {}
    for key, value in (toml.read(path) if path is not None else {}).items():
        if key not in allowed:
            raise UsageError(f"{path}: {toml.unknown('key', key, list(allowed))}")
        if not isinstance(value, str | int | float | bool):
            raise UsageError(f"{path}: {key}: expected one value")
        found[key] = value
    for key in allowed:
        name = variable(broker, key)
        if name in environment:
            found[key] = environment[name]
    return Credentials(found)


def variable(broker: str, key: str) -> str:
    """The environment variable of a key."""
    return re.sub(r"[^A-Z0-9]", "_", f"MQTEST_{broker}_{key}".upper())
