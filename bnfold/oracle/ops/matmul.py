"""MatMul and Gemm, and the fused forms of them and of Conv that ONNX Runtime's optimizer writes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from bnfold.oracle.ops.call import Array, Call, Operator, Refusal
from bnfold.oracle.ops.convolution import conv


def matmul(call: Call, a: Array, b: Array) -> Array:  # noqa: ARG001
    """`MatMul`, as NumPy defines it."""
    return np.asarray(np.matmul(a, b))


def gemm(call: Call, a: Array, b: Array, c: Array | None = None) -> Array:
    """`Gemm`: `α·op(A)·op(B) + β·C`."""
    a = a.T if call.get("transA", 0) else a
    b = b.T if call.get("transB", 0) else b
    product = call.get("alpha", 1.0) * (a @ b)
    return np.asarray(product if c is None else product + call.get("beta", 1.0) * c)


def einsum(call: Call, *factors: Array) -> Array:
    """`Einsum`, as matrix products where it can be."""
    return np.asarray(np.einsum(call.get("equation"), *factors, optimize=True))


def fused_matmul(call: Call, a: Array, b: Array) -> Array:
    """`FusedMatMul` of com.microsoft: `α·op(A)·op(B)`.

    `transA` swaps the last two axes; `transBatchA` moves the first axis in front of the last one, and happens
    before the swap.
    """
    a = _turned(a, call.get("transA", 0), call.get("transBatchA", 0))
    b = _turned(b, call.get("transB", 0), call.get("transBatchB", 0))
    return np.asarray(call.get("alpha", 1.0) * (a @ b))


def _turned(x: Array, swap: int, batch: int) -> Array:
    x = np.moveaxis(x, 0, -2) if batch else x
    return np.swapaxes(x, -1, -2) if swap and x.ndim > 1 else x


def fused_gemm(call: Call, a: Array, b: Array, c: Array | None = None) -> Array:
    """`FusedGemm` of com.microsoft: `Gemm`, then an activation."""
    names = ("activation_alpha", "activation_beta", "activation_gamma")
    parameters = [call.get(name) for name in names if call.get(name) is not None]
    return _activated(call.get("activation", ""), parameters, gemm(call, a, b, c))


def fused_conv(call: Call, x: Array, w: Array, bias: Array | None = None, z: Array | None = None) -> Array:
    """`FusedConv` of com.microsoft: `Conv`, plus `z` where it is given, then an activation."""
    y = conv(call, x, w, bias)
    return _activated(
        call.get("activation", ""), call.get("activation_params", []), y if z is None else y + z
    )


def _activated(name: str, parameters: Sequence[float], x: Array) -> Array:
    if name not in _ACTIVATIONS:
        raise Refusal(f"the activation {name!r} is not known")
    return np.asarray(_ACTIVATIONS[name](x, *parameters))


_ACTIVATIONS: dict[str, Callable[..., Any]] = {
    "": lambda x: x,
    "Clip": lambda x, low, high: np.clip(x, low, high),
    "HardSigmoid": lambda x, alpha, beta: np.clip(alpha * x + beta, 0, 1),
    "LeakyRelu": lambda x, alpha: np.where(x < 0, alpha * x, x),
    "Relu": lambda x: np.maximum(x, 0),
    "Sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "Tanh": np.tanh,
}


def contracted(call: Call, a_rank: int, b_rank: int) -> tuple[int, int]:
    """The axis of each factor that a matrix product of any of these kinds sums over."""
    left, right = call.get("transA", 0), call.get("transB", 0)
    a_axis = (0 if call.get("transBatchA", 0) else -2) if left and a_rank > 1 else -1
    b_axis = (0 if call.get("transBatchB", 0) else -2) if not right and b_rank > 1 else -1
    return a_axis % a_rank, b_axis % b_rank


OPERATORS: dict[str, Operator] = {"Einsum": einsum, "Gemm": gemm, "MatMul": matmul}
MICROSOFT: dict[str, Operator] = {
    "FusedConv": fused_conv,
    "FusedGemm": fused_gemm,
    "FusedMatMul": fused_matmul,
}
