"""What is told of a log."""

from __future__ import annotations

import pytest

from mqtest.last_words import telling

STACK = """\
2026-11-28T20:38:20.080Z 20:38:20.080 WARN hook
2026-11-28T20:38:20.100Z a.FormatException: Cannot parse null
2026-11-28T20:38:20.100Z \tat java.base/java.lang.Integer.parseInt(Integer.java:624)
2026-11-28T20:38:20.101Z \tat org.a.InvalidFile.read(InvalidFile.java:107)
2026-11-28T20:38:20.101Z \tat org.a.Cache.init(Cache.java:59)
2026-11-28T20:38:28.849Z 20:38:28.848 WARN shut down
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
