"""A model as its caller sees it: the names, types and shapes of its inputs and outputs."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TypeAlias

import onnx
import onnx_ir as ir

from bnfold.files.load import from_proto, load_onnx
from bnfold.files.other_types import type_of
from bnfold.runtime.sessions import ModelLike

Shape: TypeAlias = tuple[int | str | None, ...]


@dataclass(frozen=True)
class Port:
    """One graph input or output.

    Attributes:
        name: The value's name.
        type: `"float32"`, `"int64"`, `"sequence(map(int64, float32))"` …; `"unknown"` where the model
            does not say.
        shape: Sizes, with a string for a symbolic and None for an unnamed dynamic dimension; None where the
            model does not even give the rank.
    """

    name: str
    type: str
    shape: Shape | None

    def __str__(self) -> str:
        text = f"{self.name}: {self.type}"
        return text if "map(" in self.type else f"{text} {shape_text(self.shape)}"


@dataclass(frozen=True)
class Interface:
    """The inputs that a caller must give and the outputs, in the model's order."""

    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]


def as_ir(model: ModelLike) -> ir.Model:
    """The model as an `onnx_ir.Model`, read or converted where it is not one; weights stay lazy.

    Nodes that stand before what they read are put in order, in the model itself: ONNX Runtime takes any, and
    converters append nodes at the end.
    """
    if isinstance(model, ir.Model):
        made = model
    else:
        made = load_onnx(model) if isinstance(model, (str, os.PathLike)) else from_proto(model)
    if not _is_in_order(made.graph):
        made.graph.sort()
    return made


def _is_in_order(graph: ir.Graph) -> bool:
    seen: set[ir.Node | None] = {None}
    for node in graph.all_nodes():
        if any(value.producer() not in seen for value in node.inputs if value is not None):
            return False
        seen.add(node)
    return True


def interface(model: ir.Model) -> Interface:
    """The interface that a model declares.

    An input with an initializer is left out: a caller may override it but does not have to give it.
    """
    graph = model.graph
    needed = (value for value in graph.inputs if value.name not in graph.initializers)
    return Interface(tuple(map(_port, needed)), tuple(map(_port, graph.outputs)))


def shape_text(shape: Shape | None) -> str:
    """A shape as text: `[N, 3, ?, ?]`, or `of unknown rank`."""
    if shape is None:
        return "of unknown rank"
    return f"[{', '.join('?' if size is None else str(size) for size in shape)}]"


def _port(value: ir.Value) -> Port:
    shape = None if value.shape is None else tuple(_size(dimension) for dimension in value.shape)
    other = type_of(value)
    return Port(value.name or "", _type_name(value.type) if other is None else _other_name(other), shape)


def _size(dimension: int | ir.SymbolicDim) -> int | str | None:
    """A size as a caller sees it; one below zero is open, as the exporter of PaddlePaddle writes it.

    So is one named `?`, which exporters write for every size that they do not know: two of them need not be
    equal. Zero is zero: ONNX Runtime takes no other size there.
    """
    if isinstance(dimension, int):
        return dimension if dimension >= 0 else None
    return None if dimension.value == "?" else dimension.value


def _type_name(kind: object) -> str:
    match kind:
        case ir.TensorType():
            return dtype_name(kind.dtype)
        case ir.SparseTensorType():
            return f"sparse({dtype_name(kind.dtype)})"
        case ir.SequenceType():
            return f"sequence({_type_name(kind.elem_type)})"
        case ir.OptionalType():
            return f"optional({_type_name(kind.elem_type)})"
        case _:
            return "unknown"


def _other_name(kind: onnx.TypeProto) -> str:
    """The name of a type that onnx_ir does not know: `map(int64, float32)`, or a sequence of those."""
    match kind.WhichOneof("value"):
        case "tensor_type":
            return _element_name(kind.tensor_type.elem_type)
        case "map_type":
            return f"map({_element_name(kind.map_type.key_type)}, {_other_name(kind.map_type.value_type)})"
        case "sequence_type":
            return f"sequence({_other_name(kind.sequence_type.elem_type)})"
        case "optional_type":
            return f"optional({_other_name(kind.optional_type.elem_type)})"
        case _:
            return "unknown"


def _element_name(number: int) -> str:
    """The name of a type of elements, which a file may give any number."""
    return dtype_name(ir.DataType(number)) if number in {*ir.DataType} else "unknown"


def dtype_name(dtype: ir.DataType) -> str:
    """NumPy's name of an element type where it has one: `float32` for ONNX's FLOAT, `float64` for DOUBLE."""
    return {ir.DataType.FLOAT: "float32", ir.DataType.DOUBLE: "float64"}.get(dtype, dtype.name.lower())
