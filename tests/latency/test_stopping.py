"""A timing ends early where its answer is clear, and hardly ever claims what is not there."""

from __future__ import annotations

import math

import numpy as np
import pytest

from bnfold.latency import stopping as module
from bnfold.latency.bootstrap import Ratio
from bnfold.latency.stopping import LOOKS, MOST_LOADS, may_end

ROUNDS = 12


def timings(ratio: float, loads: int, rng: np.random.Generator, session: float = 0.01, scatter: float = 0.03):
    """Times from a known law: every session is off by its own share, and timings scatter."""
    own = rng.normal(1.0, session, (loads, 1, 3))
    return np.array([ratio, 1.0, ratio]) * own * rng.lognormal(0, scatter, (loads, ROUNDS, 3))


def density(t: float, freedom: int) -> float:
    """Of Student's t."""
    scale = math.gamma((freedom + 1) / 2) / math.gamma(freedom / 2) / math.sqrt(freedom * math.pi)
    return scale * (1 + t * t / freedom) ** (-(freedom + 1) / 2)


@pytest.mark.parametrize(("loads", "quantile"), LOOKS.items())
def test_the_quantiles_leave_one_in_two_thousand_on_each_side(loads: int, quantile: float) -> None:
    places = np.linspace(0, quantile, 20001)
    inside = np.trapezoid([density(place, loads - 1) for place in places], places)
    assert 0.5 - inside == pytest.approx(0.0005, rel=2e-3)
    assert loads < MOST_LOADS


@pytest.mark.parametrize("ratio", [1.5, 1 / 1.5, 1.0])
def test_what_is_clear_ends_at_the_first_look(ratio: float) -> None:
    rng = np.random.default_rng(0)
    assert may_end(timings(ratio, min(LOOKS), rng), rng)


@pytest.mark.parametrize("loads", [1, min(LOOKS) - 1, min(LOOKS) + 1, MOST_LOADS])
def test_it_looks_at_no_other_time(loads: int) -> None:
    rng = np.random.default_rng(0)
    assert not may_end(timings(1.5, loads, rng), rng)


def test_noise_goes_on() -> None:
    rng = np.random.default_rng(0)
    assert not any(may_end(timings(1.0, 8, rng, session=0.2), rng) for _ in range(5))


def test_a_difference_near_the_threshold_goes_on_until_it_is_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    times = timings(1.04, 8, rng, session=0.03)

    def reports(*pair: Ratio) -> None:
        monkeypatch.setattr(module, "ratios", lambda *_: pair)

    reports(Ratio(1.04, 1.01, 1.07), Ratio(1.0, 0.97, 1.03))
    assert not may_end(times, rng)
    reports(Ratio(1.04, 1.03, 1.05), Ratio(1.0, 0.99, 1.01))
    assert may_end(times, rng)
    reports(Ratio(1.04, 1.03, 1.05), Ratio(1.0, 0.97, 1.03))  # the control is not exact
    assert not may_end(times, rng)


def test_no_difference_is_not_certain_while_one_that_counts_may_be_there(monkeypatch) -> None:
    rng = np.random.default_rng(0)
    times = timings(1.0, 8, rng)
    monkeypatch.setattr(module, "ratios", lambda *_: (Ratio(1.01, 0.98, 1.04), Ratio(1.0, 0.98, 1.02)))
    assert not may_end(times, rng)
    monkeypatch.setattr(module, "ratios", lambda *_: (Ratio(1.0, 0.98, 1.02), Ratio(1.0, 0.98, 1.02)))
    assert may_end(times, rng)


def test_a_control_that_differs_keeps_it_going() -> None:
    """The original is 8 % slower than itself: no verdict is certain, however often it is timed."""
    rng = np.random.default_rng(3)
    times = timings(1.08, 8, rng, session=0.02) * np.array([1.0, 1.0, 1 / 1.08])
    assert not may_end(times, rng)


def test_ending_early_claims_hardly_anything_that_is_not_there() -> None:
    """Two hundred models against themselves, whose sessions differ by as much as the threshold."""
    rng = np.random.default_rng(4)
    claimed = ended = 0
    for _ in range(200):
        times = timings(1.0, max(LOOKS), rng, session=0.03)
        for loads in LOOKS:
            if may_end(times[:loads], rng, 100):
                strict = [module._by_load(times[:loads], other, LOOKS[loads]) for other in (1, 2)]
                claimed += module.verdict(*strict) in ("faster", "slower")
                ended += 1
                break
    assert claimed <= 2
    assert ended < 200, "so much noise goes on now and then"
