"""How far a ratio of two medians can be trusted: a bootstrap over the two levels on which timings vary.

Timings vary on two levels. Within one load of the sessions they scatter from round to round; and every
session has its own speed for as long as it exists, because of where its weights happen to be in memory. So
the bootstrap draws loads first and whole rounds within them (Davison and Hinkley, Bootstrap Methods and Their
Application, 1997, section 3.8), and all timings of a round stay together.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

RESAMPLES = 2000
_AT_ONCE = 100  # resamples; all of them together would take tens of megabytes
CONFIDENCE = 0.95

Times = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Ratio:
    """A ratio of two medians with the ends of its 95 % interval."""

    value: float
    low: float
    high: float


def ratios(times: Times, rng: np.random.Generator, resamples: int = RESAMPLES) -> tuple[Ratio, ...]:
    """The median of the first contestant divided by the median of each other one.

    Args:
        times: Timings of the shape `[loads, rounds, contestants]`, in any unit.
        rng: Draws the resamples.
        resamples: How many; a multiple of a hundred.

    Returns:
        One ratio for every contestant except the first.
    """
    drawn = _resampled_medians(times, rng, resamples)
    medians = np.median(times.reshape(-1, times.shape[-1]), axis=0)
    tail = (1 - CONFIDENCE) / 2
    ends = np.quantile(drawn[:, :1] / drawn[:, 1:], [tail, 1 - tail], axis=0)
    values = medians[0] / medians[1:]
    return tuple(
        Ratio(float(value), float(low), float(high)) for value, low, high in zip(values, *ends, strict=True)
    )


def _resampled_medians(times: Times, rng: np.random.Generator, resamples: int) -> Times:
    """Medians of every contestant in every resample, `[resamples, contestants]`."""
    loads, rounds, contestants = times.shape
    of_each = np.ascontiguousarray(np.moveaxis(times, -1, 0))
    medians = []
    for _ in range(resamples // _AT_ONCE):
        load = rng.integers(loads, size=(_AT_ONCE, loads, 1))
        turn = rng.integers(rounds, size=(_AT_ONCE, loads, rounds))
        drawn = of_each[:, load, turn].reshape(contestants, _AT_ONCE, -1)
        medians.append(np.median(drawn, axis=-1))
    return np.concatenate(medians, axis=1).T
