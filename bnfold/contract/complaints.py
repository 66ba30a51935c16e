"""What stands in the way of a conversion, in words: onnx's converter says less than it knows."""

from __future__ import annotations

import re
from collections.abc import Sequence

import onnx
import onnx.version_converter
import onnx_ir as ir

from bnfold.contract.opsets import differs, own_nodes
from bnfold.contract.preparing import LARGE
from bnfold.errors import listed, reason
from bnfold.graph.nodes import label
from bnfold.tensors.sizes import nbytes

_CAME_LATER = re.compile(r"No Previous Version of (\w+) exists")
_NO_WAY_BACK = re.compile(r"No Adapter (From|To) Version \$(\d+) for (\w+)")
_HAS_MORE = re.compile(r"Unrecognized attribute: (\w+) for operator (\w+)")


def problem(error: Exception, model: ir.Model, now: int, opset: int) -> str:
    """What the converter says, with the operator, which it sometimes leaves out, and one of its nodes."""
    said = _said(error)
    nodes = list(own_nodes(model))
    if (words := _in_words(said, nodes, opset)) is not None:
        return words
    named = next((node for node in nodes if f" {node.op_type}" in f" {said}"), None)
    if named is not None:
        return said
    culprit = next((node for node in nodes if _complaint(node, now, opset) == said), None)
    if culprit is not None:
        return f"{culprit.op_type} {label(culprit)!r}: {said}"
    changed = dict.fromkeys(node.op_type for node in nodes if differs(node, now, opset))
    return f"one of {listed(changed)}: {said}" if changed else said


def _in_words(said: str, nodes: Sequence[ir.Node], opset: int) -> str | None:
    """What the converter says most often, in words; None for anything else."""
    if found := _CAME_LATER.match(said):
        (operator,) = found.groups()
        first = next(
            (version for version in range(1, _newest()) if onnx.defs.has(operator, version)), _newest()
        )
        return f"{_name(operator, nodes)} came with opset {first}"
    if found := _NO_WAY_BACK.match(said):
        direction, version, operator = found.groups()
        changed = int(version) + (direction == "To")
        return f"{_name(operator, nodes)} changed in opset {changed}, and onnx has no way back from there"
    if found := _HAS_MORE.match(said):
        attribute, operator = found.groups()
        having = [node for node in nodes if attribute in node.attributes]
        return f"{_name(operator, having)} has {attribute}, which opset {opset} does not know"
    if said.startswith("Type unknown for"):
        without = dict.fromkeys(node.op_type for node in nodes if not onnx.defs.has(node.op_type, opset))
        return (
            f"onnx cannot write {listed(without)} out in the operators of opset {opset}" if without else None
        )
    return None


def _newest() -> int:
    return onnx.defs.onnx_opset_version()


def _name(operator: str, nodes: Sequence[ir.Node]) -> str:
    node = next((node for node in nodes if node.op_type == operator), None)
    return operator if node is None else f"{operator} {label(node)!r}"


def _said(error: Exception) -> str:
    return reason(error).rpartition(" failed: ")[2]  # without the line of onnx's source


def _complaint(node: ir.Node, now: int, opset: int) -> str | None:
    """What onnx's converter says of this node by itself."""
    if any(attribute.type == ir.AttributeType.GRAPH for attribute in node.attributes.values()):
        return None  # its body may read values of the outer graph
    values = list(dict.fromkeys(value for value in node.inputs if value is not None))
    small = [
        value for value in values if value.const_value is not None and nbytes(value.const_value) <= LARGE
    ]
    alone = onnx.helper.make_graph(
        [ir.to_proto(node)],
        "alone",
        [ir.to_proto(value) for value in values if value not in small],
        [ir.to_proto(value) for value in node.outputs],
        [ir.to_proto(value.const_value) for value in small if value.const_value is not None],
    )
    imports = [onnx.helper.make_opsetid("", now)]
    try:
        onnx.version_converter.convert_version(onnx.helper.make_model(alone, opset_imports=imports), opset)
    except RuntimeError as error:
        return _said(error)
    return None
