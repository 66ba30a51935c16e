"""Gemm: a fully connected layer with its own bias."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from bnfold import reasons
from bnfold.algebra.affine import Affine, Array
from bnfold.graph.editor import Editor
from bnfold.graph.facts import Facts, Folds
from bnfold.graph.nodes import integer, label, name_of, real
from bnfold.ops.base import Absorb, Answer, no_rule
from bnfold.ops.linear import (
    Weighted,
    bias_problem,
    channel_problem,
    constant_problem,
    demand_finite,
    is_zero,
    row_times,
    times_column,
    weight_shape,
    write_weight,
)
from bnfold.reasons import Reason


class Gemm(Weighted):
    """Gemm, `Y = α·A'·B' + β·C`, with B (the usual weight) or A constant.

    Output: `s·Y + t = α·A'·(B'·s) + (s·β·C + t)`, s along the free axis of the constant.
    Input: `α·(A'·s + t)·B' + β·C = α·A'·(s·B') + (α·t·B' + β·C)`, s along the contracted axis.
    C may be of any shape that broadcasts; it is written with β = 1.
    """

    def at_output(self, node: ir.Node, index: int, affine: Affine, facts: Facts) -> Answer:
        """Scale the constant's free axis, shift C."""
        del index
        weight = _weight_index(node, facts)
        problem = _problem(node, weight, facts)
        if problem is None:
            free, _ = _axes(node, weight)
            # B's free axis gives the columns of Y, A's the rows
            problem = channel_problem(node, affine, weight, weight_shape(node, weight, facts)[free])
        return problem or self.absorb(node, weight, Absorb("output", affine), facts)

    def at_input(self, node: ir.Node, index: int, affine: Affine, facts: Facts) -> Answer:
        """Scale the constant's contracted axis, add what the shift gives to C."""
        weight = 1 - index
        if index > 1:
            return no_rule(node, "Gemm's C")
        problem = _problem(node, weight, facts)
        if problem is None:
            _, contracted = _axes(node, weight)
            _, axis = _axes(node, index)
            problem = channel_problem(node, affine, axis, weight_shape(node, weight, facts)[contracted])
        return problem or self.absorb(node, weight, Absorb("input", affine), facts)

    def write(self, node: ir.Node, folds: Folds, facts: Facts, editor: Editor) -> None:
        """Compute both constants in float64."""
        index = _weight_index(node, facts)
        free, contracted = _axes(node, index)
        _, axis = _axes(node, 1 - index)
        alpha, beta = real(node, "alpha", 1.0), real(node, "beta", 1.0)
        old = facts.operand(node, 2)
        scale, shift = folds.outward.padded(2)
        _, shift_in = folds.inward.vectors(axis, weight_shape(node, index, facts)[contracted])
        from_input = np.zeros(weight_shape(node, index, facts)[free])
        if folds.inward.has_shift:  # 0·∞ is NaN: without a shift, the weight is not read
            matrix = facts.weight(node, index)
            given = (
                row_times(shift_in[None], matrix) if free == 1 else times_column(matrix, shift_in[:, None])
            )
            from_input = alpha * given.reshape(-1)
        bias = _as_row_or_column(from_input, index)
        if old is not None and beta != 0 and np.any(old):  # zeros may have any shape
            bias = bias + beta * old
        demand_finite(node, scale * bias + shift, facts)
        self._write_c(node, scale * bias + shift, old, facts, editor)
        write_weight(node, index, self.factors(node, folds, facts), facts, editor)

    def scales(self, node: ir.Node, folds: Folds, facts: Facts) -> tuple[Array, Array]:
        """The scales on the free and on the contracted axis."""
        free, contracted = _axes(node, _weight_index(node, facts))
        return _on_axis(folds.outward.scale, free), _on_axis(folds.inward.scale, contracted)

    def _write_c(self, node: ir.Node, bias: Array, old: Array | None, facts: Facts, editor: Editor) -> None:
        if old is None and not np.any(bias):
            return
        if bias.shape[0] == 1 and (old is None or old.ndim < 2):
            bias = bias[0]
        if "beta" in node.attributes:
            node.attributes["beta"] = ir.AttrFloat32("beta", 1.0)
        dtype = facts.constant_dtype(node, 2 if old is not None else _weight_index(node, facts))
        editor.set_input(node, 2, bias, dtype, f"{label(node)}.bias")


def _weight_index(node: ir.Node, facts: Facts) -> int:
    return 1 if facts.has_constant(node, 1) or not facts.has_constant(node, 0) else 0


def _axes(node: ir.Node, index: int) -> tuple[int, int]:
    """The free and the contracted axis of A (index 0) or B (index 1) as it is stored."""
    transposed = integer(node, "transB" if index == 1 else "transA", 0) != 0
    return (1, 0) if transposed != (index == 1) else (0, 1)


def _problem(node: ir.Node, weight: int, facts: Facts) -> Reason | None:
    if node.inputs[0] is node.inputs[1]:
        return reasons.WEIGHT_NOT_CONSTANT(value=name_of(node.inputs[0]), node=label(node))
    return (
        constant_problem(node, weight, facts) or bias_problem(node, 2, facts) or _misfit(node, weight, facts)
    )


def _misfit(node: ir.Node, weight: int, facts: Facts) -> Reason | None:
    """Why the constants do not fit each other; runtimes refuse such a model only when it runs."""
    matrix = weight_shape(node, weight, facts)
    setting = f"a weight of shape {list(matrix)}"
    if len(matrix) == 2 and not _has_c(node, facts):
        return None
    if len(matrix) == 2:
        (free, _), c = _axes(node, weight), weight_shape(node, 2, facts)
        own = (1, 1, *c)[len(c) :][1 if weight == 1 else 0]  # along the axis that the weight decides
        if len(c) <= 2 and own in (1, matrix[free]):
            return None
        setting = f"a bias of shape {list(c)} for a weight of shape {list(matrix)}"
    return reasons.SETTING(node=label(node), operator=node.op_type, setting=setting)


def _has_c(node: ir.Node, facts: Facts) -> bool:
    value = node.inputs[2] if len(node.inputs) > 2 else None
    return value is not None and not is_zero(value, facts)


def _on_axis(scale: Array, axis: int) -> Array:
    """A scale that varies along one axis at most, along that of a matrix."""
    return scale.reshape((-1, 1) if axis == 0 else (1, -1))


def _as_row_or_column(vector: Array, weight: int) -> Array:
    return vector[None, :] if weight == 1 else vector[:, None]


OPERATORS = {"Gemm": Gemm()}
