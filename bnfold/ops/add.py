"""Add, Sub and Sum: of two values, or of a value and a constant."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir

from bnfold import reasons
from bnfold.algebra.affine import Affine
from bnfold.graph.facts import Facts
from bnfold.graph.nodes import label
from bnfold.ops.base import Answer, Operator, Rewrite, Step, ToInput, ToOutput
from bnfold.ops.broadcast import from_operand, to_constant, to_operand
from bnfold.reasons import Reason


class Addition(Operator):
    """`y = ±x₁ ± x₂ …`.

    Output: `s·(x₁ + x₂) + t = (s·x₁ + t) + s·x₂`: the scale goes to every term, the shift to one of them, a
    constant where there is one. A value that is added to itself n times takes it once, as t/n.
    Input: `(x + t) + y = (x + y) + t`: a shift alone goes on, or into y where that is a constant. Where the
    other terms may change, `(x + t) + y = x + (y + t)` and `(s·x + t) + y = s·(x + y/s) + t`.
    """

    def at_output(self, node: ir.Node, index: int, affine: Affine, facts: Facts) -> Answer:
        """Scale every term, shift one."""
        del index
        terms = _terms(node, facts)
        takers = [group for group in terms if facts.has_constant(node, group[0])][:1] or terms
        answers = [_rewrite(node, terms, taker, affine, facts) for taker in takers]
        ways = [answer for answer in answers if not isinstance(answer, Reason)]
        refusals = (answer for answer in answers if isinstance(answer, Reason))
        return ways or next(refusals, reasons.OPERATOR(operator=node.op_type, node=label(node)))

    def at_input(self, node: ir.Node, index: int, affine: Affine, facts: Facts) -> Answer:
        """Pass a shift on; a scale would have to reach the other terms as well."""
        if not affine.has_unit_scale:
            return reasons.TERMS(node=label(node))
        onward = from_operand(node, index, Affine(1.0, affine.shift * _sign(node, index)), facts)
        if isinstance(onward, Reason):
            return onward
        for other in range(len(node.inputs)):
            if other != index and facts.has_constant(node, other):
                share = Affine(1.0, onward.shift * _sign(node, other))
                step = to_constant(node, other, share, facts)
                return step if isinstance(step, Reason) else [(step,)]
        return [(ToOutput(0, onward),)]

    def at_input_rebalanced(self, node: ir.Node, index: int, affine: Affine, facts: Facts) -> Answer:
        """Give a shift to another term; divide the other terms by a scale, which then goes on."""
        if affine.has_unit_scale:
            onward_or_reason = self.at_input(node, index, affine, facts)
            if isinstance(onward_or_reason, Reason):
                return onward_or_reason
            return [*_to_other_terms(node, index, affine, facts), *onward_or_reason]
        if not np.all(affine.scale):
            return self.at_input(node, index, affine, facts)
        onward = from_operand(node, index, Affine(affine.scale, affine.shift * _sign(node, index)), facts)
        if isinstance(onward, Reason):
            return onward
        back = onward.only_scale.inverse()
        steps: list[Step] = []
        for other in (position for position in range(len(node.inputs)) if position != index):
            step = _term_step(node, (other,), back, facts)
            if isinstance(step, Reason):
                return step
            steps.append(step)
        return [(ToOutput(0, onward), *steps)]


def _to_other_terms(node: ir.Node, index: int, affine: Affine, facts: Facts) -> Iterator[Rewrite]:
    """The terms besides one that may take its shift, each of them a way."""
    onward = from_operand(node, index, Affine(1.0, affine.shift * _sign(node, index)), facts)
    if isinstance(onward, Reason):
        return
    for group in _terms(node, facts):
        if index not in group and not facts.has_constant(node, group[0]):
            times = sum(_sign(node, position) for position in group)
            step = _term_step(node, group, Affine(1.0, onward.shift / times), facts)
            if not isinstance(step, Reason):
                yield (step,)


def _rewrite(
    node: ir.Node, terms: list[tuple[int, ...]], taker: tuple[int, ...], affine: Affine, facts: Facts
) -> Rewrite | Reason:
    steps: list[Step] = []
    for group in terms:
        share = affine.only_scale
        if group == taker:
            share = Affine(affine.scale, affine.shift / sum(_sign(node, index) for index in group))
        step = _term_step(node, group, share, facts)
        if isinstance(step, Reason):
            return step
        steps.append(step)
    return tuple(steps)


def _term_step(node: ir.Node, group: tuple[int, ...], share: Affine, facts: Facts) -> Step | Reason:
    """What a term takes: a constant at once, a value through its producer."""
    if facts.has_constant(node, group[0]):
        return to_constant(node, group[0], share, facts)
    operand = to_operand(node, group[0], share, facts)
    return operand if isinstance(operand, Reason) else ToInput(group[0], operand, uses=group)


def _terms(node: ir.Node, facts: Facts) -> list[tuple[int, ...]]:
    """The inputs grouped by value, which changes once for all its positions; `x − x` is not a term at all."""
    groups: dict[object, list[int]] = {}
    for position, value in enumerate(node.inputs):
        if value is not None:
            groups.setdefault(position if facts.has_constant(node, position) else value, []).append(position)
    return [tuple(group) for group in groups.values() if sum(_sign(node, index) for index in group) != 0]


def _sign(node: ir.Node, index: int) -> float:
    return -1.0 if node.op_type == "Sub" and index == 1 else 1.0


OPERATORS = {"Add": Addition(), "Sub": Addition(), "Sum": Addition()}
