"""Counts of n-grams against ONNX Runtime, and their weights in double."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.oracle.ops.nodes import agrees, evaluated

# The n-grams 2, 5, 7, then 5 6 and 7 2; each has its own column, in another order than in the pool.
POOL: dict[str, Any] = {
    "ngram_counts": [0, 3],
    "ngram_indexes": [3, 0, 4, 1, 2],
    "pool_int64s": [2, 5, 7, 5, 6, 7, 2],
    "weights": [0.1, 0.3, 0.7, 1.1, 1.3],
    "min_gram_length": 1,
    "max_gram_length": 2,
    "max_skip_count": 1,
}
X = {"x": np.array([[5, 6, 5, 6, 2, 2], [7, 2, 5, 1, 6, 7]])}


@pytest.mark.parametrize("mode", ["TF", "IDF", "TFIDF"])
def test_counts_and_weights(mode: str) -> None:
    agrees("TfIdfVectorizer", X, mode=mode, opset=9, **POOL)


def test_weights_are_not_rounded_again() -> None:
    y = evaluated("TfIdfVectorizer", X, mode="TFIDF", opset=9, **{**POOL, "max_skip_count": 0})
    unit = [float(np.float32(weight)) for weight in POOL["weights"]]
    assert y[0].tolist() == [2 * unit[1], 2 * unit[3], 0, 2 * unit[0], 0]


def test_without_weights() -> None:
    plain = {name: value for name, value in POOL.items() if name != "weights"}
    agrees("TfIdfVectorizer", X, mode="TFIDF", opset=9, **plain)
    agrees("TfIdfVectorizer", X, mode="IDF", opset=9, **plain)
