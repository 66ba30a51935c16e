"""Multiply-adds counted by hand, by inference and by evaluation."""

from __future__ import annotations

from collections.abc import Mapping
from unittest.mock import patch

import numpy as np
import onnx
import pytest

from bnfold.errors import InputError
from bnfold.oracle import multiply_adds as module
from bnfold.oracle.evaluator import NotEvaluableError
from bnfold.oracle.multiply_adds import multiply_adds
from tests.graphs import build, weight
from tests.oracle.ops.nodes import floats, node

X = {"x": floats(2, 6, 8, 8)}
ROWS = {"x": floats(4, 6)}
MICROSOFT = {"domain": "com.microsoft"}
BYTES = {"w": np.ones((4, 6, 3, 3), np.uint8)}

# A model, its inputs, and the multiply-adds counted by hand
COUNTS = [
    (node("Conv", X, {"w": floats(4, 6, 3, 3)}), X, 2 * 4 * 6 * 6 * 54),
    (node("Conv", X, {"w": floats(6, 1, 3, 3)}, group=6, pads=[1] * 4, strides=[2, 2]), X, 2 * 6 * 4 * 4 * 9),
    (node("ConvTranspose", X, {"w": floats(6, 2, 3, 3)}, group=2, strides=[2, 2]), X, 2 * 6 * 64 * 2 * 9),
    (node("MatMul", ROWS, {"w": floats(6, 5)}), ROWS, 4 * 6 * 5),
    (node("MatMul", ROWS, {"w": floats(6)}), ROWS, 4 * 6),
    (
        node("MatMul", {"x": floats(3, 2, 4, 6)}, {"w": floats(2, 6, 5)}),
        {"x": floats(3, 2, 4, 6)},
        6 * 4 * 6 * 5,
    ),
    (node("Gemm", ROWS, {"w": floats(3, 4), "b": floats(3)}, transA=1, transB=1), ROWS, 6 * 4 * 3),
    (node("FusedMatMul", ROWS, {"w": floats(4, 5)}, transA=1, **MICROSOFT), ROWS, 6 * 4 * 5),
    (node("FusedGemm", ROWS, {"w": floats(6, 5)}, activation="Relu", **MICROSOFT), ROWS, 4 * 6 * 5),
    (node("FusedConv", X, {"w": floats(4, 6, 3, 3)}, activation="Relu", **MICROSOFT), X, 2 * 4 * 36 * 54),
    (
        node("ConvInteger", {"x": np.ones((2, 6, 8, 8), np.uint8)}, BYTES),
        {"x": np.ones((2, 6, 8, 8), np.uint8)},
        2 * 4 * 36 * 54,
    ),
    (node("AveragePool", X, kernel_shape=[2, 2]), X, 0),
]


@pytest.mark.parametrize(
    ("model", "feeds", "count"),
    COUNTS,
    ids=lambda value: getattr(value, "graph", "") and value.graph.node[0].op_type,
)
def test_counts_by_inference_and_by_evaluation(
    model: onnx.ModelProto, feeds: Mapping[str, np.ndarray], count: int
) -> None:
    assert multiply_adds(model, feeds) == count
    with patch.object(module, "of_graph", return_value=None):
        assert multiply_adds(model, feeds) == count


def test_shapes_come_from_the_feeds() -> None:
    model = build("g (float[n,c,h,w] x) => (float[1,4,1,1] y) { y = Conv(x, k) }", {"k": weight(4, 3, 3, 3)})
    model.graph.value_info.append(
        onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1, 4, 1, 1])
    )
    for batch, size in ((1, 5), (3, 8)):
        expected = batch * 4 * (size - 2) ** 2 * 27
        assert multiply_adds(model, {"x": floats(batch, 3, size, size)}) == expected


def test_what_inference_does_not_reach_is_evaluated() -> None:
    text = """g (float[4,6] x) => (float y) {
      a = com.microsoft.QuickGelu (x)
      i = NonZero(a)
      t = Transpose(i)
      s = Gather <axis = 0> (t, zero)
      y = MatMul(a, w) }"""
    model = build(text, {"w": weight(6, 5), "zero": np.array([0])})
    model.opset_import.append(onnx.helper.make_opsetid("com.microsoft", 1))
    assert multiply_adds(model, ROWS) == 4 * 6 * 5


LOOP = """g (float[4,6] x, int64 n) => (float y) {
  y = Loop (n, , x) <
    body = b (int64 i, bool go, float[4,6] s) => (bool on, float[4,6] t) {
      on = Identity(go)
      t = MatMul(s, w) } > }"""
BRANCHES = """g (float[4,6] x, bool c) => (float y) {
  y = If (c) <
    then_branch = t () => (float a) { a = MatMul(x, w) },
    else_branch = e () => (float b) { %s } > }"""


def test_steps_of_loops_and_branches_that_are_taken() -> None:
    constants = {"w": weight(6, 6)}
    assert multiply_adds(build(LOOP, constants), {**ROWS, "n": np.array(5)}) == 5 * 4 * 6 * 6
    twice = build(BRANCHES % "m = MatMul(x, w)\n b = MatMul(m, w)", constants)
    assert multiply_adds(twice, {**ROWS, "c": np.array(True)}) == 4 * 6 * 6
    assert multiply_adds(twice, {**ROWS, "c": np.array(False)}) == 2 * 4 * 6 * 6
    alike = build(BRANCHES % "b = MatMul(x, w)", constants)
    with patch.object(module, "Oracle", side_effect=AssertionError("nothing need be evaluated")):
        assert multiply_adds(alike, {**ROWS, "c": np.array(False)}) == 4 * 6 * 6


def test_what_can_be_known_in_no_way() -> None:
    text = "g (float[4,6] x) => (float y) { a = my.Own (x)\n y = MatMul(a, w) }"
    model = build(text, {"w": weight(6, 5)})
    model.opset_import.append(onnx.helper.make_opsetid("my", 1))
    with pytest.raises(NotEvaluableError, match="Own"):
        multiply_adds(model, ROWS)
    assert multiply_adds(model, ROWS, unknown=lambda _, inputs: inputs) == 4 * 6 * 5
    with pytest.raises(InputError, match="input n"):
        multiply_adds(build(LOOP, {"w": weight(6, 6)}), ROWS)
