"""Pools of every geometry against ONNX Runtime."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.oracle.ops.nodes import agrees, evaluated, floats

X = {"x": floats(2, 3, 9, 8)}
GEOMETRIES: list[dict[str, Any]] = [
    {},
    {"strides": [2, 3], "pads": [1, 0, 1, 1]},
    {"strides": [2, 3], "pads": [1, 1, 0, 1], "ceil_mode": 1},
    {
        "strides": [3, 3],
        "pads": [2, 1, 2, 1],
        "ceil_mode": 1,
    },  # a window that begins in the padding is left out
    {"dilations": [2, 1], "strides": [1, 2], "ceil_mode": 1},
    {"auto_pad": "SAME_UPPER", "strides": [2, 2]},
    {"auto_pad": "SAME_LOWER", "strides": [2, 3]},
    {"auto_pad": "VALID", "strides": [2, 2]},
]


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
def test_pools_over_windows(geometry: dict[str, Any]) -> None:
    common = {"kernel_shape": [3, 2], "opset": 19, **geometry}
    agrees("MaxPool", X, **common)
    agrees("MaxPool", X, outputs=2, **common)
    agrees("MaxPool", X, outputs=2, storage_order=1, **common)
    agrees("AveragePool", X, **common)
    agrees("AveragePool", X, count_include_pad=1, **common)
    agrees("LpPool", X, p=3, **common)


@pytest.mark.parametrize("shape", [(2, 3, 12), (1, 2, 5, 6, 7)])
def test_pools_in_one_and_three_dimensions(shape: tuple[int, ...]) -> None:
    rank = len(shape) - 2
    for operator in ("MaxPool", "AveragePool"):
        agrees(
            operator, {"x": floats(*shape)}, kernel_shape=[2] * rank, pads=[1] * 2 * rank, strides=[2] * rank
        )


def test_pools_over_everything() -> None:
    agrees("GlobalAveragePool", X)
    agrees("GlobalMaxPool", X)
    agrees("GlobalLpPool", X, p=1)


def test_integers_stay_integers() -> None:
    x = np.random.default_rng(0).integers(-128, 0, (1, 2, 6, 6)).astype(np.int8)
    agrees("MaxPool", {"x": x}, kernel_shape=[3, 3], pads=[1, 1, 1, 1])


def test_the_first_of_equal_maxima_is_indicated() -> None:
    agrees(
        "MaxPool", {"x": np.ones((1, 2, 4, 4), np.float32)}, outputs=2, kernel_shape=[2, 2], strides=[2, 2]
    )


def test_averages_are_double() -> None:
    x = np.array([[[1, 1e-9, 0, 0]]])
    assert evaluated("AveragePool", {"x": x}, kernel_shape=[2])[0, 0, 0] == (1 + 1e-9) / 2
