"""The graphs within If, Loop and Scan, each converted by itself.

onnx's converter has no way back for these operators, of which only the types have changed, and does not see
what their graphs read of the outer ones. So each graph becomes a model, whose inputs are all that it reads,
and its converted nodes are put back.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import onnx
import onnx.version_converter

Known = Mapping[str, onnx.ValueInfoProto]


def convert(model: onnx.ModelProto, opset: int) -> onnx.ModelProto:
    """Let onnx convert a model and the graphs within its nodes.

    Args:
        model: The model, in which the nodes with graphs are hidden from the converter. It is modified.
        opset: The version to convert to.
    """
    _convert_within(model, model.graph, opset, {}, {*_names(model.graph)})
    return onnx.version_converter.convert_version(model, opset)


def _convert_within(
    model: onnx.ModelProto, graph: onnx.GraphProto, opset: int, outer: Known, taken: set[str]
) -> None:
    bodies = [body for node in graph.node for body in _bodies(node)]
    if not bodies:
        return
    known = {**outer, **_types(graph)}
    for body in bodies:
        _convert_within(model, body, opset, known, taken)
        before, inputs = {*_names(body)}, len(body.input)
        alone = onnx.ModelProto(ir_version=model.ir_version, opset_import=model.opset_import)
        alone.graph.CopyFrom(body)
        for name in sorted(_read(body)):
            alone.graph.input.append(known.get(name, onnx.ValueInfoProto(name=name)))
        made = onnx.version_converter.convert_version(alone, opset).graph
        del made.input[inputs:]
        _rename_new(made, before | _read(body), taken)
        body.CopyFrom(made)


def _bodies(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.GRAPH:
            yield attribute.g
        yield from attribute.graphs


def _types(graph: onnx.GraphProto) -> dict[str, onnx.ValueInfoProto]:
    found = {value.name: value for value in (*graph.value_info, *graph.output, *graph.input)}
    for tensor in graph.initializer:
        made = onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))
        found.setdefault(tensor.name, made)
    return found


def _defined(graph: onnx.GraphProto) -> set[str]:
    values = {one.name for one in (*graph.input, *graph.initializer)}
    return values.union(*(node.output for node in graph.node))


def _read(graph: onnx.GraphProto) -> set[str]:
    """What a graph and those within it read of the outer ones."""
    read = {value.name for value in graph.output}
    for node in graph.node:
        read.update(node.input, *(_read(body) for body in _bodies(node)))
    return read - _defined(graph) - {""}


def _names(graph: onnx.GraphProto) -> Iterator[str]:
    """All values of a graph and of those within it."""
    yield from _defined(graph)
    for node in graph.node:
        for body in _bodies(node):
            yield from _names(body)


def _rename_new(graph: onnx.GraphProto, before: set[str], taken: set[str]) -> None:
    """Give the values that the converter added names that nothing in the model has."""
    new: dict[str, str] = {}
    for name in sorted(_defined(graph) - before - {""}):
        made, count = name, 1
        while made in taken:
            count += 1
            made = f"{name}_{count}"
        taken.add(made)
        new[name] = made
    for node in graph.node:
        for names in (node.input, node.output):
            names[:] = [new.get(name, name) for name in names]
    for value in (*graph.initializer, *graph.value_info):
        value.name = new.get(value.name, value.name)
