"""The scopes of a model: lists of nodes, each with the version of the operator set that it is written for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import onnx_ir as ir

ONNX_DOMAINS = ("", "ai.onnx")
"""The two names of the domain of ONNX's own operators."""

_GRAPHS = frozenset({ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS})


@dataclass(frozen=True)
class Scope:
    """One list of nodes: the main graph, a subgraph of a control-flow node, or a function's body.

    Attributes:
        graph: Where the nodes stand.
        label: `""` for the main graph; otherwise words for a report, as `function pkg::Norm`.
        opset: Version of ONNX's operator set that its nodes are written for.
        is_function: Whether this is (inside) a function, whose constants must be `Constant` nodes.
    """

    graph: ir.Graph
    label: str
    opset: int
    is_function: bool


def scopes(model: ir.Model) -> Iterator[Scope]:
    """Every scope of a model: the main graph, then the functions, each followed by its subgraphs."""
    opset = _opset(model.graph.opset_imports)
    yield from _with_subgraphs(Scope(model.graph, "", opset, is_function=False))
    for function in model.functions.values():
        own = _opset(function.opset_imports, default=opset)
        label = f"function {function.domain}::{function.name}"
        yield from _with_subgraphs(Scope(function.graph, label, own, is_function=True))


def nodes(model: ir.Model) -> Iterator[ir.Node]:
    """Every node of every scope, in graph order."""
    return (node for scope in scopes(model) for node in scope.graph)


def _with_subgraphs(scope: Scope) -> Iterator[Scope]:
    yield scope
    for node in scope.graph:
        for attribute in node.attributes.data.values():  # its own views take five times as long
            if attribute.type not in _GRAPHS:
                continue
            for graph in subgraphs(attribute):
                label = f"{attribute.name} of {node.op_type} {node.name or ''}".rstrip()
                label = f"{scope.label}, {label}" if scope.label else label
                yield from _with_subgraphs(Scope(graph, label, scope.opset, scope.is_function))


def subgraphs(attribute: ir.Attr) -> list[ir.Graph]:
    """The graphs that an attribute holds; none for a reference to a function's attribute."""
    if attribute.type not in _GRAPHS or attribute.is_ref():
        return []
    if attribute.type == ir.AttributeType.GRAPH:
        return [attribute.as_graph()]
    return list(attribute.as_graphs())


def _opset(imports: dict[str, int], default: int = 1) -> int:
    return imports.get("", imports.get("ai.onnx", default))
