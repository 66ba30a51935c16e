"""Convolutions of every geometry against ONNX Runtime, and in double against PyTorch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from tests.oracle.ops.nodes import agrees, evaluated, floats

GEOMETRIES: list[dict[str, Any]] = [
    {},
    {"strides": [2, 1], "pads": [1, 0, 2, 1]},
    {"strides": [3, 2], "dilations": [1, 2], "pads": [1, 2, 0, 1]},
    {"auto_pad": "SAME_UPPER", "strides": [2, 3]},
    {"auto_pad": "SAME_LOWER", "strides": [2, 1]},
    {"auto_pad": "VALID", "strides": [1, 2], "dilations": [2, 1]},
]
GROUPS = [(1, 4, 6), (2, 4, 6), (4, 4, 4), (4, 4, 8)]  # groups, input channels, output channels


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
@pytest.mark.parametrize(("groups", "taken", "given"), GROUPS)
def test_conv(geometry: dict[str, Any], groups: int, taken: int, given: int) -> None:
    constants = {"w": floats(given, taken // groups, 3, 2), "b": floats(given)}
    agrees("Conv", {"x": floats(2, taken, 8, 7)}, constants, group=groups, **geometry)


@pytest.mark.parametrize("sizes", [(11,), (5, 6, 4)])
@pytest.mark.parametrize("operator", ["Conv", "ConvTranspose"])
def test_one_and_three_dimensions(operator: str, sizes: tuple[int, ...]) -> None:
    w = floats(4, 2, *(3, 2, 2)[: len(sizes)])
    agrees(operator, {"x": floats(1, 4, *sizes)}, {"w": w}, group=2, strides=[2] * len(sizes))


def test_more_depthwise_channels_than_fit_into_a_block() -> None:
    agrees("Conv", {"x": floats(2, 24, 70, 70)}, {"w": floats(24, 1, 3, 3)}, group=24, pads=[1, 1, 1, 1])


TRANSPOSED: list[dict[str, Any]] = [
    {"strides": [2, 1], "pads": [1, 0, 2, 1]},
    {"strides": [3, 2], "dilations": [2, 1], "output_padding": [2, 1], "pads": [1, 1, 0, 0]},
    {"strides": [3, 2], "output_shape": [21, 11]},
    {"strides": [3, 2], "output_shape": [21, 11], "auto_pad": "SAME_LOWER"},
    {"strides": [3, 2], "output_shape": [20, 12], "auto_pad": "SAME_UPPER"},
    {"strides": [2, 2], "auto_pad": "SAME_UPPER"},
    {"strides": [5, 2], "auto_pad": "SAME_LOWER"},  # the kernel reaches less far than the stride
    {"strides": [2, 2], "auto_pad": "VALID"},
]


@pytest.mark.parametrize("geometry", TRANSPOSED, ids=str)
@pytest.mark.parametrize(("groups", "taken", "given"), GROUPS)
def test_conv_transpose(geometry: dict[str, Any], groups: int, taken: int, given: int) -> None:
    constants = {"w": floats(taken, given // groups, 3, 2), "b": floats(given)}
    agrees("ConvTranspose", {"x": floats(2, taken, 7, 6)}, constants, group=groups, **geometry)


@pytest.mark.parametrize("groups", [1, 3, 6])
def test_double_is_kept(groups: int) -> None:
    x, w, b = floats(2, 6, 9, 8), floats(6, 6 // groups, 3, 3), floats(6)
    wide = [torch.from_numpy(array).double() for array in (x, w, b)]
    expected = torch.nn.functional.conv2d(*wide, stride=2, padding=1, groups=groups).numpy()
    actual = evaluated("Conv", {"x": x}, {"w": w, "b": b}, group=groups, strides=[2, 2], pads=[1] * 4)
    assert np.abs(actual - expected).max() < 1e-14 * np.abs(expected).max()
    expected = torch.nn.functional.conv_transpose2d(wide[0], wide[1], stride=2, groups=groups).numpy()
    actual = evaluated("ConvTranspose", {"x": x}, {"w": w}, group=groups, strides=[2, 2])
    assert np.abs(actual - expected).max() < 1e-14 * np.abs(expected).max()
