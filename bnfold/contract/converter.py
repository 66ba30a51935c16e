"""The conversion of operators to another version: onnx's own converter, with what it needs around it.

It is given the graph without the larger weights, which no operator changes between versions: a model of any
size is converted, and its weights stay where they are.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import onnx
import onnx.version_converter
import onnx_ir as ir

from bnfold.algebra.affine import Array
from bnfold.contract import bodies
from bnfold.contract.adapters import adapt
from bnfold.contract.alike import is_alike, next_stage
from bnfold.contract.complaints import problem
from bnfold.contract.constants import write_tensors
from bnfold.contract.last_axis import along_last_axis
from bnfold.contract.meanings import demand_same_meaning
from bnfold.contract.opsets import crosses, opset_of, own_nodes
from bnfold.contract.preparing import LARGE, Preparation
from bnfold.contract.written_out import written_out
from bnfold.errors import ModelError
from bnfold.files.load import from_proto
from bnfold.files.other_types import to_proto
from bnfold.graph.constants import held
from bnfold.graph.harmless import harmless
from bnfold.graph.naming import Names
from bnfold.graph.nodes import label, text
from bnfold.graph.scopes import ONNX_DOMAINS, scopes
from bnfold.tensors.sizes import nbytes, sizes

_PARKED = "bnfold.parked"
_OLDEST_IR = 4
# What hands on some of its first input's numbers, and what computes with all of them.
_MOVING = ("Cast", "Gather", "Identity", "Reshape", "Slice", "Squeeze", "Unsqueeze")
_COMPUTING = ("Add", "Concat", "Div", "Mul", "Sub")
_FAILURES = (
    *(RuntimeError, ValueError, ModelError, onnx.checker.ValidationError),
    *(onnx.version_converter.ConvertError, onnx.shape_inference.InferenceError),
)
_SHAPE_OF_AXES_SINCE = 15  # Shape takes some sizes only
_HALF_PIXELS_SINCE = 11
_CONSTANT_NUMBERS_SINCE = 12  # Constant has attributes for numbers, next to the one that is a tensor
_ALLOWZERO_SINCE = 14  # of Reshape, where it takes a zero in a shape for a zero


class Through(NamedTuple):
    """What onnx's converter made.

    Attributes:
        model: The model in the other version.
        written_out: The operators that were written out in older ones.
        of_sizes: Reshapes that mean something else for tensors without elements now.
    """

    model: ir.Model
    written_out: tuple[str, ...]
    of_sizes: int


def through_onnx(model: ir.Model, opset: int) -> Through:
    """Convert with onnx's own converter, which drops the metadata of nodes; that is put back.

    Operators that the other version does not have are first written out as ONNX defines them in older ones.

    Args:
        model: The model, without functions. It may be modified.
        opset: The version to convert to.

    Raises:
        ModelError: That is not possible; names the operator.
    """
    now = opset_of(model)
    origin = {node.outputs[0].name: node for node in model.graph if node.outputs}
    light, weights = _without_weights(model)
    unconverted = light.clone()
    try:
        converted, operators = written_out(light, opset)
        demand_same_meaning(converted, opset)
        of_sizes = along_last_axis(converted, opset)
        if crosses(_CONSTANT_NUMBERS_SINCE, now, opset):
            write_tensors(converted)
        of_sizes += _use_defaults(converted, opset)
        while (older := opset_of(converted)) != opset:
            stage = next_stage(converted, opset)
            converted = _converted(converted, stage)
            if older < _HALF_PIXELS_SINCE <= stage:
                _keep_asymmetric(converted)
        _check(converted, unconverted)
    except _FAILURES as error:
        raise ModelError(
            f"The model cannot be converted to opset {opset}: {problem(error, model, now, opset)}.",
            f"Leave --opset out, or take {'a newer' if opset < now else 'an older'} one.",
        ) from error
    _put_back(converted, weights)
    names = {node.name for node in converted.graph}
    for node in converted.graph:
        if node.outputs and (before := origin.get(node.outputs[0].name)) is not None:
            node.metadata_props.update(before.metadata_props)
            if not node.name and before.name not in names:  # an adapter's last node stands for all of it
                node.name = before.name
    for domain, version in model.opset_imports.items():
        if domain not in ONNX_DOMAINS:
            converted.graph.opset_imports.setdefault(domain, version)
    converted.graph.metadata_props.update(model.graph.metadata_props)
    converted.graph.doc_string = model.graph.doc_string
    made = ir.Model(
        converted.graph,
        ir_version=max(model.ir_version, onnx.helper.OP_SET_ID_VERSION_MAP["ai.onnx", opset]),
        producer_name=model.producer_name,
        producer_version=model.producer_version,
        domain=model.domain,
        model_version=model.model_version,
        doc_string=model.doc_string,
        metadata_props=dict(model.metadata_props),
    )
    return Through(made, operators, of_sizes)


def _check(model: ir.Model, before: ir.Model) -> None:
    """Let ONNX's checker look at a model, and its inference, which knows the types that operators take.

    Args:
        model: The model.
        before: The one that it was made of: what inference says against that does not count.
    """
    proto = to_proto(model)
    for output in proto.graph.output:
        if output.type.HasField("tensor_type"):  # the checker demands the rank of every output, known or not
            output.type.tensor_type.shape.SetInParent()
    onnx.checker.check_model(proto)
    error = _inference_error(model)
    if error is not None and _inference_error(before) is None:
        raise error


def _inference_error(model: ir.Model) -> Exception | None:
    """What ONNX's strict inference says, without the sizes that the file records, which may be stale."""
    proto = to_proto(model)
    del proto.graph.value_info[:]
    for dim in (dim for one in proto.graph.input for dim in one.type.tensor_type.shape.dim):
        if dim.dim_value < 0:  # some exporters write this for an open size, and inference counts with it
            dim.Clear()
    for output in proto.graph.output:
        if output.type.HasField("tensor_type"):
            output.type.tensor_type.ClearField("shape")
    try:
        onnx.shape_inference.infer_shapes(harmless(proto), check_type=True, strict_mode=True, data_prop=True)
    except _FAILURES as error:
        return error
    return None


def _keep_asymmetric(model: ir.Model) -> None:
    """Let Resizes take elements where they did before opset 11, whose default is another.

    ONNX Runtime rounds down where a size grows, and up where it shrinks.
    """
    for node in own_nodes(model):
        if node.op_type == "Resize":
            node.attributes["coordinate_transformation_mode"] = ir.AttrString(
                "coordinate_transformation_mode", "asymmetric"
            )
            scales = _held(node.inputs[2]) if len(node.inputs) > 2 else None
            numbers = None if scales is None else scales.numpy()
            _refuse_two_roundings(node, numbers)
            shrinks = numbers is not None and numbers.min(initial=1.0) < 1
            node.attributes["nearest_mode"] = ir.AttrString("nearest_mode", "ceil" if shrinks else "floor")


def _refuse_two_roundings(node: ir.Node, scales: Array | None) -> None:
    """Refuse a Resize to which no single way of rounding is the old one.

    Raises:
        ModelError: It takes the nearest element, and its scales are computed, or on both sides of 1.
    """
    if text(node, "mode", "nearest") != "nearest":
        return
    if scales is None or scales.min(initial=1.0) < 1 < scales.max(initial=1.0):
        what = "scales that are computed" if scales is None else "a size that grows and one that shrinks"
        raise ModelError(
            f"Resize {label(node)!r} has {what}: before opset {_HALF_PIXELS_SINCE} it rounds down where a"
            " size grows and up where it shrinks, and later versions round one way"
        )


def _without_weights(model: ir.Model) -> tuple[ir.Model, dict[str, ir.TensorProtocol]]:
    """A copy in which larger weights are inputs, and those weights."""
    light = model.clone()
    light.ir_version = max(
        light.ir_version or 0, _OLDEST_IR
    )  # before, the converter takes weights for inputs
    weights = {}
    for name, value in list(light.graph.initializers.items()):
        tensor = value.const_value
        if tensor is None or nbytes(tensor) <= LARGE or value.is_graph_input():
            continue
        weights[name] = tensor
        light.graph.initializers.pop(name)
        value.const_value = None
        value.type, value.shape = ir.TensorType(tensor.dtype), ir.Shape(sizes(tensor))
        light.graph.inputs.append(value)
    return light, weights


def _put_back(model: ir.Model, weights: dict[str, ir.TensorProtocol]) -> None:
    for value in [value for value in model.graph.inputs if value.name in weights]:
        model.graph.inputs.remove(value)
        value.const_value = weights[value.name or ""]
        model.graph.register_initializer(value)


def _use_defaults(model: ir.Model, opset: int) -> int:
    """Leave out `allowzero`, which an older Reshape does not know, where it makes no difference.

    Returns:
        In how many Reshapes it makes one for tensors without elements: their shape is computed from sizes.
    """
    of_sizes = 0
    for node in own_nodes(model) if opset < _ALLOWZERO_SINCE else ():
        if node.op_type != "Reshape" or "allowzero" not in node.attributes:
            continue
        tensor = _held(node.inputs[1])
        is_computed = tensor is None and _has_no_zero(node.inputs[1])
        if is_computed or (tensor is not None and 0 not in tensor.numpy()):
            del node.attributes["allowzero"]
            of_sizes += is_computed
    return of_sizes


def _held(value: ir.Value | None) -> ir.TensorProtocol | None:
    """The tensor of a value that the graph holds."""
    producer = None if value is None else value.producer()
    return held(producer) if producer is not None else None if value is None else value.const_value


def _has_no_zero(value: ir.Value | None) -> bool:
    """Whether a value is computed from sizes of tensors and numbers other than zero only."""
    tensor, producer = _held(value), None if value is None else value.producer()
    if tensor is not None:
        return 0 not in tensor.numpy()
    if producer is None or producer.domain not in ONNX_DOMAINS:
        return False
    if producer.op_type in ("Shape", "Size"):
        return True
    read = {**dict.fromkeys(_MOVING, producer.inputs[:1]), **dict.fromkeys(_COMPUTING, producer.inputs)}
    return producer.op_type in read and all(map(_has_no_zero, read[producer.op_type]))


def _measure_whole(model: ir.Model, opset: int) -> None:
    """Let a Slice take the sizes that an older Shape cannot take alone; PyTorch's exporter asks for some."""
    if opset >= _SHAPE_OF_AXES_SINCE or opset_of(model) < _SHAPE_OF_AXES_SINCE:
        return
    names = Names(model)
    for node in [node for node in own_nodes(model) if node.op_type == "Shape" and node.attributes]:
        bounds = ("start", "end")
        given = {name: node.attributes[name].as_int() for name in bounds if name in node.attributes}
        node.attributes.clear()
        if node.graph is None or given in ({}, {"start": 0}):
            continue
        numbers = (given.get("start", 0), given.get("end", np.iinfo(np.int64).max), 0)
        made = []
        for what, number in zip((*bounds, "axis"), numbers, strict=True):
            tensor = ir.Tensor(np.array([number], np.int64))
            made.append(ir.Node("", "Constant", [], [ir.AttrTensor("value", tensor)]))
            made[-1].outputs[0].name = names.fresh(f"{node.outputs[0].name}.{what}")
        whole, part = node.outputs[0], ir.Value(name=names.fresh(f"{node.outputs[0].name}.whole"))
        part.type = ir.TensorType(ir.DataType.INT64)
        made.append(ir.Node("", "Slice", [whole, *(one.outputs[0] for one in made)], outputs=[part]))
        node.graph.insert_after(node, made)
        whole.replace_all_uses_with(part, replace_graph_outputs=True)
        made[-1].replace_input_with(0, whole)
        (part.name, whole.name), part.shape, whole.shape = (whole.name, part.name), whole.shape, None


def _converted(model: ir.Model, opset: int) -> ir.Model:
    """One stage, in which what is alike in both versions is hidden from the converter."""
    now = opset_of(model)
    _measure_whole(model, opset)
    adapt(Preparation(model, opset), model)
    nodes = [node for node in own_nodes(model) if is_alike(node, now, opset)]
    for node in nodes:
        node.domain = _PARKED
    model.graph.opset_imports[_PARKED] = 1
    made = from_proto(bodies.convert(to_proto(model), opset))
    for node in [node for scope in scopes(made) for node in scope.graph if node.domain == _PARKED]:
        node.domain = ""
    made.graph.opset_imports.pop(_PARKED, None)
    _drop_newer_defaults(made, now, opset)
    return made


def _drop_newer_defaults(model: ir.Model, before: int, opset: int) -> None:
    """Remove attributes that the converter left and `opset` does not know, if they have the default value.

    `ReduceMean` keeps `noop_with_empty_axes=0` of opset 18 when it is converted to 17, for instance.
    """
    for node in own_nodes(model):
        if not (onnx.defs.has(node.op_type, opset) and onnx.defs.has(node.op_type, before)):
            continue
        known = onnx.defs.get_schema(node.op_type, opset).attributes
        newer = onnx.defs.get_schema(node.op_type, before).attributes
        for name in [name for name in node.attributes if name not in known and name in newer]:
            default = ir.from_proto(newer[name].default_value)
            if isinstance(default, ir.Attr) and default.value == node.attributes[name].value:
                del node.attributes[name]
