"""Pools and reductions."""

from __future__ import annotations

import numpy as np
import pytest

from tests.graphs import build, positive, weight
from tests.ops.sandwich import above, below, gone, ints, statistics, stays
from tests.pairwise import pairwise

POSITIVE = positive(statistics(4))
SCALES = {**statistics(4), "bias": np.zeros(4, np.float32), "mean": np.zeros(4, np.float32)}
ONE = weight(5, 4, 1, 1)


@pytest.mark.parametrize(
    ("attributes", "passes"),
    [
        ("kernel_shape=[2,2]", True),
        ("kernel_shape=[3,3], pads=[1,1,1,1]", True),
        ("kernel_shape=[3,3], pads=[1,1,1,1], count_include_pad=1", False),
        ("kernel_shape=[3,3], pads=[0,0,0,0], count_include_pad=1", True),
        ('kernel_shape=[3,3], auto_pad="SAME_UPPER"', True),
        ('kernel_shape=[3,3], auto_pad="SAME_LOWER", count_include_pad=1', False),
        ('kernel_shape=[3,3], auto_pad="VALID", count_include_pad=1', True),
        ("kernel_shape=[3,3], strides=[2,2], ceil_mode=1", True),
        ("kernel_shape=[3,3], strides=[2,2], ceil_mode=1, count_include_pad=1", False),
        ("kernel_shape=[2,2], strides=[2,2], pads=[1,1,1,1], ceil_mode=1", False),
    ],
)
def test_average_pool(attributes: str, passes: bool) -> None:
    lines = f"b = AveragePool <{attributes}> (a)"
    for model in (above(lines), below(lines, w=ONE)):
        gone(model) if passes else stays(model, "BN205")
    # a scale alone commutes with any weights
    gone(above(lines, stats=SCALES))
    gone(below(lines, stats=SCALES, w=ONE))


@pytest.mark.parametrize("attributes", ["dilations=[2,2]", "dilations=[2,2], ceil_mode=1, strides=[2,2]"])
def test_dilated_average_pool(attributes: str) -> None:
    gone(above(f"b = AveragePool <kernel_shape=[2,2], {attributes}> (a)", opset=19))


def test_dilated_and_padded_windows_may_hold_nothing() -> None:
    stays(
        above("b = AveragePool <kernel_shape=[2,2], dilations=[3,3], pads=[1,1,1,1]> (a)", opset=19), "BN205"
    )


@pytest.mark.parametrize("op", ["GlobalAveragePool", "GlobalMaxPool"])
def test_global_pools(op: str) -> None:
    gone(above(f"b = {op}(a)", stats=POSITIVE))
    gone(below(f"b = {op}(a)", stats=POSITIVE, w=ONE))


def test_a_global_mean_takes_any_sign() -> None:
    gone(above("b = GlobalAveragePool(a)"))
    gone(below("b = GlobalAveragePool(a)", w=ONE))


@pytest.mark.parametrize(
    "lines",
    [
        "b = MaxPool <kernel_shape=[2,2]> (a)",
        "b = MaxPool <kernel_shape=[3,3], pads=[1,1,1,1], strides=[2,2]> (a)",
        "b = MaxPool <kernel_shape=[2,2], strides=[2,2], ceil_mode=1, dilations=[2,2]> (a)",
        "b = GlobalMaxPool(a)",
        "b = ReduceMax <keepdims=1> (a, rows)",
        "b = ReduceMin <keepdims=1> (a, rows)",
    ],
)
def test_maxima_keep_order_only_without_a_negative_scale(lines: str) -> None:
    held = {"rows": ints(2)}
    gone(above(lines, held, stats=POSITIVE))
    gone(below(lines, held, stats=POSITIVE, w=ONE))
    stays(above(lines, held), "BN206")
    stays(below(lines, held, w=ONE), "BN206")


def test_a_scale_of_zero_keeps_order() -> None:
    zero = {**POSITIVE, "scale": np.array([0, 1.5, 0, 0.5], np.float32)}
    gone(above("b = MaxPool <kernel_shape=[3,3], pads=[1,1,1,1]> (a)", stats=zero))


def test_positions_that_are_read_stay() -> None:
    lines = "b, i = MaxPool <kernel_shape=[2,2]> (a)"
    stays(above(lines, stats=POSITIVE, outputs="float y, int64 i"), "BN210")


@pairwise(op=["ReduceMean", "ReduceMax", "ReduceMin"], axes=[(2, 3), (-1,), (-2, -1), (2,)], keepdims=[0, 1])
def test_reductions_off_the_channels(op: str, axes: tuple[int, ...], keepdims: int) -> None:
    for opset, lines in (
        (18, f"b = {op} <keepdims={keepdims}> (a, axes)"),
        (17, f"b = {op} <keepdims={keepdims}, axes={list(axes)}> (a)"),
    ):
        gone(above(lines, {"axes": ints(*axes)}, stats=POSITIVE, opset=opset))
        if keepdims:
            gone(below(lines, {"axes": ints(*axes)}, stats=POSITIVE, w=ONE, opset=opset))
        elif len(axes) == 2:
            end = "y = Gemm(b, w)"
            gone(below(lines, {"axes": ints(*axes)}, stats=POSITIVE, w=weight(4, 5), end=end, opset=opset))
        else:
            end = "t = Transpose <perm=[0,2,1]> (b)\n y = MatMul(t, w)"
            gone(below(lines, {"axes": ints(*axes)}, stats=POSITIVE, w=weight(4, 5), end=end, opset=opset))


def test_reductions_over_the_channels() -> None:
    held = {"axes": ints(1), "one": ints(-3)}
    # with keepdims=0 the rows take the channels' place, and their size is the same
    stays(above("b = ReduceMean <keepdims=0> (a, axes)", held), "BN204")
    stays(
        below("b = ReduceMean <keepdims=0> (a, axes)", held, end="y = MatMul(b, w)", w=weight(4, 5)), "BN204"
    )
    stays(below("b = ReduceMean <keepdims=1> (a, one)", held, w=weight(5, 1, 1, 1)), "BN204")
    gone(above("b = ReduceMean <keepdims=1> (a, axes)", held, bn=1))


@pytest.mark.parametrize("noop", [0, 1])
def test_no_axes(noop: int) -> None:
    lines = f"b = ReduceMean <keepdims=1, noop_with_empty_axes={noop}> (a)"
    gone(above(lines, bn=4 if noop else 1))
    gone(below(lines, w=ONE)) if noop else stays(below(lines, w=weight(5, 1, 1, 1)), "BN204")
    lines = f"b = ReduceMean <keepdims=1, noop_with_empty_axes={noop}> (a, none)"
    gone(above(lines, {"none": ints()}, bn=4 if noop else 1))


def test_the_batch_may_be_reduced() -> None:
    gone(above("b = ReduceMean <keepdims=1> (a, axes)", {"axes": ints(0)}))
    gone(below("b = ReduceMean <keepdims=1> (a, axes)", {"axes": ints(0)}, w=ONE))


def test_a_mean_over_the_rows_of_a_transposed_value() -> None:
    """The channels stand on axis 2 here; sizes agree with axis 1's."""
    lines = "t = Transpose <perm=[0,2,1,3]> (a)\n b = ReduceMean <keepdims=1> (t, axes)"
    stays(below(lines, {"axes": ints(2)}, w=weight(5, 4, 1, 1)), "BN204")
    stays(below(lines, {"axes": ints(1)}, w=weight(5, 1, 1, 1)), "BN204")


def test_another_reduction_stays() -> None:
    stays(above("b = ReduceL2 <keepdims=1> (a, axes)", {"axes": ints(2)}), "BN215")


@pytest.mark.parametrize("keep", [0, 1])
@pytest.mark.parametrize("axes", [(2,), (3,), (2, 3), (-1,), (0, 3)])
@pytest.mark.parametrize("opset", [11, 13])
def test_sums_multiply_the_shift(axes: tuple[int, ...], keep: int, opset: int) -> None:
    attribute = f", axes={list(axes)}" if opset < 13 else ""
    lines = f"b = ReduceSum <keepdims={keep}{attribute}> (a{'' if opset < 13 else ', axes'})"
    held = {"axes": ints(*axes)}
    if keep or 0 not in axes:
        gone(above(lines, held, opset=opset))
    if keep:
        gone(below(lines, held, w=ONE, opset=opset))
    elif axes == (2, 3):
        gone(below(lines, held, w=weight(4, 5), end="y = Gemm(b, w)", opset=opset))


def test_a_sum_over_the_channels_stays() -> None:
    held = {"axes": ints(1)}
    stays(above("b = ReduceSum <keepdims=0> (a, axes)", held), "BN204")
    stays(below("b = ReduceSum <keepdims=1> (a, axes)", held, w=weight(5, 1, 1, 1)), "BN204")
    gone(above("b = ReduceSum <keepdims=1> (a, axes)", held, bn=1))


@pytest.mark.parametrize("noop", [0, 1])
def test_a_sum_without_axes(noop: int) -> None:
    lines = f"b = ReduceSum <keepdims=1, noop_with_empty_axes={noop}> (a)"
    gone(above(lines, bn=4 if noop else 1))
    gone(below(lines, w=ONE)) if noop else stays(below(lines, w=weight(5, 1, 1, 1)), "BN204")


def test_a_sum_of_nobody_knows_how_many_takes_no_shift() -> None:
    text = (
        "g (float[2,3,6,T] x) => (float[2,4,4,1] y) "
        "{ a = Conv(x, w) b = ReduceSum <keepdims=1> (a, axes) "
        "y = BatchNormalization(b, scale, bias, mean, var) }"
    )
    held = {"w": weight(4, 3, 3, 3), "axes": ints(3)}
    unknown = build(text, {**held, **statistics(4)})
    # `fold_and_compare` gives T the size 3, of which the Conv leaves one
    stays(unknown, "BN208")
    gone(build(text, {**held, **SCALES}))
    gone(build(text.replace("[2,3,6,T]", "[2,3,6,5]"), {**held, **statistics(4)}))


def test_a_pool_over_axes_on_which_the_affine_varies() -> None:
    swap = "Transpose <perm=[0,2,1,3]>"
    lines = f"t = {swap} (a)\n p = AveragePool <kernel_shape=[2,2]> (t)\n b = {swap} (p)"
    stays(below(lines, w=weight(5, 3, 1, 1)), "BN204")
    stays(above(lines, bn=3), "BN204")
