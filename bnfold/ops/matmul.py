"""MatMul: with a constant it is a linear layer, of two values it is attention."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from bnfold import reasons
from bnfold.algebra import matmul
from bnfold.algebra.affine import Affine, Array
from bnfold.graph.editor import Editor
from bnfold.graph.facts import Facts, Folds
from bnfold.graph.nodes import integer, label
from bnfold.graph.scopes import ONNX_DOMAINS
from bnfold.ops.base import Absorb, Answer, ToInput, ToOutput, unknown_shape, wrong_axis
from bnfold.ops.linear import (
    Weighted,
    channel_problem,
    constant_problem,
    demand_finite,
    row_times,
    times_column,
    weight_shape,
    write_weight,
)
from bnfold.reasons import Reason
from bnfold.tensors.parts import parts

_BROADCASTS = 7  # since this version a bias Add broadcasts by itself


class MatMul(Weighted):
    """MatMul, `Y = A·B`, either operand constant or neither; any rank from 2.

    With a constant:
    Output: `s·(A·B) + t = A·(B·s) + t`, s along the constant's free axis; t becomes a bias Add after it.
    Input: `(A·s + t)·B = A·(s·B) + t·B`, s along the contracted axis; `t·B` goes into the bias Add after it.
    Both may vary along the batch axes that the constant has itself: each of its matrices takes its own.

    Of two values: a scale along the free axis of one of them passes between it and Y. A shift along B's free
    axis passes too where the rows of A sum to one, as those of a Softmax do: `A·(B + t) = A·B + t`.
    """

    def at_output(self, node: ir.Node, index: int, affine: Affine, facts: Facts) -> Answer:
        """Into the constant, or on to one of the two values."""
        del index
        rank = facts.rank(node.outputs[0])
        if rank is None or any(facts.rank(value) is None for value in node.inputs if value is not None):
            return unknown_shape(node, node.outputs[0])
        weight = _weight_index(node, facts)
        if weight is None:
            return _on_to_operand(node, affine, rank, facts)
        problem = _problem(node, weight, facts)
        if problem is not None:
            return problem
        shape = weight_shape(node, weight, facts)
        problem = _place_problem(node, affine.only_scale, rank, shape, weight - 2)
        return problem or self.absorb(node, weight, Absorb("output", affine, inserts=affine.has_shift), facts)

    def at_input(self, node: ir.Node, index: int, affine: Affine, facts: Facts) -> Answer:
        """Into the constant, or on to what reads the product."""
        rank = facts.rank(node.inputs[index])
        if rank is None or facts.rank(node.outputs[0]) is None:
            return unknown_shape(node, node.inputs[index])
        if _weight_index(node, facts) != 1 - index:
            return _on_to_output(node, index, affine, rank, facts)
        problem = _problem(node, 1 - index, facts)
        if problem is not None:
            return problem
        shape = weight_shape(node, 1 - index, facts)
        turned = (*shape[:-2], shape[-1], shape[-2])  # the input's last two axes stand beside these
        problem = _place_problem(node, affine, rank, turned, -1 - index)
        inserts = affine.has_shift and bias_add(node, facts) is None
        return problem or self.absorb(node, 1 - index, Absorb("input", affine, inserts=inserts), facts)

    def absorb(self, node: ir.Node, index: int, step: Absorb, facts: Facts) -> Answer:
        """As every weight does, where the shift can be added."""
        if step.inserts and facts.version(node) < _BROADCASTS:
            setting = "no bias, in a version of ONNX that cannot add one"
            return reasons.SETTING(node=label(node), operator="MatMul", setting=setting)
        return super().absorb(node, index, step, facts)

    def write(self, node: ir.Node, folds: Folds, facts: Facts, editor: Editor) -> None:
        """Compute the weight in float64; the shift goes into the bias Add, inserted where there is none."""
        index = _weight_index(node, facts)
        rank = facts.rank(node.outputs[0])
        assert index is not None, "planned on a constant weight"
        assert rank is not None, "planned on a known rank"
        scale, shift = folds.outward.padded(rank)
        total = shift
        if folds.inward.has_shift:  # 0·∞ is NaN: without a shift, the weight is not read
            total = scale * _fit(_given(node, index, folds.inward, facts), rank) + shift
        write_weight(node, index, self.factors(node, folds, facts), facts, editor)
        demand_finite(node, total, facts)
        if np.any(total):
            write_bias_add(node, index, total, facts, editor)

    def scales(self, node: ir.Node, folds: Folds, facts: Facts) -> tuple[Array, Array]:
        """The scale of the output on the free axis times that of the input on the contracted one."""
        index, rank = _weight_index(node, facts), facts.rank(node.outputs[0])
        assert index is not None, "planned on a constant weight"
        assert rank is not None, "planned on a known rank"
        own = len(weight_shape(node, index, facts))
        outward, _ = folds.outward.padded(rank)
        inward, _ = folds.inward.padded(facts.rank(_value(node, 1 - index)) or 0)
        # the rows that an input is multiplied by are the columns of what multiplies the weight
        return _fit(outward, own), _fit(np.swapaxes(inward, -1, -2), own)


def bias_add(node: ir.Node, facts: Facts) -> tuple[ir.Node, int] | None:
    """The Add or Sub of a constant that alone reads a node's numbers, and which input the constant is."""
    value = node.outputs[0]
    uses = facts.readers(value)
    if value.is_graph_output() or len(uses) != 1:
        return None
    reader, position = uses[0]
    other = 1 - position
    same_graph = reader.graph is node.graph and reader.domain in ONNX_DOMAINS
    if not same_graph or reader.op_type not in ("Add", "Sub") or not facts.has_constant(reader, other):
        return None
    # before version 7 an operand was broadcast only where attributes said so, and how
    if facts.version(reader) < _BROADCASTS:
        return None
    return reader, other


def write_bias_add(node: ir.Node, weight: int, shift: Array, facts: Facts, editor: Editor) -> None:
    """Add a constant to what a node gives, in the bias Add after it or in a new one, of its weight's type."""
    slot = bias_add(node, facts)
    dtype = facts.constant_dtype(node, weight)
    # a vector along the last axis needs no leading axes of size 1
    while shift.ndim > 1 and shift.shape[0] == 1:
        shift = shift[0]
    if slot is None:
        editor.add_after(node, shift, dtype)
        return
    reader, index = slot
    old = facts.operand(reader, index)
    assert old is not None, "the bias is constant"
    facts.edited[reader, index] = old + shift if reader.op_type == "Add" else old - shift
    editor.rename_changed(node.outputs[0])


def _weight_index(node: ir.Node, facts: Facts) -> int | None:
    return next((index for index in (1, 0) if facts.has_constant(node, index)), None)


def _problem(node: ir.Node, weight: int, facts: Facts) -> Reason | None:
    problem = constant_problem(node, weight, facts)
    if (
        problem is None
        and min(len(weight_shape(node, weight, facts)), facts.rank(_value(node, 1 - weight)) or 0) < 2
    ):
        return reasons.SETTING(node=label(node), operator="MatMul", setting="an operand of rank 1")
    return problem


def _value(node: ir.Node, index: int) -> ir.Value:
    value = node.inputs[index]
    assert value is not None, "both inputs of MatMul are required"
    return value


def _place_problem(
    node: ir.Node, affine: Affine, rank: int, weight: tuple[int, ...], free: int
) -> Reason | None:
    """Why a constant cannot take an affine of a value of `rank` axes; None where it can.

    Args:
        node: The MatMul.
        affine: In the axes of the value.
        rank: The value's.
        weight: The shape of the constant, its last two axes in the order of the value's.
        free: The one of the last two axes along which the affine may vary, counted from the right.
    """
    if affine.axes <= {rank + free}:
        return channel_problem(node, affine, rank + free, weight[free])
    stack = (1,) * (rank - len(weight)) + weight[:-2]
    own = (*stack, *(weight[axis] if axis == free else 1 for axis in (-2, -1)))
    for coefficient in affine.padded(rank):
        pairs = zip(coefficient.shape, own[len(own) - rank :], strict=True)
        if any(size not in (1, have) for size, have in pairs):
            return wrong_axis(node, affine, rank + free)
    return None


def _given(node: ir.Node, index: int, affine: Affine, facts: Facts) -> Array:
    """What the shift of the input becomes: a row for each matrix of a constant B, a column for those of A."""
    rank, matrix = facts.rank(_value(node, 1 - index)) or 0, facts.weight(node, index)
    _, shift = affine.padded(rank)
    axis, size = (rank - 1, matrix.shape.numpy()[-2]) if index == 1 else (rank - 2, matrix.shape.numpy()[-1])
    if affine.shift_axes <= {axis}:
        vector = np.broadcast_to(shift.reshape(-1), (size,))
        return row_times(vector[None, :], matrix) if index == 1 else times_column(matrix, vector[:, None])
    stack = matrix.shape.numpy()[:-2]
    vectors = np.broadcast_to(
        _fit(shift, len(stack) + 2), (*stack, *((1, size) if index == 1 else (size, 1)))
    )
    pieces = [
        matmul.product(vectors[where], wide) if index == 1 else matmul.product(wide, vectors[where])
        for where, part in parts(matrix, whole=2)
        for wide in [np.asarray(part, np.float64)]
    ]
    free = (1, matrix.shape.numpy()[-1]) if index == 1 else (matrix.shape.numpy()[-2], 1)
    return np.concatenate([piece.reshape(-1, *free) for piece in pieces]).reshape(*stack, *free)


def _fit(array: Array, rank: int) -> Array:
    """Give an array `rank` axes by adding, or taking away, leading axes of size 1."""
    return array.reshape((1,) * (rank - array.ndim) + array.shape[max(array.ndim - rank, 0) :])


def _on_to_operand(node: ir.Node, affine: Affine, rank: int, facts: Facts) -> Answer:
    ways = []
    left, right = (facts.rank(_value(node, index)) or 0 for index in (0, 1))
    shift_passes = not affine.has_shift or (
        affine.shift_axes <= {rank - 1} and _rows_sum_to_one(node, rank, facts)
    )
    if min(left, right) < 2:
        return reasons.SETTING(node=label(node), operator="MatMul", setting="an operand of rank 1")
    if affine.axes <= {rank - 1} and shift_passes:
        ways.append((ToInput(1, _moved(affine, right - 1)),))
    if affine.axes <= {rank - 2} and not affine.has_shift:
        ways.append((ToInput(0, _moved(affine, left - 2)),))
    if not shift_passes:
        return reasons.SHIFT(operator="MatMul of two values", node=label(node))
    return ways or wrong_axis(node, affine, f"{rank - 2} or {rank - 1}")


def _on_to_output(node: ir.Node, index: int, affine: Affine, rank: int, facts: Facts) -> Answer:
    free = rank - 1 if index == 1 else rank - 2
    out = facts.rank(node.outputs[0]) or 0
    if rank < 2 or out < 2:
        return reasons.SETTING(node=label(node), operator="MatMul", setting="an operand of rank 1")
    if not affine.axes <= {free}:
        return wrong_axis(node, affine, free)
    if affine.has_shift and not (index == 1 and _rows_sum_to_one(node, out, facts)):
        return reasons.SHIFT(operator="MatMul of two values", node=label(node))
    return [(ToOutput(0, _moved(affine, out - 1 if index == 1 else out - 2)),)]


def _moved(affine: Affine, target: int) -> Affine:
    return Affine.along(target, affine.scale.reshape(-1), affine.shift.reshape(-1)) if affine.axes else affine


def _rows_sum_to_one(node: ir.Node, rank: int, facts: Facts) -> bool:
    """Whether the left operand is a Softmax over its last axis."""
    source = _value(node, 0)
    maker = source.producer()
    if maker is None or maker.op_type != "Softmax" or maker.domain not in ONNX_DOMAINS:
        return False
    own = facts.rank(source)
    # before version 13 all axes from `axis` on are normalised together
    axis = integer(maker, "axis", -1 if facts.version(maker) >= 13 else 1)
    return own is not None and own <= rank and axis in (-1, own - 1)


OPERATORS = {"MatMul": MatMul()}
