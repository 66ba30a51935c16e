"""Operators of the oldest opsets, which ONNX Runtime has no kernels for, against NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bnfold.oracle.evaluator import NotEvaluableError
from bnfold.oracle.oracle import Oracle
from tests.oracle.ops.nodes import floats, node

X = floats(2, 4, 6, 6)
FOUR, SIX = floats(4, seed=1), floats(6, seed=2)


def old(kind: str, opset: int, *others: np.ndarray, **attributes: Any) -> Any:
    feeds = {"x": X} | {f"i{number}": other for number, other in enumerate(others)}
    found = Oracle(node(kind, feeds, opset=opset, **attributes)).run(feeds)
    return found if len(found) > 1 else found[0]


@pytest.mark.parametrize("opset", [1, 6])
@pytest.mark.parametrize(
    ("kind", "function"),
    [("Add", np.add), ("Sub", np.subtract), ("Mul", np.multiply), ("Greater", np.greater)],
)
def test_the_second_input_lies_along_an_axis_or_the_last_ones(kind: str, function: Any, opset: int) -> None:
    wide, column = X.astype(float), FOUR.astype(float)[:, None, None]
    along = old(kind, opset, FOUR, broadcast=1, axis=1)
    assert np.array_equal(along, function(wide, column))
    assert np.array_equal(old(kind, opset, FOUR, broadcast=1, axis=-3), along)
    assert np.array_equal(old(kind, opset, SIX, broadcast=1), function(wide, SIX.astype(float)))
    assert np.array_equal(old(kind, opset, X), function(wide, wide))


def test_nothing_broadcasts_unasked() -> None:
    with pytest.raises(NotEvaluableError, match=r"the shapes .* differ"):
        old("Add", 6, SIX)
    assert np.array_equal(old("Add", 7, SIX), X.astype(float) + SIX.astype(float))


@pytest.mark.parametrize("opset", [1, 6, 18])
def test_what_only_lost_an_attribute(opset: int) -> None:
    memory = {"consumed_inputs": [0]} if opset < 6 else {}
    wide = X.astype(float)
    assert np.array_equal(old("Sum", opset, X, **memory), 2 * wide)
    assert np.array_equal(old("Max", opset, -X, **memory), np.abs(wide))
    slopes = FOUR.reshape(4, 1, 1) if opset > 6 else FOUR
    found = old("PRelu", opset, slopes, **memory)
    assert np.array_equal(found, np.where(wide < 0, wide * FOUR.astype(float)[:, None, None], wide))
    if opset < 11:
        assert np.array_equal(old("Clip", opset, min=-0.5, max=0.25, **memory), wide.clip(-0.5, 0.25))


def test_what_was_an_attribute_or_an_input() -> None:
    wide = X.astype(float)
    assert np.array_equal(old("Reshape", 1, shape=[2, -1]), wide.reshape(2, -1))
    assert np.array_equal(old("Reshape", 5, np.array([0, -1])), wide.reshape(2, -1))
    assert np.array_equal(old("Concat", 1, X), np.concatenate([wide, wide], 1))
    assert np.array_equal(old("Concat", 4, X, axis=-1), np.concatenate([wide, wide], -1))
    assert np.array_equal(old("Tile", 1, np.array(3), np.array(2)), np.tile(wide, (1, 1, 3, 1)))
    assert np.array_equal(old("Tile", 6, np.array([1, 2, 1, 1])), np.tile(wide, (1, 2, 1, 1)))
    assert np.array_equal(old("Cast", 1, to="INT32"), X.astype(np.int32))
    assert np.array_equal(old("Cast", 1, to="float16"), wide)


@pytest.mark.parametrize("opset", [1, 2])
def test_split_by_an_attribute(opset: int) -> None:
    wide = X.astype(float)
    first, second = old("Split", opset, axis=1, split=[1, 3], outputs=2)
    assert np.array_equal(first, wide[:, :1])
    assert np.array_equal(second, wide[:, 1:])
    assert [part.shape for part in old("Split", opset, axis=1, outputs=2)] == [(2, 2, 6, 6)] * 2
    if opset == 1:
        parts = old("Split", 1, np.array([3, 1]), axis=1, outputs=2)
        assert [part.shape for part in parts] == [(2, 3, 6, 6), (2, 1, 6, 6)]
