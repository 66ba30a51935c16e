"""What the linear operators share: a constant weight, a constant bias, and writing both back."""

from __future__ import annotations

from functools import reduce

import numpy as np
import onnx_ir as ir

from bnfold import reasons
from bnfold.algebra import matmul
from bnfold.algebra.affine import Affine, Array
from bnfold.graph.editor import Editor
from bnfold.graph.facts import NO_FOLDS, Facts, Folds
from bnfold.graph.nodes import caller_problem, label, name_of
from bnfold.graph.scopes import ONNX_DOMAINS
from bnfold.ops import quantized
from bnfold.ops.base import Absorb, Answer, Operator, wrong_axis
from bnfold.reasons import Reason
from bnfold.tensors.parts import parts
from bnfold.tensors.precision import FLOATS, OutOfRangeError

_REPEAT = frozenset({"Cast", "CastLike", "Expand", "Flatten", "Identity", "Reshape", "Squeeze", "Unsqueeze"})
"""Operators whose result consists of elements of the first input."""


class Linear(Operator):
    """An operator `y = W·x + b` with constants that can take an affine on either side."""

    def write(self, node: ir.Node, folds: Folds, facts: Facts, editor: Editor) -> None:
        """Give the node the constants of `outward ∘ node ∘ inward`, each rounded once."""
        raise NotImplementedError


class Weighted(Linear):
    """A linear operator whose weight is multiplied, element by element, by what it absorbs."""

    def scales(self, node: ir.Node, folds: Folds, facts: Facts) -> tuple[Array, Array]:
        """What the weight is multiplied by: arrays of its rank that broadcast against it as it is stored."""
        raise NotImplementedError

    def factors(self, node: ir.Node, folds: Folds, facts: Facts) -> tuple[Array, ...]:
        """The scales: one array if that is not as large as the weight, otherwise two."""
        first, second = self.scales(node, folds, facts)
        return (first * second,) if 1 in (first.size, second.size) else (first, second)

    def absorb(self, node: ir.Node, index: int, step: Absorb, facts: Facts) -> Answer:
        """Let the weight at input `index` take an affine, if it is not quantised in a way that cannot."""
        folds = facts.folds.get(node, NO_FOLDS).absorbing(step.side, step.affine)
        if quantized.source(node, index) is None:
            return [(step,)]
        factor = multiplied(self.factors(node, folds, facts))
        return quantized.problem(node, index, factor, facts) or [(step,)]


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


def bias_problem(node: ir.Node, index: int, facts: Facts, size: int | None = None) -> Reason | None:
    """Why the bias at an input cannot be rewritten; None where it can, or where the node has no bias.

    Args:
        node: A linear operator.
        index: Which input the bias is.
        facts: What is known of the model.
        size: The number of elements that it must have in one axis; None where other shapes will do.
    """
    value = node.inputs[index] if index < len(node.inputs) else None
    if value is None or is_zero(value, facts):
        return None
    if not facts.has_constant(node, index):
        return reasons.BIAS_NOT_CONSTANT(value=name_of(value), node=label(node))
    shape = weight_shape(node, index, facts)
    if size is None or shape == (size,):
        return None
    setting = f"a bias of shape {list(shape)} for {size} channels"
    return reasons.SETTING(node=label(node), operator=node.op_type, setting=setting)


def is_zero(value: ir.Value, facts: Facts) -> bool:
    """Whether every element is zero, however many there are."""
    current: ir.Value | None = value
    while current is not None:
        array = facts.constants.array(current)
        if array is not None:
            return not np.any(array)
        node = current.producer()
        if node is None or node.domain not in ONNX_DOMAINS or caller_problem(node) is not None:
            return False
        if node.op_type == "ConstantOfShape":
            return "value" not in node.attributes or not np.any(node.attributes["value"].as_tensor().numpy())
        current = node.inputs[0] if node.op_type in _REPEAT else None
    return False


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


def weight_shape(node: ir.Node, index: int, facts: Facts) -> tuple[int, ...]:
    """The shape of a constant weight, which is computed where inference does not know it."""
    shape = facts.shape(node.inputs[index]) or (None,)
    sizes = tuple(dim for dim in shape if isinstance(dim, int))
    return sizes if len(sizes) == len(shape) else tuple(facts.stored(node, index).shape.numpy())


def write_bias(node: ir.Node, index: int, bias: Array, facts: Facts, editor: Editor) -> None:
    """Write a bias where there was one, or where it is not zero."""
    demand_finite(node, bias, facts)
    present = index < len(node.inputs) and node.inputs[index] is not None
    if not present and not np.any(bias):
        return
    weight = node.inputs[1]
    assert weight is not None, "a linear operator has a weight"
    dtype = facts.constant_dtype(node, index if facts.has_constant(node, index) else 1)
    stem = (weight.name or label(node)).removesuffix(".weight")
    editor.set_input(node, index, bias, dtype, f"{stem}.bias")


def demand_finite(node: ir.Node, bias: Array, facts: Facts) -> None:
    """Refuse a bias that is not finite: an infinite weight has met the shift of its input.

    Raises:
        OutOfRangeError: Some element is NaN or infinite.
    """
    if not np.all(np.isfinite(bias)):
        raise OutOfRangeError(node, facts.dtype(node.inputs[1]) or ir.DataType.FLOAT)


def multiplied(factors: tuple[Array, ...]) -> Array:
    """All factors in one, which may be as large as the weight."""
    return reduce(np.multiply, factors)


def write_weight(node: ir.Node, index: int, factors: tuple[Array, ...], facts: Facts, editor: Editor) -> None:
    """Multiply a weight; a quantised one keeps its integers and gets other scales."""
    if quantized.source(node, index) is not None:
        quantized.write(node, index, multiplied(factors), facts, editor)
    elif (node, index) in facts.edited:  # merged branches, not rounded yet and in memory anyway
        array, dtype = facts.edited[node, index] * multiplied(factors), facts.constant_dtype(node, index)
        editor.set_input(node, index, array, dtype, f"{label(node)}.weight")
    else:
        editor.multiply(node, index, factors, f"{label(node)}.weight")


def row_times(row: Array, matrix: ir.TensorProtocol) -> Array:
    """`row @ matrix` in float64, for a row of shape `(1, K)` and matrices of shape `(…, K, N)`."""
    *stack, _, columns = matrix.shape.numpy()
    product = np.zeros((*stack, 1, columns))
    for where, part in parts(matrix, whole=1):
        rows = where[len(stack) :] or (slice(None),)
        product[where[: len(stack)]] += matmul.product(row[:, rows[0]], np.asarray(part, np.float64))
    return product


def times_column(matrix: ir.TensorProtocol, column: Array) -> Array:
    """`matrix @ column` in float64, for matrices of shape `(…, M, K)` and a column of shape `(K, 1)`."""
    product = np.empty((*matrix.shape.numpy()[:-1], 1))
    for where, part in parts(matrix, whole=1):
        product[where] = matmul.product(np.asarray(part, np.float64), column)
    return product
