"""The settings of the memory broker: dials, each of which breaks one promise. At rest it keeps every one.

They come as JSON in the environment variable SETTINGS. One that is unknown or of another type is ignored, as real
brokers do; the driver finds that out by reading them back.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import msgspec

SETTINGS = "MQTEST_SETTINGS"


@dataclass(frozen=True, slots=True, kw_only=True)
class Dials:
    """The settings. `…_every = n` hits every n-th message that is produced (or delivered); 0: none."""

    fsync: bool = True
    """fsync before answering; else only a clean stop does"""
    lose_last_on_kill: int = 0
    """so many of the newest messages of each place are acknowledged while they are in this process only"""
    delay_ms: int = 0
    """answers to producers wait so long"""
    answers_per_s: int = 0
    """at most, to producers; 0: as many as there are"""
    duplicate_every: int = 0
    """stored twice"""
    reorder_every: int = 0
    """stored behind its successor"""
    corrupt_every: int = 0
    """stored with one byte changed"""
    drop_acked_every: int = 0
    """acknowledged, never stored"""
    misreport_every: int = 0
    """log: acknowledged with the position after its own"""
    refuse_every: int = 0
    """refused, and not stored"""
    refuse_stored_every: int = 0
    """refused, and stored all the same"""
    retain_messages: int = 0
    """log: no more than so many of the newest of each place are kept, of the topic that producers write to; 0: all"""
    redeliver_every: int = 0
    """queue: delivered again, flagged, right after its first delivery"""


def read_dials(text: str) -> Dials:
    """The settings in `text` (JSON); one that is unknown or of another type is left out."""
    asked: Mapping[str, Any] = msgspec.json.decode(text)
    known = {f.name: type(f.default) for f in fields(Dials)}
    return msgspec.convert({key: value for key, value in asked.items() if type(value) is known.get(key)}, Dials)


def text(value: object) -> str:
    """A setting's value as it is compared and shown: JSON."""
    return msgspec.json.encode(value).decode()


def shown(dials: Dials) -> dict[str, str]:
    """Every setting in force, as text."""
    return {f.name: text(getattr(dials, f.name)) for f in fields(Dials)}
