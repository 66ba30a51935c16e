"""What every result of a public function shows of itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from xml.etree import ElementTree

import pytest

from bnfold.display.plots import Bar
from bnfold.display.shown import Shown, counted


class Result(Shown):
    """A result with given answers."""

    axis = "ratio"
    line = 1.0

    def __init__(self, headline: str, rows: Sequence[dict[str, Any]], good: bool = True) -> None:
        self._headline, self._rows, self._good = headline, rows, good

    @property
    def headline(self) -> str:
        return self._headline

    def __bool__(self) -> bool:
        return self._good

    def records(self) -> list[dict[str, Any]]:
        return list(self._rows)

    def bars(self) -> list[Bar]:
        return [Bar(row["name"], row["value"], row["value"] - 0.1, row["value"] + 0.2) for row in self._rows]


ROWS = [{"name": f"row {place}", "value": place / 3, "empty": None} for place in range(70)]


def test_a_repr_is_short_and_on_one_line() -> None:
    assert repr(Result("It\nagrees.", [])) == "<Result: It agrees.>"
    assert len(repr(Result("x" * 5000, ROWS))) < 1100


def test_control_characters_are_never_shown() -> None:
    result = Result("\x1b[31mred\u202e", [{"name": "a\x00b<script>", "value": 1.0}])
    shown = repr(result) + result._repr_html_()
    assert not set(shown) & {"\x1b", "\u202e", "\x00"}
    assert "<script>" not in shown


def test_a_notebook_has_a_table_without_empty_columns() -> None:
    page = ElementTree.fromstring(Result("Good.", ROWS)._repr_html_())
    assert page.findtext("p") == "Good."
    assert [cell.text for cell in page.iter("th")] == ["name", "value"]
    assert len(page.findall(".//tbody/tr")) == 60
    assert page.findall("p")[1].text == "… and 10 more rows; .records() has them all."
    assert [cell.text for cell in page.findall(".//tbody/tr")[1]] == ["row 1", "0.3333"]


def test_without_rows_there_is_not_a_table() -> None:
    assert ElementTree.fromstring(Result("Nothing.", [])._repr_html_()).find("table") is None


def test_a_plot_has_the_bars_their_intervals_and_the_line() -> None:
    axes = Result("cost in $", ROWS[:3]).plot()
    assert axes.get_title(loc="left") == r"cost in \$"
    assert [label.get_text() for label in axes.get_yticklabels()] == ["row 0", "row 1", "row 2"]
    assert axes.get_xlabel() == "ratio"
    assert list(axes.lines[-1].get_xdata()) == [1.0, 1.0]  # type: ignore[arg-type]
    other = Result("x", ROWS).plot(axes)
    assert other is axes
    assert "the first 40 of 70" in axes.get_xlabel()


@pytest.mark.parametrize(("numbers", "text"), [({"folded": 3, "kept": 0}, "3 folded"), ({}, "")])
def test_counts_are_part_of_a_sentence(numbers: dict[str, int], text: str) -> None:
    assert counted(numbers) == text
