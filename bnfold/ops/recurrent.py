"""LSTM, GRU, RNN: linear in the sequence that they read, and in nothing else."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from bnfold import reasons
from bnfold.algebra.affine import Affine, Array
from bnfold.graph.editor import Editor
from bnfold.graph.facts import Facts, Folds
from bnfold.graph.nodes import label
from bnfold.ops.base import Absorb, Answer, no_rule
from bnfold.ops.linear import (
    Weighted,
    bias_problem,
    channel_problem,
    constant_problem,
    times_column,
    weight_shape,
    write_bias,
    write_weight,
)
from bnfold.reasons import Reason

_CHANNELS = 2  # of X, whose first two axes are time and batch, or the other way round where `layout` is 1


class Recurrent(Weighted):
    """One recurrent layer, W `[directions, gates·hidden, Cin]` and B `[directions, 2·gates·hidden]`.

    Input: every gate of every direction reads X as `X·Wᵀ + Wb`, so the scale goes to W's last axis and `W·t`
    is added to the input half of B. A GRU with `linear_before_reset` treats only the recurrent half
    otherwise. `sequence_lens` says which steps count, and X is read in this way alone, whichever do. R, P and
    the initial states are not X.
    Output: nothing, since the next step reads the output through R and a nonlinearity.
    """

    def at_input(self, node: ir.Node, index: int, affine: Affine, facts: Facts) -> Answer:
        """Scale the columns of W, add what the shift gives to B."""
        if index != 0:
            return no_rule(node, f"input {index} of {node.op_type}")
        problem = constant_problem(node, 1, facts) or _shape_problem(node, facts)
        if problem is None:
            problem = channel_problem(node, affine, _CHANNELS, weight_shape(node, 1, facts)[-1])
        if problem is None and affine.has_shift:
            problem = bias_problem(node, 3, facts)
        return problem or self.absorb(node, 1, Absorb("input", affine), facts)

    def scales(self, node: ir.Node, folds: Folds, facts: Facts) -> tuple[Array, Array]:
        """The scale of the input over the last axis of W; the output has none."""
        del node, facts
        return folds.inward.scale.reshape(1, 1, -1), np.ones((1, 1, 1))

    def write(self, node: ir.Node, folds: Folds, facts: Facts, editor: Editor) -> None:
        """Write B where there is a shift, and W times its factor."""
        directions, rows, size = weight_shape(node, 1, facts)
        if folds.inward.has_shift:
            _, shift = folds.inward.vectors(_CHANNELS, size)
            old = facts.operand(node, 3)
            bias = np.zeros((directions, 2 * rows)) if old is None else old.copy()
            bias[:, :rows] += times_column(facts.weight(node, 1), shift[:, None])[..., 0]
            write_bias(node, 3, bias, facts, editor)
        write_weight(node, 1, self.factors(node, folds, facts), facts, editor)


def _shape_problem(node: ir.Node, facts: Facts) -> Reason | None:
    """Why W or B is not what the operator asks for, which runtimes do not all notice; None where they are."""
    shape, bias = weight_shape(node, 1, facts), facts.operand(node, 3)
    if len(shape) == 3 and (bias is None or bias.shape == (shape[0], 2 * shape[1])):
        return None
    setting = "a weight and a bias that do not fit each other"
    return reasons.SETTING(node=label(node), operator=node.op_type, setting=setting)


OPERATORS = {"LSTM": Recurrent(), "GRU": Recurrent(), "RNN": Recurrent()}
