"""What pages of measurements are made of: tables, and a place for them between two marks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import date

MARKS = ("<!-- the table begins -->", "<!-- the table ends -->")


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """The lines of a table."""
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    return [*lines, *("| " + " | ".join(row) + " |" for row in rows)]


def today() -> str:
    """The day of the measurement, as 21 November 2026."""
    day = date.today()
    return f"{day.day} {day:%B %Y}"


def replaced(page: str, text: str, marks: tuple[str, str] = MARKS) -> str:
    """The page with what stands between the marks replaced.

    Raises:
        ValueError: It does not have both marks.
    """
    begin, end = page.index(marks[0]) + len(marks[0]), page.index(marks[1])
    return f"{page[:begin]}\n\n{text}\n\n{page[end:]}"
