"""Tensors and attributes that contradict themselves, found before anything is computed from them.

A tensor's sizes and type say how many numbers it must have, and it may have others; then nobody can say what
was meant, no runtime loads it, and reading it would fail in the middle of something else. The numbers are
counted, not read.
"""

from __future__ import annotations

import math

import onnx
import onnx_ir as ir

from bnfold.errors import ModelError
from bnfold.files.external_data import initializers
from bnfold.graph.scopes import scopes

_KIND = onnx.TensorProto
_FIELDS: dict[str, tuple[int, ...]] = {
    "float_data": (_KIND.FLOAT, _KIND.COMPLEX64),
    "double_data": (_KIND.DOUBLE, _KIND.COMPLEX128),
    "int64_data": (_KIND.INT64,),
    "uint64_data": (_KIND.UINT32, _KIND.UINT64),
    "string_data": (_KIND.STRING,),
}
_FIELD = {kind: name for name, kinds in _FIELDS.items() for kind in kinds}
_KNOWN = frozenset(ir.DataType)
_PAIRS = frozenset({_KIND.COMPLEX64, _KIND.COMPLEX128})
_DAMAGED = "The file is damaged, or was changed by hand: save or download it again."


def demand_consistent(model: ir.Model, name: str) -> None:
    """Refuse what cannot be read or written again.

    Args:
        model: A model that was just read.
        name: What messages call it.

    Raises:
        ModelError: A tensor has another number of elements than its type and shape need, or a type that ONNX
            does not have; or an attribute has no type.
    """
    for value in initializers(model):
        if value.const_value is not None:
            _demand(value.const_value, name)
    for scope in scopes(model):
        for node in scope.graph:
            for attribute in node.attributes.data.values():
                if attribute.is_ref():
                    continue
                if attribute.type == ir.AttributeType.UNDEFINED:
                    where = f"the attribute {attribute.name!r} of {node.op_type} {node.name or ''}".rstrip()
                    raise ModelError(f"{name} is not valid: {where} has no type.", _DAMAGED)
                if attribute.type == ir.AttributeType.TENSOR:
                    _demand(attribute.value, name)
                elif attribute.type == ir.AttributeType.TENSORS:
                    for tensor in attribute.value:
                        _demand(tensor, name)


def demand_given(model: ir.Model, name: str) -> None:
    """Refuse a model in which a node reads what nothing gives; onnx_ir makes up a value for such a name.

    Raises:
        ModelError: There is such a node.
    """
    for scope in scopes(model):
        for node in scope.graph:
            for value in node.inputs:
                given = value is None or value.producer() is not None or value.is_graph_input()
                if value is not None and not given and not value.is_initializer():
                    what = f"{node.op_type} {node.name or ''}".rstrip()
                    raise ModelError(
                        f"{name} is not valid: {what} reads {value.name!r}, which nothing gives.", _DAMAGED
                    )


def _demand(tensor: ir.TensorProtocol, name: str) -> None:
    if isinstance(tensor, ir.TensorProtoTensor):
        fault = _fault(tensor.raw)
    elif isinstance(tensor, ir.StringTensor):
        held, needed = len(tensor.string_data()), math.prod(tensor.shape.numpy())
        fault = None if held == needed else f"{held} strings where its shape needs {needed}"
    else:
        return  # left in its file, which was checked before, or in another one
    if fault is not None:
        raise ModelError(f"{name} is not valid: the tensor {tensor.name!r} has {fault}.", _DAMAGED)


def _fault(proto: onnx.TensorProto) -> str | None:
    """What is wrong with a tensor, as the end of "has …"; None where nothing is."""
    if proto.data_type == _KIND.UNDEFINED or proto.data_type not in _KNOWN:
        return f"the type {proto.data_type}, which ONNX does not have"
    if min(proto.dims, default=0) < 0:
        return f"the shape {list(proto.dims)}"
    elements = math.prod(proto.dims)
    kind = ir.DataType(proto.data_type)
    if proto.HasField("raw_data"):
        held, needed, what = len(proto.raw_data), -(-elements * kind.bitwidth // 8), "bytes"
    else:
        field = _FIELD.get(proto.data_type, "int32_data")
        needed = 2 * elements if proto.data_type in _PAIRS else elements
        if field == "int32_data" and kind.bitwidth < 8:
            needed = -(-elements * kind.bitwidth // 8)
        held, what = len(getattr(proto, field)), "numbers"
    if held == needed:
        return None
    return f"{held} {what} where its type and the shape {list(proto.dims)} need {needed}"
