"""Errors are relative to the truth's own scale, run by run, and only where a distance is defined."""

from __future__ import annotations

import math

import numpy as np
import pytest

from bnfold.validation.deviation import Deviation, deviation

TRUTH = np.array([2.0, -4.0, 0.0, 1.0])


def test_errors_are_relative_to_the_largest_element() -> None:
    found = deviation(TRUTH, np.array([2.0, -4.0, 0.4, 1.2], np.float64))
    assert found.largest == pytest.approx(0.1)
    assert found.rms == pytest.approx(math.sqrt((0.1**2 + 0.05**2) / 4))
    assert found.count == 4


def test_runs_add_up_each_on_its_own_scale() -> None:
    small, large = deviation(TRUTH, TRUTH + 0.4), deviation(1000 * TRUTH, 1000 * TRUTH + 40)
    both = small + large
    assert both.largest == pytest.approx(0.1)
    assert both.rms == pytest.approx(math.sqrt((0.1**2 + 0.01**2) / 2))
    assert (Deviation() + small, Deviation().rms) == (small, 0.0)


def test_sequences_maps_and_optionals_leaf_by_leaf() -> None:
    found = deviation([TRUTH, {"a": TRUTH}, None], [TRUTH, {"a": TRUTH + 0.4}, None])
    assert found.largest == pytest.approx(0.1)
    assert found.count == 8
    assert deviation([TRUTH], TRUTH) == deviation(None, TRUTH) == Deviation()


@pytest.mark.parametrize("other", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_has_no_distance(other: float) -> None:
    actual = np.array([other, -4.0, 0.4, 1.0])
    assert deviation(TRUTH, actual).largest == deviation(actual, TRUTH).largest == pytest.approx(0.1)


def test_of_integers_the_error_is_the_share_that_are_others() -> None:
    assert deviation(np.array([1, 2, 3, 4]), np.array([1, 9, 3, 4])) == Deviation(0.25, 1.0, 4)
    assert deviation(np.array([True, False]), np.array([True, False])) == Deviation(0.0, 0.0, 2)
    assert deviation(np.array([1, 2]), np.array([[1, 2]])) == Deviation()


def test_other_shapes_and_what_is_no_float_are_for_the_comparison() -> None:
    assert deviation(TRUTH, TRUTH[:2] + 1) == Deviation()
    assert deviation(np.array(["a"], object), np.array(["b"], object)) == Deviation()


def test_below_the_smallest_normal_number_there_is_no_precision_to_ask_for() -> None:
    tiny = np.finfo(np.float32).tiny
    truth = np.array([0.9 * tiny, 0.0])
    assert deviation(truth, np.zeros(2, np.float32)).largest == 0.0
    assert deviation(truth, np.zeros(2, np.float64)).largest == 1.0


def test_anything_beside_zero_is_infinitely_far() -> None:
    assert deviation(np.zeros(2), np.array([0.0, 1e-3], np.float32)).largest == math.inf
    assert deviation(np.zeros(2), np.zeros(2, np.float32)) == Deviation(count=2)
    assert deviation(np.zeros((0, 3)), np.zeros((0, 3), np.float32)) == Deviation()
