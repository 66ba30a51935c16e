"""ONNX's own reference implementation, for every operator that this package does not implement.

It computes in the types of its inputs, so in double. The exceptions are refused: operators that round to
float32 inside, that are random, or that ignore some of what their node states.
"""

from __future__ import annotations

from typing import Any

import onnx

from bnfold.oracle.ops.call import Array, Call, Operator, Refusal, is_float, widen

_RANDOM = frozenset(
    ("Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike")
)
_SINGLE = frozenset(
    """
    AffineGrid CausalConvWithState FlexAttention GridSample LinearAttention MelWeightMatrix TfIdfVectorizer
    """.split()  # noqa: SIM905 - a list of strings would be ten lines long
)
# Attributes and inputs that the reference's recurrent networks accept and then ignore.
_IGNORED = ("activations", "clip", "activation_alpha", "activation_beta")
_LENGTHS = 4
_TYPES = ("dtype", "output_datatype", "output_dtype", "precision", "softmax_precision")


def reference(call: Call) -> Operator:
    """The reference implementation of a node of ONNX's own domain, as an operator.

    Raises:
        Refusal: It does not exist, or does not compute in double what the node states.
    """
    kind = call.node.op_type
    if kind in _RANDOM:
        raise Refusal("it is random")
    if kind in _SINGLE:
        raise Refusal("its reference implementation computes in float32")
    if kind in ("GRU", "LSTM", "RNN") and (
        any(name in call.attributes for name in _IGNORED) or any(call.node.input[_LENGTHS : _LENGTHS + 1])
    ):
        raise Refusal("lengths, clipping and other activations of recurrent networks are not evaluated")
    instance = _instance(call.node, call.opset)
    return lambda _, *inputs: instance.run(*inputs)


def evaluate(node: onnx.NodeProto, opset: int, *inputs: Array | None) -> Any:
    """The first output of one node, by the reference implementation."""
    return _instance(node, opset).run(*inputs)[0]


def _instance(node: onnx.NodeProto, opset: int) -> Any:
    """The reference's object for one node, with its float attributes and stated types widened."""
    from onnx.reference.ops import load_op  # slow to import, and seldom needed

    parameters = {"log": lambda *_: None, "opsets": {"": opset}, "verbose": 0, "new_ops": None}
    try:
        made = load_op("", node.op_type, opset)(node, parameters)
    except Exception as error:  # from KeyError to RuntimeError, depending on the version of onnx
        raise Refusal(f"onnx {onnx.__version__} has no reference implementation for it") from error
    for name in made.attributes_names_:
        value = widen(getattr(made, name))
        if name in _TYPES and isinstance(value, int) and is_float(value):
            value = int(onnx.TensorProto.DOUBLE)
        setattr(made, name, value)
    return made
