"""Operators that state an element type: floats become float64, so Cast between floats is the identity."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from bnfold.oracle.ops.call import Array, Call, Operator, Refusal, array_of, is_float, widen


def constant(call: Call) -> Array:
    """`Constant`, whichever attribute holds it."""
    kinds = {
        "value": None,
        "value_float": np.float64,
        "value_floats": np.float64,
        "value_int": np.int64,
        "value_ints": np.int64,
        "value_string": np.str_,
        "value_strings": np.str_,
    }
    for name, kind in kinds.items():
        if (value := call.get(name)) is not None:
            if name == "value":
                return array_of(value)
            return np.asarray(value.decode() if isinstance(value, bytes) else value, kind)
    raise Refusal("it holds no dense value")


def constant_of_shape(call: Call, shape: Array) -> Array:
    """`ConstantOfShape`: zeros, or the one element of `value`."""
    value = array_of(call.get("value")) if call.get("value") is not None else np.zeros(1)
    return np.full(tuple(shape), value.reshape(()))


def cast(call: Call, x: Array) -> Array:
    """`Cast` to a float, a boolean, an integer of eight bits or more, or text; by name before opset 6."""
    to = call.get("to")
    to = onnx.TensorProto.DataType.Value(to.upper()) if isinstance(to, str) else to
    if is_float(to):
        return x.astype(np.float64)
    if to == onnx.TensorProto.STRING:
        return x.astype(str).astype(object)
    return _quantised(call, x, element_type(to))


def cast_like(call: Call, x: Array, like: Array) -> Array:
    """`CastLike`, whose second input has been widened already."""
    if like.dtype.kind in "OSU":
        return x.astype(str).astype(object)
    return _quantised(call, x, like.dtype)


def _quantised(call: Call, x: Array, kind: np.dtype[Any]) -> Array:
    """`x` in another type; to float8 with `saturate`, larger values become the largest one.

    Float8 of nothing but an exponent takes `round_mode`. What is rounded to it is first rounded to float32,
    so that a power of two which float64 misses by its own rounding stays one.
    """
    saturate = bool(call.get("saturate", 1))
    if "e8m0" in kind.name:
        mode = call.get("round_mode", "up")
        return np.asarray(onnx.numpy_helper.to_float8e8m0(x.astype(np.float32), saturate, mode), kind)
    if saturate and "float8" in kind.name and x.dtype.kind == "f":
        largest = float(ir.DataType.from_numpy(kind).max)
        x = np.where(np.isnan(x), x, np.clip(x, -largest, largest))
    return x.astype(kind)


def bit_cast(call: Call, x: Array) -> Array:
    """`BitCast`: the bits of floats as they are stored, not as they are widened here."""
    kind = element_type(call.get("to"))
    if x.dtype == np.float64 and kind.itemsize == 2:
        raise Refusal("its input may have been in float16 or in bfloat16")
    stored = x.astype(np.float32) if x.dtype == np.float64 and kind.itemsize == 4 else x
    return np.asarray(widen(stored.view(kind)))


def element_type(onnx_type: int) -> np.dtype[Any]:
    """NumPy's type for an element type of ONNX that is not widened."""
    return np.dtype(ir.DataType(onnx_type).numpy())


def eye_like(call: Call, x: Array) -> Array:
    """`EyeLike`: ones on a diagonal, of the type it states or that of its input."""
    stated = call.get("dtype")
    kind = x.dtype if stated is None else np.dtype(np.float64) if is_float(stated) else element_type(stated)
    rows, columns = x.shape
    return np.asarray(np.eye(rows, columns, call.get("k", 0), kind))


OPERATORS: dict[str, Operator] = {
    "BitCast": bit_cast,
    "Cast": cast,
    "CastLike": cast_like,
    "Constant": constant,
    "ConstantOfShape": constant_of_shape,
    "EyeLike": eye_like,
}
