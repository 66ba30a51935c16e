"""Activations that are positively homogeneous: `f(s·x) = s·f(x)` for s ≥ 0."""

from __future__ import annotations

import onnx_ir as ir

from bnfold import reasons
from bnfold.algebra.affine import Affine
from bnfold.graph.facts import Facts
from bnfold.graph.nodes import label
from bnfold.ops.base import Answer, Operator, ToInput, ToOutput, negative_scale
from bnfold.reasons import Reason


class Homogeneous(Operator):
    """Relu, LeakyRelu, PRelu and Abs: a scale that is not negative passes, a shift does not.

    PRelu's slope multiplies negative elements wherever it comes from, so it need not be constant.
    """

    def at_output(self, node: ir.Node, index: int, affine: Affine, facts: Facts) -> Answer:
        """`s·f(x) = f(s·x)`."""
        del index, facts
        return _problem(node, affine) or [(ToInput(0, affine),)]

    def at_input(self, node: ir.Node, index: int, affine: Affine, facts: Facts) -> Answer:
        """`f(s·x) = s·f(x)`."""
        del facts
        if index != 0:
            return reasons.OPERATOR(operator="PRelu's slope", node=label(node))
        return _problem(node, affine) or [(ToOutput(0, affine),)]


def _problem(node: ir.Node, affine: Affine) -> Reason | None:
    if affine.has_shift:
        return reasons.SHIFT(operator=node.op_type, node=label(node))
    return negative_scale(node, affine)


OPERATORS = dict.fromkeys(("Abs", "LeakyRelu", "PRelu", "Relu"), Homogeneous())
