"""Which function evaluates a node: one of this package's, or ONNX's reference implementation."""

from __future__ import annotations

from bnfold.graph.scopes import ONNX_DOMAINS
from bnfold.oracle.ops import (
    activations,
    constants,
    control,
    convolution,
    matmul,
    normalization,
    pooling,
    quantized,
    resizing,
)
from bnfold.oracle.ops.call import Call, Operator, Refusal
from bnfold.oracle.ops.onnx_reference import reference

_OWN: dict[str, Operator] = {
    **activations.OPERATORS,
    **constants.OPERATORS,
    **control.OPERATORS,
    **convolution.OPERATORS,
    **normalization.OPERATORS,
    **pooling.OPERATORS,
    **matmul.OPERATORS,
    **quantized.OPERATORS,
    **resizing.OPERATORS,
}
_MICROSOFT: dict[str, Operator] = {**activations.MICROSOFT, **matmul.MICROSOFT, **quantized.MICROSOFT}


def operator(call: Call) -> Operator:
    """The function that evaluates a node.

    Raises:
        Refusal: There is none.
    """
    kind, domain = call.node.op_type, call.node.domain
    if domain in ONNX_DOMAINS:
        return _OWN[kind] if kind in _OWN else reference(call)
    if domain == "com.microsoft" and kind in _MICROSOFT:
        return _MICROSOFT[kind]
    raise Refusal(f"operators of {domain} are not known to it")
