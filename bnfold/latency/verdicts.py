"""What two ratios say: there is a difference, there is not, or there is too much noise to say.

The rules are those of [`bnfold.latency.benchmark`][bnfold.latency.benchmark]. They take any interval: the
report's, and the stricter one that ends a timing early.
"""

from __future__ import annotations

from typing import Literal

from bnfold.latency.bootstrap import Ratio

Verdict = Literal["faster", "slower", "no measurable difference", "too noisy to say"]

THRESHOLD = 0.03
RESOLUTION = 0.10


def verdict(ratio: Ratio, control: Ratio) -> Verdict:
    """The verdict on a folded model.

    Args:
        ratio: The original's time by the folded model's.
        control: The original's time by that of its second session.
    """
    least = 1 + THRESHOLD
    if ratio.low > 1 and ratio.value >= least:
        clear = ratio.value / control.value >= least and ratio.value > control.high
        return "faster" if clear else "too noisy to say"
    if ratio.high < 1 and 1 / ratio.value >= least:
        clear = control.value / ratio.value >= least and ratio.value < control.low
        return "slower" if clear else "too noisy to say"
    widest = 1 + RESOLUTION
    low, high = min(ratio.low, control.low), max(ratio.high, control.high)
    return "no measurable difference" if 1 / widest < low and high < widest else "too noisy to say"
