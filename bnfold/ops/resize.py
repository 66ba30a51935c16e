"""Resize and Upsample: interpolation with weights that sum to one."""

from __future__ import annotations

import onnx_ir as ir

from bnfold import reasons
from bnfold.algebra.affine import Affine
from bnfold.graph.facts import Facts
from bnfold.graph.nodes import integers, label, text
from bnfold.ops.base import Answer, Operator, ToInput, ToOutput, no_rule, wrong_axis
from bnfold.reasons import Reason


class Resize(Operator):
    """Every output element is a mean of input elements, weighted by numbers that sum to one.

    So any affine passes in both directions, as long as it does not vary along a resized axis. An axis keeps
    its elements where its scale is 1; sizes that agree do not prove that, since sizes are rounded.
    """

    def at_output(self, node: ir.Node, index: int, affine: Affine, facts: Facts) -> Answer:
        """The same affine at the input."""
        del index
        return _problem(node, affine, facts) or [(ToInput(0, affine),)]

    def at_input(self, node: ir.Node, index: int, affine: Affine, facts: Facts) -> Answer:
        """The same affine at the output."""
        if index != 0:
            return no_rule(node, f"input {index} of {node.op_type}")
        return _problem(node, affine, facts) or [(ToOutput(0, affine),)]


def _problem(node: ir.Node, affine: Affine, facts: Facts) -> Reason | None:
    # crops, and writes a fixed number where it reads beyond the border
    if text(node, "coordinate_transformation_mode", "half_pixel") == "tf_crop_and_resize":
        return reasons.SETTING(node=label(node), operator=node.op_type, setting="tf_crop_and_resize")
    if affine.axes and not affine.axes <= kept_axes(node, facts):
        return wrong_axis(node, affine, "that is not resized")
    return None


def kept_axes(node: ir.Node, facts: Facts) -> frozenset[int]:
    """The axes that are provably not resized."""
    source = node.inputs[0]
    rank = facts.rank(source)
    if rank is None:
        return frozenset()
    axes = [axis % rank for axis in integers(node, "axes")] or list(range(rank))
    untouched = frozenset(range(rank)) - frozenset(axes)
    scales = _scales(node, facts)
    if scales is not None:
        return untouched | {axis for axis, scale in zip(axes, scales, strict=False) if scale == 1.0}
    if node.op_type == "Resize" and text(node, "keep_aspect_ratio_policy", "stretch") == "stretch":
        sizes = facts.integers(node, 3, "sizes") or []
        same = {axis for axis, size in zip(axes, sizes, strict=False) if size == facts.size(source, axis)}
        return untouched | same
    return untouched


def _scales(node: ir.Node, facts: Facts) -> list[float] | None:
    if "scales" in node.attributes:
        return [float(scale) for scale in node.attributes["scales"].as_floats()]
    index = 1 if node.op_type == "Upsample" or facts.version(node) < 11 else 2
    array = facts.operand(node, index)
    return [float(scale) for scale in array.reshape(-1)] if array is not None and array.size else None


OPERATORS = {"Resize": Resize(), "Upsample": Resize()}
