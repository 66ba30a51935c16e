"""Folded weights: a constant times a factor, computed in float64 and rounded once, block by block.

A product is a tensor that is computed each time it is read: its source comes in parts, each is multiplied and
rounded, and whether the whole fits its type is found out along the way. So a folded weight need not fit into
memory, and one that is never read costs nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import reduce

import numpy as np
import onnx_ir as ir

from bnfold.algebra.affine import Array
from bnfold.tensors.block_tensor import BlockTensor
from bnfold.tensors.parts import Place, borrowed, parts, placed
from bnfold.tensors.precision import Elements, Fit, OutOfRangeError


class Product(BlockTensor):
    """A constant tensor times factors; the source is read again each time that the product is.

    Args:
        source: The constant, of any float type.
        factors: Arrays in float64 that broadcast against it; multiplied with each other before the constant.
        dtype: Type of the product, one of those in `COARSE`.
        node: The node that is to read it, which an
            [`OutOfRangeError`][bnfold.tensors.precision.OutOfRangeError] names when
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
            OutOfRangeError: A product overflows; or, after the last block, all of them are so small that
                rounding cost half of their digits.
        """
        fit = Fit(self._node, self.dtype)
        with borrowed() as memory:
            for where, part in parts(self._source):
                factor = reduce(np.multiply, (_there(factor, where) for factor in self._factors))
                rounded = placed(memory, part.shape, self.dtype)
                _round(part, factor, rounded)
                fit.see(part, factor, rounded)
                yield rounded.reshape(-1).view(np.uint8).data
        fit.finish()

    def misfit(self) -> OutOfRangeError | None:
        """What computing it raises, if anything; nothing is kept."""
        try:
            for _ in self.blocks():
                pass
        except OutOfRangeError as error:
            return error
        return None


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
