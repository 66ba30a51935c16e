"""The questions that the pass asks an operator, and the answers that it can give."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import onnx_ir as ir

from bnfold import reasons
from bnfold.algebra.affine import Affine, Array
from bnfold.graph.facts import Facts
from bnfold.graph.nodes import label, name_of
from bnfold.graph.scopes import ONNX_DOMAINS
from bnfold.reasons import Reason, Situation

QUANTISED = frozenset(
    {
        *("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear"),
        *("QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger"),
        *("QLinearAdd", "QLinearMul", "QLinearConcat", "QLinearAveragePool", "QLinearGlobalAveragePool"),
        *("QLinearLeakyRelu", "QLinearSigmoid", "QLinearSoftmax", "QGemm", "MatMulIntegerToFloat"),
        *("Quant", "IntQuant", "FloatQuant", "BipolarQuant", "Trunc"),  # QONNX
    }
)
"""Operators of quantised models, of ONNX, ONNX Runtime and QONNX, none of which takes a scale or a shift."""

NONLINEAR = frozenset(
    """
    Acos Acosh Asin Asinh Atan Atanh Ceil Celu Clip Cos Cosh DynamicQuantizeLinear Elu Erf Floor GRU Gelu
    GroupNormalization HardSigmoid HardSwish Hardmax InstanceNormalization LRN LSTM LayerNormalization
    LogSoftmax MeanVarianceNormalization Mish QuantizeLinear RMSNormalization RNN Round Selu Shrink Sigmoid
    Sin Sinh Softmax Softplus Softsign Swish Tan Tanh ThresholdedRelu
    """.split()  # noqa: SIM905 - a list of strings would be forty lines long
)
"""ONNX's operators of which it is known that a scale does not pass them, whatever becomes of it."""


@dataclass(frozen=True)
class Absorb:
    """The node's own constants take the affine.

    Attributes:
        side: `"output"` where the affine acts on what the node gives, `"input"` where on what it reads.
        affine: In the axes of that value.
        inserts: Whether the shift needs a new bias Add after the node.
    """

    side: Literal["input", "output"]
    affine: Affine
    inserts: bool = False


@dataclass(frozen=True)
class Operand:
    """A constant input takes the affine, element by element.

    Attributes:
        index: Which input of the node.
        scale: Factor for the constant; broadcasts against it by ONNX's rules and may make it larger.
        shift: Addend for the constant, likewise.
    """

    index: int
    scale: Array
    shift: Array


@dataclass(frozen=True)
class ToInput:
    """Whatever produces an input must take the affine.

    Attributes:
        index: Which input of the node.
        affine: In the axes of that input.
        uses: All inputs of the node that read the value, where they change together.
    """

    index: int
    affine: Affine
    uses: tuple[int, ...] = ()


@dataclass(frozen=True)
class ToOutput:
    """Whatever reads an output must take the affine.

    Attributes:
        index: Which output of the node.
        affine: In the axes of that output.
    """

    index: int
    affine: Affine


Step = Absorb | Operand | ToInput | ToOutput
Rewrite = tuple[Step, ...]
Answer = Reason | Sequence[Rewrite]
"""Either why not, or the ways in which it can be done, best first; all steps of one way must succeed."""


class Operator:
    """How an affine passes through one family of operators, or into it.

    A family overrides what it can do. Both methods state an identity over the reals: for any value of the
    inputs, the node after the steps of a rewrite computes the original followed (or preceded) by the affine.
    """

    def at_output(self, node: ir.Node, index: int, affine: Affine, facts: Facts) -> Answer:
        """How can `node` give `affine(output)` in place of its output `index`?"""
        del index, affine, facts
        return no_rule(node)

    def at_input(self, node: ir.Node, index: int, affine: Affine, facts: Facts) -> Answer:
        """How can `node` read `x` in place of `affine(x)` at its input `index`?"""
        del index, affine, facts
        return no_rule(node)

    def at_input_rebalanced(self, node: ir.Node, index: int, affine: Affine, facts: Facts) -> Answer:
        """As `at_input`, but the node's other inputs may change too (`ToInput` along with `ToOutput`)."""
        return self.at_input(node, index, affine, facts)

    @property
    def is_rebalanced(self) -> bool:
        """Whether `at_input_rebalanced` may give other answers than `at_input`."""
        return type(self).at_input_rebalanced is not Operator.at_input_rebalanced


def no_rule(node: ir.Node, what: str = "") -> Reason:
    """The reason for an operator, or a part of it, through which bnfold moves nothing.

    Args:
        node: The operator.
        what: The part, as in `"input 1 of Pad"`; left out, the operator itself.
    """
    never = not what and node.op_type in NONLINEAR and node.domain in ONNX_DOMAINS
    rule = reasons.OPERATOR if never else reasons.NO_RULE
    reason = rule(operator=what or node.op_type, node=label(node))
    return reason.within(Situation.QUANTISED) if node.op_type in QUANTISED else reason


def unknown_shape(node: ir.Node, value: ir.Value | None = None) -> Reason:
    """The reason for a shape that is not known well enough: that of `value`, or of the first input."""
    return reasons.UNKNOWN_SHAPE(value=name_of(node.inputs[0] if value is None else value), node=label(node))


def negative_scale(node: ir.Node, affine: Affine) -> Reason | None:
    """The reason for a scale that would reverse the order; None where no scale is negative."""
    if affine.is_monotone:
        return None
    count = int((affine.scale < 0).sum())
    return reasons.NEGATIVE_SCALE(operator=node.op_type, node=label(node), count=count)


def wrong_axis(node: ir.Node, affine: Affine, allowed: object) -> Reason:
    """The reason for an affine that varies along an axis on which the operator has nothing to scale."""
    axes = ", ".join(str(axis) for axis in sorted(affine.axes))
    return reasons.AXIS(node=label(node), operator=node.op_type, axes=axes, allowed=allowed)
