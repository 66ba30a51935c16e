"""Normalisations by the data's own statistics: what they give is scaled and shifted by constants."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from bnfold import reasons
from bnfold.algebra.affine import Affine, Array
from bnfold.graph.editor import Editor
from bnfold.graph.facts import Facts, Folds
from bnfold.graph.nodes import integer, label
from bnfold.ops.base import Absorb, Answer, no_rule, unknown_shape, wrong_axis
from bnfold.ops.linear import Linear, bias_problem, channel_problem, constant_problem, demand_finite
from bnfold.reasons import Reason

_PER_CHANNEL = 21  # since this version GroupNormalization has a scale for each channel, before for each group
_Coefficients = tuple[Array, Array]


class InstanceNormalization(Linear):
    """`y = γ·n + β`, n normalised by its own statistics: `s·y + t = (s·γ)·n + (s·β + t)`.

    At the input nothing: ε keeps the normalisation from undoing a scale, and what it undoes does not pass.
    """

    def coefficients(self, node: ir.Node, affine: Affine, facts: Facts) -> _Coefficients | Reason:
        """An affine of the output as a scale and a shift that broadcast against γ and β as they are."""
        size = _size(node, facts)
        if isinstance(size, Reason):
            return size
        return channel_problem(node, affine, 1, size) or affine.vectors(1, size)

    def at_output(self, node: ir.Node, index: int, affine: Affine, facts: Facts) -> Answer:
        """Into γ and β, which keep their shapes."""
        if index != 0:
            return no_rule(node, f"output {index} of {node.op_type}")
        problem = constant_problem(node, 1, facts) or bias_problem(node, 2, facts)
        found = problem or self.coefficients(node, affine, facts)
        return found if isinstance(found, Reason) else [(Absorb("output", affine),)]

    def at_input(self, node: ir.Node, index: int, affine: Affine, facts: Facts) -> Answer:
        """Nothing."""
        if index != 0:
            return no_rule(node, f"input {index} of {node.op_type}")
        return super().at_input(node, index, affine, facts)

    def write(self, node: ir.Node, folds: Folds, facts: Facts, editor: Editor) -> None:
        """Write γ, and β where there was one or it is not zero."""
        gamma, beta = facts.operand(node, 1), facts.operand(node, 2)
        found = self.coefficients(node, folds.outward, facts)
        assert gamma is not None, "planned on a constant"
        assert not isinstance(found, Reason), "planned on constants that take it"
        scale, shift = found
        new = scale * (np.zeros_like(gamma) if beta is None else beta) + shift
        demand_finite(node, new, facts)
        dtypes = [facts.constant_dtype(node, index) for index in (1, 1 if beta is None else 2)]
        editor.set_input(node, 1, gamma * scale, dtypes[0], f"{label(node)}.scale")
        if beta is not None or np.any(new):
            editor.set_input(node, 2, new, dtypes[1], f"{label(node)}.bias")


class GroupNormalization(InstanceNormalization):
    """As InstanceNormalization; before version 21 γ and β are the same for all channels of a group."""

    def coefficients(self, node: ir.Node, affine: Affine, facts: Facts) -> _Coefficients | Reason:
        """One number for each channel, or for each group."""
        groups = _size(node, facts)
        if isinstance(groups, Reason):
            return groups
        if facts.version(node) >= _PER_CHANNEL or not affine.axes:
            return super().coefficients(node, affine, facts)
        if affine.axes != {1}:
            return wrong_axis(node, affine, 1)
        channels = max(c.shape[1] for c in affine.padded(2))
        if channels % groups or groups != integer(node, "num_groups", groups):
            setting = "a number of groups that does not divide the channels"
            return reasons.SETTING(node=label(node), operator=node.op_type, setting=setting)
        scale, shift = (vector.reshape(groups, -1) for vector in affine.vectors(1, channels))
        if np.any(scale != scale[:, :1]) or np.any(shift != shift[:, :1]):
            setting = "one scale and one bias for all channels of a group, as before version 21"
            return reasons.SETTING(node=label(node), operator=node.op_type, setting=setting)
        return scale[:, 0], shift[:, 0]


class LayerNormalization(InstanceNormalization):
    """As InstanceNormalization; γ and β are aligned with the last axes, and β may be left out.

    The mean and the deviation that it gives too are those of its input, which stays. RMSNormalization has no
    β and takes a scale alone.
    """

    def coefficients(self, node: ir.Node, affine: Affine, facts: Facts) -> _Coefficients | Reason:
        """Numbers along those axes that γ and β have."""
        if affine.has_shift and node.op_type == "RMSNormalization":
            return reasons.SHIFT(operator=node.op_type, node=label(node))
        gamma, beta, rank = facts.operand(node, 1), facts.operand(node, 2), facts.rank(node.outputs[0])
        assert gamma is not None, "asked about constants"
        if not affine.axes:
            return affine.scale, affine.shift
        if rank is None or rank < gamma.ndim:
            return unknown_shape(node, node.outputs[0])
        own = (1,) * (rank - gamma.ndim) + gamma.shape
        if beta is not None and beta.shape != gamma.shape:
            own = (1,) * rank  # one of them would have to become larger
        sizes = np.broadcast_shapes(*(c.shape for c in affine.padded(rank)))
        if any(size not in (1, have) for size, have in zip(sizes, own, strict=True)):
            allowed = ", ".join(str(axis) for axis, size in enumerate(own) if size != 1) or "none"
            return wrong_axis(node, affine, allowed)
        scale, shift = (c.reshape(c.shape[rank - gamma.ndim :]) for c in affine.padded(rank))
        return scale, shift


def _size(node: ir.Node, facts: Facts) -> int | Reason:
    """The number of elements of γ, and of β."""
    gamma, beta = facts.operand(node, 1), facts.operand(node, 2)
    if gamma is not None and gamma.ndim == 1 and gamma.size and (beta is None or beta.shape == gamma.shape):
        return gamma.size
    setting = "a scale and a bias that are not vectors of one size"
    return reasons.SETTING(node=label(node), operator=node.op_type, setting=setting)


OPERATORS = {
    "InstanceNormalization": InstanceNormalization(),
    "GroupNormalization": GroupNormalization(),
    "LayerNormalization": LayerNormalization(),
    "RMSNormalization": LayerNormalization(),
}
