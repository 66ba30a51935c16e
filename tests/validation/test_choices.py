"""Which operators of a model choose, which of two models correspond, and what is left without them."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from bnfold.validation import choices
from bnfold.validation.choices import Answer, Side
from tests.graphs import build, run, weight

TWO = """g (float[2, 6] x) => (float[2, 3] a, int64[2] b, float[2, 6] c) {
  p = MatMul (x, w)
  a, i = TopK <axis = -1> (p, three)
  j = ArgMax <axis = 1, keepdims = 0> (p)
  b = Identity (j)
  c = Relu (p)
}"""
CONSTANTS = {"w": weight(6, 6), "three": np.array([3])}


def side(text: str, constants: dict[str, np.ndarray] | None = None, opset: int = 18) -> Side:
    return Side(ir.from_proto(build(text, CONSTANTS if constants is None else constants, opset=opset)))


def asked(one: Side, feeds: dict[str, np.ndarray]) -> list[Answer]:
    return one.answers(run(ir.to_proto(one.asking()), feeds))


def x(seed: int = 0) -> dict[str, np.ndarray]:
    return {"x": np.random.default_rng(seed).normal(size=(2, 6)).astype(np.float32)}


def test_outputs_that_hinge_on_a_choice() -> None:
    found = side(TWO)
    assert found.names == ["TopK (a)", "ArgMax (j)"]
    assert found.outputs_behind == {"a", "b"}
    assert found.left == []


def test_an_answer_is_the_choice_and_what_it_was_made_from() -> None:
    top, largest = asked(side(TWO), x())
    product = x()["x"] @ CONSTANTS["w"]
    assert np.array_equal(top.choice, np.argsort(-product, axis=1)[:, :3])
    assert np.array_equal(largest.choice, product.argmax(axis=1))
    assert np.allclose(top.read[0], product, atol=1e-5)
    assert list(largest.read) == [0]


def test_without_the_operators_the_choice_is_an_input_and_the_scores_are_outputs() -> None:
    before, after = side(TWO), side(TWO)
    own, others = asked(before, x()), asked(after, x())
    names = choices.take_out(before, after, choices.match(before, after, own, others) or [], own, others)
    assert names == ["choice of a", "choice of j"]
    for one in (before, after):
        model = ir.to_proto(one.model)
        assert [value.name for value in model.graph.output] == ["a", "b", "c", "input 0 of a", "input 0 of j"]
        assert not {"TopK", "ArgMax"} & {node.op_type for node in model.graph.node}
        last, first = np.full((2, 3), 5), np.zeros(2, np.int64)
        a, b, c, scores, again = run(model, {**x(), "choice of a": last, "choice of j": first})
        assert np.array_equal(a, np.repeat(scores[:, 5:], 3, axis=1))
        assert np.array_equal(b, first)
        assert np.array_equal(c, np.maximum(scores, 0))
        assert np.array_equal(scores, again)


def test_operators_correspond_that_read_the_same_whatever_they_are_named() -> None:
    text = """g (float[2, 6] x) => (int64[2, 1] a, int64[2, 1] b, int64[2, 1] d) {{
      p = MatMul (x, w)
      q = Neg (p)
      {}
    }}"""
    first = "a = ArgMax <axis = 1> (p) b = ArgMax <axis = -1, keepdims = 1> (q) d = ArgMax <axis = 1> (p)"
    second = "b = ArgMax <axis = 1> (p) d = ArgMax <axis = 1> (p) a = ArgMax <axis = 1> (q)"
    before, after = side(text.format(first)), side(text.format(second))
    pairs = choices.match(before, after, asked(before, x()), asked(after, x()))
    assert pairs == [(0, 0), (1, 2), (2, 1)]


@pytest.mark.parametrize(
    "other",
    [
        TWO.replace("TopK <axis = -1>", "TopK <axis = -1, largest = 0>"),
        TWO.replace("keepdims = 0> (p)", "keepdims = 0, select_last_index = 1> (p)"),
        TWO.replace(
            "j = ArgMax <axis = 1, keepdims = 0> (p)", "k = Flatten (i) j = ReduceMax <axes = [1]> (k)"
        ),
        TWO.replace("b = Identity (j)", "m = ArgMin <axis = 1, keepdims = 0> (p) b = Add (j, m)"),
    ],
)
def test_other_operators_do_not_correspond(other: str) -> None:
    opset = 12 if "ReduceMax" in other else 18
    before, after = side(TWO, opset=opset), side(other, opset=opset)
    assert choices.match(before, after, asked(before, x()), asked(after, x())) is None


def test_defaults_may_be_written_out() -> None:
    before = side(TWO)
    after = side(TWO.replace("TopK <axis = -1>", "TopK <axis = 1, largest = 1, sorted = 1>"))
    assert choices.match(before, after, asked(before, x()), asked(after, x())) == [(0, 0), (1, 1)]


def test_the_number_of_rows_is_compared_where_it_differs() -> None:
    before, after = side(TWO), side(TWO, {**CONSTANTS, "three": np.array([2])})
    own, others = asked(before, x()), asked(after, x())
    choices.take_out(before, after, choices.match(before, after, own, others) or [], own, others)
    assert "input 1 of a" in [value.name for value in before.model.graph.outputs]
    made = dict(zip((v.name for v in after.model.graph.outputs), after.model.graph.outputs, strict=True))
    assert made["input 1 of a"].dtype == ir.DataType.INT64


def test_integers_constants_and_what_reaches_no_output_are_left_alone() -> None:
    text = """g (int64[2, 6] k, float[2, 6] x) => (int64[2, 1] a, int64[6, 1] b) {
      a = ArgMax <axis = 1> (k)
      b = ArgMax <axis = 1> (w)
      unused = ArgMax <axis = 1> (x)
    }"""
    assert side(text).names == []


def test_thresholds_count_where_they_select() -> None:
    text = """g (float[2, 6] x) => (float[n] kept, bool[2, 6] mask, float[2, 6] soft) {
      p = MatMul (x, w)
      big = Greater (p, bar)
      flat = Reshape (big, minus)
      all = Reshape (p, minus)
      kept = Compress (all, flat)
      small = Less (p, bar)
      mask = Not (small)
      middle = GreaterOrEqual (p, bar)
      soft = Where (middle, p, x)
    }"""
    constants = {"w": weight(6, 6), "bar": np.array(0.1, np.float32), "minus": np.array([-1])}
    found = side(text, constants)
    assert found.names == ["Greater (big)", "Less (small)"]
    assert found.outputs_behind == {"kept", "mask"}


def test_functions_are_looked_into_and_what_cannot_be_taken_out_is_named() -> None:
    called = "g (float[2, 6] x) => (int64[2, 1] y) { p = MatMul (x, w) y = local.Best (p) }"
    body = '<domain: "local", opset_import: ["": 18]> Best (s) => (i) { i = ArgMax <axis = 1> (s) }'
    assert [name.split(" ")[0] for name in side(f"{called}\n{body}").names] == ["ArgMax"]
    old = side("g (float[2, 6] x) => (float[2, 3] a) { p = MatMul (x, w) a, i = TopK (p, three) }", opset=10)
    assert (old.names, old.left) == ([], ["TopK (a)"])
    branch = """g (bool c, float[2, 6] x) => (int64[2, 1] y) {
      p = MatMul (x, w)
      y = If (c) <then_branch = t () => (int64[2, 1] u) { u = ArgMax <axis = 1> (p) },
                  else_branch = e () => (int64[2, 1] v) { v = ArgMin <axis = 1> (p) }>
    }"""
    inside = side(branch)
    assert (inside.names, inside.left) == ([], ["If (y)"])
    assert inside.outputs_behind == frozenset()
