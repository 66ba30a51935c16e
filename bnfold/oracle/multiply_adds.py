"""How many multiply-adds one evaluation takes, which estimates its time in advance.

They are counted from inferred shapes. Where these are not known (after operators that ONNX does not know, or
where the data decide shapes or numbers of steps), the model is evaluated with zeros for every product, which
is fast without the expensive operators.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, TypeAlias

import numpy as np
import onnx
import onnx.shape_inference

from bnfold.graph.harmless import harmless
from bnfold.oracle.ops import operator
from bnfold.oracle.ops.call import Array, Call, Operator, attributes_of
from bnfold.oracle.ops.convolution import transposed
from bnfold.oracle.ops.matmul import contracted
from bnfold.oracle.ops.windows import windows_of
from bnfold.oracle.oracle import Oracle, Unknown
from bnfold.oracle.prepare import take_apart
from bnfold.runtime.sessions import Feeds, ModelLike

_CONVOLUTIONS = ("Conv", "ConvInteger", "ConvTranspose", "FusedConv", "QLinearConv")
_MATRICES = ("FusedGemm", "FusedMatMul", "Gemm", "MatMul", "MatMulInteger", "QLinearMatMul")
_SECOND = {"QLinearConv": 3, "QLinearMatMul": 3}  # the second factor, which elsewhere is input 1

_Shape: TypeAlias = Sequence[int]


def multiply_adds(model: ModelLike, feeds: Feeds, unknown: Unknown | None = None) -> int:
    """Count the multiply-adds of all convolutions and matrix products; biases and pools do not count.

    Args:
        model: A path, a `ModelProto` or an `onnx_ir.Model`.
        feeds: Inputs by name, whose shapes decide.
        unknown: As for the oracle; what it gets is then of the right shapes, but not of the right values.

    Raises:
        ModelError: The model cannot be read.
        InputError: An input is missing.
        NotEvaluableError: Shapes could neither be inferred nor found by evaluation.
    """
    proto, _ = take_apart(model)
    counted = of_graph(_inferred(proto, feeds).graph, {})
    if counted is not None:
        return counted
    counter = _Counter()
    Oracle(model, choose=counter.choose, unknown=unknown).run(feeds)
    return counter.total


def _of_call(call: Call, shapes: Sequence[_Shape], output: _Shape) -> int:
    """The multiply-adds of one node, given the shapes of its inputs and of its first output."""
    kind = call.node.op_type
    first, second = shapes[0], shapes[_SECOND.get(kind, 1)]
    if kind in _CONVOLUTIONS:
        # Every output element sums over a filter; if transposed, every input element is spread over one.
        return math.prod(first if kind == "ConvTranspose" else output) * math.prod(second[1:])
    return math.prod(output) * first[contracted(call, len(first), len(second))[0]]


def _counts(node: onnx.NodeProto) -> bool:
    return node.op_type in _CONVOLUTIONS or node.op_type in _MATRICES


def _inferred(model: onnx.ModelProto, feeds: Feeds) -> onnx.ModelProto:
    """The model with shapes inferred again from those of the feeds."""
    fresh = onnx.ModelProto()
    fresh.CopyFrom(model)
    _forget(fresh.graph)
    for value in fresh.graph.input:
        if value.name in feeds and value.type.HasField("tensor_type"):
            dims = [onnx.TensorShapeProto.Dimension(dim_value=size) for size in np.shape(feeds[value.name])]
            value.type.tensor_type.shape.CopyFrom(onnx.TensorShapeProto(dim=dims))
    try:
        return onnx.shape_inference.infer_shapes(harmless(fresh), data_prop=True)
    except Exception:  # evaluation then finds the shapes
        return fresh


def _forget(graph: onnx.GraphProto) -> None:
    """Drop the recorded shapes of everything that a graph computes: they may be of another batch or size."""
    del graph.value_info[:]
    for value in graph.output:
        value.ClearField("type")
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                _forget(attribute.g)


def of_graph(graph: onnx.GraphProto, around: Mapping[str, _Shape]) -> int | None:
    """The multiply-adds of one run of a graph; None where shapes or the number of steps are not known."""
    shapes = {**around, **{tensor.name: tuple(tensor.dims) for tensor in graph.initializer}}
    for value in (*graph.input, *graph.output, *graph.value_info):
        dims = value.type.tensor_type.shape.dim
        if value.type.tensor_type.HasField("shape") and all(dim.HasField("dim_value") for dim in dims):
            shapes[value.name] = tuple(dim.dim_value for dim in dims)
    total = 0
    for node in graph.node:
        counted = _of_node(node, shapes)
        if counted is None:
            return None
        total += counted
    return total


def _of_node(node: onnx.NodeProto, shapes: Mapping[str, _Shape]) -> int | None:
    bodies = [a.g for a in node.attribute if a.type == onnx.AttributeProto.GRAPH]
    if bodies:
        counted = {of_graph(body, shapes) for body in bodies}
        # Branches that cost the same; a body that is repeated counts only if it costs nothing.
        same = len(counted) == 1 and (node.op_type == "If" or counted == {0})
        return counted.pop() if same else None
    if not _counts(node):
        return 0
    needed = [node.input[0], node.input[_SECOND.get(node.op_type, 1)], node.output[0]]
    if not all(name in shapes for name in needed):
        return None
    call = Call(node, 1, attributes_of(node))
    return _of_call(call, [shapes.get(name, ()) for name in node.input], shapes[node.output[0]])


class _Counter:
    """Counts multiply-adds while a model is evaluated, and skips most of them."""

    def __init__(self) -> None:
        self.total = 0

    def choose(self, call: Call) -> Operator:
        """The function that evaluates a node: for products one that counts."""
        function = _CHEAP.get(call.node.op_type, operator(call))
        return partial(self._count, function) if _counts(call.node) else function

    def _count(self, function: Operator, call: Call, *inputs: Any) -> Any:
        result = function(call, *inputs)
        self.total += _of_call(call, [np.shape(value) for value in inputs], np.shape(result))
        return result


def _conv_zeros(call: Call, x: Array, w: Array, *_: Array | None) -> Array:
    return np.zeros((len(x), len(w), *windows_of(call, x.shape[2:], w.shape[2:]).outputs))


def _transposed_zeros(call: Call, x: Array, w: Array, *_: Array | None) -> Array:
    return np.zeros(
        (len(x), w.shape[1] * call.get("group", 1), *transposed(call, x.shape[2:], w.shape[2:])[1])
    )


def _thin_product(call: Call, a: Array, b: Array, *rest: Array | None) -> Any:
    """A matrix product over one element of the axis that it sums over."""
    a_axis, b_axis = contracted(call, a.ndim, b.ndim)
    return operator(call)(call, a.take([0], a_axis), b.take([0], b_axis), *rest)


_CHEAP: dict[str, Operator] = {
    **dict.fromkeys(("Conv", "FusedConv"), _conv_zeros),
    "ConvTranspose": _transposed_zeros,
    **dict.fromkeys(("FusedGemm", "FusedMatMul", "Gemm", "MatMul"), _thin_product),
}
