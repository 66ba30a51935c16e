"""Resize and Upsample of every version against ONNX Runtime."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.oracle.ops.nodes import agrees, evaluated, floats
from tests.pairwise import pairwise

X = {"x": floats(1, 2, 5, 10)}


def factors(height: float, width: float) -> dict[str, np.ndarray]:
    return {"scales": np.array([1, 1, height, width], np.float32)}


@pytest.mark.parametrize("mode", ["nearest", "linear"])
@pytest.mark.parametrize("sizes", [(2, 3), (1.5, 1), (0.6, 0.5), (2, 0.6)])
def test_before_opset_11(mode: str, sizes: tuple[float, float]) -> None:
    agrees("Resize", X, factors(*sizes), opset=10, mode=mode)
    if min(sizes) >= 1:
        agrees("Upsample", X, factors(*sizes), opset=9, mode=mode)
        agrees("Upsample", X, opset=7, mode=mode, scales=factors(*sizes)["scales"].tolist())


@pairwise(
    transformation=["half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric"],
    mode=["nearest", "linear", "cubic"],
    sizes=[(2, 3), (1.5, 1), (1, 0.6)],
)
def test_scales(mode: str, transformation: str, sizes: tuple[float, float]) -> None:
    attributes: dict[str, Any] = {"mode": mode, "coordinate_transformation_mode": transformation}
    agrees("Resize", X, factors(*sizes), inputs=["x", "", "scales"], **attributes)


def test_sizes() -> None:
    sizes = {"sizes": np.array([1, 2, 7, 4])}
    unused = {"roi": floats(0), "scales": floats(0)}
    agrees("Resize", X, {**unused, **sizes}, mode="linear", opset=11)
    for opset in (13, 18, 19):
        agrees("Resize", X, sizes, inputs=["x", "", "", "sizes"], mode="linear", opset=opset)
    chosen = {"sizes": np.array([7, 4])}
    agrees("Resize", X, chosen, inputs=["x", "", "", "sizes"], mode="linear", axes=[2, 3])


def test_sizes_are_multiplied_in_float32() -> None:
    # 0.7 in float32 is 0.699999988: ten times that is 7 in float32 and less in double.
    assert evaluated("Resize", X, factors(1, 0.7), inputs=["x", "", "scales"]).shape == (1, 2, 5, 7)
    agrees("Resize", X, factors(1, 0.7), inputs=["x", "", "scales"], mode="linear")


def test_double_is_kept() -> None:
    x = {"x": np.array([[[1.0, 1.0 + 2e-9]]])}
    scales = {"scales": np.array([1, 1, 2], np.float32)}
    y = evaluated("Resize", x, scales, inputs=["x", "", "scales"], mode="linear")[0, 0]
    assert np.allclose(y - 1, [0, 0.5e-9, 1.5e-9, 2e-9], rtol=1e-6, atol=0)


def test_upsample_before_opset_7_has_its_scales_as_attributes() -> None:
    y = evaluated("Upsample", X, opset=1, height_scale=2.0, width_scale=3.0)
    assert np.array_equal(y, X["x"].repeat(2, 2).repeat(3, 3))
