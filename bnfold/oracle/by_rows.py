"""Operators on a weight that is too large for memory in float64: evaluated some of its rows at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from bnfold.graph.scopes import ONNX_DOMAINS
from bnfold.oracle.ops.call import Array, Call, Operator
from bnfold.oracle.weights import Weight
from bnfold.tensors.precision import ROUNDOFF

LARGE = 1 << 27
"""Bytes in float64 from which on a weight is never held as a whole, if its reader can do without."""

_PART = 1 << 25  # bytes of the rows that are held


def large_weight(call: Call, weight: Callable[[], Array] | None) -> Weight | None:
    """The weight that an operator is to read by rows, if it is large and the operator has a rule for that."""
    is_known = call.node.domain in ONNX_DOMAINS and call.node.op_type in _RULES
    if not is_known or not isinstance(weight, Weight) or weight.nbytes < LARGE:
        return None
    rank = len(weight.tensor.shape)
    fits = rank == 2 if call.node.op_type != "Conv" else call.get("group", 1) == 1
    return weight if fits and weight.tensor.dtype in ROUNDOFF else None


def evaluate(function: Operator, call: Call, inputs: Sequence[Any]) -> Array:
    """The output of a node whose second input is a large weight; `function` evaluates it for some rows."""
    return _RULES[call.node.op_type](function, call, inputs, inputs[1])


def _conv(function: Operator, call: Call, inputs: Sequence[Any], weight: Weight) -> Array:
    """Each row makes one output channel."""
    y = np.concatenate([function(call, inputs[0], rows) for rows in _rows(weight)], axis=1)
    bias = _third(inputs)
    return y if bias is None else y + bias.reshape(-1, *(1,) * (y.ndim - 2))


def _gemm(function: Operator, call: Call, inputs: Sequence[Any], weight: Weight) -> Array:
    """Each row makes one column of the output, or takes part in every sum."""
    a = inputs[0]
    if call.get("transB", 0):
        product = np.concatenate([function(call, a, rows) for rows in _rows(weight)], axis=1)
    else:
        product = call.get("alpha", 1.0) * _summed(a.T if call.get("transA", 0) else a, weight)
    c = _third(inputs)
    return product if c is None else product + call.get("beta", 1.0) * c


def _matmul(_function: Operator, _call: Call, inputs: Sequence[Any], weight: Weight) -> Array:
    """Each row takes part in every sum."""
    return _summed(inputs[0], weight)


def _summed(a: Array, weight: Weight) -> Array:
    total, place = np.zeros((*a.shape[:-1], weight.tensor.shape.numpy()[1])), 0
    if a.shape[-1] != weight.tensor.shape.numpy()[0]:
        raise ValueError(f"{a.shape} does not go with {weight.tensor.shape}")
    for rows in _rows(weight):
        total += a[..., place : place + len(rows)] @ rows
        place += len(rows)
    return total


def _third(inputs: Sequence[Any]) -> Array | None:
    return inputs[2] if len(inputs) > 2 else None


def _rows(weight: Weight) -> Iterator[Array]:
    return weight.rows(max(1, _PART * weight.tensor.shape.numpy()[0] // weight.nbytes))


_RULES: dict[str, Callable[[Operator, Call, Sequence[Any], Weight], Array]] = {
    "Conv": _conv,
    "Gemm": _gemm,
    "MatMul": _matmul,
}
