"""Activations that ONNX's reference does not have, or has only slow or prone to overflow."""

from __future__ import annotations

import importlib
import importlib.util
import math

import numpy as np

from bnfold.oracle.ops.call import Array, Call, Operator, Refusal


def _erf(x: Array) -> Array:
    """The error function in double: SciPy's where it is installed, otherwise Python's, element by element."""
    if importlib.util.find_spec("scipy") is not None:
        return np.asarray(importlib.import_module("scipy.special").erf(x))
    return np.asarray(np.frompyfunc(math.erf, 1, 1)(x), np.float64)


def erf(call: Call, x: Array) -> Array:  # noqa: ARG001
    """`Erf`."""
    return _erf(x)


def _softplus(x: Array) -> Array:
    return np.asarray(np.logaddexp(0.0, x))


def softplus(call: Call, x: Array) -> Array:  # noqa: ARG001
    """`Softplus`: `log(1 + e^x)`."""
    return _softplus(x)


def mish(call: Call, x: Array) -> Array:  # noqa: ARG001
    """`Mish`: `x·tanh(softplus x)`."""
    return np.asarray(x * np.tanh(_softplus(x)))


def _sigmoid(x: Array) -> Array:
    """`1 / (1 + e^−x)`; an `e^−x` that overflows gives 0, as it should."""
    return np.asarray(1 / (1 + np.exp(-x)))


def sigmoid(call: Call, x: Array) -> Array:  # noqa: ARG001
    """`Sigmoid`."""
    return _sigmoid(x)


def hard_sigmoid(call: Call, x: Array) -> Array:
    """`HardSigmoid`: `max(0, min(1, α·x + β))`."""
    return np.asarray(np.clip(call.get("alpha", 0.2) * x + call.get("beta", 0.5), 0, 1))


def hard_swish(call: Call, x: Array) -> Array:  # noqa: ARG001
    """`HardSwish`: `x·max(0, min(1, x/6 + 1/2))`, with the sixth as ONNX's function has it, in float32."""
    return np.asarray(x * np.clip(float(np.float32(1 / 6)) * x + 0.5, 0, 1))


def gelu(call: Call, x: Array) -> Array:
    """`Gelu`: `x·Φ(x)`, or with `approximate=tanh` the form with a hyperbolic tangent."""
    if call.get("approximate", "none") == "tanh":
        return _tanh_gelu(x)
    return np.asarray(0.5 * x * (1 + _erf(x / math.sqrt(2))))


def _tanh_gelu(x: Array) -> Array:
    return np.asarray(0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))))


def fast_gelu(call: Call, x: Array, bias: Array | None = None) -> Array:  # noqa: ARG001
    """`FastGelu` of com.microsoft: the form of `Gelu` with a hyperbolic tangent, of `x + bias`."""
    return _tanh_gelu(x if bias is None else x + bias)


def bias_gelu(call: Call, x: Array, bias: Array) -> Array:
    """`BiasGelu` of com.microsoft: `Gelu` of `x + bias`."""
    return gelu(call, x + bias)


def quick_gelu(call: Call, x: Array) -> Array:
    """`QuickGelu` of com.microsoft: `x·sigmoid(α·x)`."""
    return x * _sigmoid(call.get("alpha", 1.702) * x)


def softmax(call: Call, x: Array) -> Array:
    """`Softmax`: `e^x / Σ e^x` along one axis, or before opset 13 over all axes from `axis` on."""
    axes = _axes(call, x)
    powers = np.exp(x - x.max(axis=axes, keepdims=True, initial=-np.inf))
    return np.asarray(powers / powers.sum(axis=axes, keepdims=True))


def log_softmax(call: Call, x: Array) -> Array:
    """`LogSoftmax`: `x − log Σ e^x`, over the same axes as `Softmax`."""
    axes = _axes(call, x)
    shifted = x - x.max(axis=axes, keepdims=True, initial=-np.inf)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=axes, keepdims=True)))


def hardmax(call: Call, x: Array) -> Array:
    """`Hardmax`: 1 at the first maximum, 0 elsewhere, over the same axes as `Softmax`."""
    axes = _axes(call, x)
    rows = np.moveaxis(x, axes, range(-len(axes), 0))
    flat = rows.reshape(*rows.shape[: x.ndim - len(axes)], -1)
    ones = np.arange(flat.shape[-1]) == flat.argmax(axis=-1)[..., None]
    placed = np.moveaxis(ones.reshape(rows.shape), range(-len(axes), 0), axes)
    return np.asarray(placed, x.dtype)


def _axes(call: Call, x: Array) -> tuple[int, ...]:
    if call.opset >= 13:
        return (call.get("axis", -1) % x.ndim,)
    return tuple(range(call.get("axis", 1) % x.ndim, x.ndim))


def dropout(
    call: Call, x: Array, ratio: Array | None = None, training: Array | None = None
) -> tuple[Array, ...]:
    """`Dropout` at inference: its input, and a mask of ones."""
    trains = bool(training) and (ratio is None or float(ratio) != 0) if call.opset >= 12 else False
    if trains or (call.opset < 7 and not call.get("is_test", 0)):
        raise Refusal("it is in training mode, which is random")
    return x, np.ones(x.shape, bool)


OPERATORS: dict[str, Operator] = {
    "Dropout": dropout,
    "Erf": erf,
    "Gelu": gelu,
    "Hardmax": hardmax,
    "HardSigmoid": hard_sigmoid,
    "HardSwish": hard_swish,
    "LogSoftmax": log_softmax,
    "Mish": mish,
    "Sigmoid": sigmoid,
    "Softmax": softmax,
    "Softplus": softplus,
}
MICROSOFT: dict[str, Operator] = {
    "BiasGelu": bias_gelu,
    "FastGelu": fast_gelu,
    "Gelu": gelu,
    "QuickGelu": quick_gelu,
}
