"""A model without its weights, as protobuf: all that ONNX's shape inference reads, and no more.

Weights are represented by their types and shapes; only small constants, which may hold sizes, keep their
numbers. The model itself is neither copied nor changed.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import onnx
import onnx_ir as ir

from bnfold.graph.constants import Constants, held
from bnfold.graph.scopes import ONNX_DOMAINS, subgraphs
from bnfold.tensors.precision import FLOATS
from bnfold.tensors.sizes import nbytes, sizes

# Inputs whose numbers decide the shape of the output. ONNX's inference reads them from initializers only.
_DECISIVE = {
    "ConstantOfShape": (0,),
    "Expand": (1,),
    "Pad": (1, 3),
    "ReduceMax": (1,),
    "ReduceMean": (1,),
    "ReduceMin": (1,),
    "Reshape": (1,),
    "Resize": (2, 3),
    "Slice": (1, 2, 3, 4),
    "Split": (1,),
    "Squeeze": (1,),
    "Tile": (1,),
    "Unsqueeze": (1,),
    "Upsample": (1,),
}
# Frequent operators whose output's shape does not depend on the floats that they read
_SHAPE_ONLY = frozenset(
    {"Add", "BatchNormalization", "Conv", "ConvTranspose", "Div", "Gemm", "MatMul", "Mul", "PRelu", "Sub"}
)
_LARGE = 1000  # bytes; a larger constant holds no sizes


def _rank_only(shape: ir.Shape | None) -> ir.Shape | None:
    """What may be believed of a recorded shape: its rank.

    The sizes can be stale, as when somebody has changed the batch size of the inputs alone, and runtimes do
    not mind. A function may be called with several, and a loop may carry others from step to step.
    """
    return None if shape is None else ir.Shape([None] * len(shape))


def skeleton_of(model: ir.Model, constants: Constants) -> onnx.ModelProto:
    """The model in protobuf's terms, without its weights and without the sizes that it records.

    Args:
        model: The model.
        constants: Evaluates what decides shapes and is computed from constants, which inference cannot.
    """
    proto = onnx.ModelProto(ir_version=model.ir_version)
    _import(proto.opset_import, model.opset_imports)
    skeleton = _Skeleton(constants, model.graph)
    skeleton.graph(proto.graph, model.graph)
    for function in model.functions.values():
        skeleton.function(proto.functions.add(), function)
    return proto


def is_inferable(value: ir.Value) -> bool:
    """Whether one of ONNX's own operators gives the value, so that its shape follows from its inputs'."""
    producer = value.producer()
    return producer is not None and producer.domain in ONNX_DOMAINS


class _Skeleton:
    """Writes the parts of one model."""

    def __init__(self, constants: Constants, main: ir.Graph) -> None:
        self._constants = constants
        self._main = main

    def graph(self, proto: onnx.GraphProto, graph: ir.Graph) -> None:
        for value in graph.inputs:
            # only a caller keeps to the sizes that a graph declares for its inputs
            _describe(
                proto.input.add(), value, value.shape if graph is self._main else _rank_only(value.shape)
            )
        for value in graph.initializers.data.values():
            self._initializer(proto, value)
        for node in graph:
            tensor = held(node)
            if tensor is not None and nbytes(tensor) > _LARGE:
                _describe(proto.value_info.add(), node.outputs[0], None, tensor)
                continue
            self._node(proto, node)
            for value in node.outputs:
                shape = None if is_inferable(value) else _rank_only(value.shape)
                if value.name and not (value.type is None and shape is None) and not value.is_graph_output():
                    _describe(proto.value_info.add(), value, shape)
        for value in graph.outputs:
            _describe(proto.output.add(), value, None if is_inferable(value) else _rank_only(value.shape))

    def _initializer(self, proto: onnx.GraphProto, value: ir.Value) -> None:
        tensor = value.const_value
        if not value.is_graph_input():
            _describe(
                proto.value_info.add(), value, _rank_only(value.shape) if tensor is None else None, tensor
            )
        if tensor is not None and _may_hold_sizes(value, tensor) and nbytes(tensor) <= _LARGE:
            ir.serde.serialize_tensor_into(proto.initializer.add(), tensor)
            proto.initializer[-1].name = value.name or ""

    def function(self, proto: onnx.FunctionProto, function: ir.Function) -> None:
        proto.domain, proto.name, proto.overload = function.domain, function.name, function.overload
        _import(proto.opset_import, function.opset_imports)
        proto.input.extend(value.name or "" for value in function.inputs)
        proto.output.extend(value.name or "" for value in function.outputs)
        for attribute in function.attributes.values():
            if attribute.value is None:
                proto.attribute.append(attribute.name)
            else:
                ir.serde.serialize_attribute_into(proto.attribute_proto.add(), attribute)
        for node in function:
            self._node(proto, node)

    def _node(self, proto: onnx.GraphProto | onnx.FunctionProto, node: ir.Node) -> None:
        inputs = ["" if value is None else value.name or "" for value in node.inputs]
        for index in _DECISIVE.get(node.op_type, ()):
            self._add_constant(proto, node, index, inputs)
        copy = proto.node.add(op_type=node.op_type, domain=node.domain, overload=node.overload, input=inputs)
        names = [value.name or "" for value in node.outputs]
        while names and not names[-1]:  # the last outputs may be left out
            names.pop()
        copy.output.extend(names)
        for attribute in node.attributes.data.values():
            self._attribute(copy.attribute.add(), attribute)

    def _add_constant(
        self, proto: onnx.GraphProto | onnx.FunctionProto, node: ir.Node, index: int, inputs: list[str]
    ) -> None:
        """Evaluate an input that decides a shape, if it is computed from constants, and write the result."""
        value = node.inputs[index] if index < len(node.inputs) else None
        if value is None or value.is_initializer() or not self._constants.has(value):
            return
        producer = value.producer()
        array = None if producer is None or held(producer) is not None else self._constants.array(value)
        if array is not None:
            inputs[index] = f"{node.outputs[0].name}.evaluated.{index}"
            maker = proto.node.add(op_type="Constant", output=[inputs[index]])
            tensor = ir.AttrTensor("value", ir.Tensor(array))
            ir.serde.serialize_attribute_into(maker.attribute.add(), tensor)

    def _attribute(self, proto: onnx.AttributeProto, attribute: ir.Attr) -> None:
        graphs = subgraphs(attribute)
        if attribute.is_ref():
            ir.serde.serialize_reference_attribute_into(proto, attribute)
        elif not graphs:
            ir.serde.serialize_attribute_into(proto, attribute)
        else:
            proto.name = attribute.name
            single = attribute.type == ir.AttributeType.GRAPH
            proto.type = onnx.AttributeProto.GRAPH if single else onnx.AttributeProto.GRAPHS
            for graph in graphs:
                self.graph(proto.g if single else proto.graphs.add(), graph)


def _may_hold_sizes(value: ir.Value, tensor: ir.TensorProtocol) -> bool:
    return tensor.dtype not in FLOATS or any(
        node.op_type not in _SHAPE_ONLY or node.domain not in ONNX_DOMAINS for node, _ in value.uses()
    )


def _describe(
    proto: onnx.ValueInfoProto,
    value: ir.Value,
    shape: ir.Shape | None,
    tensor: ir.TensorProtocol | None = None,
) -> None:
    """Write a value's name, type and shape; what is not recorded of a constant is taken from its tensor."""
    proto.name = value.name or ""
    kind = value.type
    if kind is None and tensor is not None:
        kind = ir.TensorType(tensor.dtype)
    if isinstance(kind, ir.TensorType):
        if tensor is not None and shape is None:
            dims: tuple[int | str | None, ...] | None = sizes(tensor)
        else:
            dims = None if shape is None else tuple(d if isinstance(d, int) else d.value for d in shape)
        proto.type.CopyFrom(_tensor_type(kind.dtype, dims))
    elif kind is not None:
        ir.serde.serialize_type_into(proto.type, kind)
        if shape is not None:
            ir.serde.serialize_shape_into(proto.type, shape)


@lru_cache(maxsize=2**12)
def _tensor_type(dtype: ir.DataType, dims: tuple[int | str | None, ...] | None) -> onnx.TypeProto:
    """A type in protobuf's terms, not to be modified: a model has few different ones."""
    proto = onnx.TypeProto()
    proto.tensor_type.elem_type = dtype
    if dims is not None:
        proto.tensor_type.shape.SetInParent()  # the shape of a scalar is present, without dimensions
        for size in dims:
            dim = proto.tensor_type.shape.dim.add()
            if isinstance(size, int):
                if size >= 0:  # PaddlePaddle writes −1 for an open dimension
                    dim.dim_value = size
            elif size not in (None, "?"):  # "?" is the name of every size that an exporter did not know
                dim.dim_param = size
    return proto


def _import(proto: Any, imports: dict[str, int]) -> None:
    for domain, version in imports.items():
        proto.add(domain=domain, version=version)
