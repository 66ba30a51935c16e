"""What an operator is told of its node: floats widened, attributes rounded to float32 and no further."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from bnfold.oracle.ops.call import Call, array_of, attributes_of, is_float, widen


@pytest.mark.parametrize("kind", [np.float16, np.float32, ml_dtypes.bfloat16])
def test_narrow_floats_are_widened(kind: type) -> None:
    narrow = np.array([0.1, 3.5], kind)
    wide = widen([narrow])[0]
    assert wide.dtype == np.float64
    assert wide.tolist() == [float(element) for element in narrow]
    assert widen(narrow[0]) == float(narrow[0])


def test_everything_else_stays() -> None:
    for value in (
        np.array([1]),
        np.array([0.5]),
        np.array([1], ml_dtypes.float8_e4m3fn),
        np.array(["a"]),
        None,
        3,
    ):
        assert widen(value) is value
    assert [is_float(kind) for kind in (TensorProto.BFLOAT16, TensorProto.DOUBLE, TensorProto.INT8)] == [
        True,
        True,
        False,
    ]
    assert not is_float(TensorProto.FLOAT8E5M2)


def test_attributes_become_python_values() -> None:
    tensor = helper.make_tensor("t", TensorProto.FLOAT16, [2], [0.5, 0.25])
    empty = helper.make_graph([], "g", [], [])
    node = helper.make_node(
        "X", [], [], f=0.1, fs=[0.5], i=3, ints=[1, 2], s="text", ss=["a"], t=tensor, g=empty
    )
    found = attributes_of(node)
    assert (found["f"], found["fs"], found["i"], found["ints"]) == (float(np.float32(0.1)), [0.5], 3, [1, 2])
    assert (found["s"], found["ss"]) == ("text", ["a"])
    assert found["t"] == tensor  # as it is stored, since it may be large
    assert array_of(found["t"]).dtype == np.float64
    assert "g" not in found


def test_defaults_are_rounded_as_stated_attributes_are() -> None:
    call = Call(helper.make_node("X", ["x"], ["", "z"]), 18, {"k": 2})
    assert (call.get("k", 1), call.get("axis", 1), call.get("none")) == (2, 1, None)
    assert call.get("epsilon", 1e-5) == float(np.float32(1e-5)) != 1e-5
    assert [call.wants(output) for output in range(3)] == [False, True, False]


def test_packed_and_external_types_are_read() -> None:
    four_bits = helper.make_tensor("t", TensorProto.INT4, [3], [-8, 7, 1])
    assert array_of(four_bits).astype(int).tolist() == [-8, 7, 1]
    assert array_of(onnx.numpy_helper.from_array(np.array([1.5], np.float32))).dtype == np.float64
