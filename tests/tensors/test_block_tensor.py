"""A tensor that comes in blocks is a tensor like any other."""

from __future__ import annotations

import io
from collections.abc import Iterator

import ml_dtypes
import numpy as np
import onnx_ir as ir
import pytest

from bnfold.tensors.block_tensor import BlockTensor


class Pieces(BlockTensor):
    """Its bytes five at a time, each time in the same memory."""

    def __init__(self, content: bytes, dtype: ir.DataType, shape: tuple[int, ...]) -> None:
        super().__init__(dtype, shape, name="t", doc_string="a doc", metadata_props={"k": "v"})
        self.content = content

    def blocks(self) -> Iterator[memoryview]:
        memory = bytearray(5)
        for begin in range(0, len(self.content), 5):
            part = self.content[begin : begin + 5]
            memory[: len(part)] = part
            yield memoryview(memory)[: len(part)]


TYPES = (
    ir.DataType.FLOAT,
    ir.DataType.FLOAT16,
    ir.DataType.BFLOAT16,
    ir.DataType.DOUBLE,
    ir.DataType.INT8,
    ir.DataType.INT64,
    ir.DataType.BOOL,
    ir.DataType.COMPLEX64,
    ir.DataType.FLOAT8E4M3FN,
    ir.DataType.INT4,
    ir.DataType.UINT4,
)


@pytest.mark.parametrize("dtype", TYPES)
def test_it_is_the_same_as_an_array_in_memory(dtype: ir.DataType) -> None:
    for shape in ((3, 5), (), (0, 4), (7,)):
        compare_with_an_array(dtype, shape)


def compare_with_an_array(dtype: ir.DataType, shape: tuple[int, ...]) -> None:
    values = np.random.default_rng(0).integers(0, 2 if dtype == ir.DataType.BOOL else 8, shape)
    expected = ir.Tensor(np.asarray(values).astype(dtype.numpy()), dtype, name="t")
    tensor = Pieces(expected.tobytes(), dtype, shape)
    assert isinstance(tensor, ir.TensorProtocol)
    assert (tensor.size, tensor.nbytes, tensor.shape) == (expected.size, expected.nbytes, expected.shape)
    assert tensor.tobytes() == expected.tobytes()
    for array in (tensor.numpy(), np.asarray(tensor)):
        assert array.dtype == expected.numpy().dtype
        np.testing.assert_array_equal(array, expected.numpy())
    stream = io.BytesIO()
    tensor.tofile(stream)
    assert stream.getvalue() == expected.tobytes()


def test_onnx_ir_serializes_it() -> None:
    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    in_memory = ir.Tensor(values, name="t", doc_string="a doc", metadata_props={"k": "v"})
    tensor = Pieces(values.tobytes(), ir.DataType.FLOAT, (2, 3))
    assert ir.to_proto(tensor) == ir.to_proto(in_memory)
    assert "Pieces" in repr(ir.Value(name="v", const_value=tensor))


def test_its_array_is_its_own_and_may_be_converted() -> None:
    tensor = Pieces(np.arange(3, dtype=np.float32).tobytes(), ir.DataType.FLOAT, (3,))
    tensor.numpy()[:] = 9
    np.testing.assert_array_equal(np.asarray(tensor, np.float64), [0.0, 1.0, 2.0])
    np.testing.assert_array_equal(np.from_dlpack(tensor), [0.0, 1.0, 2.0])
    assert Pieces(bytes(2), ir.DataType.BFLOAT16, (1,)).numpy().dtype == ml_dtypes.bfloat16
    with pytest.raises(ValueError, match="no array yet"):
        np.array(tensor, copy=False)


@pytest.mark.parametrize("count", [11, 13])
def test_too_few_or_too_many_bytes_are_noticed(count: int) -> None:
    tensor = Pieces(bytes(count), ir.DataType.FLOAT, (3,))
    for use in (tensor.tobytes, tensor.numpy, lambda: tensor.tofile(io.BytesIO())):
        with pytest.raises(ValueError, match=f"12 bytes but gave {count}"):
            use()


def test_a_tensor_without_blocks_cannot_be_made() -> None:
    with pytest.raises(TypeError, match="blocks"):
        BlockTensor(ir.DataType.FLOAT, (1,))  # type: ignore[abstract]
