"""Tables and numbers, as all text for a terminal shows them."""

from __future__ import annotations

from rich.table import Table


def headed(*headings: str) -> Table:
    """Start a table with these headings over its columns."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for heading in headings:
        table.add_column(heading)
    return table


def small(value: float | None) -> str:
    """Write an error with two digits."""
    return "–" if value is None else f"{value:.1e}" if value else "0"


def plural(count: int, noun: str) -> str:
    """Write a noun as singular or plural, depending on a count."""
    return noun if count == 1 else f"{noun}s"


def count(number: int, noun: str) -> str:
    """Write a count with its noun."""
    return f"{number} {plural(number, noun)}"


def change(before: str, after: str) -> str:
    """Write a quantity before and after; a unit that both have is written once."""
    (first, _, one), (_, _, other) = before.partition(" "), after.partition(" ")
    return f"{first} → {after}" if one == other else f"{before} → {after}"


def large(number: int) -> str:
    """Write a number with three digits and a word for its size, as `33.4 million`."""
    for unit, word in ((10**9, "billion"), (10**6, "million")):
        if number >= unit:
            return f"{number / unit:.3g} {word}"
    return f"{number:,}"


def size(count: int) -> str:
    """Write a number of bytes in decimal units, as disks are sold and `ls --si` prints."""
    amount, units = float(count), ("bytes", "kB", "MB", "GB")
    for unit in units[:-1]:
        if amount < 1000:
            return f"{amount:.0f} {unit}" if unit == "bytes" else f"{amount:.1f} {unit}"
        amount /= 1000
    return f"{amount:.1f} {units[-1]}"
