"""What each float type can hold, and whether numbers that were computed in float64 fit it.

Numbers do not fit a type where one of them overflows, or where all are so small that even the largest loses
half of its digits. That is decided over a whole tensor, while its blocks are rounded one after the other.
"""

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

LARGEST = {dtype: float(info.max) for dtype, info in _FINFO.items()}
"""The largest finite number."""

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
    """A float type's bits as an integer: without the sign, their order is that of the magnitudes.

    Attributes:
        magnitude: All bits but the sign.
        infinite: The magnitude of infinity, above which is NaN.
        tiny: The magnitude from which on rounding cannot cost half of the largest element's digits.
    """

    magnitude: int
    infinite: int
    tiny: int


def _layout(dtype: ir.DataType) -> _Layout:
    # Rounding moves an element by at most half a subnormal, or by less than a quarter of COARSE of itself.
    # If the largest element is at least `tiny`, neither is more than COARSE of that, so nothing is measured.
    tiny = _SUBNORMAL[dtype] / COARSE[dtype]
    bits = np.array([np.inf, tiny]).astype(dtype.numpy()).view(f"u{int(dtype.itemsize)}")
    return _Layout((1 << (dtype.bitwidth - 1)) - 1, int(bits[0]), int(bits[1]))


class Fit:
    """Whether products fit their type, found out while they are computed.

    Args:
        node: The node that is to read them.
        dtype: Their type, one of `FLOATS`.
    """

    def __init__(self, node: ir.Node, dtype: ir.DataType) -> None:
        self._node, self._dtype = node, dtype
        self._layout = _layout(dtype)
        self._largest = 0  # the bits of the largest magnitude so far that is finite
        self._size = self._error = 0.0  # in float64, known as long as all are tiny

    def see(self, part: Elements, factor: Array | float, rounded: Elements) -> None:
        """Look at one block: its source, its factor, and their product as it was rounded.

        Raises:
            OutOfRangeError: A product overflows.
        """
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
        """Decide after the last block.

        Raises:
            OutOfRangeError: The products lost too many of their digits.
        """
        if self._largest < self._layout.tiny and self._error > COARSE[self._dtype] * self._size:
            raise OutOfRangeError(self._node, self._dtype, reasons.UNDERFLOW)

    def _magnitude(self, bits: npt.NDArray[np.unsignedinteger]) -> int:
        """The largest magnitude: of negative floats among unsigned integers, of others among signed ones."""
        if not bits.size:
            return 0
        negative, positive = bits.max(), bits.view(f"<i{bits.dtype.itemsize}").max()
        return max(int(negative) & self._layout.magnitude, int(positive))

    def _measure(self, part: Elements, factor: Array | float, rounded: Elements) -> None:
        with np.errstate(invalid="ignore"):
            exact = np.asarray(part, np.float64) * factor
            finite = np.isfinite(exact)
            errors = np.abs(np.asarray(rounded, np.float64) - exact)
        self._size = max(self._size, float(np.abs(exact).max(initial=0, where=finite)))
        self._error = max(self._error, float(errors.max(initial=0, where=finite)))


def rounded(node: ir.Node, array: Array, dtype: ir.DataType) -> Elements:
    """Round an array once, to the type that `node` reads it in.

    Raises:
        OutOfRangeError: They do not fit it.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        result = np.asarray(array).astype(dtype.numpy())
    if dtype not in FLOATS:  # the scales of a quantised weight may be of eight bits: what is exact fits
        wide = np.asarray(result, np.float64)
        if not np.array_equal(np.isfinite(wide), np.isfinite(array)):
            raise OutOfRangeError(node, dtype)
        if not np.array_equal(wide, array, equal_nan=True):
            raise OutOfRangeError(node, dtype, reasons.UNDERFLOW)
        return result
    fit = Fit(node, dtype)
    fit.see(array, 1.0, result)
    fit.finish()
    return result
