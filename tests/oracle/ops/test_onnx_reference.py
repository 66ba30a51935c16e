"""ONNX's reference implementation: in double, or refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import TensorProto

from bnfold.oracle.evaluator import NotEvaluableError
from tests.oracle.ops.nodes import agrees, evaluated, floats

X = {"x": floats(2, 3, 4)}


def test_float_attributes_are_widened_not_kept_in_float32() -> None:
    # `alpha / beta` of two float32 scalars would be rounded to float32; x·alpha of two would be too.
    x = {"x": np.array(-0.3)}
    assert evaluated("LeakyRelu", x, alpha=0.1) == -0.3 * float(np.float32(0.1))
    assert evaluated("Celu", x, alpha=0.7) == pytest.approx(
        float(np.float32(0.7)) * np.expm1(-0.3 / float(np.float32(0.7))), rel=1e-15
    )


def test_attributes_that_meet_only_each_other_are_widened_too() -> None:
    q, k, v = (floats(1, 2, 3, 4, seed=seed) for seed in range(3))
    y = evaluated("Attention", {"q": q}, {"k": k, "v": v}, opset=23, scale=0.3)
    wide_q, wide_k, wide_v = (array.astype(np.float64) for array in (q, k, v))
    powers = np.exp(float(np.float32(0.3)) * wide_q @ np.swapaxes(wide_k, -1, -2))
    expected = powers / powers.sum(axis=-1, keepdims=True) @ wide_v
    assert np.abs(y - expected).max() < 1e-14


@pytest.mark.parametrize(
    ("operator", "attributes"),
    [("Elu", {"alpha": 0.7}), ("Selu", {}), ("ThresholdedRelu", {"alpha": 0.3}), ("Shrink", {"lambd": 0.3})],
)
def test_the_reference_agrees_with_the_runtime(operator: str, attributes: dict[str, Any]) -> None:
    agrees(operator, X, **attributes)


def test_stated_types_are_lifted() -> None:
    size = {"n": np.array(6)}
    assert evaluated("HannWindow", size, opset=17, output_datatype=TensorProto.FLOAT).dtype == np.float64
    assert evaluated("BlackmanWindow", size, opset=17, output_datatype=TensorProto.INT32).dtype == np.int32


@pytest.mark.parametrize("direction", ["forward", "bidirectional"])
@pytest.mark.parametrize(("operator", "gates"), [("LSTM", 4), ("GRU", 3), ("RNN", 1)])
def test_recurrent_networks(operator: str, gates: int, direction: str) -> None:
    count = 2 if direction == "bidirectional" else 1
    w, r, b = floats(count, 5 * gates, 3), floats(count, 5 * gates, 5), floats(count, 10 * gates)
    constants = {"w": w, "r": r, "b": b}
    common = {"hidden_size": 5, "direction": direction}
    agrees(operator, {"x": floats(4, 2, 3)}, constants, outputs=2, opset=14, **common)
    with pytest.raises(NotEvaluableError, match="clipping"):
        evaluated(operator, {"x": floats(4, 2, 3)}, constants, clip=1.0, opset=14, **common)
    lengths = {**constants, "lengths": np.array([4, 2], np.int32)}
    with pytest.raises(NotEvaluableError, match="lengths"):
        evaluated(operator, {"x": floats(4, 2, 3)}, lengths, opset=14, **common)


@pytest.mark.parametrize("operator", ["RandomNormalLike", "RandomUniformLike", "Bernoulli", "Multinomial"])
def test_randomness_is_refused(operator: str) -> None:
    with pytest.raises(NotEvaluableError, match=f"{operator}.*random") as caught:
        evaluated(operator, {"x": floats(2, 3)})
    assert "--oracle off" in caught.value.fix


def test_float32_inside_is_refused() -> None:
    with pytest.raises(NotEvaluableError, match="float32"):
        evaluated("GridSample", {"x": floats(1, 1, 3, 3)}, {"grid": floats(1, 2, 2, 2)}, opset=16)


def test_what_has_no_implementation_is_refused() -> None:
    with pytest.raises(NotEvaluableError, match="no reference implementation"):
        evaluated("Scatter", X, {"i": np.zeros((1, 1, 1), np.int64), "u": floats(1, 1, 1)}, opset=10)
    with pytest.raises(NotEvaluableError, match=r"operators of my\.domain"):
        evaluated("Add", X, domain="my.domain")
