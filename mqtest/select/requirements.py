"""requirements.toml and the presets that ship → Requirements. A preset is such a file, in presets/.

    about = "one line"                    # optional, all of them
    preset = "money"                      # to start from; its needs stand before these
    needs = ["lost == 0 under power-cut:all", "ordered"]
    prefer = ["latency"]                  # in place of the preset's
    cells = 3                             # so many cells have to meet each need

A rejection is a UsageError of one line: the file, the key, and what is allowed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mqtest import toml
from mqtest.errors import UsageError
from mqtest.select.needs import Need, parse
from mqtest.select.ranking import PREFERENCES

_PRESETS = Path(__file__).parent / "presets"


@dataclass(frozen=True, slots=True, kw_only=True)
class _File:
    """The keys of a file."""

    about: str = ""
    preset: str | None = None
    needs: Sequence[str] = ()
    prefer: Sequence[str] = ()
    cells: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Requirements:
    """What somebody wants."""

    needs: tuple[Need, ...] = ()
    """the most important first"""
    prefer: tuple[str, ...] = ()
    """names of PREFERENCES"""
    cells: int | None = None
    """that have to meet each need; None: one"""

    def over(self, base: Requirements) -> Requirements:
        """These needs after those of `base`, each once; the rest in place of that of `base` where it is given."""
        return Requirements(
            needs=tuple(dict.fromkeys((*base.needs, *self.needs))),
            prefer=self.prefer or base.prefer,
            cells=base.cells if self.cells is None else self.cells,
        )


def asked(needs: Sequence[str], prefer: Sequence[str], cells: int | None = None) -> Requirements:
    """Of texts; raises UsageError."""
    for name in prefer:
        if name not in PREFERENCES:
            raise UsageError(toml.unknown("preference", name, list(PREFERENCES)))
    if cells is not None and cells < 1:
        raise UsageError("cells: must be at least 1")
    return Requirements(needs=tuple(map(parse, needs)), prefer=tuple(prefer), cells=cells)


def load(path: Path) -> Requirements:
    """Of a file, with the preset that it starts from; raises UsageError."""
    file = _read(path)
    try:
        mine = asked(file.needs, file.prefer, file.cells)
        return mine if file.preset is None else mine.over(preset(file.preset))
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from error


def preset(name: str) -> Requirements:
    """Of a preset; raises UsageError."""
    known = [path.stem for path in _shipped()]
    if name not in known:
        raise UsageError(toml.unknown("preset", name, known))
    return load(_PRESETS / f"{name}.toml")


def presets() -> list[tuple[str, str, Requirements]]:
    """Name, one line about it, and what it asks, of each preset that ships."""
    return [(path.stem, _read(path).about, load(path)) for path in _shipped()]


def _read(path: Path) -> _File:
    return toml.convert(toml.read(path), _File, path)


def _shipped() -> list[Path]:
    return sorted(_PRESETS.glob("*.toml"))
