"""Changes of layout that a BatchNorm kept apart, and that undo each other now that it is gone.

Exporters flatten a sequence for a BatchNorm and give it back its shape: `MatMul → Reshape → BatchNorm →
Reshape`. Runtimes run both Reshapes all the same, so they go with the BatchNorm.
"""

from __future__ import annotations

import onnx_ir as ir

from bnfold.graph.editor import Editor
from bnfold.graph.facts import Facts
from bnfold.graph.naming import can_stand_for, replace
from bnfold.graph.nodes import integers
from bnfold.graph.scopes import ONNX_DOMAINS
from bnfold.ops.constraints import fault_of

_RESHAPES = frozenset({"Reshape", "Flatten", "Squeeze", "Unsqueeze"})


def close_gap(value: ir.Value, facts: Facts, editor: Editor) -> None:
    """Remove what the two sides of a gap do to the layout and undo again.

    Args:
        value: What the nodes that are gone read, and now the nodes after them.
        facts: What is known of the model.
        editor: Removes the nodes.
    """
    maker = value.producer()
    if (
        maker is None
        or maker.graph is None
        or value.is_graph_output()
        or not maker.inputs
        or maker.inputs[0] is None
    ):
        return
    source = maker.inputs[0]
    for reader, index in tuple(value.uses()):
        if index != 0 or reader.graph is not maker.graph:
            continue
        result = reader.outputs[0]
        if _undoes(reader, maker, facts) and can_stand_for(source, result):
            replace(result, source)
            editor.release(reader)
        elif _is_reshape(maker) and _ignores_its_input(reader, facts):
            reader.replace_input_with(0, source)
    if not value.uses():
        editor.release(maker)


def _undoes(second: ir.Node, first: ir.Node, facts: Facts) -> bool:
    """Whether two nodes in a row give back what they read."""
    if fault_of(first, facts) or fault_of(second, facts):
        return False
    if first.op_type == "Transpose" and second.op_type == "Transpose":
        there, back = integers(first, "perm"), integers(second, "perm")
        standard = first.domain in ONNX_DOMAINS and second.domain in ONNX_DOMAINS
        return standard and len(there) == len(back) > 0 and [there[axis] for axis in back] == sorted(there)
    return (
        _is_reshape(first) and _is_reshape(second) and _same_shape(first.inputs[0], second.outputs[0], facts)
    )


def _same_shape(one: ir.Value | None, other: ir.Value, facts: Facts) -> bool:
    """Whether two values with the same elements in the same order have one shape.

    Where all sizes but one are known and equal, the last is what the number of elements leaves.
    """
    first, second = facts.shape(one), facts.shape(other)
    if first is None or second is None or len(first) != len(second):
        return False
    known = [isinstance(a, int) and a == b and a > 0 for a, b in zip(first, second, strict=True)]
    return known.count(False) <= 1


def _is_reshape(node: ir.Node) -> bool:
    return node.op_type in _RESHAPES and node.domain in ONNX_DOMAINS


def _ignores_its_input(node: ir.Node, facts: Facts) -> bool:
    """Whether a Reshape names every size itself, so that any shape of the same elements will do."""
    if node.op_type != "Reshape" or node.domain not in ONNX_DOMAINS:
        return False
    target = facts.integers(node, 1, "shape")
    return target is not None and 0 not in target
