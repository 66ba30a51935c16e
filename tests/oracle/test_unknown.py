"""Operators that the oracle does not know: their outputs come from outside, the rest is in double."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest

from bnfold.errors import InputError
from bnfold.oracle.evaluator import NotEvaluableError
from bnfold.oracle.oracle import Oracle
from tests.graphs import build, weight
from tests.oracle.ops.nodes import floats

X = {"x": floats(2, 40)}
W = {"w": weight(40, 40)}
TEXT = """
g (float[2,40] x) => (float y) {
  before = MatMul(x, w)
  middle, other = my.Own <k = 3> (before, , x)
  sum = Add(middle, other)
  y = MatMul(sum, w) }"""


def own(node: onnx.NodeProto, inputs: Sequence[Any]) -> list[Any]:
    """What a runtime would give: float32."""
    assert node.op_type == "Own"
    assert node.attribute[0].i == 3
    first, absent, last = inputs
    assert absent is None
    return [np.maximum(first, 0).astype(np.float32), -last.astype(np.float32)]


def model(text: str = TEXT, constants: Any = None) -> onnx.ModelProto:
    made = build(text, W if constants is None else constants)
    made.opset_import.append(onnx.helper.make_opsetid("my", 1))
    return made


def test_what_stands_before_and_after_is_evaluated_in_double() -> None:
    oracle = Oracle(model(), unknown=own)
    assert oracle.taken == ()
    values = oracle.values(X)
    x, w = X["x"].astype(np.float64), W["w"].astype(np.float64)
    assert np.abs(values["before"] - x @ w).max() < 1e-13
    middle = np.maximum(values["before"], 0).astype(np.float32).astype(np.float64)
    assert values["middle"].dtype == values["other"].dtype == np.float64
    assert np.array_equal(values["middle"], middle)
    assert np.abs(values["y"] - (middle - x) @ w).max() < 1e-12
    oracle.run(X)
    taken = oracle.taken[0]
    assert len(oracle.taken) == 1
    assert list(taken.node.output) == ["middle", "other"]
    assert taken.why == "The oracle cannot evaluate Own: it does not know operators of my."


def test_a_perturbed_model_asks_too() -> None:
    outputs = [Oracle(model(), perturbed=seed, unknown=own).run(X)[0] for seed in (None, 0)]
    assert 0 < np.abs(outputs[0] - outputs[1]).max() < 1e-4


def test_without_a_source_it_is_refused() -> None:
    with pytest.raises(NotEvaluableError, match="operators of my"):
        Oracle(model())
    silent = Oracle(model(), unknown=lambda *_: None)
    with pytest.raises(NotEvaluableError, match="operators of my"):
        silent.run(X)
    assert silent.taken == ()


def test_what_is_known_is_never_asked_for() -> None:
    def nobody(node: onnx.NodeProto, _: Sequence[Any]) -> None:
        raise AssertionError(node.op_type)

    Oracle(build("g (float[2,40] x) => (float y) { y = MatMul(x, w) }", W), unknown=nobody).run(X)


def test_randomness_and_what_fails_inside_can_be_given_too() -> None:
    text = """g (float[2,40] x) => (float y, float z) {
      r = RandomNormalLike(x)
      y = Neg(r)
      z = Reshape(x, shape) }"""
    given = {"RandomNormalLike": floats(2, 40, seed=3), "Reshape": floats(3)}
    oracle = Oracle(model(text, {"shape": np.array([3])}), unknown=lambda node, _: [given[node.op_type]])
    y, z = oracle.run(X)
    assert np.array_equal(y, -given["RandomNormalLike"].astype(float))
    assert np.array_equal(z, given["Reshape"])
    assert [taken.node.op_type for taken in oracle.taken] == ["RandomNormalLike", "Reshape"]
    assert "random" in oracle.taken[0].why
    assert "reshape" in oracle.taken[1].why


LOOP = """g (float[2] x, int64 n) => (float y, float z) {
  y = Loop (n, , x) <
    body = b (int64 i, bool go, float[2] s) => (bool on, float[2] t) {
      on = Identity(go)
      t = my.Own(s) } >
  z = Neg(y) }"""


@pytest.mark.parametrize("known", ["Own", "Loop"])
def test_a_body_is_asked_for_first_and_then_the_whole(known: str) -> None:
    asked = []

    def source(node: onnx.NodeProto, inputs: Sequence[Any]) -> list[Any] | None:
        asked.append(node.op_type)
        if node.op_type != known:
            return None
        return [2 * inputs[0] if known == "Own" else 8 * inputs[2]]

    feeds = {"x": floats(2), "n": np.array(3)}
    oracle = Oracle(model(LOOP, {}), unknown=source)
    y, z = oracle.run(feeds)
    assert np.array_equal(y, 8 * floats(2).astype(float))
    assert np.array_equal(z, -y)
    assert asked == (["Own"] * 3 if known == "Own" else ["Own", "Loop"])
    assert [taken.node.op_type for taken in oracle.taken] == [known]


def test_lists_and_half_precision_are_widened() -> None:
    text = """g (float[2] x) => (float y) {
      parts = my.Own(x)
      k = Constant <value_int = 1> ()
      y = SequenceAt(parts, k) }"""
    parts = [np.array([1.5], ml_dtypes.bfloat16), np.array([2.5], np.float16)]
    y = Oracle(model(text, {}), unknown=lambda *_: [parts]).run({"x": floats(2)})[0]
    assert y.dtype == np.float64
    assert y.tolist() == [2.5]


def test_too_few_values_are_refused() -> None:
    with pytest.raises(InputError, match="1 values were given for the 2 outputs of Own"):
        Oracle(model(), unknown=lambda *_: [floats(2, 40)]).run(X)
