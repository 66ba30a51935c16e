"""What a node says of itself: its label, its attributes, the PyTorch module that it came from."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import lru_cache

import onnx_ir as ir

from bnfold import reasons
from bnfold.graph.scopes import nodes, subgraphs
from bnfold.reasons import Reason


def count_nodes(model: ir.Model) -> int:
    """Number of nodes in all scopes; `Constant` nodes, which are storage, left out."""
    return sum(node.op_type != "Constant" for node in nodes(model))


def captured(node: ir.Node) -> Iterator[ir.Value]:
    """The values of outer graphs that a node's subgraphs read."""
    for attribute in node.attributes.values():
        for graph in subgraphs(attribute):
            for inner in graph.all_nodes():
                yield from (value for value in inner.inputs if value is not None and value.graph is not graph)


def label(node: ir.Node) -> str:
    """How a report names a node: by its name, or by its first output."""
    return node.name or (node.outputs[0].name if node.outputs else None) or node.op_type


def name_of(value: ir.Value | None) -> str:
    """How a report names a value."""
    return (value.name or "an unnamed value") if value is not None else "an input that is left out"


def caller_problem(node: ir.Node) -> Reason | None:
    """Why a node's attributes are not known: a function's caller sets one of them. None where they are."""
    given = next((one.name for one in node.attributes.data.values() if one.is_ref()), None)
    return None if given is None else reasons.CALLER_ATTRIBUTE(node=label(node), attribute=given)


def integer(node: ir.Node, name: str, default: int) -> int:
    """An integer attribute, or its default."""
    attribute = node.attributes.data.get(name)
    return default if attribute is None else attribute.as_int()


def real(node: ir.Node, name: str, default: float) -> float:
    """A float attribute, or its default."""
    attribute = node.attributes.data.get(name)
    return default if attribute is None else float(attribute.as_float())


def text(node: ir.Node, name: str, default: str) -> str:
    """A string attribute, or its default."""
    attribute = node.attributes.data.get(name)
    return default if attribute is None else attribute.as_string()


def integers(node: ir.Node, name: str) -> tuple[int, ...]:
    """A list of integers in an attribute, empty where it is left out."""
    attribute = node.attributes.data.get(name)
    return () if attribute is None else tuple(attribute.as_ints())


def module_name(node: ir.Node, otherwise: str | None = None) -> str:
    """The PyTorch module path that the exporter noted, otherwise the node's label, or what is given."""
    return path_of(node) or (label(node) if otherwise is None else otherwise)


def path_of(node: ir.Node) -> str | None:
    """Path of the module whose forward a node is part of; None where the exporter has not noted it."""
    scopes = node.metadata_props.get("pkg.torch.onnx.name_scopes")
    return None if scopes is None else _innermost(scopes)


@lru_cache(maxsize=2**16)
def _innermost(scopes: str) -> str | None:
    """The last path but one: the last is the operator's own."""
    try:
        found = ast.literal_eval(scopes)
    except (SyntaxError, ValueError):
        return None
    within = found[-2] if isinstance(found, list) and len(found) > 1 else None
    return within if isinstance(within, str) else None
