"""Operators of ai.onnx.ml whose reference implementation is exact or computes in double.

Its classifiers, its support vectors and its older tree ensembles compute in float32, and stay out.
"""

from __future__ import annotations

from typing import Any

from bnfold.oracle.ops.call import Array, Call, Operator, Refusal, widen
from bnfold.oracle.ops.onnx_reference import evaluate


def by_reference(call: Call, *inputs: Array) -> Any:
    """The reference's only output. Floats that it hands out in float32 are attributes, unchanged."""
    return widen(evaluate(call.node, call.opset, *inputs))


def tree_ensemble(call: Call, x: Array) -> Any:
    """`TreeEnsemble`: sums, means or extremes of leaves, as the reference finds them."""
    if call.get("post_transform", 0):
        raise Refusal("transforms of the results of trees are not evaluated")
    return evaluate(call.node, call.opset, x)


LEARNING: dict[str, Operator] = {
    **dict.fromkeys(("ArrayFeatureExtractor", "Binarizer", "LabelEncoder"), by_reference),
    "TreeEnsemble": tree_ensemble,
}
