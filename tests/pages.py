"""What a report.html says, read as a browser would: tables, cells, and the text of its parts."""

from __future__ import annotations

from html.parser import HTMLParser

VOID = {"meta", "link", "wbr", "br"}


class Page(HTMLParser):
    """Elements in the order of the page, each with its tag, attributes and whole text."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.found: list[tuple[str, dict[str, str], list[str]]] = []
        self._open: list[tuple[str, dict[str, str], list[str]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element: tuple[str, dict[str, str], list[str]] = (tag, {key: value or "" for key, value in attrs}, [])
        self.found.append(element)
        if tag not in VOID:
            self._open.append(element)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, {key: value or "" for key, value in attrs}, []))

    def handle_endtag(self, tag: str) -> None:
        while self._open and self._open.pop()[0] != tag:
            pass

    def handle_data(self, data: str) -> None:
        for _tag, _attributes, text in self._open:
            text.append(data)

    def all(self, tag: str, **attributes: str) -> list[str]:
        """The texts of these elements."""
        return [" ".join("".join(text).split()) for _attributes, text in self.elements(tag, **attributes)]

    def elements(self, tag: str, **attributes: str) -> list[tuple[dict[str, str], list[str]]]:
        """Their attributes and texts."""
        wanted = {key.rstrip("_"): value for key, value in attributes.items()}
        return [(a, text) for t, a, text in self.found if t == tag and wanted.items() <= a.items()]

    @property
    def squares(self) -> dict[tuple[str, str], str]:
        """(row heading, column heading) → what stands in the square of the first matrix."""
        rows: list[list[tuple[str, str, str]]] = []
        for tag, attributes, text in self.found:
            if tag == "table" and rows:
                break
            if tag == "tr":
                rows.append([])
            elif tag in ("th", "td") and rows:
                rows[-1].append((tag, attributes.get("class", ""), " ".join("".join(text).split())))
        heads = [text for _tag, _class, text in rows[0][1:]]
        return {
            (row[0][2], head): text for row in rows[1:] for head, (_t, _c, text) in zip(heads, row[1:], strict=True)
        }
