"""Concat, Split, Slice, Gather: segments of an axis, the rest the identity."""

from __future__ import annotations

import numpy as np
import pytest

from tests.graphs import build, weight
from tests.ops.sandwich import BATCHNORM, above, below, gone, ints, settled, statistics, stays

TWO = "g (float[2,3,6,6] x) => (float y) { a = Conv(x, w)\n c = Conv(x, v)\n LINES\n" + BATCHNORM + " }"
HELD = {"w": weight(4, 3, 3, 3), "v": weight(3, 3, 3, 3, seed=5)}


@pytest.mark.parametrize("axis", [1, -3])
def test_concat_of_channels_takes_segments(axis: int) -> None:
    model = build(TWO.replace("LINES", f"b = Concat <axis={axis}> (a, c)"), {**HELD, **statistics(7)})
    gone(settled(model))


def test_concat_on_another_axis_takes_all_of_it() -> None:
    held = {"w": HELD["w"], "v": weight(4, 3, 3, 3, seed=5), **statistics(4)}
    for axis in (0, 2, 3):
        gone(settled(build(TWO.replace("LINES", f"b = Concat <axis={axis}> (a, c)"), held)))


def test_concat_needs_every_input_to_absorb() -> None:
    lines = "d = Sigmoid(c)\n b = Concat <axis=1> (a, d)"
    stays(settled(build(TWO.replace("LINES", lines), {**HELD, **statistics(7)})), "BN201")


def test_concat_with_a_constant() -> None:
    gone(above("b = Concat <axis=1> (a, k)", {"k": weight(2, 2, 4, 4)}, bn=6))


def test_concat_of_a_value_with_itself_goes_down_but_not_up() -> None:
    stays(above("b = Concat <axis=1> (a, a)", bn=8), "BN301")
    gone(below("b = Concat <axis=1> (a, a)", w=weight(5, 8, 2, 2)))


@pytest.mark.parametrize(("axis", "cin"), [(1, 8), (2, 4), (0, 4)])
def test_concat_downwards(axis: int, cin: int) -> None:
    gone_or_kept = gone if axis == 1 else stays
    model = below(f"b = Concat <axis={axis}> (a, z)", w=weight(5, cin, 2, 2))
    # off the channels the other input would be seen through the same weights
    gone_or_kept(model, *(() if axis == 1 else ("BN204",)))


@pytest.mark.parametrize("opset", [11, 13, 18])
def test_split_downwards(opset: int) -> None:
    sizes = " <axis=1, split=[1,3]> (a)" if opset < 13 else " <axis=1> (a, sizes)"
    end = "p = Conv(c, u)\n q = Conv(d, w)\n y = Concat <axis=1> (p, q)"
    held = {"sizes": ints(1, 3), "u": weight(2, 1, 2, 2)}
    gone(below(f"c, d = Split{sizes}", held, end=end, w=weight(5, 3, 2, 2), opset=opset))


def test_split_upwards_embeds_in_the_identity() -> None:
    end = "y = BatchNormalization(b, scale, bias, mean, var)\n u = Sigmoid(c)"
    gone(
        above(
            "c, b = Split <axis=1> (a, sizes)",
            {"sizes": ints(1, 3)},
            bn=3,
            end=end,
            outputs="float y, float u",
        )
    )
    gone(above("c, b = Split <axis=1, num_outputs=2> (a)", bn=2, end=end, outputs="float y, float u"))


def test_split_on_another_axis_stays_where_the_other_half_is_seen() -> None:
    end = "y = BatchNormalization(b, scale, bias, mean, var)\n u = Sigmoid(c)"
    stays(
        above("c, b = Split <axis=2> (a, sizes)", {"sizes": ints(2, 2)}, end=end, outputs="float y, float u"),
        "BN204",
    )


def test_diamond_through_split_and_concat() -> None:
    lines = "c, d = Split <axis=1> (a, sizes)\n e = Relu(d)\n b = Concat <axis=1> (e, c)"
    positive = {
        **statistics(4),
        "scale": np.array([0.5, 1.5, 0.7, 1.2], np.float32),
        "bias": np.zeros(4, np.float32),
        "mean": np.zeros(4, np.float32),
    }
    held = {"sizes": ints(2, 2), **positive}
    gone(above(lines, held))
    gone(below(lines, held))
    stays(above(lines, {"sizes": ints(2, 2)}), "BN206", "BN207")
    plain = lines.replace("Relu", "Identity")
    gone(above(plain, {"sizes": ints(2, 2)}))
    gone(below(plain, {"sizes": ints(2, 2)}))


SLICES = {
    "one": ints(1),
    "many": ints(2**62),
    "zero": ints(0),
    "channel": ints(1),
    "row": ints(2),
    "minus": ints(-1),
    "low": ints(-(2**62)),
    "two": ints(2),
}


@pytest.mark.parametrize(
    ("lines", "bn"),
    [
        ("b = Slice(a, one, many, channel)", 3),
        ("b = Slice(a, zero, many, channel, two)", 2),
        ("b = Slice(a, minus, low, channel, minus)", 4),
        ("b = Slice(a, one, many, row)", 4),
        ("b = Slice(a, zero, minus, row)", 4),
    ],
)
def test_slice_in_both_directions(lines: str, bn: int) -> None:
    gone(above(lines, SLICES, bn=bn))
    gone(below(lines, SLICES, w=weight(5, bn, 2, 2)))


def test_slices_that_overlap_stay() -> None:
    lines = "b = Slice(a, one, many, channel)\n c = Slice(a, zero, many, channel, two)\n d = Sigmoid(c)"
    model = above(lines, SLICES, bn=3, outputs="float y, float d")
    stays(model, "BN301")


def test_slice_with_attributes_before_opset_10() -> None:
    gone(above("b = Slice <axes=[1], starts=[1], ends=[4]> (a)", bn=3, opset=9))


SEVERAL = {
    "start": ints(1, 0),
    "back": ints(-1, -1),
    "end": ints(2**62, 3),
    "low": ints(-(2**62), -3),
    "both": ints(1, 2),
    "swapped": ints(2, -3),
    "steps": ints(2, 1),
    "minus": ints(-1, -1),
}


@pytest.mark.parametrize(
    ("lines", "bn"),
    [
        ("b = Slice(a, start, end, both)", 3),
        ("b = Slice(a, start, end, swapped, steps)", 3),
        ("b = Slice(a, back, low, both, minus)", 4),
        ("b = Slice(a, start, end)", 3),  # without axes: the first ones
    ],
)
def test_slice_of_several_axes_at_once(lines: str, bn: int) -> None:
    first = {"start": ints(0, 1), "end": ints(2, 2**62)} if lines.endswith("end)") else {}
    held = {**SEVERAL, **first}
    gone(above(lines, held, bn=bn))
    gone(below(lines, held, w=weight(5, bn, 2, 2)))


def test_a_slice_of_an_affine_that_varies_along_both_of_its_axes() -> None:
    """A Mul that varies along rows follows the BatchNorm, and both go up through one Slice."""
    lines = "c = Slice(a, start, end, both)\n d = Mul(c, k)\n b = Slice(d, zero, one, last)"
    held = {**SEVERAL, "k": weight(3, 1), "zero": ints(0), "one": ints(1), "last": ints(-1)}
    model = above(lines, held, bn=3)
    stays(model, "BN204")
    down = "c = Slice(a, start, end, both)\n b = Slice(c, zero, one, last)"
    gone(above(down, held, bn=3))


def test_bounds_off_the_channels_may_be_computed() -> None:
    model = build(
        "g (float[2,3,6,6] x, int64[2] e) => (float y) { a = Conv(x, w)\n b = Slice(a, zero, e, axes)\n "
        + BATCHNORM
        + " }",
        {"zero": ints(0, 0), "axes": ints(2, 3), "w": weight(4, 3, 3, 3), **statistics(4)},
    )
    gone(settled(model))


def test_computed_bounds_along_the_channels_stay() -> None:
    model = build(
        "g (float[2,4,6,6] x, int64[2] e) => (float y) { s = Sigmoid(x)\n "
        "a = BatchNormalization(s, scale, bias, mean, var)\n y = Slice(a, zero, e, axes) }",
        {"zero": ints(0, 0), "axes": ints(1, 2), **statistics(4)},
    )
    stays(settled(model), "BN208")
