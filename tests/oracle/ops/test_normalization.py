"""Normalisations against ONNX Runtime, and BatchNormalization of every opset."""

from __future__ import annotations

import numpy as np
import pytest

from bnfold.oracle.evaluator import NotEvaluableError
from bnfold.oracle.oracle import Oracle
from tests.graphs import statistics
from tests.oracle.ops.nodes import agrees, evaluated, floats, node

X = {"x": floats(2, 6, 5, 4)}
VECTORS = {"s": floats(6), "b": floats(6, seed=1)}


@pytest.mark.parametrize("opset", [7, 8, 9, 13, 14, 15])
def test_batch_normalization(opset: int) -> None:
    agrees("BatchNormalization", X, statistics(6), opset=opset, epsilon=0.01)


@pytest.mark.parametrize("shape", [(3, 6), (2, 6, 7), (1, 6, 3, 2, 4)])
def test_batch_normalization_of_any_rank(shape: tuple[int, ...]) -> None:
    agrees("BatchNormalization", {"x": floats(*shape)}, statistics(6))


def test_batch_normalization_of_every_element() -> None:
    constants = {name: np.abs(floats(6, 5, 4, seed=seed)) for seed, name in enumerate("sbmv")}
    agrees("BatchNormalization", X, constants, opset=7, spatial=0)


def test_batch_normalization_before_opset_7() -> None:
    old = evaluated("BatchNormalization", X, statistics(6), opset=6, is_test=1)
    assert np.array_equal(old, evaluated("BatchNormalization", X, statistics(6), opset=9))
    with pytest.raises(NotEvaluableError, match="training mode"):
        evaluated("BatchNormalization", X, statistics(6), opset=6)


def test_batch_normalization_in_training_mode() -> None:
    with pytest.raises(NotEvaluableError, match="training mode"):
        evaluated("BatchNormalization", X, statistics(6), opset=9, outputs=5)
    held, x = statistics(6), X["x"].astype(np.float64)
    model = node("BatchNormalization", X, held, opset=15, outputs=3, training_mode=1, momentum=0.75)
    y, mean, variance = Oracle(model).run(X)
    unit = (y - held["bias"].reshape(-1, 1, 1)) / held["scale"].reshape(-1, 1, 1)
    assert np.allclose(unit.mean(axis=(0, 2, 3)), 0, atol=1e-12)
    assert np.allclose(mean, 0.75 * held["mean"] + 0.25 * x.mean(axis=(0, 2, 3)))
    assert np.allclose(variance, 0.75 * held["var"] + 0.25 * x.var(axis=(0, 2, 3)))


def test_epsilon_is_taken_at_its_float32_value() -> None:
    one, zero = np.ones(1, np.float32), np.zeros(1, np.float32)
    constants = {"s": one, "b": zero, "m": zero, "v": zero}
    value = evaluated("BatchNormalization", {"x": np.ones((1, 1), np.float32)}, constants)[0, 0]
    assert value == 1 / np.sqrt(float(np.float32(1e-5)))


@pytest.mark.parametrize("groups", [1, 2, 6])
def test_group_normalization(groups: int) -> None:
    agrees("GroupNormalization", X, VECTORS, opset=21, num_groups=groups)
    constants = {"s": floats(groups), "b": floats(groups, seed=1)}
    agrees("GroupNormalization", X, constants, opset=18, num_groups=groups, epsilon=0.1)


def test_normalizations_of_one_sample() -> None:
    agrees("InstanceNormalization", X, VECTORS, epsilon=0.1)
    last = {"s": floats(4), "b": floats(4, seed=1)}
    agrees("LayerNormalization", X, last, outputs=3, epsilon=0.1)
    agrees("LayerNormalization", X, {"s": floats(5, 4)}, axis=2)
    agrees("MeanVarianceNormalization", X)
    agrees("RMSNormalization", X, {"s": floats(4)}, opset=23)


@pytest.mark.parametrize("size", [1, 3, 5, 11])
def test_local_response_normalization(size: int) -> None:
    agrees("LRN", X, size=size, alpha=0.3, beta=0.6, bias=1.5)


def test_local_response_normalization_of_an_even_size() -> None:
    x = {"x": np.arange(1.0, 5).reshape(1, 4, 1, 1)}
    sums = np.array([1 + 4, 1 + 4 + 9, 4 + 9 + 16, 9 + 16])  # none before for 2, one more after than before
    assert np.allclose(evaluated("LRN", x, size=3, alpha=3.0, beta=1.0).ravel(), x["x"].ravel() / (1 + sums))
    assert np.allclose(
        evaluated("LRN", x, size=2, alpha=2.0, beta=1.0).ravel(),
        x["x"].ravel() / (1 + np.array([5, 13, 25, 16])),
    )


@pytest.mark.parametrize("power", [1, 2])
def test_lp_normalization(power: int) -> None:
    x = floats(2, 3, 4)
    x[1, 2] = 0
    agrees("LpNormalization", {"x": x}, p=power, axis=2)
