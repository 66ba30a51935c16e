"""The noise that fewer bits add: two models run on the same rows, and the ratio of signal to noise.

The measure is `10 log10(Σ x² / Σ (x − y)²)` in decibels, with `x` from the model in floats and `y` from the
quantised one: 6 dB are one bit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from bnfold.runtime.interface import Port, interface
from bnfold.runtime.sessions import Feeds, Optimizer, run, session


@dataclass
class Noise:
    """Sums over all elements and samples: of the squares of a signal, and of its error."""

    signal: float = 0.0
    error: float = 0.0

    def add(self, expected: Any, actual: Any) -> None:
        """Add one array; one of other types is passed over, and one of another shape is all error.

        So is what is not an array: a sequence, a map, an optional without a value.
        """
        if expected is None or isinstance(expected, (list, dict)):
            return
        one, other = np.asarray(expected), np.asarray(actual)
        if one.dtype.kind == "f":
            with np.errstate(over="ignore", invalid="ignore"):  # infinite or NaN, and then so is the ratio
                wide = one.astype(np.float64)
                self.signal += float(np.square(wide).sum())
                self.error += float(np.square(wide - other if one.shape == other.shape else wide).sum())

    @property
    def decibels(self) -> float:
        """The ratio of signal to noise; infinite without any noise, and −∞ where the noise is infinite."""
        if self.error == 0:
            return math.inf
        ratio = self.signal / self.error
        return 10 * math.log10(ratio) if ratio else -math.inf  # NaN is true, and stays NaN


class Both:
    """A model in floats and a quantised one, whose outputs are compared as they are run."""

    def __init__(self, model: ir.Model, quantized: ir.Model, optimized: Optimizer) -> None:
        self._sessions = [session(one, optimized=optimized) for one in (model, quantized)]
        self._actual: list[Any] = []
        self._noise = [Noise() for _ in model.graph.outputs]

    def actual(self, feeds: Feeds) -> list[Any]:
        """The outputs of the quantised model, which is asked first."""
        self._actual = run(self._sessions[1], feeds)
        return self._actual

    def expected(self, feeds: Feeds) -> list[Any]:
        """Those of the model in floats for the same inputs."""
        found = run(self._sessions[0], feeds)
        for noise, one, other in zip(self._noise, found, self._actual, strict=True):
            noise.add(one, other)
        return found

    def see(self, samples: Sequence[Feeds]) -> None:
        """Run both on samples."""
        for feeds in samples:
            self.actual(feeds)
            self.expected(feeds)

    def worst(self, ports: Sequence[Port]) -> tuple[str, float]:
        """The output with the most noise, and its signal to noise in dB; NaN is worse than any number."""
        pairs = zip(self._noise, ports, strict=True)
        noise, port = min(pairs, key=lambda pair: (not math.isnan(pair[0].decibels), pair[0].decibels))
        return port.name, noise.decibels


def signal_to_noise(
    model: ir.Model, quantized: ir.Model, samples: Sequence[Feeds], optimized: Optimizer
) -> float:
    """Signal to noise of the worst output in dB."""
    both = Both(model, quantized, optimized)
    both.see(samples)
    return both.worst(interface(model).outputs)[1]
