"""Moving every weight by at most one rounding, to see how far that moves the outputs.

A weight is a constant that only arithmetic on data reads: factors, terms and statistics, also through
operators that only change its layout. Scales of Resize, bounds of Clip, exponents, shapes and whatever else
controls a computation are not weights, and neither is a constant whose reader computes from shapes alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

import onnx
import onnx_ir as ir

from bnfold.oracle.ops.call import is_float
from bnfold.oracle.prepare import Readers, Stored
from bnfold.oracle.weights import Weight

# The inputs that are weights of a layer; an empty tuple stands for all.
_ARITHMETIC: dict[str, tuple[int, ...]] = {
    **dict.fromkeys(("Add", "Div", "FusedGemm", "FusedMatMul", "Gemm", "MatMul", "Mul", "Sub", "Sum"), ()),
    **dict.fromkeys(("Conv", "ConvTranspose", "FusedConv"), (1, 2)),
    **dict.fromkeys(("GroupNormalization", "InstanceNormalization", "LayerNormalization"), (1, 2)),
    "BatchNormalization": (1, 2, 3, 4),
    "DequantizeLinear": (1,),
    "PRelu": (1,),
    "RMSNormalization": (1,),
}
# The inputs that such operators pass on.
_LAYOUT: dict[str, tuple[int, ...]] = {
    **dict.fromkeys(("Cast", "CastLike", "Expand", "Flatten", "Identity", "Reshape", "Squeeze"), (0,)),
    **dict.fromkeys(("Transpose", "Unsqueeze"), (0,)),
    "Concat": (),
    "DequantizeLinear": (1,),
}


def perturb(model: onnx.ModelProto, stored: Stored, seed: int) -> Readers:
    """Perturb the weights of a model that has been taken apart.

    Args:
        model: The model; those of its constants that are weights are replaced, in double.
        stored: Its larger weights.
        seed: Seed of all perturbations.

    Returns:
        Functions that read the larger weights, perturbed.
    """
    survey = _Survey(set(stored))
    survey.walk(model.graph, {})
    readers = {}
    for value in survey.values:
        if not survey.is_weight(value):
            continue
        if isinstance(value.constant, onnx.TensorProto):
            _replace(value.constant, value.name, seed)
        elif value.name in stored:
            readers[value.name] = Weight(stored[value.name], seed)
    return readers


def _replace(tensor: onnx.TensorProto, value: str, seed: int) -> None:
    held = ir.serde.deserialize_tensor(tensor)
    named = ir.Tensor(held.numpy(), dtype=held.dtype, name=value)
    tensor.CopyFrom(onnx.numpy_helper.from_array(Weight(named, seed)(), tensor.name))


@dataclass(eq=False)
class _Value:
    """A value, its content if it is constant, and its readers."""

    name: str
    constant: onnx.TensorProto | bool = False
    is_data: bool = False
    readers: list[tuple[onnx.NodeProto, int, list[_Value], list[_Value]]] = field(default_factory=list)
    escapes: bool = False


_Names: TypeAlias = dict[str, _Value]


class _Survey:
    """Every value of a graph and its subgraphs.

    Args:
        stored: The names of inputs that are weights.
    """

    def __init__(self, stored: set[str]) -> None:
        self.values: list[_Value] = []
        self._stored = stored

    def walk(self, graph: onnx.GraphProto, around: Mapping[str, _Value]) -> None:
        """Enter the values of a graph, which can see the values around it."""
        names: _Names = dict(around)
        for tensor in graph.initializer:
            self._enter(names, tensor.name, constant=tensor)
        for value in graph.input:
            if value.name in self._stored and not around:
                self._enter(names, value.name, constant=True)
            elif not any(tensor.name == value.name for tensor in graph.initializer):
                self._enter(names, value.name, is_data=True)
        for node in graph.node:
            self._walk_node(node, names)
        for value in graph.output:
            if value.name in names:
                names[value.name].escapes = True

    def _walk_node(self, node: onnx.NodeProto, names: _Names) -> None:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                self.walk(attribute.g, names)
        inputs = [names[name] if name in names else _Value(name) for name in node.input]
        steers = any(attribute.type == onnx.AttributeProto.GRAPH for attribute in node.attribute)
        moving = node.op_type not in ("Shape", "Size") and any(value.is_data for value in inputs)
        held = [a.t for a in node.attribute if node.op_type == "Constant" and a.name == "value"]
        outputs = [
            self._enter(names, name, constant=held[0] if held else False, is_data=moving or steers)
            for name in node.output
        ]
        for index, value in enumerate(inputs):
            value.readers.append((node, index, inputs, outputs))

    def _enter(
        self, names: _Names, name: str, *, constant: onnx.TensorProto | bool = False, is_data: bool = False
    ) -> _Value:
        names[name] = _Value(name, constant, is_data)
        self.values.append(names[name])
        return names[name]

    def is_weight(self, value: _Value) -> bool:
        """Whether a value is a constant that only arithmetic on data reads."""
        if isinstance(value.constant, onnx.TensorProto) and not is_float(value.constant.data_type):
            return False
        return bool(value.constant) and self._only_counts(value)

    def _only_counts(self, value: _Value) -> bool:
        """Whether every way on from a value ends in arithmetic on data."""
        if value.escapes or not value.readers:
            return False
        return all(self._counts(*reader) for reader in value.readers)

    def _counts(self, node: onnx.NodeProto, index: int, inputs: list[_Value], outputs: list[_Value]) -> bool:
        places = _ARITHMETIC.get(node.op_type)
        if places is not None and (not places or index in places) and any(v.is_data for v in inputs):
            return True
        places = _LAYOUT.get(node.op_type)
        if places is None or (places and index not in places) or not outputs:
            return False
        to = next((a.i for a in node.attribute if node.op_type == "Cast" and a.name == "to"), None)
        return (to is None or is_float(to)) and self._only_counts(outputs[0])
