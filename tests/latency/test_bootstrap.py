"""The interval covers what it should, and knows that loads differ."""

from __future__ import annotations

import numpy as np
import pytest

from bnfold.latency.bootstrap import ratios

LOADS, ROUNDS = 8, 20


def test_the_interval_covers_a_known_ratio_and_knows_about_loads() -> None:
    """Timings from a known law: rounds scatter by 5 %, and every load is off by 1 % of its own."""
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(40):
        loads = rng.normal(1.0, 0.01, (LOADS, 1, 3))
        times = np.array([1.1, 1.0, 1.1]) * loads * rng.normal(1.0, 0.05, (LOADS, ROUNDS, 3))
        ratio, control = ratios(times, rng)
        covered += ratio.low <= 1.1 <= ratio.high
        assert control.low < control.value < control.high
    # Eight loads are few, so the interval is a little short of 95 %; without them it would cover half.
    assert covered >= 33


def test_the_same_seed_gives_the_same_interval() -> None:
    times = np.random.default_rng(1).normal(1.0, 0.05, (LOADS, ROUNDS, 3))
    assert ratios(times, np.random.default_rng(2)) == ratios(times, np.random.default_rng(2))


def test_medians_shrug_off_a_hiccup() -> None:
    times = np.ones((LOADS, ROUNDS, 2))
    times[0, 3, 0] = 1000.0
    (ratio,) = ratios(times, np.random.default_rng(0))
    assert (ratio.value, ratio.low, ratio.high) == (1.0, 1.0, 1.0)


def test_a_ratio_is_first_by_other() -> None:
    times = np.broadcast_to([3.0, 2.0, 4.0], (2, 5, 3))
    assert [one.value for one in ratios(times, np.random.default_rng(0))] == pytest.approx([1.5, 0.75])
