"""Nothing that a model holds is obeyed by a terminal or a browser."""

from __future__ import annotations

import pytest

from bnfold.display.visible import visible

BAD = [
    *range(0x20),
    *range(0x7F, 0xA0),
    *range(0x202A, 0x202F),
    *range(0x2066, 0x206A),
    0x200F,
    0x2028,
    0xD801,
]


@pytest.mark.parametrize("code", [code for code in BAD if chr(code) not in "\n\t"])
def test_a_control_character_becomes_one_that_is_only_seen(code):
    shown = visible(f"a{chr(code)}b")
    assert len(shown) == 3
    assert shown[1].isprintable()


def test_everything_else_stays():
    text = "γ·x − μ\n\tüber 卷积 🙂 'quoted' <b>&amp;"
    assert visible(text) == text
