"""What one output may be off by, at its edges: each bound holds just below it and fails just above."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from bnfold.runtime.interface import Port
from bnfold.validation.deviation import Deviation
from bnfold.validation.output_check import (
    CHAOTIC,
    NOISE_CAP,
    NOISE_FACTOR,
    ULPS,
    OutputCheck,
    confirm_excuses,
    not_compared,
)
from bnfold.validation.results import Check

UNIT = 2.0**-24
NATURAL = 5e-5
TRUTH = np.linspace(-1.0, 1.0, 7)
PORT = Port("y", "float32", (7,))


def off(error: float) -> np.ndarray:
    """The truth with one element wrong by so much of the scale, which is 1."""
    wrong = TRUTH.copy()
    wrong[2] += error
    return wrong


def compared(
    *runs: tuple[float, float, float, float], truth: bool = True, given_tolerance: float | None = None
) -> OutputCheck:
    """Runs with these errors: original with the optimizer off, same setting, other optimizer; folded."""
    made = OutputCheck(NATURAL, UNIT, given_tolerance)
    for errors in runs:
        made.add(TRUTH if truth else None, *map(off, errors))
    return made


E = 20 * UNIT  # an error of the original that is neither nothing nor chaos
EDGE = NOISE_FACTOR * E + ULPS * UNIT


@pytest.mark.parametrize(("folded", "passes"), [(0.0, True), (0.999 * EDGE, True), (1.001 * EDGE, False)])
def test_the_original_is_the_measure(folded: float, passes: bool) -> None:
    found = compared((E, E, E, folded))
    assert (found.problem is None) == passes
    assert found.folded_bound == pytest.approx(EDGE)
    assert found.folded_error == pytest.approx(folded)


def test_an_exact_original_leaves_some_units_in_the_last_place() -> None:
    assert compared((0.0, 0.0, 0.0, 0.99 * ULPS * UNIT)).problem is None
    problem = compared((0.0, 0.0, 0.0, 1.01 * ULPS * UNIT)).problem
    assert problem is not None
    assert "away from the float64 oracle, the original 0; at most 4.77e-07 is accepted" in problem


@pytest.mark.parametrize("errors", [(E, 0.0, 0.0), (0.0, E, 0.0), (0.0, 0.0, E)])
def test_either_rounding_of_the_original_counts(errors: tuple[float, float, float]) -> None:
    assert compared((*errors, 0.99 * EDGE)).problem is None
    assert compared((*errors, 1.01 * EDGE)).problem is not None


def test_every_run_has_its_own_bound() -> None:
    quiet, loud = (E, E, E, E), (50 * E, 50 * E, 50 * E, E)
    assert compared(quiet, quiet, loud).problem is None
    wrong = compared(quiet, quiet, quiet, (50 * E, 50 * E, 50 * E, 0.0), (E, E, E, 5 * E))
    assert wrong.problem is not None  # the loud run does not excuse another one
    assert wrong.worst_run.folded == pytest.approx(5 * E)


def test_what_half_of_the_runs_have_is_no_luck() -> None:
    assert compared((E, E, E, E), (E, E, E, E), (0.0, 0.0, 0.0, 0.99 * EDGE)).problem is None
    assert compared((E, E, E, E), (0.0, 0.0, 0.0, 0.0), (0.0, 0.0, 0.0, 0.99 * EDGE)).problem is not None


def test_a_default_that_computes_something_else_is_no_measure() -> None:
    far = 0.1
    found = compared((E, far, E, 1.01 * NOISE_FACTOR * NOISE_CAP * E + ULPS * UNIT))
    assert found.problem is not None
    assert found.excusable
    assert found.worst_original_run.original_same_setting == pytest.approx(far)
    assert not compared((E, 0.99 * NOISE_CAP * E, E, E)).excusable
    assert compared((E, far, E, 3.9 * far)).excusable
    assert not compared((E, far, E, 4.1 * far)).excusable


def test_only_runs_that_look_wrong_need_their_conditioning() -> None:
    found = compared((E, E, E, E), (E, E, E, 9 * E), (E, 11 * E, E, E), (E, E, E, E))
    assert list(found.runs_to_condition) == [1, 2]
    assert found.problem is not None
    found.set_conditioning(1, Deviation(3 * E))
    assert found.problem is None
    found.set_conditioning(2, Deviation(2 * E))
    assert list(found.runs_to_condition) == []
    assert list(found.chaotic_runs) == []


def test_what_no_output_could_show_is_chaos() -> None:
    found = compared((E, E, E, E), (E, E, E, 0.5))
    found.set_conditioning(1, Deviation(1.01 * CHAOTIC * UNIT))
    assert list(found.chaotic_runs) == [1]
    assert found.problem is None
    assert found.folded_bound == pytest.approx(EDGE)  # of the run that can be judged
    everywhere = compared(*[(2 * CHAOTIC * UNIT,) * 3 + (0.5,)] * 3)
    assert list(everywhere.chaotic_runs) == [0, 1, 2]
    assert (everywhere.folded_bound, everywhere.problem) == (math.inf, None)


def test_without_an_oracle_the_type_decides() -> None:
    def of(folded: float, *, own: float = 0.0) -> OutputCheck:
        return compared((0.0, own, 0.0, folded), truth=False)

    assert of(0.99 * NATURAL).problem is None
    problem = of(1.01 * NATURAL).problem
    assert problem is not None
    assert "of the output's scale; at most 5e-05 is accepted" in problem
    assert of(0.99 * NOISE_FACTOR * NATURAL, own=NATURAL).problem is None
    later = compared((0.0, 0.0, 0.0, 0.0), (0.0, 0.0, NATURAL / 2, 2 * NATURAL - 1e-9), truth=False)
    assert later.problem is None  # whichever run shows what the optimizer does
    assert of(0.0, own=1.0).folded_bound == pytest.approx(NOISE_FACTOR * NOISE_CAP * NATURAL)
    check = of(0.0).result("cpu", "off", PORT)
    assert (check.error, check.original_error, check.ratio, check.bound) == (None, None, None, None)
    assert check.tolerance == NATURAL


def test_a_given_tolerance_decides_alone() -> None:
    found = compared((E, E, E, 0.01), given_tolerance=0.011)
    assert (found.problem, found.folded_bound) == (None, 0.011)
    assert list(found.runs_to_condition) == []
    strict = compared((E, E, E, 2 * E), given_tolerance=E / 2)
    assert strict.problem is not None
    check = strict.result("cpu", "off", PORT)
    assert (check.tolerance, check.bound) == (E / 2, None)
    assert check.error == pytest.approx(2 * E)  # what the oracle finds is reported all the same


@pytest.mark.parametrize("wrong", [math.nan, math.inf])
def test_what_is_not_finite_is_wrong_whatever_the_bound(wrong: float) -> None:
    for truth in (TRUTH, None):
        found = OutputCheck(NATURAL, UNIT, given_tolerance=100.0)
        found.add(truth, off(0.0), off(0.0), off(0.0), off(wrong))
        assert found.problem is not None


def test_an_optimizer_that_brings_nan_excuses() -> None:
    found = OutputCheck(NATURAL, UNIT, None)
    found.add(TRUTH, off(0.0), off(math.nan), off(0.0), off(math.nan))
    assert found.excusable
    assert found.result("cpu", "default", PORT).excused
    assert not found.result("cpu", "off", PORT).excused


def test_integers_must_be_equal() -> None:
    def of(own: int, folded: int) -> OutputCheck:
        made = OutputCheck(None, UNIT, None)
        made.add(*[np.array([value, 7]) for value in (5, 5, own, 5, folded)])
        return made

    assert of(5, 5).problem is None
    assert "1 of 2 elements differ" in (of(5, 6).problem or "")
    assert not of(5, 6).excusable
    assert of(8, 6).excusable
    assert of(6, 9).excusable
    assert not of(6, 10).excusable
    check = of(5, 5).result("cpu", "off", Port("k", "int64", (2,)))
    assert (check.tolerance, check.error, check.bound, check.ratio) == (None, None, None, None)


def test_integers_may_be_others_where_the_original_and_rounding_are_undecided_too() -> None:
    def of(reference: int, folded: int, conditioning: float = 0.0) -> OutputCheck:
        true = np.arange(100)
        expected, actual = true.copy(), true.copy()
        expected[:reference] += 1
        actual[:folded] += 1
        made = OutputCheck(None, UNIT, None)
        made.add(true, expected, expected, expected, actual)
        made.set_conditioning(0, Deviation(conditioning))
        return made

    assert of(2, 8).problem is None
    assert "elements differ" in (of(2, 9).problem or "")
    assert "elements differ" in (of(0, 1).problem or "")
    assert list(of(0, 1).runs_to_condition) == [0]
    assert of(0, 1, conditioning=0.01).problem is None
    made = OutputCheck(None, UNIT, None)
    made.add(np.arange(4), np.arange(4), np.arange(4), np.arange(4), np.arange(5))
    made.add(*[np.arange(4)] * 5)
    assert "shape" in (made.problem or "")


def test_the_ratio_is_the_geometric_mean_over_the_runs() -> None:
    check = compared((E, E, E, 2 * E), (E, E, E, E / 8), (E, 0.0, E, E)).result("cpu", "off", PORT)
    assert check.ratio == pytest.approx(0.5)
    assert compared((E, E, E, 0.0)).result("cpu", "off", PORT).ratio is None


def test_the_check_reports_the_run_nearest_to_its_bound() -> None:
    quiet, loud = (E, E, E, 2 * E), (9 * E, 9 * E, 9 * E, 5 * E)
    check = compared(quiet, quiet, loud).result("cuda", "default", PORT, row="tf32")
    assert check.error == pytest.approx(2 * E)
    assert check.original_error == pytest.approx(E)
    assert (check.provider, check.optimizer, check.row) == ("cuda", "default", "tf32")
    assert check.shapes == ((7,),)
    assert check.passed


def check(optimizer: str, problem: str | None, *, excused: bool = False, provider: str = "cpu") -> Check:
    found = compared((E, E, E, E)).result(provider, "default", PORT)
    return replace(found, optimizer=optimizer, problem=problem, excused=excused)  # type: ignore[arg-type]


def test_only_what_agrees_with_the_optimizer_off_stays_excused() -> None:
    excused = check("default", "It is off.", excused=True)
    assert confirm_excuses([check("off", None), excused])[1].excused
    assert not confirm_excuses([check("off", "Off too."), excused])[1].excused
    assert not confirm_excuses([check("off", None, provider="cuda"), excused])[1].excused
    assert not confirm_excuses([excused])[0].excused


def test_the_first_failing_run_is_beyond_its_bound_or_not_comparable() -> None:
    good, bad = (E, E, E, E), (E, E, E, 3 * EDGE)
    assert compared(good, good).first_failing_run is None
    found = compared(good, (E, E, E, 2 * EDGE), bad)
    assert found.first_failing_run == 1
    for _ in range(2):
        found.add(TRUTH, TRUTH, TRUTH, TRUTH, np.full_like(TRUTH, np.nan))
    assert found.first_failing_run == 3


SMALL = 0.5 * NATURAL


@pytest.mark.parametrize(("folded", "passes"), [(SMALL, True), (1.5 * NATURAL, False)])
def test_a_run_without_truth_has_the_bound_of_its_type(folded: float, passes: bool) -> None:
    """The others keep the oracle's, which is a hundred times as tight."""
    found = compared((E, E, E, E), (E, E, E, E))
    found.add(None, TRUTH, TRUTH, TRUTH, off(folded))
    assert (found.problem is None) == passes
    assert passes or "away from the original with the optimizer off, " in (found.problem or "")
    strict = compared((E, E, E, E), (E, E, E, SMALL))
    strict.add(None, TRUTH, TRUTH, TRUTH, TRUTH)
    assert strict.problem is not None
    assert list(strict.runs_to_condition) == [1]


def test_a_run_without_truth_says_nothing_of_the_usual_error() -> None:
    found = compared((E, E, E, 0.0), (E, E, E, 0.99 * EDGE))
    for _ in range(5):
        found.add(None, TRUTH, TRUTH, TRUTH, TRUTH)
    quiet = compared((E, E, E, 0.0), (E, E, E, 0.0), (0.0, 0.0, 0.0, 0.99 * EDGE))
    for _ in range(5):
        quiet.add(None, TRUTH, TRUTH, TRUTH, TRUTH)
    assert (found.problem, quiet.problem) == (None, None)
    result = found.result("cpu", "default", PORT)
    assert result.ratio == pytest.approx(compared((E, E, E, 0.99 * EDGE)).result("cpu", "off", PORT).ratio)


def test_small_channels_of_a_run_without_truth_are_allowed_what_rounding_next_to_large_ones_costs() -> None:
    truth = np.array([[1.0, -1.0], [1e-6, -1e-6]])
    for wrong, passes in ((90 * NATURAL, True), (110 * NATURAL, False)):
        found = OutputCheck(NATURAL, UNIT, None)
        found.add(truth, truth, truth, truth, truth)
        found.add(None, truth, truth, truth, truth * [[1.0], [1.0 + wrong]])
        assert (found.problem is None) == passes


def test_the_truth_measures_nothing_where_it_has_another_number_of_rows() -> None:
    """Otherwise nothing was compared with anything there."""
    rows = np.linspace(1.0, 2.0, 6).reshape(3, 2)
    for wrong, passes in ((0.5 * NATURAL, True), (3 * NATURAL, False)):
        found = OutputCheck(NATURAL, UNIT, None)
        found.add(rows, rows, rows, rows, rows)
        assert not found.is_loose
        found.add(rows[:2], rows, rows, rows, rows * (1 + wrong))
        assert found.is_loose
        assert (found.problem is None) == passes


def test_an_output_is_loose_where_the_original_is_farther_off_than_its_type_explains() -> None:
    far = 2 * NATURAL
    assert not compared((E, E, E, far)).is_loose
    for errors in ((far, E, E, E), (E, far, E, E), (E, E, far, E)):
        assert compared((E, E, E, E), errors).is_loose
    moved = compared((E, E, E, far))
    moved.set_conditioning(0, Deviation(far))
    assert moved.is_loose
    places = OutputCheck(None, UNIT, None)
    places.add(*[np.arange(4)] * 5)
    assert not places.is_loose
    places.add(np.arange(4), np.arange(4)[::-1], *[np.arange(4)] * 3)
    assert places.is_loose


def test_an_output_of_which_nothing_was_compared_is_named_once() -> None:
    silent = [replace(check(optimizer, None), output="z", compared=False) for optimizer in ("off", "default")]
    assert not list(not_compared(silent))
    assert list(not_compared([*silent, check("off", None)])) == [
        "The output 'z' was not compared: on every input it is NaN, infinite or empty throughout "
        "in the original."
    ]
