"""How large a tensor is, asked of many thousands of small ones.

onnx_ir makes a new `Shape`, object by object, each time that a tensor of protobuf is asked for one of these.
"""

from __future__ import annotations

import math
from functools import cache

import onnx_ir as ir


def sizes(tensor: ir.TensorProtocol) -> tuple[int, ...]:
    """A tensor's sizes."""
    return tuple(tensor.raw.dims if isinstance(tensor, ir.TensorProtoTensor) else tensor.shape.numpy())


def nbytes(tensor: ir.TensorProtocol) -> int:
    """The bytes of a tensor's elements."""
    if isinstance(tensor, ir.TensorProtoTensor):
        elements: int = math.prod(tensor.raw.dims)
        return math.ceil(_itemsize(tensor.raw.data_type) * elements)
    return int(tensor.nbytes)


@cache
def _itemsize(data_type: int) -> float:
    return ir.DataType(data_type).itemsize
