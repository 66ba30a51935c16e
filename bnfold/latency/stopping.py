"""When a timing may end before its time: as soon as more of it would not change the answer.

A timing that nobody gave a time is a group-sequential test. After 8, 16 and 24 loads it looks at what it has,
and it ends in one of two cases:

- **The verdict is certain**: it holds with intervals of 99.9 %, where the last look has those of 95 %. A look
  that strict adds so little to the error of the last one that no other correction is needed (Haybittle,
  Repeated assessment of results in clinical trials of cancer treatment, 1971; Peto et al., Design and
  analysis of randomized clinical trials requiring prolonged observation of each patient, 1976). For "no
  measurable difference" the report's own interval has to stay below the threshold too, since otherwise a
  longer timing could still find a difference that counts.
- **The figure is exact**: the report's intervals, that of the fold and that of the control, reach about 2 %
  to each side. This asks how wide an interval is and not where it lies, and so favours no verdict (Chow and
  Robbins, On the asymptotic theory of fixed-width sequential confidence intervals for the mean, 1965). It is
  for differences near the threshold, for which no time would be enough.

The strict intervals take loads as their observations, since timings of one load are not independent of each
other: every load gives one ratio of medians, and the interval is that of Student's t for the mean of their
logarithms (Donald and Lang, Inference with difference-in-differences and other panel data, 2007). A bootstrap
of eight loads would be too narrow so far from the middle.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from bnfold.latency.bootstrap import RESAMPLES, Ratio, Times, ratios
from bnfold.latency.verdicts import THRESHOLD, verdict

LOOKS: Mapping[int, float] = {8: 5.408, 16: 4.073, 24: 3.768}
"""After how many loads to look, and the 0.9995 quantile of Student's t with one degree of freedom fewer."""

MOST_LOADS = 32
EXACT = 0.04
"""Width of an interval, from end to end, that no longer timing need improve on."""


def may_end(times: Times, rng: np.random.Generator, resamples: int = RESAMPLES) -> bool:
    """Whether these timings answer the question well enough to end here.

    Args:
        times: Timings of original, folded and control, of the shape `[loads, rounds, 3]`, in any unit.
        rng: Draws the resamples of the report's intervals.
        resamples: How many of them.

    Returns:
        False if this is not the time for a look.
    """
    quantile = LOOKS.get(len(times))
    if quantile is None:
        return False
    ratio, control = ratios(times, rng, resamples)
    if all(one.high / one.low < 1 + EXACT for one in (ratio, control)):
        return True
    strict = verdict(*(_by_load(times, other, quantile) for other in (1, 2)))
    if strict == "too noisy to say" or strict != verdict(ratio, control):
        return False
    return (
        strict != "no measurable difference" or 1 / (1 + THRESHOLD) < ratio.low <= ratio.high < 1 + THRESHOLD
    )


def _by_load(times: Times, other: int, quantile: float) -> Ratio:
    """The mean ratio of the first contestant's median to another's, each load being one observation."""
    medians = np.median(times, axis=1)
    logarithms = np.log(medians[:, 0] / medians[:, other])
    middle = float(logarithms.mean())
    reach = quantile * float(logarithms.std(ddof=1)) / math.sqrt(len(logarithms))
    return Ratio(*(math.exp(middle + off) for off in (0.0, -reach, reach)))
