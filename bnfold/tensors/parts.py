"""Reading a constant in parts of a block each, however large it is.

A part is a run of neighbouring elements with its place in the whole. Each is read into the same memory as the
one before, so no more than a block is in memory at a time, and the system need not clear new pages.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from bnfold.tensors.block_tensor import BLOCK
from bnfold.tensors.file_tensor import FileTensor
from bnfold.tensors.precision import Elements

Place = tuple[int | slice, ...]
Memory = npt.NDArray[np.uint8]

_spare: list[Memory] = []  # a block each, for the next tensor; as many as were ever in use at once


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
    with borrowed() as memory:
        for where, size in places:
            part = placed(memory, size, tensor.dtype)
            tensor.file.read_into(part.reshape(-1).view(np.uint8).data, begin)
            tensor.file.check()
            begin += part.nbytes
            yield where, part


@contextlib.contextmanager
def borrowed() -> Iterator[Memory]:
    """Memory for one block after the other, since a system first clears new memory, page by page."""
    try:
        memory = _spare.pop()
    except IndexError:
        memory = np.empty(BLOCK, np.uint8)
    try:
        yield memory
    finally:
        _spare.append(memory)


def placed(memory: Memory, shape: tuple[int, ...], dtype: ir.DataType) -> Elements:
    """An array in borrowed memory, or in new memory where a part is larger than a block."""
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
