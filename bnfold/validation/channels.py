"""Which elements of a value share a scale: its channels, along whatever axis carries them.

A detector gives a confidence of 3e-4 next to coordinates of 640. Judged by the largest number of the tensor,
the confidence could be anything. So channels whose scales are far apart are judged apart. Which axes they lie
along is found: every one along which scales are far apart.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

APART = 100.0
"""How far apart scales are that do not share a bound; up to that, rounding errors mix them anyway."""

_LISTED = 3  # channels in a sentence
_LOOKED_AT = 4096  # elements, to find out whether they are repeated


@dataclass(frozen=True)
class Extent:
    """The largest magnitudes of a value.

    Attributes:
        whole: Of the whole value.
        axes: For each axis, of every slice along it; empty where the value is no single array.
        size: Number of elements; of different ones where most are repeated, as in what comes of a picture of
            one colour: there the errors are repeated as well.
    """

    whole: float = 0.0
    axes: tuple[npt.NDArray[np.float64], ...] = ()
    size: int = 0

    def __or__(self, other: Extent) -> Extent:
        """The larger of both everywhere; as a whole only, where their shapes differ."""
        same = [one.size for one in self.axes] == [one.size for one in other.axes]
        axes = tuple(map(np.maximum, self.axes, other.axes)) if same else ()
        return Extent(max(self.whole, other.whole), axes, min(self.size, other.size))


def extent(magnitudes: npt.NDArray[np.float64]) -> Extent:
    """Measure an array.

    Args:
        magnitudes: Absolute values in float64, of any shape; what is not finite must be left out as 0.
    """
    axes: list[npt.NDArray[np.float64]] = []
    if magnitudes.size:
        _largest(magnitudes, axes)
    whole = float(axes[0].max()) if axes else float(magnitudes.max(initial=0.0))
    return Extent(whole, tuple(axes), _different(magnitudes))


def _different(magnitudes: npt.NDArray[np.float64]) -> int:
    """How many elements there are, or about how many different ones where most are repeated."""
    places = np.linspace(0, magnitudes.size - 1, min(magnitudes.size, _LOOKED_AT), dtype=np.int64)
    with np.errstate(over="ignore"):
        # in double, equal elements differ by the order in which they were summed
        some = magnitudes.reshape(-1)[places].astype(np.float32)
    some = some[some > 0.0]
    different = len(np.unique(some))
    return different if 2 * different < some.size else magnitudes.size


def _largest(array: npt.NDArray[np.float64], found: list[npt.NDArray[np.float64]]) -> None:
    """Append the largest of every slice, axis by axis; half of the axes are reduced at once, to read less."""
    if array.ndim < 2:
        found.extend([array] if array.ndim else [])
        return
    half = array.ndim // 2
    _largest(array.max(axis=tuple(range(half, array.ndim))), found)
    _largest(array.max(axis=tuple(range(half))), found)


@dataclass(frozen=True)
class Group:
    """Elements that share a scale.

    Attributes:
        axis: Along which they are slices; None for all elements of the value.
        members: Which slices.
        scale: The largest magnitude in them, over all that was seen.
    """

    axis: int | None = None
    members: tuple[int, ...] = ()
    scale: float = 0.0

    def largest(self, within: Extent) -> float:
        """The largest magnitude in these elements."""
        if self.axis is None or not within.axes:
            return within.whole
        return float(within.axes[self.axis][list(self.members)].max())

    def size(self, within: Extent) -> int:
        """How many elements these are."""
        if self.axis is None or not within.axes:
            return within.size
        return within.size * len(self.members) // within.axes[self.axis].size

    def __str__(self) -> str:
        """Which channels they are, for a sentence; empty for all of them."""
        if self.axis is None:
            return ""
        several = "s" if len(self.members) > 1 else ""
        more = f" and {len(self.members) - _LISTED} more" if len(self.members) > _LISTED else ""
        listed = ", ".join(map(str, self.members[:_LISTED]))
        return f"channel{several} {listed}{more} along axis {self.axis} (scale {self.scale:.2g})"


WHOLE = Group()
"""All elements of a value."""


def groups(seen: Sequence[Extent]) -> tuple[Group, ...]:
    """Find the channels whose scales are far apart.

    A channel that is zero in all that was seen has no scale of its own and goes with the largest ones.

    Args:
        seen: The magnitudes of one value, in one run or in several.

    Returns:
        Groups of channels along the axis where scales differ most, which together are the value, and after
        them the small channels along other axes; one group of all elements where nothing is far apart.
    """
    scales = [np.maximum.reduce(along) for along in _alike(seen)]
    spreads = [_spread(along) for along in scales]
    axes = sorted((axis for axis, spread in enumerate(spreads) if spread), key=lambda axis: -spreads[axis])
    if not axes:
        return (Group(scale=max((one.whole for one in seen), default=0.0)),)
    first, *others = (_steps(axis, scales[axis]) for axis in axes)
    return (*first, *(group for steps in others for group in steps[1:]))


def _steps(axis: int, scales: npt.NDArray[np.float64]) -> list[Group]:
    """The channels along one axis, the largest first; channels near to each other in one group."""
    order = np.argsort(-scales, kind="stable")
    found: list[list[int]] = []
    leader = np.inf
    for member in order[scales[order] > 0.0].tolist():
        if scales[member] < leader / APART:  # a product could overflow
            leader = float(scales[member])
            found.append([])
        found[-1].append(member)
    found[0] += np.flatnonzero(scales == 0.0).tolist()
    return [Group(axis, tuple(sorted(members)), float(scales[members].max())) for members in found]


def _alike(seen: Sequence[Extent]) -> list[list[npt.NDArray[np.float64]]]:
    """For each axis its slices in all that was seen; empty ones where its size is not the same in all."""
    if not seen or len({len(one.axes) for one in seen}) > 1:
        return []
    return [
        list(along) if len({slices.size for slices in along}) == 1 else [np.zeros(1)]
        for along in zip(*(one.axes for one in seen), strict=True)
    ]


def _spread(scales: npt.NDArray[np.float64]) -> float:
    """How far apart the channels along an axis are, 0 where they are not: the mean distance in decades."""
    there = scales[scales > 0.0]
    if not there.size or there.min() >= there.max() / APART:
        return 0.0
    return float((np.log10(there.max()) - np.log10(there)).mean())  # a quotient could overflow


def scale_of_each(value: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """The scale that each element is judged by.

    Args:
        value: Floats of any shape; what is not finite is left out.

    Returns:
        An array that broadcasts against the value.
    """
    found = groups([extent(np.where(np.isfinite(value), np.abs(value), 0.0))])
    scales = np.asarray(found[0].scale)
    for axis in dict.fromkeys(group.axis for group in found if group.axis is not None):
        along = np.full(value.shape[axis], found[0].scale)
        for group in found:
            if group.axis == axis:
                along[list(group.members)] = group.scale
        shape = [-1 if number == axis else 1 for number in range(value.ndim)]
        scales = np.minimum(scales, along.reshape(shape))
    return scales


def luck(elements: int) -> float:
    """By how much more few elements may be off than what three random roundings of the weights do to them.

    The largest of many errors hardly depends on chance; that of three small groups does. The factor is such
    that chance exceeds it about once in a million times: for normally distributed errors of `n` elements,
    three draws all stay below `1 / F` of another with a probability of about `F ** (-3 * n)`.
    """
    return max(1.0, math.pow(10.0, 2.0 / max(elements, 1)) / 4.0)
