"""Tables and numbers, as all text for a terminal shows them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import TypeVar

from rich.table import Table
from rich.text import Text

from bnfold.report.terminal.fitting import FittingTable

T = TypeVar("T")

SHOWN = 20
"""How many rows of a long table are shown unless -v asks for all."""


def headed(*headings: str) -> Table:
    """Start a table with these headings over its columns."""
    table = FittingTable()
    for heading in headings:
        table.add_column(heading, overflow="fold")  # what does not fit is broken, and never left out
    return table


def cut(things: Sequence[T], most: int, *, verbose: bool) -> tuple[Sequence[T], list[Text]]:
    """Take the first of many things.

    Args:
        things: All of them.
        most: How many are shown.
        verbose: Whether all are shown.

    Returns:
        Those that are shown, and where others are left out, a line that says how many.
    """
    if verbose or len(things) <= most + 1:  # the line would take as much room as the one thing more
        return things, []
    return things[:most], [more(f"{len(things) - most:,} more")]


def cut_each(
    things: Sequence[T], stands_out: Callable[[T], bool], most: int, *, verbose: bool
) -> tuple[Sequence[T], tuple[int, int]]:
    """Take the first of those that stand out, and the first of the others, in their common order.

    Args:
        things: All of them.
        stands_out: Which of them must not be pushed out of sight by the others.
        most: How many of each are shown.
        verbose: Whether all are shown.

    Returns:
        Those that are shown, and how many are left out: of those that stand out, and of the others.
    """
    if verbose:
        return things, (0, 0)
    seen: Counter[bool] = Counter()
    shown = []
    for thing in things:
        kind = stands_out(thing)
        seen[kind] += 1
        if seen[kind] <= most:
            shown.append(thing)
    return shown, (max(seen[True] - most, 0), max(seen[False] - most, 0))


def more(what: str) -> Text:
    """A line for what is left out, as `5 more sites`, and how to see it."""
    return Text(f"… and {what} (-v shows them)", style="dim")


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
