"""Operators that put tensors together or take them apart along an axis: Concat, Split, Slice."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from bnfold import reasons
from bnfold.algebra.affine import Affine
from bnfold.graph.facts import Facts
from bnfold.graph.nodes import integer, label
from bnfold.ops.base import Answer, Operator, ToInput, ToOutput, no_rule, unknown_shape
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
    """An operator whose outputs are its input's elements at some positions of some axes.

    Output: the input takes the affine at these positions and the identity elsewhere. Where there is only
    one output, nothing reads the other positions, and along other axes the affine passes as it is.
    Input: each output takes the affine's elements at its positions.
    """

    def axes(self, node: ir.Node, facts: Facts) -> frozenset[int] | Reason:
        """The axes along which something is selected."""
        raise NotImplementedError

    def positions(self, node: ir.Node, axis: int, facts: Facts) -> tuple[list[_Indices], int] | Reason:
        """For each output the positions that it has on one of these axes, and the axis's size."""
        raise NotImplementedError

    def at_output(self, node: ir.Node, index: int, affine: Affine, facts: Facts) -> Answer:
        """Embed in the identity."""
        axes, rank = self.axes(node, facts), facts.rank(node.inputs[0])
        if isinstance(axes, Reason) or rank is None:
            return axes if isinstance(axes, Reason) else unknown_shape(node)
        for axis in sorted(axes if len(node.outputs) > 1 else axes & affine.axes):
            selected = self.positions(node, axis, facts)
            if isinstance(selected, Reason):
                return selected
            positions, size = selected
            if len(set(positions[index].tolist())) < positions[index].size:
                return taken_twice(node)
            affine = affine.embedded(axis, positions[index], size, rank)
        return [(ToInput(0, affine),)]

    def at_input(self, node: ir.Node, index: int, affine: Affine, facts: Facts) -> Answer:
        """Take the elements."""
        if index != 0:
            return no_rule(node, f"input {index} of {node.op_type}")
        axes, rank = self.axes(node, facts), facts.rank(node.inputs[0])
        taken = [affine] * len(node.outputs)
        if affine.axes and (isinstance(axes, Reason) or rank is None):
            return axes if isinstance(axes, Reason) else unknown_shape(node)
        for axis in sorted(affine.axes.intersection(() if isinstance(axes, Reason) else axes)):
            selected = self.positions(node, axis, facts)
            if isinstance(selected, Reason):
                return selected
            taken = [one.taken(axis, where, rank or 0) for one, where in zip(taken, selected[0], strict=True)]
        return [tuple(ToOutput(position, one) for position, one in enumerate(taken))]


def taken_twice(node: ir.Node) -> Reason:
    """The reason for an element that stands in two places, which want different numbers of it."""
    return reasons.SETTING(node=label(node), operator=node.op_type, setting="an element taken twice")


class Split(Selection):
    """Split: consecutive segments of one axis."""

    def axes(self, node: ir.Node, facts: Facts) -> frozenset[int] | Reason:
        """Its one axis."""
        rank = facts.rank(node.inputs[0])
        return unknown_shape(node) if rank is None else frozenset({integer(node, "axis", 0) % rank})

    def positions(self, node: ir.Node, axis: int, facts: Facts) -> tuple[list[_Indices], int] | Reason:
        """Sizes are those of the outputs, which shape inference knows in every version."""
        sizes = [size for output in node.outputs if (size := facts.size(output, axis)) is not None]
        return (_segments(sizes), sum(sizes)) if len(sizes) == len(node.outputs) else unknown_shape(node)


class Slice(Selection):
    """Slice: ranges along some axes, which need to be constant only where the affine varies."""

    def axes(self, node: ir.Node, facts: Facts) -> frozenset[int] | Reason:
        """All axes that it names."""
        axes = _sliced(node, facts)
        return axes if isinstance(axes, Reason) else frozenset(axes)

    def positions(self, node: ir.Node, axis: int, facts: Facts) -> tuple[list[_Indices], int] | Reason:
        """A range with constant bounds, on an axis of known size."""
        axes, size = _sliced(node, facts), facts.size(node.inputs[0], axis)
        starts, ends = facts.integers(node, 1, "starts"), facts.integers(node, 2, "ends")
        steps = facts.integers(node, 4, "steps") if _given(node, 4) else [1] * len(starts or ())
        if isinstance(axes, Reason) or size is None or starts is None or ends is None or steps is None:
            return unknown_shape(node)
        bounds = dict(zip(axes, zip(starts, ends, steps, strict=False), strict=False)).get(axis)
        # a bound beyond the axis is clipped in ONNX as it is in Python
        if bounds is None or not bounds[2]:
            return unknown_shape(node)
        return [np.arange(size)[slice(*bounds)]], size


def _sliced(node: ir.Node, facts: Facts) -> list[int] | Reason:
    """The axes that a Slice names, or as many of the first as it has bounds for."""
    rank, axes = facts.rank(node.inputs[0]), facts.integers(node, 3, "axes")
    starts = facts.integers(node, 1, "starts")
    if rank is None or (axes is None and (starts is None or _given(node, 3))):
        return unknown_shape(node)
    return [axis % rank for axis in axes or range(len(starts or ()))]


def _given(node: ir.Node, index: int) -> bool:
    return len(node.inputs) > index and node.inputs[index] is not None


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


OPERATORS = {"Concat": Concat(), "Split": Split(), "Slice": Slice()}
