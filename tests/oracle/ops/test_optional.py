"""Optionals of tensors and of sequences, with and without a value."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bnfold.oracle.evaluator import NotEvaluableError
from bnfold.oracle.oracle import Oracle
from tests.graphs import build
from tests.oracle.ops.nodes import agrees_on, floats

INSIDE = """
g (float[2] x) => (float[2] y, bool there, bool missing) {
  o = Optional(x)
  there = OptionalHasElement(o)
  e = OptionalGetElement(o)
  y = Neg(e)
  n = Optional <type = float[2]> ()
  missing = OptionalHasElement(n) }"""
SEQUENCE = """
g (seq(float[2]) parts) => (float[2] y, bool there) {
  o = Optional(parts)
  there = OptionalHasElement(o)
  s = OptionalGetElement(o)
  k = Constant <value_int = 1> ()
  e = SequenceAt(s, k)
  y = Neg(e) }"""


def test_what_is_put_in_comes_out() -> None:
    y, there, missing = Oracle(build(INSIDE)).run({"x": floats(2)})
    assert np.array_equal(y, -floats(2).astype(float))
    assert bool(there)
    assert not missing


def test_an_optional_sequence() -> None:
    parts: Any = [floats(2), floats(2, seed=1)]
    y, there = Oracle(build(SEQUENCE)).run({"parts": parts})
    assert np.array_equal(y, -parts[1].astype(float))
    assert bool(there)


def test_the_runtime_agrees() -> None:
    text = "g (float[2] x) => (float[2] y) { o = Optional(x)\n e = OptionalGetElement(o)\n y = Neg(e) }"
    agrees_on(build(text), {"x": floats(2)})


def test_no_element_is_refused() -> None:
    text = "g (float[2] x) => (float[2] y) { o = Optional <type = float[2]> ()\n y = OptionalGetElement(o) }"
    with pytest.raises(NotEvaluableError, match="no element"):
        Oracle(build(text)).run({"x": floats(2)})
