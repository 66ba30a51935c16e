"""Operators that put tensors together or take them apart along an axis: Concat, Split, Slice, Gather."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from bnfold import reasons
from bnfold.algebra.affine import Affine
from bnfold.graph.facts import Facts
from bnfold.graph.nodes import integer, label
from bnfold.ops.base import Answer, Operator, ToInput, ToOutput, unknown_shape
from bnfold.reasons import Reason

_Indices = npt.NDArray[np.int64]


class Concat(Operator):
    """`y = [x₁, x₂, …]` along an axis.

    Output: each input takes its segment of the affine, or, off the axis along which it varies, all of it.
    Input: the affine continues as its segment of an affine that is the identity elsewhere.
    """

    def at_output(self, node: ir.Node, index: int, affine: Affine, facts: Facts) -> Answer:
        """All inputs take their part."""
        del index
        parts = _parts(node, affine, facts)
        if isinstance(parts, Reason):
            return parts
        axis, rank, segments, _ = parts
        taken = (affine.taken(axis, segment, rank) if affine.axes else affine for segment in segments)
        return [tuple(ToInput(position, part) for position, part in enumerate(taken))]

    def at_input(self, node: ir.Node, index: int, affine: Affine, facts: Facts) -> Answer:
        """Identity but for the segment."""
        # even a uniform affine varies along the axis next to the identity
        parts = _parts(node, None, facts)
        if isinstance(parts, Reason):
            return parts
        axis, rank, segments, total = parts
        return [(ToOutput(0, affine.embedded(axis, segments[index], total, rank)),)]


class Selection(Operator):
    """An operator whose outputs are its input's elements at some positions of one axis.

    Output: the input takes the affine at these positions and the identity elsewhere. Where there is only
    one output, nothing reads the other positions, and along other axes the affine passes as it is.
    Input: each output takes the affine's elements at its positions.
    """

    def axes(self, node: ir.Node, facts: Facts) -> frozenset[int] | Reason:
        """The axes along which something is selected."""
        raise NotImplementedError

    def positions(self, node: ir.Node, facts: Facts) -> tuple[int, list[_Indices], int] | Reason:
        """The one axis, for each output the positions that it has, and the axis's size."""
        raise NotImplementedError

    def at_output(self, node: ir.Node, index: int, affine: Affine, facts: Facts) -> Answer:
        """Embed in the identity."""
        axes, rank = self.axes(node, facts), facts.rank(node.inputs[0])
        if isinstance(axes, Reason) or rank is None:
            return axes if isinstance(axes, Reason) else unknown_shape(node)
        if len(node.outputs) == 1 and affine.axes.isdisjoint(axes):
            return [(ToInput(0, affine),)]
        selected = self.positions(node, facts)
        if isinstance(selected, Reason):
            return selected
        axis, positions, size = selected
        if len(set(positions[index].tolist())) < positions[index].size:
            return reasons.SETTING(node=label(node), operator=node.op_type, setting="an element taken twice")
        return [(ToInput(0, affine.embedded(axis, positions[index], size, rank)),)]

    def at_input(self, node: ir.Node, index: int, affine: Affine, facts: Facts) -> Answer:
        """Take the elements."""
        if index != 0:
            return reasons.OPERATOR(operator=f"input {index} of {node.op_type}", node=label(node))
        axes, rank = self.axes(node, facts), facts.rank(node.inputs[0])
        if not affine.axes or (not isinstance(axes, Reason) and affine.axes.isdisjoint(axes)):
            return [tuple(ToOutput(position, affine) for position in range(len(node.outputs)))]
        selected = self.positions(node, facts)
        if isinstance(selected, Reason) or rank is None:
            return selected if isinstance(selected, Reason) else unknown_shape(node)
        axis, positions, _ = selected
        return [tuple(ToOutput(i, affine.taken(axis, where, rank)) for i, where in enumerate(positions))]


class Split(Selection):
    """Split: consecutive segments of one axis."""

    def axes(self, node: ir.Node, facts: Facts) -> frozenset[int] | Reason:
        """Its one axis."""
        rank = facts.rank(node.inputs[0])
        return unknown_shape(node) if rank is None else frozenset({integer(node, "axis", 0) % rank})

    def positions(self, node: ir.Node, facts: Facts) -> tuple[int, list[_Indices], int] | Reason:
        """Sizes are those of the outputs, which shape inference knows in every version."""
        rank = facts.rank(node.inputs[0])
        if rank is None:
            return unknown_shape(node)
        axis = integer(node, "axis", 0) % rank
        sizes = [size for output in node.outputs if (size := facts.size(output, axis)) is not None]
        return (
            (axis, _segments(sizes), sum(sizes)) if len(sizes) == len(node.outputs) else unknown_shape(node)
        )


class Slice(Selection):
    """Slice: ranges along some axes; the affine may vary along one of them."""

    def axes(self, node: ir.Node, facts: Facts) -> frozenset[int] | Reason:
        """All axes that it names."""
        bounds = _bounds(node, facts)
        return bounds if isinstance(bounds, Reason) else frozenset(bounds)

    def positions(self, node: ir.Node, facts: Facts) -> tuple[int, list[_Indices], int] | Reason:
        """One axis of known size, with constant bounds."""
        bounds = _bounds(node, facts)
        if isinstance(bounds, Reason):
            return bounds
        if len(bounds) != 1:
            return reasons.SETTING(node=label(node), operator="Slice", setting="several axes at once")
        [(axis, where)] = bounds.items()
        size = facts.size(node.inputs[0], axis)
        # a bound beyond the axis is clipped in ONNX as it is in Python
        return unknown_shape(node) if size is None else (axis, [np.arange(size)[where]], size)


def _bounds(node: ir.Node, facts: Facts) -> dict[int, slice] | Reason:
    """The range along each axis that a Slice names."""
    rank = facts.rank(node.inputs[0])
    starts, ends = facts.integers(node, 1, "starts"), facts.integers(node, 2, "ends")
    axes, steps = facts.integers(node, 3, "axes"), facts.integers(node, 4, "steps")
    given = [len(node.inputs) > position and node.inputs[position] is not None for position in (3, 4)]
    hidden = (axes is None and given[0]) or (steps is None and given[1])
    if rank is None or starts is None or ends is None or hidden:
        return unknown_shape(node)
    axes, steps = axes or list(range(len(starts))), steps or [1] * len(starts)
    return {axis % rank: slice(*bounds) for axis, *bounds in zip(axes, starts, ends, steps, strict=True)}


class Gather(Selection):
    """Gather of a constant list of positions, as a channel shuffle may be written."""

    def axes(self, node: ir.Node, facts: Facts) -> frozenset[int] | Reason:
        """Its one axis, where the positions are a vector: a scalar position would take the axis away."""
        rank, indices = facts.rank(node.inputs[0]), facts.constants.array(node.inputs[1])
        if rank is None or indices is None:
            return unknown_shape(node)
        if indices.ndim != 1:
            return reasons.SETTING(
                node=label(node), operator="Gather", setting="indices that are not a vector"
            )
        return frozenset({integer(node, "axis", 0) % rank})

    def positions(self, node: ir.Node, facts: Facts) -> tuple[int, list[_Indices], int] | Reason:
        """A vector of positions on an axis of known size."""
        axes = self.axes(node, facts)
        if isinstance(axes, Reason):
            return axes
        [axis] = axes
        size = facts.size(node.inputs[0], axis)
        indices = facts.constants.array(node.inputs[1])
        if size is None or indices is None:
            return unknown_shape(node)
        return axis, [np.asarray(indices, np.int64) % size], size


def _parts(
    node: ir.Node, affine: Affine | None, facts: Facts
) -> tuple[int, int, list[_Indices], int] | Reason:
    """Axis, rank, the segment of each input and the total; sizes only where the affine needs them."""
    rank = facts.rank(node.outputs[0])
    if affine is not None and not affine.axes:
        return 0, 0, [np.arange(0)] * len(node.inputs), 0
    if rank is None:
        return unknown_shape(node)
    # version 1 concatenates along axis 1 by default, later ones demand the attribute
    axis = integer(node, "axis", 1) % rank
    if affine is not None and axis not in affine.axes:
        return axis, rank, [np.arange(0)] * len(node.inputs), 0
    sizes = [facts.size(value, axis) for value in node.inputs if value is not None]
    known = [size for size in sizes if size is not None]
    if len(known) != len(node.inputs):
        return unknown_shape(node)
    return axis, rank, _segments(known), sum(known)


def _segments(sizes: list[int]) -> list[_Indices]:
    ends = np.cumsum(sizes)
    return [np.arange(end - size, end) for size, end in zip(sizes, ends, strict=True)]


OPERATORS = {"Concat": Concat(), "Split": Split(), "Slice": Slice(), "Gather": Gather()}
