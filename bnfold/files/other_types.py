"""Types that onnx_ir does not know, such as maps, kept from the file that is read to the one that is written.

Classifiers of scikit-learn end in a ZipMap, whose output is a sequence of maps. No fold touches such a value,
so its type only has to survive: it is put away into the value's metadata, which onnx_ir hands on from model
to model, and taken out again when protobuf is written. What onnx_ir writes by itself has no type there, which
runtimes infer.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
from collections.abc import Iterable, Iterator

import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # has no stubs

KEY = "bnfold.type"
"""Under which name a value's metadata has its type, in base 64."""

_NESTED = ("sequence_type", "optional_type")
_KNOWN = ("tensor_type", "sparse_tensor_type")


@contextlib.contextmanager
def put_away(proto: onnx.ModelProto) -> Iterator[None]:
    """Take the types that onnx_ir does not know out of a model, which is as it was after the block."""
    taken = [info for info in _infos(proto) if info.HasField("type") and not _is_known(info.type)]
    types = [onnx.TypeProto.FromString(info.type.SerializeToString()) for info in taken]
    for info, kind in zip(taken, types, strict=True):
        text = base64.b64encode(kind.SerializeToString(deterministic=True)).decode()
        info.metadata_props.add(key=KEY, value=text)
        info.ClearField("type")
    try:
        yield
    finally:
        for info, kind in zip(taken, types, strict=True):
            info.type.CopyFrom(kind)
            del info.metadata_props[-1]


def to_proto(model: ir.Model) -> onnx.ModelProto:
    """The model in protobuf's terms, with the types that were put away when it was read."""
    proto = ir.to_proto(model)
    for info in _infos(proto):
        places = [place for place, entry in enumerate(info.metadata_props) if entry.key == KEY]
        kind = _parsed(info.metadata_props[places[-1]].value) if places else None
        if kind is not None and not info.HasField("type"):
            info.type.CopyFrom(kind)
            del info.metadata_props[places[-1]]
    return proto


def type_of(value: ir.Value) -> onnx.TypeProto | None:
    """The type of a value that was put away; None where its type is known, or where it has none."""
    return _parsed(value.metadata_props[KEY]) if value.type is None and KEY in value.metadata_props else None


def _parsed(text: str) -> onnx.TypeProto | None:
    """The type in a text; None where it holds none: others may use the same name."""
    kind = onnx.TypeProto()
    try:
        kind.ParseFromString(base64.b64decode(text, validate=True))
    except (binascii.Error, ValueError, DecodeError):
        return None
    return None if _is_known(kind) else kind


def _is_known(kind: onnx.TypeProto) -> bool:
    """Whether onnx_ir reads a type and writes the same again; no type at all is one that it knows."""
    if kind.WhichOneof("value") is None:
        return True
    while (name := kind.WhichOneof("value")) in _NESTED:
        kind = getattr(kind, name).elem_type
    return name in _KNOWN


def _infos(proto: onnx.ModelProto) -> Iterator[onnx.ValueInfoProto]:
    """All that is said of values, in every graph and function."""
    yield from _of_graph(proto.graph)
    pending: list[onnx.NodeProto] = list(proto.graph.node)
    for function in proto.functions:
        yield from function.value_info
        pending += function.node
    while pending:
        for attribute in pending.pop().attribute:
            if attribute.type in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS):
                for graph in (attribute.g, *attribute.graphs):
                    yield from _of_graph(graph)
                    pending += graph.node


def _of_graph(graph: onnx.GraphProto) -> Iterable[onnx.ValueInfoProto]:
    yield from graph.input
    yield from graph.output
    yield from graph.value_info
