"""The noise that fewer bits add: two models run on the same rows, and the ratio of signal to noise.

The measure is `10 log10(Σ x² / Σ (x − y)²)` in decibels, with `x` from the model in floats and `y` from the
quantised one: 6 dB are one bit. Of indices, classes and the like, 20 dB are one in a hundred that differs.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from bnfold.runtime.interface import Port, interface
from bnfold.runtime.sessions import Feeds, Optimizer, run, session

Array = npt.NDArray[Any]


@dataclass
class Noise:
    """Sums over all elements and samples.

    Attributes:
        signal: Of the squares of finite numbers in floats, and 1 for every element of another type.
        error: Of the squares of their errors, and 1 for every element of another type that differs.
        others: Elements of other types: indices, classes, masks, strings.
        differing: How many of these differ.
    """

    signal: float = 0.0
    error: float = 0.0
    others: int = 0
    differing: int = 0

    def add(self, expected: Any, actual: Any) -> None:
        """Add one output; what has another shape than expected is all error.

        Of a sequence or a map, every item is added.
        """
        for one, other in _arrays(expected, actual):
            there = None if other is None or one.shape != other.shape else other
            if one.dtype.kind == "f":
                known = np.isfinite(one)  # nothing can be measured against the rest
                wide = one[known].astype(np.float64)
                with np.errstate(over="ignore", invalid="ignore"):  # the ratio then is not finite either
                    self.signal += float(np.square(wide).sum())
                    self.error += float(np.square(wide if there is None else wide - there[known]).sum())
            else:
                differing = one.size if there is None else int(np.sum(one != there))
                self.others += one.size
                self.differing += differing
                self.signal += one.size
                self.error += differing

    @property
    def decibels(self) -> float:
        """The ratio of signal to noise; infinite without any noise, and −∞ where the noise is infinite."""
        if self.error == 0:
            return math.inf
        ratio = self.signal / self.error
        return 10 * math.log10(ratio) if ratio else -math.inf  # NaN is true, and stays NaN


def _arrays(expected: Any, actual: Any) -> Iterator[tuple[Array, Array | None]]:
    """The arrays of an output, each with what stands in its place; none for an optional without a value."""
    if isinstance(expected, dict):
        found = actual if isinstance(actual, dict) else {}
        for key, one in expected.items():
            yield from _arrays(one, found.get(key))
    elif isinstance(expected, list):
        rest = actual if isinstance(actual, list) and len(actual) == len(expected) else [None] * len(expected)
        for one, other in zip(expected, rest, strict=True):
            yield from _arrays(one, other)
    elif expected is not None:
        yield np.asarray(expected), None if actual is None else np.asarray(actual)


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

    @property
    def same(self) -> float | None:
        """The share of elements that are not floats and are the same; None where there are none."""
        others = sum(noise.others for noise in self._noise)
        return 1 - sum(noise.differing for noise in self._noise) / others if others else None

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
