"""What counts as constant, and what it evaluates to."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from bnfold.graph.facts import Facts
from tests.graphs import build, fold_and_compare, operators, statistics, weight


def facts_of(model: onnx.ModelProto) -> tuple[Facts, dict[str, ir.Value]]:
    graph = ir.from_proto(model)
    values = {value.name: value for node in graph.graph for value in node.outputs}
    values |= {value.name: value for value in (*graph.graph.inputs, *graph.graph.initializers.values())}
    return Facts(graph), {name: value for name, value in values.items() if name}


W = weight(3, 2)
TEXT = "g (float[2] x) => (float[2] y) {{ {lines}\n y = Relu(x) }}"


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ("c = Identity(w)", W),
        ("c = Transpose(w)", W.T),
        ("c = Unsqueeze(w, axis)", W[..., None]),
        ("d = Unsqueeze(w, axis)\n c = Squeeze(d, axis)", W),
        ("c = Cast <to=11> (w)", W.astype(np.float64)),
        ("s = Shape(w)\n c = Expand(one, s)", np.ones((3, 2), np.float32)),
        ("s = Shape(w)\n c = ConstantOfShape(s)", np.zeros((3, 2), np.float32)),
        ("s = Shape(x)\n c = Identity(s)", np.array([2])),
        ("s = Shape <start=1> (w)\n c = Identity(s)", np.array([2])),
        ("c = Constant <value_float=2.5> ()", np.float32(2.5)),
        ("c = Constant <value_ints=[1,2]> ()", np.array([1, 2])),
        ("d = Mul(w, one)\n e = Add(d, w)\n f = Neg(e)\n c = Abs(f)", np.abs(2 * W)),
        ("d = Pow(w, two)\n e = Sqrt(d)\n c = Reciprocal(e)", 1 / np.abs(W)),
        ("c = Concat <axis=0> (w, w)", np.concatenate([W, W])),
        ("d, c = Split <axis=1, num_outputs=2> (w)", W[:, 1:]),
        ("c = Reshape(w, flat)", W.reshape(-1)),
        ("c = Gather(w, axis)", W[[-1]]),
        ("c = Relu(w)", None),
        ("c = RandomNormal <shape=[3,2]> ()", None),
        ("c = Add(w, x)", None),
    ],
)
def test_small_subgraphs(lines: str, expected: np.ndarray | None) -> None:
    held = {
        "w": W,
        "one": np.float32([1]),
        "two": np.float32(2),
        "axis": np.array([-1]),
        "flat": np.array([-1]),
    }
    facts, values = facts_of(build(TEXT.format(lines=lines), held))
    value = values["c"]
    assert facts.constants.has(value) == (expected is not None)
    if expected is None:
        assert facts.constants.array(value) is None
    else:
        array = facts.constants.array(value)
        assert array is not None
        assert array.dtype == expected.dtype
        np.testing.assert_allclose(array, expected, rtol=1e-6)


def test_inputs_of_the_graph_are_no_constants() -> None:
    facts, values = facts_of(build(TEXT.format(lines="c = Identity(x)"), {}))
    assert not facts.constants.has(values["x"])
    assert not facts.constants.has(values["c"])
    assert not facts.constants.has(None)
    assert facts.constants.array(None) is None


@pytest.mark.parametrize(("ir_version", "constant"), [(3, True), (4, False), (9, False)])
def test_an_initializer_that_is_an_input_may_be_replaced_from_ir_4_on(
    ir_version: int, constant: bool
) -> None:
    model = build(
        "g (float[3,2] w, float[2] x) => (float[2] y) { c = Transpose(w)\n y = Relu(x) }",
        {"w": W}, opset=9, ir_version=ir_version,
    )  # fmt: skip
    facts, values = facts_of(model)
    assert facts.constants.has(values["w"]) == constant
    assert facts.constants.has(values["c"]) == constant
    assert facts.constants.is_overridable(values["w"]) != constant


def test_the_shape_of_a_value_is_constant_only_where_it_is_known() -> None:
    model = build(
        "g (float[2,N] x, float[2,3] z) => (float[2,N] y) {"
        " s = Shape(x)\n t = Shape(z)\n u = Size(z)\n y = Relu(x) }"
    )
    facts, values = facts_of(model)
    assert not facts.constants.has(values["s"])
    np.testing.assert_array_equal(facts.constants.array(values["t"]), [2, 3])
    np.testing.assert_array_equal(facts.constants.array(values["u"]), 6)


def test_an_operator_of_another_domain_is_no_constant() -> None:
    model = build("g (float[2] x) => (float[2] y) { c = local.Identity(w)\n y = Relu(x) }", {"w": W})
    facts, values = facts_of(model)
    assert not facts.constants.has(values["c"])


def test_a_constant_that_would_be_huge_is_left_alone() -> None:
    held = {"w": W, "large": np.array([1 << 20, 1 << 20])}
    facts, values = facts_of(build(TEXT.format(lines="c = ConstantOfShape(large)"), held))
    assert not facts.constants.has(values["c"])


def test_a_long_chain_needs_no_stack() -> None:
    lines = "\n".join(f"c{i + 1} = Identity(c{i})" for i in range(3000))
    facts, values = facts_of(build(TEXT.format(lines=f"c0 = Identity(w)\n {lines}"), {"w": W}))
    assert facts.constants.has(values["c3000"])


def test_weights_and_statistics_behind_such_subgraphs_fold() -> None:
    model = build(
        "g (float[2,4,5,5] x) => (float[2,3,4,4] y) { v = Transpose <perm=[3,2,0,1]> (w)\n a = Conv(x, v)\n"
        " s = Shape(mean)\n o = Expand(one, s)\n t = Identity(var)\n"
        " y = BatchNormalization(a, o, bias, mean, t) }",
        {"w": weight(2, 2, 4, 3), "one": np.float32([1.5]), **statistics(3)},
    )
    result = fold_and_compare(model)
    assert operators(result.model) == ["Conv"]
