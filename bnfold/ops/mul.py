"""Mul, Div and Neg: a gate, an attention mask, a layer scale."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from bnfold import reasons
from bnfold.algebra.affine import Affine
from bnfold.graph.facts import Facts
from bnfold.graph.nodes import label
from bnfold.ops.base import Answer, Operand, Operator, Rewrite, ToInput, ToOutput, no_rule, unknown_shape
from bnfold.ops.broadcast import from_operand, to_constant, to_operand
from bnfold.reasons import Reason


class Mul(Operator):
    """`y = a·b`.

    Output: `s·(a·b) = (s·a)·b`: a scale goes to either factor, into a constant where one is.
    Input: `(s·a + t)·c = a·(s·c) + t·c` into a constant c, whose shift goes on; `(s·a)·b = s·(a·b)`.
    """

    def at_output(self, node: ir.Node, index: int, affine: Affine, facts: Facts) -> Answer:
        """Scale one factor."""
        del index
        if affine.has_shift:
            return reasons.SHIFT(operator="Mul", node=label(node))
        for position in (0, 1):
            if facts.has_constant(node, position):
                step = to_constant(node, position, affine, facts)
                return step if isinstance(step, Reason) else [(step,)]
        if node.inputs[0] is node.inputs[1]:
            return no_rule(node, "a square")
        answers = [to_operand(node, position, affine, facts) for position in (0, 1)]
        ways: list[Rewrite] = [
            (ToInput(position, answer),)
            for position, answer in enumerate(answers)
            if not isinstance(answer, Reason)
        ]
        return ways or next(answer for answer in answers if isinstance(answer, Reason))

    def at_input(self, node: ir.Node, index: int, affine: Affine, facts: Facts) -> Answer:
        """Scale the constant and pass on what becomes of the shift; of two values pass the scale on."""
        other = 1 - index
        onward = from_operand(node, index, affine, facts)
        if isinstance(onward, Reason):
            return onward
        if not facts.has_constant(node, other):
            if affine.has_shift:
                return reasons.SHIFT(operator="Mul of two values", node=label(node))
            return [(ToOutput(0, onward),)]
        shift = _times_constant(node, other, onward, facts)
        step = to_constant(node, other, onward.only_scale, facts)
        if isinstance(shift, Reason):
            return shift
        return step if isinstance(step, Reason) else [(step, ToOutput(0, shift))]


class Div(Operator):
    """`y = a/b`.

    Output: `s·(a/b) = (s·a)/b`.
    Input: `(s·a + t)/c = s·(a/c) + t/c` for a constant c; of two values a scale of a alone.
    """

    def at_output(self, node: ir.Node, index: int, affine: Affine, facts: Facts) -> Answer:
        """Scale the numerator, or divide a constant denominator."""
        del index
        if affine.has_shift:
            return reasons.SHIFT(operator="Div", node=label(node))
        if facts.has_constant(node, 1) and np.all(affine.scale != 0):
            divided = to_constant(node, 1, Affine(1.0 / affine.scale), facts)
            return divided if isinstance(divided, Reason) else [(divided,)]
        if facts.has_constant(node, 0):
            step: Operand | Reason = to_constant(node, 0, affine, facts)
            return step if isinstance(step, Reason) else [(step,)]
        if node.inputs[0] is node.inputs[1]:
            return reasons.OPERATOR(operator="a quotient of a value by itself", node=label(node))
        operand = to_operand(node, 0, affine, facts)
        return operand if isinstance(operand, Reason) else [(ToInput(0, operand),)]

    def at_input(self, node: ir.Node, index: int, affine: Affine, facts: Facts) -> Answer:
        """Pass the numerator's affine on."""
        if index != 0:
            return no_rule(node, "Div's denominator")
        onward = from_operand(node, index, affine, facts)
        if isinstance(onward, Reason):
            return onward
        if not affine.has_shift:
            return [(ToOutput(0, onward),)]
        shift = _times_constant(node, 1, onward, facts)
        if isinstance(shift, Reason):
            return reasons.SHIFT(operator="Div of two values", node=label(node))
        return [(ToOutput(0, Affine(onward.scale, shift.shift)),)]


class Neg(Operator):
    """`y = −x`: `s·(−x) + t = −(s·x − t)`."""

    def at_output(self, node: ir.Node, index: int, affine: Affine, facts: Facts) -> Answer:
        """The shift changes its sign."""
        del node, index, facts
        return [(ToInput(0, Affine(affine.scale, -affine.shift)),)]

    def at_input(self, node: ir.Node, index: int, affine: Affine, facts: Facts) -> Answer:
        """The shift changes its sign."""
        del node, index, facts
        return [(ToOutput(0, Affine(affine.scale, -affine.shift)),)]


def _times_constant(node: ir.Node, index: int, affine: Affine, facts: Facts) -> Affine | Reason:
    """The shift of an affine at the output's axes, after the multiplication or division by a constant."""
    constant = facts.operand(node, index)
    rank = facts.rank(node.outputs[0])
    if not affine.has_shift:
        return Affine()
    if constant is None or rank is None:
        return unknown_shape(node, node.outputs[0])
    factor = constant.reshape((1,) * (rank - constant.ndim) + constant.shape)
    if node.op_type == "Div" and not np.all(factor):
        return reasons.BAD_NUMBERS(node=label(node), what="a division by zero")
    _, shift = affine.padded(rank)
    return Affine(1.0, shift / factor if node.op_type == "Div" else shift * factor)


OPERATORS = {"Mul": Mul(), "Div": Div(), "Neg": Neg()}
