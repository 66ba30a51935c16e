"""BatchNormalization in eval mode, every version: what is to be folded, and a place to fold into."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from bnfold import reasons
from bnfold.algebra.affine import Affine, Array
from bnfold.graph.editor import Editor
from bnfold.graph.facts import Facts, Folds
from bnfold.graph.nodes import caller_problem, integer, label, name_of, real
from bnfold.ops.base import Absorb, Answer, no_rule, wrong_axis
from bnfold.ops.constraints import invalid
from bnfold.ops.linear import Linear
from bnfold.reasons import Reason
from bnfold.tensors.precision import FLOATS

_PARAMETERS = (1, 2, 3, 4)  # scale γ, bias β, mean μ, variance σ²


class BatchNormalization(Linear):
    """BatchNormalization, `y = s·x + t` with `s = γ/√(σ²+ε)` and `t = β − μ·s` (Ioffe & Szegedy, 2015).

    An affine at its output or its input composes with it. What the composition needs is written into γ and β,
    with μ = 0 and σ² as it was, so that each number is rounded once; in float16 μ and σ² change too.
    """

    def at_output(self, node: ir.Node, index: int, affine: Affine, facts: Facts) -> Answer:
        """Compose: `affine ∘ self`."""
        if index != 0:
            return no_rule(node, "a statistic of BatchNormalization")
        return self._compose(node, Absorb("output", affine), facts)

    def at_input(self, node: ir.Node, index: int, affine: Affine, facts: Facts) -> Answer:
        """Compose: `self ∘ affine`."""
        if index != 0:
            return reasons.NOT_CONSTANT(value=name_of(node.inputs[index]), node=label(node))
        return self._compose(node, Absorb("input", affine), facts)

    def _compose(self, node: ir.Node, step: Absorb, facts: Facts) -> Answer:
        own = affine_of(node, facts)
        if isinstance(own, Reason):
            return own
        fits = step.affine.axes <= {1} and all(
            array is not None and array.ndim == 1 for array in (facts.operand(node, i) for i in _PARAMETERS)
        )
        return [(step,)] if fits else wrong_axis(node, step.affine, 1)

    def write(self, node: ir.Node, folds: Folds, facts: Facts, editor: Editor) -> None:
        """Write γ, β and μ of the composition."""
        own = affine_of(node, facts)
        variance = facts.operand(node, 4)
        assert isinstance(own, Affine), "planned on readable parameters"
        assert variance is not None, "planned on readable parameters"
        scale, shift = folds.inward.then(own).then(folds.outward).vectors(1, variance.size)
        mean, bias, held = np.zeros_like(shift), shift, variance
        if facts.constant_dtype(node, 1) == ir.DataType.FLOAT16:
            mean, bias, variance = _within_half(scale, shift, variance)
        gamma = scale * np.sqrt(variance + _epsilon(node))
        written = [(1, gamma, "scale"), (2, bias, "bias"), (3, mean, "mean")]
        if not np.array_equal(variance, held):
            written.append((4, variance, "variance"))
        for index, array, name in written:
            dtype = facts.constant_dtype(node, index)
            editor.set_input(node, index, array, dtype, f"{label(node)}.{name}")


def _within_half(scale: Array, shift: Array, variance: Array) -> tuple[Array, Array, Array]:
    """μ, β and σ² of `s·x + t` such that nothing on the way is much larger than x, y or t.

    A runtime may compute `γ·(x − μ)` in float16 before it divides by σ and adds β. Where |s| is 1 or more, μ
    takes the shift, so that `x − μ` is y / s; otherwise β does. σ is reduced until γ = s·σ lies between 1 and
    |s|: then γ is no cause of an infinity, and not so small that float16 rounds it coarsely. The variance is
    rounded to float16 already, so that γ can make up for that.
    """
    steep = np.abs(scale) >= 1.0
    mean = np.where(steep, -shift / np.where(steep, scale, 1.0), 0.0)
    with np.errstate(divide="ignore"):
        enough = np.maximum(1.0, 1.0 / np.square(scale))
    reduced = np.minimum(variance, enough).astype(np.float16).astype(np.float64)
    return mean, np.where(steep, 0.0, shift), reduced


def affine_of(node: ir.Node, facts: Facts) -> Affine | Reason:
    """The map that a BatchNormalization is, or why it cannot be moved.

    Args:
        node: A BatchNormalization of any version.
        facts: What is known of its model.
    """
    if node not in facts.maps:
        facts.maps[node] = _read(node, facts)
    return facts.maps[node]


def _read(node: ir.Node, facts: Facts) -> Affine | Reason:
    problem = caller_problem(node) or _mode_problem(node, facts) or _parameter_problem(node, facts)
    problem = problem or invalid(node, facts)
    if problem is not None:
        return problem
    arrays = [facts.operand(node, index) for index in _PARAMETERS]
    gamma, beta, mean, variance = (array for array in arrays if array is not None)
    spread = variance + _epsilon(node)
    for what, bad in (
        ("a NaN or an infinity among its parameters", not all(map(_finite, (gamma, beta, mean, variance)))),
        ("a variance that is not positive, even with ε added", bool((spread <= 0).any())),
        ("parameters of different shapes", len({array.shape for array in arrays if array is not None}) > 1),
    ):
        if bad:
            return reasons.BAD_NUMBERS(node=label(node), what=what)
    scale = gamma / np.sqrt(spread)
    shift = beta - mean * scale
    # before version 9, `spatial=0` has one statistic an element: shape (C, D1, …) in place of (C,)
    return Affine(scale[None], shift[None])


def _mode_problem(node: ir.Node, facts: Facts) -> Reason | None:
    version, further = facts.version(node), node.outputs[1:]
    # versions 1 and 6 train unless `is_test` is set, later ones where `training_mode` is
    trains = integer(node, "is_test", 0) == 0 if version < 7 else integer(node, "training_mode", 0) != 0
    if 7 <= version < 14:
        # more outputs than one mean training, whether anything reads them or not
        trains = any(output.name for output in further)
    if trains or any(output.uses() or output.is_graph_output() for output in further):
        return reasons.TRAINING_MODE(node=label(node))
    return None


def _parameter_problem(node: ir.Node, facts: Facts) -> Reason | None:
    for index in _PARAMETERS:
        value = node.inputs[index] if index < len(node.inputs) else None
        if value is not None and facts.constants.is_overridable(value):
            return reasons.OVERRIDABLE_PARAMETER(value=name_of(value), node=label(node))
        if value is None or not facts.has_constant(node, index):
            return reasons.NOT_CONSTANT(value=name_of(value), node=label(node))
        if facts.dtype(value) not in FLOATS:
            return reasons.NOT_FLOAT(value=name_of(value), dtype=facts.dtype(value))
    return None


def _epsilon(node: ir.Node) -> float:
    return real(node, "epsilon", float(np.float32(1e-5)))


def _finite(array: Array) -> bool:
    return bool(np.isfinite(array).all())


OPERATORS = {"BatchNormalization": BatchNormalization()}
