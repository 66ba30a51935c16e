"""A drawing fits into any page: its colours are variables, its names its own, its bytes always the same."""

from __future__ import annotations

import re

import matplotlib as mpl
import pytest

from bnfold.report.page import svg


def drawn(prefix: str) -> str:
    with mpl.rc_context(svg.style()):
        figure = svg.figure(3, 2)
        axes = figure.subplots()
        axes.plot([0, 1, 2], [0.123456789, 5, 3], "o-", color=svg.FOLDED)
        axes.set_title("a $ is no formula $ here & <b>")
        return svg.text(figure, prefix)


def test_colours_are_variables() -> None:
    text = drawn("a")
    assert "var(--folded)" in text
    assert not re.search(r"#01020[0-9a-f]", text)


def test_text_stays_text() -> None:
    assert "a $ is no formula $ here &amp; &lt;b&gt;" in drawn("a")


def test_names_are_unique_and_found() -> None:
    text = drawn("a")
    names = re.findall(r' id="([^"]*)"', text)
    assert len(names) == len(set(names))
    assert all(name.startswith("a-") for name in names)
    used = set(re.findall(r'href="#([^"]*)"|url\(#([^)]*)\)', text))
    assert used
    assert {one or other for one, other in used} <= set(names)
    assert not set(names) & set(re.findall(r' id="([^"]*)"', drawn("b")))


def test_the_same_figure_gives_the_same_bytes() -> None:
    assert drawn("a") == drawn("a")


def test_nothing_from_outside_and_no_style_for_the_whole_page() -> None:
    text = drawn("a")
    assert re.findall(r'(?:href|src)="(?!#)', text) == []
    assert "<style" not in text
    assert "metadata" not in text
    assert text.startswith("<svg")


@pytest.mark.parametrize("attribute", [" width=", " height="])
def test_the_page_decides_on_the_size(attribute: str) -> None:
    head = drawn("a").split(">", 1)[0]
    assert attribute not in head
    assert "viewBox" in head
