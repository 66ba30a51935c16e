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


@pytest.mark.parametrize("inverse", [0, 1])
@pytest.mark.parametrize("size", [None, 5, 9])
def test_fourier_transforms(inverse: int, size: int | None) -> None:
    feeds = {"x": floats(2, 7, 3, 2)}
    constants = {} if size is None else {"n": np.array(size)}
    y = agrees("DFT", feeds, constants, opset=17, axis=1, inverse=inverse)[0]
    transform = np.fft.ifft if inverse else np.fft.fft
    x = feeds["x"].astype(float)
    expected = transform(x[..., 0] + 1j * x[..., 1], n=size, axis=1)
    assert np.abs(y[..., 0] + 1j * y[..., 1] - expected).max() < 1e-13


def test_one_side_of_a_fourier_transform() -> None:
    x = {"x": floats(2, 8, 1)}
    y = agrees("DFT", x, {"n": np.array(8), "axis": np.array(1)}, opset=20, onesided=1)[0]
    expected = np.fft.rfft(x["x"][..., 0].astype(float))
    assert np.abs(y[..., 0] + 1j * y[..., 1] - expected).max() < 1e-13


def test_short_transforms_of_a_signal() -> None:
    constants = {"step": np.array(3), "window": np.abs(floats(8)), "n": np.array(8)}
    agrees("STFT", {"x": floats(2, 20, 1)}, constants, opset=17, onesided=1)


def test_a_matrix_to_mel_bins() -> None:
    numbers = {"bins": np.array(8), "n": np.array(64), "rate": np.array(8000)}
    edges = {"low": np.array(0, np.float32), "high": np.array(4000, np.float32)}
    agrees("MelWeightMatrix", {**numbers, **edges}, opset=17)


@pytest.mark.parametrize("operator", ["RandomNormalLike", "RandomUniformLike", "Bernoulli", "Multinomial"])
def test_randomness_is_refused(operator: str) -> None:
    with pytest.raises(NotEvaluableError, match=f"{operator}.*random") as caught:
        evaluated(operator, {"x": floats(2, 3)})
    assert "--oracle off" in caught.value.fix


def test_what_has_no_implementation_is_refused() -> None:
    with pytest.raises(NotEvaluableError, match="no reference implementation"):
        evaluated("NoSuchOperator", X)
    with pytest.raises(NotEvaluableError, match=r"operators of my\.domain"):
        evaluated("Add", X, domain="my.domain")
