"""What is told of a log."""

from __future__ import annotations

from pathlib import Path

import pytest

from mqtest.last_words import said, telling

STACK = """\
20:38:20.080 WARN hook
a.FormatException: Cannot parse null
\tat java.base/java.lang.Integer.parseInt(Integer.java:624)
\tat org.a.InvalidFile.read(InvalidFile.java:107)
\tat org.a.Cache.init(Cache.java:59)
20:38:28.848 WARN shut down
"""


@pytest.mark.parametrize(
    ("log", "told"),
    [
        (
            STACK,
            "a.FormatException: Cannot parse null in org.a.InvalidFile.read, org.a.Cache.init",
        ),
        ("one\nan Error\ntwo\n\n", "an Error"),
        ("one\ntwo\n\n", "two"),
        ("", "no log"),
    ],
)
def test_the_telling_line_of_a_log(log: str, told: str) -> None:
    assert telling(log) == told


def test_what_a_node_said_is_told_without_the_time_of_the_engine(tmp_path: Path) -> None:
    log = tmp_path / "node.log"
    log.write_text("2026-11-28T20:38:20.080Z 20:38:20.080 WARN hook\n2026-11-28T20:38:20.100Z \tat a.B\n", "utf-8")
    assert said(log) == "20:38:20.080 WARN hook\n\tat a.B\n"
    assert said(tmp_path / "none.log") == ""
