"""Reshaping coefficients against reshaping the tensor that they act on."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from bnfold.algebra.affine import Affine
from bnfold.graph.reshape import reshaped
from bnfold.graph.shape_inference import Dims


def vector(axis: int, size: int) -> Affine:
    return Affine.along(axis, np.arange(2.0, 2.0 + size), np.arange(size, 0.0, -1.0))


def demand(affine: Affine, before: tuple[int, ...], after: tuple[int, ...], moved: Affine | None) -> None:
    """Reshaping behind the map is the moved map behind reshaping."""
    assert moved is not None
    x = np.random.default_rng(0).normal(size=before)
    scale, shift = affine.padded(len(before))
    new_scale, new_shift = moved.padded(len(after))
    np.testing.assert_array_equal(
        (scale * x + shift).reshape(after), new_scale * x.reshape(after) + new_shift
    )


@settings(max_examples=150, derandomize=True, deadline=None)
@given(st.data())
def test_known_sizes_always_agree_with_numpy(data: st.DataObject) -> None:
    before = tuple(data.draw(st.lists(st.sampled_from((1, 2, 3, 4, 6)), min_size=1, max_size=4)))
    total = math.prod(before)
    after: list[int] = []
    left = total
    while left > 1 or (len(after) < 4 and data.draw(st.booleans())):
        divisor = data.draw(
            st.sampled_from([d for d in range(1, left + 1) if left % d == 0 and (d > 1 or left == 1)])
        )
        after.append(divisor)
        left //= divisor
    assume(0 < len(after) <= 6)
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    shapes = [[size if data.draw(st.booleans()) else 1 for size in before] for _ in range(2)]
    affine = Affine(rng.normal(size=shapes[0]), rng.normal(size=shapes[1]))
    demand(affine, before, tuple(after), reshaped(affine, before, tuple(after)))


@settings(max_examples=150, derandomize=True, deadline=None)
@given(st.data())
def test_symbols_never_lead_to_a_wrong_map(data: st.DataObject) -> None:
    """Hide sizes behind symbols; whatever is still proved must hold for the real sizes."""
    sizes = {"N": 2, "M": 3, "L": 4}
    before: list[int | str | None] = data.draw(
        st.lists(st.sampled_from(("N", "M", 2, 3, 4, "L")), min_size=2, max_size=4)
    )
    real = [sizes[d] if isinstance(d, str) else d for d in before]
    after = list(before)
    for _ in range(data.draw(st.integers(1, 3))):
        axis = data.draw(st.integers(0, len(after) - 1))
        if data.draw(st.booleans()) and axis + 1 < len(after):
            a, b = after[axis : axis + 2]
            both_known = isinstance(a, int) and isinstance(b, int)
            after[axis : axis + 2] = [a * b if both_known else (b if a == 1 else a if b == 1 else None)]
        elif after[axis] == 4:
            after[axis : axis + 1] = [2, 2]
        else:
            after.insert(axis, 1)
    actual = [sizes[d] if isinstance(d, str) else d for d in after]
    unknown = [i for i, d in enumerate(actual) if d is None]
    assume(len(unknown) <= 1)
    if unknown:
        actual[unknown[0]] = math.prod(real) // math.prod(d for d in actual if d is not None)
    assume(math.prod(actual) == math.prod(real))
    affine = vector(axis := data.draw(st.integers(0, len(real) - 1)), real[axis])
    moved = reshaped(affine, tuple(before), tuple(after))
    if moved is not None:
        demand(affine, tuple(real), tuple(actual), moved)


@pytest.mark.parametrize(
    ("axis", "size", "before", "after", "axes"),
    [
        (1, 4, ("N", 4, 5, 5), ("N", 100), {1}),  # a flattened axis repeats each channel
        (3, 4, ("N", 5, 5, 4), ("N", 100), {1}),  # channels last: it tiles them
        (1, 4, ("N", 4, "H", "W"), ("N", 2, 2, "H", "W"), {1, 2}),  # a channel shuffle
        (1, 4, (None, 4, 5), (None, 4, 5), {1}),
        (1, 4, ("N", 4), ("N", 4, 1, 1), {1}),
        (1, 4, ("N", 4, 1, 1), ("N", 4), {1}),
        (1, 4, (2, 4, 3), (8, 3), {0}),
        (2, 4, ("N", "L", 4), ("NL", 4), {1}),  # proved from the right
        (1, 4, ("N", 4, "L"), ("N", 4, None), {1}),
        (3, 4, ("N", "H", "W", 4), ("N", None, 4), {2}),
    ],
)
def test_shapes_that_prove_it(axis: int, size: int, before: Dims, after: Dims, axes: set[int]) -> None:
    moved = reshaped(vector(axis, size), before, after)
    assert moved is not None
    assert moved.axes == axes


@pytest.mark.parametrize(
    ("axis", "size", "before", "after"),
    [
        (1, 4, ("N", 4, "H", "W"), ("N", None)),  # how often to repeat is unknown
        (1, 4, ("N", 4, "H"), ("N", "H", 4)),  # sizes that agree on another axis
        (0, 4, (4, "N"), (4, "M")),  # hides whether N is M; but the left border stands
        (1, 4, (None, 4, None), (None, 4, None)),
        (1, 4, ("N", "C", 5), ("N", "C", 5)),  # the channel's size is a symbol: nothing proves it is 4
        (1, 4, ("N", 4, 0), ("N", 0)),  # no elements, no proof
    ],
)
def test_plausible_shapes_that_prove_nothing(axis: int, size: int, before: Dims, after: Dims) -> None:
    moved = reshaped(vector(axis, size), before, after)
    assert moved is None or moved.axes == {0} == {axis}


def test_sizes_that_agree_do_not_carry_an_axis_over() -> None:
    """(4, 4) to (4, 2, 2): the first axis stays the first, though the others multiply to its size."""
    assert reshaped(vector(0, 4), (4, 4), (4, 2, 2)).axes == {0}  # type: ignore[union-attr]
    assert reshaped(vector(1, 4), (4, 4), (4, 2, 2)).axes == {1, 2}  # type: ignore[union-attr]
    assert reshaped(vector(1, 4), (4, 4), (2, 2, 4)).axes == {2}  # type: ignore[union-attr]


def test_a_coefficient_that_would_be_huge_is_refused() -> None:
    assert reshaped(vector(1, 2), (1, 2, 1 << 30), (1, 1 << 31)) is None


def test_one_number_for_all_needs_no_shape() -> None:
    assert reshaped(Affine(2.0, 1.0), (None, None), (None,)).axes == frozenset()  # type: ignore[union-attr]
