"""What a conversion reads of a graph, made ready for it: constants that are held, and inputs that are there.

Older versions have attributes where newer ones have inputs. What such an input is computed from constants, as
in the functions that ONNX defines operators by, is computed here, with bnfold's evaluation of constants.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir

from bnfold.contract.opsets import differs, opset_of, own_nodes
from bnfold.errors import ModelError
from bnfold.graph.facts import Facts
from bnfold.graph.naming import Names
from bnfold.graph.nodes import label, name_of
from bnfold.tensors.sizes import nbytes, sizes

Array = npt.NDArray[Any]

LARGE = 1000  # bytes; a larger weight holds no axes or sizes, which adapters read
_OTHER_NAMES = {"constant_value": "value"}  # of inputs, as attributes of older versions


class Preparation:
    """A model on its way from one version to another.

    Attributes:
        now: The version of its operators.
        opset: The version that it is about to be converted to.
        facts: What is known of it.
    """

    def __init__(self, model: ir.Model, opset: int) -> None:
        self.now, self.opset = opset_of(model), opset
        self.facts, self._names = Facts(model), Names(model)

    def constant(self, node: ir.Node, index: int) -> Array | None:
        """The numbers of an input, None where it is left out.

        Raises:
            ModelError: They are computed from what is not constant.
        """
        value = node.inputs[index] if index < len(node.inputs) else None
        array = self.facts.constants.array(value)
        if value is not None and array is None:
            what = onnx.defs.get_schema(node.op_type, self.now).inputs[index].name
            raise ModelError(
                f"{named(node)} reads its {what} from {name_of(value)!r}, which is not constant, and opset"
                f" {self.opset} takes a constant only"
            )
        return array

    def hold(self, node: ir.Node, index: int, array: Array, dtype: ir.DataType | None = None) -> None:
        """Give a node an initializer of its own; `dtype` is that of the array where left out."""
        if index >= len(node.inputs):
            node.resize_inputs(index + 1)
        old = node.inputs[index]
        wanted = (old.name if old is not None else None) or f"{label(node)}.input"
        self.replace(node, index, self._initializer(node, wanted, ir.Tensor(array, dtype=dtype)))

    def _initializer(self, node: ir.Node, wanted: str, tensor: ir.Tensor[Any]) -> ir.Value:
        assert node.graph is not None, "the node is in a graph"
        tensor.name = self._names.fresh(wanted)
        kind, shape = ir.TensorType(tensor.dtype), ir.Shape(sizes(tensor))
        value = ir.Value(name=tensor.name, type=kind, shape=shape, const_value=tensor)
        node.graph.register_initializer(value)
        return value

    def replace(self, node: ir.Node, index: int, value: ir.Value | None) -> None:
        """Give a node another input; what only computed the former one is removed."""
        old = node.inputs[index]
        node.replace_input_with(index, value)
        if old is not None:
            self._drop(old)

    def compute(self, node: ir.Node) -> bool:
        """Put the result of a node in its place if it is constant, and say whether it is."""
        (result,) = node.outputs if len(node.outputs) == 1 else (None,)
        array = self.facts.constants.array(result)
        if result is None or array is None or node.graph is None or result.is_graph_output():
            return False
        result.replace_all_uses_with(self._initializer(node, result.name or "", ir.Tensor(array)))
        node.graph.remove(node, safe=True)
        return True

    def shorten(self, node: ir.Node, count: int) -> None:
        """Leave out all inputs from the one at `count` on."""
        for index in range(count, len(node.inputs)):
            self.replace(node, index, None)
        if count < len(node.inputs):
            node.resize_inputs(count)

    def axis(self, node: ir.Node, axis: int, more: int = 0) -> int:
        """An axis, counted from the first one.

        Args:
            node: Whose axis it is.
            axis: The axis of its first input, or of a result with more dimensions.
            more: How many more.

        Raises:
            ModelError: The number of dimensions is not known.
        """
        if axis >= 0:
            return axis
        rank = self.facts.rank(node.inputs[0])
        if rank is None:
            raise ModelError(
                f"{named(node)} has axis {axis}, and the number of its input's dimensions, from which opset"
                f" {self.opset} has to count it, is not known"
            )
        return axis + rank + more

    def _drop(self, value: ir.Value) -> None:
        """Remove a constant that nothing reads any longer, with what it was computed from."""
        if value.uses() or value.is_graph_output() or not self.facts.constants.has(value):
            return
        producer = value.producer()
        if producer is None:
            if value.graph is not None and not value.is_graph_input():
                value.graph.initializers.pop(value.name or "")
            return
        if producer.graph is None or len(producer.outputs) > 1:
            return
        inputs = [one for one in producer.inputs if one is not None]
        producer.graph.remove(producer, safe=True)
        for one in dict.fromkeys(inputs):
            self._drop(one)


def named(node: ir.Node) -> str:
    """How a refusal names a node."""
    return f"{node.op_type} {label(node)!r}"


def demand_types(at: Preparation, node: ir.Node) -> None:
    """Refuse a node whose inputs are of types that another version does not take.

    Raises:
        ModelError: Names the type.
    """
    schema = onnx.defs.get_schema(node.op_type, at.opset)
    taken = {one.type_param_str: one.allowed_type_strs for one in schema.type_constraints}
    for index, value in enumerate(node.inputs):
        kind = at.facts.dtype(value)
        if kind in (None, ir.DataType.UNDEFINED) or not schema.inputs:
            continue
        types = taken.get(schema.inputs[min(index, len(schema.inputs) - 1)].type_str, ())
        if types and not any(f"tensor({kind.name.lower()})" in one for one in types):
            raise ModelError(f"{named(node)} takes {kind.name.lower()}, which opset {at.opset} does not")


def hold_constants(at: Preparation, model: ir.Model) -> None:
    """Give nodes that are converted constants of their own: onnx's adapters remove what they read.

    Raises:
        ModelError: An input that an older version has as an attribute is computed.
    """
    for node in [node for node in own_nodes(model) if differs(node, at.now, at.opset)]:
        attributes = _attributes(node, at)
        for index, value in enumerate(node.inputs):
            if value is None or at.facts.constants.is_overridable(value):
                continue
            if attribute_of(node, index, at.now) in attributes:
                array = at.constant(node, index)
                tensor = value.const_value
                if array is not None and (
                    tensor is None or len(value.uses()) > 1 or value.graph is not node.graph
                ):
                    at.hold(node, index, np.asarray(array))
            elif value.is_initializer() and len(value.uses()) > 1:
                tensor = value.const_value
                if tensor is not None and nbytes(tensor) <= LARGE:
                    at.hold(node, index, tensor.numpy(), tensor.dtype)


def _attributes(node: ir.Node, at: Preparation) -> frozenset[str]:
    """The attributes that only the other version of an operator has."""
    if not (onnx.defs.has(node.op_type, at.opset) and onnx.defs.has(node.op_type, at.now)):
        return frozenset()
    schema = onnx.defs.get_schema(node.op_type, at.opset)
    return frozenset(schema.attributes) - {one.name for one in schema.inputs}


def attribute_of(node: ir.Node, index: int, version: int) -> str:
    """The name that an older version may give an input as an attribute."""
    inputs = (
        onnx.defs.get_schema(node.op_type, version).inputs if onnx.defs.has(node.op_type, version) else ()
    )
    name = inputs[min(index, len(inputs) - 1)].name.lower() if inputs else ""
    return _OTHER_NAMES.get(name, name)


def to_attributes(at: Preparation, node: ir.Node) -> None:
    """Move the inputs of a node that an older version has as attributes.

    Raises:
        ModelError: One of them is computed, or a number that an attribute does not hold exactly.
    """
    attributes = onnx.defs.get_schema(node.op_type, at.opset).attributes
    first = len(node.inputs)
    for index in reversed(range(len(node.inputs))):
        name = attribute_of(node, index, at.now)
        if name not in attributes:
            continue
        first, array = index, at.constant(node, index)
        if array is None:
            continue
        kind = attributes[name].type
        if kind == onnx.defs.OpSchema.AttrType.FLOAT:
            number = float(np.asarray(array, np.float64).reshape(-1)[0])
            if float(np.float32(number)) != number:
                raise ModelError(
                    f"{named(node)} has {name}={number}, which no float32 attribute holds exactly"
                )
            node.attributes[name] = ir.AttrFloat32(name, number)
        elif kind == onnx.defs.OpSchema.AttrType.INT:
            node.attributes[name] = ir.AttrInt64(name, int(array.reshape(-1)[0]))
        else:
            node.attributes[name] = ir.AttrInt64s(name, [int(one) for one in array.reshape(-1)])
    at.shorten(node, first)
