"""Tensors whose bytes come block by block, so that a large one can be written without ever being whole."""

from __future__ import annotations

import abc
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

BLOCK = 1 << 20  # bytes, about: large enough to make a block's overhead negligible, small enough for a cache


class BlockTensor(ir.TensorProtocol):
    """A constant whose bytes are made in blocks, each time they are asked for; nothing is kept.

    To onnx_ir it is a tensor like any other: `numpy()` and `tobytes()` put it together in new memory.

    Args:
        dtype: Any type but STRING.
        shape: The sizes.
        name: Of the tensor.
        doc_string: Of the tensor.
        metadata_props: Of the tensor.
    """

    def __init__(
        self,
        dtype: ir.DataType,
        shape: Sequence[int] | ir.Shape,
        *,
        name: str | None = None,
        doc_string: str | None = None,
        metadata_props: Mapping[str, str] | None = None,
    ) -> None:
        self.dtype = dtype
        self.shape = ir.Shape(shape.numpy() if isinstance(shape, ir.Shape) else shape, frozen=True)
        self.name = name
        self.doc_string = doc_string
        self.metadata_props = dict(metadata_props or {})
        self.meta: dict[str, Any] = {}

    @abc.abstractmethod
    def blocks(self) -> Iterator[memoryview | bytes]:
        """The tensor's `nbytes` bytes from the first to the last, little-endian and packed as `raw_data` is.

        A block has about a mebibyte, and is good until the next one is asked for.
        """

    @property
    def raw(self) -> BlockTensor:
        """What the elements come from: this tensor."""
        return self

    @property
    def size(self) -> int:
        """The number of elements."""
        return math.prod(self.shape.numpy())

    @property
    def nbytes(self) -> int:
        """The number of bytes; elements of less than a byte are packed."""
        return math.ceil(self.dtype.bitwidth * self.size / 8)

    def _complete(self) -> Iterator[memoryview | bytes]:
        """The blocks, known to be `nbytes` bytes when the last has been given."""
        count = 0
        for block in self.blocks():
            count += len(block)
            if count > self.nbytes:
                break
            yield block
        if count != self.nbytes:
            raise ValueError(f"{self!r} consists of {self.nbytes} bytes but gave {count}")

    def tofile(self, file: BinaryIO) -> None:
        """Write the bytes block by block."""
        for block in self._complete():
            file.write(block)

    def tobytes(self) -> bytes:
        """The bytes at once."""
        stream = io.BytesIO()
        self.tofile(stream)
        return stream.getvalue()

    def numpy(self) -> npt.NDArray[Any]:
        """The elements in a new array; types that NumPy lacks are those of ml_dtypes."""
        data, begin = np.empty(self.nbytes, np.uint8), 0
        for block in self._complete():
            data[begin : begin + len(block)] = np.frombuffer(block, np.uint8)
            begin += len(block)
        if self.dtype.bitwidth < 8:
            return ir.PackedTensor(data, self.dtype, shape=self.shape).numpy()
        return data.view(self.dtype.numpy().newbyteorder("<")).reshape(self.shape.numpy())

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> npt.NDArray[Any]:
        if copy is False:
            raise ValueError(f"{self!r} has no array yet that could be shared")
        array = self.numpy()
        return array if dtype is None else array.astype(dtype, copy=False)

    def __dlpack__(self, *, stream: Any = None) -> Any:
        return self.numpy().__dlpack__(stream=stream)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.numpy().__dlpack_device__()

    def __repr__(self) -> str:
        return f"{type(self).__name__}<{self.dtype},{self.shape}>(name={self.name!r})"
