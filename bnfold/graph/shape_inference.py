"""Shapes and types of all values of a model, inferred without touching what its file records."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache

import onnx
import onnx_ir as ir

from bnfold.graph.constants import Constants, held
from bnfold.graph.harmless import harmless
from bnfold.graph.scopes import Scope, subgraphs
from bnfold.graph.skeleton import skeleton_of
from bnfold.tensors.sizes import sizes

Dim = int | str | None
Dims = tuple[Dim, ...]
_Types = Mapping[str | None, onnx.TypeProto]


def infer(
    model: ir.Model, scopes: Iterable[Scope]
) -> tuple[dict[ir.Value, Dims], dict[ir.Value, ir.DataType]]:
    """Infer on a skeleton of the model, which itself stays as it is.

    Sizes follow from the inputs of the graph by the operators' rules, and from nothing else. What the file
    records of other values may be stale: only their rank and their type are taken from it.

    Args:
        model: The model.
        scopes: All of its scopes.

    Returns:
        The shape and the element type of every value for which they are known.
    """
    opsets = {scope.graph: scope.opset for scope in scopes}
    given = frozenset(model.graph.inputs)
    constants = Constants(
        model.ir_version,
        lambda value: _dims(value) if value in given else _dims(value.const_value),
        lambda node: opsets[node.graph] if node.graph is not None else 1,
    )
    inferred = _inferred(model, constants)
    shapes: dict[ir.Value, Dims] = {}
    dtypes: dict[ir.Value, ir.DataType] = {}
    for graph in opsets:
        types = inferred.get(graph, {})
        for value in _values(graph):
            shape, dtype = _known(value, types.get(value.name))
            if shape is not None:
                shapes[value] = shape
            if dtype is not None:
                dtypes[value] = dtype
    return shapes, dtypes


def _inferred(model: ir.Model, constants: Constants) -> dict[ir.Graph, _Types]:
    """What ONNX's inference says of each graph's values, by name; nothing of functions, whose types vary."""
    try:
        skeleton = harmless(skeleton_of(model, constants))
        proto = onnx.shape_inference.infer_shapes(skeleton, data_prop=True)
    except Exception:  # it fails in many ways; the shapes then stay unknown, which the result says
        return {}
    found: dict[ir.Graph, _Types] = {}
    pending = [(model.graph, proto.graph)]
    while pending:
        graph, inferred = pending.pop()
        infos = (info for infos in (inferred.input, inferred.value_info, inferred.output) for info in infos)
        found[graph] = {info.name: info.type for info in infos}
        inner = [sub for node in graph for one in node.attributes.data.values() for sub in subgraphs(one)]
        if inner:
            attributes = (one for node in inferred.node for one in node.attribute)
            copies = [sub for one in attributes for sub in ([one.g] if one.HasField("g") else one.graphs)]
            pending.extend(zip(inner, copies, strict=True))
    return found


def _known(value: ir.Value, inferred: onnx.TypeProto | None) -> tuple[Dims | None, ir.DataType | None]:
    """A value's shape and type: those of its tensor, or as inferred; the recorded rank where that fails."""
    producer = value.producer()
    # a caller may replace an initializer that is an input, by one of another size where that is left open
    fixed = value.const_value if value.is_initializer() and not value.is_graph_input() else None
    tensor = fixed if producer is None else held(producer)
    if tensor is not None:
        return tuple(size if size >= 0 else None for size in sizes(tensor)), tensor.dtype
    shape, dtype = (None, None) if inferred is None else _read(inferred.SerializeToString())
    if shape is None and value.shape is not None:
        shape = (None,) * len(value.shape)
    return shape, value.dtype if dtype is None else dtype


@lru_cache(maxsize=2**12)
def _read(data: bytes) -> tuple[Dims | None, ir.DataType | None]:
    """The shape and the element type that a serialized `TypeProto` holds; a model has few different ones."""
    proto = onnx.TypeProto.FromString(data)
    kind = proto.WhichOneof("value")
    if kind in ("sequence_type", "optional_type"):
        return _read(getattr(proto, kind).elem_type.SerializeToString())
    if kind not in ("tensor_type", "sparse_tensor_type"):
        return None, None
    tensor = getattr(proto, kind)
    dtype = ir.DataType(tensor.elem_type) if tensor.HasField("elem_type") else None
    if not tensor.HasField("shape"):
        return None, dtype
    sizes = ((dim.WhichOneof("value"), dim) for dim in tensor.shape.dim)
    return tuple(getattr(dim, name) if name is not None else None for name, dim in sizes), dtype


def _dims(holder: ir.Value | ir.TensorProtocol | None) -> Dims | None:
    """A shape as sizes, symbols and None."""
    shape = None if holder is None else holder.shape
    if shape is None:
        return None
    dims = (dim if isinstance(dim, int) else dim.value for dim in shape)
    return tuple(None if dim == "?" or (isinstance(dim, int) and dim < 0) else dim for dim in dims)


def _values(graph: ir.Graph) -> Iterator[ir.Value]:
    yield from graph.inputs
    yield from graph.initializers.data.values()
    for node in graph:
        yield from node.outputs
