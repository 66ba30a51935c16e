"""What the linear operators share: a constant weight, a constant bias, and writing both back."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from bnfold import reasons
from bnfold.affine import Affine, Array
from bnfold.edit import Editor, OutOfRangeError
from bnfold.graph import FLOATS, NO_FOLDS, Facts, Folds
from bnfold.ops import quantized
from bnfold.ops.base import Absorb, Answer, Operator, label, name_of, wrong_axis
from bnfold.reasons import Reason


class Linear(Operator):
    """An operator `y = W·x + b` with constants that can take an affine on either side."""

    def write(self, node: ir.Node, folds: Folds, facts: Facts, editor: Editor) -> None:
        """Give the node the constants of `outward ∘ node ∘ inward`, each rounded once."""
        raise NotImplementedError


class Weighted(Linear):
    """A linear operator whose weight is multiplied, element by element, by what it absorbs."""

    def factor(self, node: ir.Node, folds: Folds, facts: Facts) -> Array:
        """What the weight is multiplied by: an array that broadcasts against the weight as it is stored."""
        raise NotImplementedError

    def absorb(self, node: ir.Node, index: int, step: Absorb, facts: Facts) -> Answer:
        """Let the weight at input `index` take an affine, if it is not quantised in a way that cannot."""
        folds = facts.folds.get(node, NO_FOLDS).absorbing(step.side, step.affine)
        if quantized.source(node, index) is None:
            return [(step,)]
        return quantized.problem(node, index, self.factor(node, folds, facts), facts) or [(step,)]


def constant_problem(node: ir.Node, index: int, facts: Facts) -> Reason | None:
    """Why the weight at an input cannot be rewritten; None where it can."""
    value = node.inputs[index] if index < len(node.inputs) else None
    if value is not None and facts.constants.is_overridable(value):
        return reasons.WEIGHT_OVERRIDABLE(value=name_of(value), node=label(node))
    if value is None or not facts.has_constant(node, index):
        return reasons.WEIGHT_NOT_CONSTANT(value=name_of(value), node=label(node))
    dtype = facts.dtype(value)
    if dtype not in FLOATS:
        return reasons.NOT_FLOAT(value=name_of(value), dtype=dtype or "unknown")
    return None


def bias_problem(node: ir.Node, index: int, facts: Facts) -> Reason | None:
    """Why the bias at an input cannot be rewritten; None where it can, or where there is none."""
    if index >= len(node.inputs) or node.inputs[index] is None or facts.has_constant(node, index):
        return None
    return reasons.BIAS_NOT_CONSTANT(value=name_of(node.inputs[index]), node=label(node))


def channel_problem(node: ir.Node, affine: Affine, axis: int, size: int) -> Reason | None:
    """Why an affine is not one vector along `axis` with as many channels as the weight; None where it is."""
    fits = all(
        coefficient.ndim == 0 or coefficient.shape[axis] == size
        for coefficient in (affine.scale, affine.shift)
        if coefficient.ndim == 0 or coefficient.ndim > axis
    )
    if not affine.axes <= {axis}:
        return wrong_axis(node, affine, axis)
    what = f"{size} channels where the affine has another number"
    return None if fits else reasons.BAD_NUMBERS(node=label(node), what=what)


def weight_shape(node: ir.Node, index: int, facts: Facts) -> tuple[int, ...] | None:
    """The shape of a weight; it is computed where inference does not know it. None where not constant."""
    value = node.inputs[index]
    shape = facts.shape(value) if value is not None else None
    if shape is not None and all(isinstance(dim, int) for dim in shape):
        return tuple(dim for dim in shape if isinstance(dim, int))
    array = facts.operand(node, index)
    return None if array is None else array.shape


def write_bias(node: ir.Node, index: int, bias: Array, facts: Facts, editor: Editor) -> None:
    """Write a bias where there was one or where it says something."""
    demand_finite(node, bias, facts)
    present = index < len(node.inputs) and node.inputs[index] is not None
    if not present and not np.any(bias):
        return
    weight = node.inputs[1]
    assert weight is not None, "a linear operator has a weight"
    dtype = facts.constant_dtype(node, index if present else 1)
    stem = (weight.name or label(node)).removesuffix(".weight")
    editor.set_input(node, index, bias, dtype, f"{stem}.bias")


def demand_finite(node: ir.Node, bias: Array, facts: Facts) -> None:
    """Refuse a bias that is no number: an infinite weight has met the shift of its input.

    Raises:
        OutOfRangeError: Some element is NaN or infinite.
    """
    weight = node.inputs[1]
    dtype = facts.dtype(weight) if weight is not None else None
    if not np.all(np.isfinite(bias)):
        raise OutOfRangeError(node, dtype or ir.DataType.FLOAT)


def write_weight(node: ir.Node, index: int, factor: Array, facts: Facts, editor: Editor) -> None:
    """Multiply a weight; a quantised one keeps its integers and gets other scales."""
    if quantized.source(node, index) is not None:
        quantized.write(node, index, factor, facts, editor)
        return
    weight = facts.operand(node, index)
    assert weight is not None, "planned on a constant weight"
    editor.set_input(node, index, weight * factor, facts.constant_dtype(node, index), f"{label(node)}.weight")
