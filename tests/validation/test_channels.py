"""Channels are judged apart where their scales are far apart, along whatever axis that is."""

from __future__ import annotations

import numpy as np
import pytest

from bnfold.validation.channels import APART, Extent, Group, extent, groups, luck, scale_of_each

RNG = np.random.default_rng(5)


def head(axis: int, small: float, rank: int = 3) -> np.ndarray:
    """Values of scale 1, with the second and fourth channel along an axis scaled."""
    shape = [7, 6, 5, 4][:rank]
    values = np.abs(RNG.normal(size=shape)) + 0.2
    np.moveaxis(values, axis, 0)[[1, 3]] *= small
    return values


@pytest.mark.parametrize("rank", [1, 2, 3, 4, 5])
def test_an_extent_has_the_largest_of_every_slice(rank: int) -> None:
    values = np.abs(RNG.normal(size=[3, 4, 2, 5, 3][:rank]))
    found = extent(values)
    assert (found.whole, found.size) == (values.max(), values.size)
    for axis, slices in enumerate(found.axes):
        others = tuple(number for number in range(rank) if number != axis)
        np.testing.assert_array_equal(slices, values.max(axis=others))


def test_an_empty_array_and_a_number_have_no_slices() -> None:
    assert extent(np.zeros((0, 3))) == Extent()
    assert extent(np.array(2.5)) == Extent(2.5, (), 1)


@pytest.mark.parametrize(("axis", "rank"), [(0, 2), (1, 2), (1, 3), (2, 3), (1, 4), (3, 4)])
def test_the_axis_that_carries_the_scale_is_found(axis: int, rank: int) -> None:
    values = head(axis, 1e-5, rank)
    large, small = groups([extent(values)])
    assert (large.axis, small.axis) == (axis, axis)
    assert small.members == (1, 3)
    assert sorted(large.members + small.members) == list(range(values.shape[axis]))
    assert small.largest(extent(values)) == small.scale < 1e-4 < large.scale
    assert small.size(extent(values)) == 2 * values.size // values.shape[axis]
    assert str(small).startswith(f"channels 1, 3 along axis {axis} (scale ")


def test_channels_along_two_axes_are_both_found() -> None:
    values = head(1, 1e-7)
    values[:, :, 3] *= 1e-3
    found = groups([extent(values)])
    assert [(one.axis, one.members) for one in found] == [(1, (0, 2, 4, 5)), (1, (1, 3)), (2, (3,))]
    assert found[2].size(extent(values)) == values.size // values.shape[2]
    assert found[2].largest(extent(values)) == found[2].scale < 1e-2
    scales = np.broadcast_to(scale_of_each(values), values.shape)
    assert scales[0, 0, 3] == found[2].scale
    assert scales[0, 1, 3] == scales[0, 1, 0] == found[1].scale
    assert scales[0, 0, 0] == found[0].scale


def test_what_is_not_far_apart_is_one_group() -> None:
    (one,) = groups([extent(head(1, 2 / APART))])
    assert (one.axis, str(one)) == (None, "")


def test_every_step_of_the_scale_is_a_group_of_its_own() -> None:
    values = np.ones((2, 4)) * [1e7, 1e3, 3e3, 1e-2]
    assert [one.members for one in groups([extent(values)])] == [(0,), (1, 2), (3,)]


def test_a_channel_without_a_scale_goes_with_the_largest() -> None:
    values = np.ones((2, 4)) * [0.0, 1e-5, 1.0, 0.0]
    assert [one.members for one in groups([extent(values)])] == [(0, 2, 3), (1,)]
    assert groups([extent(np.zeros((2, 4)))])[0].axis is None


def test_what_is_small_in_one_run_by_chance_is_not_a_small_channel() -> None:
    one, other = np.ones((1, 3)), np.ones((1, 3))
    one[0, 1] = other[0, 2] = 1e-6
    assert len(groups([extent(one)])) == 2
    assert len(groups([extent(one), extent(other)])) == 1


def test_an_axis_whose_size_changes_carries_no_channels() -> None:
    values = head(2, 1e-5)
    assert {one.axis for one in groups([extent(values), extent(np.concatenate([values, values]))])} == {2}
    assert groups([extent(values), extent(np.concatenate([values, values], axis=2))])[0].axis is None
    assert groups([extent(values), extent(values[0])])[0].axis is None
    assert groups([])[0].axis is None


def test_the_scale_of_each_element_is_that_of_its_channel() -> None:
    values = head(1, 1e-4)
    values[0, 0, 0] = np.inf
    scales = np.broadcast_to(scale_of_each(values), values.shape)
    finite = np.where(np.isfinite(values), values, 0.0)
    assert np.unique(scales[:, [1, 3]]) == finite[:, [1, 3]].max()
    assert np.unique(scales[:, [0, 2, 4, 5]]) == finite.max()
    assert float(scale_of_each(np.ones((2, 3)))) == 1.0


def test_few_elements_may_be_farther_off_by_luck_and_many_may_not() -> None:
    assert [luck(size) for size in (4, 5, 1000)] == [1.0] * 3
    assert 1.0 < luck(3) < luck(2) < luck(1) == 25.0
    rng = np.random.default_rng(
        0
    )  # of a million tries, how often one element exceeds four times three others
    one, three = np.abs(rng.normal(size=10**6)), np.abs(rng.normal(size=(10**6, 3))).max(axis=1)
    assert np.mean(one > 4 * three) > 1e-3
    assert np.mean(one > 4 * luck(1) * three) < 1e-5


def test_channels_may_be_apart_by_more_than_a_float_holds() -> None:
    values = 1e10 * head(1, 1e-320)
    assert groups([extent(values)])[0].axis == 1, "without a warning, which would fail this test"


def test_elements_that_are_repeated_count_once() -> None:
    """What comes of a picture of one colour has one number in each channel, and as many errors."""
    scales = np.arange(1.0, 65.0).reshape(1, -1, 1, 1)
    flat = extent(np.broadcast_to(scales, (1, 64, 112, 112)) * (1 + 1e-15 * np.eye(112)))
    assert Group(1, (3,), 4.0).size(flat) == 1
    assert Group(1, (3, 5), 6.0).size(flat) == 2
    busy = extent(np.maximum(np.random.default_rng(0).normal(size=(1, 64, 28, 28)), 0.0))
    assert Group(1, (3,), 4.0).size(busy) == 28 * 28
    assert extent(np.array([1e300, 2.0])).size == 2


def test_magnitudes_near_the_end_of_the_range_have_groups() -> None:
    """A product with them overflows, and a comparison with infinity is always false."""
    found = groups([extent(np.array([[3e307, 2e264], [1e300, 1e281]]))])
    assert {number for group in found if group.axis == found[0].axis for number in group.members} == {0, 1}
    assert all(np.isfinite(group.scale) for group in found)
