"""The coarsest float type among an output and the weights is the one that decides."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from bnfold.runtime.interface import Port
from bnfold.validation.dtypes import coarsest
from tests.graphs import build


def model(weight: type, shape: tuple[int, ...] = (4, 2)) -> ir.Model:
    made = build("g (float[N,4] x) => (float[N,4] y) { y = Relu (x) }", {"w": np.ones(shape, weight)})
    return ir.from_proto(made)


@pytest.mark.parametrize(
    ("output", "weight", "decides"),
    [
        ("float32", np.float32, "float32"),
        ("float32", np.float16, "float16"),
        ("float16", np.float32, "float16"),
        ("float64", np.float32, "float32"),
        ("float64", np.float64, "float64"),
        ("float32", np.int8, "float32"),
        ("sequence(float32)", np.float32, "float32"),
        ("optional(bfloat16)", np.float32, "bfloat16"),
        ("int64", np.float32, None),
        ("bool", np.float16, None),
        ("string", np.float32, None),
        ("unknown", np.float32, "float32"),
        ("unknown", np.int8, "float32"),
    ],
)
def test_the_coarsest_type_decides(output: str, weight: type, decides: str | None) -> None:
    assert coarsest(model(weight), [Port("y", output, None)]) == [decides]


def test_a_constant_that_is_no_weight_matrix_does_not_decide() -> None:
    """A scale or a bound in float16 says nothing about the precision of the products."""
    assert coarsest(model(np.float16, (4,)), [Port("y", "float32", None)]) == ["float32"]


def test_every_output_has_its_own() -> None:
    ports = [Port("a", "float64", None), Port("b", "int8", None), Port("c", "float16", None)]
    assert coarsest(model(np.float64), ports) == ["float64", None, "float16"]
