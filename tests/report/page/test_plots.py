"""Plots take what measurements can be: equal timings, zeros, gaps, one layer, none."""

from __future__ import annotations

import re
import time

import numpy as np
import pytest

from bnfold.report.page import plots
from bnfold.report.page.plots import Latency, LayerError, LayerRange, Ratio, Spread

RATIO = Ratio(1.1, 1.05, 1.15)


def rows(*times: list[float]) -> list[Latency]:
    return [Latency("off", *times, RATIO, Ratio(1, 0.99, 1.01))]  # type: ignore[arg-type]


def marks(plot: plots.Plot, colour: str) -> int:
    """How often a marker is drawn in a colour."""
    return len(re.findall(rf"<use [^>]*fill: var\({colour}\)", plot.wide))


def test_a_layer_beyond_its_bound_is_marked() -> None:
    fine = LayerError(2e-7, 1e-7, 1e-8, 1e-7)
    bad = LayerError(2e-7, 1e-3, 1e-3, 1e-7, site=True)
    assert (fine.beyond, bad.beyond) == (False, True)
    assert marks(plots.errors([fine, bad, fine], "e"), "--bad") == 1
    assert marks(plots.errors([fine, fine], "e"), "--bad") == 0


def test_an_error_that_is_not_finite_is_beyond_any_bound() -> None:
    assert LayerError(None, None, None, 1e-7).beyond
    assert not LayerError(None, None, None, None).beyond


@pytest.mark.parametrize(
    "layers",
    [
        [],
        [LayerError(None, None, 0.0, 0.0)],
        [LayerError(0.0, 0.0, 0.0, 1e-7)] * 2,
        [LayerError(1e-7, 1e-300, 1, 2)],
    ],
)
def test_zeros_and_gaps_can_be_drawn(layers: list[LayerError]) -> None:
    plot = plots.errors(layers, "e")
    assert plot.wide.startswith("<svg")
    assert "nan" not in plot.wide


def test_both_widths_are_drawn_under_names_of_their_own() -> None:
    plot = plots.errors([LayerError(1e-7, 1e-7, 1e-8, 1e-7)], "e")
    ids = [re.findall(r' id="([^"]*)"', text) for text in (plot.wide, plot.narrow)]
    assert not set(ids[0]) & set(ids[1])


@pytest.mark.parametrize(
    "times", [[1.0, 1.0, 1.0], [1.0], [1.0, 1.1, 250.0], list(np.random.default_rng(0).gamma(2, 1, 200))]
)
def test_timings_can_be_equal_few_or_far_apart(times: list[float]) -> None:
    plot = plots.latency(rows(times, times, []), "t")
    assert plot is not None
    assert "nan" not in plot.wide


def test_without_timings_there_is_no_distribution_but_an_interval() -> None:
    assert plots.latency(rows([], [], []), "t") is None
    assert "var(--folded)" in plots.ratios(rows([], [], []), 0.03, "r").wide


def test_a_control_is_drawn_where_there_is_one() -> None:
    times = [1.0, 1.1, 1.2]
    without = plots.latency(rows(times, times, []), "t")
    with_it = plots.latency(rows(times, times, times), "t")
    assert without is not None
    assert with_it is not None
    assert ">control<" in with_it.wide
    assert ">control<" not in without.wide


def test_a_weight_that_is_worse_is_marked() -> None:
    layers = [
        LayerRange(Spread((1.0, 2.0), 0.5), Spread((0.1, 2.0), 2.2), worse=number == 1) for number in range(3)
    ]
    assert marks(plots.ranges(layers, "w"), "--bad") == 1


def test_ranges_of_nothing_but_zeros_and_of_merged_weights_can_be_drawn() -> None:
    layers = [
        LayerRange(None, Spread((), 0.0), worse=False),
        LayerRange(None, Spread((1.0,), 0.0), worse=False),
    ]
    assert "nan" not in plots.ranges(layers, "w").wide
    assert "nan" not in plots.ranges(layers[:1], "w").wide


def test_the_same_numbers_give_the_same_bytes() -> None:
    layers = [LayerError(1e-7 * (i + 1), 2e-7, 1e-8, 1e-7) for i in range(20)]
    assert plots.errors(layers, "e") == plots.errors(layers, "e")


def test_a_thousand_layers_take_little_room_and_time() -> None:
    layers = [LayerError(1e-7, 2e-7, 1e-8, 1e-7, site=i % 2 == 0) for i in range(1000)]
    start = time.process_time()
    plot = plots.errors(layers, "e")
    assert time.process_time() - start < 10  # it takes less than one; a loaded machine is slower
    assert len(plot.wide) < 600_000
