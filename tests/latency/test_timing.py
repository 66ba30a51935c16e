"""Timings are alike in length, rounds are in random order, and warming up ends when nothing is gained."""

from __future__ import annotations

import gc
import math

import numpy as np
import pytest

from bnfold.latency import timing
from bnfold.latency.timing import MAX_ROUNDS, MIN_ROUNDS, Plan, measure, plan, repeats, warm_up


class Clock:
    """A contestant whose runs take what a list says, the last one for ever; keeps a clock of its own."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0
        monkeypatch.setattr(timing.time, "perf_counter_ns", lambda: self.now)

    def contestant(self, *milliseconds: float):
        left = list(milliseconds)

        def run() -> None:
            taken = left.pop(0) if len(left) > 1 else left[0]
            self.now += round(taken * 1e6)

        return run


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def test_warm_is_what_no_longer_becomes_faster(clock: Clock) -> None:
    warm = warm_up(clock.contestant(50.0, 9.0, 5.0, 4.0), limit_ms=1000.0)
    assert (warm.fastest_ms, warm.settled) == (4.0, True)
    assert clock.now == pytest.approx((50 + 9 + 5 + 4 + 3 * 4.0) * 1e6)


def test_an_interruption_is_not_taken_for_being_cold(clock: Clock) -> None:
    assert warm_up(clock.contestant(4.0, 40.0, 4.0, 40.0, 4.0), limit_ms=1000.0).settled


def test_slow_gains_count_when_they_add_up(clock: Clock) -> None:
    times = [10 * 0.99**step for step in range(100)]
    assert warm_up(clock.contestant(*times, times[-1]), limit_ms=math.inf).fastest_ms < 4.0


def test_a_fast_model_is_warm_after_milliseconds_not_after_runs(clock: Clock) -> None:
    warm_up(clock.contestant(0.01), limit_ms=1000.0)
    assert clock.now >= timing.WARM_MS * 1e6


def test_what_does_not_become_warm_is_given_up(clock: Clock) -> None:
    warm = warm_up(clock.contestant(*(1000 * 0.9**step for step in range(50))), limit_ms=2000.0)
    assert not warm.settled
    assert clock.now < 4000e6


@pytest.mark.parametrize(
    ("fastest", "expected"),
    [
        ((0.5, 0.5), (2, 2)),
        ((0.5, 0.1), (2, 10)),  # 1 ms each
        ((2.1, 2.0), (1, 1)),  # hardly apart: the same number
        ((0.03, 0.028, 0.03), (34, 36, 34)),
        ((100.0, 20.0, 100.0), (1, 5, 1)),
    ],
)
def test_all_timings_last_about_equally_long(fastest, expected) -> None:
    assert repeats(fastest) == expected
    assert repeats(fastest[::-1]) == expected[::-1]


def test_the_rounds_fill_the_time(clock: Clock) -> None:
    runs = [clock.contestant(2.0), clock.contestant(2.0), clock.contestant(1.0)]
    planned = plan(runs, (2.0, 2.0, 1.0), loads=4, rounds=None, milliseconds=600.0)
    assert planned == Plan((1, 1, 2), 25)


def test_an_interruption_while_planning_spoils_no_repeats(clock: Clock) -> None:
    runs = [clock.contestant(30.0, 2.0), clock.contestant(2.0)]
    assert plan(runs, (2.0, 2.0), loads=4, rounds=None, milliseconds=400.0) == Plan((1, 1), 25)


@pytest.mark.parametrize(("milliseconds", "wanted"), [(0.001, MIN_ROUNDS), (1e9, MAX_ROUNDS)])
def test_there_are_enough_rounds_and_not_too_many(clock: Clock, milliseconds: float, wanted: int) -> None:
    planned = plan([clock.contestant(1.0)], (1.0,), loads=8, rounds=None, milliseconds=milliseconds)
    assert planned.rounds * 8 == wanted


def test_rounds_that_were_asked_for_are_not_tried_first(clock: Clock) -> None:
    assert plan([clock.contestant(1.0)], (1.0,), loads=8, rounds=9, milliseconds=1.0).rounds == 2
    assert clock.now == 0


def test_each_contestant_is_timed_once_a_round_in_an_order_that_changes(clock: Clock) -> None:
    seen: list[int] = []

    def contestant(which: int):
        run = clock.contestant(which + 1.0)
        return lambda: (seen.append(which), run())

    times = measure([contestant(which) for which in range(3)], Plan((1, 1, 1), 40), np.random.default_rng(0))
    assert times.tolist() == [[1.0, 2.0, 3.0]] * 40
    orders = {tuple(seen[start : start + 3]) for start in range(0, len(seen), 3)}
    assert len(orders) == 6
    assert all(sorted(order) == [0, 1, 2] for order in orders)


def test_a_timing_is_a_run_s_share_of_its_repeats(clock: Clock) -> None:
    times = measure([clock.contestant(2.0)], Plan((5,), 2), np.random.default_rng(0))
    assert times.tolist() == [[2.0], [2.0]]
    assert clock.now == 20e6


def test_no_garbage_is_collected_meanwhile() -> None:
    enabled: list[bool] = []
    measure([lambda: enabled.append(gc.isenabled())], Plan((1,), 3), np.random.default_rng(0))
    assert enabled == [False] * 3
    assert gc.isenabled()


def test_garbage_is_collected_again_after_an_error() -> None:
    def fail() -> None:
        raise ValueError

    with pytest.raises(ValueError):  # noqa: PT011
        measure([fail], Plan((1,), 1), np.random.default_rng(0))
    assert gc.isenabled()
