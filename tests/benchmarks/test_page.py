"""Pages of measurements."""

from __future__ import annotations

import pytest

from benchmarks.page import MARKS, markdown_table, replaced


def test_a_table_takes_its_place() -> None:
    assert markdown_table(("a", "b"), [("1", "2")]) == ["| a | b |", "|---|---|", "| 1 | 2 |"]
    assert replaced(f"a\n{MARKS[0]} old {MARKS[1]}\nb", "new") == f"a\n{MARKS[0]}\n\nnew\n\n{MARKS[1]}\nb"


def test_a_page_without_a_place_is_left_alone() -> None:
    with pytest.raises(ValueError, match="substring not found"):
        replaced(f"a\n{MARKS[0]}\nb", "new")
