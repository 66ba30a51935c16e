"""Taking a model apart for the oracle: its graph with functions inlined, and its larger weights.

Weights are widened when they are read and dropped after their last reader, so the oracle needs little more
memory than the model's weights and the values in use. What stays in the graph (subgraphs,
`Constant` nodes, and small initializers, which shape inference reads) is widened when it is evaluated.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

import onnx
import onnx.checker
import onnx.inliner
import onnx_ir as ir

from bnfold.errors import ModelError, reason
from bnfold.files.external_data import self_contained
from bnfold.files.load import from_proto, load_onnx
from bnfold.files.other_types import to_proto
from bnfold.oracle.ops.call import Array
from bnfold.runtime.sessions import ModelLike

SMALLEST = 1024
"""Bytes of a constant that is kept; shapes, axes and scales, which decide sizes, are not larger."""

Stored: TypeAlias = dict[str, ir.TensorProtocol]
Readers: TypeAlias = Mapping[str, Callable[[], Array]]
"""Functions that read a weight in float64, by the name of its value."""


def take_apart(model: ModelLike) -> tuple[onnx.ModelProto, Stored]:
    """The graph and the weights of a model, which is not modified.

    Returns:
        A model in which each larger initializer has become an input of the same name, type and shape, and
        functions are inlined; and those initializers by name, as the model stores them.

    Raises:
        ModelError: The model cannot be read.
    """
    if isinstance(model, onnx.ModelProto):
        model = from_proto(model)
    copy = self_contained(model if isinstance(model, ir.Model) else load_onnx(model))
    weights = {}
    for name, value in tuple(copy.graph.initializers.items()):
        tensor = value.const_value
        if tensor is not None and tensor.dtype != ir.DataType.STRING and tensor.nbytes > SMALLEST:
            weights[name] = tensor
            del copy.graph.initializers[name]
            value.const_value = None
            value.type, value.shape = ir.TensorType(tensor.dtype), ir.Shape(tensor.shape.numpy())
            if not value.is_graph_input():
                copy.graph.inputs.append(value)
    proto = to_proto(copy)
    return (_inlined(proto) if proto.functions else proto), weights


def _inlined(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The model without its functions, except those that are written for another version of an opset."""
    try:
        return onnx.inliner.inline_local_functions(proto)
    except (RuntimeError, onnx.checker.ValidationError) as error:
        raise ModelError(
            f"The functions of the model cannot be inlined: {reason(error)}.",
            "onnx.checker.check_model says more about what is wrong with it.",
        ) from error
