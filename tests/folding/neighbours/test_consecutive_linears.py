"""Two linear layers in a row become one where that costs no more."""

from __future__ import annotations

import re

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import bnfold
from tests.graphs import assert_same, build, fold_and_compare, operators, statistics, weight

POOL = {
    "a": weight(6, 9, seed=1),
    "at": weight(9, 6, seed=2),
    "b": weight(9, 4, seed=3),
    "bt": weight(4, 9, seed=4),
    "v": weight(9, seed=5),
    "row": weight(1, 9, seed=6),
    "one": weight(1, seed=7),
    "w": weight(4, seed=8),
    "rows": weight(3, 9, seed=9),
    "wrows": weight(3, 4, seed=10),
    "stack": weight(2, 9, 4, seed=11),
    "stacked": weight(2, 1, 9, seed=12),
    "down": weight(6, 2, seed=13),
    "up": weight(2, 4, seed=14),
    "vector": weight(9, seed=15),
    **statistics(9),
}
FLAT, DEEP = "float[3,6] x", "float[2,3,6] x"


def graph(
    nodes: str, outputs: str = "", x: str = FLAT, *, opset: int = 18, **more: np.ndarray
) -> onnx.ModelProto:
    constants = {**POOL, **more}
    words = set(re.findall(r"\w+", nodes))
    used = {name: array for name, array in constants.items() if name in words}
    rank = x.split("]")[0].count(",") + 1
    declared = f"float[{','.join('?' * rank)}] y"
    return build(f"g ({x}) => ({declared}{outputs}) {{ {nodes} }}", used, opset=opset)


TOGETHER = {
    "Gemm": ("h = Gemm (x, a, v) y = Gemm (h, b, w)", ["Gemm"]),
    "stored the other way": (
        "h = Gemm <transB = 1> (x, at, v) y = Gemm <transB = 1, alpha = 0.5, beta = 2.0> (h, bt, w)",
        ["Gemm"],
    ),
    "factors": (
        "h = Gemm <alpha = 0.5, beta = 3.0> (x, a, v) y = Gemm <alpha = -2.0> (h, b, wrows)",
        ["Gemm"],
    ),
    "one way and the other": ("h = Gemm (x, a, row) y = Gemm <transB = 1> (h, bt)", ["Gemm"]),
    "without biases": ("h = Gemm (x, a) y = Gemm (h, b)", ["Gemm"]),
    "MatMul": ("h = MatMul (x, a) y = MatMul (h, b)", ["MatMul"]),
    "MatMul with biases": (
        "m = MatMul (x, a) h = Add (m, v) k = MatMul (h, b) y = Add (w, k)",
        ["MatMul", "Add"],
    ),
    "a bias before": ("m = MatMul (x, a) h = Add (v, m) y = MatMul (h, b)", ["MatMul", "Add"]),
    "a bias of one number": ("m = MatMul (x, a) h = Add (m, one) y = MatMul (h, b)", ["MatMul", "Add"]),
    "a bias that is taken away": (
        "m = MatMul (x, a) h = Sub (m, v) k = MatMul (h, b) y = Sub (w, k)",
        ["MatMul", "Sub"],
    ),
    "Gemm, then MatMul": ("h = Gemm (x, a, v) y = MatMul (h, b)", ["Gemm"]),
    "Gemm, then MatMul with a bias": (
        "h = Gemm (x, a, v) k = MatMul (h, b) y = Add (k, wrows)",
        ["MatMul", "Add"],
    ),
    "MatMul with a bias, then Gemm": ("m = MatMul (x, a) h = Add (m, v) y = Gemm (h, b)", ["Gemm"]),
    "BatchNorm between": (
        "h = Gemm (x, a) n = BatchNormalization (h, scale, bias, mean, var) y = Gemm (n, b, w)",
        ["Gemm"],
    ),
}


@pytest.mark.parametrize("name", TOGETHER)
def test_they_become_one(name: str) -> None:
    nodes, kinds = TOGETHER[name]
    model = graph(nodes)
    result = fold_and_compare(model)
    assert operators(result.model) == kinds
    # where a BatchNorm goes first, its fold brings the two together
    assert len(result.joins) == 1
    without = bnfold.fold(model, merge=False)
    assert without.joins == ()
    assert_same(model, without.model)


@pytest.mark.parametrize("x", [DEEP, "float[N,T,6] x", "float[2,N,3,6] x"])
@pytest.mark.parametrize("bias", ["", "Add", "both"])
def test_of_any_rank(x: str, bias: str) -> None:
    nodes = {
        "": "h = MatMul (x, a) y = MatMul (h, b)",
        "Add": "m = MatMul (x, a) h = Add (m, row) y = MatMul (h, b)",
        "both": "m = MatMul (x, a) h = Add (m, v) k = MatMul (h, b) y = Add (k, w)",
    }[bias]
    kinds = ["MatMul", "Add"] if bias else ["MatMul"]
    assert operators(fold_and_compare(graph(nodes, x=x)).model) == kinds


def test_a_scale_between_goes_first() -> None:
    model = graph(
        "m = MatMul (x, a) h = Add (m, v) s = Mul (h, vector) t = Add (s, row) y = MatMul (t, b)", x=DEEP
    )
    assert operators(fold_and_compare(model).model) == ["MatMul", "Add"]


APART = {
    "a bottleneck": ("h = MatMul (x, down) y = MatMul (h, up)", FLAT),
    "something between": ("h = Gemm (x, a, v) r = Relu (h) y = Gemm (r, b, w)", FLAT),
    "a bias for each row": ("m = MatMul (x, a) h = Add (m, rows) y = MatMul (h, b)", FLAT),
    "a C for each row": ("h = Gemm (x, a, rows) y = Gemm (h, b)", FLAT),
    "a bias that makes more of it": ("m = MatMul (x, a) h = Add (m, stacked) y = MatMul (h, b)", DEEP),
    "a stack of matrices": ("h = MatMul (x, a) y = MatMul (h, stack)", DEEP),
    "a constant minus the product": ("m = MatMul (x, a) h = Sub (v, m) y = MatMul (h, b)", FLAT),
    "on the left": ("t = Transpose <perm = [1,0]> (x) h = MatMul (at, t) y = MatMul (bt, h)", FLAT),
    "turned": ("h = Gemm <transA = 1> (x, a) y = Gemm <transA = 1> (h, k)", "float[6,9] x"),
    "beyond float32": ("h = MatMul (x, huge) y = MatMul (h, huger)", FLAT),
    "infinite": ("h = MatMul (x, inf) y = MatMul (h, b)", FLAT),
}


@pytest.mark.parametrize("name", APART)
def test_they_stay(name: str) -> None:
    nodes, x = APART[name]
    model = graph(
        nodes, x=x,
        k=weight(9, 9),
        huge=np.full((6, 9), 1e30, np.float32), huger=np.full((9, 4), 1e30, np.float32),
        inf=np.full((6, 9), np.inf, np.float32),
    )  # fmt: skip
    result = bnfold.fold(model)
    assert [kind for kind in operators(result.model) if kind in ("Gemm", "MatMul")] == [
        kind for kind in operators(model) if kind in ("Gemm", "MatMul")
    ]
    assert result.joins == ()
    if name not in ("beyond float32", "infinite", "turned"):
        assert_same(model, result.model)


@pytest.mark.parametrize(("middle", "count"), [(11, 2), (12, 1), (13, 1)])
def test_they_become_one_exactly_where_the_weights_do_not_grow(middle: int, count: int) -> None:
    """From 24 to 24: 24·24 ≤ 2·24·m."""
    model = graph("h = MatMul (x, first) y = MatMul (h, second)", x="float[3,24] x",
                  first=weight(24, middle), second=weight(middle, 24, seed=2))  # fmt: skip
    assert operators(fold_and_compare(model).model) == ["MatMul"] * count


SHARED = {
    "the value between is read": ("h = MatMul (x, a) y = MatMul (h, b) z = Relu (h)", "float[?,?] z"),
    "the value between is an output": ("h = MatMul (x, a) y = MatMul (h, b)", "float[?,?] h"),
    "its shape is read": ("h = MatMul (x, a) y = MatMul (h, b) z = Shape (h)", "int64[?] z"),
    "a weight is read": ("h = MatMul (x, a) y = MatMul (h, b) z = Relu (a)", "float[?,?] z"),
    "both have one weight": ("h = MatMul (x, s) y = MatMul (h, s) z = Relu (x)", "float[?,?] z"),
}


@pytest.mark.parametrize("name", SHARED)
def test_what_is_shared_stays(name: str) -> None:
    nodes, other = SHARED[name]
    model = graph(nodes, f", {other}", s=weight(6, 6))
    assert operators(fold_and_compare(model).model) == operators(model)


def test_without_ranks_they_stay() -> None:
    model = graph("h = MatMul (x, a) y = MatMul (h, b)")
    model.graph.input[0].type.tensor_type.ClearField("shape")
    model.graph.output[0].type.tensor_type.ClearField("shape")
    assert operators(bnfold.fold(model).model) == ["MatMul", "MatMul"]


def test_before_version_11_a_matmul_does_not_become_a_gemm() -> None:
    model = graph("h = Gemm (x, a, v) y = MatMul (h, b)", opset=9)
    assert operators(fold_and_compare(model).model) == ["Gemm", "MatMul"]


def test_the_numbers_are_those_of_the_formula() -> None:
    folded = bnfold.fold(graph("h = Gemm (x, a, v) y = Gemm (h, b, w)")).model
    matrix, bias = sorted(map(numpy_helper.to_array, folded.graph.initializer), key=np.ndim, reverse=True)
    wide = {name: array.astype(np.float64) for name, array in POOL.items()}
    np.testing.assert_allclose(matrix, wide["a"] @ wide["b"], rtol=2e-7, atol=1e-7)
    np.testing.assert_allclose(bias, wide["v"] @ wide["b"] + wide["w"], rtol=2e-7, atol=1e-7)


def test_half_precision_stays_and_double_does_not() -> None:
    for dtype, kind, count in ((np.float16, "float16", 2), (np.float64, "double", 1)):
        model = build(
            f"g ({kind}[3,6] x) => ({kind}[?,?] y) {{ h = MatMul (x, a) y = MatMul (h, b) }}",
            {"a": weight(6, 9, dtype=dtype), "b": weight(9, 4, dtype=dtype)},
        )
        assert operators(fold_and_compare(model).model) == ["MatMul"] * count


def test_what_is_to_be_kept_stays() -> None:
    model = graph("h = Gemm (x, a, v) y = Gemm (h, b, w)")
    for name in ("h", "y"):
        assert operators(bnfold.fold(model, keep=[name]).model) == ["Gemm", "Gemm"]


def test_a_deep_linear_network_becomes_one_layer() -> None:
    layers = {f"w{i}": weight(16, 16, seed=i) / 2 for i in range(6)}
    nodes = " ".join(f"h{i + 1} = MatMul (h{i}, w{i})" for i in range(6))
    model = build(f"g (float[N,16] h0) => (float[N,16] h6) {{ {nodes} }}", layers)
    result = fold_and_compare(model)
    assert operators(result.model) == ["MatMul"]
    assert len(result.joins) == 5


def test_in_a_branch() -> None:
    model = build(
        """g (float[3,6] x, bool c) => (float[?,?] y) {
            y = If (c) <
                then_branch = t () => (float[?,?] s) { h = Gemm (x, a, v) s = Gemm (h, b) },
                else_branch = e () => (float[?,?] r) { r = Gemm (x, k) }
            >
        }""",
        {**{name: POOL[name] for name in ("a", "v", "b")}, "k": weight(6, 4)},
    )
    result = fold_and_compare(model)
    assert [join.into for join in result.joins] == ["s"]


def test_a_bias_that_counts_nothing_may_have_any_shape():
    nodes = "h = Gemm <beta = 0.0> (x, a, rows) g = Gemm <beta = 0.0> (h, b, wrows) y = Sigmoid(g)"
    assert operators(fold_and_compare(graph(nodes)).model) == ["Gemm", "Sigmoid"]


@pytest.mark.parametrize(
    "first",
    ["m = MatMul (x, a) q = Shape (m) h = Add (m, v)", "m = MatMul (x, a) h = Add (m, v) q = Shape (h)"],
)
def test_a_layer_whose_shape_is_read_stays(first: str) -> None:
    """What it reads has another shape."""
    model = graph(f"{first} y = MatMul (h, b)", ", int64[2] q")
    result = fold_and_compare(model)
    assert operators(result.model).count("MatMul") == 2
