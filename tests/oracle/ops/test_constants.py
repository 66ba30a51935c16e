"""Types that nodes state: lifted where they are floats, kept where they are not."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from onnx import TensorProto, helper

from bnfold.oracle.evaluator import NotEvaluableError
from bnfold.oracle.ops.call import Call, Refusal
from bnfold.oracle.ops.constants import constant
from bnfold.oracle.oracle import Oracle
from tests.graphs import build
from tests.oracle.ops.nodes import agrees, evaluated, floats, node

X = {"x": 3 * floats(3, 4)}


def test_a_cast_from_float_to_float_is_the_identity() -> None:
    graph = "g (float[2] x) => (float y) { h = Cast<to=10>(x)\n b = Cast<to=16>(h)\n y = Cast<to=1>(b) }"
    x = np.array([0.1, 1e6], np.float32)
    y = Oracle(build(graph)).run({"x": x})[0]
    assert y.dtype == np.float64
    assert np.array_equal(y, x)


@pytest.mark.parametrize("to", [TensorProto.INT32, TensorProto.INT8, TensorProto.BOOL, TensorProto.INT64])
def test_a_cast_to_integers_stays(to: int) -> None:
    agrees("Cast", X, to=to)


def test_a_cast_to_float8_saturates_if_so_told() -> None:
    x = {"x": np.array([0.3, 1e9, -1e9, np.nan])}
    for to, largest in ((TensorProto.FLOAT8E4M3FN, 448), (TensorProto.FLOAT8E5M2, 57344)):
        y = evaluated("Cast", x, to=to, opset=19)
        assert y.astype(float).tolist()[1:3] == [largest, -largest]
        assert np.isnan(float(y[3]))
    assert np.isinf(float(evaluated("Cast", x, to=TensorProto.FLOAT8E5M2, saturate=0, opset=19)[1]))


@pytest.mark.parametrize(
    ("mode", "expected"),
    [("up", [1, 2, 2, 2, 2.0**-3]), ("down", [1, 1, 1, 1, 2.0**-4]), ("nearest", [1, 1, 1, 2, 2.0**-3])],
)
def test_a_cast_to_powers_of_two(mode: str, expected: list[float]) -> None:
    # 1 + 2⁻⁵⁰ is a power of two that float64's own rounding missed.
    x = {"x": np.array([1 + 2.0**-50, 1.2, 1.4, 1.6, 0.1])}
    y = evaluated("Cast", x, to=TensorProto.FLOAT8E8M0, opset=24, round_mode=mode)
    assert y.astype(float).tolist() == expected
    like = evaluated("CastLike", x, {"like": y}, opset=24, round_mode=mode)
    assert like.dtype == y.dtype
    assert like.astype(float).tolist() == expected


def test_bits_are_those_of_the_stored_type() -> None:
    x = floats(3)
    bits = evaluated("BitCast", {"x": x}, to=TensorProto.INT32, opset=26)
    assert bits.tolist() == x.view(np.int32).tolist()
    back = evaluated("BitCast", {"x": bits}, to=TensorProto.FLOAT, opset=26)
    assert back.dtype == np.float64
    assert back.tolist() == x.tolist()
    wide = evaluated("BitCast", {"x": x.astype(np.float64)}, to=TensorProto.INT64, opset=26)
    assert wide.tolist() == x.astype(np.float64).view(np.int64).tolist()
    half = evaluated("BitCast", {"x": np.array([0x3C00], np.uint16)}, to=TensorProto.FLOAT16, opset=26)
    assert half.tolist() == [1]
    with pytest.raises(NotEvaluableError, match="bfloat16"):
        evaluated("BitCast", {"x": x.astype(np.float16)}, to=TensorProto.INT16, opset=26)


def test_cast_like() -> None:
    for kind in (np.float16, np.int32, np.bool_):
        expected = np.float64 if kind is np.float16 else kind
        assert evaluated("CastLike", X, {"like": np.zeros(1, kind)}).dtype == expected
    floored = evaluated("CastLike", X, {"like": np.zeros(1, ml_dtypes.int4)}, opset=21)
    assert np.array_equal(floored.astype(int), np.trunc(X["x"]))


def test_text_and_numbers() -> None:
    assert evaluated("Cast", {"x": np.array([1, 22])}, to=TensorProto.STRING).tolist() == ["1", "22"]
    numbers = evaluated("Cast", {"x": np.array(["1.5", "-2"], object)}, to=TensorProto.FLOAT)
    assert numbers.tolist() == [1.5, -2]


@pytest.mark.parametrize(
    ("attribute", "kind"),
    [
        ({"value": helper.make_tensor("t", TensorProto.FLOAT, [2], [0.5, 1.5])}, np.float64),
        ({"value": helper.make_tensor("t", TensorProto.BFLOAT16, [], [0.5])}, np.float64),
        ({"value": helper.make_tensor("t", TensorProto.INT32, [1], [5])}, np.int32),
        ({"value_float": 0.1}, np.float64),
        ({"value_floats": [0.1, 0.2]}, np.float64),
        ({"value_int": 3}, np.int64),
        ({"value_ints": [3, 4]}, np.int64),
        ({"value_string": "word"}, np.str_),
        ({"value_strings": ["word", "other"]}, np.str_),
    ],
)
def test_constant(attribute: dict[str, Any], kind: type) -> None:
    assert np.issubdtype(evaluated("Constant", {}, **attribute).dtype, kind)


def test_sparse_constants_are_refused() -> None:
    with pytest.raises(Refusal, match="no dense value"):
        constant(Call(helper.make_node("Constant", [], ["y"]), 18, {}))


def test_constant_of_shape_and_eye_like() -> None:
    shape = {"s": np.array([2, 3])}
    assert not agrees("ConstantOfShape", shape)[0].any()
    agrees("ConstantOfShape", shape, value=helper.make_tensor("t", TensorProto.FLOAT, [1], [0.25]))
    agrees("ConstantOfShape", shape, value=helper.make_tensor("t", TensorProto.INT32, [1], [7]))
    agrees("EyeLike", X, k=1)
    agrees("EyeLike", X, dtype=TensorProto.INT64, k=-1)
    assert Oracle(node("EyeLike", X, dtype=TensorProto.FLOAT16)).run(X)[0].dtype == np.float64
