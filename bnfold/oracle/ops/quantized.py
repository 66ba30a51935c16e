"""Quantisation: integers and float8 stay as they are, scales and everything else are float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from bnfold.oracle.ops.call import Array, Call, Operator
from bnfold.oracle.ops.constants import element_type
from bnfold.oracle.ops.convolution import conv


def quantize_linear(call: Call, x: Array, scale: Array, zero: Array | None = None) -> Array:
    """`QuantizeLinear`: `x / scale`, rounded to even, plus the zero point, within the type's range."""
    stated = call.get("output_dtype", 0)
    kind = zero.dtype if zero is not None else element_type(stated) if stated else np.dtype(np.uint8)
    ratio = x / _spread(call, scale, x)
    return _to_grid(ratio, None if zero is None else _spread(call, zero, x), kind, call.get("saturate", 1))


def _to_grid(ratio: Array, zero: Array | None, kind: np.dtype[Any], saturate: int = 1) -> Array:
    data_type = ir.DataType.from_numpy(kind)
    if data_type.is_integer():
        ratio = np.rint(ratio) if zero is None else np.rint(ratio) + zero.astype(np.float64)
    if data_type.is_integer() or saturate:
        ratio = np.where(np.isnan(ratio), ratio, np.clip(ratio, float(data_type.min), float(data_type.max)))
    # Through int32, since the types of four bits and less convert from nothing larger.
    return np.asarray((ratio.astype(np.int32) if data_type.is_integer() else ratio).astype(kind))


def dequantize_linear(call: Call, x: Array, scale: Array, zero: Array | None = None) -> Array:
    """`DequantizeLinear`: `(x − zero point)·scale`, per tensor, per axis or per block."""
    values: Array = x.astype(np.float64)
    if zero is not None:
        values = values - _spread(call, zero.astype(np.float64), x)
    return np.asarray(values * _spread(call, scale, x))


def _spread(call: Call, parameter: Array, x: Array) -> Array:
    """A scale or zero point, shaped to broadcast against `x`."""
    if parameter.size == 1 and not call.get("block_size", 0):
        return parameter.reshape(())
    axis, block = call.get("axis", 1) % max(x.ndim, 1), call.get("block_size", 0)
    if block:
        repeated = np.repeat(parameter, block, axis=axis)
        return np.asarray(repeated.take(np.arange(x.shape[axis]), axis))
    return parameter.reshape(*(-1 if place == axis else 1 for place in range(x.ndim)))


def dynamic_quantize_linear(call: Call, x: Array) -> tuple[Array, Array, Array]:  # noqa: ARG001
    """`DynamicQuantizeLinear`: to uint8, by the scale and zero point that cover `x` and zero."""
    low, high = min(float(x.min(initial=0.0)), 0.0), max(float(x.max(initial=0.0)), 0.0)
    scale = (high - low) / 255 or 1.0
    zero = np.asarray(np.clip(np.rint(-low / scale), 0, 255))
    return _to_grid(x / scale, zero, np.dtype(np.uint8)), np.asarray(scale), zero.astype(np.uint8)


def _centred(x: Array, zero: Array | None) -> Array:
    """Integers less their zero point, in float64, where their products and sums are exact."""
    return x.astype(np.float64) if zero is None else x.astype(np.float64) - zero.astype(np.float64)


def _rows(parameter: Array, rank: int) -> Array:
    """A parameter of one entry for each row of a matrix, shaped to broadcast against it."""
    return parameter[:, None] if parameter.ndim == 1 and parameter.size > 1 and rank > 1 else parameter


def conv_integer(
    call: Call, x: Array, w: Array, x_zero: Array | None = None, w_zero: Array | None = None
) -> Array:
    """`ConvInteger`."""
    return conv(call, _centred(x, x_zero), _filters(w, w_zero)).astype(np.int32)


def _filters(w: Array, zero: Array | None) -> Array:
    return _centred(w, None if zero is None else zero.reshape(-1, *(1,) * (w.ndim - 1)))


def qlinear_conv(
    call: Call,
    x: Array,
    x_scale: Array,
    x_zero: Array,
    w: Array,
    w_scale: Array,
    w_zero: Array,
    y_scale: Array,
    y_zero: Array,
    bias: Array | None = None,
) -> Array:
    """`QLinearConv`: the convolution of the integers, scaled and rounded once."""
    total = conv(call, _centred(x, x_zero), _filters(w, w_zero), None if bias is None else bias.astype(float))
    scale = x_scale * w_scale.reshape(-1, *(1,) * (x.ndim - 2)) / y_scale
    return _to_grid(total * scale, y_zero, y_zero.dtype)


def matmul_integer(
    call: Call,  # noqa: ARG001
    a: Array,
    b: Array,
    a_zero: Array | None = None,
    b_zero: Array | None = None,
) -> Array:
    """`MatMulInteger`."""
    left = _centred(a, None if a_zero is None else _rows(a_zero, a.ndim))
    return np.asarray(left @ _centred(b, b_zero)).astype(np.int32)


def qlinear_matmul(
    call: Call,  # noqa: ARG001
    a: Array,
    a_scale: Array,
    a_zero: Array,
    b: Array,
    b_scale: Array,
    b_zero: Array,
    y_scale: Array,
    y_zero: Array,
) -> Array:
    """`QLinearMatMul`: the product of the integers, scaled and rounded once."""
    total = _centred(a, _rows(a_zero, a.ndim)) @ _centred(b, b_zero)
    scale = _rows(a_scale, a.ndim) * b_scale / _rows(y_scale, a.ndim)
    return _to_grid(total * scale, _rows(y_zero, a.ndim), y_zero.dtype)


OPERATORS: dict[str, Operator] = {
    "ConvInteger": conv_integer,
    "DequantizeLinear": dequantize_linear,
    "DynamicQuantizeLinear": dynamic_quantize_linear,
    "MatMulInteger": matmul_integer,
    "QLinearConv": qlinear_conv,
    "QLinearMatMul": qlinear_matmul,
    "QuantizeLinear": quantize_linear,
}
MICROSOFT: dict[str, Operator] = {name: OPERATORS[name] for name in ("DequantizeLinear", "QuantizeLinear")}
