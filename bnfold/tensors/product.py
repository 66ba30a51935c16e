"""Folded weights: a constant times a factor, computed in float64 and rounded once, block by block.

A weight is read when its product is asked for and not before, and no more than a block of it is in memory at
a time, however large it is.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from functools import reduce
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from bnfold import reasons
from bnfold.algebra.affine import Array
from bnfold.reasons import Rule
from bnfold.tensors.block_tensor import BLOCK, BlockTensor
from bnfold.tensors.file_tensor import FileTensor

Elements = npt.NDArray[np.generic]
Place = tuple[int | slice, ...]
Memory = npt.NDArray[np.uint8]

_spare: list[Memory] = []  # a block each, for the next tensor; as many as were ever in use at once

# twice the distance of 1 from its neighbour: what rounding may cost, relative to the largest element
COARSE = {
    ir.DataType.FLOAT16: 2.0**-9,
    ir.DataType.BFLOAT16: 2.0**-6,
    ir.DataType.FLOAT: 2.0**-22,
    ir.DataType.DOUBLE: 2.0**-51,
}
_SUBNORMAL = {  # the distance of subnormal numbers
    ir.DataType.FLOAT16: 2.0**-24,
    ir.DataType.BFLOAT16: 2.0**-133,
    ir.DataType.FLOAT: 2.0**-149,
    ir.DataType.DOUBLE: 2.0**-1074,
}


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


class Product(BlockTensor):
    """A constant tensor times factors; the source is read anew each time that the product is.

    Args:
        source: The constant, of any float type.
        factors: Arrays in float64 that broadcast against it; multiplied with each other before the constant.
        dtype: Type of the product, one of those in `COARSE`.
        node: The node that is to read it, which an
            [`OutOfRangeError`][bnfold.tensors.product.OutOfRangeError] names when
            the whole does not fit `dtype`.
        name: Of the tensor.
    """

    def __init__(
        self,
        source: ir.TensorProtocol,
        factors: Sequence[Array],
        dtype: ir.DataType,
        node: ir.Node,
        name: str | None = None,
    ) -> None:
        shape = source.shape.numpy()
        super().__init__(dtype, shape, name=name)
        self._source = source
        missing = [(1,) * (len(shape) - factor.ndim) for factor in factors]
        self._factors = [
            factor.reshape(ones + factor.shape) for ones, factor in zip(missing, factors, strict=True)
        ]
        self._node = node

    def blocks(self) -> Iterator[memoryview]:
        """The bytes, a block at a time.

        Raises:
            OutOfRangeError: A product overflows; or, behind the last block, all of them are so small that
                rounding cost half of their digits.
        """
        check = _Check(self._node, self.dtype)
        with _borrowed() as memory:
            for where, part in parts(self._source):
                factor = reduce(np.multiply, (_there(factor, where) for factor in self._factors))
                rounded = _in(memory, part.shape, self.dtype)
                _round(part, factor, rounded)
                check.see(part, factor, rounded)
                yield rounded.reshape(-1).view(np.uint8).data
        check.finish()


def parts(tensor: ir.TensorProtocol, whole: int = 0) -> Iterator[tuple[Place, Elements]]:
    """A tensor in parts of neighbouring elements, from the first to the last.

    Args:
        tensor: Of a type with whole bytes.
        whole: How many of the last axes no part cuts, even where it becomes larger than a block.

    Yields:
        Which part, as an index into an array of the tensor's shape, and its elements, which are good until
        the next part is asked for.
    """
    places = _places(tuple(tensor.shape.numpy()), max(BLOCK // int(tensor.dtype.itemsize), 1), whole)
    if not isinstance(tensor, FileTensor):
        array = tensor.numpy()
        yield from ((where, array[(*where, ...)]) for where, _ in places)
        return
    begin = tensor.offset
    with _borrowed() as memory:
        for where, size in places:
            part = _in(memory, size, tensor.dtype)
            tensor.file.read_into(part.reshape(-1).view(np.uint8).data, begin)
            tensor.file.check()
            begin += part.nbytes
            yield where, part


@contextlib.contextmanager
def _borrowed() -> Iterator[Memory]:
    """Memory for one block after the other: what a system hands out anew it clears first, page by page."""
    try:
        memory = _spare.pop()
    except IndexError:
        memory = np.empty(BLOCK, np.uint8)
    try:
        yield memory
    finally:
        _spare.append(memory)


def _in(memory: Memory, shape: tuple[int, ...], dtype: ir.DataType) -> Elements:
    """An array in borrowed memory, or in its own where a part is larger than a block."""
    kind = dtype.numpy().newbyteorder("<")
    size = math.prod(shape) * kind.itemsize
    return memory[:size].view(kind).reshape(shape) if size <= memory.size else np.empty(shape, kind)


def _places(shape: tuple[int, ...], limit: int, whole: int) -> Iterator[tuple[Place, tuple[int, ...]]]:
    """Where to cut: along the first axis whose rows are small enough, row by row before it."""
    last = max(len(shape) - whole, 0)
    axis = next((axis for axis in range(last) if math.prod(shape[axis + 1 :]) <= limit), last - 1)
    if axis < 0:
        yield (), shape
        return
    step = max(limit // max(math.prod(shape[axis + 1 :]), 1), 1)
    for outer in np.ndindex(shape[:axis]):
        for begin in range(0, shape[axis], step):
            end = min(begin + step, shape[axis])
            yield (*outer, slice(begin, end)), (end - begin, *shape[axis + 1 :])


def _there(factor: Array, where: Place) -> Array:
    """What of a factor belongs to a part; along an axis of size 1 it is the same everywhere."""
    own = (
        at if size > 1 else slice(None) if isinstance(at, slice) else 0
        for at, size in zip(where, factor.shape, strict=False)
    )
    return factor[(*own, ...)]


def _round(part: Elements, factor: Array, rounded: Elements) -> None:
    """The product in float64, rounded once; NumPy goes through its own small buffers, so none is wide."""
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        np.multiply(part, factor, out=rounded, dtype=np.float64, casting="unsafe")


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


class _Check:
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
