"""Why a node ended, as far as its log says."""

from __future__ import annotations

import re
from itertools import takewhile
from pathlib import Path
from typing import Final

_ENGINE_TIME: Final = re.compile(r"^\d{4}-\d\d-\d\dT[\d:.]+Z ", re.MULTILINE)
_SPEAKS: Final = re.compile("error|exception|fatal|invalid", re.IGNORECASE)
_FRAMES: Final = 3


def said(log: Path) -> str:
    """What a node said, without the time that the engine puts before each line; empty without a log."""
    text = log.read_text(encoding="utf-8", errors="replace") if log.is_file() else ""
    return _ENGINE_TIME.sub("", text)


def telling(log: str) -> str:
    """The last line of a log that speaks of an error, with where it came from, if a Java stack follows; else its last
    line."""
    lines = [line.strip() for line in log.splitlines() if line.strip()] or ["no log"]
    speaks = [i for i, x in enumerate(lines) if _SPEAKS.search(x) and not x.startswith("at ")]
    last = speaks[-1] if speaks else len(lines) - 1
    frames = takewhile(lambda line: line.startswith("at "), lines[last + 1 :])
    own = [f.removeprefix("at ").partition("(")[0] for f in frames if not f.startswith(("at java.", "at jdk."))]
    return (lines[last] + (f" in {', '.join(own[:_FRAMES])}" if own else ""))[:400]
