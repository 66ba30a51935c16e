"""Two Convs in a row, one of them pointwise, become one where that costs no more."""

from __future__ import annotations

import re

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import bnfold
from tests.graphs import assert_same, build, feeds, fold_and_compare, operators, run, statistics, weight

X = "float[2,6,9,8] x"
STATISTICS = "scale, bias, mean, var"
NORM, AFTER = "BatchNormalization", "after_scale, after_bias, after_mean, after_var"
POOL = {
    "wide": weight(12, 6, 3, 3, seed=1),  # 3×3, 6 → 12
    "narrow": weight(4, 12, 1, 1, seed=2),  # 1×1, 12 → 4
    "square": weight(6, 6, 1, 1, seed=3),
    "large": weight(5, 6, 3, 3, seed=4),
    "few": weight(2, 6, 1, 1, seed=5),
    "many": weight(12, 2, 3, 3, seed=6),  # after `few` a bottleneck
    "depth": weight(6, 1, 3, 3, seed=7),  # depthwise
    "halves": weight(6, 3, 1, 1, seed=8),  # two groups
    "thirds": weight(9, 2, 3, 3, seed=9),  # three groups
    "pairs": weight(12, 3, 3, 3, seed=10),  # two groups, 6 → 12
    "pairs_on": weight(4, 6, 1, 1, seed=11),  # two groups, 12 → 4
    "b4": weight(4, seed=12),
    "b5": weight(5, seed=13),
    "b6": weight(6, seed=14),
    "b12": weight(12, seed=15),
    **statistics(12),
    **statistics(4, 3, "after_"),
}
PADS = "pads = [1,0,2,1]"


def graph(nodes: str, outputs: str = "float[?,?,?,?] y", x: str = X, **more: np.ndarray) -> onnx.ModelProto:
    """A graph over the weights that its text names."""
    constants = {**POOL, **more}
    words = set(re.findall(r"\w+", nodes))
    used = {name: array for name, array in constants.items() if name in words}
    return build(f"g ({x}) => ({outputs}) {{ {nodes} }}", used)


def size(model: onnx.ModelProto) -> int:
    return sum(numpy_helper.to_array(tensor).size for tensor in model.graph.initializer)


TOGETHER = {
    "plain": "a = Conv (x, wide) y = Conv (a, narrow)",
    "biases": "a = Conv (x, wide, b12) y = Conv (a, narrow, b4)",
    "the first's bias": "a = Conv (x, wide, b12) y = Conv (a, narrow)",
    "the second's bias": "a = Conv (x, wide) y = Conv (a, narrow, b4)",
    "padded": f"a = Conv <{PADS}, strides = [2,1], dilations = [1,2]> (x, wide) y = Conv (a, narrow, b4)",
    "SAME": 'a = Conv <auto_pad = "SAME_LOWER", strides = [2,2]> (x, wide, b12) y = Conv (a, narrow )',
    "SAME, one wide": 'a = Conv (x, wide) y = Conv <auto_pad = "SAME_UPPER"> (a, narrow )',
    "two pointwise": "a = Conv (x, square, b6) y = Conv (a, few)",
    "pointwise first": "a = Conv (x, square, b6) y = Conv <strides = [2,1]> (a, large, b5)",
    "pointwise first, padded": "a = Conv (x, square) y = Conv <pads = [1,1,1,1]> (a, large, b5)",
    "two groups": f"a = Conv <group = 2, {PADS}> (x, pairs, b12) y = Conv <group = 2> (a, pairs_on, b4)",
    "BatchNorm between": f"a = Conv (x, wide, b12) n = {NORM} (a, {STATISTICS}) y = Conv (n, narrow, b4)",
    "BatchNorm after": f"a = Conv (x, wide) c = Conv (a, narrow, b4) y = {NORM} (c, {AFTER})",
}


@pytest.mark.parametrize("name", TOGETHER)
def test_they_become_one(name: str) -> None:
    model = graph(TOGETHER[name])
    result = fold_and_compare(model)
    assert operators(result.model) == ["Conv"]
    assert size(result.model) <= size(model)
    [join] = result.joins
    assert (join.nodes, join.op_type) == (("a",), "Conv")
    assert operators(bnfold.fold(model, merge=False).model).count("Conv") == 2


APART = {
    "a bottleneck": "a = Conv (x, few) y = Conv (a, many)",
    "depthwise, then pointwise": "a = Conv <group = 6> (x, depth) y = Conv (a, square)",
    "pointwise, then depthwise": "a = Conv (x, square) y = Conv <group = 6> (a, depth)",
    "groups that mix": "a = Conv <group = 2> (x, halves) y = Conv <group = 3> (a, thirds)",
    "both large": "a = Conv (x, wide) y = Conv (a, k)",
    "a step in the second": "a = Conv (x, wide) y = Conv <strides = [2,2]> (a, narrow)",
    "pads in the second": "a = Conv (x, wide) y = Conv <pads = [1,1,1,1]> (a, narrow)",
    "a bias before zeros": "a = Conv (x, square, b6) y = Conv <pads = [1,1,1,1]> (a, large, b5)",
    "a step in the first": "a = Conv <strides = [2,2]> (x, square) y = Conv (a, large)",
    "something between": "a = Conv (x, wide) r = Relu (a) y = Conv (r, narrow)",
    "transposed": "a = ConvTranspose (x, k) y = Conv (a, narrow)",
    "NaN": "a = Conv (x, wide) y = Conv (a, nan)",
    "beyond float32": "a = Conv (x, huge) y = Conv (a, huger)",
}


@pytest.mark.parametrize("name", APART)
def test_they_stay(name: str) -> None:
    k = weight(6, 12, 3, 3) if name == "transposed" else weight(4, 12, 2, 2)
    nan = np.full((4, 12, 1, 1), np.nan, np.float32)
    huge, huger = np.full((12, 6, 1, 1), 1e30, np.float32), np.full((4, 12, 1, 1), 1e30, np.float32)
    model = graph(APART[name], k=k, nan=nan, huge=huge, huger=huger)
    with np.errstate(all="ignore"):
        result = bnfold.fold(model)
    assert operators(result.model) == operators(model)
    assert result.joins == ()


@pytest.mark.parametrize(("middle", "count"), [(11, 2), (12, 1), (13, 1)])
def test_they_become_one_exactly_where_the_weights_do_not_grow(middle: int, count: int) -> None:
    """From 24 to 24 channels: 24·24 ≤ 2·24·m."""
    model = graph("a = Conv (x, first) y = Conv (a, second)", x="float[1,24,5,5] x",
                  first=weight(middle, 24, 1, 1), second=weight(24, middle, 1, 1, seed=2))  # fmt: skip
    assert operators(fold_and_compare(model).model) == ["Conv"] * count


@pytest.mark.parametrize(("bias", "count"), [("", 1), (", b ", 2)])
def test_a_new_bias_counts(bias: str, count: int) -> None:
    """From 6 by way of 3 to 6: 6·6 weights are as many as 2·6·3, but 6 numbers of a bias more than 3."""
    model = graph(f"a = Conv (x, first {bias}) y = Conv (a, second)",
                  first=weight(3, 6, 1, 1), b=weight(3), second=weight(6, 3, 1, 1, seed=2))  # fmt: skip
    assert operators(fold_and_compare(model).model) == ["Conv"] * count


@pytest.mark.parametrize(("pads", "count"), [(1, 1), (2, 2)])
def test_more_positions_than_the_pointwise_one_has_are_not_worth_it(pads: int, count: int) -> None:
    """With a border of two a window of three has more positions than the source."""
    text = f"a = Conv (x, first) y = Conv <pads = [{pads},{pads},{pads},{pads}]> (a, second)"
    model = graph(text, first=weight(5, 6, 1, 1), second=weight(4, 5, 3, 3))
    assert 6 * 4 * 9 > 5 * 6 + 4 * 5 * 9  # more for one position than both
    assert operators(fold_and_compare(model).model) == ["Conv", "Conv"]
    model = graph(text, first=weight(6, 6, 1, 1), second=weight(4, 6, 3, 3))
    assert operators(fold_and_compare(model).model) == ["Conv"]  # no more for one position than the second
    model = graph(text, first=weight(5, 6, 1, 1), second=weight(3, 5, 3, 3))
    assert 5 * 6 + 3 * 5 * 9 >= 3 * 6 * 9 > 3 * 5 * 9
    assert operators(fold_and_compare(model).model) == ["Conv"] * count


SHARED = {
    "the value between is read": ("a = Conv (x, wide) y = Conv (a, narrow) z = Relu (a)", "float[?,?,?,?] z"),
    "the value between is an output": ("a = Conv (x, wide) y = Conv (a, narrow)", "float[?,?,?,?] a"),
    "its shape is read": ("a = Conv (x, wide) y = Conv (a, narrow) z = Shape (a)", "int64[?] z"),
    "the first weight is read": (
        "a = Conv (x, wide) y = Conv (a, narrow) z = Relu (wide)",
        "float[?,?,?,?] z",
    ),
    "the second weight is read": (
        "a = Conv (x, wide) y = Conv (a, narrow) z = Relu (narrow)",
        "float[?,?,?,?] z",
    ),
}


@pytest.mark.parametrize("name", SHARED)
def test_what_is_shared_stays(name: str) -> None:
    nodes, other = SHARED[name]
    model = graph(nodes, f"float[?,?,?,?] y, {other}")
    assert operators(fold_and_compare(model).model) == operators(model)


def test_three_in_a_row_become_one() -> None:
    model = graph("s = Conv (x, square) a = Conv (s, wide, b12) y = Conv (a, narrow, b4)")
    result = fold_and_compare(model)
    assert operators(result.model) == ["Conv"]
    assert [join.nodes for join in result.joins] == [("s",), ("a",)]


def test_the_numbers_are_those_of_the_formula() -> None:
    model = graph("a = Conv (x, wide, b12) y = Conv (a, narrow, b4)")
    after = [numpy_helper.to_array(tensor) for tensor in bnfold.fold(model).model.graph.initializer]
    kernel, bias = sorted(after, key=np.ndim, reverse=True)
    mixing = POOL["narrow"][:, :, 0, 0].astype(np.float64)
    np.testing.assert_allclose(kernel, np.einsum("om,mikl->oikl", mixing, POOL["wide"]), rtol=2e-7, atol=1e-8)
    np.testing.assert_allclose(bias, mixing @ POOL["b12"] + POOL["b4"], rtol=1e-6)


def test_what_a_batchnorm_became_is_followed() -> None:
    result = fold_and_compare(graph(TOGETHER["BatchNorm between"]))
    [site] = result.sites
    assert (site.status, site.into) == ("folded", ("y",))


def test_half_precision_stays() -> None:
    model = build(
        "g (float16[1,3,5,5] x) => (float16[?,?,?,?] y) { a = Conv (x, v) y = Conv (a, w) }",
        {"v": weight(8, 3, 1, 1, dtype=np.float16), "w": weight(2, 8, 1, 1, dtype=np.float16)},
    )
    assert operators(fold_and_compare(model).model) == ["Conv", "Conv"]


def test_quantised_weights_stay() -> None:
    model = build(
        """g (float[1,3,5,5] x) => (float[?,?,?,?] y) {
            v = DequantizeLinear (q, s)
            a = Conv (x, v)
            y = Conv (a, w)
        }""",
        {
            "q": np.arange(24, dtype=np.int8).reshape(8, 3, 1, 1),
            "s": np.float32(0.1),
            "w": weight(2, 8, 1, 1),
        },
    )
    assert operators(fold_and_compare(model).model) == ["DequantizeLinear", "Conv", "Conv"]


def test_weights_that_are_fed_stay() -> None:
    model = graph("a = Conv (x, wide) y = Conv (a, k)", x=f"{X}, float[4,12,1,1] k")
    assert operators(fold_and_compare(model).model) == ["Conv", "Conv"]


def test_weights_that_a_caller_may_set_stay() -> None:
    model = graph("a = Conv (x, wide) y = Conv (a, narrow)")
    model.graph.input.append(
        onnx.helper.make_tensor_value_info("wide", onnx.TensorProto.FLOAT, (12, 6, 3, 3))
    )
    result = bnfold.fold(model)
    assert operators(result.model) == ["Conv", "Conv"]


def test_sizes_need_not_be_known() -> None:
    model = graph("a = Conv (x, wide, b12) y = Conv (a, narrow)", x="float[N,C,H,W] x")
    folded = bnfold.fold(model).model
    assert operators(folded) == ["Conv"]
    inputs = {"x": np.random.default_rng(0).normal(size=(2, 6, 7, 5)).astype(np.float32)}
    np.testing.assert_allclose(run(model, inputs)[0], run(folded, inputs)[0], rtol=1e-4, atol=1e-4)


def test_a_border_that_follows_from_an_unknown_size_stays() -> None:
    model = graph(
        'a = Conv <auto_pad = "SAME_UPPER", strides = [2,2]> (x, wide) y = Conv (a, narrow )',
        x="float[N,6,H,W] x",
    )
    assert operators(bnfold.fold(model).model) == ["Conv", "Conv"]


def test_in_a_branch_and_in_a_function() -> None:
    model = build(
        """g (float[2,3,4,4] x, bool c) => (float[?,?,?,?] y) {
            f = local.two (x)
            y = If (c) <
                then_branch = t () => (float[?,?,?,?] s) { a = Conv (x, v) s = Conv (a, w) },
                else_branch = e () => (float[?,?,?,?] r) { r = Identity (f) }
            >
        }
        <opset_import: ["" : 18], domain: "local">
        two (x) => (y) {
            v = Constant <value = float[4,3,1,1] {1.0,2.0,-3.0,4.0,5.0,0.5,7.0,8.0,-9.0,1.0,2.0,3.0}> ()
            w = Constant <value = float[2,4,1,1] {0.5,-1.0,2.0,0.25,1.0,2.0,3.0,-4.0}> ()
            a = Conv (x, v)
            y = Conv (a, w)
        }""",
        {"v": weight(8, 3, 1, 1), "w": weight(2, 8, 1, 1)},
    )
    result = bnfold.fold(model)
    assert [join.op_type for join in result.joins] == ["Conv", "Conv"]
    assert_same(model, result.model)
    [function] = result.model.functions
    assert [node.op_type for node in function.node if node.op_type != "Constant"] == ["Conv"]
    assert feeds(model).keys() == {"x", "c"}


def test_a_pad_and_two_convs_and_a_batchnorm() -> None:
    """Each makes the next possible."""
    model = build(
        """g (float[2,3,8,8] x) => (float[?,?,?,?] y) {
            p = Constant <value_ints = [0,0,1,1,0,0,1,1]> ()
            a = Pad (x, p)
            b = Conv (a, v)
            n = BatchNormalization (b, scale, bias, mean, var)
            c = Conv (n, w)
            r = Relu (c)
            y = Conv (r, u)
        }""",
        {"v": weight(8, 3, 3, 3), "w": weight(4, 8, 1, 1, seed=2), "u": weight(2, 4, 1, 1), **statistics(8)},
    )
    assert operators(fold_and_compare(model).model) == ["Conv", "Relu", "Conv"]


def test_one_that_becomes_a_branch_is_merged_with_the_others() -> None:
    """A RepVGG block whose 3×3 branch was split in two."""
    model = build(
        """g (float[1,8,6,6] x) => (float[?,?,?,?] y) {
            a = Conv <pads = [1,1,1,1]> (x, v)
            b = Conv (a, w)
            c = Conv (x, u)
            s = Add (b, c)
            y = Relu (s)
        }""",
        {"v": weight(9, 8, 3, 3), "w": weight(8, 9, 1, 1, seed=2), "u": weight(8, 8, 1, 1, seed=3)},
    )
    assert operators(fold_and_compare(model).model) == ["Conv", "Relu"]
