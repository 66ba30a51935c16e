"""What a float type can hold, and whether numbers that were computed in float64 fit it."""

from __future__ import annotations

from typing import NamedTuple

import ml_dtypes
import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from bnfold import reasons
from bnfold.algebra.affine import Array
from bnfold.reasons import Rule

Elements = npt.NDArray[np.generic]

FLOATS = (ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.FLOAT, ir.DataType.DOUBLE)
"""The types that are folded."""

_FINFO = {dtype: ml_dtypes.finfo(dtype.numpy()) for dtype in FLOATS}  # type: ignore[no-untyped-call]

ROUNDOFF = {dtype: float(info.eps) / 2 for dtype, info in _FINFO.items()}
"""Unit roundoff: the largest relative error of rounding one number to the type."""

COARSE = {dtype: float(info.eps) * 2 for dtype, info in _FINFO.items()}
"""What rounding may cost, relative to the largest element: twice the distance of 1 from its neighbour."""

SMALLEST_NORMAL = {dtype: float(info.smallest_normal) for dtype, info in _FINFO.items()}

_SUBNORMAL = {dtype: float(info.smallest_subnormal) for dtype, info in _FINFO.items()}


class OutOfRangeError(Exception):
    """Folded constants do not fit their type; the fold that made them is taken back by the pass.

    Args:
        node: The node that was to read them.
        dtype: Their type.
        rule: Whether they are too large or too small for it.
    """

    def __init__(self, node: ir.Node, dtype: ir.DataType, rule: Rule = reasons.OVERFLOW) -> None:
        super().__init__(f"constants of {node.name} do not fit {dtype}")
        self.node = node
        self.dtype = dtype
        self.rule = rule


class _Layout(NamedTuple):
    """A float type's bits as an integer: without the sign, they are in the order of the magnitudes.

    Attributes:
        magnitude: All bits but the sign.
        infinite: The magnitude of infinity, above which is NaN.
        tiny: The magnitude from which on rounding cannot cost half of the largest element's digits.
    """

    magnitude: int
    infinite: int
    tiny: int


def _layout(dtype: ir.DataType) -> _Layout:
    # Rounding moves an element by half the distance of subnormals, or by less than a quarter of COARSE of
    # itself. Where the largest is at least one such distance over COARSE, neither is more than is allowed.
    tiny = _SUBNORMAL[dtype] / COARSE[dtype]
    bits = np.array([np.inf, tiny]).astype(dtype.numpy()).view(f"u{int(dtype.itemsize)}")
    return _Layout((1 << (dtype.bitwidth - 1)) - 1, int(bits[0]), int(bits[1]))


class Fit:
    """Whether products fit their type, found out while they are computed.

    The decision is over the whole tensor: an overflow anywhere; or an error that is too much for the largest
    element, which can only be where all of them are near the lower end of the range.
    """

    def __init__(self, node: ir.Node, dtype: ir.DataType) -> None:
        self._node, self._dtype = node, dtype
        self._layout = _layout(dtype)
        self._largest = 0  # the bits of the largest magnitude so far that is finite
        self._size = self._error = 0.0  # in float64, known as long as all are tiny

    def see(self, part: Elements, factor: Array, rounded: Elements) -> None:
        """Take note of a block: its source, its factor, and their product as it is rounded."""
        bits = rounded.view(f"<u{rounded.dtype.itemsize}")
        largest = self._magnitude(bits)
        if largest >= self._layout.infinite:
            finite = (bits & bits.dtype.type(self._layout.magnitude)) < self._layout.infinite
            if not np.array_equal(finite, np.isfinite(np.asarray(part, np.float64))):
                raise OutOfRangeError(self._node, self._dtype)
            largest = self._magnitude(bits[finite])
        self._largest = max(self._largest, largest)
        if self._largest < self._layout.tiny:
            self._measure(part, factor, rounded)

    def finish(self) -> None:
        """Say so if the products lost too many of their digits."""
        if self._largest < self._layout.tiny and self._error > COARSE[self._dtype] * self._size:
            raise OutOfRangeError(self._node, self._dtype, reasons.UNDERFLOW)

    def _magnitude(self, bits: npt.NDArray[np.unsignedinteger]) -> int:
        """The largest magnitude: among unsigned integers the negative ones win, among signed the others."""
        if not bits.size:
            return 0
        negative, positive = bits.max(), bits.view(f"<i{bits.dtype.itemsize}").max()
        return max(int(negative) & self._layout.magnitude, int(positive))

    def _measure(self, part: Elements, factor: Array, rounded: Elements) -> None:
        with np.errstate(invalid="ignore"):
            exact = np.asarray(part, np.float64) * factor
            finite = np.isfinite(exact)
            errors = np.abs(np.asarray(rounded, np.float64) - exact)
        self._size = max(self._size, float(np.abs(exact).max(initial=0, where=finite)))
        self._error = max(self._error, float(errors.max(initial=0, where=finite)))


def rounded(node: ir.Node, array: Array, dtype: ir.DataType) -> npt.NDArray[np.generic]:
    """Round an array once, to the type that `node` reads it in.

    Raises:
        OutOfRangeError: A number overflows, or rounding costs even the largest one half of its digits.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        rounded = np.asarray(array).astype(dtype.numpy())
    wide = np.asarray(rounded, np.float64)
    if not np.array_equal(np.isfinite(wide), np.isfinite(array)):
        raise OutOfRangeError(node, dtype)
    finite = np.where(np.isfinite(array), array, 0.0)
    error = np.abs(np.where(np.isfinite(array), wide, 0.0) - finite).max(initial=0)
    # even the largest number keeps less than half of the type's digits: all are near the end of its range
    if error > COARSE.get(dtype, 0.0) * np.abs(finite).max(initial=0):
        raise OutOfRangeError(node, dtype, reasons.UNDERFLOW)
    return rounded
