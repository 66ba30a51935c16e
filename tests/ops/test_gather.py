"""Gather: into a constant table, through a value off the gathered axis, along it at constant positions."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

import bnfold
from tests.graphs import assert_same, build, fold_and_compare, kept_codes, operators, statistics, weight
from tests.ops.sandwich import BATCHNORM, above, below, gone, ints, settled, stays

NORM = "y = BatchNormalization({0}, scale, bias, mean, var)"
TABLE = {"table": weight(9, 4)}


def lookup(lines: str, x: str, constants: dict[str, np.ndarray], bn: int = 4) -> onnx.ModelProto:
    """A model of integer inputs and one BatchNorm of `b`."""
    text = f"g (int64[{x}] x) => (float y) {{ {lines} {NORM.format('b')} }}"
    held = {**statistics(bn), **constants}
    named = {name: array for name, array in held.items() if name in text}
    return settled(build(text, named))


@pytest.mark.parametrize("indices", [(3, 1, 0, 2), (2, 0), (-1, -4)])
def test_gather_in_both_directions(indices: tuple[int, ...]) -> None:
    n = len(indices)
    gone(above("b = Gather <axis=1> (a, i)", {"i": ints(*indices)}, bn=n))
    gone(below("b = Gather <axis=1> (a, i)", {"i": ints(*indices)}, w=weight(5, n, 2, 2)))


def test_gather_off_the_channels() -> None:
    gone(above("b = Gather <axis=3> (a, i)", {"i": ints(3, 3, 0)}))
    gone(below("b = Gather <axis=3> (a, i)", {"i": ints(3, 3, 0)}))


def test_gather_of_one_element_twice_goes_down_only() -> None:
    stays(above("b = Gather <axis=1> (a, i)", {"i": ints(1, 1, 0)}, bn=3), "BN210")
    gone(below("b = Gather <axis=1> (a, i)", {"i": ints(1, 1, 0)}, w=weight(5, 3, 2, 2)))


@pytest.mark.parametrize(
    ("lines", "x"),
    [
        ("b = Gather(table, x)", "N"),
        ("b = Gather<axis=-2>(table, x)", "5"),
        ("e = Gather(table, x) b = Transpose<perm=[0,2,1]>(e)", "N,6"),
        ("e = Gather(table, x) b = Transpose<perm=[0,3,1,2]>(e)", "N,2,3"),
        ("e = Gather(table, x) r = Reshape(e, flat) b = Identity(r)", "2,3"),
    ],
)
def test_an_embedding_takes_the_affine_into_its_table(lines: str, x: str) -> None:
    result = gone(lookup(lines, x, {**TABLE, "flat": ints(-1, 4)}))
    [tensor] = [one for one in result.model.graph.initializer if "table" in one.name]
    assert tensor.name == "table.folded"
    assert list(tensor.dims) == [9, 4]


def test_a_table_of_which_the_columns_are_gathered() -> None:
    # output [4, N], and the BatchNorm is along the gathered axis: rows of the table are not its channels
    stays(lookup("b = Gather<axis=1>(table, x)", "4", {"table": weight(4, 9)}), "BN204")
    gone(lookup("e = Gather<axis=1>(table, x) b = Transpose(e)", "4", {"table": weight(4, 9)}))
    gone(lookup("b = Gather<axis=2>(table, x)", "4", {"table": weight(3, 4, 9)}))
    gone(lookup("b = Gather<axis=0>(table, x)", "4", {"table": weight(3, 4, 9)}))
    stays(lookup("b = Gather<axis=1>(table, x)", "4", {"table": weight(3, 9, 4)}), "BN204")


def test_a_scale_alone_leaves_the_table_to_be_computed_block_by_block() -> None:
    zero = {name: np.zeros(4, np.float32) for name in ("bias", "mean")}
    gone(lookup("b = Gather(table, x)", "N", {**TABLE, **zero}))


def test_a_table_of_half_precision_and_one_too_large_for_a_block() -> None:
    text = f"g (int64[N] x) => (float16 y) {{ b = Gather(table, x) {NORM.format('b')} }}"
    half = build(text, {"table": weight(9, 4, dtype=np.float16), **statistics(4, dtype=np.float16)})
    result = bnfold.fold(settled(half))
    assert operators(result.model) == ["Gather"]
    assert_same(half, result.model, tolerance=2e-3)
    gone(lookup("b = Gather(table, x)", "N", {"table": weight(90_000, 4)}))


def test_a_table_that_others_read_stays() -> None:
    text = (
        "g (int64[N] x, float[N,4] z) => (float y, float[N,9] o) "
        f"{{ b = Gather(table, x) {NORM.format('b')} t = Transpose(table) o = MatMul(z, t) }}"
    )
    stays(settled(build(text, {**TABLE, **statistics(4)})), "BN301")


def test_a_table_that_a_caller_may_replace_stays() -> None:
    model = lookup("b = Gather(table, x)", "N", TABLE)
    model.graph.input.append(onnx.helper.make_tensor_value_info("table", onnx.TensorProto.FLOAT, [9, 4]))
    stays(model, "BN203")


def test_a_quantised_table_keeps_its_integers() -> None:
    integers = np.random.default_rng(0).integers(-90, 90, (9, 4)).astype(np.int8)
    held = {"q": integers, "step": np.float32(0.02)}
    lines = "table = DequantizeLinear(q, step) b = Gather(table, x)"
    stays(lookup(lines, "N", held), "BN207")
    zero = {name: np.zeros(4, np.float32) for name in ("bias", "mean")}
    result = fold_and_compare(lookup(lines, "N", {**held, **zero}))
    assert operators(result.model) == ["DequantizeLinear", "Gather"]
    kinds = {tensor.data_type for tensor in result.model.graph.initializer}
    assert onnx.TensorProto.INT8 in kinds


def test_a_position_takes_the_axis_away() -> None:
    """The first token of a sequence: channels stand last, and the axis before them goes."""
    held = {"i": np.int64(0)}
    lines = "f = Reshape(a, tokens)\n t = Transpose <perm=[0,2,1]> (f)\n b = Gather <axis=1> (t, i)"
    gone(above(lines, {**held, "tokens": ints(2, 4, 16)}))
    gone(below(lines, {**held, "tokens": ints(2, 4, 16)}, end="y = Gemm(b, w)", w=weight(4, 5)))
    # the channel itself is gathered: what is left of the affine is one number for all
    gone(below("b = Gather <axis=1> (a, i)", held, end="y = MatMul(b, w)", w=weight(4, 5)))


def test_indices_of_two_axes() -> None:
    pair = {"i": np.array([[3, 1], [0, 0]])}
    gone(above("c = Gather <axis=3> (a, i)\n b = Identity(c)", pair))
    gone(below("c = Gather <axis=3> (a, i)\n b = Flatten(c)", pair, end="y = Gemm(b, w)", w=weight(64, 5)))
    gone(below("c = Gather <axis=1> (a, i)\n b = Flatten(c)", pair, end="y = Gemm(b, w)", w=weight(64, 5)))
    stays(above("b = Gather <axis=1> (a, i)", pair, bn=2), "BN210")


def test_indices_that_are_not_constant_stay() -> None:
    model = build(
        "g (float[2,3,6,6] x, int64[4] i) => (float y) { a = Conv(x, w)\n b = Gather <axis=1> (a, i)\n"
        + BATCHNORM
        + " }",
        {"w": weight(4, 3, 3, 3), **statistics(4)},
    )
    assert "BatchNormalization" in operators(stays(settled(model), "BN208").model)


def test_computed_indices_off_the_channels() -> None:
    model = build(
        "g (float[2,3,6,6] x, int64[4] i) => (float y) { a = Conv(x, w)\n b = Gather <axis=2> (a, i)\n"
        + BATCHNORM
        + " }",
        {"w": weight(4, 3, 3, 3), **statistics(4)},
    )
    gone(settled(model))


def test_integers_are_no_table() -> None:
    text = "g (int64[N] x) => (float y) { e = Gather(table, x) b = Cast<to=1>(e) " + NORM.format("b") + " }"
    result = fold_and_compare(settled(build(text, {"table": np.arange(36).reshape(9, 4), **statistics(4)})))
    assert kept_codes(result) >= {"BN212"}
