"""Shapes and types of all values of a model, inferred without touching what its file records."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import onnx_ir as ir
from onnx_ir.passes.common import ShapeInferencePass

from bnfold.constants import Constants, constant_node
from bnfold.scopes import ONNX_DOMAINS, Scope, scopes

Dim = int | str | None
Dims = tuple[Dim, ...]

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


def infer(model: ir.Model) -> tuple[dict[ir.Value, Dims], dict[ir.Value, ir.DataType]]:
    """Infer on a copy, since what is recorded in the user's file is not ours to change.

    Recorded shapes can be stale, as when somebody has changed the batch size of the inputs alone, and
    runtimes do not mind. So all are inferred anew from the inputs, and what is recorded only fills what
    inference leaves open.

    Returns:
        The shape and the element type of every value for which they are known.
    """
    copy = model.clone()
    pairs = [
        pair
        for scope, twin in zip(scopes(model), scopes(copy), strict=True)
        for pair in zip(_values(scope.graph), _values(twin.graph), strict=True)
    ]
    for _, twin in pairs:
        producer = twin.producer()
        if producer is not None and producer.domain in ONNX_DOMAINS:
            twin.shape = None
    _settle_constants(copy)
    with _quiet():
        ShapeInferencePass(check_type=False, strict_mode=False, data_prop=True)(copy)
    shapes: dict[ir.Value, Dims] = {}
    dtypes: dict[ir.Value, ir.DataType] = {}
    for value, inferred in pairs:
        tensor = _stored(value)
        dtype = tensor.dtype if tensor is not None else inferred.dtype
        if dtype is not None:
            dtypes[value] = dtype
        shape = _dims(tensor) if tensor is not None else _completed(_dims(inferred), _dims(value))
        if shape is not None:
            shapes[value] = shape
    return shapes, dtypes


@contextmanager
def _quiet() -> Iterator[None]:
    """Inference that fails leaves shapes unknown, which the result says; it need not be logged too."""
    logger = logging.getLogger("onnx_ir")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


def _dims(holder: ir.Value | ir.TensorProtocol) -> Dims | None:
    """A shape as sizes, symbols and None."""
    shape = holder.shape
    return None if shape is None else tuple(dim if isinstance(dim, int) else dim.value for dim in shape)


def _completed(inferred: Dims | None, recorded: Dims | None) -> Dims | None:
    """What inference found, with what the file records where it found nothing."""
    if inferred is None or recorded is None:
        return recorded if inferred is None else inferred
    if len(inferred) != len(recorded):
        return inferred
    return tuple(own if own is not None else other for own, other in zip(inferred, recorded, strict=True))


def _settle_constants(model: ir.Model) -> None:
    """Evaluate what decides shapes and is computed from constants, so that inference can read it."""
    opsets = {scope.graph: scope.opset for scope in scopes(model)}
    constants = Constants(
        model.ir_version,
        _dims,
        lambda node: opsets[node.graph] if node.graph is not None else 1,
    )
    for scope in tuple(scopes(model)):
        for node in tuple(scope.graph):
            for index in _DECISIVE.get(node.op_type, ()):
                _settle(scope, node, index, constants)


def _settle(scope: Scope, node: ir.Node, index: int, constants: Constants) -> None:
    value = node.inputs[index] if index < len(node.inputs) else None
    if value is None or _stored(value) is not None or not constants.has(value):
        return
    array = constants.array(value)
    tensor = ir.Tensor(array, name=f"{value.name}.settled.{index}") if array is not None else None
    maker = ir.Node("", "Constant", [], [ir.AttrTensor("value", tensor)], num_outputs=1) if tensor else None
    if maker is not None and tensor is not None:
        maker.outputs[0].name = f"{node.outputs[0].name}.settled.{index}"
        scope.graph.insert_before(node, maker)
        node.replace_input_with(index, maker.outputs[0])


def _stored(value: ir.Value) -> ir.TensorProtocol | None:
    """The tensor that an initializer or a `Constant` node holds."""
    if value.is_initializer():
        return value.const_value
    producer = value.producer()
    if producer is None or producer.op_type != "Constant":
        return None
    array = constant_node(producer)
    return None if array is None else ir.Tensor(array)


def _values(graph: ir.Graph) -> Iterator[ir.Value]:
    yield from graph.inputs
    yield from graph.initializers.values()
    for node in graph:
        yield from node.outputs
