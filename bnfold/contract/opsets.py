"""Which operators a model has, and whether they are the same in two versions of ONNX's operator set."""

from __future__ import annotations

from collections.abc import Iterator

import onnx
import onnx_ir as ir

from bnfold.graph.scopes import ONNX_DOMAINS, scopes


def opset_of(model: ir.Model) -> int:
    """The version of ONNX's own operators; 0 where the model uses none."""
    imports = model.graph.opset_imports
    return imports.get("", imports.get("ai.onnx", 0))


def own_nodes(model: ir.Model) -> Iterator[ir.Node]:
    """The nodes of ONNX's own operators, in all scopes."""
    return (node for scope in scopes(model) for node in scope.graph if node.domain in ONNX_DOMAINS)


def differs(node: ir.Node, one: int, other: int) -> bool:
    """Whether an operator is not the same in two versions, or not there in one of them."""
    if not (onnx.defs.has(node.op_type, one) and onnx.defs.has(node.op_type, other)):
        return True
    schemas = (onnx.defs.get_schema(node.op_type, version) for version in (one, other))
    return len({schema.since_version for schema in schemas}) > 1


def crosses(since: int, one: int, other: int) -> bool:
    """Whether a version lies between two others, so that one is older and the other is not."""
    return min(one, other) < since <= max(one, other)
