"""What samples cover is said in numbers, and what they do not cover in a sentence."""

from __future__ import annotations

import numpy as np
import pytest

from bnfold.inputs import coverage
from bnfold.inputs.coverage import Dimension
from bnfold.inputs.uses import Use
from bnfold.runtime.interface import Port


def test_sizes_and_numbers_of_some_samples():
    ports = [Port("x", "float32", ("N", 3, None)), Port("k", "int64", ("N",))]
    samples = [
        {"x": np.zeros((batch, 3, size)), "k": np.full(batch, batch)}
        for batch, size in ((1, 8), (2, 9), (2, 8))
    ]
    assert coverage.dimensions(ports, samples, {"N": {2, 3}}) == (
        Dimension("N", (1, 2), (3,)),
        Dimension("x.2", (8, 9)),
    )
    (numbers,) = coverage.integers(ports, samples, {"k": Use(table=7)})
    assert (numbers.name, numbers.low, numbers.high, numbers.distinct, numbers.use.table) == ("k", 1, 2, 2, 7)


def test_one_and_many():
    assert [
        (d.one, d.many) for d in (Dimension("N", (1,)), Dimension("N", (2, 3)), Dimension("N", (1, 4)))
    ] == [
        (True, False),
        (False, True),
        (True, True),
    ]


@pytest.mark.parametrize(
    ("dimension", "gap"),
    [
        (Dimension("H", (1, 2)), None),
        (Dimension("H", (64,), (65,)), "The dynamic dimension H was tried at the size 64 only."),
        (
            Dimension("H", (64, 96), (8, 63, 65)),
            "The dynamic dimension H was tried at even sizes only: 64, 96. The model rejects 63, 65.",
        ),
        (Dimension("H", (1, 3)), "The dynamic dimension H was tried at odd sizes only: 1, 3."),
        (
            Dimension("H", (2, 4), tuple(range(1, 40))),
            "The dynamic dimension H was tried at even sizes only: 2, 4. "
            "The model rejects 1, 3, 5, 7, 9, 11, 13, 15 and 12 more.",
        ),
    ],
)
def test_gaps(dimension: Dimension, gap: str | None):
    assert dimension.gap == gap
