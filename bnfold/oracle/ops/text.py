"""Counts of words and of sequences of them."""

from __future__ import annotations

import numpy as np
import onnx

from bnfold.oracle.ops.call import Array, Call, Operator
from bnfold.oracle.ops.onnx_reference import evaluate


def tfidf_vectorizer(call: Call, x: Array) -> Array:
    """`TfIdfVectorizer`: how often each n-gram of a pool occurs, whether it does, or both, by weights.

    The reference counts; it would round products with weights to float32.
    """
    node, mode = onnx.NodeProto(), call.get("mode")
    node.CopyFrom(call.node)
    next(attribute for attribute in node.attribute if attribute.name == "mode").s = b"TF"
    counts = np.asarray(evaluate(node, call.opset, x), np.float64)
    if mode == "TF":
        return counts
    found = counts if mode == "TFIDF" else (counts > 0).astype(np.float64)
    weights = call.get("weights")
    if not weights:
        return found
    # A weight belongs to an n-gram of the pool, a column to its index.
    columns = np.zeros(counts.shape[-1])
    columns[np.asarray(call.get("ngram_indexes"))] = weights
    return found * columns


OPERATORS: dict[str, Operator] = {"TfIdfVectorizer": tfidf_vectorizer}
