"""Values that leave the normal numbers of their type are named, the first of them."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from bnfold.edge.extremes import first_extreme
from tests.graphs import build

MODEL = "g (float[2] x) => (float[2] y) { a = Mul (x, big) b = Mul (a, small) c = Add (b, b) y = Tanh (c) }"


@pytest.mark.parametrize(
    ("x", "names", "found"),
    [
        ([1e10, 1], "abc", "'a' overflows float32 there"),
        ([1e10, 1], "bc", ""),
        ([np.nan, 1], "bc", "'b' overflows float32 there"),
        ([1e-30, 1], "ac", "'c' has values below 1.2e-38 there, where float32 loses digits"),
        ([0, 1], "abc", ""),
    ],
)
def test_first_extreme(x: list[float], names: str, found: str) -> None:
    constants = {"big": np.array(1e30, np.float32), "small": np.array(1e-39, np.float32)}
    model = ir.from_proto(build(MODEL, constants))
    feeds = {"x": np.array(x, np.float32)}
    assert first_extreme(model, set(names), [{"x": np.ones(2, np.float32)}, feeds]) == found


def test_what_float64_does_not_know_has_no_reason() -> None:
    model = ir.from_proto(build("g (float[2] x) => (float[2] y) { a = Mul (x, x) y = odd.Thing (a) }", {}))
    huge = [{"x": np.full(2, 1e30, np.float32)}]
    assert first_extreme(model, {"y"}, huge) == ""
