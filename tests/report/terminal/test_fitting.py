"""On a narrow screen a table shows its first columns, with words and numbers whole."""

from __future__ import annotations

from rich.cells import cell_len
from rich.text import Text

from bnfold.report.terminal.fitting import FittingTable
from bnfold.report.terminal.tables import headed
from tests.report.shown import shown

LONG = "stages.0.blocks.12.downsample.conv"


def table() -> FittingTable:
    """Names, a verdict, and numbers."""
    made = headed("value", "verdict", "error", "original / folded")
    assert isinstance(made, FittingTable)
    for column in made.columns[2:]:
        column.justify = "right"
    made.add_row(Text(LONG), Text("no measurable difference"), "4.7e-07", "0.982 to 1.015")
    made.add_row("short", "agrees", "2.2e-08", "–")
    return made


def test_no_line_is_too_long_and_nothing_that_is_shown_is_cut() -> None:
    for width in range(24, 110):
        lines = shown(table(), width).splitlines()
        assert max(map(len, lines)) <= width
        text = "\n".join(lines)
        assert "…" not in text.replace("… and the column", ""), width
        pieces = [line.split("  ")[0].strip() for line in lines[1:]]
        assert LONG in "".join(pieces), f"the name is not whole at {width}"
        assert "agrees" in text


def test_numbers_are_never_broken() -> None:
    for width in range(41, 110):
        text, _, left = " ".join(shown(table(), width).split()).partition("… and the column")
        assert ("4.7e-07" in text) != ("error" in left), width
        assert ("0.982 to 1.015" in text) != ("original / folded" in left), width


def test_columns_are_left_out_from_the_right_and_named() -> None:
    assert "… and the column" not in shown(table(), 90)
    one = " ".join(shown(table(), 50).split())
    assert "… and the column original / folded (a wider window shows it)" in one
    made = table()
    made.add_column("more")
    both = " ".join(shown(made, 50).split())
    assert "… and the columns original / folded, more (a wider window shows them)" in both
    narrow = " ".join(shown(made, 25).split())
    assert "… and the columns original / folded, more (" in narrow, "three stay"


def test_wide_characters_count_twice() -> None:
    made = headed("値", "n")
    made.add_row("重" * 30, "1")
    lines = shown(made, 30).splitlines()
    assert max(map(cell_len, lines)) <= 30
    assert sum(line.count("重") for line in lines) == 30


def test_without_rows_there_are_the_headings() -> None:
    assert shown(headed("a", "b"), 20).split() == ["a", "b"]


def test_a_table_can_be_shown_twice() -> None:
    one = table()
    assert shown(one, 35) == shown(one, 35)
    assert "… and" not in shown(one, 200)
