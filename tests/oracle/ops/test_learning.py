"""Operators of ai.onnx.ml against ONNX Runtime or what they mean; those in float32 are refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest

from bnfold.oracle.evaluator import NotEvaluableError
from bnfold.oracle.oracle import Oracle
from tests.oracle.ops.nodes import agrees_on, floats, node

X = {"x": floats(4, 3)}


def model(operator: str, feeds: Any, constants: Any = None, version: int = 4, **attributes: Any) -> Any:
    made = node(operator, feeds, constants, domain="ai.onnx.ml", **attributes)
    made.opset_import.append(onnx.helper.make_opsetid("ai.onnx.ml", version))
    return made


def test_columns_and_thresholds() -> None:
    agrees_on(model("ArrayFeatureExtractor", X, {"i": np.array([2, 0])}), X)
    agrees_on(model("Binarizer", X, threshold=0.1), X)


def test_labels_of_every_kind() -> None:
    names = {"x": np.array(["b", "a", "z"], object)}
    numbers = model(
        "LabelEncoder", names, keys_strings=["a", "b"], values_floats=[0.1, 0.2], default_float=0.3
    )
    y = Oracle(numbers).run(names)[0]
    assert y.dtype == np.float64
    assert y.tolist() == [float(np.float32(value)) for value in (0.2, 0.1, 0.3)]
    floating = {"x": np.array([0.1, 7], np.float32)}
    indices = model("LabelEncoder", floating, keys_floats=[0.1], values_int64s=[5], default_int64=-1)
    agrees_on(indices, floating)


def tree(**attributes: Any) -> Any:
    """A tree of two decisions: x₀ ≤ 0.1, then x₂ ≤ −0.2."""
    from onnx.numpy_helper import from_array

    return model(
        "TreeEnsemble",
        X,
        version=5,
        n_targets=1,
        tree_roots=[0],
        nodes_featureids=[0, 2],
        nodes_splits=from_array(np.array([0.1, -0.2], np.float32)),
        nodes_modes=from_array(np.array([0, 0], np.uint8)),
        nodes_truenodeids=[1, 1],
        nodes_trueleafs=[0, 1],
        nodes_falsenodeids=[0, 2],
        nodes_falseleafs=[1, 1],
        leaf_targetids=[0, 0, 0],
        leaf_weights=from_array(np.array([0.3, 0.5, 0.7], np.float32)),
        **attributes,
    )


def test_trees() -> None:
    y = Oracle(tree()).run(X)[0]
    leaves = [float(np.float32(weight)) for weight in (0.3, 0.5, 0.7)]
    split = [float(np.float32(threshold)) for threshold in (0.1, -0.2)]
    expected = [
        leaves[0] if a > split[0] else leaves[1] if c <= split[1] else leaves[2] for a, _, c in X["x"]
    ]
    assert y.reshape(-1).tolist() == expected
    assert len(set(expected)) > 1
    agrees_on(tree(), X)
    with pytest.raises(NotEvaluableError, match="transforms"):
        Oracle(tree(post_transform=2)).run(X)


def test_what_computes_in_float32_is_refused() -> None:
    with pytest.raises(NotEvaluableError, match=r"ai\.onnx\.ml"):
        Oracle(model("LinearClassifier", X, coefficients=[1.0] * 3, version=1, outputs=2))
