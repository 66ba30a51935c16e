"""The algebra against direct evaluation on random arrays."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bnfold.algebra.affine import Affine

SHAPES = st.lists(st.sampled_from((1, 2, 3)), min_size=1, max_size=4).map(tuple)


def apply(affine: Affine, x: np.ndarray) -> np.ndarray:
    scale, shift = affine.padded(x.ndim)
    return scale * x + shift


@st.composite
def affines(draw: st.DrawFn, shape: tuple[int, ...]) -> Affine:
    """A map on a tensor of a shape; each coefficient varies along some of its axes."""
    rng = np.random.default_rng(draw(st.integers(0, 999)))
    scale, shift = (
        rng.uniform(0.5, 2, [size if draw(st.booleans()) else 1 for size in shape]) * sign
        for sign in (1, rng.choice((-1, 1)))
    )
    return Affine(scale, shift)


@st.composite
def cases(draw: st.DrawFn) -> tuple[np.ndarray, Affine, Affine]:
    shape = draw(SHAPES)
    x = np.random.default_rng(draw(st.integers(0, 999))).normal(size=shape)
    return x, draw(affines(shape)), draw(affines(shape))


@settings(max_examples=60, derandomize=True, deadline=None)
@given(cases())
def test_then_is_composition(case: tuple[np.ndarray, Affine, Affine]) -> None:
    x, first, second = case
    np.testing.assert_allclose(apply(first.then(second), x), apply(second, apply(first, x)), atol=1e-12)


@settings(max_examples=60, derandomize=True, deadline=None)
@given(cases())
def test_inverse_undoes(case: tuple[np.ndarray, Affine, Affine]) -> None:
    x, affine, _ = case
    np.testing.assert_allclose(apply(affine.inverse(), apply(affine, x)), x, atol=1e-12)
    np.testing.assert_allclose(apply(affine, apply(affine.inverse(), x)), x, atol=1e-12)


@settings(max_examples=60, derandomize=True, deadline=None)
@given(cases(), st.data())
def test_rearrangements_commute_with_the_map(
    case: tuple[np.ndarray, Affine, Affine], data: st.DataObject
) -> None:
    x, affine, _ = case
    perm = data.draw(st.permutations(range(x.ndim)))
    np.testing.assert_array_equal(
        apply(affine.transposed(perm), np.transpose(x, perm)), np.transpose(apply(affine, x), perm)
    )
    axis = data.draw(st.integers(0, x.ndim - 1))
    taken = np.array(data.draw(st.lists(st.integers(0, x.shape[axis] - 1), min_size=1, max_size=5)))
    np.testing.assert_array_equal(
        apply(affine.taken(axis, taken, x.ndim), np.take(x, taken, axis)),
        np.take(apply(affine, x), taken, axis),
    )
    size = x.shape[axis] + data.draw(st.integers(0, 2))
    where = np.array(data.draw(st.permutations(range(size)))[: x.shape[axis]])
    larger = np.random.default_rng(1).normal(size=(*x.shape[:axis], size, *x.shape[axis + 1 :]))
    expected = larger.copy()
    index = (slice(None),) * axis + (where,)
    expected[index] = apply(affine, larger[index])
    np.testing.assert_array_equal(apply(affine.embedded(axis, where, size, x.ndim), larger), expected)


def test_smallest_form() -> None:
    affine = Affine(np.full((1, 4, 3), 2.0), np.tile(np.arange(4.0)[:, None], (5, 1, 3)))
    assert affine.scale.shape == ()
    assert affine.shift.shape == (1, 4)
    assert (affine.scale_axes, affine.shift_axes, affine.axes) == (frozenset(), {1}, {1})
    assert Affine([1.0, 1.0], [0.0, 0.0]).is_identity
    assert Affine(np.ones((1, 1, 1))).is_identity


def test_two_equal_vectors_on_different_axes_are_different_maps() -> None:
    assert Affine.along(1, [1.0, 2.0]).axes != Affine.along(2, [1.0, 2.0]).axes
    both = Affine.along(1, [1.0, 2.0]).then(Affine.along(2, [3.0, 5.0]))
    np.testing.assert_array_equal(both.scale, [[[3.0, 5.0], [6.0, 10.0]]])


@pytest.mark.parametrize(
    ("affine", "identity", "unit", "shift", "monotone", "finite"),
    [
        (Affine(), True, True, False, True, True),
        (Affine(-1.0), False, False, False, False, True),
        (Affine([0.0, 2.0]), False, False, False, True, True),
        (Affine(1.0, [0.0, 1e-30]), False, True, True, True, True),
        (Affine([1.0, np.inf]), False, False, False, True, False),
        (Affine(1.0, np.nan), False, True, True, True, False),
    ],
)
def test_questions(
    affine: Affine, identity: bool, unit: bool, shift: bool, monotone: bool, finite: bool
) -> None:
    assert affine.is_identity == identity
    assert affine.has_unit_scale == unit
    assert affine.has_shift == shift
    assert affine.is_monotone == monotone
    assert affine.is_finite == finite


def test_parts_compose_to_the_whole() -> None:
    affine = Affine.along(1, [2.0, 3.0], [5.0, 7.0])
    x = np.ones((1, 2))
    np.testing.assert_array_equal(
        apply(affine.only_scale.then(Affine(1.0, affine.shift)), x), apply(affine, x)
    )


def test_vectors() -> None:
    scale, shift = Affine.along(1, 2.0, [1.0, 5.0]).vectors(1, 2)
    np.testing.assert_array_equal(scale, [2.0, 2.0])
    np.testing.assert_array_equal(shift, [1.0, 5.0])
    with pytest.raises(ValueError, match="vary along axes"):
        Affine.along(2, [1.0, 2.0]).vectors(1, 2)
    with pytest.raises(ValueError, match="broadcast"):
        Affine.along(1, [1.0, 2.0, 3.0]).vectors(1, 2)


def test_a_coefficient_of_too_many_axes_is_an_error() -> None:
    with pytest.raises(ValueError, match="does not fit"):
        Affine.along(2, [1.0, 2.0]).padded(2)
