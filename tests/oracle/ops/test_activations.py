"""Activations against ONNX Runtime, at the edges where they overflow, and what is random."""

from __future__ import annotations

import importlib.util
import math
from typing import Any

import numpy as np
import pytest

from bnfold.oracle.evaluator import NotEvaluableError
from tests.oracle.ops.nodes import agrees, evaluated, floats
from tests.pairwise import pairwise

X = {"x": 4 * floats(2, 3, 4)}


@pytest.mark.parametrize(
    ("operator", "opset", "attributes"),
    [
        ("Erf", 13, {}),
        ("Gelu", 20, {}),
        ("Gelu", 20, {"approximate": "tanh"}),
        ("HardSigmoid", 13, {}),
        ("HardSigmoid", 13, {"alpha": 0.0, "beta": 0.25}),
        ("HardSwish", 14, {}),
        ("Mish", 18, {}),
        ("Sigmoid", 13, {}),
        ("Softplus", 13, {}),
    ],
)
def test_activations(operator: str, opset: int, attributes: dict[str, Any]) -> None:
    agrees(operator, X, opset=opset, **attributes)


@pairwise(
    attributes=[{}, {"axis": 0}, {"axis": 1}, {"axis": -1}],
    opset=[11, 13],
    operator=["Softmax", "LogSoftmax", "Hardmax"],
)
def test_softmax_before_and_since_opset_13(operator: str, opset: int, attributes: dict[str, int]) -> None:
    agrees(operator, X, opset=opset, **attributes)


def test_microsofts_activations() -> None:
    bias = {"b": floats(4)}
    for operator in ("Gelu", "FastGelu", "QuickGelu"):
        agrees(operator, X, domain="com.microsoft")
    for operator in ("FastGelu", "BiasGelu"):
        agrees(operator, X, bias, domain="com.microsoft")


def test_nothing_overflows_before_it_must() -> None:
    x = {"x": np.array([-800.0, 800.0])}
    assert evaluated("Softplus", x).tolist() == [0, 800]
    assert evaluated("Mish", x).tolist() == [0, 800]
    assert evaluated("Sigmoid", x).tolist() == [0, 1]
    assert evaluated("Softmax", x).tolist() == [0, 1]
    assert evaluated("LogSoftmax", x).tolist() == [-1600, 0]


def test_erf_is_the_same_without_scipy(monkeypatch: pytest.MonkeyPatch) -> None:
    with_scipy = evaluated("Erf", X)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    without = evaluated("Erf", X)
    assert without.dtype == np.float64
    assert np.abs(without - with_scipy).max() < 1e-15
    assert without.flat[0] == math.erf(float(X["x"].flat[0]))
    assert evaluated("Erf", {"x": np.zeros((0, 2), np.float32)}).shape == (0, 2)


def test_dropout() -> None:
    y, mask = agrees("Dropout", X, outputs=2, opset=13)
    assert mask.all()
    assert np.array_equal(y, X["x"])
    agrees("Dropout", X, opset=10, ratio=0.4)
    settings = {"ratio": np.array(0.5, np.float32), "training": np.array(True)}
    with pytest.raises(NotEvaluableError, match="random"):
        evaluated("Dropout", X, settings, opset=13)
    assert np.array_equal(
        evaluated("Dropout", X, {**settings, "ratio": np.zeros((), np.float32)}, opset=13), X["x"]
    )
