"""Clean-up by others: constants folded, Identity and unused nodes gone, BatchNorms left to the fold."""

from __future__ import annotations

import sys

import numpy as np
import onnx_ir as ir
import pytest

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
