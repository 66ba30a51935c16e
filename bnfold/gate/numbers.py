"""What is counted in a weight, some elements at a time: it may be larger than memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy.typing as npt
    import onnx_ir as ir

_STEP = 1 << 20  # elements at a time


@dataclass(frozen=True)
class Numbers:
    """One tensor of floats.

    Attributes:
        name: Its name.
        size: Its number of elements.
        nan: How many are NaN.
        infinite: How many are infinite.
        subnormal: How many are not zero and below the smallest normal number of their type.
        largest: The largest absolute value of those that are finite; 0 where none is.
    """

    name: str
    size: int
    nan: int
    infinite: int
    subnormal: int
    largest: float


def measure(name: str, tensor: ir.TensorProtocol) -> Numbers:
    """Count in one tensor of a float type."""
    import numpy as np

    from bnfold.tensors.precision import SMALLEST_NORMAL

    nan = infinite = subnormal = 0
    largest = 0.0
    smallest = SMALLEST_NORMAL.get(tensor.dtype, 0.0)
    for part in _parts(tensor):
        wide = part if part.dtype in (np.float32, np.float64) else part.astype(np.float32)
        size = np.abs(wide)
        finite = size[np.isfinite(size)]
        if finite.size < size.size:
            missing = int(np.isnan(size).sum())
            nan, infinite = nan + missing, infinite + size.size - finite.size - missing
        if finite.size:
            largest = max(largest, float(finite.max()))
            subnormal += int(np.count_nonzero((finite > 0) & (finite < smallest)))
    return Numbers(name, tensor.size, nan, infinite, subnormal, largest)


def _parts(tensor: ir.TensorProtocol) -> Iterator[npt.NDArray[Any]]:
    import numpy as np

    from bnfold.tensors.block_tensor import BlockTensor

    if isinstance(tensor, BlockTensor):
        kind = tensor.dtype.numpy().newbyteorder("<")
        for block in tensor.blocks():
            yield np.frombuffer(block, kind)
        return
    flat = tensor.numpy().reshape(-1)
    yield from (flat[start : start + _STEP] for start in range(0, flat.size, _STEP))
