"""The figures are the documented formulas, and what may not differ does not pass."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from bnfold.runtime.agreement import TOLERANCES, Agreement, compare, shapes

A = np.array([[1.0, -4.0, 2.0], [0.0, 3.0, 1.0]], np.float32)


def test_equal():
    assert compare(A, A.copy(), 0.0) == Agreement(0.0, 0.0, 1.0, 2, 2, compared=True)


def test_formulas():
    b = A.copy()
    b[0, 2] = 2.5
    outcome = compare(A, b, 1e-3)
    assert outcome.max_abs == 0.5
    assert outcome.max_rel == 0.5 / 4.0
    flat_a, flat_b = A.ravel().astype(float), b.ravel().astype(float)
    cosine = flat_a @ flat_b / np.linalg.norm(flat_a) / np.linalg.norm(flat_b)
    assert outcome.cosine == pytest.approx(cosine, abs=1e-15)
    assert outcome.top1 == 1.0
    assert "0.125 of the output's scale 4" in outcome.problem


def test_the_tolerance_is_a_bound_on_the_relative_error():
    b = A + np.float32(2**-10)
    relative = compare(A, b, 1.0).max_rel
    assert compare(A, b, relative).problem is None
    assert compare(A, b, relative * 0.999).problem


def test_top1():
    b = A.copy()
    b[1, 0] = 9.0
    assert compare(A, b, 1e-3).top1 == 0.5
    assert compare(A[0], b[0], 1.0).top1 is None
    assert compare(A[:, :1], A[:, :1], 1.0).top1 is None


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_must_stand_in_both(value: float):
    special = A.copy()
    special[0, 0] = value
    assert compare(A, special, 1e9).problem
    assert compare(special, A, 1e9).problem
    same = compare(special, special.copy(), 0.0)
    assert (same.problem, same.max_abs, same.cosine) == (None, 0.0, 1.0)
    assert compare(special, special + np.float32(1.0), 1e-3).problem  # the rest is still compared


def test_infinities_have_signs():
    one, other = A.copy(), A.copy()
    one[0, 0], other[0, 0] = np.inf, -np.inf
    assert "infinite" in compare(one, other, 1e9).problem
    other[0, 0] = np.nan
    assert "NaN" in compare(one, other, 1e9).problem


def test_nothing_finite_proves_nothing():
    nothing = np.full((2, 3), np.nan, np.float32)
    found = compare(nothing, nothing, 1.0)
    assert (found.problem, found.compared) == (None, False)
    assert compare(nothing, A, 1.0).compared  # and they differ
    assert found.worst(compare(A, A, 1.0)).compared
    assert not compare(A[:0], A[:0], 1.0).compared
    assert not compare([None, nothing], [None, nothing], 1.0).compared


def test_zero_scale():
    zero = np.zeros(3, np.float32)
    assert compare(zero, zero, 0.0).max_rel == 0.0
    wrong = compare(zero, zero + np.float32(1e-6), 1.0)
    assert wrong.max_rel == np.inf
    assert wrong.cosine == 0.0
    assert wrong.problem
    assert compare(zero, np.full(3, 1e-40, np.float32), 0.0).problem is None  # a subnormal


def test_large_values_do_not_overflow_the_figures():
    large = np.array([3e38, -3e38], np.float32)
    assert compare(large, -large, 1.0).max_rel == 2.0
    assert compare(large, -large, 1.0).cosine == -1.0


def test_empty_outputs_agree():
    assert compare(np.zeros((0, 4), np.float32), np.zeros((0, 4), np.float32), 0.0).problem is None


@pytest.mark.parametrize("dtype", [np.int64, np.uint8, bool])
def test_integers_and_bools_must_be_equal(dtype: type):
    a = np.array([0, 1, 1, 0]).astype(dtype)
    b = np.array([0, 1, 0, 0]).astype(dtype)
    assert compare(a, a.copy(), 0.0).problem is None
    wrong = compare(a, b, 1e9)
    assert wrong.problem.startswith("1 of 4 elements differ")
    assert wrong.max_abs == 1.0


def test_large_integers_one_apart():
    a = np.array([2**62], np.int64)
    assert compare(a, a + 1, 1.0).problem  # equal in float64


def test_strings_must_be_equal():
    a = np.array(["cat", "dog"], object)
    assert compare(a, a.copy(), 0.0) == Agreement(compared=True)
    assert compare(a, np.array(["cat", "cow"], object), 0.0).problem == "1 of 2 strings differ."


def test_shape_and_type():
    assert "[3, 2] instead of [2, 3]" in compare(A, A.reshape(3, 2), 1.0).problem
    assert "float64 instead of float32" in compare(A, A.astype(np.float64), 1.0).problem


def test_sequences_maps_and_optionals():
    good = [A, {"a": 0.5, "b": A}, None]
    assert compare(good, [A.copy(), {"a": 0.5, "b": A.copy()}, None], 0.0).problem is None
    assert list(shapes(good)) == [(2, 3), (), (2, 3)]
    for other in ([A, {"a": 0.5, "b": A * 2}, None], [A, {"a": 0.5}, None], [A], [A, {}, A], None, A):
        assert compare(good, other, 1e-3).problem
    assert compare(A, None, 1.0).problem


def test_worst_of_two():
    one, other = Agreement(1.0, 0.1, 0.9, 4, 3), Agreement(0.5, 0.2, 0.8, 4, 4, "It differs.")
    assert one.worst(other) == other.worst(one) == Agreement(1.0, 0.2, 0.8, 8, 7, "It differs.")
    assert Agreement().worst(one) == one


def test_tolerances_stand_above_a_type_s_own_precision():
    for name in ("float16", "float32", "float64"):
        assert 4 * np.finfo(name).eps < TOLERANCES[name] < 1e-2


@pytest.mark.parametrize("kind", [ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2, ml_dtypes.bfloat16])
def test_narrow_floats_are_compared(kind: type) -> None:
    values = np.array([1.0, -0.5, 0.25]).astype(kind)
    other = values.copy()
    other[1] = kind(0.5)
    assert compare(values, values, 0.0).problem is None
    assert compare(values, other, 0.01).max_abs == 1.0
