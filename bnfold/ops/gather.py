"""Gather: rows of a constant table, as an embedding, or elements of a value, as a channel shuffle."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from bnfold import reasons
from bnfold.algebra.affine import Affine, Array
from bnfold.graph.editor import Editor
from bnfold.graph.facts import Facts, Folds
from bnfold.graph.nodes import integer, label, name_of
from bnfold.ops import quantized
from bnfold.ops.base import Absorb, Answer, ToInput, ToOutput, no_rule, unknown_shape, wrong_axis
from bnfold.ops.join import taken_twice
from bnfold.ops.linear import Weighted, constant_problem, weight_shape, write_weight
from bnfold.reasons import Reason, Situation
from bnfold.tensors.parts import parts
from bnfold.tensors.precision import rounded


class Gather(Weighted):
    """Gather along one axis of the data, in whose place the axes of the indices stand in the output.

    Output: along every other axis the affine passes to the data as it is, whatever the indices are: into a
    constant table, or on to the producer. Along the gathered axis a value takes it at constant positions that
    are all different; nothing reads the others.
    Input: every element takes its own part of the affine; along the gathered axis at constant positions.
    """

    def at_output(self, node: ir.Node, index: int, affine: Affine, facts: Facts) -> Answer:
        """Into the table, or on to the producer."""
        del index
        moved = _before(node, affine, facts)
        if not _reads_table(node, facts) or isinstance(moved, Reason):
            return moved if isinstance(moved, Reason) else [(ToInput(0, moved),)]
        problem = constant_problem(node, 0, facts) or _table_problem(node, affine, moved, facts)
        return problem or self.absorb(node, 0, Absorb("output", affine), facts)

    def at_input(self, node: ir.Node, index: int, affine: Affine, facts: Facts) -> Answer:
        """On to the readers."""
        if index != 0:
            return no_rule(node, f"input {index} of Gather")
        if not affine.axes:
            return [(ToOutput(0, affine),)]
        known = _axes(node, facts)
        if known is None:
            return unknown_shape(node)
        rank, axis, count = known
        if axis not in affine.axes:
            return [(ToOutput(0, _spread(affine, rank, axis, count)),)]
        indices = _positions(node, facts)
        if indices is None:
            return unknown_shape(node, node.inputs[1])

        def taken(coefficient: Array) -> Array:
            return np.asarray(np.take(coefficient, indices % coefficient.shape[axis], axis))

        return [(ToOutput(0, affine.mapped(rank, taken)),)]

    def scales(self, node: ir.Node, folds: Folds, facts: Facts) -> tuple[Array, Array]:
        """The scale of the output over the table."""
        rank = len(weight_shape(node, 0, facts))
        scale, _ = _planned(node, folds, facts).padded(rank)
        return scale, np.ones((1,) * rank)

    def write(self, node: ir.Node, folds: Folds, facts: Facts, editor: Editor) -> None:
        """Write the table, block by block."""
        if not folds.outward.has_shift:
            write_weight(node, 0, self.factors(node, folds, facts), facts, editor)
            return
        shape, dtype = weight_shape(node, 0, facts), facts.constant_dtype(node, 0)
        scale, shift = (
            np.broadcast_to(one, shape) for one in _planned(node, folds, facts).padded(len(shape))
        )
        table = np.empty(shape, dtype.numpy())
        for where, part in parts(facts.weight(node, 0)):
            table[where] = rounded(node, np.asarray(part, np.float64) * scale[where] + shift[where], dtype)
        editor.set_tensor(node, 0, table)


def _reads_table(node: ir.Node, facts: Facts) -> bool:
    value = node.inputs[0]
    return facts.has_constant(node, 0) or (value is not None and facts.constants.is_overridable(value))


def _table_problem(node: ir.Node, affine: Affine, moved: Affine, facts: Facts) -> Reason | None:
    """Why the table cannot take an affine, `moved` to its axes; None where it can."""
    value, shape = node.inputs[0], weight_shape(node, 0, facts)
    if value is not None and len(value.uses()) > 1:  # the file would hold it twice
        return reasons.OTHER_READERS(value=name_of(value), others="another node", node=label(node))
    if integer(node, "axis", 0) % len(shape) in moved.axes:
        return wrong_axis(node, affine, "that it does not gather")
    for coefficient in moved.padded(len(shape)):
        if any(size not in (1, own) for size, own in zip(coefficient.shape, shape, strict=True)):
            what = f"a table of shape {list(shape)} where the affine has another number of channels"
            return reasons.BAD_NUMBERS(node=label(node), what=what)
    if affine.has_shift and quantized.source(node, 0) is not None:
        reason = reasons.SHIFT(operator="Gather from a quantised table", node=label(node))
        return reason.within(Situation.QUANTISED)
    return None


def _planned(node: ir.Node, folds: Folds, facts: Facts) -> Affine:
    moved = _before(node, folds.outward, facts)
    assert isinstance(moved, Affine), "planned on a table that takes it"
    return moved


def _axes(node: ir.Node, facts: Facts) -> tuple[int, int, int] | None:
    """The rank of the data, the axis along which is gathered, and how many axes take its place."""
    rank, count = (facts.rank(value) for value in (*node.inputs[:2], None)[:2])
    return None if not rank or count is None else (rank, integer(node, "axis", 0) % rank, count)


def _positions(node: ir.Node, facts: Facts) -> npt.NDArray[np.int64] | None:
    indices = facts.constants.array(node.inputs[1])
    return None if indices is None else np.asarray(indices, np.int64)


def _before(node: ir.Node, affine: Affine, facts: Facts) -> Affine | Reason:
    """An affine of the output, in the axes of the data."""
    if not affine.axes:
        return affine
    known = _axes(node, facts)
    if known is None:
        return unknown_shape(node)
    rank, axis, count = known
    if affine.axes.isdisjoint(range(axis, axis + count)):
        return affine.mapped(
            rank - 1 + count, lambda c: c.reshape((*c.shape[:axis], 1, *c.shape[axis + count :]))
        )
    if count > 1:
        return reasons.SETTING(node=label(node), operator="Gather", setting="indices that are not a vector")
    if _reads_table(node, facts):
        return wrong_axis(node, affine, "that it does not gather")
    indices, size = _positions(node, facts), facts.size(node.inputs[0], axis)
    if indices is None or size is None:
        return unknown_shape(node, node.inputs[1] if indices is None else None)
    places = indices % size
    if len(set(places.tolist())) < places.size:
        return taken_twice(node)
    return affine.embedded(axis, places, size, rank)


def _spread(affine: Affine, rank: int, axis: int, count: int) -> Affine:
    """An affine of the data that does not vary along the gathered axis, in the axes of the output."""
    return affine.mapped(rank, lambda c: c.reshape((*c.shape[:axis], *(1,) * count, *c.shape[axis + 1 :])))


OPERATORS = {"Gather": Gather()}
