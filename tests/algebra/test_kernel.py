"""A kernel is what a convolution does: every operation against sums over taps in a plain loop."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bnfold.algebra.kernel import Kernel


def applied(kernel: Kernel, x: np.ndarray, length: tuple[int, ...]) -> np.ndarray:
    """The kernel's definition, tap by tap: `x` has shape `(Cin, n…)`, the result `(Cout, *length)`."""
    cout, per_group, *size = kernel.weight.shape
    result = np.repeat(kernel.bias, np.prod(length, dtype=int)).reshape(cout, *length)
    for out, place in itertools.product(range(cout), np.ndindex(*length)):
        first = out // (cout // kernel.groups) * per_group
        for tap in np.ndindex(*size):
            at = tuple(
                s * p + d * k + o
                for s, p, d, k, o in zip(
                    kernel.stride, place, kernel.dilation, tap, kernel.offset, strict=True
                )
            )
            if all(0 <= a < n for a, n in zip(at, x.shape[1:], strict=True)):
                column = x[(slice(first, first + per_group), *at)]
                result[(out, *place)] += kernel.weight[(out, slice(None), *tap)] @ column
    return result


def source(kernel: Kernel, spatial: tuple[int, ...], seed: int = 9) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 1, (kernel.channels[0], *spatial))


def output_size(kernel: Kernel, spatial: tuple[int, ...]) -> tuple[int, ...]:
    """ONNX's rule, from the pads."""
    count = len(spatial)
    return tuple(
        (n + kernel.pads[a] + kernel.pads[a + count] - kernel.dilation[a] * (kernel.size[a] - 1) - 1)
        // kernel.stride[a]
        + 1
        for a, n in enumerate(spatial)
    )


def conv(
    weight: tuple[int, ...],
    groups: int = 1,
    stride: int = 1,
    dilation: tuple[int, ...] | None = None,
    offset: tuple[int, ...] | None = None,
    margin: tuple[int, ...] | None = None,
    seed: int = 0,
) -> Kernel:
    """A kernel of random numbers; offsets and margins are 0 unless given."""
    rng = np.random.default_rng(seed)
    spatial = len(weight) - 2
    zeros, ones = (0,) * spatial, (1,) * spatial
    return Kernel(
        rng.normal(0, 1, weight),
        rng.normal(0, 1, weight[0]),
        groups,
        (stride,) * spatial,
        dilation or ones,
        offset or zeros,
        margin or zeros,
    )


@st.composite
def kernels(draw: st.DrawFn, count: int = 2) -> list[Kernel]:
    """Kernels over one source, of one stride, size of output and number of channels."""
    spatial = draw(st.integers(1, 3))
    cin, cout = draw(st.sampled_from([(4, 4), (2, 4), (4, 2), (1, 3), (6, 6)]))
    stride = draw(st.integers(1, 2))
    found = []
    for index in range(count):
        groups = draw(st.sampled_from([g for g in range(1, 7) if cin % g == 0 and cout % g == 0]))
        size = tuple(draw(st.integers(1, 3)) for _ in range(spatial))
        dilation = tuple(draw(st.integers(1, 3)) for _ in range(spatial))
        offset = tuple(draw(st.integers(-4, 1)) for _ in range(spatial))
        weight = (cout, cin // groups, *size)
        found.append(conv(weight, groups, stride, dilation, offset, seed=index + 10 * sum(size)))
    return found


@settings(max_examples=60, derandomize=True, deadline=None, database=None)
@given(pair=kernels())
def test_the_sum_of_two_kernels_does_what_both_do(pair):
    first, second = pair
    total = first.plus(second)
    assert total is not None
    spatial = (5, 4, 3)[: len(first.stride)]
    x, length = source(first, spatial), output_size(first, spatial)
    expected = applied(first, x, length) + applied(second, x, length)
    assert np.allclose(applied(total, x, length), expected, rtol=0, atol=1e-12)
    assert output_size(total, spatial) == length
    assert total.channels == first.channels


@settings(max_examples=40, derandomize=True, deadline=None, database=None)
@given(pair=kernels())
def test_a_sum_knows_no_order(pair):
    one, other = pair[0].plus(pair[1]), pair[1].plus(pair[0])
    assert one is not None
    assert other is not None
    assert np.array_equal(one.weight, other.weight)
    assert np.array_equal(one.bias, other.bias)
    assert (one.groups, one.dilation, one.offset) == (other.groups, other.dilation, other.offset)


@settings(max_examples=30, derandomize=True, deadline=None, database=None)
@given(single=kernels(1), seed=st.integers(0, 99))
def test_a_scaled_kernel_does_what_scale_and_shift_do_behind_it(single, seed):
    [kernel] = single
    rng = np.random.default_rng(seed)
    scale, shift = rng.normal(0, 1, (2, kernel.channels[1]))
    spatial = (5, 4, 3)[: len(kernel.stride)]
    x, length = source(kernel, spatial), output_size(kernel, spatial)
    column = (-1, *(1,) * len(spatial))
    expected = applied(kernel, x, length) * scale.reshape(column) + shift.reshape(column)
    assert np.allclose(applied(kernel.scaled(scale, shift), x, length), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("spatial", [(5,), (4, 3), (3, 2, 4)])
def test_a_diagonal_kernel_is_an_affine_map(spatial):
    scale, shift = np.random.default_rng(0).normal(0, 1, (2, 3))
    kernel = Kernel.diagonal(scale, shift, len(spatial))
    x = source(kernel, spatial)
    column = (-1, *(1,) * len(spatial))
    assert np.allclose(applied(kernel, x, spatial), x * scale.reshape(column) + shift.reshape(column))
    assert output_size(kernel, spatial) == spatial
    assert kernel.pads == (0,) * (2 * len(spatial))
    assert kernel.channels == (3, 3)


def test_numbers_for_all_channels_scale_them_all():
    kernel = conv((4, 2, 3), 2)
    negative = kernel.scaled(np.asarray(-1.0), np.zeros(()))
    assert np.array_equal(negative.weight, -kernel.weight)
    assert np.array_equal(negative.bias, -kernel.bias)


@pytest.mark.parametrize(
    ("first", "second", "size", "offset", "pads"),
    [
        # 3×3 pad 1 takes in a 1×1, an asymmetric kernel and itself
        (((3, 3), (-1, -1), 1), ((1, 1), (0, 0), 1), (3, 3), (-1, -1), (1, 1, 1, 1)),
        (((3, 3), (-1, -1), 1), ((1, 3), (0, -1), 1), (3, 3), (-1, -1), (1, 1, 1, 1)),
        (((1, 3), (0, -1), 1), ((3, 1), (-1, 0), 1), (3, 3), (-1, -1), (1, 1, 1, 1)),
        (((5, 5), (-2, -2), 1), ((3, 3), (-1, -1), 1), (5, 5), (-2, -2), (2, 2, 2, 2)),
        # misaligned ones need room for both
        (((2, 2), (-1, -1), 1), ((2, 2), (0, 0), 1), (3, 3), (-1, -1), (1, 1, 1, 1)),
        # taps two apart hold a centre between them, or none
        (((3, 3), (-2, -2), 2), ((1, 1), (0, 0), 1), (3, 3), (-2, -2), (2, 2, 2, 2)),
        (((3, 3), (-2, -2), 2), ((3, 3), (-1, -1), 1), (5, 5), (-2, -2), (2, 2, 2, 2)),
    ],
)
def test_taps_are_laid_on_one_grid(first, second, size, offset, pads):
    one, other = (
        conv((4, 4, *taps), offset=start, dilation=(step, step)) for taps, start, step in (first, second)
    )
    total = one.plus(other)
    assert total is not None
    assert (total.size, total.offset, total.pads) == (size, offset, pads)


@pytest.mark.parametrize(("groups", "together"), [((4, 4), 4), ((4, 1), 1), ((4, 2), 2), ((6, 4), 2)])
def test_groups_widen_to_what_both_have_in_common(groups, together):
    first, second = (conv((12, 12 // count, 1), count) for count in groups)
    total = first.plus(second)
    assert total is not None
    assert total.groups == together
    assert total.weight.shape == (12, 12 // together, 1)
    assert total.multiply_adds == 12 * 12 // together


def test_kernels_that_are_not_one():
    kernel = conv((4, 4, 3, 3))
    assert "stride" in (kernel.difference(conv((4, 4, 3, 3), stride=2)) or "")
    assert "channels" in (kernel.difference(conv((1, 4, 3, 3))) or "")
    assert "channels" in (kernel.difference(conv((4, 2, 3, 3))) or "")
    assert kernel.difference(conv((4, 2, 3, 3), groups=2)) is None


def test_the_cost_of_a_sum_is_known_before_it_is_made():
    first, second = conv((8, 4, 3, 3), groups=2), conv((8, 2, 1, 5), groups=4, offset=(0, -2))
    assert first.cost_with(second) == first.plus(second).multiply_adds
    # laid out on one grid, these two would take gigabytes
    apart = conv((256, 256, 3, 3), dilation=(31, 31)), conv((256, 256, 3, 3), dilation=(37, 37))
    assert apart[0].cost_with(apart[1]) == 256 * 256 * 75 * 75


def test_pads_leave_room_at_both_ends():
    # 7 wide: pads 2 and 1 around a reach of 2·(3 − 1)
    kernel = conv((1, 1, 3), dilation=(2,), offset=(-2,), margin=(2 + 1 - 4,))
    assert kernel.pads == (2, 1)
    assert output_size(kernel, (7,)) == (6,)


def test_a_larger_margin_wins_where_sizes_agree_by_striding():
    # over 6 elements with stride 2 both give 3; the kernel of the second needs its end
    first = conv((1, 1, 1), stride=2)
    second = conv((1, 1, 2), stride=2, margin=(-1,))
    total = first.plus(second)
    assert total is not None
    assert total.margin == (0,)
    assert output_size(total, (6,)) == output_size(first, (6,)) == output_size(second, (6,)) == (3,)
    assert min(total.pads) >= 0


def test_multiply_adds_count_one_position():
    assert conv((8, 2, 3, 3), 4).multiply_adds == 8 * 2 * 9
    assert Kernel.diagonal(np.ones(5), np.zeros(5), 2).multiply_adds == 5


def test_numbers_that_are_none():
    kernel = conv((1, 1, 2))
    assert kernel.is_finite
    assert not kernel.scaled(np.asarray(np.inf), np.zeros(1)).is_finite
    assert not kernel.scaled(np.ones(1), np.asarray(np.nan)).is_finite


@settings(max_examples=40, derandomize=True, deadline=None, database=None)
@given(
    spatial=st.integers(1, 3),
    groups=st.tuples(st.sampled_from([1, 2, 4]), st.sampled_from([1, 2, 4])),
    size=st.integers(1, 3),
    stride=st.integers(1, 2),
    pad=st.integers(0, 1),
)
def test_a_kernel_after_a_pointwise_one_does_what_both_do(spatial, groups, size, stride, pad):
    outer = conv(
        (4, 4 // groups[0], *[size] * spatial),
        groups[0],
        stride,
        offset=(-pad,) * spatial,
        margin=(2 * pad - size + 1,) * spatial,
    )
    inner = conv((4, 8 // groups[1], *[1] * spatial), groups[1], seed=4)
    if pad:
        assert outer.after(inner) is None
        inner = inner.scaled(np.ones(4), -inner.bias)
    composed = outer.after(inner)
    assert composed is not None
    sizes = (5, 4, 3)[:spatial]
    x, length = source(inner, sizes), output_size(outer, sizes)
    expected = applied(outer, applied(inner, x, sizes), length)
    assert np.allclose(applied(composed, x, length), expected, rtol=0, atol=1e-12)
    assert output_size(composed, sizes) == length
    assert composed.channels == (8, 4)


@settings(max_examples=40, derandomize=True, deadline=None, database=None)
@given(
    spatial=st.integers(1, 2),
    groups=st.sampled_from([(1, 1), (2, 2), (4, 1), (1, 2), (2, 4)]),
    size=st.integers(1, 3),
    stride=st.integers(1, 2),
    pad=st.integers(0, 1),
)
def test_a_kernel_and_then_a_pointwise_one_does_what_both_do(spatial, groups, size, stride, pad):
    inner = conv(
        (4, 8 // groups[0], *[size] * spatial),
        groups[0],
        stride,
        offset=(-pad,) * spatial,
        margin=(2 * pad - size + 1,) * spatial,
    )
    outer = conv((8, 4 // groups[1], *[1] * spatial), groups[1], seed=4)
    composed = inner.then(outer)
    assert composed is not None
    sizes = (5, 4, 3)[:spatial]
    x, length = source(inner, sizes), output_size(inner, sizes)
    expected = applied(outer, applied(inner, x, length), length)
    assert np.allclose(applied(composed, x, length), expected, rtol=0, atol=1e-12)
    assert output_size(composed, sizes) == length
    assert composed.channels == (8, 8)


def test_only_pointwise_kernels_take_what_is_before_them():
    inner = conv((4, 4, 3), margin=(-2,))
    assert inner.then(conv((4, 4, 1))) is not None
    assert inner.then(conv((4, 4, 2), margin=(-1,))) is None
    assert inner.then(conv((4, 4, 1), stride=2)) is None
    assert inner.then(conv((4, 4, 1), offset=(-1,), margin=(2,))) is None
    assert inner.then(conv((4, 2, 1))) is None


def test_only_pointwise_kernels_go_into_the_next():
    outer = conv((4, 4, 3), margin=(-2,))
    assert outer.after(conv((4, 4, 1))) is not None
    assert outer.after(conv((4, 4, 2), margin=(-1,))) is None
    assert outer.after(conv((4, 4, 1), stride=2)) is None
    assert outer.after(conv((4, 4, 1), offset=(-1,), margin=(2,))) is None
    assert outer.after(conv((2, 4, 1))) is None
