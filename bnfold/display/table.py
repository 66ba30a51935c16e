"""Records as a table of HTML, as a notebook shows it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from xml.etree import ElementTree

from bnfold.display.visible import visible

_MOST_ROWS = 60
_LONGEST = 80  # characters of a cell


def as_html(headline: str, records: Sequence[Mapping[str, Any]]) -> str:
    """A headline and a table under it; columns that are empty in every row are left out.

    Args:
        headline: The answer, in words.
        records: Rows with the same keys. After 60 of them only the number of the others is said.

    Returns:
        HTML in which every text is escaped.
    """
    division = ElementTree.Element("div")
    _add(division, "p", headline)
    columns = [
        name
        for name in (records[0] if records else ())
        if any(row[name] not in (None, "") for row in records)
    ]
    if columns:
        table = ElementTree.SubElement(division, "table")
        _row(ElementTree.SubElement(table, "thead"), "th", [name.replace("_", " ") for name in columns])
        body = ElementTree.SubElement(table, "tbody")
        for record in records[:_MOST_ROWS]:
            _row(body, "td", [_text(record[name]) for name in columns])
    if len(records) > _MOST_ROWS:
        _add(division, "p", f"… and {len(records) - _MOST_ROWS} more rows; .records() has them all.")
    return ElementTree.tostring(division, encoding="unicode", method="html")


def _row(parent: ElementTree.Element, tag: str, cells: Sequence[str]) -> None:
    row = ElementTree.SubElement(parent, "tr")
    for cell in cells:
        _add(row, tag, cell)


def _add(parent: ElementTree.Element, tag: str, text: str) -> None:
    ElementTree.SubElement(parent, tag).text = visible(text)


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.4g}"
    text = str(value)
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
