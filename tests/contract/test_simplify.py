"""Clean-up by others: constants folded, Identity and unused nodes gone, BatchNorms left to the fold."""

from __future__ import annotations

import sys

import numpy as np
import onnx_ir as ir
import pytest
from onnx import parser

from bnfold.contract.simplify import simplified
from bnfold.contract.sizes import fixed
from bnfold.errors import MissingExtraError
from bnfold.files.load import from_proto
from tests.contract.nets import model
from tests.graphs import build, operators, run

BODY = """g (float[N,3,4] x) => (float[A,B] y, float[N,3,4] z) {
    s = Shape(x) i = Constant<value_ints=[0]>() n = Gather<axis=0>(s, i)
    m = Constant<value_ints=[-1]>() t = Concat<axis=0>(n, m) y = Reshape(x, t)
    k = Identity(x) q = Relu(k) z = Relu(x) unused = Exp(x)
}"""


def test_sizes_are_constants_once_they_are_fixed() -> None:
    pytest.importorskip("onnxscript")
    original = build(BODY)
    changed = simplified(fixed(from_proto(original), 2, {}).model)
    made = ir.to_proto(changed.model)
    assert sorted(operators(made)) == ["Relu", "Reshape"]
    assert changed.details == {"before": 8, "after": 2}
    feeds = {"x": np.random.default_rng(0).normal(0, 1, (2, 3, 4)).astype(np.float32)}
    for found, expected in zip(run(made, feeds), run(original, feeds), strict=True):
        assert np.array_equal(found, expected)


def test_batchnorms_are_left_to_the_fold() -> None:
    pytest.importorskip("onnxscript")
    changed = simplified(model())
    assert operators(ir.to_proto(changed.model)) == operators(ir.to_proto(model()))
    assert changed.sentence.endswith("found nothing to simplify.")


def test_without_onnxscript(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(MissingExtraError, match=r"bnfold\[simplify\]"):
        simplified(model())


STALE = """<ir_version: 8, opset_import: ["": 17]> g (float[N,3] x) => (float r) <float[2,3] a> {
    a = Relu(x) t = Shape(a) u = Cast<to=1>(t) v = ReduceSum<keepdims=0>(u) r = Add(a, v)
}"""
OVERRIDABLE = """<ir_version: 8, opset_import: ["": 17]> g (float[2,1] x, int64[2] k) => (float[A,B] y)
<int64[2] k = {2, 3}> { y = Expand(x, k) }"""
RANDOM = """<ir_version: 8, opset_import: ["": 17]> g (float[64] x) => (float[64] y) {
    a = Bernoulli(x) b = Bernoulli(x) y = Sub(a, b)
}"""


def test_recorded_sizes_are_not_computed_with() -> None:
    pytest.importorskip("onnxscript")
    original = parser.parse_model(STALE)
    made = ir.to_proto(simplified(from_proto(original)).model)
    feeds = {"x": np.ones((5, 3), np.float32)}
    assert np.array_equal(run(made, feeds)[0], run(original, feeds)[0])


def test_what_callers_may_override_stays_theirs() -> None:
    pytest.importorskip("onnxscript")
    original = parser.parse_model(OVERRIDABLE)
    made = ir.to_proto(simplified(from_proto(original)).model)
    x = np.ones((2, 1), np.float32)
    assert run(made, {"x": x})[0].shape == (2, 3)
    assert run(made, {"x": x, "k": np.array([2, 5])})[0].shape == (2, 5)


def test_two_draws_stay_two() -> None:
    pytest.importorskip("onnxscript")
    changed = simplified(from_proto(parser.parse_model(RANDOM)))
    assert sorted(operators(ir.to_proto(changed.model))) == ["Bernoulli", "Bernoulli", "Sub"]
