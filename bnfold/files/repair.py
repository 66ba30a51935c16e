"""What runtimes accept and onnx_ir does not: nodes in any order, and names that are not text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import onnx
import onnx_ir as ir

from bnfold.errors import ModelError
from bnfold.graph.scopes import scopes, subgraphs

MOST_NODES = 2**20
"""Of a model once its functions are inlined, as runtimes do; functions may call each other many times."""

SORTED = "Its nodes were not in topological order; bnfold has sorted them."
RENAMED = "Some of its names or texts are not UTF-8; the bytes in them are written as \\x escapes."


def demand_bounded(proto: onnx.ModelProto, name: str) -> None:
    """Refuse a model whose functions multiply beyond what anybody can run.

    A function that calls another one twice, which calls a third one twice, …: 40 of them are 3 kB, and 10¹²
    nodes once they are inlined.

    Raises:
        ModelError: There would be more than `MOST_NODES` nodes, or a function calls itself.
    """
    if not proto.functions:
        return
    bodies = {_key(function): list(_nodes(function.node)) for function in proto.functions}
    sizes: dict[tuple[str, str, str], int] = {}
    open_: dict[tuple[str, str, str], None] = {}
    pending = list(bodies)
    while pending:
        key = pending[-1]
        missing = [call for node in bodies[key] if (call := _called(node)) in bodies and call not in sizes]
        if key in sizes or not missing:
            pending.pop()
            open_.pop(key, None)
            sizes.setdefault(key, _expanded(bodies[key], sizes))
            continue
        if key in open_:
            raise ModelError(
                f"{name} has a function, {key[1]}, that calls itself.", "ONNX does not allow that."
            )
        open_[key] = None
        pending += dict.fromkeys(missing)
    total = _expanded(_nodes(proto.graph.node), sizes)
    if total > MOST_NODES:
        raise ModelError(
            f"{name} has {total:.2g} nodes once its functions are inlined; up to {MOST_NODES:,} are read.",
            "Its functions call functions that call functions: inline those that matter, remove the others.",
        )


def put_right(model: ir.Model, name: str) -> tuple[str, ...]:
    """Sort nodes and decode names where that has to be done.

    Args:
        model: A model that was just read, which is modified.
        name: What messages call it.

    Returns:
        A sentence for each thing that was done.

    Raises:
        ModelError: Nodes depend on each other in a circle, or a name that callers use is not text.
    """
    notes = []
    graphs = (model.graph, *(function.graph for function in model.functions.values()))
    if not all(_is_sorted(graph, set()) for graph in graphs):
        try:
            for graph in graphs:
                graph.sort()
        except ValueError as error:
            what = f"{name} is not valid: some of its nodes depend on each other in a circle."
            raise ModelError(what, "Export it again.") from error
        notes.append(SORTED)
    if _decode(model, name):
        notes.append(RENAMED)
    return tuple(notes)


def _key(function: onnx.FunctionProto) -> tuple[str, str, str]:
    return function.domain, function.name, function.overload


def _called(node: onnx.NodeProto) -> tuple[str, str, str]:
    return node.domain, node.op_type, node.overload


def _nodes(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    """These nodes and all within their subgraphs."""
    pending = list(nodes)
    while pending:
        node = pending.pop()
        yield node
        for attribute in node.attribute:
            if attribute.type in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS):
                pending += (inner for graph in (attribute.g, *attribute.graphs) for inner in graph.node)


def _expanded(nodes: Iterable[onnx.NodeProto], sizes: dict[tuple[str, str, str], int]) -> int:
    return sum(1 + sizes.get(_called(node), 0) for node in nodes)


def _is_sorted(graph: ir.Graph, seen: set[ir.Node]) -> bool:
    """Whether every node comes after those that it reads, and those that its subgraphs read."""
    for node in graph:
        for value in node.inputs:
            producer = None if value is None else value.producer()
            if producer is not None and producer not in seen:
                return False
        inner = (graph for one in node.attributes.data.values() for graph in subgraphs(one))
        if not all(_is_sorted(one, seen) for one in inner):
            return False
        seen.add(node)
    return True


def _decode(model: ir.Model, name: str) -> bool:
    """Let all names be text; whether one was not. protobuf hands over as bytes what is not UTF-8."""
    for value in (*model.graph.inputs, *model.graph.outputs):
        if _is_bytes(value.name):
            what = f"{name} has an input or output named {value.name!r}, which is not UTF-8 text."
            raise ModelError(what, "Give it another name.")
    changed = _decode_descriptions(model)
    for scope in scopes(model):
        for node in scope.graph:
            given = (one.ref_attr_name for one in node.attributes.data.values() if one.is_ref())
            parts = (node.op_type, node.domain, node.overload, *node.attributes.data, *given)
            if bad := next(filter(_is_bytes, parts), None):
                what = f"{name} has an operator or an attribute named {bad!r}, which is not UTF-8 text."
                raise ModelError(what, "The file is damaged: save or download it again.")
            named: list[ir.Node | ir.Value] = [node, *node.outputs]
            for one in named:
                if _is_bytes(one.name):
                    one.name, changed = _text(one.name), True
    return changed


def _decode_descriptions(model: ir.Model) -> bool:
    """Let all that only people read be text; whether some of it was not."""
    changed = _decode_fields(model, "producer_name", "producer_version", "domain", "doc_string")
    changed |= _decode_entries(model)
    for scope in scopes(model):
        graph = scope.graph
        values = (*graph.inputs, *graph.outputs, *graph.initializers.data.values())
        changed |= _decode_fields(graph, "name")
        for one in (graph, *values, *graph, *(value for node in graph for value in node.outputs)):
            changed |= _decode_fields(one, "doc_string") | _decode_entries(one)
        for node in graph:
            for attribute in node.attributes.data.values():
                changed |= _decode_fields(attribute, "doc_string")
    return changed


def _decode_fields(holder: Any, *fields: str) -> bool:
    changed = False
    for field in fields:
        if _is_bytes(text := getattr(holder, field)):
            setattr(holder, field, _text(text))
            changed = True
    return changed


def _decode_entries(holder: Any) -> bool:
    entries = holder.metadata_props
    if not entries or not any(map(_is_bytes, (*entries, *entries.values()))):
        return False
    held = {_as_text(key): _as_text(text) for key, text in entries.items()}
    entries.clear()
    entries.update(held)
    return True


def _is_bytes(name: object) -> bool:
    return isinstance(name, bytes)


def _as_text(name: Any) -> Any:
    return _text(name) if _is_bytes(name) else name


def _text(name: object) -> str:
    assert isinstance(name, bytes), "asked about bytes"
    return name.decode("utf-8", "backslashreplace")
