"""Pad by mode."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from bnfold import reasons
from bnfold.algebra.affine import Affine
from bnfold.graph.facts import Facts
from bnfold.graph.nodes import integers, label, real, text
from bnfold.ops.base import Answer, Operator, ToInput, ToOutput, no_rule, unknown_shape, wrong_axis
from bnfold.reasons import Reason


class Pad(Operator):
    """Pad off the axes along which the affine varies.

    `reflect`, `edge` and `wrap` copy elements, so any affine passes, in both directions. `constant` writes a
    number c that the affine must map to itself: `s·c + t = c`.
    """

    def at_output(self, node: ir.Node, index: int, affine: Affine, facts: Facts) -> Answer:
        """The same affine at the input."""
        del index
        return _problem(node, affine, facts) or [(ToInput(0, affine),)]

    def at_input(self, node: ir.Node, index: int, affine: Affine, facts: Facts) -> Answer:
        """The same affine at the output."""
        if index != 0:
            return no_rule(node, f"input {index} of Pad")
        return _problem(node, affine, facts) or [(ToOutput(0, affine),)]


def _problem(node: ir.Node, affine: Affine, facts: Facts) -> Reason | None:
    rank = facts.rank(node.inputs[0])
    padded = _padded_axes(node, rank, facts) if rank is not None else None
    if padded is None:
        return unknown_shape(node)
    if affine.axes & padded:
        return wrong_axis(node, affine, "that is not padded")
    if text(node, "mode", "constant") != "constant":
        return None
    constant = _constant(node, facts)
    scale, shift = affine.padded(rank or 0)
    fixed = constant is not None and bool(np.all(scale * constant + shift == constant))
    return None if fixed else reasons.PADDING(node=label(node))


def _padded_axes(node: ir.Node, rank: int, facts: Facts) -> frozenset[int] | None:
    pads = facts.integers(node, 1, "pads")
    axes = facts.integers(node, 3, "axes")
    if pads is None or (axes is None and len(node.inputs) > 3 and node.inputs[3] is not None):
        old = integers(node, "paddings")  # version 1's name for it
        if not old:
            return None
        pads = list(old)
    where = [axis % rank for axis in axes] if axes is not None else list(range(rank))
    return frozenset(
        axis
        for axis, before, after in zip(where, pads[: len(where)], pads[len(where) :], strict=True)
        if before or after
    )


def _constant(node: ir.Node, facts: Facts) -> float | None:
    if len(node.inputs) > 2 and node.inputs[2] is not None:
        array = facts.constants.array(node.inputs[2])
        return (
            None if array is None or not array.size else float(np.asarray(array, np.float64).reshape(-1)[0])
        )
    return real(node, "value", 0.0)


OPERATORS = {"Pad": Pad()}
