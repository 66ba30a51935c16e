"""What is done to the input of a model goes into the first layer, as far as that is exact."""

from __future__ import annotations

import numpy as np
import pytest

import bnfold
from tests.graphs import assert_same, build, operators, weight

CONSTANTS = {
    "w": weight(4, 3, 3, 3),
    "m": weight(48, 5),
    "c255": np.array(255, np.float32),
    "two": np.array(2, np.float32),
    "one": np.array(1, np.float32),
    "mean": np.array([0.4, 0.5, 0.6], np.float32).reshape(3, 1, 1),
    "std": np.array([0.2, 0.3, 0.4], np.float32).reshape(3, 1, 1),
    "flat": np.array([0, -1]),
}
PADDED, BARE = "Conv<pads=[1,1,1,1]>", "Conv"


@pytest.mark.parametrize(
    ("body", "left"),
    [
        (f"a = Div(x, c255) y = {PADDED}(a, w)", ["Conv"]),
        (f"a = Mul(x, two) b = Sub(a, one) y = {BARE}(b, w)", ["Conv"]),
        (f"a = Mul(x, two) b = Sub(a, one) y = {PADDED}(b, w)", ["Sub", "Conv"]),
        (f"a = Div(x, c255) b = Sub(a, mean) d = Div(b, std) y = {BARE}(d, w)", ["Conv"]),
        (f"a = Div(x, c255) b = Sub(a, mean) d = Div(b, std) y = {PADDED}(d, w)", ["Sub", "Conv"]),
        (f"a = Div(x, c255) b = Sub(a, mean) d = Mul(b, std) y = {PADDED}(d, w)", ["Sub", "Conv"]),
        (f"t = Transpose<perm=[0,1,3,2]>(x) a = Div(t, c255) y = {BARE}(a, w)", ["Transpose", "Conv"]),
        ("a = Div(x, c255) f = Reshape(a, flat) y = MatMul(f, m)", ["Reshape", "MatMul"]),
        # not at the input, or before something that takes nothing
        (f"s = Sigmoid(x) a = Div(s, c255) y = {BARE}(a, w)", ["Sigmoid", "Div", "Conv"]),
        ("a = Div(x, c255) y = Tanh(a)", ["Div", "Tanh"]),
        (
            f"a = Div(x, c255) b = {BARE}(a, w) z = Tanh(a) y = Identity(b)",
            ["Div", "Conv", "Tanh", "Identity"],
        ),
    ],
)
def test_arithmetic_on_an_input(body: str, left: list[str]) -> None:
    outputs = "y, z" if "z =" in body else "y"
    used = {name: array for name, array in CONSTANTS.items() if f", {name})" in body}
    text = ", ".join(f"float[{'N,M' if 'm)' in body else 'N,C,H,W'}] {name}" for name in outputs.split(", "))
    model = build(f"g (float[N,3,4,4] x) => ({text}) {{ {body} }}", used)
    result = bnfold.fold(model)
    assert operators(result.model) == left
    assert_same(model, result.model)
    again = bnfold.fold(result.model).model
    assert again.SerializeToString(deterministic=True) == result.model.SerializeToString(deterministic=True)
    if left[0] in ("Sub", "Conv"):
        assert bnfold.validate(model, result.model, threads=1).passed


def test_a_scale_that_leaves_the_range_of_its_type_is_taken_back() -> None:
    """Weights near the end of float32, and a scale that would carry them beyond it."""
    body = f"a = Mul(x, big) b = Add(a, one) y = {PADDED}(b, w)"
    used = {
        "w": np.full((4, 3, 3, 3), 1e30, np.float32) * np.sign(CONSTANTS["w"]),
        "big": np.array(1e12, np.float32),
        "one": CONSTANTS["one"],
    }
    model = build(f"g (float[N,3,4,4] x) => (float[N,4,4,4] y) {{ {body} }}", used)
    assert operators(bnfold.fold(model).model) == ["Mul", "Add", "Conv"]
