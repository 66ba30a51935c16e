"""What counts as constant, and what it evaluates to."""

from __future__ import annotations

import re

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from bnfold.graph.facts import Facts
from tests.graphs import build, fold_and_compare, operators, run, statistics, weight


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
        ("c = Relu(w)", np.maximum(W, 0)),
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


EVERYTHING = {
    "n = ReduceL2<axes=[1], keepdims=1>(w)\n c = Div(w, n)": 17,
    "n = ReduceMean(w, last)\n d = Sub(w, n)\n e = Mul(d, d)\n f = ReduceSum(e, last)\n c = Div(d, f)": 18,
    "c = Softmax(w)": 13,
    "c = Sign(w)": 13,
    "c = Clip(w, low, high)": 13,
    "c = Pad(w, border)": 18,
    "m = Greater(w, low)\n c = Where(m, w, low)": 16,
    "t = Transpose(w)\n c = MatMul(w, t)": 13,
    "t = Transpose(w)\n c = Einsum<equation=\"ij,jk->ki\">(w, t)": 12,
    "c = Resize(image, , factors)": 19,
    "c = Erf(w)": 13,
    "c = LayerNormalization(w, two)": 17,
    "n = NonZero(w)\n c = Cast<to=1>(n)": 13,
    "c = ArgMax<axis=1>(w)": 13,
    "v, c = TopK(w, one)": 11,
    "c = CumSum(w, zero)": 14,
    "c = Range(zero, five, one_number)": 13,
    "q = QuantizeLinear<axis=0>(w, step, middle)\n c = Identity(q)": 13,
    "q = QuantizeLinear(w, low, middle_number)\n c = Identity(q)": 10,
    "c = EyeLike<dtype=1>(w)": 13,
    "c = EyeLike(x2)": 13,
    "z = CastLike(zero, x)\n s = Shape(w)\n c = Expand(z, s)": 15,
    "c = Conv(image, kernel)": 13,
    "c, mask = Dropout(w)": 13,
}  # fmt: skip
HELD = {
    "w": W,
    "last": np.array([1]),
    "low": np.float32(0.1),
    "high": np.float32(0.4),
    "two": np.float32([1.5, -0.5]),
    "border": np.array([0, 1, 0, 1]),
    "zero": np.int64(0),
    "one": np.array([1]),
    "one_number": np.int64(1),
    "five": np.int64(5),
    "image": weight(1, 2, 3, 3, seed=4),
    "kernel": weight(3, 2, 2, 2, seed=5),
    "factors": np.float32([1, 1, 2, 2]),
    "step": np.float32([0.01, 0.02, 0.005]),
    "middle": np.int8([0, 3, -5]),
    "middle_number": np.uint8(9),
}


@pytest.mark.parametrize(("lines", "opset"), EVERYTHING.items())
def test_whatever_is_computed_from_constants_is_what_a_runtime_computes(lines: str, opset: int) -> None:
    words = set(re.findall(r"\w+", lines))
    used = {name: array for name, array in HELD.items() if name in words}
    text = f"g (float[2] x, float[2,2] x2) => (c, y, y2) {{ {lines}\n y = Relu(x)\n y2 = Relu(x2) }}"
    model = build(text, used, opset=opset)
    facts, values = facts_of(model)
    assert facts.constants.has(values["c"])
    array = facts.constants.array(values["c"])
    expected = run(model, {"x": np.zeros(2, np.float32), "x2": np.zeros((2, 2), np.float32)})[0]
    assert array is not None
    assert array.dtype == expected.dtype
    np.testing.assert_allclose(array, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("lines", "opset"),
    [
        ("c = RandomNormalLike(w)", 18),
        ("c = RandomUniform<shape=[2]>()", 18),
        ("c = Bernoulli(w)", 18),
        ("c = Multinomial(w)", 18),
        ("c, mask = Dropout(w, low, yes)", 18),
        ("c = Softmax(w)", 12),  # another meaning before version 13
        ("c = CastLike(w, unknown)", 18),
        ("s = Shape(x)\n f = Cast<to=1>(s)\n d = RandomNormalLike(f)\n c = Neg(d)", 18),
        ("d = DequantizeLinear(q, low)\n c = Neg(d)", 18),  # a quantised weight keeps its integers
        ("c = QuantizeLinear(half, half_step)", 19),  # runtimes divide in one type or another
        ("c = Tile(w, many)", 18),
        ("c = ConstantOfShape(large)", 18),
        ("c = Gather(w, wrong)", 18),
        ("c = AveragePool<kernel_shape=[3, 3], pads=[60000, 60000, 60000, 60000]>(image)", 18),
        ("d = SequenceConstruct(w, w)\n c = SequenceAt(d, zero)", 18),
        ("c = If (yes) <then_branch = t () => (float[3,2] a) { a = Neg(w) }, "
         "else_branch = e () => (float[3,2] b) { b = Abs(w) }>", 18),
    ],
)  # fmt: skip
def test_what_is_no_constant(lines: str, opset: int) -> None:
    held = {
        **HELD,
        "yes": np.array(True),
        "q": np.zeros((3, 2), np.uint8),
        "half": W.astype(np.float16),
        "half_step": np.float16(0.1),
        "many": np.array([1 << 14, 1 << 14]),
        "large": np.array([1 << 13, 1 << 13]),
        "wrong": np.array([7]),
    }
    text = f"g (float[2] x) => (float[2] y) {{ unknown = local.Custom(x)\n {lines}\n y = Relu(x) }}"
    facts, values = facts_of(build(text, held, opset=opset))
    assert not facts.constants.has(values["c"])
    assert facts.constants.array(values["c"]) is None


@pytest.mark.parametrize(
    "lines",
    [
        "c = Transpose(w)",
        "c = Mul(w, scale)",
        "n = ReduceL2<axes=[1], keepdims=1>(w)\n c = Div(w, n)",
        "q = QuantizeLinear(w, scale, middle)\n c = DequantizeLinear(q, scale, middle)",
        "s = Shape(w)\n c = ConstantOfShape(s)",
        "c = CastLike(scale, w)",
    ],
)
def test_a_large_weight_is_not_read_to_see_that_it_is_constant(
    lines: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = build(
        f"g (float[2] x) => (float[2] y) {{ {lines}\n y = Relu(x) }}",
        {"w": weight(64, 64), "scale": np.float32(0.1), "middle": np.int8(1)},
        opset=17,
    )
    facts, values = facts_of(model)
    read: list[str] = []
    numpy = ir.TensorProtoTensor.numpy

    def noted(tensor: ir.TensorProtoTensor) -> np.ndarray:
        read.append(tensor.name)
        return numpy(tensor)

    monkeypatch.setattr(ir.TensorProtoTensor, "numpy", noted)
    assert facts.constants.has(values["c"])
    assert "w" not in read
    array = facts.constants.array(values["c"])
    assert array is not None
    assert ("w" in read) == ("Shape" not in lines and "CastLike" not in lines)


def test_a_result_that_is_read_by_many_is_computed_once() -> None:
    """Without that, forty doublings would take 2⁴⁰ additions."""
    lines = "\n".join(f"c{i + 1} = Add(c{i}, c{i})" for i in range(40))
    facts, values = facts_of(build(TEXT.format(lines=f"c0 = Sign(w)\n {lines}"), {"w": W}))
    np.testing.assert_array_equal(facts.constants.array(values["c40"]), np.sign(W) * 2.0**40)


def test_a_long_chain_is_evaluated_without_a_stack() -> None:
    lines = "\n".join(f"c{i + 1} = Identity(c{i})" for i in range(3000))
    facts, values = facts_of(build(TEXT.format(lines=f"c0 = Neg(w)\n {lines}"), {"w": W}))
    np.testing.assert_array_equal(facts.constants.array(values["c3000"]), -W)


def test_a_constant_that_grows_from_step_to_step_ends() -> None:
    lines = "\n".join(f"c{i + 1} = Concat<axis=0>({', '.join([f'c{i}'] * 16)})" for i in range(12))
    facts, values = facts_of(build(TEXT.format(lines=f"c0 = Neg(w)\n {lines}"), {"w": W}))
    assert facts.constants.has(values["c3"])
    assert not facts.constants.has(values["c12"])


def test_a_result_that_is_kept_for_others_cannot_be_written_to() -> None:
    facts, values = facts_of(build(TEXT.format(lines="c = Sign(w)"), {"w": W}))
    array = facts.constants.array(values["c"])
    assert array is not None
    with pytest.raises(ValueError, match="read-only"):
        array[0, 0] = 7


@pytest.mark.parametrize("training", [0, 1])
def test_a_batchnorm_that_standardises_a_weight_goes_with_it(training: int) -> None:
    """As in the standardised convolutions of timm, which use a BatchNorm in training mode."""
    norm = f"BatchNormalization<training_mode={training}>"
    further = ", m, n" if training else ""
    model = build(
        "g (float[2,4,5,5] x) => (float[2,3,4,4] y) { f = Reshape(w, flat)\n"
        f" v{further} = {norm}(f, gain, zero, center, spread)\n s = Shape(w)\n u = Reshape(v, s)\n"
        " a = Conv(x, u)\n y = BatchNormalization(a, scale, bias, mean, var) }",
        {
            "w": weight(3, 4, 2, 2),
            "flat": np.array([1, 3, 16]),
            "gain": np.float32([1, 1, 1]),
            "zero": np.float32([0, 0, 0]),
            "center": np.float32([0.1, 0, 0]),
            "spread": np.float32([1, 1, 2]),
            **statistics(3),
        },
    )
    result = fold_and_compare(model)
    assert operators(result.model) == ["Conv"]
    assert not result.kept
