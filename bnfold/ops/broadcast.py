"""How ONNX's multidirectional broadcasting carries an affine from an output to an operand.

Operands are aligned from the right. Sizes that happen to agree prove nothing: what counts is on which axis of
the output an axis of the operand lands, and whether it is really there or repeated.
"""

from __future__ import annotations

import onnx_ir as ir

from bnfold import reasons
from bnfold.algebra.affine import Affine
from bnfold.graph.facts import Facts
from bnfold.graph.nodes import label, name_of
from bnfold.ops.base import Operand, unknown_shape
from bnfold.reasons import Reason


def to_operand(node: ir.Node, index: int, affine: Affine, facts: Facts) -> Affine | Reason:
    """An affine at the output of an elementwise operator, in the axes of an operand that is not constant.

    Args:
        node: An operator with broadcasting operands and one output.
        index: Which operand.
        affine: In the axes of the output.
        facts: What is known of the model.
    """
    value = node.inputs[index]
    output = node.outputs[0]
    otherwise = _aligns_otherwise(node)
    if otherwise is not None or not affine.axes:
        return otherwise or affine
    own = facts.shape(value)
    rank = facts.rank(output)
    if own is None or rank is None:
        return reasons.UNKNOWN_SHAPE(value=name_of(value if own is None else output), node=label(node))
    offset = rank - len(own)
    for axis in affine.axes:
        size = own[axis - offset] if axis >= offset else 1
        if size == 1:
            return reasons.BROADCAST(value=name_of(value), node=label(node))
        if not isinstance(size, int) or size != facts.size(output, axis):
            return reasons.UNKNOWN_SHAPE(value=name_of(value), node=label(node))
    return affine.mapped(rank, lambda c: c.reshape(c.shape[offset:])) if offset else affine


def from_operand(node: ir.Node, index: int, affine: Affine, facts: Facts) -> Affine | Reason:
    """An affine at an operand, in the axes of the output."""
    value = node.inputs[index]
    output = node.outputs[0]
    otherwise = _aligns_otherwise(node)
    if otherwise is not None or not affine.axes:
        return otherwise or affine
    own, rank = facts.rank(value), facts.rank(output)
    if own is None or rank is None:
        return reasons.UNKNOWN_SHAPE(value=name_of(value if own is None else output), node=label(node))
    return affine.mapped(own, lambda c: c.reshape((1,) * (rank - own) + c.shape)) if rank != own else affine


def to_constant(node: ir.Node, index: int, affine: Affine, facts: Facts) -> Operand | Reason:
    """An affine at the output, as what it does to a constant operand, which may grow by it."""
    rank = facts.rank(node.outputs[0])
    otherwise = _aligns_otherwise(node)
    if otherwise is not None:
        return otherwise
    if rank is None:
        if affine.axes:
            return unknown_shape(node, node.outputs[0])
        rank = 0
    for axis in affine.axes:
        if facts.size(node.outputs[0], axis) is None:
            return unknown_shape(node, node.outputs[0])
    return Operand(index, *affine.padded(rank))


def _aligns_otherwise(node: ir.Node) -> Reason | None:
    """Before version 7 of the operator set an attribute said where the second operand's axes lie."""
    if "broadcast" in node.attributes or "axis" in node.attributes:
        return reasons.SETTING(
            node=label(node), operator=node.op_type, setting="broadcasting by an attribute"
        )
    return None
