"""Numbers as people write them."""

from __future__ import annotations

import math

import pytest

from bnfold.report.page.words import count, number, place, short


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [
        (0.0, 2, "0"),
        (None, 2, "–"),
        (math.nan, 2, "–"),
        (math.inf, 2, "–"),
        (1.9e-7, 2, "1.9×10⁻⁷"),
        (0.00213, 2, "0.0021"),
        (0.9304, 3, "0.930"),
        (1.0834, 3, "1.08"),
        (9801.0, 3, "9801"),
        (1.234e9, 3, "1.23×10⁹"),
        (0.09996, 3, "0.100"),
        (-2.5e-5, 2, "-2.5×10⁻⁵"),
    ],
)
def test_a_number_has_the_digits_asked_for(value: float | None, digits: int, text: str) -> None:
    assert number(value, digits) == text


@pytest.mark.parametrize(
    ("value", "text"), [(9, "9"), (9_999, "9,999"), (62_600, "62.6 k"), (4_820_000, "4.82 M"), (3e9, "3 G")]
)
def test_a_count_is_short(value: float, text: str) -> None:
    assert short(value) == text


def test_nouns_and_places() -> None:
    assert [count(1, "layer"), count(2000, "layer")] == ["1 layer", "2,000 layers"]
    assert place({"provider": "cpu", "optimizer": "off"}) == "CPU, optimizer off"
    assert place({"provider": "cuda", "optimizer": "off", "row": "tf32"}) == "CUDA, optimizer off, TF32"
