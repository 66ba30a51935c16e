"""Expand and Tile: elements that are repeated along some axes."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from bnfold import reasons
from bnfold.algebra.affine import Affine, Array
from bnfold.graph.facts import Facts
from bnfold.graph.nodes import label
from bnfold.ops.base import Answer, Operator, ToInput, ToOutput, no_rule, unknown_shape
from bnfold.ops.broadcast import from_operand, to_operand
from bnfold.reasons import Reason

_REPEATS = 6  # since this version Tile reads one number for each axis


class Expand(Operator):
    """`y = x` broadcast to a shape: an affine passes along the axes that are not broadcast."""

    def at_output(self, node: ir.Node, index: int, affine: Affine, facts: Facts) -> Answer:
        """On to what is broadcast."""
        del index
        operand = to_operand(node, 0, affine, facts)
        return operand if isinstance(operand, Reason) else [(ToInput(0, operand),)]

    def at_input(self, node: ir.Node, index: int, affine: Affine, facts: Facts) -> Answer:
        """On to the readers."""
        if index != 0:
            return no_rule(node, "the shape of Expand")
        onward = from_operand(node, 0, affine, facts)
        return onward if isinstance(onward, Reason) else [(ToOutput(0, onward),)]


class Tile(Operator):
    """`y = [x, x, …]` along every axis.

    Output: along an axis that is tiled the affine has to repeat as the elements do.
    Input: the affine is tiled like the elements.
    """

    def at_output(self, node: ir.Node, index: int, affine: Affine, facts: Facts) -> Answer:
        """One period of the affine."""
        del index
        repeats = _repeats(node, facts)
        if not affine.axes:
            return [(ToInput(0, affine),)]
        if isinstance(repeats, Reason):
            return repeats
        coefficients = [_period(one, repeats) for one in affine.padded(len(repeats))]
        scale, shift = coefficients
        if scale is None or shift is None:
            setting = "elements that are repeated with another scale or shift"
            return reasons.SETTING(node=label(node), operator="Tile", setting=setting)
        return [(ToInput(0, Affine(scale, shift)),)]

    def at_input(self, node: ir.Node, index: int, affine: Affine, facts: Facts) -> Answer:
        """Every copy takes it."""
        if index != 0:
            return no_rule(node, f"input {index} of Tile")
        repeats = _repeats(node, facts)
        if not affine.axes:
            return [(ToOutput(0, affine),)]
        if isinstance(repeats, Reason):
            return repeats
        times = {axis: repeats[axis] for axis in affine.axes}

        def tiled(coefficient: Array) -> Array:
            shape = [times.get(axis, 1) if size > 1 else 1 for axis, size in enumerate(coefficient.shape)]
            return np.tile(coefficient, shape)

        return [(ToOutput(0, affine.mapped(len(repeats), tiled)),)]


def _repeats(node: ir.Node, facts: Facts) -> list[int] | Reason:
    """How often the elements stand along each axis, at least once."""
    rank = facts.rank(node.inputs[0])
    if facts.version(node) < _REPEATS:
        return no_rule(node, "Tile along one axis")
    repeats = facts.integers(node, 1, "repeats")
    if rank is None or repeats is None or len(repeats) != rank or min(repeats, default=1) < 1:
        return unknown_shape(node)
    return repeats


def _period(coefficient: Array, repeats: list[int]) -> Array | None:
    """What of a coefficient is repeated; None where it differs from one copy to the next."""
    for axis, times in enumerate(repeats):
        size = coefficient.shape[axis]
        if size == 1 or times == 1:
            continue
        if size % times:
            return None
        first = coefficient.take(range(size // times), axis)
        if not np.array_equal(np.concatenate([first] * times, axis), coefficient):
            return None
        coefficient = first
    return coefficient


OPERATORS = {"Expand": Expand(), "Tile": Tile()}
