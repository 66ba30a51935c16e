"""Transpose, Reshape, Flatten, Squeeze, Unsqueeze: the channel axis is followed, never guessed."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

import bnfold
from tests.graphs import build, fold_and_compare, operators, weight
from tests.ops.sandwich import above, below, gone, ints, settled, statistics, stays

SHAPES = {
    "swap": ints(2, 4, 16), "flat": ints(2, -1), "wide": ints(0, 4, 4, 4, 1), "fold": ints(4, 2, 4, 4),
    "mixed": ints(1, 8, 4, 4), "axis": ints(-1), "back": ints(2, 4, 4, 4), "split": ints(0, 2, 2, 4, 4),
}  # fmt: skip


@pytest.mark.parametrize(
    ("lines", "bn"),
    [
        ("b = Transpose <perm=[0,1,3,2]> (a)", 4),
        ("b = Reshape(a, swap)", 4),
        ("b = Reshape(a, flat)", 64),
        ("b = Flatten(a)", 64),
        ("b = Flatten <axis=2> (a)", 16),
        ("b = Reshape(a, wide)", 4),
        ("c = Unsqueeze(a, axis)\n b = Squeeze(c, axis)", 4),
        ("b = Unsqueeze(a, axis)", 4),
        ("t = Transpose <perm=[0,2,3,1]> (a)\n r = Reshape(t, back)\n b = Transpose <perm=[0,3,1,2]> (r)", 4),
        ("r = Reshape(a, split)\n t = Transpose <perm=[0,2,1,3,4]> (r)\n b = Reshape(t, back)", 4),
    ],
)
def test_up_to_the_conv_or_not_at_all(lines: str, bn: int) -> None:
    model = above(lines, SHAPES, bn=bn)
    if bn == 64:  # the statistics differ within a channel
        stays(model, "BN204")
    elif bn == 16:
        fold_and_compare(model)
    else:
        gone(model)


def test_a_flattened_axis_repeats_downwards() -> None:
    gone(below("b = Flatten(a)", end="y = Gemm(b, w)", w=weight(64, 5)))
    gone(below("b = Reshape(a, flat)", SHAPES, end="y = Gemm(b, w)", w=weight(64, 5)))


def test_a_flattened_axis_tiles_downwards_from_channels_last() -> None:
    lines = "t = Transpose <perm=[0,2,3,1]> (a)\n b = Flatten(t)"
    gone(below(lines, end="y = MatMul(b, w)", w=weight(64, 5)))


@pytest.mark.parametrize("perm", [(0, 1, 3, 2), (0, 2, 1, 3), (0, 3, 2, 1), (1, 0, 2, 3), (3, 2, 1, 0)])
def test_transpose_in_both_directions(perm: tuple[int, ...]) -> None:
    lines = f"b = Transpose <perm={list(perm)}> (a)"
    # all axes of `a` but the batch have size 4, so only following the axis gives the right answer
    model = above(lines, bn=2 if perm[1] == 0 else 4)
    gone(model) if perm[1] == 1 else stays(model, "BN204")
    last = f"{lines}\n t = Transpose <perm={[perm.index(i) for i in range(4)]}> (b)"
    gone(below(last, end="y = Conv(t, w)"))


def test_transpose_reverses_by_default() -> None:
    gone(below("t = Transpose(a)\n b = Transpose(t)"))
    gone(above("t = Transpose(a)\n b = Transpose(t)"))


def test_matmul_then_transpose_where_all_sizes_agree() -> None:
    """The BatchNorm's axis is the MatMul's rows, not its free columns: nothing may be folded there."""
    model = build(
        "g (float[2,4,4] x) => (float[2,4,4] y) { a = MatMul(x, w)\n b = Transpose <perm=[0,1,2]> (a)\n"
        " y = BatchNormalization(b, scale, bias, mean, var) }",
        {"w": weight(4, 4), **statistics(4)},
    )
    stays(model, "BN204")
    swapped = build(
        "g (float[2,4,4] x) => (float[2,4,4] y) { a = MatMul(x, w)\n b = Transpose <perm=[0,2,1]> (a)\n"
        " y = BatchNormalization(b, scale, bias, mean, var) }",
        {"w": weight(4, 4), **statistics(4)},
    )
    gone(swapped)


def test_channel_shuffle_in_both_directions() -> None:
    lines = "r = Reshape(a, split)\n t = Transpose <perm=[0,2,1,3,4]> (r)\n b = Reshape(t, back)"
    gone(below(lines, SHAPES))
    gone(above(lines, SHAPES))


def test_a_symbolic_batch_keeps_the_channels_provable() -> None:
    model = build(
        "g (float[N,3,4,4] x) => (float[N,4,16] y) { a = Conv(x, w)\n b = Reshape(a, s)\n"
        " y = BatchNormalization(b, scale, bias, mean, var) }",
        {"w": weight(4, 3, 1, 1), "s": ints(0, 4, -1), **statistics(4)},
    )
    gone(model)


def test_a_reshape_that_mixes_batch_and_channels_stays() -> None:
    stays(above("b = Reshape(a, mixed)", SHAPES, bn=8), "BN204")
    # every second channel gets the same statistics here, whatever the batch
    gone(above("b = Reshape(a, fold)", SHAPES, bn=2))


def test_a_shape_that_is_computed_at_run_time_stays() -> None:
    model = build(
        "g (float[2,3,4,4] x, int64[3] s) => (float[A,B,C] y) { a = Conv(x, w)\n b = Reshape(a, s)\n"
        " y = BatchNormalization(b, scale, bias, mean, var) }",
        {"w": weight(4, 3, 1, 1), **statistics(4)},
    )
    result = bnfold.fold(model)
    assert operators(result.model) == operators(model)


def test_axes_as_attributes_before_opset_13() -> None:
    gone(above("c = Unsqueeze <axes=[4]> (a)\n b = Squeeze <axes=[4]> (c)", opset=11))
    gone(below("c = Unsqueeze <axes=[0]> (a)\n b = Squeeze <axes=[0]> (c)", opset=11))


def test_a_scalar_scale_passes_where_shapes_are_unknown() -> None:
    model = build(
        "g (float[2,3,4,4] x, int64[3] s) => (float[A,B,C] y) { a = Conv(x, w)\n b = Reshape(a, s)\n"
        " y = Mul(b, k) }",
        {"w": weight(4, 3, 1, 1), "k": np.float32(1.7)},
    )
    assert "Mul" not in operators(bnfold.fold(model).model)


def test_flatten_of_a_value_that_others_read_stays() -> None:
    model = settled(build(
        "g (float[2,3,6,6] x) => (float y, float z) { a = Conv(x, w)\n z = Sigmoid(a)\n b = Reshape(a, s)\n"
        " y = BatchNormalization(b, scale, bias, mean, var) }",
        {"w": weight(4, 3, 3, 3), "s": ints(2, 4, 16), **statistics(4)},
    ))  # fmt: skip
    stays(model, "BN301")


SIZES = {
    "zero": np.int64(0), "one": np.int64(1), "two": np.int64(2), "last": np.int64(-2), "rest": ints(-1),
    "first": ints(0), "four": ints(4),
}  # fmt: skip
PRODUCTS = {
    "two entries": "s = Shape(a) t = Gather(s, zero) n = Gather(s, one) p = Mul(t, n) "
    "k = Unsqueeze(p, first)",
    "the other way round": "s = Shape(a) t = Gather(s, zero) n = Gather(s, last) p = Mul(n, t) "
    "k = Unsqueeze(p, first)",
    "parts of a shape": "t = Shape<start=0, end=1>(a) n = Shape<start=-2, end=-1>(a) q = Mul(t, n) "
    "r = Squeeze(q) k = Reshape(r, rest)",
    "a cast": "s = Shape(a) t = Gather(s, zero) n = Gather(s, one) i = Cast<to=6>(t) j = Cast<to=7>(i) "
    "p = Mul(j, n) k = Unsqueeze(p, first)",
}


def sequence_wise(
    product: str, *, down: bool, rest: str = "rest", order: str = "u, v, rest"
) -> onnx.ModelProto:
    """A BatchNorm of (time · samples, channels), both open, between two computed changes of shape."""
    start, end = ("a = Sigmoid(x)", "y = MatMul(z, w)") if down else ("a = MatMul(x, w)", "y = Identity(z)")
    text = (
        f"g (float[T,N,4] x) => (float[A,B,4] y) {{ {start} {product} target = Concat<axis=0>(k, {rest}) "
        "f = Reshape(a, target) b = BatchNormalization(f, scale, bias, mean, var) "
        "e = Shape(a) g0 = Gather(e, zero) u = Unsqueeze(g0, first) g1 = Gather(e, one) "
        f"v = Unsqueeze(g1, first) back = Concat<axis=0>({order}) z = Reshape(b, back) {end} }}"
    )
    held = {**SIZES, "w": weight(4, 4), **statistics(4)}
    return build(text, {name: array for name, array in held.items() if name in text})


@pytest.mark.parametrize("down", [False, True])
@pytest.mark.parametrize("rest", ["rest", "four"])
@pytest.mark.parametrize("product", list(PRODUCTS))
def test_a_product_of_open_sizes_is_followed(product: str, rest: str, down: bool) -> None:
    gone(sequence_wise(PRODUCTS[product], down=down, rest=rest))


def test_a_product_of_other_sizes_proves_nothing() -> None:
    """(time · channels, samples): as many samples as the BatchNorm has channels."""
    product = PRODUCTS["two entries"].replace("Gather(s, one)", "Gather(s, two)")
    text = (
        f"g (float[T,N,4] x) => (float[A,N] y) {{ a = MatMul(x, w) {product} "
        "target = Concat<axis=0>(k, rest) f = Reshape(a, target) "
        "y = BatchNormalization(f, scale, bias, mean, var) }"
    )
    held = {**SIZES, "w": weight(4, 4), **statistics(3)}
    stays(build(text, {name: array for name, array in held.items() if name in text}), "BN208")


def test_a_sum_of_sizes_is_not_a_product() -> None:
    product = PRODUCTS["two entries"].replace("Mul(t, n)", "Add(t, n)")
    result = bnfold.fold(sequence_wise(product, down=True))
    assert "BatchNormalization" in operators(result.model)


def test_sizes_that_are_unknown_are_not_called_mixed() -> None:
    model = build(
        "g (float[2,8,N] x) => (float[2,4,M] y) { c = Sigmoid(x) b = Reshape(c, s) "
        "y = BatchNormalization(b, scale, bias, mean, var) }",
        {"s": ints(2, 4, -1), **statistics(4)},
    )
    stays(model, "BN208")
