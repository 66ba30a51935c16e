"""Operators that are evaluated by their function, against NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest

from bnfold.oracle.evaluator import NotEvaluableError
from bnfold.oracle.ops.functions import by_function
from bnfold.oracle.oracle import Oracle
from tests.oracle.ops.nodes import floats, node


@pytest.mark.skipif(onnx.defs.onnx_opset_version() < 27, reason="newer operators")
@pytest.mark.parametrize("activation", ["none", "silu"])
@pytest.mark.parametrize("past", [True, False])
def test_causal_convolutions(past: bool, activation: str) -> None:
    x, w, b = floats(2, 3, 6), floats(3, 1, 4), floats(3)
    state = floats(2, 3, 3) if past else np.zeros((2, 3, 3), np.float32)
    constants = {"w": w, "b": b} | ({"state": state} if past else {})
    model = node("CausalConvWithState", {"x": x}, constants, outputs=2, opset=27, activation=activation)
    y, present = Oracle(model).run({"x": x})
    padded = np.concatenate([state, x], axis=2).astype(np.float64)
    sums = sum(padded[:, :, tap : tap + 6] * w[:, 0, tap, None] for tap in range(4)) + b[:, None]
    expected = sums / (1 + np.exp(-sums)) if activation == "silu" else sums
    assert np.abs(y - expected).max() < 1e-14
    assert np.array_equal(present, padded[:, :, -3:])


@pytest.mark.skipif(onnx.defs.onnx_opset_version() < 27, reason="newer operators")
def test_linear_attention() -> None:
    q, k, v = (floats(1, 5, 6, seed=seed) for seed in range(3))
    decay, beta = -np.abs(floats(1, 5, 2)), np.abs(floats(1, 5, 2, seed=1))
    constants = {"k": k, "v": v, "decay": decay, "beta": beta}
    heads: dict[str, Any] = {"q_num_heads": 2, "kv_num_heads": 2, "update_rule": "gated_delta"}
    inputs = ["q", "k", "v", "", "decay", "beta"]
    model = node("LinearAttention", {"q": q}, constants, outputs=2, opset=27, inputs=inputs, **heads)
    y, present = Oracle(model).run({"q": q})
    split = [array.astype(np.float64).reshape(5, 2, 3) for array in (q, k, v)]
    for head in range(2):
        state = np.zeros((3, 3))
        for step in range(5):
            query, key, value = (array[step, head] for array in split)
            state = state * np.exp(float(decay[0, step, head]))
            state = state + np.outer(key, beta[0, step, head] * (value - state.T @ key))
            assert np.abs(y.reshape(5, 2, 3)[step, head] - state.T @ query / np.sqrt(3)).max() < 1e-14
        assert np.abs(present[0, head] - state).max() < 1e-14


@pytest.mark.skipif(onnx.defs.onnx_opset_version() < 26, reason="newer operators")
def test_attention_with_a_function_of_its_scores() -> None:
    q, k, v = (floats(1, 2, 3, 4, seed=seed) for seed in range(3))
    tanh = onnx.parser.parse_graph("g (float[1,2,3,3] s) => (float[1,2,3,3] t) { t = Tanh(s) }")
    model = node("FlexAttention", {"q": q}, {"k": k, "v": v}, domain="ai.onnx.preview", score_mod=tanh)
    model.opset_import.append(onnx.helper.make_opsetid("ai.onnx.preview", 1))
    y = Oracle(model).run({"q": q})[0]
    wide_q, wide_k, wide_v = (array.astype(np.float64) for array in (q, k, v))
    powers = np.exp(np.tanh(wide_q @ np.swapaxes(wide_k, -1, -2) / 2))
    assert np.abs(y - powers / powers.sum(axis=-1, keepdims=True) @ wide_v).max() < 1e-14


def test_what_has_no_function_is_refused() -> None:
    model = node("Conv", {"x": floats(1, 1, 3)}, {"w": floats(1, 1, 1)})
    oracle = Oracle(model, choose=lambda _: by_function)
    with pytest.raises(NotEvaluableError, match="no function"):
        oracle.run({"x": floats(1, 1, 3)})
    model.graph.node[0].op_type = "NoSuchOperator"
    with pytest.raises(NotEvaluableError, match="does not know"):
        Oracle(model, choose=lambda _: by_function).run({"x": floats(1, 1, 3)})
