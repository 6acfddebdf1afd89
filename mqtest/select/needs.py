"""What a need is, and how it is written. Pure: text → Need, and back.

    NEED    := SUBJECT [OP NUMBER] ["of" SPAN] ["under" FAULT] ["at" NUMBER"/s"]     clauses in any order
    SUBJECT := a figure, which is a column of results.csv from `sent` on, and takes a comparison; or a word (words.py),
               which takes none
    OP      := < <= == >= >
    FAULT   := none, `power-cut:all`, the same as two words, an action alone (any target), a schedule's name, a glob
    SPAN    := `7 days`; only for `replay`

Rules:
- Without `under` it is about every cell of a profile, whatever its fault. What is measured before the fault, in the
  steady phase, cannot be asked under one.
- A rejection is a UsageError of one line that names the need, what is wrong, and what was perhaps meant.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import pairwise

from mqtest.errors import UsageError
from mqtest.fault_log import NO_FAULT
from mqtest.judge import COLUMNS
from mqtest.select.words import WORDS
from mqtest.toml import near

FIGURES = COLUMNS[COLUMNS.index("sent") : COLUMNS.index("audit_complete")]
"""the columns that are figures of a cell"""
OPS: Mapping[str, Callable[[float, float], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    "==": operator.eq,
    ">=": operator.ge,
    ">": operator.gt,
}
_OF_THE_FAULT = "fault_"
_STEADY = re.compile(
    r"(delivery_)?latency_ms_.*|(ack_rate|delivered|sustained|searched)_per_s|load_.*|pacing_lag_.*|(broker|client|consumer)_.*"
    r"|fsync_.*"
)
_NOT_FOUND = "not_found"
_REACHED = ("detected_s", "new_leader_s")
"""a cluster that did not come back may have come so far"""
_CLAUSES = ("of", "under", "at")
_UNITS = {"s": "second", "min": "minute", "h": "hour", "d": "day", "w": "week"}
_FAULT = re.compile(r"[\w.*?+:-]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """One requirement. `str()` writes it so that it parses to the same."""

    subject: str
    """of FIGURES or WORDS"""
    op: str = "=="
    bound: float = 0.0
    """a word has to be 0"""
    fault: str | None = None
    """a name, or a pattern of names; None: whatever the fault"""
    rate_per_s: float | None = None
    """None: at whatever rate"""
    span: str | None = None
    """how far back a replay is to go; no cell measures it"""

    @property
    def of_loss(self) -> bool:
        """Whether it asks what became of acknowledged messages."""
        if self.subject in WORDS:
            return WORDS[self.subject].of_loss
        return self.subject.startswith("lost") or self.subject == "read_then_lost"

    @property
    def of_time_lost(self) -> bool:
        """Whether it asks for how long something was away, in seconds."""
        return self.subject not in _REACHED and re.search(r"(?<!per)_s(_|$)", self.subject) is not None

    @property
    def of_speed(self) -> bool:
        """Whether the machine that it was measured on has a part in it."""
        return self.of_time_lost or "latency" in self.subject or _STEADY.fullmatch(self.subject) is not None

    def covers(self, fault: str) -> bool:
        """Whether it is about cells under this fault."""
        wanted = self.fault
        return wanted is None or fault == wanted or fnmatchcase(fault, wanted) or fnmatchcase(fault, f"{wanted}:*")

    def holds(self, value: float) -> bool:
        """Whether the figure is as it has to be."""
        return OPS[self.op](value, self.bound)

    def __str__(self) -> str:
        parts = [self.subject]
        if self.subject not in WORDS:
            parts += [self.op, number(self.bound)]
        parts += ["of", self.span] if self.span else []
        parts += ["under", self.fault] if self.fault else []
        parts += ["at", f"{number(self.rate_per_s)}/s"] if self.rate_per_s is not None else []
        return " ".join(parts)


def parse(text: str) -> Need:
    """The need that is written there; raises UsageError."""
    tokens = re.sub(r"([<>=!]+)", r" \1 ", text).split()
    first = next((i for i, token in enumerate(tokens) if token in _CLAUSES), len(tokens))
    given: dict[str, list[str]] = {}
    for name, words in _clauses(tokens[first:]):
        if name in given:
            raise _wrong(text, f"{name!r} stands twice")
        if not words:
            raise _wrong(text, f"nothing follows {name!r}")
        given[name] = words
    subject, op, bound = _claim(tokens[:first], text)
    fault = _fault(given["under"], text) if "under" in given else None
    if fault not in (None, NO_FAULT) and _STEADY.fullmatch(subject):
        during = _OF_THE_FAULT + subject
        instead = f"ask {during}, or " if during in FIGURES else ""
        raise _wrong(text, f"{subject} is measured in the steady phase, before a fault: {instead}drop 'under {fault}'")
    if "of" in given and subject != "replay":
        raise _wrong(text, "'of' and a time go with 'replay' alone")
    return Need(
        subject=subject,
        op=op,
        bound=bound,
        fault=fault,
        rate_per_s=_rate(given["at"], text) if "at" in given else None,
        span=_span(given["of"], text) if "of" in given else None,
    )


def number(value: float) -> str:
    """As short as it reads back the same."""
    return str(int(value)) if value == int(value) and abs(value) < 1e15 else repr(value)


def _clauses(tokens: list[str]) -> Iterator[tuple[str, list[str]]]:
    """`under X at Y` → (under, [X]), (at, [Y])."""
    starts = [i for i, token in enumerate(tokens) if token in _CLAUSES]
    for start, end in pairwise([*starts, len(tokens)]):
        yield tokens[start], tokens[start + 1 : end]


def _claim(tokens: list[str], text: str) -> tuple[str, str, float]:
    """The subject, and what it is compared with."""
    at = next((i for i, token in enumerate(tokens) if re.fullmatch(r"[<>=!]+", token)), None)
    subject = " ".join(tokens[:at]).lower()
    if not subject:
        raise _wrong(text, "nothing is asked; such as 'lost == 0 under power-cut:all', or 'ordered'")
    if subject == _NOT_FOUND:
        raise _wrong(text, "only profiles without acknowledgements have not_found, and those are never safe: ask lost")
    if subject not in WORDS and subject not in FIGURES:
        names = ", ".join(WORDS)
        hint = near(subject, [*WORDS, *FIGURES])
        raise _wrong(text, f"{subject!r} is no figure of results.csv, nor one of: {names}{hint}")
    if subject in WORDS:
        if at is not None:
            raise _wrong(text, f"{subject!r} takes no comparison")
        return subject, "==", 0.0
    if at is None:
        raise _wrong(text, f"{subject} takes a comparison, such as '{subject} == 0'")
    if tokens[at] not in OPS:
        meant = "; write == for equal" if tokens[at] == "=" else ""
        raise _wrong(text, f"{tokens[at]!r} compares nothing; allowed: {', '.join(OPS)}{meant}")
    if len(tokens) > at + 2:
        raise _wrong(text, f"{' '.join(tokens[at + 2 :])!r} is not understood; after the number come under, at")
    return subject, tokens[at], _finite(" ".join(tokens[at + 1 :]), text, "a number")


def _finite(word: str, text: str, what: str) -> float:
    try:
        value = float(word)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise _wrong(text, f"{word!r} is not {what}")
    return value


def _fault(words: list[str], text: str) -> str:
    fault = ":".join(words)
    if len(words) > 2 or not _FAULT.fullmatch(fault) or (len(words) == 2 and ":" in words[0] + words[1]):
        raise _wrong(text, f"{' '.join(words)!r} is no fault; such as power-cut:all, or power-cut all")
    return fault


def _rate(words: list[str], text: str) -> float:
    written, slash, _unit = "".join(words).partition("/s")
    if not slash or _unit:
        raise _wrong(text, f"{' '.join(words)!r} is no rate; such as 2000/s")
    rate = _finite(written, text, "a rate; such as 2000/s")
    if rate <= 0:
        raise _wrong(text, "a rate is above 0")
    return rate


def _span(words: list[str], text: str) -> str:
    found = re.fullmatch(r"(\d+(?:\.\d+)?) ?([a-z]+)", " ".join(words))
    unit = found and next((u for u in _UNITS.values() if found[2] in (u, f"{u}s")), _UNITS.get(found[2]))
    if not found or not unit or float(found[1]) <= 0:
        raise _wrong(text, f"{' '.join(words)!r} is no time; such as 7 days")
    return f"{number(float(found[1]))} {unit}{'' if float(found[1]) == 1 else 's'}"


def _wrong(text: str, why: str) -> UsageError:
    return UsageError(f"need {' '.join(text.split())!r}: {why}")
