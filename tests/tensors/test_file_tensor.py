"""Tensors that stay in their file."""

from __future__ import annotations

import gc
import io
import os
import sys
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from bnfold.errors import ModelError
from bnfold.tensors.block_tensor import BLOCK
from bnfold.tensors.file_tensor import File, FileTensor

SHAPE = (700, 1000)  # of floats: more than two blocks


@pytest.fixture
def values() -> np.ndarray:
    return np.random.default_rng(0).standard_normal(SHAPE).astype("<f4")


@pytest.fixture
def path(tmp_path: Path, values: np.ndarray) -> Path:
    (tmp_path / "weights").write_bytes(b"before" + values.tobytes() + b"after")
    return tmp_path / "weights"


def float_tensor(path: Path) -> FileTensor:
    return FileTensor(File(path), 6, ir.DataType.FLOAT, SHAPE, name="w", metadata_props={"a": "b"})


def test_it_is_a_tensor_like_any(path, values) -> None:
    tensor = float_tensor(path)
    assert isinstance(tensor, ir.TensorProtocol)
    assert (tensor.name, tensor.dtype, tensor.shape, tensor.nbytes) == (
        "w",
        ir.DataType.FLOAT,
        ir.Shape(SHAPE),
        values.nbytes,
    )
    np.testing.assert_array_equal(tensor.numpy(), values)
    np.testing.assert_array_equal(np.asarray(tensor), values)
    assert tensor.tobytes() == values.tobytes()
    stream = io.BytesIO()
    tensor.tofile(stream)
    assert stream.getvalue() == values.tobytes()
    proto = ir.to_proto(tensor)
    assert (proto.name, proto.raw_data) == ("w", values.tobytes())
    assert proto.metadata_props[0].value == "b"
    assert "w" in repr(tensor)


def test_it_is_read_anew_each_time_into_memory_of_its_own(path, values) -> None:
    tensor = float_tensor(path)
    tensor.numpy()[:] = 0
    np.testing.assert_array_equal(tensor.numpy(), values)


def test_blocks_are_small_and_complete(path, values) -> None:
    blocks = [bytes(block) for block in float_tensor(path).blocks()]
    assert [len(block) for block in blocks] == [BLOCK, BLOCK, values.nbytes - 2 * BLOCK]
    assert b"".join(blocks) == values.tobytes()


@pytest.mark.parametrize(
    ("dtype", "shape"),
    [
        (ir.DataType.INT4, (3, 5)),
        (ir.DataType.UINT4, (4,)),
        (ir.DataType.FLOAT4E2M1, (7,)),
        (ir.DataType.INT2, (9,)),
        (ir.DataType.BFLOAT16, (2, 3)),
        (ir.DataType.FLOAT8E4M3FN, (6,)),
        (ir.DataType.BOOL, (2, 2)),
        (ir.DataType.COMPLEX64, (2,)),
        (ir.DataType.DOUBLE, ()),
        (ir.DataType.FLOAT, (0, 4)),
    ],
)
def test_types_are_as_in_a_model(tmp_path, dtype, shape) -> None:
    """The same bytes as `raw_data` are the same numbers."""
    raw = bytes(np.random.default_rng(1).integers(0, 2, 200, np.uint8))
    (tmp_path / "weights").write_bytes(raw)
    tensor = FileTensor(File(tmp_path / "weights"), 3, dtype, shape)
    proto = ir.to_proto(tensor)
    assert proto.raw_data == raw[3 : 3 + tensor.nbytes]
    expected = ir.from_proto(proto).numpy()
    assert tensor.numpy().dtype == expected.dtype
    assert tensor.numpy().tobytes() == expected.tobytes()
    assert tensor.numpy().shape == shape


def test_a_file_that_is_deleted_or_replaced_does_not_matter(path, values) -> None:
    tensor = float_tensor(path)
    other = path.with_name("other")
    other.write_bytes(bytes(100))
    other.replace(path)
    np.testing.assert_array_equal(tensor.numpy(), values)
    path.unlink()
    np.testing.assert_array_equal(tensor.numpy(), values)


@pytest.mark.parametrize("content", [b"", b"short", bytes(6 + 4 * SHAPE[0] * SHAPE[1] + 5)])
def test_a_file_that_is_written_to_is_noticed(path, content) -> None:
    tensor = float_tensor(path)
    tensor.file.check()
    path.write_bytes(content)
    os.utime(path, ns=(0, 0))  # however coarse the clock of the file system
    for read in (tensor.numpy, tensor.tobytes, tensor.file.check):
        with pytest.raises(ModelError, match="was written to"):
            read()


def test_a_change_between_two_blocks_is_noticed(path) -> None:
    blocks = float_tensor(path).blocks()
    next(blocks)
    with path.open("r+b") as stream:
        stream.write(b"x")
    os.utime(path, ns=(0, 0))
    with pytest.raises(ModelError, match="was written to"):
        next(blocks)


def test_slices_of_a_file(path) -> None:
    file, content = File(path), path.read_bytes()
    assert len(file) == len(content)
    for part in (
        slice(0, 6),
        slice(5, 50),
        slice(len(content) - 3, len(content) + 9),
        slice(9, 3),
        slice(None),
    ):
        assert file[part] == content[part]


def test_a_file_that_is_not_there(tmp_path) -> None:
    with pytest.raises(ModelError, match="cannot be read: No such file"):
        File(tmp_path / "absent")


def test_a_disk_that_fails(path, monkeypatch) -> None:
    tensor = float_tensor(path)

    def failing(*_: object) -> int:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "preadv", failing, raising=sys.platform != "win32")
    with pytest.raises(ModelError, match="cannot be read: Input/output error"):
        tensor.numpy()


def open_files() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="open files cannot be counted")
def test_a_file_is_closed_with_its_last_tensor(path) -> None:
    gc.collect()  # what other tests left behind
    before = open_files()
    first = float_tensor(path)
    second = FileTensor(first.file, 0, ir.DataType.UINT8, (6,))
    assert open_files() == before + 1
    del first
    assert second.tobytes() == b"before"
    del second
    gc.collect()
    assert open_files() == before
