"""GatherElements and ScatterElements against ONNX Runtime, also along axes that ONNX's reference fails on."""

from __future__ import annotations

import numpy as np
import pytest

from bnfold.oracle.evaluator import NotEvaluableError
from tests.oracle.ops.nodes import agrees, evaluated, floats


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_elements_are_gathered(axis: int) -> None:
    indices = np.random.default_rng(axis + 1).integers(-3, 3, (2, 3, 2))
    agrees("GatherElements", {"x": floats(3, 4, 3)}, {"i": indices}, axis=axis)


def test_long_axes() -> None:
    indices = np.random.default_rng(0).integers(0, 500, (700, 4))
    agrees("GatherElements", {"x": floats(500, 4)}, {"i": indices}, axis=0)


def test_an_index_beyond_the_end_is_refused() -> None:
    with pytest.raises(NotEvaluableError, match="out of bounds"):
        evaluated("GatherElements", {"x": floats(3)}, {"i": np.array([3])}, axis=0)


@pytest.mark.parametrize("reduction", ["none", "add", "mul", "min", "max"])
@pytest.mark.parametrize("axis", [0, 1])
def test_elements_are_scattered(axis: int, reduction: str) -> None:
    x, updates = floats(5, 6), floats(3, 4)
    distinct = [np.random.default_rng(axis).permutation(5)[:3] - 2 for _ in range(4)]
    indices = np.stack(distinct, axis=1) if axis == 0 else np.array([[0, 5, -2, 3]] * 3)
    constants = {"i": indices, "u": updates}
    agrees("ScatterElements", {"x": x}, constants, axis=axis, reduction=reduction)


@pytest.mark.parametrize("reduction", ["add", "mul", "min", "max"])
def test_updates_that_meet(reduction: str) -> None:
    constants = {"i": np.array([1, 1, 0, 1]), "u": floats(4)}
    agrees("ScatterElements", {"x": floats(3)}, constants, axis=0, reduction=reduction)


def test_the_older_name() -> None:
    constants = {"i": np.array([[1, 0], [2, 2]]), "u": floats(2, 2)}
    agrees("Scatter", {"x": floats(3, 3)}, constants, axis=0, opset=9)


def test_an_unknown_reduction_is_refused() -> None:
    constants = {"i": np.array([0]), "u": floats(1)}
    with pytest.raises(NotEvaluableError, match="median"):
        evaluated("ScatterElements", {"x": floats(3)}, constants, reduction="median")
