"""Several evaluations of one sample side by side, compared value by value with the truth.

All go through their models at the same pace, so that a true value can be forgotten once every one of them has
been compared with it. Only what the models themselves need at that place is in memory.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeGuard

import numpy as np
import numpy.typing as npt

from bnfold.runtime.agreement import compare
from bnfold.validation.channels import WHOLE, Extent, Group, extent, groups
from bnfold.validation.deviation import deviation

Steps = Generator[tuple[str, Any], Any, list[Any]]
Watch = Callable[[str, Any], None]


@dataclass
class TrueValue:
    """A value of the original, and the channels of it that have a scale of their own.

    Attributes:
        value: What the oracle gives.
        left: How many evaluations have still to be compared with it.
        scales: Its magnitudes.
        groups: Its channels by their scale.
    """

    value: Any
    left: int
    scales: Extent = field(init=False, default_factory=Extent)
    groups: tuple[Group, ...] = field(init=False, default=(WHOLE,))

    def __post_init__(self) -> None:
        if _is_double(self.value):
            scales = extent(np.abs(self.value))
            if math.isfinite(scales.whole):
                self.scales, self.groups = scales, groups([scales])

    def errors(self, other: object) -> tuple[float, ...]:
        """The relative error of another value, for each group; infinite where shapes differ."""
        if _is_double(self.value) and _is_double(other) and self.value.shape == other.shape:
            with np.errstate(all="ignore"):
                error = np.abs(self.value - other)
            if math.isfinite(largest := float(error.max(initial=0.0))):
                return self._relative(error, largest)
            if np.array_equal(self.value, other, equal_nan=True):
                return (0.0,) * len(self.groups)
        wrong = compare(self.value, other, math.inf).problem is not None
        return (math.inf if wrong else deviation(self.value, other).largest,) * len(self.groups)

    def _relative(self, error: npt.NDArray[np.float64], largest: float) -> tuple[float, ...]:
        if self.groups[0].axis is None or not largest:
            return (largest / (self.scales.whole or 1.0),) * len(self.groups)
        found = extent(error)
        return tuple(one.largest(found) / one.scale for one in self.groups)


@dataclass(frozen=True)
class Compared:
    """One value that all evaluations compute.

    Attributes:
        groups: Its channels by their scale, each with its number of elements.
        errors: For each evaluation, the relative error in each group; empty where it does not compute it.
    """

    groups: tuple[tuple[Group, int], ...]
    errors: list[tuple[float, ...]]


class _Walk:
    """One evaluation, up to the first shared value whose truth is not known yet."""

    def __init__(self, steps: Steps, names: Collection[str], pinned: bool, watch: Watch) -> None:
        self._steps = steps
        self._awaited = set(names)
        self._pinned = pinned
        self._watch = watch
        self._next = self._step(None)

    def _step(self, other: object) -> tuple[str, Any] | None:
        try:
            name, value = self._steps.send(other)
        except StopIteration:
            return None
        self._watch(name, value)
        return name, value

    def advance(self, truths: Mapping[str, TrueValue], done: bool = False) -> Mapping[str, tuple[float, ...]]:
        """Go on as far as the truth is known, or to the end; the errors of the values on the way."""
        found: dict[str, tuple[float, ...]] = {}
        while self._next is not None:
            name, value = self._next
            truth = truths.get(name) if name in self._awaited else None
            if truth is None and name in self._awaited and not done:
                return found
            if truth is not None:
                found[name] = truth.errors(value)
                self._awaited.remove(name)
            self._next = None
            self._next = self._step(truth.value if truth is not None and self._pinned else None)
        return found


def walk(
    truth: Steps,
    others: Sequence[tuple[Steps, Watch]],
    names: Collection[str],
    *,
    pinned: bool,
    watch: Watch,
) -> dict[str, Compared]:
    """Evaluate the original and others side by side.

    Args:
        truth: The evaluation of the original.
        others: Evaluations to compare with it, and what is shown their values.
        names: The values to compare.
        pinned: Whether each of these values is replaced by the true one once it is compared, so that errors
            neither grow from one to the next nor hide each other.
        watch: What is shown the values of the original.

    Returns:
        What was compared, by name, in the order of the original.
    """
    walks = [_Walk(steps, names, pinned, seen) for steps, seen in others]
    truths: dict[str, TrueValue] = {}
    found: dict[str, Compared] = {}

    def go_on(done: bool = False) -> None:
        for number, one in enumerate(walks):
            for name, errors in one.advance(truths, done).items():
                found[name].errors[number] = errors
                truths[name].left -= 1
        for name in [name for name, known in truths.items() if not known.left]:
            del truths[name]

    for name, value in truth:
        watch(name, value)
        if name in names and name not in found:
            known = truths[name] = TrueValue(value, len(walks))
            sizes = tuple((one, one.size(known.scales)) for one in known.groups)
            found[name] = Compared(sizes, [()] * len(walks))
            go_on()
    go_on(done=True)
    return found


def merged(found: Sequence[Mapping[str, Compared]]) -> dict[str, Compared]:
    """What several walks of one original compared, as if it had been one walk."""
    return {
        name: Compared(one.groups, [errors for walked in found for errors in walked[name].errors])
        for name, one in found[0].items()
    }


def _is_double(value: object) -> TypeGuard[npt.NDArray[np.float64]]:
    return isinstance(value, np.ndarray) and value.dtype == np.float64
