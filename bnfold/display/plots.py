"""A result as one plot of horizontal bars, drawn with matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bnfold.display.visible import visible

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MOST_BARS = 40
_LONGEST_TITLE = 90  # characters


@dataclass(frozen=True)
class Bar:
    """One number of a plot.

    Attributes:
        label: What it belongs to.
        value: The number.
        low: The lower end of its 95 % interval; None without one.
        high: The upper end.
    """

    label: str
    value: float
    low: float | None = None
    high: float | None = None


def draw(bars: Sequence[Bar], *, axis: str, line: float | None, title: str, axes: Axes | None = None) -> Axes:
    """Draw bars from top to bottom, the first 40 of them.

    Args:
        bars: The numbers.
        axis: What they are, with their unit.
        line: A value to compare with; None for none.
        title: What stands above.
        axes: Where to draw; None makes a figure.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError:
        from bnfold.errors import MissingExtraError

        raise MissingExtraError("matplotlib", "report", "draw a plot") from None
    shown = bars[:_MOST_BARS]
    if axes is None:
        axes = Figure(figsize=(8, 1.2 + 0.32 * len(shown)), layout="constrained").subplots()
    places = range(len(shown))
    if any(bar.low is not None for bar in shown):
        errors = [
            [bar.value - (bar.value if bar.low is None else bar.low) for bar in shown],
            [(bar.value if bar.high is None else bar.high) - bar.value for bar in shown],
        ]
        axes.errorbar([bar.value for bar in shown], places, xerr=errors, fmt="o", capsize=3)
    else:
        axes.barh(places, [bar.value for bar in shown])
    axes.set_yticks(places, [_plain(bar.label) for bar in shown])
    axes.invert_yaxis()
    if line is not None:
        axes.axvline(line, color="0.5", linewidth=1)
    hidden = f" (the first {_MOST_BARS} of {len(bars)})" if len(bars) > _MOST_BARS else ""
    axes.set_xlabel(axis + hidden)
    axes.set_title(_plain(title[:_LONGEST_TITLE]), loc="left", fontsize="medium")
    return axes


def _plain(text: str) -> str:
    """As it is: matplotlib would read what stands between two dollar signs as a formula."""
    return visible(text).replace("$", r"\$")
