"""A model taken apart: larger weights beside it, functions inlined, the argument untouched."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from bnfold.errors import ModelError
from bnfold.oracle.evaluator import NotEvaluableError
from bnfold.oracle.oracle import Oracle
from bnfold.oracle.prepare import take_apart
from tests.graphs import build, weight
from tests.oracle.ops.nodes import floats

TEXT = "g (float[2,40] x) => (float y) { m = MatMul(x, w)\n y = Add(m, b) }"
CONSTANTS = {"w": weight(40, 40), "b": weight(40)}
FUNCTIONS = """
g (float[2,40] x) => (float y) { y = local.twice <k = 0.5> (x) }
<domain: "local", opset_import: ["" : %d]> twice <k> (a) => (c) {
  s = Constant <value_float : float = @k> ()
  b = Mul(a, s)
  c = local.shift (b) }
<domain: "local", opset_import: ["" : %d]> shift (a) => (b) {
  one = Constant <value_float = 1.0> ()
  b = Add(a, one) }
"""


def test_larger_weights_become_inputs() -> None:
    model = build(TEXT, CONSTANTS)
    before = model.SerializeToString(deterministic=True)
    proto, stored = take_apart(model)
    assert model.SerializeToString(deterministic=True) == before
    assert set(stored) == {"w"}
    assert [tensor.name for tensor in proto.graph.initializer] == ["b"]
    added = proto.graph.input[-1]
    assert added.name == "w"
    assert [dim.dim_value for dim in added.type.tensor_type.shape.dim] == [40, 40]
    assert np.array_equal(stored["w"].numpy(), CONSTANTS["w"])


def test_models_of_every_kind(tmp_path: Path) -> None:
    model = build(TEXT, CONSTANTS)
    inside, outside = tmp_path / "inside.onnx", tmp_path / "outside.onnx"
    onnx.save(model, inside)
    as_ir = ir.from_proto(model)
    onnx.save(build(TEXT, CONSTANTS), outside, save_as_external_data=True, size_threshold=0)
    x = {"x": floats(2, 40)}
    expected = Oracle(build(TEXT, CONSTANTS)).run(x)[0]
    for source in (inside, str(inside), outside, as_ir, ir.load(outside)):
        assert np.array_equal(Oracle(source).run(x)[0], expected)
    assert len(as_ir.graph.initializers) == 2


def test_functions_are_inlined() -> None:
    model = build(FUNCTIONS % (18, 18))
    proto, _ = take_apart(model)
    assert [node.op_type for node in proto.graph.node] == ["Constant", "Mul", "Constant", "Add"]
    x = floats(2, 40)
    assert np.array_equal(Oracle(model).run({"x": x})[0], x.astype(float) * 0.5 + 1)


def test_functions_for_another_opset_are_refused() -> None:
    with pytest.raises(NotEvaluableError, match="local"):
        Oracle(build(FUNCTIONS % (13, 13)))


def test_functions_that_call_themselves_are_refused() -> None:
    text = """
    g (float[2] x) => (float y) { y = local.f (x) }
    <domain: "local", opset_import: ["" : 18, "local" : 1]> f (a) => (b) { b = local.f (a) }
    """
    with pytest.raises(ModelError, match="calls itself"):
        take_apart(build(text))
