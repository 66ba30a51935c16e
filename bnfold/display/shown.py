"""What results of public functions have in common: an answer, a verdict, a table, a plot."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from bnfold.display.visible import visible

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from bnfold.display.plots import Bar

_LONGEST = 1000  # characters of a headline in a repr


class Shown(ABC):
    """A result that is short in `repr`, a table in a notebook, and true where its verdict is good.

    Attributes:
        axis: What the numbers of the plot are, with their unit.
        line: Where the plot has a line to compare with; None for none.
    """

    axis: ClassVar[str] = ""
    line: ClassVar[float | None] = None

    @property
    @abstractmethod
    def headline(self) -> str:
        """The answer in one or two sentences."""

    @abstractmethod
    def __bool__(self) -> bool: ...

    @abstractmethod
    def records(self) -> list[dict[str, Any]]:
        """The result as rows of plain values with the same keys, as `pandas.DataFrame` takes them."""

    @abstractmethod
    def bars(self) -> Sequence[Bar]:
        """The numbers of the plot."""

    def plot(self, axes: Axes | None = None) -> Axes:
        """Draw the result with matplotlib.

        Args:
            axes: Where to draw; None makes a figure.

        Returns:
            What was drawn on; its `figure` can be saved.

        Raises:
            MissingExtraError: matplotlib is not installed.
        """
        from bnfold.display.plots import draw

        return draw(self.bars(), axis=self.axis, line=self.line, title=self.headline, axes=axes)

    def __repr__(self) -> str:
        text = visible(self.headline).replace("\n", " ")
        return f"<{type(self).__name__}: {text if len(text) <= _LONGEST else text[: _LONGEST - 1] + '…'}>"

    def _repr_html_(self) -> str:
        from bnfold.display.table import as_html

        return as_html(self.headline, self.records())


def counted(statuses: Mapping[str, int]) -> str:
    """Numbers by name as part of a sentence: `3 folded, 1 kept`."""
    return ", ".join(f"{number} {name}" for name, number in statuses.items() if number)
