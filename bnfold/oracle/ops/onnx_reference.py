"""ONNX's own reference implementation, for every operator that this package does not implement.

It computes in the types of its inputs, so in double. Operators that round to float32 inside, or that ignore
some of what their node states, have their own file here; those that are random are refused.
"""

from __future__ import annotations

import importlib
from typing import Any

import onnx

from bnfold.graph.scopes import ONNX_DOMAINS
from bnfold.oracle.ops.call import Array, Call, Operator, Refusal, is_float, widen

_RANDOM = frozenset(
    ("Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike")
)
_FOLDERS = {"": "", "ai.onnx.ml": ".aionnxml"}
_TYPES = ("dtype", "output_datatype", "output_dtype", "precision", "softmax_precision")


def reference(call: Call) -> Operator:
    """The reference implementation of a node of ONNX's own domain, as an operator.

    Raises:
        Refusal: It does not exist, or is random.
    """
    kind = call.node.op_type
    if kind in _RANDOM:
        raise Refusal("it is random")
    instance = _instance(call.node, call.opset)
    return lambda _, *inputs: instance.run(*inputs)


def evaluate(node: onnx.NodeProto, opset: int, *inputs: Array | None) -> Any:
    """The first output of one node of any of ONNX's domains, by the reference implementation."""
    return _instance(node, opset).run(*inputs)[0]


def _instance(node: onnx.NodeProto, opset: int) -> Any:
    """The reference's object for one node, with its float attributes and stated types widened."""
    domain = "" if node.domain in ONNX_DOMAINS else node.domain
    # Imported here, since that is slow and seldom needed.
    load_op = importlib.import_module(f"onnx.reference.ops{_FOLDERS[domain]}").load_op
    parameters = {"log": lambda *_: None, "opsets": {domain: opset}, "verbose": 0, "new_ops": None}
    try:
        made = load_op(domain, node.op_type, opset)(node, parameters)
    except Exception as error:  # from KeyError to RuntimeError, depending on the version of onnx
        raise Refusal(f"onnx {onnx.__version__} has no reference implementation for it") from error
    for name in made.attributes_names_:
        value = widen(getattr(made, name))
        if name in _TYPES and isinstance(value, int) and is_float(value):
            value = int(onnx.TensorProto.DOUBLE)
        setattr(made, name, value)
    return made
