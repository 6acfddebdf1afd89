"""The colours of the pictures, by what they stand for: one for light paper, one for dark. In the page they are CSS
variables; a picture that stands alone carries both (svg.py). Nothing is told by a colour alone."""

from __future__ import annotations

from collections.abc import Iterable

from mqtest.model import Verdict

COLOURS: dict[str, tuple[str, str]] = {
    "paper": ("#ffffff", "#12151a"),
    "card": ("#f6f7f9", "#1a1f26"),
    "ink": ("#1b2027", "#e8ebef"),
    "soft": ("#555f6b", "#a3adb9"),
    "line": ("#dde1e6", "#313944"),
    "link": ("#0b5cad", "#7fbcf5"),
    # verdicts, and what is written upon them
    "kept": ("#dcefe4", "#173d2b"),
    "kept-text": ("#135236", "#a9e5c4"),
    "lost": ("#ffc857", "#8a5a00"),
    "lost-text": ("#3d2600", "#fff3da"),
    "broken": ("#b3141e", "#d12f38"),
    "broken-text": ("#fffffe", "#fffffe"),
    "dead": ("#2b1626", "#f3e9f0"),
    "dead-text": ("#fffffd", "#2a1424"),
    "unknown": ("#e6dcf7", "#3a2a5c"),
    "unknown-text": ("#46217f", "#d9c7ff"),
    "invalid": ("#e3e6ea", "#343b45"),
    "invalid-text": ("#3b4450", "#cfd6df"),
    # brokers
    "kafka": ("#1f6fb2", "#6bb3f0"),
    "rabbitmq": ("#c2530a", "#ff9d57"),
    "rocketmq": ("#7a3fb0", "#c79bf0"),
    "other": ("#3d7a57", "#86d3a7"),
    # of one cell
    "acks": ("#1f6fb3", "#6bb3f1"),
    "deliveries": ("#2f7d54", "#7fd3a5"),
    "unseen": ("#8a6a12", "#d9b95c"),
    "doubt": ("#b0367a", "#f08cc0"),
    "gone": ("#b3141f", "#ff7b80"),
    "middle": ("#1f6fb4", "#6bb3f2"),
    "tail": ("#7a3fb1", "#c79bf1"),
    "fault": ("#d8434b", "#e5636a"),
    "heal": ("#d99a1c", "#d9a441"),
}
"""No two names share a light colour, so that a picture that stands alone can be recoloured for dark paper."""

BROKERS = ("kafka", "rabbitmq", "rocketmq")
SHORT = {Verdict.LOST_AS_DOCUMENTED: "lost"}
"""a verdict's word where there is little room"""


def ink(name: str) -> str:
    """The colour, as the page knows it."""
    if name not in COLOURS:
        raise KeyError(name)
    return f"var(--{name})"


def short(verdict: Verdict) -> str:
    """Its word, and the name of its colour."""
    return SHORT.get(verdict, str(verdict))


def broker_colour(broker: str) -> str:
    """The name of its colour."""
    return broker if broker in BROKERS else "other"


def css() -> str:
    """The variables, for light and for dark."""
    light, dark = (_variables((name, pair[n]) for name, pair in COLOURS.items()) for n in (0, 1))
    return f":root{{{light}}}\n@media screen and (prefers-color-scheme:dark){{:root{{{dark}}}}}"


def _variables(pairs: Iterable[tuple[str, str]]) -> str:
    return "".join(f"--{name}:{value};" for name, value in pairs)
