"""A table that a narrow screen shows as far as it fits: its first columns, with no number broken."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import replace

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Column, Table
from rich.text import Text

_GAP = 2
_NAME = 20  # a name is broken into pieces of this width rather than that a column is left out
_LEAST = 3  # columns, which have the answer


class FittingTable(Table):
    """Leaves out columns on the right until words and numbers of the others are whole, and says which."""

    def __init__(self) -> None:
        super().__init__(box=None, pad_edge=False, padding=(0, _GAP, 0, 0), header_style="bold")

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Show the columns that fit, and name the others."""
        for number in range(len(self.columns), 0, -1):
            some, room = self.columns[:number], options.max_width - _GAP * (number - 1)
            widths = _widths(some, room)
            if widths or number <= _LEAST:
                break
        if widths:  # where not even the answer fits, rich breaks its words
            some = [replace(column, width=width) for column, width in zip(some, widths, strict=True)]
        shown = copy(self)
        shown.columns = some
        yield from super(FittingTable, shown).__rich_console__(console, options)
        if left := [str(column.header) for column in self.columns[number:]]:
            columns, them = ("column", "it") if len(left) == 1 else ("columns", "them")
            yield Text(f"… and the {columns} {', '.join(left)} (a wider window shows {them})", style="dim")


def _widths(columns: Sequence[Column], room: int) -> list[int]:
    """How wide columns are in this room; empty where they do not fit.

    All get what they need at least. What is left goes to those that would take more, the most modest first.
    """
    least, most = zip(*map(_needs, columns), strict=True)
    widths, left = list(least), room - sum(least)
    if left < 0:
        return []
    wanting = sorted(range(len(columns)), key=lambda at: most[at] - least[at])
    for place, at in enumerate(wanting):
        more = min(most[at] - least[at], left // (len(columns) - place))
        widths[at] += more
        left -= more
    return widths


def _needs(column: Column) -> tuple[int, int]:
    """The least and the most width that a column has use for, in cells of a terminal."""
    heading, cells = str(column.header), [str(cell) for cell in column.cells]
    words = [word for text in (heading, *cells) for word in text.split()]
    if column.justify == "right":  # numbers, which are read as a whole
        words += [line for text in cells for line in text.splitlines()]
        least = max(map(cell_len, words), default=0)
    else:
        least = min(max(map(cell_len, words), default=0), _NAME)
    most = max((cell_len(line) for text in (heading, *cells) for line in text.splitlines()), default=0)
    return least, max(least, most)
