"""Pad: copied elements let any affine pass, a written number only one that maps it to itself."""

from __future__ import annotations

import numpy as np
import pytest

from tests.graphs import weight
from tests.ops.sandwich import above, below, gone, ints, statistics, stays

PADS = {
    "rows": ints(0, 0, 1, 2, 0, 0, 1, 0), "short": ints(1, 2), "axes": ints(-1),
    "channels": ints(0, 1, 0, 0, 0, 0, 0, 0), "none": ints(0, 0, 0, 0, 0, 0, 0, 0),
    "batch": ints(1, 0, 0, 0, 0, 0, 0, 0), "crop": ints(0, 0, 0, -1, 0, 0, 0, 0),
    "half": np.float32(0.5),
}  # fmt: skip
SCALES = {**statistics(4), "bias": np.zeros(4, np.float32), "mean": np.zeros(4, np.float32)}
UNIT = {
    "scale": np.float32([2, 3, -1, 0.5]),
    "mean": np.zeros(4, np.float32),
    "var": np.float32([1, 1, 1, 1]),
}


@pytest.mark.parametrize("mode", ["reflect", "edge", "wrap"])
@pytest.mark.parametrize("build", [above, below])
def test_modes_that_copy(mode: str, build: object) -> None:
    for lines in (f'b = Pad <mode="{mode}"> (a, rows)', f'b = Pad <mode="{mode}"> (a, short, , axes)'):
        gone(build(lines, PADS, opset=19))  # type: ignore[operator]


@pytest.mark.parametrize("build", [above, below])
def test_zeros_take_a_scale_but_no_shift(build: object) -> None:
    for lines in ("b = Pad(a, rows)", 'b = Pad <mode="constant"> (a, short, , axes)'):
        gone(build(lines, PADS, stats=SCALES))  # type: ignore[operator]
        stays(build(lines, PADS), "BN205")  # type: ignore[operator]


def test_a_constant_that_maps_to_itself() -> None:
    """Y = s·x + (1 − s)·c leaves c where it is; ε = 0 so that the numbers are exact."""
    fixed = {**UNIT, "bias": 0.5 - 0.5 * UNIT["scale"]}
    end = "y = BatchNormalization <epsilon=0.0> (b, scale, bias, mean, var)"
    gone(above("b = Pad(a, rows, half)", PADS, stats=fixed, end=end))
    stays(above("b = Pad(a, rows)", PADS, stats=fixed, end=end), "BN205")
    stays(above("b = Pad(a, rows, half)", PADS, stats=SCALES), "BN205")


def test_a_constant_that_is_computed_stays() -> None:
    stays(above("h = ReduceMean <keepdims=0> (z)\n b = Pad(a, rows, h)", PADS, stats=SCALES), "BN205")


@pytest.mark.parametrize("mode", ["constant", "reflect"])
@pytest.mark.parametrize("build", [above, below])
def test_padded_channels_stay(mode: str, build: object) -> None:
    lines = f'b = Pad <mode="{mode}"> (a, channels)'
    model = above(lines, PADS, bn=5) if build is above else below(lines, PADS, w=weight(5, 5, 2, 2))
    stays(model, "BN204")


def test_padding_of_nothing_and_of_the_batch() -> None:
    gone(above('b = Pad <mode="edge"> (a, none)', PADS))
    gone(above('b = Pad <mode="edge"> (a, batch)', PADS))
    gone(below('b = Pad <mode="edge"> (a, batch)', PADS))


def test_cropping_by_negative_pads() -> None:
    gone(above('b = Pad <mode="edge"> (a, crop)', PADS))


@pytest.mark.parametrize("opset", [2, 10])
def test_attributes_before_opset_11(opset: int) -> None:
    attributes = "pads=[0,0,1,1,0,0,0,1]"
    opset = max(opset, 7)
    gone(above(f'b = Pad <mode="reflect", {attributes}> (a)', opset=opset))
    gone(above(f"b = Pad <{attributes}> (a)", opset=opset, stats=SCALES))
    stays(above(f"b = Pad <{attributes}> (a)", opset=opset), "BN205")
    stays(above(f"b = Pad <{attributes}, value=0.5> (a)", opset=opset, stats=SCALES), "BN205")


def test_pads_that_are_not_constant_stay() -> None:
    lines = "q = Shape(z)\n u = Sub(q, q)\n p = Concat <axis=0> (u, u)\n b = Pad(a, p)"
    model = above(lines, stats=SCALES)
    model.graph.input[1].type.tensor_type.shape.dim[0].dim_param = "M"
    stays(model, "BN208")
