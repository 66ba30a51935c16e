"""How much two outputs differ, and when that is too much.

With `a` the reference and `b` the other, over one output of one run, in float64:

- largest absolute error: `max |a − b|`;
- largest relative error: `max |a − b| / max |a|`, which is relative to the output's own scale. Relative to
  each element, those that happen to be near zero would decide, where every rounding is large;
- cosine similarity: `a·b / (‖a‖ ‖b‖)`;
- top-1 agreement, where the output is two-dimensional float with two columns or more: the share of rows whose
  largest element is at the same place. It is reported but does not decide: in a row with two equal maxima,
  rounding chooses one of them.

A float output agrees when its relative error is at most the tolerance. NaN and infinities must be at the
same places with the same signs; the rest is then compared, and where no finite number is left, nothing was.
Integers, bools and strings must be equal.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt

from bnfold.runtime.interface import dtype_name
from bnfold.tensors.precision import ROUNDOFF

UNITS = {dtype_name(dtype): roundoff for dtype, roundoff in ROUNDOFF.items()}
"""Unit roundoff by the name of a type."""

TOLERANCES = {
    # About 420 units in the last place of the scale: a few dozen layers that round their sums differently.
    "float32": 5e-5,
    # More units in the last place than for float32, but far below an error of float32 within the model.
    "float64": 1e-12,
    # Eight units in the last place: every layer rounds its output to so few bits that a fold changes the last
    # of them, since it rounds once where Conv and BatchNorm rounded twice.
    "float16": 16 * UNITS["float16"],
    "bfloat16": 16 * UNITS["bfloat16"],
}


@dataclass(frozen=True)
class Agreement:
    """The outcome of comparing one output, in one run or in several.

    Attributes:
        max_abs: Largest absolute error; None for strings.
        max_rel: Largest relative error; None unless float.
        cosine: Smallest cosine similarity; None unless float.
        rows: Rows of a classifier-like output, 0 for others.
        same_rows: Rows in which the same column is largest in both.
        problem: A sentence on why the output does not agree; None when it agrees.
        compared: Whether there was anything to compare: a number, a string, or a difference.
    """

    max_abs: float | None = None
    max_rel: float | None = None
    cosine: float | None = None
    rows: int = 0
    same_rows: int = 0
    problem: str | None = None
    compared: bool = False

    @property
    def top1(self) -> float | None:
        """Share of rows with the same largest column, 0 to 1; None for outputs without such rows."""
        return self.same_rows / self.rows if self.rows else None

    def worst(self, other: Agreement) -> Agreement:
        """Combine two outcomes: the worst figure of each kind, the sum of the rows, the first problem."""
        return Agreement(
            _either(max, self.max_abs, other.max_abs),
            _either(max, self.max_rel, other.max_rel),
            _either(min, self.cosine, other.cosine),
            self.rows + other.rows,
            self.same_rows + other.same_rows,
            self.problem or other.problem,
            self.compared or other.compared,
        )


def compare(reference: object, actual: object, tolerance: float) -> Agreement:
    """Compare one output of two runs; sequences, maps and optionals leaf by leaf.

    Args:
        reference: The array, list, dict or None that the reference gave.
        actual: What the other model gave.
        tolerance: Bound of the relative error of floats.
    """
    match reference, actual:
        case None, None:
            return Agreement()
        case list(), list() if len(reference) == len(actual):
            pairs = list(zip(reference, actual, strict=True))
        case dict(), dict() if reference.keys() == actual.keys():
            pairs = [(value, actual[key]) for key, value in reference.items()]
        case (None | list() | dict(), _) | (_, None | list() | dict()):
            return _different("It has another structure: a sequence, map or optional with other elements.")
        case _:
            return _compare_arrays(np.asarray(reference), np.asarray(actual), tolerance)
    outcome = Agreement()
    for one, other in pairs:
        outcome = outcome.worst(compare(one, other, tolerance))
    return outcome


def _different(problem: str) -> Agreement:
    return Agreement(problem=problem, compared=True)


def shapes(value: object) -> Iterator[tuple[int, ...]]:
    """The shape of every array in an output."""
    match value:
        case None:
            return
        case list():
            for element in value:
                yield from shapes(element)
        case Mapping():
            for element in value.values():
                yield from shapes(element)
        case _:
            yield np.asarray(value).shape


def widened(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Integers of two and four bits as int8 or uint8, with which NumPy computes; others as they are."""
    name = array.dtype.name
    if array.dtype.kind != "V" or "int" not in name:
        return array
    return array.astype(np.uint8 if name.startswith("u") else np.int8)


def _compare_arrays(a: npt.NDArray[Any], b: npt.NDArray[Any], tolerance: float) -> Agreement:
    if a.shape != b.shape:
        return _different(f"It has the shape {list(b.shape)} instead of {list(a.shape)}.")
    if a.dtype != b.dtype and not (a.dtype.kind in "OSU" and b.dtype.kind in "OSU"):
        return _different(f"It is {b.dtype} instead of {a.dtype}.")
    a, b = widened(a), widened(b)
    if a.dtype.kind in "OSU":
        wrong = int(np.count_nonzero(a != b))
        problem = f"{wrong} of {a.size} strings differ." if wrong else None
        return Agreement(problem=problem, compared=a.size > 0)
    if a.dtype.kind in "biu":
        error = np.abs(a.astype(np.float64) - b.astype(np.float64))
        wrong = int(np.count_nonzero(a != b))
        problem = f"{wrong} of {a.size} elements differ; {a.dtype} must be equal." if wrong else None
        return Agreement(max_abs=float(error.max(initial=0.0)), problem=problem, compared=a.size > 0)
    return _compare_floats(a, b, tolerance)


def _compare_floats(a: npt.NDArray[Any], b: npt.NDArray[Any], tolerance: float) -> Agreement:
    tiny = float(ml_dtypes.finfo(a.dtype).smallest_normal)  # type: ignore[no-untyped-call]
    rows, same_rows = _top1(a, b)
    a, b = a.astype(np.float64), b.astype(np.float64)
    finite = np.isfinite(a)
    if problem := _misplaced(a, b, finite):
        return Agreement(rows=rows, same_rows=same_rows, problem=problem, compared=True)
    a, b = a[finite], b[finite]
    error = float(np.abs(a - b).max(initial=0.0))
    scale = float(np.abs(a).max(initial=0.0))
    relative = error / scale if scale else 0.0 if error == 0 else math.inf
    if error > tolerance * scale + tiny:  # `tiny`: below it there is no full precision
        problem = (
            f"The largest error is {error:.3g}, which is {relative:.3g} of the output's scale {scale:.3g}; "
            f"at most {tolerance:.3g} is accepted."
        )
    return Agreement(error, relative, _cosine(a, b), rows, same_rows, problem, a.size > 0)


def _misplaced(a: npt.NDArray[Any], b: npt.NDArray[Any], finite: npt.NDArray[Any]) -> str | None:
    """A sentence on NaN and infinities at other places than in the reference."""
    nans = int(np.count_nonzero(np.isnan(a) != np.isnan(b)))
    if nans:
        return f"{nans} of {a.size} elements are NaN in one model and not in the other."
    infinities = (~finite | np.isinf(b)) & ~np.isnan(a) & (a != b)
    if wrong := int(np.count_nonzero(infinities)):
        return f"{wrong} of {a.size} elements are infinite in one model and not in the other."
    return None


def _cosine(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> float:
    """Cosine of the angle between two float64 vectors: 1 for two zero vectors, and 0 if only one is zero."""
    # Scaled first, so that the squares neither overflow nor underflow.
    a, b = (v / (np.abs(v).max(initial=0.0) or 1.0) for v in (a, b))
    norms = math.sqrt(float(a @ a) * float(b @ b))
    if norms == 0.0:
        return 1.0 if np.array_equal(a, b) else 0.0
    return min(1.0, max(-1.0, float(a @ b) / norms))


def _top1(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> tuple[int, int]:
    if a.ndim != 2 or a.shape[1] < 2:
        return 0, 0
    return a.shape[0], int(np.count_nonzero(a.argmax(axis=1) == b.argmax(axis=1)))


def _either(better: Any, one: float | None, other: float | None) -> float | None:
    """`better` of two figures, of which either may be missing."""
    figures = [figure for figure in (one, other) if figure is not None]
    return float(better(figures)) if figures else None
