"""How far values are from the truth: the largest and the root-mean-square error, relative to their scale."""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from bnfold.runtime.agreement import widened
from bnfold.validation.channels import Extent, extent


@dataclass(frozen=True)
class Deviation:
    """The distance of an output from the truth, in one run or in several.

    Every error is relative to the largest absolute value that the truth has in the same run.

    Attributes:
        largest: Largest relative error.
        squares: Sum of the squares of all relative errors.
        count: Number of elements.
        absolute: The largest absolute errors in every slice; None unless it is one array of floats.
    """

    largest: float = 0.0
    squares: float = 0.0
    count: int = 0
    absolute: Extent | None = field(default=None, compare=False)

    @property
    def rms(self) -> float:
        """Root mean square of the relative errors."""
        return math.sqrt(self.squares / self.count) if self.count else 0.0

    def __add__(self, other: Deviation) -> Deviation:
        return Deviation(
            max(self.largest, other.largest), self.squares + other.squares, self.count + other.count
        )


def deviation(truth: object, actual: object) -> Deviation:
    """Measure one output against the truth; sequences, maps and optionals leaf by leaf.

    For integers and bools the error is the share of elements that differ, since an index has no scale.
    Elements that are not finite in either have no distance and are left out, and so are leaves of other
    shapes; [`agreement`][bnfold.runtime.agreement] judges those.

    Args:
        truth: The array, list, dict or None in float64.
        actual: What was computed in the model's own type.
    """
    leaves = list(_leaves(truth, actual))
    if len(leaves) == 1:
        return _of_arrays(*leaves[0])
    return sum((_of_arrays(one, other) for one, other in leaves), Deviation())


def farthest(found: Sequence[Deviation]) -> Deviation:
    """The largest of several deviations from one truth, channel by channel."""
    extents = [one.absolute for one in found if one.absolute is not None]
    absolute = functools.reduce(operator.or_, extents) if len(extents) == len(found) else None
    return replace(max(found, key=lambda one: one.largest), absolute=absolute)


def magnitude(truth: object) -> Extent | None:
    """The magnitudes of an output in every slice; None unless it is one array of floats."""
    array = widened(np.asarray(truth)) if not isinstance(truth, (list, dict, type(None))) else None
    if array is None or array.dtype.kind not in "fV":
        return None
    wide = np.abs(array.astype(np.float64))
    return extent(np.where(np.isfinite(wide), wide, 0.0))


def _leaves(truth: object, actual: object) -> Iterator[tuple[npt.NDArray[Any], npt.NDArray[Any]]]:
    if isinstance(truth, list) and isinstance(actual, list):
        for one, other in zip(truth, actual, strict=False):
            yield from _leaves(one, other)
    elif isinstance(truth, dict) and isinstance(actual, dict):
        for key in truth.keys() & actual.keys():
            yield from _leaves(truth[key], actual[key])
    elif not isinstance(truth, (list, dict, type(None))) and not isinstance(actual, (list, dict, type(None))):
        yield widened(np.asarray(truth)), widened(np.asarray(actual))


def _of_arrays(truth: npt.NDArray[Any], actual: npt.NDArray[Any]) -> Deviation:
    if truth.dtype.kind in "biu" and truth.shape == actual.shape and actual.dtype.kind in "biu":
        wrong = int(np.count_nonzero(truth != actual))
        return Deviation(wrong / max(truth.size, 1), float(wrong), truth.size)
    if truth.dtype.kind not in "fV" or actual.dtype.kind not in "fV" or truth.shape != actual.shape:
        return Deviation()
    # below the smallest normal number of the type there is no precision to ask for
    tiny = float(np.finfo(actual.dtype).tiny) if actual.dtype.kind == "f" else 0.0
    wide, other = truth.astype(np.float64), actual.astype(np.float64)
    finite = np.isfinite(wide) & np.isfinite(other)
    count = int(np.count_nonzero(finite))
    wide, other = np.where(finite, wide, 0.0), np.where(finite, other, 0.0)
    scale = float(np.abs(wide).max(initial=0.0))
    error = np.maximum(np.abs(other - wide) - tiny, 0.0)
    absolute = extent(error)
    if not absolute.whole:
        return Deviation(count=count, absolute=absolute)
    if not scale:
        return Deviation(math.inf, math.inf, count, absolute)
    return Deviation(absolute.whole / scale, float(np.square(error / scale).sum()), count, absolute)
